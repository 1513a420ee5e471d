//! One connection, plain or over TLS, to be read and written without knowing which.
//!
//! It makes no connection: `listener` and `connect` do.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_rustls::TlsStream;
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::tcp::Tcp;
use super::turns::{self, Turn};
use crate::protocol::http::Scheme;

/// How much is thrown away at a time, in bytes.
const DISCARD_BYTES: usize = 1024;

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// What is written is what is sent.
    Plain(Tcp),
    /// Encrypted; the handshake is done. In a box: a plain connection pays a word for it at most.
    Tls(Box<TlsStream<Tcp>>),
}

const _: () = assert!(size_of::<Stream>() <= size_of::<Tcp>() + size_of::<usize>());

impl Stream {
    /// What a peer reaches us by over this connection.
    pub const fn scheme(&self) -> Scheme {
        match self {
            Self::Plain(_) => Scheme::Http,
            Self::Tls(_) => Scheme::Https,
        }
    }

    /// Over TLS, tells the peer that nothing more comes: without that it cannot know whether the
    /// end was cut off. A plain connection says it by being closed.
    pub(super) async fn say_end(&mut self) {
        if matches!(self, Self::Tls(_)) {
            // The peer may be gone.
            let _ = self.close().await;
        }
    }

    /// Closes our side and reads what the peer still sends until it has closed as well: a socket
    /// that is dropped with unread bytes resets the connection, and takes our last answer with it.
    pub(super) async fn discard(&mut self) {
        if self.close().await.is_err() {
            return;
        }
        // Below TLS: what is thrown away need not be decrypted.
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => match &mut **tls {
                TlsStream::Server(server) => server.get_mut().0,
                TlsStream::Client(client) => client.get_mut().0,
            },
        };
        // Not in the future, of which every open websocket keeps one for as long as it lasts.
        let mut buffer = vec![0; DISCARD_BYTES];
        let turn = Turn::default();
        while let Ok(1..) = socket.read(&mut buffer).await {
            turn.spend().await;
        }
    }
}

/// Does the same on either kind.
macro_rules! delegate {
    ($self:ident, $call:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).$call($($argument),*),
            Self::Tls(tls) => Pin::new(&mut **tls).$call($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        turns::poll_read(cx, |cx| delegate!(self, poll_read(cx, buffer)))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        turns::poll_read(cx, |cx| delegate!(self, poll_read_vectored(cx, buffers)))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write_vectored(cx, slices))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_close(cx))
    }
}
