//! Which `Host` header a request to the console may carry.
//!
//! A page from elsewhere can give its own name the address of this board (DNS rebinding) and then
//! read what the console answers to that name. So it answers only to names that nobody elsewhere
//! can give out. Reads nothing but the name of the machine.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Under this, only machines of the local network have names (mDNS, RFC 6762).
const LOCAL_SUFFIX: &str = ".local";

/// The name of this machine without its domain; empty, which matches no host, if it has none.
pub(super) fn machine_name() -> String {
    // Not from /proc, of which a service sees only the processes (ProcSubset=pid).
    let system = rustix::system::uname();
    let bare = system
        .nodename()
        .to_str()
        .unwrap_or_default()
        .split('.')
        .next();
    bare.unwrap_or_default().to_owned()
}

/// Whether `host`, as a browser sends it, is an address or a name that only this network gives out.
pub(super) fn is_allowed(host: &str, machine_name: &str) -> bool {
    let name = without_port(host).to_ascii_lowercase();
    if name.is_empty() {
        return false;
    }
    name == "localhost"
        || name == machine_name.to_ascii_lowercase()
        || name.ends_with(LOCAL_SUFFIX)
        || name.parse::<Ipv4Addr>().is_ok()
        || is_ipv6_in_brackets(&name)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

fn is_ipv6_in_brackets(name: &str) -> bool {
    name.strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_of_this_network_are_answered() {
        let hosts = [
            "127.0.0.1",
            "127.0.0.1:8091",
            "192.168.1.5:8091",
            "[::1]",
            "[::1]:8091",
            "[fe80::1]:8091",
            "localhost",
            "LocalHost:8091",
            "raspberrypi",
            "RaspberryPi:8091",
            "raspberrypi.local",
            "raspberrypi-2.local:8091",
        ];
        for host in hosts {
            assert!(is_allowed(host, "RaspberryPi"), "{host}");
        }
    }

    #[test]
    fn names_that_anybody_can_own_are_refused() {
        let hosts = [
            "",
            ":8091",
            "evil.example",
            "evil.example:8091",
            "raspberrypi.evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.local.example",
            "local",
            "::1",
            "[::1].evil.example",
            "[evil.example]",
            "127.0.0.1@evil.example",
            "otherpi",
        ];
        for host in hosts {
            assert!(!is_allowed(host, "raspberrypi"), "{host}");
        }
    }

    #[test]
    fn machine_without_a_name_answers_to_no_empty_host() {
        assert!(!is_allowed("", "") && !is_allowed(":80", ""));
    }
}
