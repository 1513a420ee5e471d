//! The turn of the event loop: inputs to the engine, its outputs to sockets, requests and storage.
//!
//! One turn is: read the clocks, handle one input, do everything that it asks for. Operations for
//! the storage thread are handed over together, so that one turn's work is one commit.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::LocalExecutor;
use smol::channel::{Receiver, Sender, unbounded};

use super::clock::{self, Clock};
use super::console::SnapshotRequest;
use super::datagrams::Datagrams;
use super::http::Opened;
use super::mailbox::Mailbox;
use super::reactor::Timer;
use super::wakeup_proxy::WakeupProxy;
use crate::engine::{
    CloseReason, Engine, Input, LinkId, Opening, Output, RequestId, SessionId, TurnedAway, UpOrder,
};
use crate::model::access::{Access, Source};
use crate::model::limits::Limits;
use crate::model::store::{StoreOp, StoreReply};
use crate::protocol::http::{Request, Response};

/// How long ending waits for the first requests of connections that were accepted before: theirs is on
/// its way, if they are no browser that opens one in advance. A phone's radio sleeps for a third of this.
const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(1);

/// The engine and everything that is connected to it. Lives on one thread.
pub struct Gateway {
    engine: RefCell<Engine>,
    clock: Clock,
    executor: Rc<LocalExecutor<'static>>,
    limits: Limits,
    access: Access,
    sockets: RefCell<HashMap<SessionId, Rc<Mailbox<Order>>>>,
    requests: RefCell<HashMap<RequestId, Rc<Mailbox<Response>>>>,
    store: Sender<Vec<StoreOp>>,
    datagrams: Datagrams,
    wakeup_proxy: Rc<WakeupProxy>,
    /// For the connections to the main service.
    up_orders: Mailbox<(LinkId, UpOrder)>,
    /// What the timer sleeps for; `None`: nothing.
    armed: Cell<Option<Instant>>,
    sooner: Mailbox<()>,
    stopped: Mailbox<()>,
    /// Closed when the process is asked to end.
    stopping: (Sender<()>, Receiver<()>),
    /// Open connections, those in their closing handshake included.
    connections: Cell<usize>,
    /// The same of each address: no more entries than there are.
    connections_of: RefCell<HashMap<Source, usize>>,
    /// Those of them whose first request has not come yet.
    unheard: Cell<usize>,
    /// Told when one of the two counts comes to nothing.
    none_left: Mailbox<()>,
    last_id: Cell<u64>,
}

/// What a websocket's task is told.
#[derive(Debug)]
pub(super) enum Order {
    Send(String),
    Ping,
    Pause,
    Resume,
    Close(CloseReason),
}

