//! A connection whose peer must read what it is sent, in time.
//!
//! For HTTP; a websocket's frames have the same time each, which its own task keeps.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Sleep, Write};
use smol::io::{AsyncRead, AsyncWrite};

use super::reactor::Timer;
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

/// What one read takes: hyper's own buffer at first, and more than nearly every request.
const READ_BYTES: usize = 8 * 1024;

thread_local! {
    /// Where all connections are read into, one after the other. hyper's buffer is of bytes that hold
    /// nothing yet: to lend it to a [`Stream`], all of it had to be filled with zeros before each read,
    /// also where nothing has come.
    static READ: RefCell<[u8; READ_BYTES]> = const { RefCell::new([0; READ_BYTES]) };
}

impl Read for Patience {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        READ.with_borrow_mut(|buffer| {
            let room = cursor.remaining().min(READ_BYTES);
            let buffer = &mut buffer[..room];
            let count = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
            cursor.put_slice(&buffer[..count]);
            Poll::Ready(Ok(()))
        })
    }
}

impl Write for Patience {
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.poll_late(cx),
            sent @ Poll::Ready(_) => {
                self.late = None;
                sent
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

impl Sleep for Timer {}

/// Time for hyper.
#[derive(Clone, Copy, Debug)]
pub(super) struct HyperTimer;

impl hyper::rt::Timer for HyperTimer {
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Timer::after(time))
    }

    fn sleep_until(&self, due: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Timer::at(due))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, due: Instant) {
        // One for each request of a connection: in the place of the last.
        match sleep.as_mut().downcast_mut_pin::<Timer>() {
            Some(mut timer) => timer.set(Timer::at(due)),
            None => *sleep = self.sleep_until(due),
        }
    }
}
