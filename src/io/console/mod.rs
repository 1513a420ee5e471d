//! The operator's console: a page, a health check and metrics, on threads of its own.
//!
//! Owns its listener and its threads. It sees the event loop only through a bounded channel that
//! it never waits to put something into, and the database only through a connection that cannot
//! write: a stuck browser or a scraper never delays a push message.

mod exchange;
mod host;
mod metrics;
mod page;
mod report;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use log::{debug, warn};
use serde_json::json;
use smol::channel::Sender;
use tiny_http::Method;

use self::exchange::{Answer, Head, HeadError, Until};
use self::report::{Sources, State};
use crate::engine::counters::Snapshot;
use crate::storage::Health;

/// Connections at a time, each with a thread. A browser opens six to one host.
const CONNECTIONS_MAX: usize = 16;
/// Stack of such a thread: SQLite's queries and the page's text fit in many times over.
const STACK_BYTES: usize = 256 << 10;
/// Longest that a request may take to arrive. Browsers open connections in advance and leave them
/// silent; those must not take the place of others for long.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// Wait after the system has given us no connection or no thread, so as not to ask in a hot loop.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What the event loop is asked for.
#[derive(Debug)]
pub struct SnapshotRequest {
    /// Takes the one answer without waiting. That nobody wants it any more is no fault.
    pub reply: SyncSender<Snapshot>,
}

/// What the console shows and cannot ask the event loop for.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where the database is.
    pub data_directory: PathBuf,
    /// Of this program.
    pub version: &'static str,
    /// The kernel's account of what the storage thread reads and writes, where there is one.
    pub io_account: Option<PathBuf>,
    /// What is wrong with the disk or the database.
    pub health: Arc<Health>,
    /// What to set user agents to, such as `ws://192.168.1.5:8090/`.
    pub push_address: String,
}

/// A running console.
#[derive(Debug)]
pub struct Console {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    stopping: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Console {
    /// Listens at `address`, which may leave the port to the system, and answers from then on.
    ///
    /// `requests` is bounded, and one place is enough: it is asked once at a time.
    ///
    /// # Errors
    ///
    /// [`ConsoleError`] when the address is not to be had, or no thread.
    pub fn bind(
        address: SocketAddr,
        requests: Sender<SnapshotRequest>,
        facts: Facts,
    ) -> Result<Self, ConsoleError> {
        let bound = |error| ConsoleError::Listen(address, error);
        let listener = Arc::new(TcpListener::bind(address).map_err(bound)?);
        let address = listener.local_addr().map_err(bound)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let desk = Arc::new(Desk {
            sources: Sources::new(facts, requests),
            machine_name: host::machine_name(),
        });
        let accepting = thread::Builder::new()
            .name("console".to_owned())
            .stack_size(STACK_BYTES)
            .spawn({
                let (listener, stopping) = (Arc::clone(&listener), Arc::clone(&stopping));
                move || accept(&listener, &stopping, &desk)
            })
            .map_err(ConsoleError::Thread)?;
        Ok(Self {
            address,
            listener,
            stopping,
            accepting,
        })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens no more. What is being answered goes on by itself and ends within seconds.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        match wake(&self.listener) {
            // The listener is closed once its thread has let go of it.
            Ok(()) if self.accepting.join().is_ok() => {}
            Ok(()) => warn!("console thread died"),
            Err(error) => warn!("console not stopped: {error}"),
        }
    }
}

/// Makes the thread that waits in `accept` return: Linux does so when the reading half of a
/// listening socket is shut down. The standard library offers that for streams only.
fn wake(listener: &TcpListener) -> io::Result<()> {
    let socket = OwnedFd::from(listener.try_clone()?);
    TcpStream::from(socket).shutdown(Shutdown::Both)
}

/// Why there is no console.
#[derive(Debug)]
pub enum ConsoleError {
    /// The address is taken, or not ours.
    Listen(SocketAddr, io::Error),
    /// The system starts no more threads.
    Thread(io::Error),
}

impl fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => write!(
                f,
                "cannot listen at {address} for the console: {error}; \
                 choose another address with --console"
            ),
            Self::Thread(error) => write!(f, "cannot start the console's thread: {error}"),
        }
    }
}

