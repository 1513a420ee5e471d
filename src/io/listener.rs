//! Accepts connections on the push port. One slow peer never stops the next.

use std::io;
use std::net::{self, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use log::debug;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use smol::future::{or, yield_now};

use super::gateway::{Gateway, Place};
use super::http::{self, Link};
use super::reactor::Timer;
use super::stream::Stream;
use super::tcp::{Tcp, Tcps};
use super::tls::Tls;
use super::warned::Warned;
use crate::engine::{Failure, Input, TurnedAway};
use crate::model::limits::WEBSOCKET_MESSAGE_BYTES_MAX;
use crate::protocol::http::Scheme;
use crate::protocol::problem::Problem;

/// How long accepting rests after an error, such as no descriptor left: long enough not to spin,
/// short enough that nobody notices.
const REST: Duration = Duration::from_millis(100);

/// Connections that the system accepts before we do. With 128, as is usual, the 129th of a burst is
/// dropped and its peer tries again after a second. The system lowers it to its own limit
/// (`net.core.somaxconn`, 4,096).
const BACKLOG: i32 = 4096;

/// What the system keeps of what a peer does not read, in bytes, before we hear of it. It doubles this
/// for its own needs, and would take 4 MiB if it were not told: with 4,096 such peers 16 GiB.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// The same of what we do not read yet; one websocket message of the greatest length fits.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
const _: () = assert!(RECEIVE_BUFFER_BYTES >= WEBSOCKET_MESSAGE_BYTES_MAX);

/// Listens at `address`.
///
/// # Errors
///
/// Those of the system: the port is taken, the address is not ours.
pub fn bind(address: SocketAddr) -> io::Result<Tcps> {
    take(net::TcpListener::bind(address)?)
}

/// Takes over a socket that is bound already.
///
/// # Errors
///
/// Those of the system.
pub fn take(listener: net::TcpListener) -> io::Result<Tcps> {
    // Every connection inherits them.
    set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)?;
    set_socket_recv_buffer_size(&listener, RECEIVE_BUFFER_BYTES)?;
    rustix::net::listen(&listener, BACKLOG)?;
    Tcps::new(listener)
}

/// Accepts for ever; TLS as well if it is given.
pub async fn run(gateway: Rc<Gateway>, listener: Tcps, tls: Option<Rc<Tls>>) {
    let mut warned = Warned::default();
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                accept(&gateway, tls.as_ref(), socket, peer, &mut warned);
                // One a round: more come than are served otherwise, and all wait for each other.
                yield_now().await;
            }
            Err(error) => {
                gateway.turn(Input::Failed(Failure::Accept));
                warned.say(format_args!("cannot accept connections: {error}"));
                Timer::after(REST).await;
            }
        }
    }
}

fn accept(
    gateway: &Rc<Gateway>,
    tls: Option<&Rc<Tls>>,
    socket: Tcp,
    peer: SocketAddr,
    warned: &mut Warned,
) {
    let place = match gateway.take_place(peer.ip()) {
        Ok(place) => place,
        Err(why) => {
            gateway.turn(Input::TurnedAway(why));
            let limits = gateway.limits();
            let (name, limit) = match why {
                TurnedAway::TooMany => ("connections_max", limits.connections_max),
                TurnedAway::TooManyOfAddress => (
                    "connections_per_address_max",
                    limits.connections_of_one_address_max(),
                ),
                TurnedAway::TooFast => (
                    "connection_rate_per_sec_max",
                    usize::try_from(limits.connection_rate_per_sec_max).unwrap_or(usize::MAX),
                ),
            };
            return warned.say(format_args!("connection turned away {name}={limit}"));
        }
    };
    let gateway = Rc::clone(gateway);
    let executor = Rc::clone(&gateway);
    match tls {
        Some(tls) => executor.spawn(greet(gateway, Rc::clone(tls), socket, peer, place)),
        None => {
            let link = Link {
                peer: peer.ip(),
                scheme: Scheme::Http,
                refusal: None,
            };
            executor.spawn(http::serve(gateway, Stream::Plain(socket), link, place));
        }
    }
}

/// Serves one connection of which its first byte says whether it is TLS.
async fn greet(gateway: Rc<Gateway>, tls: Rc<Tls>, socket: Tcp, peer: SocketAddr, place: Place) {
    let late = async {
        Timer::after(gateway.limits().request_timeout).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let stopping = async {
        gateway.stopping().await;
        Err(io::ErrorKind::Interrupted.into())
    };
    let stream = match or(tls.accept(socket), or(late, stopping)).await {
        Ok(stream) => stream,
        // The peer's fault, or it does not trust the certificate.
        Err(error) => {
            if error.kind() != io::ErrorKind::Interrupted {
                gateway.turn(Input::Failed(Failure::Handshake));
            }
            return debug!("connection without a request peer={peer} error={error}");
        }
    };
    let scheme = stream.scheme();
    let refused = tls.only() && scheme == Scheme::Http;
    let link = Link {
        peer: peer.ip(),
        scheme,
        refusal: refused.then_some(Problem::PlainConnection),
    };
    http::serve(gateway, stream, link, place).await;
}
