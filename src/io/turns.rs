//! One thread serves every peer: no connection keeps it for longer than its turn, whatever it sends.
//!
//! Counts work; what the work is, and what comes of it, is its owner's.

use std::cell::Cell;
use std::task::{Context, Poll};

use smol::LocalExecutor;
use smol::future::{or, yield_now};

/// Most work of one connection before others have theirs: as many small messages, requests or new
/// connections as take well under a millisecond, of which a Pi Zero makes a few.
const WORK_MAX: u32 = 8;
/// A message is one piece of work for each so many bytes of it, begun ones included: about what an
/// ack takes that names four push messages.
const WORK_BYTES: usize = 512;
/// Most reads that find something before the one who reads must wait. Below a message nobody counts:
/// empty fragments without an end, bodies, what is read only to be thrown away.
const READS_MAX: u32 = 4;
/// Most tasks that run before the sockets are looked at again. smol's own is 200: as many connections
/// that always have something to say would keep all others unheard for as many turns.
const TASKS_MAX: u32 = 16;

thread_local! {
    /// Reads of the task that runs now which found something.
    static READS: Cell<u32> = const { Cell::new(0) };
}

/// What one task has had done since it last let others go first.
#[derive(Debug, Default)]
pub(super) struct Turn {
    work: Cell<u32>,
}

impl Turn {
    /// Counts one piece of work, and lets others go first when that was enough.
    pub(super) async fn spend(&self) {
        self.spend_on(0).await;
    }

    /// The same for a message of so many bytes.
    pub(super) async fn spend_on(&self, bytes: usize) {
        let pieces = bytes.checked_div(WORK_BYTES).unwrap_or(0).saturating_add(1);
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        let work = self.work.get().saturating_add(pieces);
        if work < WORK_MAX {
            self.work.set(work);
        } else {
            self.work.set(0);
            yield_now().await;
        }
    }
}

/// Reads, unless the task that runs now has read enough: then it is woken again, behind all others.
pub(super) fn poll_read<T>(
    cx: &mut Context<'_>,
    read: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let reads = READS.get();
    if reads >= READS_MAX {
        READS.set(0);
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    let found = read(cx);
    if found.is_ready() {
        READS.set(reads.saturating_add(1));
    }
    found
}

/// Runs the tasks of `executor` until `main` ends, and looks at the sockets and at `main` between a
/// few of them.
pub async fn run<T>(executor: &LocalExecutor<'_>, main: impl Future<Output = T>) -> T {
    let tasks = async {
        loop {
            for _ in 0..TASKS_MAX {
                READS.set(0);
                executor.tick().await;
            }
            // Whoever polls this one looks at the sockets before the next poll.
            yield_now().await;
        }
    };
    or(main, tasks).await
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use smol::future::{FutureExt, block_on, poll_fn, poll_once};

    use super::*;

    /// How often a future is pending before it is done.
    fn waits(future: impl Future<Output = ()>) -> usize {
        let mut future = Box::pin(future);
        let mut waits = 0;
        while block_on(poll_once(&mut future)).is_none() {
            waits += 1;
        }
        waits
    }

    #[test]
    fn turn_ends_after_its_work_and_a_long_message_is_as_much_as_many() {
        let of = |bytes: Vec<usize>| {
            waits(async move {
                let turn = Turn::default();
                for bytes in bytes {
                    turn.spend_on(bytes).await;
                }
            })
        };
        assert_eq!(of(vec![0; 7]), 0);
        assert_eq!(of(vec![0; 8]), 1);
        assert_eq!(of(vec![WORK_BYTES - 1; 7]), 0);
        assert_eq!(of(vec![WORK_BYTES; 4]), 1);
        assert_eq!(of(vec![65_536; 3]), 3);
    }

    #[test]
    fn task_that_always_finds_something_to_read_waits_after_a_few_reads() {
        let reads = |times: usize| {
            READS.set(0);
            waits(async move {
                for _ in 0..times {
                    poll_fn(|cx| poll_read(cx, |_| Poll::Ready(()))).await;
                }
            })
        };
        assert_eq!(reads(4), 0);
        assert_eq!(reads(5), 1);
        assert_eq!(reads(12), 2);
    }

    #[test]
    fn tasks_that_are_always_busy_keep_nobody_from_the_main_future() {
        let executor = Rc::new(LocalExecutor::new());
        let ran = Rc::new(Cell::new(0_u32));
        for _ in 0..100 {
            let ran = Rc::clone(&ran);
            let busy = async move {
                loop {
                    ran.set(ran.get() + 1);
                    yield_now().await;
                }
            };
            executor.spawn(busy.boxed_local()).detach();
        }
        let mut polls = 0;
        let main = poll_fn(|_| {
            polls += 1;
            if polls > 10 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        block_on(run(&executor, main));
        assert_eq!(ran.get(), 10 * TASKS_MAX);
    }
}
