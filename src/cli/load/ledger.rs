//! What was sent, what became of it, and every promise that was not kept. No socket, no clock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use super::histogram::Histogram;
use super::payload::Payload;
use crate::model::ids::ChannelId;

/// One of the user agents.
pub(super) type AgentNumber = u32;
/// One connection of one of them.
pub(super) type ConnectionNumber = u32;

/// A check that failed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Fault {
    /// Accepted, and never received and acked.
    Lost,
    /// Came again although it was acked on a connection that ended in order.
    Duplicate,
    /// Came to another user agent.
    WrongAgent,
    /// Came to the right user agent under another subscription.
    WrongChannel,
    /// Other bytes, or another encoding, than were sent.
    Altered,
    /// Never sent.
    Unknown,
    /// A message that is none of the protocol.
    NotUnderstood,
    /// The answer to a post has another status than it should.
    Status,
    /// No answer to a post.
    NoAnswer,
    /// No websocket, or no answer to what was said on it.
    NoWebsocket,
    /// The user agent was refused something, or got something that it should have been refused.
    Verdict,
    /// Another name than the user agent has.
    UaidChanged,
    /// The websocket ended, and not by us.
    Disconnected,
}

impl Fault {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicate => "duplicate_after_ack",
            Self::WrongAgent => "wrong_user_agent",
            Self::WrongChannel => "wrong_channel",
            Self::Altered => "altered",
            Self::Unknown => "never_sent",
            Self::NotUnderstood => "not_understood",
            Self::Status => "status",
            Self::NoAnswer => "no_answer",
            Self::NoWebsocket => "no_websocket",
            Self::Verdict => "verdict",
            Self::UaidChanged => "uaid_changed",
            Self::Disconnected => "disconnected",
        }
    }
}

/// All that was counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) posted: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// Without counting one twice.
    pub(super) received: u64,
    pub(super) acked: u64,
    /// Version updates that a newer one took the place of.
    pub(super) superseded: u64,
    /// Came once more, as they must without an ack.
    pub(super) redelivered: u64,
    /// Received for the first time after one that was sent later to the same subscription.
    pub(super) out_of_order: u64,
    pub(super) bytes: u64,
    /// Answers by status.
    pub(super) statuses: BTreeMap<u16, u64>,
}

/// The books.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sent: Vec<Sent>,
    /// Accepted and not acked, by user agent.
    owed: HashMap<AgentNumber, u32>,
    subscriptions: HashMap<(AgentNumber, ChannelId), Subscription>,
    /// Connections whose last acks may not have arrived.
    broken: HashSet<ConnectionNumber>,
    faults: BTreeMap<Fault, (u64, String)>,
    pub(super) counts: Counts,
    pub(super) to_frame: Histogram,
    pub(super) to_answer: Histogram,
}

#[derive(Debug)]
struct Sent {
    agent: AgentNumber,
    channel: ChannelId,
    payload: Payload,
    at: Instant,
    accepted: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Sent,
    Received,
    Acked { on: ConnectionNumber },
    Superseded,
}

impl State {
    const fn is_over(self) -> bool {
        match self {
            Self::Sent | Self::Received => false,
            Self::Acked { .. } | Self::Superseded => true,
        }
    }
}

#[derive(Debug, Default)]
struct Subscription {
    /// The newest that was received.
    newest: Option<u64>,
    /// Version updates that may still come.
    updates: Vec<u64>,
}

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) agent: AgentNumber,
    pub(super) channel: ChannelId,
    pub(super) sequence: u64,
}

impl Ledger {
    /// A message is about to be sent; its number.
    pub(super) fn post(
        &mut self,
        agent: AgentNumber,
        channel: ChannelId,
        payload: Payload,
        is_update: bool,
        now: Instant,
    ) -> u64 {
        let sequence = self.sent.len() as u64;
        if is_update {
            let subscription = self.subscriptions.entry((agent, channel)).or_default();
            subscription.updates.push(sequence);
        }
        self.sent.push(Sent {
            agent,
            channel,
            payload,
            at: now,
            accepted: false,
            state: State::Sent,
        });
        self.counts.posted = self.counts.posted.saturating_add(1);
        let bytes = self.counts.bytes.saturating_add(payload.size.into());
        self.counts.bytes = bytes;
        sequence
    }

    /// An application server was answered.
    pub(super) fn answered(&mut self, sequence: u64, status: u16, accepted: bool, now: Instant) {
        let statuses = self.counts.statuses.entry(status).or_default();
        *statuses = statuses.saturating_add(1);
        let Some(sent) = find(&mut self.sent, sequence) else {
            return;
        };
        self.to_answer.add(sent.at, now);
        if !accepted {
            self.counts.refused = self.counts.refused.saturating_add(1);
            return;
        }
        sent.accepted = true;
        self.counts.accepted = self.counts.accepted.saturating_add(1);
        if !sent.state.is_over() {
            let owed = self.owed.entry(sent.agent).or_default();
            *owed = owed.saturating_add(1);
        }
    }

