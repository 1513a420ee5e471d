//! Where the gateway is found: by people, by whoever started it, and by user agents.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::config::Config;

/// Where everything is, with the real ports: `push=http://127.0.0.1:8090 console=off`.
pub(super) fn text(config: &Config) -> String {
    let console = config.console.map_or_else(
        || "off".to_owned(),
        |console| format!("http://{}", reachable(console)),
    );
    let scheme = match config.tls.certificate {
        Some(_) => "https",
        None => "http",
    };
    let push = reachable(config.listen);
    format!("push={scheme}://{push} console={console}")
}

/// The one line on standard output: whoever started the program waits for it.
pub(super) fn announce(addresses: &str) {
    let line = format!("edgepush ready {addresses}\n");
    // Nobody has to read it.
    let mut output = io::stdout().lock();
    let _ = output.write_all(line.as_bytes());
    let _ = output.flush();
}

/// An address that this machine reaches itself by, for one that means all of its addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

/// What to set user agents to: the public URL, or an address of this machine that others reach.
pub(super) fn of_push(config: &Config) -> String {
    let push = config.listen;
    if let Some(url) = &config.public_url {
        // http becomes ws, https becomes wss.
        return format!("{}/", url.as_str().replacen("http", "ws", 1));
    }
    let address = if push.ip().is_unspecified() {
        SocketAddr::new(network_address().unwrap_or_else(|| push.ip()), push.port())
    } else {
        push
    };
    let scheme = match &config.tls.certificate {
        Some(_) => "wss",
        None => "ws",
    };
    format!("{scheme}://{}/", reachable(address))
}

/// The address that this machine has towards other networks. Nothing is sent: connecting a datagram
/// socket only looks up the route (192.0.2.1 is for documentation, RFC 5737).
fn network_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}
