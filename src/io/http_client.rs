//! hyper: one request over a connection of its own, many over one that is kept, and the request that
//! becomes a websocket.

use std::fmt;
use std::future::pending;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use hyper::{Request, StatusCode};
use smol::future::{or, poll_fn};
use smol_hyper::rt::FuturesIo;

use super::connect::{ConnectError, Connector};
use super::http::SUBPROTOCOL;
use super::reactor::Timer;
use super::stream::Stream;
use crate::protocol::answer::Answer;
use crate::protocol::peer_url::PeerUrl;

/// How long an answer may take. The gateway itself waits up to 100 ms for the user agent; another
/// push service may be slow, or on the other side of a slow link.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer head, in bytes. hyper accepts no less than 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of one answer.
const HEADERS_MAX: usize = 64;
/// What is read of a body, in bytes: a list of broadcasts fits, and an explanation is shorter.
const BODY_BYTES_MAX: usize = 64 * 1024;
const PRODUCT: &str = concat!("edgepush/", env!("CARGO_PKG_VERSION"));

type Connection = http1::Connection<FuturesIo<Stream>, Full<Bytes>>;

/// What to ask for.
#[derive(Debug)]
pub struct Question<'a> {
    /// `GET`, `POST` or `PUT`.
    pub method: &'a str,
    /// Where.
    pub url: &'a PeerUrl,
    /// Beside `Host`, `User-Agent` and the length of the body.
    pub headers: Vec<(&'static str, String)>,
    /// May be empty.
    pub body: Vec<u8>,
}

/// Sends one request and reads the answer. Redirects are not followed.
///
/// # Errors
///
/// [`ClientError`] when no answer came; what an answer says is for the caller to judge.
pub async fn ask(question: Question<'_>, connector: &Connector) -> Result<Answer, ClientError> {
    let url = question.url;
    let request = written(question)?;
    let asked = in_time(exchange(request, url, connector)).await?;
    Ok(asked.answer)
}