    /// What was sent under this number.
    pub(super) fn payload(&self, sequence: u64) -> Option<Payload> {
        let sent = self.sent.get(usize::try_from(sequence).ok()?);
        sent.map(|sent| sent.payload)
    }

    /// A message came, with the bytes that it was sent with or others; whether to ack it.
    pub(super) fn received(&mut self, came: Received, intact: bool, now: Instant) -> bool {
        let Received {
            agent,
            channel,
            sequence,
        } = came;
        let Some(sent) = find(&mut self.sent, sequence) else {
            self.fault(Fault::Unknown, || format!("number {sequence}"));
            return false;
        };
        let fault = if sent.agent != agent {
            Fault::WrongAgent
        } else if sent.channel != channel {
            Fault::WrongChannel
        } else if !intact {
            Fault::Altered
        } else {
            return self.arrived(came, now);
        };
        self.fault(fault, || format!("number {sequence}, user agent {agent}"));
        false
    }

    fn arrived(&mut self, came: Received, now: Instant) -> bool {
        let Received {
            agent,
            channel,
            sequence,
        } = came;
        let Some(sent) = find(&mut self.sent, sequence) else {
            return false;
        };
        match sent.state {
            State::Sent => {
                sent.state = State::Received;
                self.to_frame.add(sent.at, now);
                self.counts.received = self.counts.received.saturating_add(1);
                let subscription = self.subscriptions.entry((agent, channel)).or_default();
                if subscription.newest > Some(sequence) {
                    self.counts.out_of_order = self.counts.out_of_order.saturating_add(1);
                }
                subscription.newest = subscription.newest.max(Some(sequence));
            }
            State::Acked { on } if !self.broken.contains(&on) => {
                self.fault(Fault::Duplicate, || {
                    format!("number {sequence}, user agent {agent}")
                });
            }
            State::Received | State::Acked { .. } | State::Superseded => {
                self.counts.redelivered = self.counts.redelivered.saturating_add(1);
            }
        }
        true
    }

    /// An ack has been sent. That of a version update stands for the older ones.
    pub(super) fn acked(&mut self, came: Received, on: ConnectionNumber) {
        if let Some(subscription) = self.subscriptions.get_mut(&(came.agent, came.channel)) {
            let (over, left) = subscription
                .updates
                .iter()
                .partition(|sequence| **sequence <= came.sequence);
            subscription.updates = left;
            let over: Vec<u64> = over;
            for older in over {
                if older != came.sequence {
                    self.end(older, State::Superseded);
                }
            }
        }
        self.end(came.sequence, State::Acked { on });
    }

    fn end(&mut self, sequence: u64, state: State) {
        let Some(sent) = find(&mut self.sent, sequence) else {
            return;
        };
        let was_over = sent.state.is_over();
        let was_received = sent.state == State::Received;
        sent.state = state;
        if was_over {
            return;
        }
        let count = match state {
            State::Superseded if !was_received => &mut self.counts.superseded,
            State::Superseded | State::Sent | State::Received | State::Acked { .. } => {
                &mut self.counts.acked
            }
        };
        *count = count.saturating_add(1);
        if sent.accepted
            && let Some(owed) = self.owed.get_mut(&sent.agent)
        {
            *owed = owed.saturating_sub(1);
        }
    }

    /// A connection broke: acks on it may not have arrived.
    pub(super) fn broke(&mut self, connection: ConnectionNumber) {
        self.broken.insert(connection);
    }

    /// How many messages the user agent is still to receive and to ack.
    pub(super) fn owed_to(&self, agent: AgentNumber) -> u32 {
        self.owed.get(&agent).copied().unwrap_or(0)
    }

    /// How many accepted ones, from number `since` on, it has not even received.
    pub(super) fn unseen_by(&self, agent: AgentNumber, since: u64) -> usize {
        let since = usize::try_from(since).unwrap_or(usize::MAX);
        let mine = |sent: &&Sent| sent.agent == agent && sent.accepted;
        let sent = self.sent.iter().skip(since).filter(mine);
        sent.filter(|sent| sent.state == State::Sent).count()
    }

    /// The number that the next message will have.
    pub(super) const fn next(&self) -> u64 {
        self.sent.len() as u64
    }

    /// Notes that a check failed. The first of each kind is told in words.
    pub(super) fn fault(&mut self, fault: Fault, words: impl FnOnce() -> String) {
        let noted = self.faults.entry(fault);
        let (count, _) = noted.or_insert_with(|| (0, words()));
        *count = count.saturating_add(1);
    }

    /// Nothing more will come: what is owed is lost.
    pub(super) fn close(&mut self) {
        let owed = |sent: &&Sent| sent.accepted && !sent.state.is_over();
        let lost: Vec<String> = self
            .sent
            .iter()
            .enumerate()
            .filter(|(_, sent)| owed(sent))
            .map(|(number, sent)| format!("number {number}, user agent {}", sent.agent))
            .collect();
        for words in lost {
            self.fault(Fault::Lost, || words);
        }
    }

    /// Failed checks: kind, number, the first one in words.
    pub(super) fn faults(&self) -> impl Iterator<Item = (Fault, u64, &str)> {
        let all = self.faults.iter();
        all.map(|(fault, (count, words))| (*fault, *count, words.as_str()))
    }
}

