//! What must happen next. No clock, no socket, no disk, no thread, no `async`, no randomness.
//!
//! The engine is driven this way, and only this way:
//!
//! 1. [`Engine::handle`] takes one input and the turn's [`Now`].
//! 2. [`Engine::poll_output`] is called until it returns `None`.
//! 3. [`Engine::next_deadline`] says when to call `handle` with [`Input::Timeout`] if nothing else
//!    comes first.

mod admission;
mod agent;
mod authorization;
mod borrowing;
mod broadcasts;
mod channels;
pub mod counters;
mod deadlines;
mod desk;
mod endpoint;
mod event;
mod matrix;
mod outbox;
mod parts;
mod registration;
mod routes;
mod session;
mod simplepush;
mod sleep;
mod storing;
#[cfg(test)]
mod testing;
mod unsaved_versions;
mod upstream;
mod version_clock;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use admission::Admission;
use authorization::VerifiedTokens;
use broadcasts::Broadcasts;
use counters::Snapshot;
use deadlines::Deadlines;
use desk::Desk;
use outbox::Waiting;
use session::Session;
use sleep::Sleep;
use upstream::Upstream;

use crate::model::access::Access;
use crate::model::durability::Durability;
use crate::model::ids::{MessageId, Uaid};
use crate::model::limits::Limits;
use crate::model::simplepush::SimplePush;
use crate::model::store::{Opened, StoreError, StoreOp};
use crate::model::time::Now;
use crate::model::unifiedpush::UnifiedPush;
use crate::model::version::Version;
use crate::protocol::http::BaseUrl;
use crate::protocol::keyring::Keyring;

pub use event::{
    CloseReason, Failure, Input, LinkEnd, LinkId, Opening, Output, RequestId, SessionId,
    TurnedAway, UpEvent, UpOrder, Violation,
};

/// How often expired messages are swept from flash. A message is never *delivered* after its TTL;
/// this only makes room.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Most messages of one step of the sweep, so that nobody waits long behind it.
const SWEEP_MESSAGES_MAX: u32 = 500;
/// How often the service time is written down: what a crash can lose of it, so that messages live
/// that much longer. 24 small writes a day while messages wait, and none while there are none, which
/// the storage knows.
const SAVE_TIME_INTERVAL: Duration = Duration::from_secs(3600);

/// Everything that is decided.
#[derive(Debug)]
pub struct Engine {
    desk: Desk,
    access: Access,
    admission: Admission,
    /// Open websockets.
    /// In boxes: half of the places in such a map are empty where keys only grow.
    sessions: BTreeMap<SessionId, Box<Session>>,
    /// Which of them is a user agent's newest.
    newest: HashMap<Uaid, SessionId>,
    deadlines: Deadlines<SessionId>,
    verified: VerifiedTokens,
    /// Held messages by the end of their window. All windows are equally long, so it is in order.
    windows: VecDeque<(Instant, SessionId, MessageId)>,
    sleep: Sleep,
    broadcasts: Broadcasts,
    /// The links to the main service, if there is one.
    upstream: Option<Box<Upstream>>,
    /// When to read who sleeps: at the start, and again where that failed.
    sleepers_at: Option<Instant>,
    sweep_at: Option<Instant>,
    save_time_at: Option<Instant>,
    storage_fault: Option<StoreError>,
    stop: Stop,
}

/// What the engine is made of.
#[derive(Debug)]
pub struct Settings {
    /// Bounds and timeouts.
    pub limits: Limits,
    /// When an application server is answered.
    pub durability: Durability,
    /// What may be chosen about SimplePush.
    pub simplepush: SimplePush,
    /// What may be chosen about UnifiedPush.
    pub unifiedpush: UnifiedPush,
    /// What endpoint URLs start with; `None`: as the user agent itself reached us.
    pub public_url: Option<BaseUrl>,
    /// Who may open a websocket.
    pub access: Access,
    /// The main service, if there is one.
    pub upstream: Option<Box<crate::model::upstream::Upstream>>,
    /// The keys that names are minted under.
    pub keyring: Keyring,
    /// What the storage said when it was opened.
    pub opened: Opened,
    /// Fresh random bytes, for the names of push messages.
    pub random: [u8; 8],
}

impl Settings {
    /// What an engine is made of where nothing was configured, without a main service.
    pub fn new(keyring: Keyring, opened: Opened, random: [u8; 8]) -> Self {
        Self {
            limits: Limits::default(),
            durability: Durability::Strict,
            simplepush: SimplePush::default(),
            unifiedpush: UnifiedPush::default(),
            public_url: None,
            access: Access::default(),
            upstream: None,
            keyring,
            opened,
            random,
        }
    }
}

