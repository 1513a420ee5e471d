//! tiny_http: one request head in, one answer out, on a connection that then ends.
//!
//! Its words for a request and its writer of answers are used; its `Server` is not. That one has a
//! thread for each connection without a bound, no timeout and header lines of any length, and two
//! short requests end the whole process: a `Content-Length` of 10^17 (it allocates as much), and
//! one that is reset before it is accepted (it unwraps the address of the peer).

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::str::FromStr;
use std::time::{Duration, Instant};

use tiny_http::{HTTPVersion, Header, Method, Response};

/// Longest request line and headers, in bytes. A browser sends less than 1 KiB; cookies that other
/// programs on the same host name have set come on top.
const HEAD_BYTES_MAX: u64 = 8 << 10;
/// How much is read at a time: most heads in one or two.
const READ_BYTES: usize = 1 << 10;
/// Longest that writing an answer may wait for the peer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the peer to take the answer and close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Most of a request body that is read, unseen, so that the peer gets to see the answer.
const BODY_BYTES_MAX: u64 = 64 << 10;

/// No script, no frame, nothing from elsewhere; the page's own style sheet is inside of it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The same for the page to try it with: its own script and worker, and any endpoint.
const TRY_PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; \
     worker-src 'self'; connect-src http: https:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// What the console needs to know of a request.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Head {
    pub(super) method: Method,
    /// Without the query.
    pub(super) path: String,
    /// Empty without such a header.
    pub(super) host: String,
}

impl Head {
    /// Reads up to the empty line that ends the head.
    pub(super) fn read(source: impl Read) -> Result<Self, HeadError> {
        let mut reader = BufReader::with_capacity(READ_BYTES, source.take(HEAD_BYTES_MAX));
        let mut head = Self::from_request_line(&read_line(&mut reader)?)?;
        loop {
            let line = read_line(&mut reader)?;
            if line.is_empty() {
                return Ok(head);
            }
            let header = Header::from_str(&line).map_err(|()| HeadError::Malformed)?;
            if !header.field.equiv("Host") {
                continue;
            }
            // A second one could be what somebody before us has judged by.
            if !head.host.is_empty() {
                return Err(HeadError::Malformed);
            }
            head.host = header.value.to_string();
        }
    }

    fn from_request_line(line: &str) -> Result<Self, HeadError> {
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(HeadError::Malformed);
        };
        if !version.starts_with("HTTP/1.") {
            return Err(HeadError::Malformed);
        }
        Ok(Self {
            method: method.parse().map_err(|()| HeadError::Malformed)?,
            path: target.split('?').next().unwrap_or_default().to_owned(),
            host: String::new(),
        })
    }
}

/// One line without its end.
fn read_line(reader: &mut BufReader<io::Take<impl Read>>) -> Result<String, HeadError> {
    let mut line = String::new();
    if let Err(error) = reader.read_line(&mut line) {
        // A socket's timeout is `WouldBlock` on Linux; other kinds all mean that nobody listens.
        return Err(if error.kind() == ErrorKind::InvalidData {
            HeadError::Malformed
        } else if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            HeadError::TooSlow
        } else {
            HeadError::Gone
        });
    }
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.strip_suffix('\r').unwrap_or(line).to_owned()),
        None if reader.get_ref().limit() == 0 => Err(HeadError::TooLarge),
        None => Err(HeadError::Gone),
    }
}

/// Why there is no [`Head`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HeadError {
    /// Closed or reset: nobody to answer.
    Gone,
    /// Not HTTP/1.
    Malformed,
    /// Longer than [`HEAD_BYTES_MAX`].
    TooLarge,
    /// Not complete in time.
    TooSlow,
}

impl HeadError {
    /// What the peer is told, if there is one.
    pub(super) fn answer(self) -> Option<Answer> {
        match self {
            Self::Gone => None,
            Self::Malformed => Some(Answer::text(400, "This is not an HTTP/1.1 request.\n")),
            Self::TooLarge => Some(Answer::text(
                431,
                format!("The request line and headers are longer than {HEAD_BYTES_MAX} bytes.\n"),
            )),
            Self::TooSlow => Some(Answer::text(408, "The request took too long to arrive.\n")),
        }
    }
}

