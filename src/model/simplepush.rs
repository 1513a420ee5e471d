//! What may be chosen about SimplePush.

use std::net::IpAddr;

use super::access::Network;

/// What may be chosen about SimplePush.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SimplePush {
    /// Status of the answer to a version update for a user agent that is away: 202, or 200 for
    /// AeroGear UnifiedPush, which takes anything else for an error.
    pub offline_status: u16,
    /// User agents on a mobile network are let go of and woken by a datagram.
    pub udp_wakeup: bool,
    /// Where such a user agent must be.
    pub udp_from: Vec<Network>,
    /// Who is asked to send the datagram, for user agents that this board cannot reach itself; an
    /// `http://` or `https://` URL.
    pub udp_proxy: Option<Box<str>>,
}

impl SimplePush {
    /// Whether a datagram may be sent to `wanted` on behalf of a user agent that is at `peer`.
    ///
    /// Only to where it is itself: otherwise anybody could have others shot at from here.
    pub fn may_wake(&self, wanted: IpAddr, peer: IpAddr) -> bool {
        let holds = |network: &Network| network.contains(peer);
        self.udp_wakeup
            && wanted.to_canonical() == peer.to_canonical()
            && self.udp_from.iter().any(holds)
    }
}

impl Default for SimplePush {
    fn default() -> Self {
        Self {
            offline_status: 202,
            udp_wakeup: false,
            udp_from: Network::PRIVATE.to_vec(),
            udp_proxy: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagram_goes_only_to_the_user_agents_own_address_in_a_network_that_is_allowed() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let on = SimplePush {
            udp_wakeup: true,
            ..SimplePush::default()
        };
        assert!(on.may_wake(ip("192.168.1.5"), ip("192.168.1.5")));
        assert!(on.may_wake(ip("192.168.1.5"), ip("::ffff:192.168.1.5")));
        assert!(!on.may_wake(ip("192.168.1.6"), ip("192.168.1.5")));
        assert!(!on.may_wake(ip("8.8.8.8"), ip("8.8.8.8")));
        let off = SimplePush::default();
        assert!(!off.may_wake(ip("192.168.1.5"), ip("192.168.1.5")));
    }
}
