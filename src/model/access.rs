//! Who may open a websocket: networks and the addresses in them.
//!
//! No text is read here: `config` does that.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::join_token::JoinToken;

/// Who may do what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Access {
    /// Where user agents may open a websocket from.
    pub websocket_from: Vec<Network>,
    /// What lets a user agent in from anywhere else.
    pub join_tokens: Vec<JoinToken>,
    /// Reverse proxies, whose word is taken for where a request comes from.
    pub trusted_proxies: Vec<Network>,
}

impl Access {
    /// Whether a user agent at `address` may open a websocket without a join token.
    pub fn allows(&self, address: IpAddr) -> bool {
        let holds = |network: &Network| network.contains(address);
        self.websocket_from.iter().any(holds)
    }

    /// Whether `text` is a join token. All of them are looked at, so that the time tells nothing.
    pub fn admits(&self, text: &str) -> bool {
        let tokens = self.join_tokens.iter();
        tokens.fold(false, |found, token| found | token.is(text))
    }

    /// Whether what the peer at `address` says of others is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let holds = |network: &Network| network.contains(address);
        self.trusted_proxies.iter().any(holds)
    }

    /// Whom limits for each address hold responsible for what comes from `address`.
    ///
    /// Nobody, where it is this board itself or a trusted proxy that does not say for whom it asks:
    /// behind a loopback address are the operator's own programs, or a proxy and with it everybody.
    pub fn source(&self, address: IpAddr) -> Option<Source> {
        let address = address.to_canonical();
        let is_anybody = address.is_loopback() || self.trusts(address);
        (!is_anybody).then(|| Source::of(address))
    }
}

/// An address as limits count it. All addresses of an IPv6 /64 are one: a single host has as many of
/// them as it likes (RFC 6177).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// User agents on the same board or the same local network.
impl Default for Access {
    fn default() -> Self {
        Self {
            websocket_from: Network::PRIVATE.to_vec(),
            join_tokens: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// All addresses that share their leading bits (a CIDR block).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    /// Its lowest address; never an IPv4 address mapped into IPv6.
    first: IpAddr,
    /// How many trailing bits tell its addresses apart; `first` has none of them set.
    host_bits: u32,
}

impl Network {
    /// Addresses that the internet does not route: loopback, link-local and private use.
    ///
    /// Not the 100.64.0.0/10 of RFC 6598: behind one of those sit the other customers of a provider.
    pub const PRIVATE: [Self; 8] = [
        v4(127, 0, 8),    // loopback
        v4(10, 0, 8),     // RFC 1918
        v4(172, 16, 12),  // RFC 1918
        v4(192, 168, 16), // RFC 1918
        v4(169, 254, 16), // link-local, RFC 3927
        v6(Ipv6Addr::LOCALHOST, 128),
        v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), // link-local, RFC 4291
        v6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),  // unique local, RFC 4193
    ];

    /// Every address.
    pub const ANY: [Self; 2] = [v4(0, 0, 0), v6(Ipv6Addr::UNSPECIFIED, 0)];

    /// The network of `first` and all that share its first `prefix_bits` bits.
    ///
    /// # Errors
    ///
    /// [`NetworkError::PrefixTooLong`] above 32 bits for IPv4 and 128 for IPv6,
    /// [`NetworkError::NotFirst`] when `first` has a bit set behind the prefix, and
    /// [`NetworkError::Mapped`] for an IPv4 address in IPv6 clothes: it would never match.
    pub fn new(first: IpAddr, prefix_bits: u32) -> Result<Self, NetworkError> {
        if first.to_canonical() != first {
            return Err(NetworkError::Mapped);
        }
        let host_bits = width_bits(first)
            .checked_sub(prefix_bits)
            .ok_or(NetworkError::PrefixTooLong)?;
        if number(first).trailing_zeros() < host_bits {
            return Err(NetworkError::NotFirst);
        }
        Ok(Self { first, host_bits })
    }

    /// The network of one address.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Mapped`], as for [`new`](Self::new).
    pub fn single(address: IpAddr) -> Result<Self, NetworkError> {
        Self::new(address, width_bits(address))
    }

    /// Whether `address` is in it. An IPv4 address mapped into IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let differing = number(address) ^ number(self.first);
        address.is_ipv4() == self.first.is_ipv4()
            && differing.checked_shr(self.host_bits).unwrap_or(0) == 0
    }
}

/// Why an address and a prefix are no [`Network`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetworkError {
    /// More leading bits than the address has.
    PrefixTooLong,
    /// The address is inside of the network instead of its first one.
    NotFirst,
    /// An IPv4 address written as an IPv6 one.
    Mapped,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PrefixTooLong => {
                "must have at most /32 behind an IPv4 and /128 behind an IPv6 address"
            }
            Self::NotFirst => "must start with its first address, such as 192.168.1.0/24",
            Self::Mapped => "must be written as IPv4, without the leading ::ffff:",
        })
    }
}

/// Bits of an address of this family.
const fn width_bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BITS,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    }
}

/// The address as a number. Zero ends in 128 zero bits, in either family.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// For the constants above, whose prefixes fit.
const fn v4(a: u8, b: u8, prefix_bits: u32) -> Network {
    Network {
        first: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)),
        host_bits: Ipv4Addr::BITS.saturating_sub(prefix_bits),
    }
}

