//! Requests and answers of everything on the push port, without a socket: the headers that every
//! answer carries, cross-origin rules. Which path means what is `route`'s.

use std::net::IpAddr;

use super::problem::Problem;
use super::push_request::{Body, PushHeaders};
use crate::model::dialect::Dialect;
use crate::model::limits::ENDPOINT_URL_BYTES_MAX;
use crate::model::public_url::{PUBLIC_URL_BYTES_MAX, PublicUrl};

/// One request, as far as anybody here looks at it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who sent it.
    pub peer: IpAddr,
    /// `GET`, `POST`, …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What stands behind the `?`.
    pub query: Option<String>,
    /// The scheme and the `Host` header: how the peer reached us, if it said so in a usable form.
    pub base_url: Option<BaseUrl>,
    /// Whether it asks for a websocket.
    pub upgrade: Upgrade,
    /// What a push message needs.
    pub headers: PushHeaders,
    /// Its body.
    pub body: Body,
    /// Fresh random bytes, where [`Route::mints_names`](super::route::Route::mints_names).
    pub random: Option<[u8; NAMES_BYTES]>,
}

/// Random bytes of a UAID and of a channel ID.
pub const NAMES_BYTES: usize = 8 + 16;

/// Whether a request asks for a websocket (RFC 6455 section 4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Upgrade {
    /// It does not.
    None,
    /// It does, in full.
    Websocket,
    /// It does, but without what the handshake needs.
    BadWebsocket,
}

/// What the peer reached us by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// `http://` and `ws://`.
    Http,
    /// `https://` and `wss://`.
    Https,
}

/// The first part of an endpoint URL: scheme, host and port, perhaps a path; no slash at its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BaseUrl(Box<str>);

/// Bytes of an endpoint URL behind its base: `/wpush/v2/` and the longest token.
const ENDPOINT_TAIL_BYTES_MAX: usize = 10 + 114;
/// Longest base, so that UnifiedPush's limit on the whole URL is kept.
const BASE_URL_BYTES_MAX: usize = ENDPOINT_URL_BYTES_MAX - ENDPOINT_TAIL_BYTES_MAX;
const _: () = assert!(PUBLIC_URL_BYTES_MAX <= BASE_URL_BYTES_MAX);
const HTTP: &str = "http://";
const HTTPS: &str = "https://";
/// The same with and without TLS: of two peers with the same host, both are served.
const HOST_BYTES_MAX: usize = BASE_URL_BYTES_MAX - HTTPS.len();
const _: () = assert!(HTTP.len() <= HTTPS.len());

impl BaseUrl {
    /// Of a configured public URL.
    pub fn configured(url: &PublicUrl) -> Self {
        Self(url.as_str().into())
    }

