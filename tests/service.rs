//! The real program as a service: what it tells the service manager, the socket that it is passed, the
//! journal; and the unit files. No systemd runs for it, the tests play its part.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Folder, Http, PATIENCE, UserAgent, channel, said, wait_until};

/// A page of the database.
const PAGE: u64 = 4096;

/// Starts the program with the listener as its third descriptor, as systemd passes one.
const PASS: &str = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";

/// The program as a service. Killed when dropped.
struct Service {
    child: Child,
    folder: Folder,
    /// What the service manager hears.
    heard: UnixDatagram,
}

impl Service {
    fn new(folder: Folder, passed: Option<&TcpListener>, environment: &[(&str, &str)]) -> Self {
        let mut command = command(&folder, passed);
        command.envs(environment.iter().copied());
        Self::start(command, folder)
    }

    fn start(mut command: Command, folder: Folder) -> Self {
        let socket = folder.path("notify");
        let _ = fs::remove_file(&socket);
        let heard = UnixDatagram::bind(&socket).unwrap();
        heard.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = command
            .env("NOTIFY_SOCKET", &socket)
            .stderr(File::create(folder.path("log")).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            folder,
            heard,
        }
    }

    /// The next word to the service manager.
    fn next(&self) -> String {
        let mut buffer = [0; 500];
        let length = self
            .heard
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("nothing heard: {error}; the log:\n{}", self.log()));
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The next one that is more than a sign of life.
    fn next_state(&self) -> String {
        loop {
            let state = self.next();
            if state != "WATCHDOG=1\n" {
                return state;
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path("log")).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    fn stop_when_ready(self) -> Folder {
        assert!(self.next_state().starts_with("READY=1\n"));
        self.stop()
    }

    /// SIGTERM; the folder for the next one.
    fn stop(mut self) -> Folder {
        self.signal("-TERM");
        assert!(self.next_state().starts_with("STOPPING=1\n"));
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
        std::mem::replace(&mut self.folder, Folder::new())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Folder, passed: Option<&TcpListener>) -> Command {
    let mut command = Command::new("sh");
    match passed {
        Some(listener) => {
            let listener = OwnedFd::from(listener.try_clone().unwrap());
            command.args(["-c", PASS]).stdin(Stdio::from(listener));
        }
        None => {
            command.args(["-c", "exec \"$0\" \"$@\""]);
        }
    }
    command
        .arg(env!("CARGO_BIN_EXE_edgepush"))
        .args(["--listen", "127.0.0.1:0", "--console", "off"])
        .args(["--board", "generic-x86-64", "--data"])
        .arg(folder.path("data"))
        .stdout(Stdio::null());
    if folder.path("edgepush.toml").exists() {
        command.arg("--config").arg(folder.path("edgepush.toml"));
    }
    command
}

/// The program behind mounts of its own, which a shell makes in `$FOLDER`; `None` where the system lets
/// nobody do that.
fn behind_mounts(folder: &Folder, mounts: &str) -> Option<Command> {
    fs::create_dir_all(folder.path("data")).unwrap();
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--mount", "sh", "-c"]);
    unshare.env("FOLDER", &folder.0);
    let mut trial = Command::new("unshare");
    trial
        .args(["--map-root-user", "--mount", "sh", "-c", mounts])
        .env("FOLDER", &folder.0);
    if !trial.status().is_ok_and(|status| status.success()) {
        println!("skipped: no mounts of one's own here");
        return None;
    }
    let script = format!("{mounts} && exec \"$0\" \"$@\"");
    let of_program = command(folder, None);
    // Without the `-c` and the script of the other shell.
    unshare.arg(script).args(of_program.get_args().skip(2));
    unshare.stdout(Stdio::null());
    Some(unshare)
}

/// A subscription whose user agent is away, with a message that waits.
fn message_waits(address: SocketAddr) -> String {
    let mut agent = UserAgent::try_connect_to(address).unwrap().greet(None);
    let path = agent.register(&channel(1));
    let uaid = agent.uaid.clone();
    drop(agent);
    let mut http = Http::connect(address);
    assert_eq!(http.send("POST", &path, &[("TTL", "600")], b"").status, 201);
    uaid
}

fn is_served(address: SocketAddr) -> bool {
    Http::try_connect(address)
        .and_then(|mut http| http.try_send("GET", "/health", &[], b""))
        .is_some_and(|answer| answer.status == 200)
}

/// The address in `STATUS=push=http://127.0.0.1:1234 console=off`.
fn pushed(state: &str) -> SocketAddr {
    let (_, address) = state.split_once("push=http://").unwrap();
    address.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn service_manager_is_told_of_start_reload_and_end_and_that_the_loop_goes_round() {
    let watchdog = [("WATCHDOG_USEC", "200000")];
    let service = Service::new(Folder::new(), None, &watchdog);
    let ready = service.next();
    assert!(ready.starts_with("READY=1\nSTATUS=push=http://"), "{ready}");
    assert!(is_served(pushed(&ready)), "ready is served");

    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(service.next(), "WATCHDOG=1\n");
        assert!(start.elapsed() < PATIENCE);
    }
    // Also where there is nothing to read again, SIGHUP ends nothing.
    service.signal("-HUP");
    assert!(service.next_state().starts_with("RELOADING=1\n"));
    assert_eq!(service.next_state(), ready);
    assert!(is_served(pushed(&ready)));
    service.stop();
}

#[test]
fn watchdog_of_another_process_is_none_of_ours() {
    let other = [("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let service = Service::new(Folder::new(), None, &other);
    assert!(service.next().starts_with("READY=1\n"));
    service.signal("-HUP");
    assert!(service.next().starts_with("RELOADING=1\n"));
}

#[test]
fn connection_made_while_a_passed_socket_has_nobody_is_served_after_the_restart() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    let service = Service::new(Folder::new(), Some(&port), &[]);
    assert_eq!(pushed(&service.next()), address);
    assert!(is_served(address));
    let folder = service.stop();

    let mut waiting = TcpStream::connect(address).expect("the port is open meanwhile");
    let request = "GET /health HTTP/1.1\r\nHost: pi\r\nConnection: close\r\n\r\n";
    waiting.write_all(request.as_bytes()).unwrap();
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();

    let service = Service::new(folder, Some(&port), &[]);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(service.log().contains("listen has no effect"));
}

/// A connection that was accepted: the one behind it was, and was answered.
fn accepted(address: SocketAddr) -> TcpStream {
    let connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(is_served(address));
    connection
}

/// What is answered to a request, up to the end of the connection.
fn answer(connection: &mut TcpStream) -> String {
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

const ASK: &[u8] = b"GET /health HTTP/1.1\r\nHost: pi\r\n\r\n";
const LAST_ASK: &[u8] = b"GET /health HTTP/1.1\r\nHost: pi\r\nConnection: close\r\n\r\n";

/// Enough that each end of the gateway finds some at every stage.
const ASKERS: u32 = 8;
const RESTARTS: u32 = 10;

#[test]
fn connection_that_was_accepted_before_the_end_has_its_first_request_served() {
    let service = Service::new(Folder::new(), None, &[]);
    let mut connection = accepted(pushed(&service.next()));
    service.signal("-TERM");
    assert!(service.next_state().starts_with("STOPPING=1\n"));
    // As if it came over a slow network.
    thread::sleep(Duration::from_millis(100));
    connection.write_all(ASK).unwrap();
    let answer = answer(&mut connection);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn nobody_who_connects_while_it_restarts_goes_unanswered() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    let mut service = Service::new(Folder::new(), Some(&port), &[]);
    service.next();
    let going_on = AtomicBool::new(true);
    let answered = AtomicU32::new(0);
    let ask = &|pause: Duration| {
        while going_on.load(Ordering::Relaxed) {
            let mut connection = TcpStream::connect(address).unwrap();
            connection.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::sleep(pause);
            connection.write_all(LAST_ASK).unwrap();
            let answer = answer(&mut connection);
            // Whoever comes to the one that ends is told when to come again.
            let retry = answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: ");
            assert!(answer.starts_with("HTTP/1.1 200 ") || retry, "{answer:?}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let askers = (0..ASKERS).map(|number| {
            let pause = Duration::from_millis(number.into());
            scope.spawn(move || ask(pause))
        });
        let askers: Vec<_> = askers.collect();
        for restart in 1..=RESTARTS {
            wait_until("all of them are at it", || {
                answered.load(Ordering::Relaxed) >= restart * ASKERS * 10
            });
            service = Service::new(service.stop(), Some(&port), &[]);
            assert!(service.next_state().starts_with("READY=1\n"));
        }
        // Its end is an end for them as well, of the other kind.
        going_on.store(false, Ordering::Relaxed);
        askers.into_iter().for_each(|asker| asker.join().unwrap());
        drop(service);
    });
    println!("{RESTARTS} restarts, {answered:?} connections, all answered");
}

#[test]
fn connection_that_says_nothing_does_not_keep_it_from_ending() {
    let service = Service::new(Folder::new(), None, &[]);
    let mut connection = accepted(pushed(&service.next()));
    drop(service.stop());
    assert_eq!(answer(&mut connection), "");
}

#[test]
fn passed_socket_and_watchdog_outlast_a_damaged_database() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    // Stopped once, so that all is in the file and not in its log.
    let folder = Service::new(Folder::new(), Some(&port), &[]).stop_when_ready();
    fs::write(
        folder.path("edgepush.toml"),
        "[limits]\ndatabase_check_interval_secs = 1\n",
    )
    .unwrap();
    let service = Service::new(folder, Some(&port), &[("WATCHDOG_USEC", "60000000")]);
    let ready = service.next_state();
    assert!(ready.ends_with("\nWATCHDOG_USEC=60000000\n"), "{ready}");

    let path = service.folder.path("data/edgepush.db");
    let length = fs::metadata(&path).unwrap().len();
    assert!(length > PAGE, "{length}");
    let file = File::options().write(true).open(path).unwrap();
    let nonsense = vec![0xee; usize::try_from(length - PAGE).unwrap()];
    file.write_all_at(&nonsense, PAGE).unwrap();

    let replacing = service.next_state();
    assert!(replacing.starts_with("STATUS=replacing"), "{replacing}");
    assert!(
        replacing.ends_with("\nWATCHDOG_USEC=900000000\n"),
        "{replacing}"
    );
    // Waits in the port until somebody accepts again.
    assert!(is_served(address));
    assert_eq!(service.next_state(), ready);
}

#[test]
fn read_only_root_needs_nothing_but_the_data_directory() {
    let folder = Folder::new();
    let mounts = "mount --bind \"$FOLDER/data\" \"$FOLDER/data\" && mount -o remount,bind,ro /";
    let Some(command) = behind_mounts(&folder, mounts) else {
        return;
    };
    let service = Service::start(command, folder);
    let uaid = message_waits(pushed(&service.next()));
    let folder = service.stop();

    let service = Service::new(folder, None, &[]);
    let address = pushed(&service.next());
    let mut agent = UserAgent::try_connect_to(address)
        .unwrap()
        .greet(Some(&uaid));
    assert_eq!(agent.receive()["messageType"], "notification");
}

#[test]
fn overlay_over_the_data_takes_all_and_leaves_what_is_below() {
    let folder = Service::new(Folder::new(), None, &[]).stop_when_ready();
    let below = fs::read(folder.path("data/edgepush.db")).unwrap();
    let mounts = "mount -t tmpfs none /mnt && mkdir /mnt/upper /mnt/work && mount -t overlay none \
                  -o \"lowerdir=$FOLDER/data,upperdir=/mnt/upper,workdir=/mnt/work\" \"$FOLDER/data\"";
    let Some(command) = behind_mounts(&folder, mounts) else {
        return;
    };
    let service = Service::start(command, folder);
    let address = pushed(&service.next());
    let uaid = message_waits(address);
    let mut agent = UserAgent::try_connect_to(address)
        .unwrap()
        .greet(Some(&uaid));
    assert_eq!(agent.receive()["messageType"], "notification");
    let folder = service.stop();
    assert!(fs::read(folder.path("data/edgepush.db")).unwrap() == below);
}

#[test]
fn more_sockets_than_one_are_refused_with_what_to_change() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    let two = PASS.replace("LISTEN_FDS=1", "LISTEN_FDS=2");
    let output = Command::new("sh")
        .args(["-c", &two, env!("CARGO_BIN_EXE_edgepush"), "--data"])
        .arg(folder.path("data"))
        .stdin(Stdio::from(OwnedFd::from(port)))
        .output()
        .unwrap();
    let (code, _, stderr) = said(output);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("leave one ListenStream= in edgepush.socket"),
        "{stderr}"
    );
}

#[test]
fn journal_gets_priorities_and_a_terminal_does_not() {
    let folder = Folder::new();
    let log = File::create(folder.path("journal")).unwrap();
    let stat = log.metadata().unwrap();
    let stream = format!("{}:{}", stat.dev(), stat.ino());
    for (named, line) in [
        (stream.as_str(), "<6>[edgepush::daemon] started version="),
        ("1:2", "INFO  [edgepush::daemon] started version="),
    ] {
        log.set_len(0).unwrap();
        let mut child = command(&folder, None)
            .env("JOURNAL_STREAM", named)
            .stderr(
                File::options()
                    .append(true)
                    .open(folder.path("journal"))
                    .unwrap(),
            )
            .spawn()
            .unwrap();
        let lines = || fs::read_to_string(folder.path("journal")).unwrap();
        wait_until("it has started", || lines().contains("] started version="));
        child.kill().unwrap();
        child.wait().unwrap();
        let lines = lines();
        assert!(
            lines.lines().any(|logged| logged.starts_with(line)),
            "{lines}"
        );
    }
}

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("systemd")
        .join(name)
}

