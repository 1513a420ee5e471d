//! A connection whose peer must read what it is sent, in time.
//!
//! For HTTP; a websocket's frames have the same time each, which its own task keeps.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use smol::Timer;
use smol::io::{AsyncRead, AsyncWrite};

use super::stream::Stream;

/// A [`Stream`] that fails when its peer does not read.
#[derive(Debug)]
pub(super) struct Patience {
    stream: Stream,
    timeout: Duration,
    /// Runs while something is unsent: from the first write that had to wait until all is sent. One
    /// that takes a byte now and then gains nothing by it.
    late: Option<Timer>,
    at_its_end: bool,
}

impl Patience {
    pub(super) const fn new(stream: Stream, timeout: Duration) -> Self {
        Self {
            stream,
            timeout,
            late: None,
            at_its_end: false,
        }
    }

    /// The connection, and whether its peer did not read in time.
    pub(super) fn into_parts(self) -> (Stream, bool) {
        (self.stream, self.at_its_end)
    }

    /// What a write comes to that must wait.
    fn poll_late<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let timeout = self.timeout;
        let late = self.late.get_or_insert_with(|| Timer::after(timeout));
        ready!(Pin::new(late).poll(cx));
        self.at_its_end = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patience {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Patience {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => self.poll_late(cx),
            written @ Poll::Ready(_) => written,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, slices) {
            Poll::Pending => self.poll_late(cx),
            written @ Poll::Ready(_) => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.poll_late(cx),
            sent @ Poll::Ready(_) => {
                self.late = None;
                sent
            }
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
