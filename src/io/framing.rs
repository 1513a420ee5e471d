//! tungstenite: the frames of a user agent's websocket.
//!
//! What reading and writing them takes is there only while something is under way: a quiet websocket is its
//! connection and nothing else.

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::OpCode;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use async_tungstenite::tungstenite::{Error, Message};
use smol::io::{AsyncRead, AsyncWrite};

use super::stream::Stream;
use crate::model::limits::WEBSOCKET_MESSAGE_BYTES_MAX;

/// Most bytes of one read. Acks and pings are 20 to 200 bytes; a message of the greatest length takes 64.
const READ_BYTES: usize = 1024;
/// What tungstenite reads frames into, in bytes, allocated with the first; a longer frame grows it.
const FRAME_BUFFER_BYTES: usize = 256;
/// Frames gather up to this many bytes before they are written, so that a page of stored messages
/// takes few system calls.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// Most bytes that may gather when the socket takes none: one frame beyond the above. The engine
/// bounds what it sends before the socket has taken the rest.
const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// A websocket of a user agent.
pub(super) struct Socket {
    stream: Stream,
    /// `None` while it is quiet.
    busy: Option<Box<Busy>>,
}

impl Socket {
    /// Makes a websocket of a connection; `early` is what has come on it already.
    pub(super) fn over(stream: Stream, early: &[u8]) -> Self {
        let busy = (!early.is_empty()).then(|| {
            let mut busy = Busy::new();
            busy.unread.extend_from_slice(early);
            busy
        });
        Self { stream, busy }
    }

    /// The connection, for its end.
    pub(super) const fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Waits for the next message, and answers pings and closes meanwhile. Nothing is lost if the wait is
    /// given up.
    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        loop {
            let mut is_quiet = true;
            if let Some(busy) = &mut self.busy {
                if let Some(message) = busy.read(&mut self.stream, cx)? {
                    return Poll::Ready(Ok(message));
                }
                let all_is_sent = busy.poll_flush(&mut self.stream, cx)?.is_ready();
                is_quiet = all_is_sent && busy.is_between_messages();
            }
            let mut bytes = [0; READ_BYTES];
            let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, &mut bytes) else {
                if is_quiet {
                    self.busy = None;
                }
                return Poll::Pending;
            };
            let come = bytes.get(..read?).unwrap_or_default();
            let busy = self.busy.get_or_insert_with(Busy::new);
            busy.unread.extend_from_slice(come);
            busy.has_ended = come.is_empty();
        }
    }

    /// Puts a message in line, once there is room, and leaves `None`.
    pub(super) fn poll_feed(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Option<Message>,
    ) -> Poll<Result<(), Error>> {
        if self.busy.as_ref().is_some_and(|busy| busy.is_full) {
            ready!(self.poll_flush(cx))?;
        }
        let Some(message) = message.take() else {
            return Poll::Ready(Ok(()));
        };
        let busy = self.busy.get_or_insert_with(Busy::new);
        Poll::Ready(busy.write(message, &mut self.stream, cx))
    }

    /// Waits until the socket has taken everything.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.busy {
            Some(busy) => busy.poll_flush(&mut self.stream, cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// What is under way on a websocket.
struct Busy {
    context: WebSocketContext,
    /// What has come and is no whole frame yet, or is not its turn yet: tungstenite gets one whole frame at a
    /// time, so that it keeps nothing between them that could not be seen from here.
    unread: Vec<u8>,
    /// The peer sends nothing more.
    has_ended: bool,
    /// A message of several frames has begun.
    in_fragments: bool,
    /// The socket did not take all that was written.
    is_full: bool,
}

impl Busy {
    fn new() -> Box<Self> {
        let config = WebSocketConfig::default()
            .read_buffer_size(FRAME_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_message_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX))
            .max_frame_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX))
            .accept_unmasked_frames(false);
        Box::new(Self {
            context: WebSocketContext::new(Role::Server, Some(config)),
            unread: Vec::new(),
            has_ended: false,
            in_fragments: false,
            is_full: false,
        })
    }

    /// The next message of what has come, if that is whole.
    fn read(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Result<Option<Message>, Error> {
        loop {
            let frame_bytes = self.next_frame();
            if frame_bytes == 0 && !self.has_ended {
                return Ok(None);
            }
            let mut wire = Wire {
                stream,
                cx,
                frame: self.unread.get(..frame_bytes).unwrap_or_default(),
                has_ended: frame_bytes == 0,
            };
            let read = self.context.read(&mut wire);
            self.unread.drain(..frame_bytes);
            match read {
                // A fragment.
                Err(error) if would_block(&error) => {}
                read => return read.map(Some),
            }
        }
    }

    /// The length of the next frame if it is whole, with its header, and otherwise 0.
    fn next_frame(&mut self) -> usize {
        let mut cursor = Cursor::new(&self.unread);
        let (header, payload_bytes) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return 0,
            // tungstenite says the same of it, with the right error.
            Err(_) => return self.unread.len(),
        };
        let whole = cursor.position().saturating_add(payload_bytes);
        match usize::try_from(whole) {
            Ok(whole) if whole <= self.unread.len() => {
                if matches!(header.opcode, OpCode::Data(_)) {
                    self.in_fragments = !header.is_final;
                }
                whole
            }
            // Not waited for: refused by its header.
            _ if payload_bytes > WEBSOCKET_MESSAGE_BYTES_MAX as u64 => self.unread.len(),
            Ok(_) | Err(_) => 0,
        }
    }

    fn is_between_messages(&self) -> bool {
        self.unread.is_empty() && !self.in_fragments && self.context.can_write()
    }

    /// Writes a message, or keeps it until the socket takes more.
    fn write(
        &mut self,
        message: Message,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        match self
            .context
            .write(&mut Wire::for_writing(stream, cx), message)
        {
            Err(error) if would_block(&error) => {
                self.is_full = true;
                Ok(())
            }
            written => written,
        }
    }

    fn poll_flush(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = self.context.flush(&mut Wire::for_writing(stream, cx));
        self.is_full = flushed.as_ref().is_err_and(would_block);
        if self.is_full {
            Poll::Pending
        } else {
            Poll::Ready(flushed)
        }
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == ErrorKind::WouldBlock)
}