impl Engine {
    /// An engine without sessions. `None` when the database has seen more starts than can be
    /// numbered.
    pub fn new(now: Now, settings: Settings) -> Option<Self> {
        let access = settings.access.clone();
        let was_there = || {
            let taken_away = crate::model::upstream::Upstream::taken_away;
            settings.opened.has_links.then(|| Box::new(taken_away()))
        };
        let upstream = settings.upstream.clone().or_else(was_there);
        let asks = upstream
            .as_ref()
            .is_some_and(|upstream| upstream.broadcasts);
        let upstream = upstream.map(|upstream| Box::new(Upstream::new(now.monotonic, *upstream)));
        let desk = Desk::new(now, settings)?;
        let reads_sleepers = desk.simplepush.udp_wakeup;
        Some(Self {
            admission: Admission::new(now, &desk.limits),
            sleepers_at: reads_sleepers.then_some(now.monotonic),
            desk,
            access,
            sessions: BTreeMap::new(),
            newest: HashMap::new(),
            deadlines: Deadlines::new(),
            verified: VerifiedTokens::default(),
            windows: VecDeque::new(),
            sleep: Sleep::new(),
            broadcasts: Broadcasts::new(asks),
            upstream,
            sweep_at: now.monotonic.checked_add(SWEEP_INTERVAL),
            save_time_at: now.monotonic.checked_add(SAVE_TIME_INTERVAL),
            storage_fault: None,
            stop: Stop::No,
        })
    }

