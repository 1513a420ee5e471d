//! One link to the main service: its state, what comes in on it, and its keep-alive.
//!
//! How it connects is in `connecting`, what it asks for there in `registering`, what comes down in
//! `receiving`.

mod connecting;
mod receiving;
mod registering;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Outcome, Turn, Wanted};
use crate::engine::counters::{LINK_STATES, LinkState};
use crate::engine::outbox::Outbox;
use crate::engine::{LinkId, Output, UpEvent, UpOrder};
use crate::model::ids::{ChannelId, Uaid};
use crate::model::upstream::{Borrowed, Name, Owner, Received, Upstream as Settings};
use crate::protocol::user_agent::{self, GatewayMessage, Verdict};

use connecting::SentOn;
use receiving::Message;

/// How long the main service has to answer hello or a ping; as in Firefox.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after an ack the main service is asked whether it has read it, if nothing else tells.
const SETTLE_AFTER: Duration = Duration::from_secs(60);

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
    /// Subscriptions that have been made and are on their way to flash, each with whose it is.
    making: BTreeMap<ChannelId, Uaid>,
    /// Messages that came and may come again.
    received: BTreeMap<Received, Message>,
    /// Those of `received` that have an ack to send.
    acks: Vec<Received>,
    /// Where the main service has sent it, from the attempt to connect there to the end of that.
    sent_on: Option<SentOn>,
    /// What it has said of that instead of hello.
    redirect: Option<String>,
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
            making: BTreeMap::new(),
            received: BTreeMap::new(),
            acks: Vec::new(),
            sent_on: None,
            redirect: None,
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
            at: self.sent_on.as_ref().map(|sent_on| sent_on.to.to_string()),
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

    /// Connects, unless that is under way, or it is not known yet under which name.
    pub(super) fn wake(&mut self, turn: &mut Turn<'_>) {
        if turn.is_loaded && self.phase == Phase::Idle && self.has_work() {
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

    fn message(&mut self, message: GatewayMessage, turn: &mut Turn<'_>) {
        match (&self.phase, message) {
            (
                Phase::Naming { .. },
                GatewayMessage::Hello {
                    redirect: Some(redirect),
                    verdict,
                    ..
                },
            ) => {
                self.redirect = Some(redirect);
                self.close(Some(said("hello", &verdict)), turn);
            }
            (Phase::Naming { id, .. }, GatewayMessage::Hello { uaid, verdict, .. }) => {
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

    fn not_understood(&mut self, turn: &mut Turn<'_>) {
        let why = "the main service says something that is not understood";
        self.close(Some(why.to_owned()), turn);
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
