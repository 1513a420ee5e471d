//! What the service manager is told (sd_notify(3)) and what it passes on (sd_listen_fds(3)).
//!
//! Started by anybody else there is nobody to tell and nothing is passed.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::rc::Rc;
use std::time::Duration;

use listenfd::ListenFd;
use log::{debug, warn};

use super::reactor::Timer;

/// How long the watchdog waits while a damaged database is replaced, when no event loop goes round: as
/// long as the unit allows a start.
const REPLACING_MAX: Duration = Duration::from_secs(15 * 60);

/// Whoever started this process as a service, if anybody did.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// Longest that it goes without a word before it counts the process as hung.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub fn from_env() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0);
        Self::new(socket.as_deref(), watchdog.map(Duration::from_micros))
    }

    fn new(address: Option<&OsStr>, watchdog: Option<Duration>) -> Self {
        let socket = address.and_then(|address| {
            connect(address)
                .inspect_err(|error| warn!("service manager not told anything: {error}"))
                .ok()
        });
        Self { socket, watchdog }
    }

    /// Whether there is one.
    pub const fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// It is served, as `status` says. Also after [`reloading`](Self::reloading) and
    /// [`replacing`](Self::replacing).
    pub fn ready(&self, status: &str) {
        let watchdog = self.watchdog.map_or_else(String::new, watchdog_of);
        self.say(&format!("READY=1\nSTATUS={status}\n{watchdog}"));
    }

    /// Files are read again; [`ready`](Self::ready) follows.
    pub fn reloading(&self) {
        self.say("RELOADING=1\nSTATUS=reading the certificate again\n");
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=saying goodbye to user agents\n");
    }

    /// The database is replaced, which takes long and is no hang; [`ready`](Self::ready) follows.
    pub fn replacing(&self) {
        let watchdog = self
            .watchdog
            .map_or_else(String::new, |time| watchdog_of(time.max(REPLACING_MAX)));
        self.say(&format!(
            "STATUS=replacing the damaged database\n{watchdog}"
        ));
    }

    /// Shows the watchdog that the event loop, which this is a task of, goes round: twice as often as it
    /// wants it. Ends where there is no watchdog.
    pub async fn run_watchdog(self: Rc<Self>) {
        let interval = self.watchdog.and_then(|time| time.checked_div(2));
        while let Some(interval) = interval {
            self.say("WATCHDOG=1\n");
            Timer::after(interval).await;
        }
    }

    fn say(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            // A manager that does not listen restarts us if it misses anything.
            debug!("service manager not told: {error}");
        }
    }
}

/// Changes what the watchdog waits for from now on.
fn watchdog_of(time: Duration) -> String {
    format!("WATCHDOG_USEC={}\n", time.as_micros())
}

/// A socket to an address of the file system, or behind `@` to an abstract one. It never makes the event
/// loop wait.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The listening socket that the service manager has opened for the push port, if it has.
///
/// It takes `LISTEN_FDS` out of the environment, so it is for the start, before there are threads.
///
/// # Errors
///
/// When what is passed is no one TCP socket.
pub fn passed_listener() -> io::Result<Option<TcpListener>> {
    let mut passed = ListenFd::from_env();
    if passed.len() > 1 {
        return Err(io::Error::other(format!(
            "it passes {} sockets; leave one ListenStream= in edgepush.socket",
            passed.len()
        )));
    }
    passed.take_tcp_listener(0)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn socket_of(name: &str) -> (UnixDatagram, PathBuf) {
        let name = format!("edgepush-notify-{name}-{}", std::process::id());
        let path = env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        (UnixDatagram::bind(&path).unwrap(), path)
    }

    fn heard(socket: &UnixDatagram) -> String {
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut buffer = [0; 500];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn service_manager_hears_each_state_and_how_long_the_watchdog_is_to_wait() {
        let (socket, path) = socket_of("states");
        let watchdog = Some(Duration::from_secs(60));
        let manager = ServiceManager::new(Some(path.as_os_str()), watchdog);
        assert!(manager.is_there());
        manager.ready("well");
        assert_eq!(
            heard(&socket),
            "READY=1\nSTATUS=well\nWATCHDOG_USEC=60000000\n"
        );
        manager.replacing();
        let replacing = "STATUS=replacing the damaged database\nWATCHDOG_USEC=900000000\n";
        assert_eq!(heard(&socket), replacing);
        manager.stopping();
        assert!(heard(&socket).starts_with("STOPPING=1\n"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn without_a_watchdog_none_is_set() {
        let (socket, path) = socket_of("plain");
        let manager = Rc::new(ServiceManager::new(Some(path.as_os_str()), None));
        manager.ready("well");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=well\n");
        crate::io::reactor::block_on(Rc::clone(&manager).run_watchdog());
        manager.reloading();
        assert!(heard(&socket).starts_with("RELOADING=1\n"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn abstract_address_is_one_without_a_file() {
        let name = format!("edgepush-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let manager = ServiceManager::new(Some(OsStr::new(&format!("@{name}"))), None);
        manager.ready("well");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=well\n");
    }

    #[test]
    fn nobody_to_tell_is_no_fault() {
        let manager = ServiceManager::new(None, None);
        assert!(!manager.is_there());
        manager.ready("well");
        assert!(!ServiceManager::new(Some(OsStr::new("/nowhere")), None).is_there());
    }
}