impl std::error::Error for ConsoleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen(_, error) | Self::Thread(error) => Some(error),
        }
    }
}

/// Accepts until told to stop. A fault of the system is waited out, and logged once for each run
/// of them: descriptors run out when many user agents connect, and come back.
fn accept(listener: &TcpListener, stopping: &AtomicBool, desk: &Arc<Desk>) {
    let mut healthy = true;
    while !stopping.load(Ordering::Relaxed) {
        match listener
            .accept()
            .and_then(|(stream, _)| serve(stream, desk))
        {
            Ok(()) => healthy = true,
            Err(_) if stopping.load(Ordering::Relaxed) => break,
            Err(error) => {
                if healthy {
                    warn!("console accepts no connection: {error}");
                }
                healthy = false;
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Starts a thread for a connection, or turns it away without one.
fn serve(stream: TcpStream, desk: &Arc<Desk>) -> io::Result<()> {
    // One is ours, and each connection has its own.
    if Arc::strong_count(desk) > CONNECTIONS_MAX {
        debug!("console connection turned away open_max={CONNECTIONS_MAX}");
        let busy = Answer::text(503, "Too many browsers at a time. Try again in a moment.\n");
        // A peer that is gone already is no fault of the listener.
        let _ = busy.write(&stream, false);
        return Ok(());
    }
    let desk = Arc::clone(desk);
    thread::Builder::new()
        .name("console".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            if let Err(error) = desk.converse(&stream) {
                debug!("console connection failed: {error}");
            }
        })?;
    Ok(())
}

/// What all connections share.
#[derive(Debug)]
struct Desk {
    sources: Sources,
    machine_name: String,
}

impl Desk {
    /// One request, one answer.
    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        let head = Head::read(Until::new(stream, REQUEST_TIME_MAX));
        let without_body = matches!(&head, Ok(head) if head.method == Method::Head);
        match head.map_or_else(HeadError::answer, |head| Some(self.answer(&head))) {
            Some(answer) => answer.write_and_end(stream, without_body),
            None => Ok(()),
        }
    }

    fn answer(&self, head: &Head) -> Answer {
        if !host::is_allowed(&head.host, &self.machine_name) {
            return Answer::text(
                403,
                "The console does not answer to this name, as a page from elsewhere could have \
                 made it up. Use the address of this machine, its bare name, or NAME.local.\n",
            );
        }
        let method = head.method.as_str();
        if !matches!(method, "GET" | "HEAD") {
            return Answer::text(405, "The console can only be read: GET or HEAD.\n");
        }
        match head.path.as_str() {
            "/" => self.page(),
            "/healthz" => self.health(),
            "/metrics" => self.metrics(),
            "/try" => self.try_page(),
            "/try.js" => script(include_str!("try.js")),
            "/try-worker.js" => script(include_str!("try-worker.js")),
            _ => Answer::text(404, "There is /, /try, /metrics and /healthz.\n"),
        }
    }

    fn try_page(&self) -> Answer {
        let html = page::try_html(&self.sources.facts);
        Answer::of_try_page("text/html; charset=utf-8", html)
    }

    fn page(&self) -> Answer {
        let html = page::html(&self.sources.report(), &self.sources.facts);
        Answer::new(200, "text/html; charset=utf-8", html)
    }

    fn health(&self) -> Answer {
        let fault = self.sources.facts.health.fault();
        let state = State::of(self.sources.snapshot().as_ref(), fault);
        let (status, body) = match state.reason() {
            None => (200, json!({"status": state.word()})),
            Some(reason) => (503, json!({"status": state.word(), "reason": reason})),
        };
        Answer::new(status, "application/json", format!("{body}\n"))
    }

    fn metrics(&self) -> Answer {
        let text = metrics::text(&self.sources.report(), self.sources.facts.version);
        Answer::new(200, metrics::CONTENT_TYPE, text)
    }
}

fn script(text: &str) -> Answer {
    Answer::of_try_page("text/javascript; charset=utf-8", text.to_owned())
}
