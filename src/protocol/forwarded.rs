//! Where a request comes from when it has come through reverse proxies: `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

/// The address that a request comes from.
///
/// Each proxy writes down, at the right end of the list, whom it was asked by. So the list is read from
/// there, and only as far as those who wrote it are trusted: anything can stand to the left of that.
/// Of what is no address nothing is believed; the proxy that wrote it stands in for whoever it was.
pub fn peer(
    connected: IpAddr,
    forwarded_for: Option<&str>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut peer = connected;
    for entry in forwarded_for.unwrap_or_default().rsplit(',') {
        if !is_trusted(peer) {
            break;
        }
        let Some(address) = address(entry.trim()) else {
            break;
        };
        peer = address.to_canonical();
    }
    peer
}

/// An address as proxies write it, some with a port, some with brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = |text: &str| text.parse().ok();
    let bracketed = || bare(text.strip_prefix('[')?.strip_suffix(']')?);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    bare(text).or_else(with_port).or_else(bracketed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the proxies 10.0.0.1, 10.0.0.2 and ::1.
    fn from(connected: &str, forwarded_for: Option<&str>) -> String {
        let trusted = ["10.0.0.1", "10.0.0.2", "::1"].map(|text| text.parse().unwrap());
        let connected = connected.parse().unwrap();
        peer(connected, forwarded_for, |address: IpAddr| {
            trusted.contains(&address)
        })
        .to_string()
    }

    #[test]
    fn nobody_but_a_trusted_proxy_is_believed() {
        assert_eq!(from("203.0.113.7", Some("192.168.1.5")), "203.0.113.7");
        assert_eq!(from("203.0.113.7", Some("10.0.0.1")), "203.0.113.7");
        assert_eq!(from("10.0.0.1", None), "10.0.0.1");
        assert_eq!(from("10.0.0.1", Some("")), "10.0.0.1");
    }

    #[test]
    fn rightmost_address_that_is_no_trusted_proxy_is_the_peer() {
        for (forwarded_for, expected) in [
            ("203.0.113.7", "203.0.113.7"),
            ("192.168.1.5, 203.0.113.7", "203.0.113.7"),
            (
                "127.0.0.1,192.168.1.5 , 203.0.113.7, 10.0.0.2",
                "203.0.113.7",
            ),
            ("10.0.0.2, 10.0.0.1", "10.0.0.2"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            // The one who wrote it is all that is known.
            ("203.0.113.7, unknown", "10.0.0.1"),
            ("203.0.113.7, ", "10.0.0.1"),
            ("203.0.113.7, , 10.0.0.2", "10.0.0.2"),
        ] {
            assert_eq!(
                from("10.0.0.1", Some(forwarded_for)),
                expected,
                "{forwarded_for}"
            );
        }
        assert_eq!(from("::1", Some("203.0.113.7")), "203.0.113.7");
    }
}
