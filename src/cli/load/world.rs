//! What all user agents of a run share: the books, the clock of the run, and the application server.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded};
use smol::future::{or, yield_now};
use smol::lock::Semaphore;

use super::arguments::{Options, SIZE_MAX};
use super::device::Target;
use super::histogram::Histogram;
use super::ledger::{ConnectionNumber, Fault, Ledger};
use super::payload::{self, Chance, Payload, SIZE_MIN};
use crate::io::clock;
use crate::io::connect::Connector;
use crate::io::http_client::{ClientError, KeptConnection, Question};
use crate::io::reactor::Timer;
use crate::model::dialect::Dialect;
use crate::protocol::encryption::Headers;
use crate::protocol::form;
use crate::protocol::peer_url::PeerUrl;

/// Websockets that are opened at the same time: as many as a home's devices after a power cut, and
/// fewer than a listener's backlog.
const OPENING_MAX: usize = 64;
/// A connection that has been idle for longer may just be ended by the other side.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// A salt and a public key of the older scheme: of the right length, and no more than that.
const SALT: &str = "salt=AAECAwQFBgcICQoLDA0ODw";
const SENDER_KEY: &str =
    "dh=BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// What an answer to a post must be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expected {
    /// The message is taken.
    Accepted,
    /// There is no such subscription, or no more.
    Gone,
}

impl Expected {
    const fn is(self, status: u16) -> bool {
        match self {
            Self::Accepted => matches!(status, 200..=202),
            Self::Gone => matches!(status, 404 | 410),
        }
    }
}

/// Which sizes and encodings a body has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bodies {
    /// As the options say, under the newer encryption scheme.
    AsAsked,
    /// Every size, under both schemes.
    All,
}

/// The world of a run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) options: Options,
    pub(super) connector: Connector,
    pub(super) ledger: RefCell<Ledger>,
    pub(super) chance: Chance,
    pub(super) opening: Semaphore,
    pub(super) connect_time: RefCell<Histogram>,
    pub(super) ping_time: RefCell<Histogram>,
    pub(super) drain_time: RefCell<Histogram>,
    /// Websockets that are open.
    pub(super) open: Cell<u64>,
    connections: Cell<ConnectionNumber>,
    /// When no more is sent; `None` before the start.
    end: Cell<Option<Instant>>,
    /// When the next message may be sent.
    next_post: Cell<Option<Instant>>,
    /// Closed when all are connected.
    started: (Sender<()>, Receiver<()>),
    /// Closed when the run is to end before its time.
    stopped: (Sender<()>, Receiver<()>),
    posting: Semaphore,
    kept: RefCell<HashMap<String, Vec<(KeptConnection, Instant)>>>,
}

impl World {
    pub(super) fn new(options: Options) -> Rc<Self> {
        Rc::new(Self {
            connector: Connector::new(options.ca.clone()),
            ledger: RefCell::default(),
            chance: Chance::new(options.seed),
            opening: Semaphore::new(OPENING_MAX),
            connect_time: RefCell::default(),
            ping_time: RefCell::default(),
            drain_time: RefCell::default(),
            open: Cell::new(0),
            connections: Cell::new(0),
            end: Cell::new(None),
            next_post: Cell::new(None),
            started: bounded(1),
            stopped: bounded(1),
            posting: Semaphore::new(usize::try_from(options.connections).unwrap_or(usize::MAX)),
            kept: RefCell::default(),
            options,
        })
    }

    /// The subscriptions that a user agent begins with.
    pub(super) fn channels(&self) -> usize {
        usize::try_from(self.options.channels).unwrap_or(usize::MAX)
    }

    pub(super) fn new_connection(&self) -> ConnectionNumber {
        let number = self.connections.get();
        self.connections.set(number.wrapping_add(1));
        number
    }

    /// A websocket was opened, of which the handshake began at `since`.
    pub(super) fn opened(&self, since: Instant) {
        self.connect_time
            .borrow_mut()
            .add(since, clock::monotonic());
        self.open.set(self.open.get().saturating_add(1));
    }

    pub(super) fn closed(&self) {
        self.open.set(self.open.get().saturating_sub(1));
    }

    /// Starts the time that the run takes.
    pub(super) fn start(&self) {
        let now = clock::monotonic();
        if self.end.get().is_none() {
            self.end.set(now.checked_add(self.options.time));
            self.next_post.set(Some(now));
        }
        self.started.0.close();
    }

    /// Ends the run: what is owed may still come.
    pub(super) fn stop(&self) {
        self.end.set(Some(clock::monotonic()));
        self.started.0.close();
        self.stopped.0.close();
    }

    pub(super) async fn started(&self) {
        ended(&self.started.1).await;
    }

    /// Whether more is to be done.
    pub(super) fn is_running(&self) -> bool {
        let early = self.end.get().is_none_or(|end| clock::monotonic() < end);
        early && self.ledger.borrow().next() < self.options.messages_max
    }

    /// Waits, but not beyond the end.
    pub(super) async fn pause(&self, time: Duration) {
        let now = clock::monotonic();
        let until = now.checked_add(time).unwrap_or(now);
        let until = self.end.get().map_or(until, |end| until.min(end));
        let over = async {
            Timer::at(until).await;
        };
        or(over, ended(&self.stopped.1)).await;
    }

    /// Waits until the rate allows one more message; whether it does before the end.
    async fn pace(&self) -> bool {
        let Some(interval) = Duration::from_secs(1).checked_div(self.options.rate_per_sec) else {
            return true;
        };
        let now = clock::monotonic();
        let at = self.next_post.get().map_or(now, |next| next.max(now));
        if self.end.get().is_some_and(|end| at >= end) {
            return false;
        }
        self.next_post.set(at.checked_add(interval));
        Timer::at(at).await;
        true
    }