impl Gateway {
    /// Connects an engine to the storage thread's queue; tasks run on `executor`.
    pub fn new(
        engine: Engine,
        clock: Clock,
        (limits, access): (Limits, Access),
        store: Sender<Vec<StoreOp>>,
        executor: Rc<LocalExecutor<'static>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            engine: RefCell::new(engine),
            clock,
            executor,
            limits,
            access,
            sockets: RefCell::default(),
            requests: RefCell::default(),
            store,
            datagrams: Datagrams::default(),
            wakeup_proxy: Rc::new(WakeupProxy::new()),
            up_orders: Mailbox::new(),
            armed: Cell::new(None),
            sooner: Mailbox::new(),
            stopped: Mailbox::new(),
            stopping: unbounded(),
            connections: Cell::new(0),
            connections_of: RefCell::default(),
            unheard: Cell::new(0),
            none_left: Mailbox::new(),
            last_id: Cell::new(0),
        })
    }

    /// Bounds and timeouts, for the parts of `io` that hold them.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Who may do what, for those who must know where a peer is.
    pub(super) const fn access(&self) -> &Access {
        &self.access
    }

    /// Most bytes of a request's body that are worth reading.
    pub(super) fn body_bytes_max(&self, method: &str, path: &str) -> usize {
        self.engine.borrow().body_bytes_max(method, path)
    }

    /// Runs `task` beside all others.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task).detach();
    }

    /// One turn.
    pub fn turn(&self, input: Input<'_>) {
        let mut engine = self.engine.borrow_mut();
        engine.handle(self.clock.read(), input);
        let mut operations = Vec::new();
        while let Some(output) = engine.poll_output() {
            self.perform(output, &mut operations);
        }
        let deadline = engine.next_deadline();
        drop(engine);
        if !operations.is_empty() {
            // Closed only when the storage thread has panicked; `run_storage_replies` sees to that.
            let _ = self.store.try_send(operations);
        }
        // One that moved to later needs no wake-up: the timer finds nothing due and looks again.
        let sooner = match (deadline, self.armed.get()) {
            (Some(deadline), Some(armed)) => deadline < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if sooner {
            self.armed.set(deadline);
            self.sooner.put(());
        }
    }

    fn perform(&self, output: Output, operations: &mut Vec<StoreOp>) {
        match output {
            Output::Send { session, text } => self.order(session, Order::Send(text)),
            Output::Ping { session } => self.order(session, Order::Ping),
            Output::Pause { session } => self.order(session, Order::Pause),
            Output::Resume { session } => self.order(session, Order::Resume),
            Output::Close { session, reason } => self.order(session, Order::Close(reason)),
            Output::Respond { request, response } => {
                // Whoever asked may have hung up.
                if let Some(answer) = self.requests.borrow_mut().remove(&request) {
                    answer.put(response);
                }
            }
            Output::Datagram { to } => self.datagrams.send(to),
            Output::AskProxy { url, wakeup } => {
                let proxy = Rc::clone(&self.wakeup_proxy);
                self.spawn(async move { proxy.ask(&url, &wakeup).await });
            }
            Output::Up { link, order } => self.up_orders.put((link, order)),
            Output::Store(operation) => operations.push(operation),
            Output::Stopped => self.stopped.put(()),
        }
    }

    fn order(&self, session: SessionId, order: Order) {
        if let Some(socket) = self.sockets.borrow().get(&session) {
            socket.put(order);
        }
    }

    /// The next order for a connection to the main service.
    pub(super) async fn next_up_order(&self) -> (LinkId, UpOrder) {
        self.up_orders.take().await
    }

    /// Whether user agents that come in by this path borrow their subscriptions.
    pub(super) fn borrows_by(&self, path: &str) -> bool {
        self.engine.borrow().borrows_by(path)
    }

    /// Asks the engine and waits for its answer, however long it takes.
    pub async fn request(&self, head: Request) -> Response {
        let request = RequestId(self.new_id());
        let answer = Rc::new(Mailbox::new());
        self.requests.borrow_mut().insert(request, answer.clone());
        // The peer may hang up while it waits: this future is dropped then.
        let _forget = Forget {
            gateway: self,
            request,
        };
        let head = Box::new(head);
        self.turn(Input::Request { request, head });
        answer.take().await
    }

    /// Announces an open websocket; its task reads orders from the mailbox until the end.
    pub(super) fn open_socket(&self, opened: Opened) -> (SessionId, Rc<Mailbox<Order>>) {
        let Opened {
            peer,
            base_url,
            simplepush_path,
            borrows,
        } = opened;
        let session = SessionId(self.new_id());
        let mailbox = Rc::new(Mailbox::new());
        self.sockets.borrow_mut().insert(session, mailbox.clone());
        self.turn(Input::Opened(Opening {
            session,
            peer,
            base_url,
            simplepush_path,
            borrows,
            random: super::entropy::random(),
        }));
        (session, mailbox)
    }

    /// The websocket is no more.
    pub(super) fn close_socket(&self, session: SessionId) {
        self.sockets.borrow_mut().remove(&session);
        self.turn(Input::Gone { session });
    }

    /// Wakes the engine when it asked to be woken. Never ends.
    pub async fn run_timer(&self) {
        loop {
            let deadline = self.engine.borrow().next_deadline();
            self.armed.set(deadline);
            let sooner = self.sooner.take();
            let Some(deadline) = deadline else {
                sooner.await;
                continue;
            };
            let due = async {
                Timer::at(deadline).await;
            };
            smol::future::or(sooner, due).await;
            if deadline <= clock::monotonic() {
                self.turn(Input::Timeout);
            }
        }
    }

    /// Hands the storage thread's replies to the engine. Ends only if that thread has died.
    pub async fn run_storage_replies(&self, replies: Receiver<Vec<StoreReply>>) {
        while let Ok(replies) = replies.recv().await {
            self.turn(Input::Stored(replies));
        }
    }

    /// Ends in order: the first requests of connections that were only just accepted, the engine's
    /// goodbye to every user agent, the answers to open requests, the ends of all connections. The
    /// listener must be closed by then.
    pub async fn stop(&self) {
        let late = async {
            Timer::after(FIRST_REQUEST_WAIT).await;
        };
        smol::future::or(self.run_out(&self.unheard), late).await;
        self.turn(Input::Stop);
        self.stopped.take().await;
        self.stopping.0.close();
        self.run_out(&self.connections).await;
    }

    /// Waits until one of the counts of connections is 0.
    async fn run_out(&self, count: &Cell<usize>) {
        while count.get() > 0 {
            self.none_left.take().await;
        }
    }

    /// Waits until connections should end once their open requests are answered.
    pub(super) async fn stopping(&self) {
        // Nothing is ever sent: this returns when the channel is closed.
        let _ = self.stopping.1.recv().await;
    }

    /// One of the connections that may be open, if there is one left for `peer`.
    pub(super) fn take_place(self: &Rc<Self>, peer: IpAddr) -> Result<Place, TurnedAway> {
        let open = self.connections.get();
        if open >= self.limits.connections_max {
            return Err(TurnedAway::TooMany);
        }
        let source = self.access.source(peer);
        if let Some(source) = source {
            let mut all = self.connections_of.borrow_mut();
            let own = all.get(&source).copied().unwrap_or(0);
            if own >= self.limits.connections_of_one_address_max() {
                return Err(TurnedAway::TooManyOfAddress);
            }
            let mut engine = self.engine.borrow_mut();
            engine.admit_connection(self.clock.read(), source)?;
            all.insert(source, own.saturating_add(1));
        }
        self.connections.set(open.saturating_add(1));
        self.unheard.set(self.unheard.get().saturating_add(1));
        Ok(Place {
            gateway: Rc::clone(self),
            source,
            heard: Cell::new(false),
        })
    }

    /// Answers the operator's console. Ends when there is no console.
    pub async fn run_snapshots(&self, requests: Receiver<SnapshotRequest>) {
        while let Ok(request) = requests.recv().await {
            let snapshot = self.engine.borrow().snapshot(self.clock.read());
            // Nobody may be waiting any more.
            let _ = request.reply.try_send(snapshot);
        }
    }

    /// One connection less in one of their counts.
    fn count_down(&self, count: &Cell<usize>) {
        let left = count.get().saturating_sub(1);
        count.set(left);
        if left == 0 {
            self.none_left.put(());
        }
    }

    fn new_id(&self) -> u64 {
        let id = self.last_id.get().wrapping_add(1);
        self.last_id.set(id);
        id
    }
}

