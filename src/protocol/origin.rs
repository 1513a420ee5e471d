//! Origins of URLs, compared as URL libraries compare them. The `aud` of a VAPID token is one.

use std::net::Ipv6Addr;

use super::http::BaseUrl;

/// The origins that an endpoint of this gateway can have had for an application server.
#[derive(Clone, Copy, Debug)]
pub struct Audience<'a> {
    /// What endpoint URLs start with, if that is configured.
    pub public_url: Option<&'a BaseUrl>,
    /// The `Host` that the request itself names. With `http` as with `https`: a proxy before the
    /// gateway may have ended TLS.
    pub reached_by: Option<&'a BaseUrl>,
}

impl Audience<'_> {
    /// Whether `aud` is one of these origins, with nothing behind it.
    #[must_use]
    pub fn includes(&self, aud: &str) -> bool {
        let Some(aud) = Origin::parse(aud) else {
            return false;
        };
        let public = self.public_url.and_then(|url| {
            let (scheme, authority, _path) = parts(url.as_str())?;
            Origin::new(scheme, authority)
        });
        let reached = self.reached_by.and_then(|url| {
            let (_, authority, _path) = parts(url.as_str())?;
            Origin::new(aud.scheme, authority)
        });
        public.as_ref() == Some(&aud) || reached.as_ref() == Some(&aud)
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Origin {
    scheme: &'static str,
    host: String,
    port: u16,
}

impl Origin {
    /// Reads `scheme://host` or `scheme://host:port` and nothing more, not even a slash.
    fn parse(text: &str) -> Option<Self> {
        match parts(text)? {
            (scheme, authority, "") => Self::new(scheme, authority),
            (_, _, _behind) => None,
        }
    }

    fn new(scheme: &'static str, authority: &str) -> Option<Self> {
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of `[::1]` is within the address.
            Some((host, port)) if !port.ends_with(']') => (host, port),
            Some(_) | None => (authority, ""),
        };
        let default_port = if scheme == "https" { 443 } else { 80 };
        let port = match port {
            "" => default_port,
            _ if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
            _ => return None,
        };
        let host = match host.strip_prefix('[') {
            Some(inner) => inner
                .strip_suffix(']')?
                .parse::<Ipv6Addr>()
                .ok()?
                .to_string(),
            None if is_name(host) => host.to_ascii_lowercase(),
            None => return None,
        };
        Some(Self { scheme, host, port })
    }
}

/// Whether this can be the host of an endpoint: see [`BaseUrl::of_host`].
fn is_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.bytes().all(allowed)
}

/// The scheme of a URL, what stands before its path, query or fragment, and those.
fn parts(url: &str) -> Option<(&'static str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = ["http", "https"]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(scheme))?;
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(end);
    Some((scheme, authority, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::public_url::PublicUrl;
    use crate::protocol::http::Scheme;

    fn public(url: &str) -> BaseUrl {
        BaseUrl::configured(&PublicUrl::new(url).unwrap())
    }

    #[test]
    fn origin_is_compared_as_url_libraries_spell_it() {
        for (one, other) in [
            ("http://pi", "HTTP://PI:80"),
            ("https://pi", "https://Pi:443"),
            ("http://pi:8090", "http://pi:08090"),
            ("http://pi:", "http://pi"),
            ("http://[FD00:0::1]:8090", "http://[fd00::1]:8090"),
            ("http://[::1]", "http://[::1]:80"),
            ("http://192.168.1.2", "http://192.168.1.2:80"),
        ] {
            assert!(Origin::parse(one).is_some(), "{one}");
            assert_eq!(Origin::parse(one), Origin::parse(other), "{one} {other}");
        }
        for (one, other) in [
            ("http://pi", "https://pi"),
            ("http://pi", "http://pi:443"),
            ("https://pi", "https://pi:80"),
            ("http://pi", "http://pi."),
            ("http://pi", "http://pi.local"),
            ("http://[::1]", "http://[::2]"),
        ] {
            assert_ne!(Origin::parse(one), Origin::parse(other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_none() {
        for text in [
            "",
            "pi",
            "pi:8090",
            "//pi",
            "http:",
            "http://",
            "http://:80",
            "http:///",
            "http://pi/",
            "http://pi?",
            "http://pi#",
            "http://pi\\",
            "http://pi/wpush",
            "http://pi/pi",
            "http://pi//pi",
            "http://pi:x",
            "http://pi:-1",
            "http://pi:65536",
            "http://[::1",
            "http://[pi]",
            "http://::1]",
            "http://::1",
            "http://user@pi",
            "http://p i",
            "ws://pi",
            "mailto:pi@example.org",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }

    #[test]
    fn audience_is_the_public_url_and_the_host_of_the_request_by_either_scheme() {
        let public_url = public("https://push.example.org/pi");
        let reached_by = BaseUrl::of_host(Scheme::Http, "Pi.local:8090");
        let audience = Audience {
            public_url: Some(&public_url),
            reached_by: reached_by.as_ref(),
        };
        for aud in [
            "https://push.example.org",
            "https://push.example.org:443",
            "http://pi.local:8090",
            "https://pi.local:8090",
        ] {
            assert!(audience.includes(aud), "{aud}");
        }
        for aud in [
            "http://push.example.org",
            "https://push.example.org/pi",
            "https://push.example.org/",
            "https://push.example.org:8090",
            "http://user@pi.local:8090",
            "http://pi.local",
            "",
        ] {
            assert!(!audience.includes(aud), "{aud}");
        }
    }

    #[test]
    fn host_without_a_port_is_the_default_port_of_either_scheme() {
        let reached_by = BaseUrl::of_host(Scheme::Http, "push.example.org");
        let audience = Audience {
            public_url: None,
            reached_by: reached_by.as_ref(),
        };
        assert!(audience.includes("https://push.example.org"));
        assert!(audience.includes("https://push.example.org:443"));
        assert!(audience.includes("http://push.example.org:80"));
        assert!(!audience.includes("http://push.example.org:443"));
    }

    #[test]
    fn nobody_is_the_audience_of_an_unknown_address() {
        let audience = Audience {
            public_url: None,
            reached_by: None,
        };
        assert!(!audience.includes("http://pi"));
    }
}