/// A connection that is asked one question after the other.
#[derive(Debug)]
pub struct KeptConnection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` when it has ended.
    connection: Option<Connection>,
}

impl KeptConnection {
    /// Connects to the host of `url`.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when there is no connection.
    pub async fn open(url: &PeerUrl, connector: &Connector) -> Result<Self, ClientError> {
        let (sender, connection) = in_time(connected(url, connector)).await?;
        Ok(Self {
            sender,
            connection: Some(connection),
        })
    }

    /// Whether it can be asked again, as far as is known without reading from it.
    pub const fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// As [`ask`], over this connection, which must be one to the host that is asked.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; the connection is of no use after that.
    pub async fn ask(&mut self, question: Question<'_>) -> Result<Answer, ClientError> {
        let url = question.url;
        let request = addressed(written(question)?, url)?;
        let asking = answered(&mut self.sender, request);
        let driving = async {
            if let Some(connection) = &mut self.connection {
                let _ = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
            }
            // Whoever still waits for an answer is told by this that none comes.
            self.connection = None;
            pending().await
        };
        let (answer, _) = in_time(or(asking, driving)).await?;
        Ok(answer)
    }
}

fn written(question: Question<'_>) -> Result<Request<Full<Bytes>>, ClientError> {
    let mut request = Request::new(Full::from(question.body));
    *request.method_mut() = question.method.parse().map_err(|_| ClientError::Request)?;
    for (name, value) in question.headers {
        let value = HeaderValue::from_str(&value).map_err(|_| ClientError::Request)?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// Asks for a websocket.
///
/// `key` is random, in base64; `accept` is what the answer must say to it.
pub(super) async fn upgrade(
    url: &PeerUrl,
    key: &str,
    accept: &str,
    connector: &Connector,
) -> Result<Upgraded, UpgradeError> {
    let mut request = Request::new(Full::default());
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let key = HeaderValue::from_str(key).map_err(|_| ClientError::Request)?;
    headers.insert(SEC_WEBSOCKET_KEY, key);
    let protocol = HeaderValue::from_static(SUBPROTOCOL);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);

    let asked = in_time(exchange(request, url, connector)).await?;
    if asked.answer.status != 101 {
        return Err(UpgradeError::Refused(asked.answer));
    }
    if asked.accept.as_deref() != Some(accept) {
        return Err(ClientError::NoWebsocket.into());
    }
    Ok(Upgraded {
        stream: asked.stream,
        early: asked.early,
    })
}

/// A connection that is a websocket now.
pub(super) struct Upgraded {
    pub(super) stream: Stream,
    /// What came right behind the answer.
    pub(super) early: Vec<u8>,
}

/// Everything that came back.
struct Asked {
    answer: Answer,
    accept: Option<String>,
    stream: Stream,
    early: Vec<u8>,
}

async fn in_time<T>(
    asking: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let late = async {
        Timer::after(ANSWER_TIMEOUT).await;
        Err(ClientError::Late)
    };
    or(asking, late).await
}

async fn exchange(
    request: Request<Full<Bytes>>,
    url: &PeerUrl,
    connector: &Connector,
) -> Result<Asked, ClientError> {
    let request = addressed(request, url)?;
    let (mut sender, mut connection) = connected(url, connector).await?;
    let asking = answered(&mut sender, request);
    let driving = async {
        // An error is told to the request as well, which is what `asking` waits for.
        let _ = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
        pending().await
    };
    let (answer, accept) = or(asking, driving).await?;
    let parts = connection.into_parts();
    Ok(Asked {
        answer,
        accept,
        stream: parts.io.into_inner(),
        early: parts.read_buf.to_vec(),
    })
}

/// The request with what says whom it is for and who asks.
fn addressed(
    mut request: Request<Full<Bytes>>,
    url: &PeerUrl,
) -> Result<Request<Full<Bytes>>, ClientError> {
    *request.uri_mut() = url.target().parse().map_err(|_| ClientError::Request)?;
    let host = HeaderValue::from_str(&url.authority()).map_err(|_| ClientError::Request)?;
    request.headers_mut().insert(HOST, host);
    let product = HeaderValue::from_static(PRODUCT);
    request.headers_mut().insert(USER_AGENT, product);
    Ok(request)
}

async fn connected(
    url: &PeerUrl,
    connector: &Connector,
) -> Result<(SendRequest<Full<Bytes>>, Connection), ClientError> {
    let connecting = connector.connect(url.host(), url.port(), url.tls());
    let stream = connecting.await.map_err(ClientError::Connect)?;
    http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .handshake(FuturesIo::new(stream))
        .await
        .map_err(ClientError::Http)
}

/// The answer, and what it says to a websocket's key.
async fn answered(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(Answer, Option<String>), ClientError> {
    sender.ready().await.map_err(ClientError::Http)?;
    let response = sender.send_request(request).await;
    let (head, body) = response.map_err(ClientError::Http)?.into_parts();
    let body = read_body(head.status, body).await;
    let accept = text(&head.headers, SEC_WEBSOCKET_ACCEPT.as_str());
    Ok((answer(head.status, &head.headers, body), accept))
}

/// The beginning of a body. A refusal counts also if its explanation is cut off.
async fn read_body(status: StatusCode, mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return bytes;
    }
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() >= BODY_BYTES_MAX {
            break;
        }
    }
    bytes.truncate(BODY_BYTES_MAX);
    bytes
}

fn answer(status: StatusCode, headers: &HeaderMap, body: Vec<u8>) -> Answer {
    Answer {
        status: status.as_u16(),
        location: text(headers, LOCATION.as_str()),
        retry_after: text(headers, RETRY_AFTER.as_str()),
        ttl: text(headers, "ttl"),
        body,
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// What was to be asked cannot be written as a request.
    Request,
    /// Nobody was reached.
    Connect(ConnectError),
    /// It is no HTTP, or it ended too early.
    Http(hyper::Error),
    /// It did not come in time.
    Late,
    /// It is another than a websocket needs.
    NoWebsocket,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("this cannot be sent as an HTTP request"),
            Self::Connect(error) => write!(f, "{error}"),
            Self::Http(error) => write!(f, "no HTTP answer: {error}"),
            Self::Late => write!(f, "no answer within {} s", ANSWER_TIMEOUT.as_secs()),
            Self::NoWebsocket => f.write_str("the answer opens no websocket"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Why there is no websocket.
#[derive(Debug)]
pub enum UpgradeError {
    /// No answer.
    Client(ClientError),
    /// An answer that is none.
    Refused(Answer),
}

impl From<ClientError> for UpgradeError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}