/// A connection as tungstenite takes it: what it reads is one frame that is there already.
struct Wire<'a, 'b> {
    stream: &'a mut Stream,
    cx: &'a mut Context<'b>,
    frame: &'a [u8],
    /// There is none and none will come.
    has_ended: bool,
}

impl<'a, 'b> Wire<'a, 'b> {
    const fn for_writing(stream: &'a mut Stream, cx: &'a mut Context<'b>) -> Self {
        Self {
            stream,
            cx,
            frame: &[],
            has_ended: false,
        }
    }
}

impl Read for Wire<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.frame.is_empty() && !self.has_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.frame.read(buffer)
    }
}

impl Write for Wire<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.stream).poll_write(self.cx, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut *self.stream).poll_flush(self.cx))
    }
}

/// What was done now, or that it must wait.
fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(done) => done,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net;

    use smol::future::{poll_fn, poll_once, yield_now};

    use super::super::reactor::block_on;
    use super::super::tcp::Tcp;
    use super::*;

    const TEXT: u8 = 1;
    const CONTINUED: u8 = 0;
    const PING: u8 = 9;
    const FINAL: u8 = 0x80;

    /// A websocket and the other end of its connection.
    fn pair() -> (Socket, net::TcpStream) {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let tcp = Tcp::new(mio::net::TcpStream::from_std(stream)).unwrap();
        (Socket::over(Stream::Plain(tcp), &[]), peer)
    }

    /// A frame as a user agent sends it; its mask changes nothing.
    fn frame(first: u8, payload: &str) -> Vec<u8> {
        let mut frame = vec![
            first,
            0x80 | u8::try_from(payload.len()).unwrap(),
            0,
            0,
            0,
            0,
        ];
        frame.extend_from_slice(payload.as_bytes());
        frame
    }

    fn next(socket: &mut Socket) -> Message {
        block_on(poll_fn(|cx| socket.poll_message(cx))).unwrap()
    }

    /// Waits for a message that does not come, until the websocket is as it should be.
    fn wait(socket: &mut Socket, is_as_it_should_be: impl Fn(&Option<Box<Busy>>) -> bool) {
        block_on(async {
            loop {
                let message = poll_once(poll_fn(|cx| socket.poll_message(cx))).await;
                assert!(message.is_none(), "{message:?}");
                if is_as_it_should_be(&socket.busy) {
                    break;
                }
                yield_now().await;
            }
        });
    }

    #[test]
    fn quiet_websocket_keeps_nothing_and_loses_nothing_of_a_message_that_comes_in_pieces() {
        let (mut socket, mut peer) = pair();
        let message = frame(FINAL | TEXT, "hello");
        for (sent, byte) in message.iter().enumerate() {
            wait(&mut socket, |busy| {
                busy.as_ref().map_or(0, |busy| busy.unread.len()) == sent
            });
            peer.write_all(&[*byte]).unwrap();
        }
        assert_eq!(next(&mut socket), Message::text("hello"));
        wait(&mut socket, Option::is_none);
    }

    #[test]
    fn messages_that_come_together_are_received_one_by_one() {
        let (mut socket, mut peer) = pair();
        let both = [frame(FINAL | TEXT, "one"), frame(FINAL | TEXT, "two")].concat();
        peer.write_all(&both).unwrap();
        assert_eq!(next(&mut socket), Message::text("one"));
        assert_eq!(next(&mut socket), Message::text("two"));
        wait(&mut socket, Option::is_none);
    }

    #[test]
    fn ping_between_two_fragments_is_answered_and_the_message_is_whole() {
        let (mut socket, mut peer) = pair();
        peer.write_all(&frame(TEXT, "hel")).unwrap();
        peer.write_all(&frame(FINAL | PING, "!")).unwrap();
        assert_eq!(next(&mut socket), Message::Ping("!".into()));
        wait(&mut socket, |busy| {
            busy.as_ref().is_some_and(|busy| busy.in_fragments)
        });
        let mut pong = [0; 3];
        peer.read_exact(&mut pong).unwrap();
        assert_eq!(pong, [FINAL | 10, 1, b'!']);
        peer.write_all(&frame(FINAL | CONTINUED, "lo")).unwrap();
        assert_eq!(next(&mut socket), Message::text("hello"));
        wait(&mut socket, Option::is_none);
    }

    #[test]
    fn what_the_peer_does_not_read_is_kept_until_it_does() {
        let (mut socket, mut peer) = pair();
        let text = "x".repeat(WRITE_BUFFER_BYTES_MAX / 2);
        let mut sent = 0_usize;
        block_on(poll_fn(|cx| {
            while let Poll::Ready(fed) = socket.poll_feed(cx, &mut Some(Message::text(&*text))) {
                fed.unwrap();
                sent += 1;
            }
            Poll::Ready(())
        }));
        wait(&mut socket, Option::is_some);
        let bytes = sent * (text.len() + 10);
        let reader = std::thread::spawn(move || {
            let mut read = vec![0; bytes];
            peer.read_exact(&mut read).map(|()| peer)
        });
        block_on(poll_fn(|cx| socket.poll_flush(cx))).unwrap();
        let _peer = reader.join().unwrap().unwrap();
        wait(&mut socket, Option::is_none);
    }
}