    /// Takes one input. Call [`poll_output`](Self::poll_output) until `None` before the next.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        self.desk.version_clock.tick(now);
        match input {
            Input::Opened(opening) => self.session_opened(now, opening),
            Input::Text { session, text } => self.session_text(now, session, text),
            Input::Binary { session, bytes } => self.session_binary(now, session, bytes),
            Input::Alive { session } => self.session_alive(now, session),
            Input::Violation { session, violation } => {
                self.end_session(now, session, violation.into());
            }
            Input::AllSent { session } => self.session_all_sent(now, session),
            Input::Gone { session } => self.session_gone(session),
            Input::Request { request, head } => self.request(now, request, *head),
            Input::TurnedAway(why) => self.turned_away(why),
            Input::Failed(failure) => self.failed(failure),
            Input::Broadcasts(versions) => self.broadcasts_read(versions),
            Input::Up { link, event } => self.up(now, link, event),
            Input::Stored(replies) => self.stored(now, replies),
            Input::Timeout => self.timeout(now),
            Input::Stop => self.begin_stop(now),
        }
        self.serve_upstream(now);
        self.give_tokens_back();
        if let Some(bound) = self.desk.version_clock.next_bound() {
            self.save_time(now, bound);
        }
        if self.stop == Stop::Waiting && self.desk.out.waiting_len() == 0 {
            self.stop = Stop::Done;
            self.close_upstream(now);
            self.desk.out.push(Output::Stopped);
        }
    }

    /// The next thing the caller must do, or `None` when there is nothing left.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.desk.out.pop()
    }

    /// When to call [`handle`](Self::handle) with [`Input::Timeout`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        [
            self.deadlines.next(),
            self.windows.front().map(|(at, ..)| *at),
            self.desk.redeliveries.front().map(|(at, _)| *at),
            self.sleep.next_deadline(),
            self.sleepers_at,
            self.upstream.as_ref().and_then(|up| up.next_deadline()),
            self.desk.out.deletions_due(),
            self.sweep_at,
            self.save_time_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What the operator sees.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let agents = || self.sessions.values().filter_map(|session| session.agent());
        let running = now.monotonic.saturating_duration_since(self.desk.started);
        Snapshot {
            counters: self.desk.out.counters.clone(),
            user_agents_connected: count(agents().count()),
            websockets_open: count(self.sessions.len()),
            user_agents_asleep: count(self.sleep.len()),
            messages_held: count(agents().map(agent::Agent::held_len).sum()),
            messages_unacked: count(agents().map(agent::Agent::unacked_len).sum()),
            held_bytes: count(self.desk.out.held_bytes()),
            store_queue: count(self.desk.out.waiting_len()),
            uptime_secs: running.as_secs(),
            storage_fault: self.storage_fault,
            wall_clock_trusted: now.wall_is_trusted,
            upstream: self.upstream.as_ref().map(|up| up.snapshot(now.monotonic)),
            upstream_to_tell: count(self.upstream.as_ref().map_or(0, |up| up.to_tell_len())),
        }
    }

    /// Everything whose time has come. Early or repeated calls change nothing.
    fn timeout(&mut self, now: Now) {
        while let Some(session) = self.deadlines.pop_due(now.monotonic) {
            self.session_alarm(now, session);
        }
        while let Some(&(at, session, id)) = self.windows.front() {
            if at > now.monotonic {
                break;
            }
            self.windows.pop_front();
            if let Some((agent, desk)) = self.agent_at(session) {
                agent.window_ended(id, desk);
            }
        }
        while let Some(&(at, session)) = self.desk.redeliveries.front() {
            if at > now.monotonic {
                break;
            }
            self.desk.redeliveries.pop_front();
            if let Some((agent, desk)) = self.agent_at(session) {
                agent.redeliver(now, desk);
            }
        }
        self.wake_again(now);
        self.upstream_timeout(now);
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now.monotonic);
        if due(self.desk.out.deletions_due()) {
            self.desk.out.flush_deletions(None);
        }
        if due(self.sleepers_at) {
            self.sleepers_at = None;
            self.desk.out.store(StoreOp::Sleepers, Waiting::Sleepers);
        }
        if due(self.sweep_at) {
            // Comes again with the reply.
            self.sweep_at = None;
            self.sweep(now);
        }
        if due(self.save_time_at) {
            self.save_time_at = now.monotonic.checked_add(SAVE_TIME_INTERVAL);
            self.save_versions_again();
            self.save_time(now, self.desk.version_clock.bound());
        }
    }

    fn sweep(&mut self, now: Now) {
        let op = StoreOp::Expire {
            now: self.desk.service_time(now),
            messages_max: SWEEP_MESSAGES_MAX,
        };
        self.desk.out.store(op, Waiting::Expired);
    }

    fn save_time(&mut self, now: Now, version_clock: Version) {
        let op = StoreOp::SaveTime {
            service_time: self.desk.service_time(now),
            version_clock,
        };
        self.desk.out.store(op, Waiting::SavedTime(version_clock));
    }

    /// Order: sessions first, because what they hold must be given to the storage; then the time,
    /// as the last operation of all. [`Output::Stopped`] follows the last reply.
    ///
    /// No session lingers, whatever it was told last: its socket ends with the process anyway, and
    /// this way its user agent hears why.
    fn begin_stop(&mut self, now: Now) {
        if self.stop != Stop::No {
            return;
        }
        self.stop = Stop::Waiting;
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in all {
            self.close(session, CloseReason::GoingAway);
        }
        self.desk.out.flush_deletions(None);
        self.keep_acked_upstream();
        self.save_versions_again();
        self.save_time(now, self.desk.version_clock.last());
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stop {
    No,
    /// For the replies of the storage thread.
    Waiting,
    Done,
}

#[cfg(test)]
mod tests {
    use super::testing::{Out, Table};
    use super::*;
    use crate::model::store::StoreReply;

    #[test]
    fn stop_closes_every_websocket_at_once_and_ends_after_the_last_reply() {
        let mut table = Table::new();
        let nameless = table.open();
        let (named, _) = table.newcomer();
        let endpoint = table.register(named, 1);
        let (request, _) = table.post(&endpoint, 60, None);
        let outs = table.input(Input::Stop);
        let closed = |id| Out::Closed(id, CloseReason::GoingAway);
        assert_eq!(outs, [closed(nameless), closed(named)]);
        assert_eq!(CloseReason::GoingAway.code(), 1001);

        // The held message, then the time.
        assert!(matches!(
            table.asked.as_slice(),
            [StoreOp::Enqueue { .. }, StoreOp::SaveTime { .. }]
        ));
        let outs = table.stored(vec![testing::KEPT]);
        assert_eq!(outs, [Out::Answered(request, 201)]);
        assert_eq!(table.stored(vec![StoreReply::Done]), [Out::Stopped]);
        assert_eq!(table.pass(Duration::from_secs(9)), []);
    }

    #[test]
    fn nobody_comes_in_behind_a_stop() {
        let mut table = Table::new();
        table.input(Input::Stop);
        let opening = Opening {
            session: SessionId(9),
            peer: std::net::IpAddr::from([127, 0, 0, 1]),
            base_url: None,
            simplepush_path: false,
            borrows: false,
            random: [0; 8],
        };
        let outs = table.input(Input::Opened(opening));
        assert_eq!(outs, [Out::Closed(9, CloseReason::GoingAway)]);
        let (request, outs) = table.post("/wpush/v1/any", 60, None);
        assert_eq!(outs, [Out::Answered(request, 503)]);
        assert_eq!(table.input(Input::Stop), []);
    }

    #[test]
    fn deadline_is_in_the_future_after_each_timeout() {
        let mut table = Table::new();
        let (session, _) = table.newcomer();
        let endpoint = table.register(session, 1);
        table.post(&endpoint, 60, None);
        let mut before = table.engine.next_deadline().unwrap();
        for _ in 0..20 {
            let wait = before.saturating_duration_since(table.monotonic());
            table.pass(wait);
            let Some(next) = table.engine.next_deadline() else {
                break;
            };
            assert!(next > before);
            before = next;
        }
    }
}