fn find(sent: &mut [Sent], sequence: u64) -> Option<&mut Sent> {
    sent.get_mut(usize::try_from(sequence).ok()?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CHANNEL: ChannelId = ChannelId::from_bytes([1; 16]);
    const OTHER: ChannelId = ChannelId::from_bytes([2; 16]);

    fn payload() -> Payload {
        Payload {
            size: 8,
            old: false,
        }
    }

    fn came(agent: AgentNumber, channel: ChannelId, sequence: u64) -> Received {
        Received {
            agent,
            channel,
            sequence,
        }
    }

    /// Books with so many accepted messages to user agent 1.
    fn ledger(count: u64, is_update: bool) -> Ledger {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        for sequence in 0..count {
            assert_eq!(ledger.post(1, CHANNEL, payload(), is_update, now), sequence);
            ledger.answered(sequence, 201, true, now + Duration::from_millis(3));
        }
        ledger
    }

    fn faults(ledger: &Ledger) -> Vec<(Fault, u64)> {
        ledger
            .faults()
            .map(|(fault, count, _)| (fault, count))
            .collect()
    }

    #[test]
    fn message_received_and_acked_is_owed_no_more() {
        let mut ledger = ledger(1, false);
        assert_eq!((ledger.owed_to(1), ledger.unseen_by(1, 0)), (1, 1));
        assert!(ledger.received(came(1, CHANNEL, 0), true, Instant::now()));
        assert_eq!((ledger.owed_to(1), ledger.unseen_by(1, 0)), (1, 0));
        ledger.acked(came(1, CHANNEL, 0), 1);
        assert_eq!(ledger.owed_to(1), 0);
        ledger.close();
        assert_eq!(faults(&ledger), []);
        assert_eq!(ledger.to_answer.max_micros(), 3000);
    }

    #[test]
    fn answer_may_come_after_the_ack() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        ledger.post(1, CHANNEL, payload(), false, now);
        assert!(ledger.received(came(1, CHANNEL, 0), true, now));
        ledger.acked(came(1, CHANNEL, 0), 1);
        ledger.answered(0, 201, true, now);
        assert_eq!(ledger.owed_to(1), 0);
    }

    #[test]
    fn what_was_accepted_and_not_acked_is_lost_in_the_end() {
        let mut ledger = ledger(3, false);
        assert!(ledger.received(came(1, CHANNEL, 1), true, Instant::now()));
        ledger.acked(came(1, CHANNEL, 1), 1);
        // Refused: nobody is owed it.
        ledger.post(1, CHANNEL, payload(), false, Instant::now());
        ledger.answered(3, 429, false, Instant::now());
        ledger.close();
        assert_eq!(faults(&ledger), [(Fault::Lost, 2)]);
    }

    #[test]
    fn wrong_user_agent_channel_bytes_and_number_are_told_apart_and_not_acked() {
        for (came, intact, fault) in [
            (came(2, CHANNEL, 0), true, Fault::WrongAgent),
            (came(1, OTHER, 0), true, Fault::WrongChannel),
            (came(1, CHANNEL, 0), false, Fault::Altered),
            (came(1, CHANNEL, 7), true, Fault::Unknown),
        ] {
            let mut ledger = ledger(1, false);
            assert!(!ledger.received(came, intact, Instant::now()));
            assert_eq!(faults(&ledger), [(fault, 1)]);
        }
    }

    #[test]
    fn message_may_come_again_unless_its_ack_has_surely_arrived() {
        let mut ledger = ledger(1, false);
        let message = came(1, CHANNEL, 0);
        for _ in 0..2 {
            assert!(ledger.received(message, true, Instant::now()));
        }
        ledger.acked(message, 1);
        ledger.broke(1);
        assert!(ledger.received(message, true, Instant::now()));
        ledger.acked(message, 2);
        assert_eq!((faults(&ledger), ledger.counts.redelivered), (vec![], 2));
        assert!(ledger.received(message, true, Instant::now()));
        assert_eq!(faults(&ledger), [(Fault::Duplicate, 1)]);
        assert_eq!((ledger.counts.received, ledger.counts.acked), (1, 1));
    }

    #[test]
    fn newer_version_update_stands_for_the_older_ones_and_not_for_newer_ones() {
        let mut ledger = ledger(3, true);
        assert!(ledger.received(came(1, CHANNEL, 1), true, Instant::now()));
        ledger.acked(came(1, CHANNEL, 1), 1);
        assert_eq!((ledger.owed_to(1), ledger.counts.superseded), (1, 1));
        ledger.close();
        assert_eq!(faults(&ledger), [(Fault::Lost, 1)]);
    }

    #[test]
    fn message_received_after_a_later_one_is_counted() {
        let mut ledger = ledger(3, false);
        for sequence in [0, 2, 1] {
            assert!(ledger.received(came(1, CHANNEL, sequence), true, Instant::now()));
        }
        assert_eq!(ledger.counts.out_of_order, 1);
    }
}