/// One open connection; its place is free again when this is dropped.
pub(super) struct Place {
    gateway: Rc<Gateway>,
    source: Option<Source>,
    heard: Cell<bool>,
}

impl Place {
    /// Whether a request has come on it.
    pub(super) fn is_heard(&self) -> bool {
        self.heard.get()
    }

    /// A request has come.
    pub(super) fn hear(&self) {
        if !self.heard.replace(true) {
            self.gateway.count_down(&self.gateway.unheard);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hear();
        let gateway = &self.gateway;
        if let Some(source) = self.source {
            let mut all = gateway.connections_of.borrow_mut();
            let own = all.get(&source).copied().unwrap_or(0).saturating_sub(1);
            if own == 0 {
                all.remove(&source);
            } else {
                all.insert(source, own);
            }
        }
        gateway.count_down(&gateway.connections);
    }
}

struct Forget<'a> {
    gateway: &'a Gateway,
    request: RequestId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.gateway.requests.borrow_mut().remove(&self.request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Settings;
    use crate::model::ids::DatabaseId;
    use crate::model::store::Opened;
    use crate::model::time::ClockTrust;
    use crate::protocol::keyring::Keyring;

    fn gateway(limits: Limits) -> Rc<Gateway> {
        let clock = Clock::new(ClockTrust::Never);
        let keyring = Keyring::new(&[[7; 32]]).unwrap();
        let settings = Settings {
            limits: limits.clone(),
            ..Settings::new(keyring, Opened::new(DatabaseId([1; 8])), [0; 8])
        };
        let engine = Engine::new(clock.read(), settings).unwrap();
        let executor = Rc::new(LocalExecutor::new());
        let store = unbounded().0;
        Gateway::new(engine, clock, (limits, Access::default()), store, executor)
    }

    fn host(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 1, last])
    }

    #[test]
    fn address_takes_its_connections_and_no_more_and_others_have_theirs() {
        let gateway = gateway(Limits {
            connections_max: 6,
            connections_per_address_max: 2,
            ..Limits::default()
        });
        let take = |peer| gateway.take_place(peer).map_err(|why| format!("{why:?}"));
        let first = take(host(1)).ok();
        let second = take(host(1)).ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(take(host(1)).err().unwrap(), "TooManyOfAddress");
        let other = take(host(2)).ok();
        // The board itself has no limit of its own, and shares that of all.
        let board: Vec<Place> = (0..3)
            .map(|_| take(IpAddr::from([127, 0, 0, 1])).ok().unwrap())
            .collect();
        assert_eq!(take(host(3)).err().unwrap(), "TooMany");

        drop(first);
        let again = take(host(1)).ok();
        assert!(again.is_some());
        drop((second, other, board, again));
        assert_eq!(gateway.connections.get(), 0);
        assert!(gateway.connections_of.borrow().is_empty());
    }

    #[test]
    fn no_address_takes_more_than_half_of_all_connections() {
        let gateway = gateway(Limits {
            connections_max: 4,
            ..Limits::default()
        });
        let places: Vec<Place> = (0..4)
            .filter_map(|_| gateway.take_place(host(1)).ok())
            .collect();
        assert_eq!(places.len(), 2);
    }
}
