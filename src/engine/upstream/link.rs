//! One link to the main service: connect, hello, keep-alive, back off.
//!
//! What is asked for there is in `registering`, what comes down in `receiving`.

mod receiving;
mod registering;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::{debug, warn};

use super::{Outcome, Turn, Wanted};
use crate::engine::counters::{Counters, LINK_STATES, LinkState};
use crate::engine::outbox::Outbox;
use crate::engine::{LinkEnd, LinkId, Output, UpEvent, UpOrder};
use crate::model::dialect::Dialect;
use crate::model::ids::{ChannelId, Uaid};
use crate::model::store::{StoreOp, UpstreamOp};
use crate::model::upstream::{Borrowed, Name, Owner, Received, Upstream as Settings};
use crate::protocol::keyring::parse_uaid;
use crate::protocol::user_agent::{self, GatewayMessage, Verdict};

use receiving::Message;

/// How long the main service has to answer hello or a ping; as in Firefox.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The first wait before connecting again; each further one is twice as long.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// A connection that was in use for so long was a good one: the next wait is the shortest again.
const GOOD_CONNECTION: Duration = Duration::from_secs(60);
/// How long after an ack the main service is asked whether it has read it, if nothing else tells.
const SETTLE_AFTER: Duration = Duration::from_secs(60);
/// Longest text of an error that is kept, in characters: a line on the operator's page.
const ERROR_CHARS_MAX: usize = 200;

/// The link of one owner.
#[derive(Debug)]
pub(super) struct Link {
    owner: Owner,
    phase: Phase,
    /// When that began.
    since: Instant,
    /// Its place in the table of deadlines.
    pub(super) alarm: Option<Instant>,
    /// What the main service calls it.
    pub(super) name: Option<Box<str>>,
    borrowed: BTreeMap<ChannelId, Borrowed>,
    /// Registers without an answer, each with when it must have one.
    wanted: BTreeMap<ChannelId, (Wanted, Instant)>,
    /// Subscriptions that have been made and are on their way to flash.
    making: BTreeSet<ChannelId>,
    /// Messages that came and may come again.
    received: BTreeMap<Received, Message>,
    /// Those of `received` that have an ack to send.
    acks: Vec<Received>,
    failures: u32,
    last_error: Option<String>,
    heard_at: Instant,
    /// A ping is out: when it must be answered, and what is certain then.
    ping: Option<(Instant, Vec<Received>)>,
    /// When to find out whether acks have arrived.
    settle_at: Option<Instant>,
    messages: u64,
    acks_sent: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Phase {
    /// Nothing to do.
    Idle,
    /// For the next attempt; `paced` if that has its place among those of all links.
    Waiting {
        until: Instant,
        paced: bool,
    },
    Connecting(LinkId),
    /// hello is sent.
    Naming {
        id: LinkId,
        until: Instant,
    },
    Ready(LinkId),
    /// The end is on its way: for this reason, or because there is nothing to do.
    Closing {
        id: LinkId,
        why: Option<String>,
    },
}

impl Link {
    pub(super) const fn new(owner: Owner, now: Instant) -> Self {
        Self {
            owner,
            phase: Phase::Idle,
            since: now,
            alarm: None,
            name: None,
            borrowed: BTreeMap::new(),
            wanted: BTreeMap::new(),
            making: BTreeSet::new(),
            received: BTreeMap::new(),
            acks: Vec::new(),
            failures: 0,
            last_error: None,
            heard_at: now,
            ping: None,
            settle_at: None,
            messages: 0,
            acks_sent: 0,
        }
    }

