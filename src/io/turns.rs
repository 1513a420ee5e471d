//! One thread serves every peer: no connection keeps it for longer than its turn, whatever it sends, and
//! those who always have more to say wait for each other and not others for them.
//!
//! Counts work; what the work is, and what comes of it, is its owner's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use smol::LocalExecutor;
use smol::future::{or, poll_fn, yield_now};

/// Most work of one turn: as many small messages or requests as take well under a millisecond, of which
/// a Pi Zero makes a few.
const WORK_MAX: u32 = 8;
/// A message is one piece of work for each so many bytes of it, begun ones included: about what an
/// ack takes that names four push messages.
const WORK_BYTES: usize = 512;
/// Most reads of one turn that find something. Below a message nobody counts: empty fragments without
/// an end, bodies, what is read only to be thrown away.
const READS_MAX: u32 = 4;
/// Most tasks of one round. smol's own is 200: as many connections that have something to say would
/// keep all others unheard for as many turns.
const TASKS_MAX: u32 = 16;

thread_local! {
    static TURNS: Turns = const { Turns::new() };
}

/// The turns of this thread.
struct Turns {
    /// Reads of the task that runs now which found something.
    reads: Cell<u32>,
    /// Whether [`run`] is at work. Without it nobody would end a wait.
    running: Cell<bool>,
    /// Rounds so far: looks at the sockets, and what could be done after each.
    rounds: Cell<u64>,
    /// Those who have had their turn, and have more: each round one of them goes on.
    waiting: RefCell<VecDeque<Waker>>,
    /// How many of them have gone on so far.
    gone_on: Cell<u64>,
}

impl Turns {
    const fn new() -> Self {
        Self {
            reads: Cell::new(0),
            running: Cell::new(false),
            rounds: Cell::new(0),
            waiting: RefCell::new(VecDeque::new()),
            gone_on: Cell::new(0),
        }
    }

    fn wait(&self, waker: Waker) -> u64 {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(waker);
        let before = u64::try_from(waiting.len()).unwrap_or(u64::MAX);
        self.gone_on.get().saturating_add(before)
    }

    fn wait_to_read(&self, waker: &Waker) {
        self.reads.set(0);
        if !self.running.get() {
            return waker.wake_by_ref();
        }
        // Something else may have woken it meanwhile: it has one place all the same.
        let is_waiting = |waiting: &Waker| waiting.will_wake(waker);
        if !self.waiting.borrow().iter().any(is_waiting) {
            self.wait(waker.clone());
        }
    }

    fn next_goes_on(&self) {
        // The queue is free before a waker runs: whoever it wakes may wait again.
        let next = self.waiting.borrow_mut().pop_front();
        if let Some(next) = next {
            self.gone_on.set(self.gone_on.get().saturating_add(1));
            next.wake();
        }
    }
}

/// What one connection has had done lately.
#[derive(Debug, Default)]
pub(super) struct Turn {
    work: Cell<u32>,
    /// When that was, in rounds.
    round: Cell<u64>,
}

impl Turn {
    /// Counts one piece of work, and waits when that was a turn.
    pub(super) async fn spend(&self) {
        self.spend_on(0).await;
    }

    /// The same for a message of so many bytes.
    pub(super) async fn spend_on(&self, bytes: usize) {
        let pieces = bytes.checked_div(WORK_BYTES).unwrap_or(0).saturating_add(1);
        if self.is_over_after(u32::try_from(pieces).unwrap_or(u32::MAX)) {
            wait().await;
        }
    }

    /// A piece a round is what anybody may have: only what is above that adds up.
    fn is_over_after(&self, pieces: u32) -> bool {
        let round = TURNS.with(|turns| turns.rounds.get());
        let since = round.saturating_sub(self.round.replace(round));
        let forgotten = u32::try_from(since).unwrap_or(u32::MAX);
        let work = self.work.get().saturating_sub(forgotten);
        let work = work.saturating_add(pieces);
        let is_over = work >= WORK_MAX;
        self.work.set(if is_over { 0 } else { work });
        is_over
    }
}