/// For the constants above, whose prefixes fit.
const fn v6(first: Ipv6Addr, prefix_bits: u32) -> Network {
    Network {
        first: IpAddr::V6(first),
        host_bits: Ipv6Addr::BITS.saturating_sub(prefix_bits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn private_networks_end_where_their_rfcs_say() {
        let access = Access::default();
        let inside = [
            "127.0.0.1",
            "127.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.0.0",
            "192.168.255.255",
            "169.254.0.0",
            "169.254.255.255",
            "::1",
            "fe80::1",
            "febf:ffff::1",
            "fc00::",
            "fdff:ffff::1",
            "::ffff:192.168.1.2",
        ];
        for address in inside {
            assert!(access.allows(ip(address)), "{address}");
        }
        let outside = [
            "126.255.255.255",
            "128.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "100.64.0.1",
            "0.0.0.0",
            "8.8.8.8",
            "::",
            "::2",
            "fe7f:ffff::1",
            "fec0::",
            "fbff::1",
            "fe00::",
            "2001:db8::1",
            "::ffff:8.8.8.8",
            "::192.168.1.2",
        ];
        for address in outside {
            assert!(!access.allows(ip(address)), "{address}");
        }
    }

    #[test]
    fn limits_hold_an_ipv4_address_or_an_ipv6_network_responsible_and_never_this_board() {
        let source = |address| Access::default().source(ip(address));
        assert!(source("203.0.113.7").is_some());
        assert_eq!(source("203.0.113.7"), source("::ffff:203.0.113.7"));
        assert_ne!(source("203.0.113.7"), source("203.0.113.8"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        for board in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(source(board), None);
        }
    }

    #[test]
    fn trusted_proxy_stands_for_nobody_it_does_not_name() {
        let access = Access {
            trusted_proxies: vec![Network::new(ip("10.0.0.0"), 8).unwrap()],
            ..Access::default()
        };
        assert!(access.trusts(ip("10.1.2.3")) && access.trusts(ip("::ffff:10.1.2.3")));
        assert!(!access.trusts(ip("127.0.0.1")));
        assert_eq!(access.source(ip("10.1.2.3")), None);
        assert!(access.source(ip("11.1.2.3")).is_some());
        assert!(!Access::default().trusts(ip("10.1.2.3")));
    }

    #[test]
    fn any_join_token_of_the_list_lets_in_and_nothing_else_does() {
        let token = |text| JoinToken::new(text).unwrap();
        let access = Access {
            join_tokens: vec![token("aaaaaaaaaaaaaaaa"), token("bbbbbbbbbbbbbbbbb")],
            ..Access::default()
        };
        assert!(access.admits("aaaaaaaaaaaaaaaa") && access.admits("bbbbbbbbbbbbbbbbb"));
        assert!(!access.admits("aaaaaaaaaaaaaaab") && !access.admits(""));
        assert!(!Access::default().admits(""));
    }

    #[test]
    fn any_network_holds_every_address() {
        let access = Access {
            websocket_from: Network::ANY.to_vec(),
            ..Access::default()
        };
        for address in [
            "0.0.0.0",
            "255.255.255.255",
            "::",
            "ffff::",
            "::ffff:8.8.8.8",
        ] {
            assert!(access.allows(ip(address)), "{address}");
        }
    }

    #[test]
    fn no_network_lets_nobody_in() {
        let access = Access {
            websocket_from: Vec::new(),
            ..Access::default()
        };
        assert!(!access.allows(ip("127.0.0.1")));
    }

    #[test]
    fn network_holds_its_first_and_last_address_and_not_the_next() {
        let v4 = Network::new(ip("192.168.4.0"), 22).unwrap();
        assert!(v4.contains(ip("192.168.4.0")) && v4.contains(ip("192.168.7.255")));
        assert!(!v4.contains(ip("192.168.3.255")) && !v4.contains(ip("192.168.8.0")));
        let v6 = Network::new(ip("2001:db8::"), 33).unwrap();
        assert!(v6.contains(ip("2001:db8:7fff:ffff:ffff:ffff:ffff:ffff")));
        assert!(!v6.contains(ip("2001:db8:8000::")));
        let single = Network::single(ip("203.0.113.7")).unwrap();
        assert!(single.contains(ip("203.0.113.7")) && !single.contains(ip("203.0.113.6")));
    }

    #[test]
    fn network_of_one_family_holds_no_address_of_the_other() {
        let all_v6 = Network::new(ip("::"), 0).unwrap();
        assert!(!all_v6.contains(ip("127.0.0.1")) && !all_v6.contains(ip("::ffff:127.0.0.1")));
        let all_v4 = Network::new(ip("0.0.0.0"), 0).unwrap();
        assert!(!all_v4.contains(ip("::1")));
    }

    #[test]
    fn network_that_could_not_match_as_meant_is_refused() {
        let new = |text, bits| Network::new(ip(text), bits).map(|_| ());
        assert_eq!(new("10.0.0.0", 32), Ok(()));
        assert_eq!(new("10.0.0.0", 33), Err(NetworkError::PrefixTooLong));
        assert_eq!(new("fc00::", 128), Ok(()));
        assert_eq!(new("fc00::", 129), Err(NetworkError::PrefixTooLong));
        assert_eq!(new("192.168.1.5", 24), Err(NetworkError::NotFirst));
        assert_eq!(new("::ffff:10.0.0.0", 104), Err(NetworkError::Mapped));
    }
}
