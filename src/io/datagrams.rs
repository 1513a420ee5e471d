//! Datagrams that wake user agents. What is in them does not matter: that one arrives does.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use log::debug;

/// What user agents were sent by the service that they were made for; none of them reads it.
const CONTENT: &[u8] = b"NOTIFY";

/// One socket for each family, made when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    v4: RefCell<Option<UdpSocket>>,
    v6: RefCell<Option<UdpSocket>>,
}

impl Datagrams {
    /// Sends one and forgets it: the next one follows if the user agent stays away.
    pub(super) fn send(&self, to: SocketAddr) {
        if let Err(error) = self.try_send(to) {
            debug!("datagram not sent: {error}");
        }
    }

    fn try_send(&self, to: SocketAddr) -> io::Result<()> {
        let (place, any) = match to {
            SocketAddr::V4(_) => (&self.v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            SocketAddr::V6(_) => (&self.v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        let mut socket = place.borrow_mut();
        if socket.is_none() {
            let new = UdpSocket::bind(any)?;
            // The event loop waits for no network buffer.
            new.set_nonblocking(true)?;
            *socket = Some(new);
        }
        let socket = socket.as_ref().expect("it was made just now if not before");
        socket.send_to(CONTENT, to).map(|_| ())
    }
}