/// Waits behind all who wait already.
async fn wait() {
    if !TURNS.with(|turns| turns.running.get()) {
        return yield_now().await;
    }
    let mut place = None;
    poll_fn(|cx| {
        TURNS.with(|turns| {
            let place = *place.get_or_insert_with(|| turns.wait(cx.waker().clone()));
            if place <= turns.gone_on.get() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    })
    .await;
}

/// Reads, unless the task that runs now has read enough: then it waits behind all who wait already.
pub(super) fn poll_read<T>(
    cx: &mut Context<'_>,
    read: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let reads = TURNS.with(|turns| turns.reads.get());
    if reads >= READS_MAX {
        TURNS.with(|turns| turns.wait_to_read(cx.waker()));
        return Poll::Pending;
    }
    let found = read(cx);
    if found.is_ready() {
        TURNS.with(|turns| turns.reads.set(reads.saturating_add(1)));
    }
    found
}

/// Runs the tasks of `executor` until `main` ends, and looks at the sockets and at `main` between a
/// few of them.
pub async fn run<T>(executor: &LocalExecutor<'_>, main: impl Future<Output = T>) -> T {
    let _running = Running::begin();
    or(when_woken(main), run_tasks(executor)).await
}

/// Polls `main` only when something of it has woken: it waits for connections and signals, and asks the
/// system for both each time.
async fn when_woken<T>(main: impl Future<Output = T>) -> T {
    let mut main = pin!(main);
    let bell = Arc::new(Bell::default());
    let own = Waker::from(Arc::clone(&bell));
    bell.has_rung.store(true, Ordering::SeqCst);
    poll_fn(|cx| {
        // Before looking: one that rings behind the look wakes us again.
        bell.listener.register(cx.waker());
        if bell.has_rung.swap(false, Ordering::SeqCst) {
            main.as_mut().poll(&mut Context::from_waker(&own))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Remembers that it was rung until somebody looks.
#[derive(Debug, Default)]
struct Bell {
    has_rung: AtomicBool,
    listener: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::SeqCst);
        self.listener.wake();
    }
}

/// Never ends. Whoever polls it looks at the sockets before the next poll.
async fn run_tasks<T>(executor: &LocalExecutor<'_>) -> T {
    let reset = || TURNS.with(|turns| turns.reads.set(0));
    loop {
        let mut ran = 0;
        reset();
        while ran < TASKS_MAX && executor.try_tick() {
            ran = ran.saturating_add(1);
            reset();
        }
        let is_idle = TURNS.with(|turns| {
            turns.rounds.set(turns.rounds.get().saturating_add(1));
            // Fewer than may run: there were no more.
            let is_idle = ran < TASKS_MAX && turns.waiting.borrow().is_empty();
            turns.next_goes_on();
            is_idle
        });
        if is_idle {
            executor.tick().await;
        } else {
            yield_now().await;
        }
    }
}

/// Says that [`run`] is at work, for as long as this is there.
struct Running;

impl Running {
    fn begin() -> Self {
        TURNS.with(|turns| turns.running.set(true));
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        TURNS.with(|turns| {
            turns.running.set(false);
            // Tasks that are waiting end with their executor.
            turns.waiting.take();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use smol::future::{FutureExt, block_on, poll_once};

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
    fn one_piece_a_round_never_adds_up_to_a_turn_and_two_do() {
        let pieces_of_a_round = |pieces: u32| {
            let turn = Turn::default();
            let over = (0..100).filter(|_| {
                TURNS.with(|turns| turns.rounds.set(turns.rounds.get() + 1));
                turn.is_over_after(pieces)
            });
            over.count()
        };
        assert_eq!(pieces_of_a_round(1), 0);
        assert!(pieces_of_a_round(2) > 10);
    }

    #[test]
    fn task_that_always_finds_something_to_read_waits_after_a_few_reads() {
        let reads = |times: usize| {
            TURNS.with(|turns| turns.reads.set(0));
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
    fn main_is_polled_when_it_was_woken_and_not_with_the_tasks() {
        let executor = LocalExecutor::new();
        let polls = Cell::new(0);
        let (sender, receiver) = smol::channel::bounded(1);
        let waiting = async {
            let mut received = pin!(receiver.recv());
            poll_fn(|cx| {
                polls.set(polls.get() + 1);
                received.as_mut().poll(cx)
            })
            .await
        };
        executor
            .spawn(async move {
                for _ in 0..100 {
                    yield_now().await;
                }
                sender.send("woken").await
            })
            .detach();
        assert_eq!(block_on(run(&executor, waiting)), Ok("woken"));
        assert_eq!(polls.get(), 2);
    }

    #[test]
    fn those_who_are_always_busy_keep_neither_main_nor_others_from_their_turn() {
        let executor = Rc::new(LocalExecutor::new());
        let spent = Rc::new(Cell::new(0_u32));
        for _ in 0..100 {
            let spent = Rc::clone(&spent);
            let busy = async move {
                let turn = Turn::default();
                loop {
                    spent.set(spent.get() + 1);
                    turn.spend().await;
                }
            };
            executor.spawn(busy.boxed_local()).detach();
        }
        // One who has little to do, again and again, counts how much of the others' comes between.
        let between = async {
            let mut between = 0;
            for _ in 0..200 {
                let before = spent.get();
                executor.spawn(async {}).await;
                between = spent.get() - before;
            }
            between
        };
        // At first all have their first turns; then one each round, of two rounds.
        assert!(block_on(run(&executor, between)) <= 2 * WORK_MAX);
        assert!(spent.get() > 100 * WORK_MAX);
    }
}
