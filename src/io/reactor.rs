//! mio: what this thread waits for, all in one place: its sockets, its timers, and word from other threads.
//!
//! A socket is registered once, and the system says when something about it has changed (edge-triggered),
//! so that a wait is one system call. smol's own reactor, async-io, registers each socket anew for each wait,
//! its timer and its bell as well, and has a thread of its own: eleven of the seventeen calls that a push
//! message took were its.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use mio::event::{Event, Source};
use mio::{Events, Interest, Token};
use slab::Slab;

use super::clock;

/// What one look takes in at most; what is left comes with the next.
const EVENTS_MAX: usize = 256;
/// Word from another thread. No socket has as high a number.
const BELL: Token = Token(usize::MAX);

thread_local! {
    static REACTOR: Reactor = Reactor::new()
        .expect("without a descriptor to wait by, a process that serves cannot begin");
}

/// Polls `main` until it is done, and waits for what it and all that it polls wait for.
///
/// Each poll comes after one look at the sockets and timers. Not to be called by what it polls.
pub fn block_on<T>(main: impl Future<Output = T>) -> T {
    REACTOR.with(|reactor| {
        let _running = Running::begin(reactor);
        let waker = Waker::from(Arc::clone(&reactor.bell));
        let mut cx = Context::from_waker(&waker);
        let mut main = pin!(main);
        loop {
            reactor.bell.hear();
            if let Poll::Ready(done) = main.as_mut().poll(&mut cx) {
                return done;
            }
            reactor.wait();
        }
    })
}

/// What one thread waits for.
struct Reactor {
    poll: RefCell<mio::Poll>,
    events: RefCell<Events>,
    bell: Arc<Bell>,
    /// By the number of their token.
    watches: RefCell<Slab<Watch>>,
    /// Who is to be woken when.
    timers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    last_timer: Cell<u64>,
    /// Whether [`block_on`] is at work. Without it nobody would end a wait.
    running: Cell<bool>,
}

/// Says that [`block_on`] is at work, for as long as this is there.
struct Running<'a>(&'a Reactor);

impl<'a> Running<'a> {
    fn begin(reactor: &'a Reactor) -> Self {
        reactor.running.set(true);
        Self(reactor)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(false);
    }
}

impl Reactor {
    fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let bell = Bell {
            state: AtomicU8::new(AWAKE),
            alarm: mio::Waker::new(poll.registry(), BELL)?,
        };
        Ok(Self {
            poll: RefCell::new(poll),
            events: RefCell::new(Events::with_capacity(EVENTS_MAX)),
            bell: Arc::new(bell),
            watches: RefCell::default(),
            timers: RefCell::default(),
            last_timer: Cell::new(0),
            running: Cell::new(false),
        })
    }

    /// Polled by another's `block_on`, whoever waits here would wait for ever.
    fn check_is_running(&self) {
        debug_assert!(self.running.get(), "to be polled by `reactor::block_on`");
    }

    /// Waits for whatever comes first, and wakes those who wait for it. Returns at once if the bell has rung
    /// since it was last heard.
    fn wait(&self) {
        let longest = if self.bell.may_sleep() {
            let timers = self.timers.borrow();
            let first = timers.first_key_value();
            first.map(|((due, _), _)| due.saturating_duration_since(clock::monotonic()))
        } else {
            Some(Duration::ZERO)
        };
        let mut events = self.events.borrow_mut();
        let waited = self.poll.borrow_mut().poll(&mut events, longest);
        self.bell.get_up();
        if let Err(error) = waited {
            // A signal, whose handler has rung already.
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "{error}");
        }
        for event in &*events {
            if event.token() != BELL {
                self.note(event);
            }
        }
        self.end_timers();
    }

    /// Whoever is woken may come back for the tables: none is in use meanwhile.
    fn note(&self, event: &Event) {
        let (reader, writer) = {
            let mut watches = self.watches.borrow_mut();
            // Of a socket that was dropped in this very look.
            let Some(watch) = watches.get_mut(event.token().0) else {
                return;
            };
            watch.note(event)
        };
        for waker in [reader, writer].into_iter().flatten() {
            waker.wake();
        }
    }

    fn end_timers(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        let now = clock::monotonic();
        let next = || {
            let mut timers = self.timers.borrow_mut();
            let first = timers.first_entry()?;
            (first.key().0 <= now).then(|| first.remove())
        };
        while let Some(waker) = next() {
            waker.wake();
        }
    }
}

