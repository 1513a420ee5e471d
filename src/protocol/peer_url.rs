//! The URL of somebody to connect to: a gateway as its user agents know it, or an endpoint.

use std::fmt;
use std::net::Ipv6Addr;

/// Longest URL taken, in bytes: twice the longest endpoint URL that UnifiedPush allows.
const URL_BYTES_MAX: usize = 2000;

/// Where to connect to, and what to ask for there.
///
/// `ws` and `http` are the same here, and so are `wss` and `https`: a websocket begins as HTTP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerUrl {
    tls: bool,
    /// A name or an address, without the brackets of the latter.
    host: Box<str>,
    port: u16,
    target: Box<str>,
}

impl PeerUrl {
    /// Takes `ws://HOST:PORT/PATH`, the same with `http`, `wss` or `https`, or `HOST:PORT`.
    ///
    /// # Errors
    ///
    /// One variant of [`PeerUrlError`] for each part that can be wrong.
    pub fn new(text: &str) -> Result<Self, PeerUrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(PeerUrlError::TooLong);
        }
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (is_tls(scheme)?, rest),
            None => (false, text),
        };
        let schemeless = rest.len() == text.len();
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = host_and_port(authority)?;
        let port = match port {
            Some(port) => port,
            None if schemeless => return Err(PeerUrlError::Scheme),
            None => default_port(tls),
        };
        Ok(Self {
            tls,
            host,
            port,
            target: normal_target(target)?,
        })
    }

    /// Takes an endpoint: only `http` and `https`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn endpoint(text: &str) -> Result<Self, PeerUrlError> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        let is_http = scheme
            .is_some_and(|s| s.eq_ignore_ascii_case("http") || s.eq_ignore_ascii_case("https"));
        if !is_http {
            return Err(PeerUrlError::EndpointScheme);
        }
        Self::new(text)
    }

    /// Where `location`, which was answered here, sends on to: a whole URL, or a path of this host.
    ///
    /// # Errors
    ///
    /// [`RedirectError`] where that must not be followed.
    pub fn redirected(&self, location: &str) -> Result<Self, RedirectError> {
        if location.starts_with('/') && !location.starts_with("//") {
            let target = normal_target(location).map_err(RedirectError::Url)?;
            return Ok(Self {
                target,
                ..self.clone()
            });
        }
        if !location.contains("://") {
            return Err(RedirectError::Url(PeerUrlError::Scheme));
        }
        let to = Self::new(location).map_err(RedirectError::Url)?;
        if to.tls != self.tls {
            return Err(RedirectError::OtherScheme);
        }
        Ok(to)
    }

    /// Whether the connection is to be encrypted.
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// The name or the address to connect to.
    pub const fn host(&self) -> &str {
        &self.host
    }

    /// The port to connect to.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What stands in the first line of a request: path and query.
    pub const fn target(&self) -> &str {
        &self.target
    }

    /// What stands in the `Host` header: no default port.
    pub fn authority(&self) -> String {
        let host = &self.host;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            (*host).to_string()
        };
        if self.port == default_port(self.tls) {
            return host;
        }
        format!("{host}:{}", self.port)
    }

    /// Scheme, host and port: the `aud` of a VAPID token (RFC 8292 section 2).
    pub fn origin(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }
}

/// One spelling for each URL, with `http` or `https`.
impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.target)
    }
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn is_tls(scheme: &str) -> Result<bool, PeerUrlError> {
    match scheme.to_ascii_lowercase().as_str() {
        "ws" | "http" => Ok(false),
        "wss" | "https" => Ok(true),
        _ => Err(PeerUrlError::Scheme),
    }
}

fn host_and_port(authority: &str) -> Result<(Box<str>, Option<u16>), PeerUrlError> {
    if authority.contains('@') {
        return Err(PeerUrlError::Host);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(PeerUrlError::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| PeerUrlError::Host)?;
            let port = match port {
                "" => None,
                _ => Some(port.strip_prefix(':').ok_or(PeerUrlError::Host)?),
            };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if host.is_empty() || !host.bytes().all(allowed) {
                return Err(PeerUrlError::Host);
            }
            (host.to_ascii_lowercase(), port)
        }
    };
    let port = port.map(|digits| {
        let decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
        let port = digits.parse().ok().filter(|port| decimal && *port != 0);
        port.ok_or(PeerUrlError::Port)
    });
    Ok((host.into(), port.transpose()?))
}

fn normal_target(target: &str) -> Result<Box<str>, PeerUrlError> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte);
    if !target.bytes().all(allowed) {
        return Err(PeerUrlError::Target);
    }
    if target.starts_with('/') {
        return Ok(target.into());
    }
    Ok(format!("/{target}").into())
}

/// Why a text is no [`PeerUrl`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerUrlError {
    /// None that can be connected to, or neither a scheme nor a port.
    Scheme,
    /// An endpoint that is not `http` or `https`.
    EndpointScheme,
    /// No host, or a user name, or not spelled as a host.
    Host,
    /// Not a number from 1 to 65535.
    Port,
    /// A character that a URL must escape, or a fragment.
    Target,
    /// Longer than 2000 bytes.
    TooLong,
}

