//! async-io: one TCP connection, which asks the system only when something may have come.
//!
//! smol's own reads before it waits, and so finds nothing each time that a peer waits for its answer. It
//! also takes 250 bytes more of heap for each connection.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net::{self, Shutdown};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use smol::Async;
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::TcpStream;

/// A TCP connection.
#[derive(Debug)]
pub struct Tcp {
    socket: Async<net::TcpStream>,
    /// All that had come was read: there is nothing more before the system says so.
    is_drained: bool,
}

impl Tcp {
    /// A connection of which nothing was read, and whose messages are small and leave at once.
    pub(super) fn new(socket: TcpStream) -> Self {
        // A socket that refuses is closed already.
        let _ = socket.set_nodelay(true);
        let socket = Arc::into_inner(socket.into()).expect("a new connection has one owner");
        Self {
            socket,
            is_drained: false,
        }
    }

    /// What has come is read into `buffer` and stays there to be read.
    pub(super) async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.peek(buffer).await
    }

    /// Does `read`, which has room for so many bytes, when there may be something to read.
    fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        mut read: impl FnMut(&net::TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.is_drained {
                ready!(self.socket.poll_readable(cx))?;
            }
            match read(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_drained = true,
                read => {
                    // A stream fills the room if it can.
                    self.is_drained = read.as_ref().is_ok_and(|bytes| *bytes < room);
                    return Poll::Ready(read);
                }
            }
        }
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let room = buffer.len();
        let this = self.get_mut();
        this.poll_drain(cx, room, |mut socket| socket.read(buffer))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let room = buffers.iter().map(|buffer| buffer.len()).sum();
        let this = self.get_mut();
        this.poll_drain(cx, room, |mut socket| socket.read_vectored(buffers))
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(Shutdown::Write))
    }
}