/// Ends the wait of its thread, from any thread.
struct Bell {
    state: AtomicU8,
    alarm: mio::Waker,
}

/// Nobody has rung since it was last heard.
const AWAKE: u8 = 0;
/// Somebody has: the next wait is none.
const RUNG: u8 = 1;
/// The thread waits: only the alarm ends that, which is a system call.
const ASLEEP: u8 = 2;

impl Bell {
    /// A swap and no store, as below: what was done before somebody rang is to be seen after this.
    fn hear(&self) {
        self.state.swap(AWAKE, Ordering::SeqCst);
    }

    fn may_sleep(&self) -> bool {
        self.state
            .compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// What comes of the wait is looked at anyway: nobody need ring until that is done.
    fn get_up(&self) {
        self.state.swap(RUNG, Ordering::SeqCst);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::SeqCst) == ASLEEP {
            self.alarm.wake().expect("an event counter counts");
        }
    }
}

/// What a socket is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    /// Something to read, a connection to accept.
    Read,
    /// Room to write, the end of connecting.
    Write,
}

/// What is known of one socket, and who waits for it.
#[derive(Debug, Default)]
struct Watch {
    can_read: bool,
    can_write: bool,
    /// Nothing more comes after what is there: the system has said so, once.
    is_ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One for each connection, quiet ones included.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Watch>() <= 40);

impl Watch {
    /// Those whom the event concerns.
    fn note(&mut self, event: &Event) -> (Option<Waker>, Option<Waker>) {
        let failed = event.is_error();
        self.is_ended |= event.is_read_closed() || failed;
        self.can_read |= event.is_readable() || self.is_ended;
        self.can_write |= event.is_writable() || event.is_write_closed() || failed;
        let reader = self.reader.take_if(|_| self.can_read);
        let writer = self.writer.take_if(|_| self.can_write);
        (reader, writer)
    }

    fn poll_ready(&mut self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        let (can, waiting) = match direction {
            Direction::Read => (self.can_read, &mut self.reader),
            Direction::Write => (self.can_write, &mut self.writer),
        };
        if can {
            return Poll::Ready(());
        }
        match waiting {
            Some(waiting) => waiting.clone_from(cx.waker()),
            None => *waiting = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// A socket that the reactor of this thread watches, for one reader and one writer.
///
/// It must not block. Nothing is known of it at first: the system says how it is with the next look.
pub(super) struct Watched<S: Source> {
    source: S,
    number: u32,
    /// The watch is this thread's.
    thread: PhantomData<Rc<()>>,
}

impl<S: Source> Watched<S> {
    /// Watches from here on.
    pub(super) fn new(mut source: S) -> io::Result<Self> {
        let number = REACTOR.with(|reactor| {
            let mut watches = reactor.watches.borrow_mut();
            let entry = watches.vacant_entry();
            let number = u32::try_from(entry.key()).map_err(io::Error::other)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            let poll = reactor.poll.borrow();
            poll.registry()
                .register(&mut source, Token(entry.key()), both)?;
            entry.insert(Watch::default());
            Ok::<_, io::Error>(number)
        })?;
        Ok(Self {
            source,
            number,
            thread: PhantomData,
        })
    }

    /// The socket itself.
    pub(super) const fn get(&self) -> &S {
        &self.source
    }

    /// The socket itself, to be changed.
    pub(super) const fn get_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// Waits until it may be ready.
    pub(super) async fn ready(&self, direction: Direction) {
        poll_fn(|cx| self.poll_ready(direction, cx)).await;
    }

    /// Does `attempt` until it need not wait.
    pub(super) fn poll_with<T>(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(self.poll_ready(direction, cx));
            match attempt(&self.source) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.must_wait(direction)
                }
                done => return Poll::Ready(done),
            }
        }
    }