/// What goes back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    content_type: &'static str,
    content_security_policy: &'static str,
    body: String,
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type,
            content_security_policy: CONTENT_SECURITY_POLICY,
            body,
        }
    }

    /// Part of the page that subscribes and sends: it has a script, and speaks to endpoints.
    pub(super) fn of_try_page(content_type: &'static str, body: String) -> Self {
        Self {
            content_security_policy: TRY_PAGE_POLICY,
            ..Self::new(200, content_type, body)
        }
    }

    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into())
    }

    /// Writes it. Into a connection that is new, it fits without waiting.
    pub(super) fn write(self, mut stream: &TcpStream, without_body: bool) -> io::Result<()> {
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        stream.write_all(&self.into_bytes(without_body)?)
    }

    /// Writes it and waits for the peer to take it.
    pub(super) fn write_and_end(self, stream: &TcpStream, without_body: bool) -> io::Result<()> {
        self.write(stream, without_body)?;
        // To close with something unread is a reset, which makes the peer forget the answer.
        stream.shutdown(Shutdown::Write)?;
        let mut rest = Until::new(stream, CLOSE_TIMEOUT).take(BODY_BYTES_MAX);
        io::copy(&mut rest, &mut io::sink())?;
        Ok(())
    }

    /// As HTTP/1.0, which says that the connection ends here: tiny_http does not let us add
    /// `Connection: close`, and a browser that stays costs a thread.
    fn into_bytes(self, without_body: bool) -> io::Result<Vec<u8>> {
        let mut response = Response::from_string(self.body)
            .with_status_code(self.status)
            .with_header(header("Server", "edgepush"))
            .with_header(header("Content-Type", self.content_type))
            .with_header(header(
                "Content-Security-Policy",
                self.content_security_policy,
            ))
            .with_header(header("X-Content-Type-Options", "nosniff"))
            .with_header(header("Cache-Control", "no-store"));
        if self.status == 405 {
            response.add_header(header("Allow", "GET, HEAD"));
        }
        let mut bytes = Vec::new();
        response.raw_print(&mut bytes, HTTPVersion(1, 0), &[], without_body, None)?;
        Ok(bytes)
    }
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("headers are made of ASCII constants")
}

/// Reads for so long in all, however slowly the bytes drip in.
#[derive(Debug)]
pub(super) struct Until<'a> {
    stream: &'a TcpStream,
    start: Instant,
    time_max: Duration,
}

impl<'a> Until<'a> {
    pub(super) fn new(stream: &'a TcpStream, time_max: Duration) -> Self {
        Self {
            stream,
            start: Instant::now(),
            time_max,
        }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.time_max.saturating_sub(self.start.elapsed());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn read(text: &str) -> Result<Head, HeadError> {
        Head::read(text.as_bytes())
    }

    #[test]
    fn head_ends_at_the_empty_line_and_leaves_out_the_query() {
        let head = read("GET /metrics?x=1 HTTP/1.1\r\nAccept: */*\r\nhost:  pi:80 \r\n\r\nbody");
        assert_eq!(
            head,
            Ok(Head {
                method: Method::Get,
                path: "/metrics".to_owned(),
                host: "pi:80".to_owned()
            })
        );
    }

    #[test]
    fn what_is_not_http_is_malformed() {
        let requests = [
            "\r\n\r\n",
            "GET\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: ä\r\n\r\n",
        ];
        for request in requests {
            assert_eq!(read(request), Err(HeadError::Malformed), "{request:?}");
        }
        let not_utf8 = Head::read(b"GET /\xff HTTP/1.1\r\n\r\n".as_slice());
        assert_eq!(not_utf8, Err(HeadError::Malformed));
    }

    #[test]
    fn half_a_head_is_of_nobody() {
        assert_eq!(read(""), Err(HeadError::Gone));
        assert_eq!(read("GET / HT"), Err(HeadError::Gone));
        assert_eq!(read("GET / HTTP/1.1\r\nHost: a\r\n"), Err(HeadError::Gone));
    }

    #[test]
    fn head_may_be_as_long_as_the_limit_and_no_longer() {
        let of_length = |bytes: u64| {
            let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
            let padding = "x".repeat(usize::try_from(bytes).unwrap() - frame.len());
            read(&frame.replace("X: ", &format!("X: {padding}")))
        };
        assert!(of_length(HEAD_BYTES_MAX).is_ok());
        assert_eq!(of_length(HEAD_BYTES_MAX + 1), Err(HeadError::TooLarge));
    }

    #[test]
    fn head_is_not_read_past_its_time_though_bytes_still_come() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let (stream, _) = listener.accept().unwrap();
        let head = Head::read(Until::new(&stream, Duration::ZERO));
        assert_eq!(head, Err(HeadError::TooSlow));
    }

    #[test]
    fn head_of_a_silent_peer_is_too_slow() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let head = Head::read(Until::new(&stream, Duration::from_millis(10)));
        assert_eq!(head, Err(HeadError::TooSlow));
    }
}
