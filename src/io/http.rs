//! hyper: HTTP/1.1 on the push port, up to the point where a connection becomes a websocket.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, HOST, HeaderMap,
    HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode, Version};
use smol::future::{or, poll_fn};

use super::entropy;
use super::framing::Socket;
use super::gateway::{Gateway, Place};
use super::patience::{HyperTimer, Patience};
use super::reactor::Timer;
use super::stream::Stream;
use super::turns::Turn;
use super::websocket;
use crate::engine::{Failure, Input};
use crate::protocol::forwarded;
use crate::protocol::http::{BaseUrl, Request, Response, Scheme, Upgrade};
use crate::protocol::problem::Problem;
use crate::protocol::push_request::{Body, PushHeaders};
use crate::protocol::route::Route;

/// Largest request head, in bytes: a VAPID token and both encryption headers take about 1 KiB.
/// hyper accepts no less than 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of one request.
const HEADERS_MAX: usize = 64;
/// The sub-protocol that Firefox offers; answered only where offered.
pub(super) const SUBPROTOCOL: &str = "push-notification";
/// The path that only SimplePush user agents use (AeroGear).
const SIMPLEPUSH_PATH: &str = "/simplepush/websocket";

/// What a websocket needs to know of the request that opened it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) peer: IpAddr,
    pub(super) base_url: Option<BaseUrl>,
    pub(super) simplepush_path: bool,
    /// By a path whose user agents borrow their subscriptions.
    pub(super) borrows: bool,
}

/// What is known of a connection before its first request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) peer: IpAddr,
    pub(super) scheme: Scheme,
    /// What every request on it is answered with, if it is not to be served.
    pub(super) refusal: Option<Problem>,
}

/// How long a connection that we end is still read from: see [`Stream::discard`].
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves one connection until it ends; a websocket goes on as a task of its own.
pub(super) async fn serve(gateway: Rc<Gateway>, stream: Stream, link: Link, place: Place) {
    let opened = RefCell::new(None);
    let unread = Cell::new(false);
    let turn = Turn::default();
    let service = service_fn(|request| {
        place.hear();
        let answering = answer(&gateway, link, request, &opened, &unread);
        Box::pin(async {
            // Whoever sends one request behind the other lets others go first as well.
            turn.spend().await;
            Ok::<_, Infallible>(answering.await)
        })
    });
    let stream = Patience::new(stream, gateway.limits().write_timeout);
    let mut connection = http1::Builder::new()
        .timer(HyperTimer)
        .header_read_timeout(gateway.limits().request_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // A peer that has closed its sending half is gone: curl and browsers never do that.
        .half_close(false)
        .keep_alive(true)
        .serve_connection(stream, service);
    let mut stopping = Some(Box::pin(gateway.stopping()));
    let served = poll_fn(|cx| {
        if stopping
            .as_mut()
            .is_some_and(|s| s.as_mut().poll(cx).is_ready())
        {
            stopping = None;
            // A request that waits in the socket is begun first, and so is answered.
            if let ended @ Poll::Ready(_) = connection.poll_without_shutdown(cx) {
                return ended;
            }
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    })
    .await;
    let parts = connection.into_parts();
    let (mut stream, at_its_end) = parts.io.into_parts();
    let has_begun = !place.is_heard() || !parts.read_buf.is_empty();
    if let Some(failure) = failure(&served, at_its_end, has_begun) {
        gateway.turn(Input::Failed(failure));
    }
    let late = async {
        Timer::after(DISCARD_TIMEOUT).await;
    };
    match opened.take() {
        Some(opened) => {
            // Rarely anything: the first frame of a user agent that did not wait for the 101.
            let socket = Socket::over(stream, &parts.read_buf);
            gateway.spawn(websocket::run(Rc::clone(&gateway), socket, opened, place));
        }
        // An error is the peer's: a timeout, a broken request, a reset. hyper has answered it.
        None if served.is_err() || unread.get() => {
            or(stream.discard(), late).await;
        }
        None => or(stream.say_end(), late).await,
    }
}

/// What a connection came to nothing by, if it did. One that is kept for a request that never comes
/// did not.
fn failure(served: &hyper::Result<()>, unread: bool, has_begun: bool) -> Option<Failure> {
    match served {
        _ if unread => Some(Failure::Unread),
        Err(error) if error.is_parse() => Some(Failure::Malformed),
        Err(error) if error.is_timeout() && has_begun => Some(Failure::SlowRequest),
        Ok(()) | Err(_) => None,
    }
}

async fn answer(
    gateway: &Gateway,
    link: Link,
    request: hyper::Request<Incoming>,
    opened: &RefCell<Option<Opened>>,
    unread: &Cell<bool>,
) -> hyper::Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let origin = text(&head.headers, &ORIGIN);
    if let Some(refusal) = link.refusal {
        unread.set(true);
        let mut response = Response::from(refusal);
        response.allow_origin(origin.as_deref());
        return to_hyper(response, true);
    }
    let is_preflight = head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if head.method == Method::OPTIONS && is_preflight {
        let requested = text(&head.headers, &ACCESS_CONTROL_REQUEST_HEADERS);
        let mut response = Response::preflight(requested.as_deref());
        response.allow_origin(origin.as_deref());
        return to_hyper(response, false);
    }
    let upgrade = upgrade(&head.method, head.version, &head.headers);
    let base_url = text(&head.headers, &HOST).and_then(|host| BaseUrl::of_host(link.scheme, &host));
    let path = head.uri.path();
    // Also behind a join token, or whatever a proxy puts before it.
    let simplepush_path = path.ends_with(SIMPLEPUSH_PATH);
    let access = gateway.access();
    let forwarded_for = text(&head.headers, &HeaderName::from_static("x-forwarded-for"));
    let peer = forwarded::peer(link.peer, forwarded_for.as_deref(), |address| {
        access.trusts(address)
    });
    let bytes_max = gateway.body_bytes_max(head.method.as_str(), path);
    let body = read_body(gateway, body, bytes_max).await;
    // What was not read cannot be skipped over: the next request would start inside of it.
    unread.set(!matches!(body, Body::Whole(_)));
    let mut response = gateway
        .request(Request {
            peer,
            method: head.method.as_str().to_owned(),
            path: path.to_owned(),
            query: head.uri.query().map(str::to_owned),
            base_url: base_url.clone(),
            upgrade,
            headers: push_headers(&head.headers),
            body,
            random: Route::of(path).mints_names().then(entropy::random),
        })
        .await;
    if response.status == 101 {
        *opened.borrow_mut() = Some(Opened {
            peer,
            base_url,
            simplepush_path,
            borrows: gateway.borrows_by(path),
        });
        return switching_protocols(&head.headers);
    }
    response.allow_origin(origin.as_deref());
    to_hyper(response, unread.get())
}

/// Reads a body of which at most so many bytes matter; where that is none, it is not looked at.
async fn read_body(gateway: &Gateway, mut body: Incoming, bytes_max: usize) -> Body {
    if bytes_max == 0 {
        return Body::Whole(Vec::new());
    }
    if body.size_hint().lower() > bytes_max as u64 {
        return Body::TooLarge;
    }
    let reading = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) if is_malformed(&error) => {
                    gateway.turn(Input::Failed(Failure::Malformed));
                    return Body::Malformed;
                }
                // The connection ended.
                Err(_) => return Body::Incomplete,
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if bytes.len().saturating_add(data.len()) > bytes_max {
                return Body::TooLarge;
            }
            bytes.extend_from_slice(data);
        }
        Body::Whole(bytes)
    };
    let late = async {
        Timer::after(gateway.limits().request_timeout).await;
        gateway.turn(Input::Failed(Failure::SlowRequest));
        Body::Incomplete
    };
    or(reading, late).await
}