    /// All that had come was read, as is known without asking for more: there is nothing before the system
    /// says so, unless it has said that this was the end.
    pub(super) fn drained(&self) {
        self.watch(|watch| watch.can_read = watch.is_ended);
    }

    /// It was tried, and is not ready: the system will say when it is.
    pub(super) fn must_wait(&self, direction: Direction) {
        self.watch(|watch| match direction {
            Direction::Read => {
                watch.can_read = false;
                watch.is_ended = false;
            }
            Direction::Write => watch.can_write = false,
        });
    }

    fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        self.watch(|watch| watch.poll_ready(direction, cx))
    }

    fn watch<T>(&self, change: impl FnOnce(&mut Watch) -> T) -> T {
        REACTOR.with(|reactor| {
            reactor.check_is_running();
            let mut watches = reactor.watches.borrow_mut();
            let watch = watches.get_mut(self.number());
            change(watch.expect("it is there until this is dropped"))
        })
    }

    const fn number(&self) -> usize {
        self.number as usize
    }
}

impl<S: Source> Drop for Watched<S> {
    fn drop(&mut self) {
        // Without a reactor the thread is at its end.
        let _ = REACTOR.try_with(|reactor| {
            // One that somebody else has as well, as a listener that was passed, would go on telling.
            let poll = reactor.poll.borrow();
            let _ = poll.registry().deregister(&mut self.source);
            let watch = reactor.watches.borrow_mut().try_remove(self.number());
            drop(watch);
        });
    }
}

impl<S: Source> fmt::Debug for Watched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.number).finish()
    }
}

/// Waits until a time has come; up to a millisecond longer.
///
/// Of the thread that polls it first.
#[derive(Debug)]
pub struct Timer {
    /// `None`: for ever.
    due: Option<Instant>,
    /// Its entry in the reactor's table; 0 before it was polled.
    number: u64,
}

impl Timer {
    /// Until `due`.
    pub const fn at(due: Instant) -> Self {
        Self {
            due: Some(due),
            number: 0,
        }
    }

