//! The URL under which application servers reach this gateway.

use std::fmt;
use std::net::Ipv6Addr;

use super::limits::ENDPOINT_URL_BYTES_MAX;

/// Longest public URL, in bytes: it leaves 200 of an endpoint URL for what is minted behind it,
/// which takes about 130.
pub const PUBLIC_URL_BYTES_MAX: usize = 800;
const _: () = assert!(PUBLIC_URL_BYTES_MAX + 200 <= ENDPOINT_URL_BYTES_MAX);

/// What endpoint URLs start with: an `http` or `https` origin and, where a reverse proxy serves
/// other things as well, a path. Without a slash at its end.
///
/// Its origin is spelled as URL libraries spell it (lower case, no default port), so that it can
/// be compared with the `aud` of a VAPID token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicUrl(Box<str>);

impl PublicUrl {
    /// Takes `text` if it is such a URL, such as `https://push.example.org` or
    /// `http://192.168.1.2:8090/push/`.
    ///
    /// # Errors
    ///
    /// One variant of [`PublicUrlError`] for each part that can be wrong; a user name or a
    /// password counts as a wrong host.
    pub fn new(text: &str) -> Result<Self, PublicUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(PublicUrlError::Scheme)?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(PublicUrlError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(PublicUrlError::QueryOrFragment);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = path.strip_suffix('/').unwrap_or(path);
        if !path.split('/').skip(1).all(is_segment) {
            return Err(PublicUrlError::Path);
        }
        let (host, port) = split_port(authority)?;
        let host = normal_host(host).ok_or(PublicUrlError::Host)?;
        let url = match port.filter(|port| *port != default_port) {
            Some(port) => format!("{scheme}://{host}:{port}{path}"),
            None => format!("{scheme}://{host}{path}"),
        };
        if url.len() > PUBLIC_URL_BYTES_MAX {
            return Err(PublicUrlError::TooLong);
        }
        Ok(Self(url.into()))
    }

    /// The URL, without a slash at its end.
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no [`PublicUrl`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublicUrlError {
    /// Neither `http://` nor `https://`.
    Scheme,
    /// No host, more than a host, or not spelled as one.
    Host,
    /// Not a number from 1 to 65535.
    Port,
    /// An empty segment, a `.` or `..`, or a character that a URL must escape.
    Path,
    /// A query or a fragment.
    QueryOrFragment,
    /// Longer than [`PUBLIC_URL_BYTES_MAX`].
    TooLong,
}

impl fmt::Display for PublicUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("must start with http:// or https://"),
            Self::Host => f.write_str(
                "must name a host, without a user or a password, such as https://push.example.org",
            ),
            Self::Port => f.write_str("must have a port from 1 to 65535, or none"),
            Self::Path => f.write_str(
                "must have a path without empty, \".\" or \"..\" parts and with special characters \
                 escaped, or none",
            ),
            Self::QueryOrFragment => f.write_str("must end before any \"?\" or \"#\""),
            Self::TooLong => write!(f, "must be at most {PUBLIC_URL_BYTES_MAX} bytes long"),
        }
    }
}

/// Splits the port off; the brackets around an IPv6 address stay. A user name is refused.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), PublicUrlError> {
    if authority.contains('@') {
        return Err(PublicUrlError::Host);
    }
    let behind_host = authority.rfind(']').unwrap_or(0);
    let Some(colon) = authority.rfind(':').filter(|colon| *colon > behind_host) else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at(colon);
    let digits = port.strip_prefix(':').unwrap_or(port);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PublicUrlError::Port);
    }
    match digits.parse() {
        Ok(0) | Err(_) => Err(PublicUrlError::Port),
        Ok(port) => Ok((host, Some(port))),
    }
}

/// The host as URL libraries spell it, or `None` if it is none.
fn normal_host(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(allowed);
    host.split('.')
        .all(is_label)
        .then(|| host.to_ascii_lowercase())
}

/// Whether this is one part of a path that nothing on its way would rewrite (RFC 3986 `pchar`).
fn is_segment(segment: &str) -> bool {
    let mut escapes = segment.split('%');
    let plain = |text: &str| {
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
        text.bytes().all(allowed)
    };
    let escaped = |text: &str| {
        let code = text.as_bytes().first_chunk::<2>();
        code.is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit)) && plain(text)
    };
    !matches!(segment, "" | "." | "..") && escapes.next().is_some_and(plain) && escapes.all(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_url_is_kept_as_url_libraries_spell_it() {
        let spellings = [
            ("http://gateway", "http://gateway"),
            ("https://push.example.org/", "https://push.example.org"),
            ("HTTPS://Push.Example.ORG:443/", "https://push.example.org"),
            ("https://push.example.org:80", "https://push.example.org:80"),
            ("http://192.168.1.2:8090", "http://192.168.1.2:8090"),
            ("http://192.168.1.2:80/", "http://192.168.1.2"),
            ("http://[FD00:0::1]:8090/a", "http://[fd00::1]:8090/a"),
            ("http://[::1]", "http://[::1]"),
            ("https://h/a/B~%2f:@/", "https://h/a/B~%2f:@"),
        ];
        for (text, kept) in spellings {
            let url = PublicUrl::new(text);
            assert_eq!(url.as_ref().map(PublicUrl::as_str), Ok(kept), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_public_url_is_refused_for_its_reason() {
        let refusals = [
            ("", PublicUrlError::Scheme),
            ("push.example.org", PublicUrlError::Scheme),
            ("ws://h", PublicUrlError::Scheme),
            (" https://h", PublicUrlError::Scheme),
            ("http://", PublicUrlError::Host),
            ("http:///a", PublicUrlError::Host),
            ("http://:80", PublicUrlError::Host),
            ("http://a..b", PublicUrlError::Host),
            ("http://user@h", PublicUrlError::Host),
            ("http://user:secret@h", PublicUrlError::Host),
            ("http://user:secret@h:80", PublicUrlError::Host),
            ("http://fd00::1", PublicUrlError::Host),
            ("http://[::1", PublicUrlError::Host),
            ("http://[::1]x", PublicUrlError::Host),
            ("http://h h", PublicUrlError::Host),
            ("http://h:", PublicUrlError::Port),
            ("http://h:0", PublicUrlError::Port),
            ("http://h:65536", PublicUrlError::Port),
            ("http://h:+80", PublicUrlError::Port),
            ("http://h//", PublicUrlError::Path),
            ("http://h/a//b", PublicUrlError::Path),
            ("http://h/../b", PublicUrlError::Path),
            ("http://h/a b", PublicUrlError::Path),
            ("http://h/%2", PublicUrlError::Path),
            ("http://h/%g0", PublicUrlError::Path),
            ("http://h/?a", PublicUrlError::QueryOrFragment),
            ("http://h#a", PublicUrlError::QueryOrFragment),
        ];
        for (text, error) in refusals {
            assert_eq!(PublicUrl::new(text), Err(error), "{text}");
        }
    }

    #[test]
    fn public_url_takes_800_bytes_and_not_one_more() {
        let url = |bytes: usize| format!("http://h/{}", "a".repeat(bytes - 9));
        assert!(PublicUrl::new(&url(800)).is_ok());
        assert_eq!(PublicUrl::new(&url(801)), Err(PublicUrlError::TooLong));
    }
}