    /// Its connection, from the attempt to the end.
    pub(super) const fn connection(&self) -> Option<LinkId> {
        match &self.phase {
            Phase::Idle | Phase::Waiting { .. } => None,
            Phase::Connecting(id)
            | Phase::Naming { id, .. }
            | Phase::Ready(id)
            | Phase::Closing { id, .. } => Some(*id),
        }
    }

    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready(_))
    }

    /// What the operator sees.
    pub(super) fn state(&self, now: Instant) -> LinkState {
        let active = self.borrowed.values().filter(|borrowed| !borrowed.ended);
        let number = match &self.phase {
            Phase::Idle => 0,
            Phase::Waiting { .. } => 1,
            Phase::Connecting(_) => 2,
            Phase::Naming { .. } => 3,
            Phase::Ready(_) => 4,
            Phase::Closing { .. } => 5,
        };
        LinkState {
            owner: (self.owner != Owner::ALL).then(|| self.owner.0.tag()),
            state: LINK_STATES[number],
            since_secs: now.saturating_duration_since(self.since).as_secs(),
            borrowed: u64::try_from(active.count()).unwrap_or(u64::MAX),
            messages: self.messages,
            acks: self.acks_sent,
            last_error: self.last_error.clone(),
        }
    }

    /// Asks for broadcasts.
    pub(super) fn ask_for_broadcasts<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a str>,
        out: &mut Outbox,
    ) {
        if let Phase::Ready(id) = self.phase {
            let text = user_agent::broadcast_subscribe(ids);
            order(out, id, UpOrder::Send(text));
        }
    }

    /// Whether there is no reason to keep it.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Idle && !self.has_work() && self.name.is_none()
    }

    /// Whether it must be connected.
    fn has_work(&self) -> bool {
        !self.borrowed.is_empty() || !self.wanted.is_empty() || !self.making.is_empty()
    }

    /// Connects if it must, and closes if it need not.
    pub(super) fn settle_phase(&mut self, turn: &mut Turn<'_>) {
        match (&self.phase, self.has_work()) {
            (Phase::Idle, true) => self.wake(turn),
            (Phase::Waiting { .. }, false) => self.enter(Phase::Idle, turn.now),
            (Phase::Ready(_), false) if self.acks.is_empty() => self.close(None, turn),
            _ => {}
        }
    }

    /// Connects, unless that is under way.
    pub(super) fn wake(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Idle && self.has_work() {
            self.attempt(turn);
        }
    }

    /// When it must act by itself.
    pub(super) fn next_alarm(&self, settings: &Settings) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Waiting { until, .. } | Phase::Naming { until, .. } => Some(*until),
            Phase::Ready(_) => {
                let ping = match &self.ping {
                    Some((until, _)) => Some(*until),
                    None => self.heard_at.checked_add(settings.ping_after),
                };
                let settle_at = self.settle_at.filter(|_| self.ping.is_none());
                ping.into_iter().chain(settle_at).min()
            }
            Phase::Idle | Phase::Connecting(_) | Phase::Closing { .. } => None,
        };
        let wanted = self.wanted.values().map(|(_, until)| *until);
        wanted.chain(phase).min()
    }

    /// Its alarm has rung. Early or repeated, it changes nothing.
    pub(super) fn alarm(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        self.give_up_late(turn);
        match &self.phase {
            Phase::Waiting { until, paced } if *until <= now => {
                if *paced {
                    self.connect(turn);
                } else {
                    self.attempt(turn);
                }
            }
            Phase::Naming { until, .. } if *until <= now => {
                let secs = ANSWER_TIMEOUT.as_secs();
                self.close(Some(format!("no answer to hello within {secs} s")), turn);
            }
            Phase::Ready(id) => {
                let id = *id;
                self.watch_silence(id, turn);
            }
            Phase::Idle
            | Phase::Waiting { .. }
            | Phase::Connecting(_)
            | Phase::Naming { .. }
            | Phase::Closing { .. } => {}
        }
    }

    fn watch_silence(&mut self, id: LinkId, turn: &mut Turn<'_>) {
        let now = turn.now;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match &self.ping {
            Some((until, _)) if *until <= now => {
                let secs = ANSWER_TIMEOUT.as_secs();
                self.close(Some(format!("no answer to a ping within {secs} s")), turn);
            }
            Some(_) => {}
            None if is_due(self.settle_at)
                || is_due(self.heard_at.checked_add(turn.settings.ping_after)) =>
            {
                let certain = self.certain_with_pong();
                self.settle_at = None;
                self.ping = Some((after(now, ANSWER_TIMEOUT), certain));
                order(turn.out, id, UpOrder::Ping);
            }
            None => {}
        }
    }

    /// Connects now, or when it is this link's turn.
    fn attempt(&mut self, turn: &mut Turn<'_>) {
        let until = turn.pacer.take(turn.now);
        if until <= turn.now {
            return self.connect(turn);
        }
        self.enter(Phase::Waiting { until, paced: true }, turn.now);
    }

    fn connect(&mut self, turn: &mut Turn<'_>) {
        let id = turn.name_link();
        self.enter(Phase::Connecting(id), turn.now);
        Counters::add(&mut turn.out.counters.upstream_connects);
        order(turn.out, id, UpOrder::Connect);
    }

    /// Something happened on its connection.
    pub(super) fn event(&mut self, event: UpEvent<'_>, turn: &mut Turn<'_>) {
        self.heard_at = turn.now;
        match event {
            UpEvent::Opened => self.opened(turn),
            UpEvent::Text(text) => match user_agent::parse(text) {
                Ok(message) => self.message(message, turn),
                Err(_) => self.not_understood(turn),
            },
            UpEvent::Garbage => self.not_understood(turn),
            UpEvent::Alive => {}
            UpEvent::Pong => {
                if let Some((_, certain)) = self.ping.take() {
                    self.forget(certain, turn);
                }
            }
            UpEvent::Ended(end) => self.ended(end, turn),
        }
    }

    fn opened(&mut self, turn: &mut Turn<'_>) {
        let Phase::Connecting(id) = self.phase else {
            return;
        };
        let until = after(turn.now, ANSWER_TIMEOUT);
        self.enter(Phase::Naming { id, until }, turn.now);
        let hello = user_agent::hello(Dialect::WebPush, self.name.as_deref(), &[]);
        order(turn.out, id, UpOrder::Send(hello));
    }

    fn message(&mut self, message: GatewayMessage, turn: &mut Turn<'_>) {
        match (&self.phase, message) {
            (Phase::Naming { id, .. }, GatewayMessage::Hello { uaid, verdict }) => {
                let id = *id;
                self.named(id, uaid, &verdict, turn);
            }
            (
                Phase::Ready(_),
                GatewayMessage::Registered {
                    channel,
                    endpoint,
                    verdict,
                },
            ) => {
                self.registered(channel, endpoint, &verdict, turn);
            }
            (Phase::Ready(_), GatewayMessage::Unregistered { channel, verdict }) => {
                self.unregistered(channel, &verdict, turn);
            }
            (Phase::Ready(_), GatewayMessage::Notification(notification)) => {
                self.notification(notification, turn);
            }
            (Phase::Ready(_), GatewayMessage::Broadcasts(versions)) => {
                turn.outcomes.push_back(Outcome::Broadcasts(versions));
            }
            (Phase::Ready(_), GatewayMessage::Other) => {}
            (Phase::Ready(_), GatewayMessage::Hello { .. } | GatewayMessage::Updates(_))
            | (Phase::Naming { .. }, _) => self.not_understood(turn),
            // Its end is on its way.
            (
                Phase::Idle | Phase::Waiting { .. } | Phase::Connecting(_) | Phase::Closing { .. },
                _,
            ) => {}
        }
    }

    fn named(&mut self, id: LinkId, name: Option<String>, verdict: &Verdict, turn: &mut Turn<'_>) {
        if !verdict.is_ok() {
            return self.close(Some(said("hello", verdict)), turn);
        }
        let Some(name) = name else {
            let why = "the answer to hello has no usable uaid";
            return self.close(Some(why.to_owned()), turn);
        };
        let is_known = self.name.as_ref().is_some_and(|own| is_same(own, &name));
        if !is_known {
            if self.name.is_some() {
                self.lose(turn);
            }
            self.name = Some(name.into());
        }
        self.enter(Phase::Ready(id), turn.now);
        if !self.received.is_empty() {
            self.settle_at = Some(after(turn.now, SETTLE_AFTER));
        }
        self.ask_all(id, turn);
    }

    /// The main service does not know its name any more, or it is another one's: nothing of what was
    /// borrowed is there.
    pub(super) fn lose(&mut self, turn: &mut Turn<'_>) {
        self.name = None;
        self.received.clear();
        self.acks.clear();
        let borrowed = std::mem::take(&mut self.borrowed);
        let mut uaids: Vec<Uaid> = borrowed
            .into_values()
            .filter(|borrowed| !borrowed.ended)
            .map(|borrowed| borrowed.uaid)
            .collect();
        uaids.sort_unstable();
        uaids.dedup();
        let owner = self.owner;
        let op = StoreOp::Upstream(UpstreamOp::Lost { owner });
        turn.out.store_for_nobody(op);
        if uaids.is_empty() {
            return;
        }
        Counters::add(&mut turn.out.counters.upstream_resets);
        let tag = owner.0.tag();
        warn!(
            "upstream_name_replaced link={tag} user_agents={}",
            uaids.len()
        );
        turn.outcomes.push_back(Outcome::Lost(uaids));
    }

    fn not_understood(&mut self, turn: &mut Turn<'_>) {
        let why = "the main service says something that is not understood";
        self.close(Some(why.to_owned()), turn);
    }

    /// Closes its connection, for this reason or because there is nothing to do.
    pub(super) fn close(&mut self, why: Option<String>, turn: &mut Turn<'_>) {
        match (&self.phase, self.connection()) {
            (Phase::Closing { .. }, _) | (_, None) => {}
            (_, Some(id)) => {
                self.note_use(turn.now);
                self.enter(Phase::Closing { id, why }, turn.now);
                order(turn.out, id, UpOrder::Close);
            }
        }
    }

    /// Its connection is no more, or could not be made.
    fn ended(&mut self, end: LinkEnd, turn: &mut Turn<'_>) {
        self.note_use(turn.now);
        self.ping = None;
        self.settle_at = None;
        self.acks.clear();
        let was_connecting = matches!(self.phase, Phase::Connecting(_) | Phase::Naming { .. });
        let why = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Closing { why: None, .. } => None,
            Phase::Closing { why, .. } => why,
            Phase::Idle
            | Phase::Waiting { .. }
            | Phase::Connecting(_)
            | Phase::Naming { .. }
            | Phase::Ready(_) => Some(end.why.clone()),
        };
        self.since = turn.now;
        let Some(why) = why else {
            return;
        };
        let why: String = why.chars().take(ERROR_CHARS_MAX).collect();
        let wait = self.wait(&end, turn.settings.reconnect_max);
        self.log_end(&why, wait);
        self.last_error = Some(why);
        let until = after(turn.now, wait);
        self.enter(
            Phase::Waiting {
                until,
                paced: false,
            },
            turn.now,
        );
        if was_connecting || end.is_lasting {
            self.give_up_all(turn);
        }
    }

    /// The wait after one more failure: doubled each time, and up to a half of it less, by chance, so
    /// that links which fell together do not come back together.
    fn wait(&mut self, end: &LinkEnd, longest: Duration) -> Duration {
        let doubled = WAIT_MIN.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let whole = if end.is_lasting {
            longest
        } else {
            doubled.min(longest)
        };
        self.failures = self.failures.saturating_add(1);
        let share = f64::from(u16::from_be_bytes(end.random)) / f64::from(u16::MAX);
        let wait = whole.mul_f64(share.mul_add(-0.5, 1.0));
        wait.max(end.retry_after)
    }

    /// What goes on is not logged again and again.
    fn log_end(&self, why: &str, wait: Duration) {
        let tag = self.owner.0.tag();
        let secs = wait.as_secs();
        if self.last_error.as_deref() == Some(why) {
            debug!("upstream_ended link={tag} again_in_secs={secs} reason={why:?}");
        } else {
            warn!("upstream_ended link={tag} again_in_secs={secs} reason={why:?}");
        }
    }

    /// A connection that was in use for long lets the failures before it be forgotten.
    fn note_use(&mut self, now: Instant) {
        let used = now.saturating_duration_since(self.since);
        if matches!(self.phase, Phase::Ready(_)) && used >= GOOD_CONNECTION {
            self.failures = 0;
            self.last_error = None;
        }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }

    /// What it is called, where it has a name.
    fn full_name(&self, settings: &Settings) -> Option<Name> {
        Some(Name {
            owner: self.owner,
            name: self.name.clone()?,
            service: settings.service.clone(),
        })
    }
}

fn order(out: &mut Outbox, link: LinkId, order: UpOrder) {
    out.push(Output::Up { link, order });
}

/// Whether two spellings of a name are one.
fn is_same(one: &str, other: &str) -> bool {
    match (parse_uaid(one), parse_uaid(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// A refusal of the main service, in words.
fn said(what: &str, verdict: &Verdict) -> String {
    let Verdict { status, reason } = verdict;
    match reason {
        Some(reason) => format!("{what} is refused: status {status}, {reason}"),
        None => format!("{what} is refused: status {status}"),
    }
}

fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}
