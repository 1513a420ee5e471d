//! Accepts connections on the push port. One slow peer never stops the next.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use log::warn;
use smol::Timer;
use smol::net::{TcpListener, TcpStream};

use super::gateway::Gateway;
use super::http;

/// How long accepting rests after an error, such as no descriptor left: long enough not to spin,
/// short enough that nobody notices.
const REST: Duration = Duration::from_millis(100);
/// At most one line about refused connections in this time.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Accepts for ever.
pub async fn run(gateway: Rc<Gateway>, listener: TcpListener) {
    let mut warned = Warned::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => accept(&gateway, stream, peer, &mut warned),
            Err(error) => {
                warned.say(format_args!("cannot accept connections: {error}"));
                Timer::after(REST).await;
            }
        }
    }
}

fn accept(gateway: &Rc<Gateway>, stream: TcpStream, peer: SocketAddr, warned: &mut Warned) {
    let Some(place) = gateway.take_place() else {
        let limit = gateway.limits().connections_max;
        return warned.say(format_args!(
            "connection turned away connections_max={limit}"
        ));
    };
    // Push messages are small and should leave at once. A socket that refuses is closed already.
    let _ = stream.set_nodelay(true);
    gateway.spawn(http::serve(Rc::clone(gateway), stream, peer, place));
}

/// Keeps a flood of connections from becoming a flood of lines on a memory card.
#[derive(Default)]
struct Warned {
    at: Option<std::time::Instant>,
}

impl Warned {
    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        let now = super::clock::monotonic();
        let quiet = self
            .at
            .is_some_and(|at| now.saturating_duration_since(at) < WARN_INTERVAL);
        if !quiet {
            self.at = Some(now);
            warn!("{what}");
        }
    }
}