#[test]
fn exposure_of_the_unit_is_at_most_one_and_a_half() {
    let analysis: std::io::Result<Output> = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(unit("edgepush.service"))
        .output();
    let Ok(output) = analysis else {
        println!("skipped: no systemd-analyze here");
        return;
    };
    let (code, stdout, stderr) = said(output);
    assert_eq!(code, 0, "{stderr}");
    let (_, level) = stdout
        .rsplit_once("Overall exposure level for edgepush.service: ")
        .unwrap();
    let exposure: f64 = level.split(' ').next().unwrap().parse().unwrap();
    assert!(exposure <= 1.5, "{stdout}");
}

#[test]
fn packaged_configuration_says_nothing_and_all_that_it_shows_is_a_key() {
    let text = fs::read_to_string(unit("edgepush.toml")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty());
    assert!(lines.clone().all(|line| line.starts_with('#')), "{text}");
    // What is commented out, without the prose: keys and tables.
    let shown: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.contains(" = ") || line.starts_with('['))
        .collect();
    assert!(shown.len() > 10, "{shown:?}");
    let folder = Folder::new();
    let config = folder.path("edgepush.toml");
    fs::write(&config, shown.join("\n")).unwrap();
    // The certificate of the example is not there, which is found out after the keys were read.
    let output = Command::new(env!("CARGO_BIN_EXE_edgepush"))
        .arg("--config")
        .arg(&config)
        .arg("--data")
        .arg(folder.path("data"))
        .output()
        .unwrap();
    let (code, _, stderr) = said(output);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("/etc/edgepush/fullchain.pem"), "{stderr}");
}

#[test]
fn unit_gives_a_start_as_long_as_the_watchdog_waits_for_a_new_database() {
    let service = fs::read_to_string(unit("edgepush.service")).unwrap();
    // REPLACING_MAX of `io::service_manager`.
    let allowed = Duration::from_secs(15 * 60).as_secs() / 60;
    assert!(service.contains(&format!("\nTimeoutStartSec={allowed}min\n")));
    assert!(service.contains("\nType=notify\n"));
}
