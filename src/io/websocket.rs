//! One task for each user agent's websocket, reading and writing in turn.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::{Error, Message};
use smol::future::{or, poll_fn};

use super::framing::Socket;
use super::gateway::{Gateway, Order, Place};
use super::http::Opened;
use super::mailbox::Mailbox;
use super::reactor::Timer;
use super::turns::Turn;
use crate::engine::{CloseReason, Failure, Input, SessionId, Violation};

/// How long the peer has for its side of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

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
            let mut frame = match order {
                Order::Send(text) => Some(Message::text(text)),
                Order::Ping => Some(Message::Ping(Default::default())),
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
            if !in_time(gateway, |cx| socket.poll_feed(cx, &mut frame)).await {
                return End::Broken;
            }
            unflushed = true;
        }
        if unflushed {
            if !in_time(gateway, |cx| socket.poll_flush(cx)).await {
                return End::Broken;
            }
            gateway.turn(Input::AllSent { session });
            continue;
        }
        if paused || broken {
            orders.ready().await;
            continue;
        }
        // What was received is taken in where it comes: it is large, and a quiet websocket has none.
        let taken = poll_fn(|cx| match orders.poll_ready(cx) {
            Poll::Ready(()) => Poll::Ready(Taken::Nothing),
            Poll::Pending => {
                let received = socket.poll_message(cx);
                received.map(|received| take_in(gateway, session, received))
            }
        });
        match taken.await {
            Taken::Nothing => {}
            Taken::Message { bytes } => turn.spend_on(bytes).await,
            Taken::Violation => broken = true,
            Taken::End(end) => return end,
        }
    }
}

/// What a user agent has sent.
enum Taken {
    /// Nothing: there is an order.
    Nothing,
    /// A message, of so many bytes.
    Message { bytes: usize },
    /// Something that is none. The engine orders the close, with its reason, now or in a moment.
    Violation,
    /// Its last.
    End(End),
}

/// Gives what the user agent sent to the engine.
fn take_in(gateway: &Gateway, session: SessionId, received: Result<Message, Error>) -> Taken {
    let violated = |violation| {
        gateway.turn(Input::Violation { session, violation });
        Taken::Violation
    };
    let (input, bytes) = match &received {
        Ok(Message::Text(text)) => {
            let text = text.as_str();
            (Input::Text { session, text }, text.len())
        }
        Ok(Message::Binary(bytes)) => (Input::Binary { session, bytes }, bytes.len()),
        Ok(Message::Ping(bytes) | Message::Pong(bytes)) => (Input::Alive { session }, bytes.len()),
        Ok(Message::Close(_)) => return Taken::End(End::Theirs),
        Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
            return Taken::End(End::Broken);
        }
        Err(Error::Capacity(_)) => return violated(Violation::TooLong),
        Err(Error::Protocol(_) | Error::Utf8(_)) => return violated(Violation::Protocol),
        // A bare frame is only ever written, never read.
        Ok(Message::Frame(_)) | Err(_) => return Taken::End(End::Broken),
    };
    gateway.turn(input);
    Taken::Message { bytes }
}

/// Polls `write` until it is done, unless the peer does not read; whether it was done.
///
/// No `async fn`, as [`run`].
fn in_time(
    gateway: &Gateway,
    mut write: impl FnMut(&mut Context<'_>) -> Poll<Result<(), Error>>,
) -> impl Future<Output = bool> {
    // Made only when the socket is full: most writes need no timer, and no room for one.
    let mut late: Option<Box<Timer>> = None;
    poll_fn(move |cx| {
        if let Poll::Ready(written) = write(cx) {
            return Poll::Ready(written.is_ok());
        }
        let late =
            late.get_or_insert_with(|| Box::new(Timer::after(gateway.limits().write_timeout)));
        ready!(Pin::new(late).poll(cx));
        gateway.turn(Input::Failed(Failure::Unread));
        Poll::Ready(false)
    })
}

/// The closing handshake (RFC 6455 section 7.1), for a short while.
async fn finish(socket: &mut Socket, end: End) {
    let closing = async {
        match end {
            End::Broken => {}
            // Reading on sends the echo of their close frame.
            End::Theirs => {
                while poll_fn(|cx| socket.poll_message(cx)).await.is_ok() {}
                socket.stream().say_end().await;
            }
            End::Ours(reason) => {
                let frame = CloseFrame {
                    code: CloseCode::from(reason.code()),
                    reason: reason.as_str().into(),
                };
                let mut frame = Some(Message::Close(Some(frame)));
                let said = poll_fn(|cx| {
                    ready!(socket.poll_feed(cx, &mut frame))?;
                    socket.poll_flush(cx)
                });
                if said.await.is_ok() {
                    socket.stream().discard().await;
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

    /// On x86-64, where this was written, it was 320 bytes, of which 32 are the socket: each byte more is 10 KB with ten
    /// thousand quiet user agents. The room above is for what another compiler does.
    #[test]
    fn quiet_websocket_keeps_little() {
        let all = output_bytes(&run);
        let socket = size_of::<Socket>();
        assert!(
            all <= 332 && socket <= 32,
            "{all}, of which the socket {socket}"
        );
    }
}
