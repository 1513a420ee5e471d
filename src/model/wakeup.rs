//! How a user agent without a connection is woken up (PROTOCOL.md part 2, 1.6).

use std::fmt;
use std::net::SocketAddr;

/// Where a sleeping user agent listens for a datagram, as it said in its `hello`.
#[derive(Clone, Eq, PartialEq)]
pub struct Wakeup {
    /// `wakeup_hostport`.
    pub address: SocketAddr,
    /// `mobilenetwork`, if it is on one.
    pub network: Option<MobileNetwork>,
}

/// Where it is must not be logged.
impl fmt::Debug for Wakeup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wakeup(..)")
    }
}

/// The mobile network of a user agent. Only an operator's wake-up proxy makes use of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MobileNetwork {
    /// Mobile country code, such as `"214"`.
    pub country: Box<str>,
    /// Mobile network code, such as `"07"`.
    pub network: Box<str>,
    /// The network's own name for the part that the user agent is in; empty if there is none.
    pub part: Box<str>,
}
