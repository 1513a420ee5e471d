//! A network of a test's own, in which an attacker is somebody else than the board itself.
//!
//! Addresses of the board have no limits of their own (`127.0.0.0/8`), so the test runs itself again in
//! a network namespace with two more addresses, as far as the system lets it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::support::PATIENCE;

/// Tells the test that it is in the namespace.
const INSIDE: &str = "EDGEPUSH_TEST_NETWORK";
/// What `sh` ends with where the namespace cannot be furnished.
const UNFURNISHED: i32 = 77;

/// Who is where.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Where attackers are.
    pub attacker: Ipv4Addr,
    /// Where the well-behaved peers are.
    pub neighbour: Ipv4Addr,
    /// Whether these are others than the board itself, so that limits on addresses apply to them.
    pub has_others: bool,
}

/// Runs `body` in a network of its own; `test` is the name of the test that calls this, or of nothing
/// where the whole program is to run again.
pub fn within(test: &str, body: impl FnOnce(Network)) {
    if std::env::var_os(INSIDE).is_some() {
        return body(Network {
            attacker: Ipv4Addr::new(10, 77, 0, 2),
            neighbour: Ipv4Addr::new(10, 77, 0, 3),
            has_others: true,
        });
    }
    // As root, and as anybody where the system has namespaces of users.
    for unshare in [&["--net"][..], &["--net", "--user", "--map-root-user"]] {
        match run_inside(unshare, test) {
            Some(0) => return,
            Some(UNFURNISHED) | None => {}
            Some(code) => panic!("{test} failed in its network, with {code}; see above"),
        }
    }
    eprintln!(
        "\n!!! {test}: NO NETWORK OF ITS OWN: unshare(1) or ip(8) is missing or not allowed here.\n\
         !!! The attacks come from the board itself; its limits on one address are NOT TESTED.\n"
    );
    body(Network {
        attacker: Ipv4Addr::new(127, 0, 0, 2),
        neighbour: Ipv4Addr::new(127, 0, 0, 3),
        has_others: false,
    });
}

/// The exit code of this program, or of the way to it; `None` where nothing could be started.
fn run_inside(unshare: &[&str], test: &str) -> Option<i32> {
    let furnish = format!(
        "ip link set lo up && ip address add 10.77.0.2/32 dev lo && \
         ip address add 10.77.0.3/32 dev lo || exit {UNFURNISHED}; exec \"$0\" \"$@\""
    );
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", &furnish]);
    command.arg(std::env::current_exe().ok()?);
    if test.is_empty() {
        command.args(std::env::args_os().skip(1));
    } else {
        command.args([test, "--exact", "--nocapture", "--include-ignored"]);
    }
    let status = command.env(INSIDE, "1").status().ok()?;
    // unshare's own faults are 1, and so is a test binary's 101 for a failed test.
    match status.code() {
        Some(1) => None,
        code => code,
    }
}

/// A connection from one of the addresses.
pub fn try_connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((from, 0)))?;
    connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub fn connection(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    try_connect(from, to).expect("a connection")
}

/// Tries for a while: the gateway may be busy.
pub fn patiently(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    for _ in 0..100 {
        if let Ok(stream) = try_connect(from, to) {
            return stream;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    connection(from, to)
}
