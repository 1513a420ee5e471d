//! async-tungstenite: one task for each user agent's websocket, reading and writing in turn.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message};
use futures_util::Sink;
use smol::Timer;
use smol::future::{or, poll_fn};
use smol::stream::StreamExt;

use super::gateway::{Gateway, Order, Place};
use super::http::Opened;
use super::mailbox::Mailbox;
use super::stream::Stream;
use super::turns::Turn;
use crate::engine::{CloseReason, Failure, Input, SessionId, Violation};
use crate::model::limits::WEBSOCKET_MESSAGE_BYTES_MAX;

/// Read buffer of one websocket, in bytes; tungstenite allocates it at once and keeps it.
///
/// Acks and pings are 20 to 200 bytes; a longer message grows it for as long as it takes.
const READ_BUFFER_BYTES: usize = 256;
/// Frames gather up to this many bytes before they are written, so that a page of stored messages
/// takes few system calls.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// Most bytes that may gather when the socket takes none: one frame beyond the above. The engine
/// bounds what it sends before the socket has taken the rest.
const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// How long the peer has for its side of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A websocket of a user agent.
pub(super) type Socket = WebSocketStream<Stream>;

/// Makes a websocket of a connection; `early` is what has come on it already.
pub(super) async fn over(stream: Stream, early: Vec<u8>) -> Socket {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX))
        .max_frame_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX))
        .accept_unmasked_frames(false);
    WebSocketStream::from_partially_read(stream, early, Role::Server, Some(config)).await
}

/// Serves one websocket until it ends.
///
/// No `async fn`, whose arguments are kept twice: once as they came and once as they are used. Ten
/// thousand quiet user agents keep ten thousand of these.
pub(super) fn run(
    gateway: Rc<Gateway>,
    mut socket: Socket,
    opened: Opened,
    place: Place,
) -> impl Future<Output = ()> {
    let (session, orders) = gateway.open_socket(opened);
    async move {
        let _place = &place;
        let end = exchange(&gateway, &mut socket, session, &orders).await;
        // Before the closing handshake: what the engine holds for this user agent must not wait for it.
        gateway.close_socket(session);
        Box::pin(finish(&mut socket, end)).await;
    }
}

/// How the exchange of messages came to its end.
enum End {
    /// We close, for this reason.
    Ours(CloseReason),
    /// The peer has sent its close frame.
    Theirs,
    /// Nothing can be sent any more.
    Broken,
}

async fn exchange(
    gateway: &Gateway,
    socket: &mut Socket,
    session: SessionId,
    orders: &Mailbox<Order>,
) -> End {
    let mut paused = false;
    // After a violation nothing that comes can be trusted to be a frame.
    let mut broken = false;
    let turn = Turn::default();
    loop {
        // Orders first: what was asked for before the next message arrived comes before it.
        let mut unflushed = false;
        while let Some(order) = orders.try_take() {
            let frame = match order {
                Order::Send(text) => Message::text(text),
                Order::Ping => Message::Ping(Default::default()),
                Order::Pause => {
                    paused = true;
                    continue;
                }
                Order::Resume => {
                    paused = false;
                    continue;
                }
                Order::Close(reason) => return End::Ours(reason),
            };
            if !in_time(gateway, feed(socket, frame)).await {
                return End::Broken;
            }
            unflushed = true;
        }
        if unflushed {
            if !in_time(gateway, flush(socket)).await {
                return End::Broken;
            }
            gateway.turn(Input::AllSent { session });
            continue;
        }
        if paused || broken {
            orders.ready().await;
            continue;
        }
        let ordered = async {
            orders.ready().await;
            None
        };
        let received = async { Some(socket.next().await) };
        let Some(received) = or(ordered, received).await else {
            continue;
        };
        match take_in(gateway, session, received) {
            Taken::Message { bytes } => turn.spend_on(bytes).await,
            Taken::Violation => broken = true,
            Taken::End(end) => return end,
        }
    }
}