impl fmt::Display for PeerUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => {
                f.write_str("must be ws://HOST:PORT/, wss://…, http://…, https://… or HOST:PORT")
            }
            Self::EndpointScheme => f.write_str("must start with http:// or https://"),
            Self::Host => f.write_str(
                "must name a host, without a user or a password, such as ws://raspberrypi:8090/",
            ),
            Self::Port => f.write_str("must have a port from 1 to 65535"),
            Self::Target => {
                f.write_str("must have its special characters escaped, and no part behind a \"#\"")
            }
            Self::TooLong => write!(f, "must be at most {URL_BYTES_MAX} bytes long"),
        }
    }
}

impl std::error::Error for PeerUrlError {}

/// Why a redirect is not followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RedirectError {
    /// To what is no URL.
    Url(PeerUrlError),
    /// From an encrypted connection to one that is not, or the other way round: what was configured
    /// is not what would be used.
    OtherScheme,
}

impl fmt::Display for RedirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(_) => f.write_str("that is no URL to connect to"),
            Self::OtherScheme => {
                f.write_str("its scheme is another one; configure that URL if it is right")
            }
        }
    }
}

impl std::error::Error for RedirectError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_one_url_are_the_same() {
        for (text, url) in [
            ("pi:8090", "http://pi:8090/"),
            ("ws://PI:8090", "http://pi:8090/"),
            ("HTTP://pi:8090/", "http://pi:8090/"),
            ("wss://push.example.org/", "https://push.example.org/"),
            ("https://push.example.org:443", "https://push.example.org/"),
            ("ws://h:80/a/b?c=d&e", "http://h/a/b?c=d&e"),
            ("http://h?c", "http://h/?c"),
            ("127.0.0.1:8090/a", "http://127.0.0.1:8090/a"),
            ("[::0:1]:8090", "http://[::1]:8090/"),
            ("wss://[FD00::1]/", "https://[fd00::1]/"),
        ] {
            let parsed = PeerUrl::new(text).map(|url| url.to_string());
            assert_eq!(parsed.as_deref(), Ok(url), "{text}");
        }
        let url = PeerUrl::new("wss://[::1]:1/a").unwrap();
        assert_eq!((url.tls(), url.host(), url.port()), (true, "::1", 1));
        assert_eq!((url.target(), &*url.authority()), ("/a", "[::1]:1"));
    }

    #[test]
    fn redirect_keeps_the_scheme_or_is_not_followed() {
        let url = PeerUrl::new("wss://a/b").unwrap();
        for (location, to) in [
            ("wss://c/", Ok("https://c/")),
            ("https://c:8443/d?e", Ok("https://c:8443/d?e")),
            ("/d", Ok("https://a/d")),
            ("ws://a/b", Err(RedirectError::OtherScheme)),
            ("http://c/", Err(RedirectError::OtherScheme)),
            ("//c/", Err(RedirectError::Url(PeerUrlError::Scheme))),
            ("c:8443", Err(RedirectError::Url(PeerUrlError::Scheme))),
            ("d", Err(RedirectError::Url(PeerUrlError::Scheme))),
            ("/d e", Err(RedirectError::Url(PeerUrlError::Target))),
            ("wss://u@c/", Err(RedirectError::Url(PeerUrlError::Host))),
        ] {
            let redirected = url.redirected(location).map(|url| url.to_string());
            assert_eq!(
                redirected.as_deref(),
                to.as_ref().map(|to| *to),
                "{location}"
            );
        }
        let plain = PeerUrl::new("ws://a/").unwrap();
        assert_eq!(
            plain.redirected("wss://a/"),
            Err(RedirectError::OtherScheme)
        );
    }

    #[test]
    fn text_that_is_no_url_is_refused_for_its_reason() {
        let long = format!("http://h/{}", "a".repeat(URL_BYTES_MAX));
        for (text, error) in [
            ("", PeerUrlError::Host),
            ("pi", PeerUrlError::Scheme),
            ("pi/a", PeerUrlError::Scheme),
            ("ftp://pi", PeerUrlError::Scheme),
            ("http://", PeerUrlError::Host),
            (":8090", PeerUrlError::Host),
            ("http://user@h/", PeerUrlError::Host),
            ("http://user:secret@h/", PeerUrlError::Host),
            ("http://h h/", PeerUrlError::Host),
            ("http://[::1/", PeerUrlError::Host),
            ("http://[h]/", PeerUrlError::Host),
            ("http://[::1]8090/", PeerUrlError::Host),
            ("h:0", PeerUrlError::Port),
            ("h:65536", PeerUrlError::Port),
            ("h:+1", PeerUrlError::Port),
            ("h:", PeerUrlError::Port),
            ("http://h/a b", PeerUrlError::Target),
            ("http://h/a\r\nb", PeerUrlError::Target),
            ("http://h/ä", PeerUrlError::Target),
            ("http://h/#a", PeerUrlError::Target),
            (&long, PeerUrlError::TooLong),
        ] {
            assert_eq!(PeerUrl::new(text), Err(error), "{text}");
        }
        for text in ["ws://h/", "h:80", ""] {
            let refused = PeerUrl::endpoint(text);
            assert_eq!(refused, Err(PeerUrlError::EndpointScheme), "{text}");
        }
        assert!(PeerUrl::endpoint("HTTPS://h/").is_ok());
    }
}