    /// Sends one message if the rate allows it before the end.
    pub(super) async fn post(&self, target: &Target, bodies: Bodies, expected: Expected) {
        if self.pace().await {
            self.post_now(target, bodies, expected).await;
            // A turn that was given back could be taken again before those who wait are awake: with
            // fewer connections than user agents some would never get one.
            yield_now().await;
        }
    }

    /// Sends one message; the answer, and everything that is wrong with it, goes into the books.
    pub(super) async fn post_now(&self, target: &Target, bodies: Bodies, expected: Expected) {
        let _turn = self.posting.acquire().await;
        let mut connection = match self.connection(&target.endpoint).await {
            Ok(connection) => connection,
            Err(error) => return self.unanswered(&error),
        };
        let payload = self.payload(bodies);
        let is_update = self.options.dialect == Dialect::SimplePush;
        let sequence = self.ledger.borrow_mut().post(
            target.agent,
            target.channel,
            payload,
            is_update,
            clock::monotonic(),
        );
        let question = self.question(&target.endpoint, sequence, payload);
        match connection.ask(question).await {
            Ok(answer) => {
                let taken = expected == Expected::Accepted && expected.is(answer.status);
                let mut ledger = self.ledger.borrow_mut();
                ledger.answered(sequence, answer.status, taken, clock::monotonic());
                if !expected.is(answer.status) {
                    let said = answer.message().unwrap_or_default();
                    ledger.fault(Fault::Status, || format!("{}: {said}", answer.status));
                }
                drop(ledger);
                self.keep(&target.endpoint, connection);
            }
            Err(error) => self.unanswered(&error),
        }
    }

    pub(super) fn unanswered(&self, error: &ClientError) {
        let mut ledger = self.ledger.borrow_mut();
        ledger.fault(Fault::NoAnswer, || error.to_string());
    }

    /// Asks something that is no message.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<u16, ClientError> {
        let url = question.url;
        let mut connection = self.connection(url).await?;
        let answer = connection.ask(question).await?;
        self.keep(url, connection);
        Ok(answer.status)
    }

    async fn connection(&self, url: &PeerUrl) -> Result<KeptConnection, ClientError> {
        match self.kept(url) {
            Some(connection) => Ok(connection),
            None => KeptConnection::open(url, &self.connector).await,
        }
    }

    fn kept(&self, url: &PeerUrl) -> Option<KeptConnection> {
        let now = clock::monotonic();
        let mut all = self.kept.borrow_mut();
        let kept = all.get_mut(&url.origin())?;
        kept.retain(|(_, since)| now.saturating_duration_since(*since) < IDLE_MAX);
        kept.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, url: &PeerUrl, connection: KeptConnection) {
        if connection.is_open() {
            let mut all = self.kept.borrow_mut();
            let kept = all.entry(url.origin()).or_default();
            kept.push((connection, clock::monotonic()));
        }
    }

    fn payload(&self, bodies: Bodies) -> Payload {
        let is_update = self.options.dialect == Dialect::SimplePush;
        let (first, last) = match bodies {
            Bodies::AsAsked => self.options.sizes,
            Bodies::All if is_update => (0, SIZE_MAX),
            Bodies::All => (SIZE_MIN, SIZE_MAX),
        };
        let size = self.chance.between(first.into(), last.into());
        Payload {
            size: u16::try_from(size).unwrap_or(last),
            old: bodies == Bodies::All && self.chance.between(0, 1) == 1,
        }
    }

    fn question<'a>(&self, url: &'a PeerUrl, sequence: u64, payload: Payload) -> Question<'a> {
        let seed = self.options.seed;
        match self.options.dialect {
            Dialect::WebPush => {
                let mut headers = vec![("ttl", self.options.ttl_secs.to_string())];
                if payload.old {
                    headers.push(("content-encoding", "aesgcm".to_owned()));
                    headers.push(("encryption", SALT.to_owned()));
                    headers.push(("crypto-key", SENDER_KEY.to_owned()));
                } else {
                    headers.push(("content-encoding", "aes128gcm".to_owned()));
                }
                let body = payload::body(seed, sequence, payload.size);
                Question {
                    method: "POST",
                    url,
                    headers,
                    body,
                }
            }
            Dialect::SimplePush => {
                let version = sequence.saturating_add(1).to_string();
                let data = payload::data(seed, sequence, payload.size);
                let fields = [("version", version.as_str()), ("data", data.as_str())];
                let fields = if data.is_empty() {
                    &fields[..1]
                } else {
                    &fields
                };
                update(url, form::write(fields))
            }
        }
    }

    /// Whether these are the headers that [`question`](Self::question) gives.
    pub(super) fn has_headers(&self, headers: Headers<'_>, old: bool) -> bool {
        if old {
            headers.encoding == "aesgcm"
                && headers.encryption == SALT
                && headers.crypto_key == SENDER_KEY
        } else {
            headers.encoding == "aes128gcm"
        }
    }
}

/// Waits until nobody holds the other end, or it is closed. Nothing is ever sent.
pub(super) async fn ended(channel: &Receiver<()>) {
    let _ = channel.recv().await;
}

/// The request with a form that SimplePush sends.
pub(super) fn update(url: &PeerUrl, form: String) -> Question<'_> {
    Question {
        method: "PUT",
        url,
        headers: vec![("content-type", form::CONTENT_TYPE.to_owned())],
        body: form.into_bytes(),
    }
}