    /// As long as this from now on.
    pub fn after(time: Duration) -> Self {
        Self {
            due: clock::monotonic().checked_add(time),
            number: 0,
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else {
            return Poll::Pending;
        };
        REACTOR.with(|reactor| {
            reactor.check_is_running();
            let mut timers = reactor.timers.borrow_mut();
            if self.number == 0 {
                self.number = reactor.last_timer.get().wrapping_add(1);
                reactor.last_timer.set(self.number);
                timers.insert((due, self.number), cx.waker().clone());
                return Poll::Pending;
            }
            match timers.get_mut(&(due, self.number)) {
                Some(waiting) => {
                    waiting.clone_from(cx.waker());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            }
        })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(due) = self.due
            && self.number != 0
        {
            let _ = REACTOR.try_with(|reactor| {
                let waiting = reactor.timers.borrow_mut().remove(&(due, self.number));
                drop(waiting);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::net;
    use std::thread;

    use mio::net::TcpStream;
    use smol::future::{or, yield_now};

    use super::*;

    /// A socket that is watched and the other end of its connection.
    fn pair() -> (Watched<TcpStream>, net::TcpStream) {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (Watched::new(TcpStream::from_std(socket)).unwrap(), peer)
    }

    async fn read(socket: &Watched<TcpStream>, buffer: &mut [u8]) -> usize {
        poll_fn(|cx| socket.poll_with(Direction::Read, cx, |mut socket| socket.read(buffer)))
            .await
            .unwrap()
    }

    /// How often `future` was polled before it was done.
    fn polls(future: impl Future) -> usize {
        let polls = Cell::new(0);
        let mut future = pin!(future);
        block_on(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            future.as_mut().poll(cx)
        }));
        polls.get()
    }

    fn watches_and_timers() -> (usize, usize) {
        REACTOR.with(|reactor| {
            let watches = reactor.watches.borrow().len();
            (watches, reactor.timers.borrow().len())
        })
    }

    #[test]
    fn word_from_another_thread_ends_the_wait_whenever_it_comes() {
        for rest in [0, 0, 0, 1, 20] {
            let (sender, receiver) = smol::channel::bounded(1);
            let speaking = thread::spawn(move || {
                thread::sleep(Duration::from_millis(rest));
                sender.send_blocking("word").unwrap();
            });
            assert_eq!(block_on(receiver.recv()), Ok("word"));
            speaking.join().unwrap();
        }
    }

    #[test]
    fn timers_end_in_their_order_and_not_too_soon() {
        let begun = clock::monotonic();
        let ended = RefCell::new(Vec::new());
        let wait = |millis| {
            let ended = &ended;
            async move {
                Timer::after(Duration::from_millis(millis)).await;
                ended.borrow_mut().push(millis);
            }
        };
        block_on(async {
            smol::future::zip(wait(30), smol::future::zip(wait(10), wait(20))).await;
        });
        assert_eq!(ended.into_inner(), [10, 20, 30]);
        assert!(begun.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn waiting_is_no_spinning() {
        assert_eq!(polls(Timer::after(Duration::from_millis(30))), 2);
        assert_eq!(polls(Timer::at(clock::monotonic())), 2);
        // Its own wakes are the only reason to go round without a wait.
        assert_eq!(polls(yield_now()), 2);
    }

    #[test]
    fn timer_that_is_given_up_leaves_nothing_and_one_without_an_end_never_comes() {
        block_on(or(
            Timer::after(Duration::from_secs(3600)),
            or(Timer::after(Duration::MAX), Timer::after(Duration::ZERO)),
        ));
        assert_eq!(watches_and_timers(), (0, 0));
    }

    #[test]
    fn end_that_came_with_the_last_bytes_is_read_after_them() {
        let (socket, mut peer) = pair();
        peer.write_all(b"last").unwrap();
        drop(peer);
        block_on(async {
            let mut buffer = [0; 100];
            assert_eq!(read(&socket, &mut buffer).await, 4);
            socket.drained();
            assert_eq!(read(&socket, &mut buffer).await, 0);
        });
    }

    #[test]
    fn what_comes_after_all_was_read_is_heard_of() {
        let (socket, mut peer) = pair();
        let mut buffer = [0; 100];
        for _ in 0..3 {
            peer.write_all(b"more").unwrap();
            block_on(async {
                assert_eq!(read(&socket, &mut buffer).await, 4);
                socket.drained();
            });
        }
        drop(peer);
        assert_eq!(block_on(read(&socket, &mut buffer)), 0);
    }

    #[test]
    fn writer_goes_on_when_its_peer_has_read_and_its_reader_is_heard_meanwhile() {
        let (socket, mut peer) = pair();
        let chunk = [7; 65_536];
        let write = || {
            poll_fn(|cx| socket.poll_with(Direction::Write, cx, |mut socket| socket.write(&chunk)))
        };
        let full = block_on(async {
            let mut written = 0;
            let fill = async {
                loop {
                    written += write().await.unwrap();
                }
            };
            or(fill, Timer::after(Duration::from_millis(100))).await;
            written
        });
        peer.write_all(b"still here").unwrap();
        let mut buffer = [0; 100];
        let heard = block_on(or(
            async { write().await.unwrap() },
            read(&socket, &mut buffer),
        ));
        assert_eq!(&buffer[..heard], b"still here");
        let reading = thread::spawn(move || {
            let mut received = vec![0; full];
            peer.read_exact(&mut received).unwrap();
            peer
        });
        assert!(block_on(write()).unwrap() > 0);
        drop(reading.join().unwrap());
    }

    #[test]
    fn socket_that_is_dropped_leaves_its_number_to_the_next() {
        let (first, _first_peer) = pair();
        let (second, _second_peer) = pair();
        let number = first.number();
        drop(first);
        let (third, mut third_peer) = pair();
        assert_eq!(third.number(), number);
        third_peer.write_all(b"3").unwrap();
        let mut buffer = [0; 100];
        let one = async {
            read(&second, &mut [0; 100]).await;
            unreachable!("nothing was sent to it");
        };
        assert_eq!(block_on(or(one, read(&third, &mut buffer))), 1);
        drop((second, third));
        assert_eq!(watches_and_timers(), (0, 0));
    }
}