/// What a user agent has sent.
enum Taken {
    /// A message, of so many bytes.
    Message { bytes: usize },
    /// Something that is none. The engine orders the close, with its reason, now or in a moment.
    Violation,
    /// Its last.
    End(End),
}

/// Gives what the user agent sent to the engine.
fn take_in(
    gateway: &Gateway,
    session: SessionId,
    received: Option<Result<Message, Error>>,
) -> Taken {
    let violated = |violation| {
        gateway.turn(Input::Violation { session, violation });
        Taken::Violation
    };
    let (input, bytes) = match &received {
        Some(Ok(Message::Text(text))) => {
            let text = text.as_str();
            (Input::Text { session, text }, text.len())
        }
        Some(Ok(Message::Binary(bytes))) => (Input::Binary { session, bytes }, bytes.len()),
        Some(Ok(Message::Ping(bytes) | Message::Pong(bytes))) => {
            (Input::Alive { session }, bytes.len())
        }
        Some(Ok(Message::Close(_))) => return Taken::End(End::Theirs),
        Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
            return Taken::End(End::Broken);
        }
        Some(Err(Error::Capacity(_))) => return violated(Violation::TooLong),
        Some(Err(Error::Protocol(_) | Error::Utf8(_))) => return violated(Violation::Protocol),
        // A bare frame is only ever written, never read.
        Some(Ok(Message::Frame(_)) | Err(_)) | None => return Taken::End(End::Broken),
    };
    gateway.turn(input);
    Taken::Message { bytes }
}

/// Does `writing` unless the peer does not read; whether it was done.
async fn in_time(gateway: &Gateway, writing: impl Future<Output = Result<(), Error>>) -> bool {
    let late = async {
        // Made only when the socket is full: most writes need no timer.
        Timer::after(gateway.limits().write_timeout).await;
        gateway.turn(Input::Failed(Failure::Unread));
        false
    };
    or(async { writing.await.is_ok() }, late).await
}

/// Puts a frame in line, once there is room.
pub(super) async fn feed(socket: &mut Socket, frame: Message) -> Result<(), Error> {
    poll_fn(|cx| Pin::new(&mut *socket).poll_ready(cx)).await?;
    Pin::new(socket).start_send(frame)
}

/// Waits until the socket has taken everything.
pub(super) async fn flush(socket: &mut Socket) -> Result<(), Error> {
    poll_fn(|cx| Pin::new(&mut *socket).poll_flush(cx)).await
}

/// The closing handshake (RFC 6455 section 7.1), for a short while.
async fn finish(socket: &mut Socket, end: End) {
    let closing = async {
        match end {
            End::Broken => {}
            // Reading on sends the echo of their close frame.
            End::Theirs => {
                while let Some(Ok(_)) = socket.next().await {}
                socket.get_mut().say_end().await;
            }
            End::Ours(reason) => {
                let frame = CloseFrame {
                    code: CloseCode::from(reason.code()),
                    reason: reason.as_str().into(),
                };
                if socket.close(Some(frame)).await.is_ok() {
                    socket.get_mut().discard().await;
                }
            }
        }
    };
    let late = async {
        Timer::after(CLOSE_TIMEOUT).await;
    };
    or(closing, late).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function gives, without calling it.
    const fn output_bytes<A, B, C, D, R>(_: &impl FnOnce(A, B, C, D) -> R) -> usize {
        size_of::<R>()
    }

    /// On x86-64, where this was written, it was 1,112 bytes, of which 400 are the socket: each byte more is
    /// 10 KB with ten thousand quiet user agents. The room above is for what another compiler does.
    #[test]
    fn quiet_websocket_keeps_little_beside_its_socket() {
        let all = output_bytes(&run);
        assert!(
            all <= 1200,
            "{all}, of which the socket {}",
            size_of::<Socket>()
        );
    }
}