/// Whether a body ended because its chunks are none.
fn is_malformed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &io::Error| {
        matches!(
            cause.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        )
    })
}

/// In one walk: eight look-ups, most of them in vain, took 2,000 instructions more.
fn push_headers(headers: &HeaderMap) -> PushHeaders {
    let mut found = PushHeaders::default();
    for name in headers.keys() {
        let place = match name.as_str() {
            "authorization" => &mut found.authorization,
            "content-encoding" => &mut found.content_encoding,
            "content-type" => &mut found.content_type,
            "crypto-key" => &mut found.crypto_key,
            "encryption" => &mut found.encryption,
            "topic" => &mut found.topic,
            "ttl" => &mut found.ttl,
            "urgency" => &mut found.urgency,
            _ => continue,
        };
        *place = text(headers, name);
    }
    found
}

/// A header as text; a repeated one is joined as RFC 9110 section 5.3 says. Bytes outside of ASCII
/// become U+FFFD, which no check lets through.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = values.next()?.into_owned();
    Some(values.fold(first, |joined, value| format!("{joined}, {value}")))
}

/// RFC 6455 section 4.2.1.
fn upgrade(method: &Method, version: Version, headers: &HeaderMap) -> Upgrade {
    let has_token = |name: &HeaderName, token: &str| {
        text(headers, name).is_some_and(|list| {
            let mut items = list.split(',');
            items.any(|item| item.trim().eq_ignore_ascii_case(token))
        })
    };
    if !has_token(&CONNECTION, "upgrade") || !has_token(&UPGRADE, "websocket") {
        return Upgrade::None;
    }
    let version_13 = headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_some_and(|v| v == "13");
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .is_some_and(|key| key.len() == 24);
    if method == Method::GET && version >= Version::HTTP_11 && version_13 && key {
        Upgrade::Websocket
    } else {
        Upgrade::BadWebsocket
    }
}

fn switching_protocols(headers: &HeaderMap) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Some(key) = headers.get(SEC_WEBSOCKET_KEY) {
        let accept = derive_accept_key(key.as_bytes());
        let accept = HeaderValue::from_str(&accept).expect("base64 is printable");
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let offered = text(headers, &SEC_WEBSOCKET_PROTOCOL).is_some_and(|list| {
        let mut offers = list.split(',');
        offers.any(|offer| offer.trim() == SUBPROTOCOL)
    });
    if offered {
        let chosen = HeaderValue::from_static(SUBPROTOCOL);
        answer.insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    response
}

fn to_hyper(response: Response, close: bool) -> hyper::Response<Full<Bytes>> {
    let mut answer = hyper::Response::new(Full::from(response.body));
    *answer.status_mut() =
        StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers {
        // What came from the peer, such as its origin, may be no header value: leave it out.
        if let Ok(value) = HeaderValue::from_str(&value) {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("our own names are valid");
            answer.headers_mut().insert(name, value);
        }
    }
    if close {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
    }
    answer
}
