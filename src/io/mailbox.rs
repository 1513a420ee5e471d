//! From the turn of the event loop to the task of one socket, on the same thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A queue that one task reads. Empty, it takes no heap.
pub(super) struct Mailbox<T> {
    letters: RefCell<VecDeque<T>>,
    reader: Cell<Option<Waker>>,
}

impl<T> Mailbox<T> {
    pub(super) const fn new() -> Self {
        Self {
            letters: RefCell::new(VecDeque::new()),
            reader: Cell::new(None),
        }
    }

    /// Adds a letter and wakes the reader.
    pub(super) fn put(&self, letter: T) {
        self.letters.borrow_mut().push_back(letter);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// The oldest letter, if there is one.
    pub(super) fn try_take(&self) -> Option<T> {
        let mut letters = self.letters.borrow_mut();
        let letter = letters.pop_front();
        if letters.is_empty() {
            // Ten thousand idle user agents keep no empty queues.
            *letters = VecDeque::new();
        }
        letter
    }

    /// Whether there is a letter; wakes the task when there is one. For one task at a time.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.letters.borrow().is_empty() {
            self.reader.set(Some(cx.waker().clone()));
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Waits until there is a letter.
    pub(super) async fn ready(&self) {
        poll_fn(|cx| self.poll_ready(cx)).await;
    }

    /// Waits for the oldest letter.
    pub(super) async fn take(&self) -> T {
        loop {
            if let Some(letter) = self.try_take() {
                return letter;
            }
            self.ready().await;
        }
    }
}
