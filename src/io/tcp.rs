//! mio: one TCP connection, which asks the system only when something may have come.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use mio::net::{TcpListener, TcpStream};
use smol::future::poll_fn;
use smol::io::{AsyncRead, AsyncWrite};

use super::reactor::{Direction, Watched};

/// Where TCP connections come in.
#[derive(Debug)]
pub struct Tcps(Watched<TcpListener>);

impl Tcps {
    /// Over a socket that listens already.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub(super) fn new(listener: net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Watched::new(TcpListener::from_std(listener)).map(Self)
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get().local_addr()
    }

    /// Waits for the next connection, and says whose it is.
    pub(super) async fn accept(&self) -> io::Result<(Tcp, SocketAddr)> {
        let accept = |cx: &mut Context<'_>| self.0.poll_with(Direction::Read, cx, |l| l.accept());
        let (socket, peer) = poll_fn(accept).await?;
        Ok((Tcp::new(socket)?, peer))
    }
}

/// A TCP connection.
#[derive(Debug)]
pub struct Tcp(Watched<TcpStream>);

impl Tcp {
    /// A connection whose messages are small and leave at once.
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        // A socket that refuses is closed already.
        let _ = socket.set_nodelay(true);
        Watched::new(socket).map(Self)
    }

    /// Connects.
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let connecting = Self::new(TcpStream::connect(address)?)?;
        let connected = |cx: &mut Context<'_>| {
            connecting.0.poll_with(Direction::Write, cx, |socket| {
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                match socket.peer_addr() {
                    // Woken for something else.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    peer => peer,
                }
            })
        };
        poll_fn(connected).await?;
        Ok(connecting)
    }

    /// What has come is read into `buffer` and stays there to be read.
    pub(super) async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            let peek = |socket: &TcpStream| socket.peek(buffer);
            self.0.poll_with(Direction::Read, cx, peek)
        })
        .await
    }

    /// Does `read`, which has room for so many bytes, when there may be something to read.
    fn poll_drain(
        &self,
        cx: &mut Context<'_>,
        room: usize,
        read: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let read = self.0.poll_with(Direction::Read, cx, read);
        // A stream fills the room if it can.
        if matches!(read, Poll::Ready(Ok(bytes)) if bytes < room) {
            self.0.drained();
        }
        read
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_drain(cx, buffer.len(), |mut socket| socket.read(buffer))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let room = buffers.iter().map(|buffer| buffer.len()).sum();
        self.poll_drain(cx, room, |mut socket| socket.read_vectored(buffers))
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = |mut socket: &TcpStream| socket.write(bytes);
        self.0.poll_with(Direction::Write, cx, write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = |mut socket: &TcpStream| socket.write_vectored(slices);
        self.0.poll_with(Direction::Write, cx, write)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept back.
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.get().shutdown(Shutdown::Write))
    }
}