    /// Of a `Host` header: a name or an address, and perhaps a port.
    pub fn of_host(scheme: Scheme, host: &str) -> Option<Self> {
        let scheme = match scheme {
            Scheme::Http => HTTP,
            Scheme::Https => HTTPS,
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let usable = !host.is_empty() && host.bytes().all(allowed);
        (usable && host.len() <= HOST_BYTES_MAX).then(|| Self(format!("{scheme}{host}").into()))
    }

    /// The URL that an application server posts or puts to.
    ///
    /// SimplePush's own path stays what it was on pushgo and AeroGear: some clients look for it.
    pub fn endpoint(&self, dialect: Dialect, restricted: bool, token: &str) -> String {
        let path = match (dialect, restricted) {
            (_, true) => "wpush/v2",
            (Dialect::WebPush, false) => "wpush/v1",
            (Dialect::SimplePush, false) => "update",
        };
        format!("{}/{path}/{token}", self.0)
    }

    /// The URL, without a slash at its end.
    pub const fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL of an accepted push message.
    pub fn message(&self, token: &str) -> String {
        format!("{}/m/{token}", self.0)
    }
}

/// An answer: status, headers, body. Length, date and connection headers are the server's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Names in their usual spelling.
    pub headers: Vec<(&'static str, String)>,
    /// Often empty.
    pub body: String,
}

impl Response {
    /// Only a status.
    pub const fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// A JSON text.
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", "application/json".to_owned())],
            body: body.into(),
        }
    }

    /// A push message is accepted: RFC 8030 section 5.
    pub fn accepted(location: String, ttl_secs: u32) -> Self {
        Self {
            status: 201,
            headers: vec![("Location", location), ("TTL", ttl_secs.to_string())],
            body: String::new(),
        }
    }

    /// A version update is accepted: PROTOCOL.md part 2, R24.
    pub fn updated(status: u16) -> Self {
        Self::json(status, "{}")
    }

    /// An endpoint of UnifiedPush, for an application server that asks (SERV_1.2.0).
    pub fn unifiedpush() -> Self {
        Self::json(200, r#"{"unifiedpush":{"version":1}}"#)
    }

    /// Which methods there are, for whoever asks without wanting to send anything else.
    pub fn options(allow: &str) -> Self {
        Self {
            status: 200,
            headers: vec![("Allow", allow.to_owned())],
            body: String::new(),
        }
    }

    /// Another method than those of `allow`.
    pub fn method_not_allowed(allow: &str) -> Self {
        Self {
            status: 405,
            headers: vec![("Allow", allow.to_owned())],
            body: String::new(),
        }
    }

    /// What somebody sees who opens the push port in a browser.
    pub fn not_a_website() -> Self {
        Self {
            status: 426,
            headers: vec![
                ("Content-Type", "text/plain; charset=utf-8".to_owned()),
                ("Upgrade", "websocket".to_owned()),
            ],
            body:
                "This is an edgepush push service. A user agent connects here with a websocket;\n\
                   the operator's console is on another port, on the machine itself.\n"
                    .to_owned(),
        }
    }

    /// Adds what a web page on another origin needs to read the answer. PROTOCOL.md part 3, 4.10.
    pub fn allow_origin(&mut self, origin: Option<&str>) {
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        self.headers.push(("Vary", vary.to_owned()));
        if let Some(origin) = origin {
            let exposed = "Location, TTL, Retry-After";
            self.headers
                .push(("Access-Control-Allow-Origin", origin.to_owned()));
            self.headers
                .push(("Access-Control-Expose-Headers", exposed.to_owned()));
        }
    }

    /// The answer to a preflight request: everything that is served here may be asked for.
    pub fn preflight(requested_headers: Option<&str>) -> Self {
        let mut headers = vec![
            (
                "Access-Control-Allow-Methods",
                "POST, DELETE, PUT, GET".to_owned(),
            ),
            ("Access-Control-Max-Age", "3600".to_owned()),
        ];
        if let Some(requested) = requested_headers {
            headers.push(("Access-Control-Allow-Headers", requested.to_owned()));
        }
        Self {
            status: 200,
            headers,
            body: String::new(),
        }
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        let mut headers = vec![("Content-Type", "application/json".to_owned())];
        let status = problem.wire().status;
        if status == 410 {
            headers.push(("Cache-Control", "max-age=86400".to_owned()));
        }
        if let Some(secs) = problem.retry_after_secs() {
            headers.push(("Retry-After", secs.to_string()));
        }
        Self {
            status,
            headers,
            body: problem.body(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_that_could_change_an_url_is_not_used() {
        for host in ["pi.local:8090", "192.168.1.2", "[fe80::1]:8090"] {
            for (scheme, start) in [(Scheme::Http, "http"), (Scheme::Https, "https")] {
                let url = BaseUrl::of_host(scheme, host).unwrap().message("t");
                assert_eq!(url, format!("{start}://{host}/m/t"));
            }
        }
        let long = "a".repeat(1000);
        for host in ["", "a/b", "a b", "user@a", "a?b", "a#b", "ä", long.as_str()] {
            assert_eq!(BaseUrl::of_host(Scheme::Http, host), None, "{host}");
        }
    }

    #[test]
    fn longest_endpoint_url_is_within_what_unifiedpush_allows() {
        let host = "a".repeat(HOST_BYTES_MAX);
        let url = BaseUrl::of_host(Scheme::Https, &host).unwrap().endpoint(
            Dialect::WebPush,
            true,
            &"t".repeat(114),
        );
        assert_eq!(url.len(), ENDPOINT_URL_BYTES_MAX);
        assert_eq!(BaseUrl::of_host(Scheme::Https, &format!("{host}a")), None);
    }

    #[test]
    fn gone_may_be_remembered_and_overload_says_when_to_come_back() {
        let gone = Response::from(Problem::NoSubscription);
        assert!(
            gone.headers
                .contains(&("Cache-Control", "max-age=86400".to_owned()))
        );
        let full = Response::from(Problem::QueueFull);
        assert!(full.headers.contains(&("Retry-After", "300".to_owned())));
    }
}
