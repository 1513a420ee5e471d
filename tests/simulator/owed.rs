//! What the gateway owes to whom.

use std::time::Duration;

use super::{Checker, Moment, Seen, SessionLog, name_of};
use crate::versions::Put;

impl Checker {
    /// Whether a message that was answered 201 must still be with the gateway or its user agent.
    fn is_owed(&self, number: usize, now: Moment) -> bool {
        let message = &self.messages[number];
        let subscription = &self.subscriptions[&(message.agent, message.channel)];
        let later = |step: Option<u64>| step.is_some_and(|step| step >= message.posted.step);
        let age = now.served.saturating_sub(message.posted.served);
        let replaced = self
            .replacements(number)
            .any(|newer| newer.answered.is_none_or(|(status, _)| status == 201));
        message.answered.is_some_and(|(status, _)| status == 201)
            && message.ttl_secs > 0
            && message.posted.generation == now.generation
            && !message.deleted
            && age < Duration::from_secs(message.ttl_secs)
            && !replaced
            && !later(subscription.unregistered)
            && !later(subscription.disowned)
    }

    fn seen_of(&self, number: usize) -> Option<&Seen> {
        self.seen.get(self.messages[number].token.as_ref()?)
    }

    /// Nothing moves any more, and this session is its user agent's newest and in good health:
    /// everything owed to it has been sent to it, or was acked before.
    pub(crate) fn all_sent(
        &self,
        log: &SessionLog,
        (interval, elapsed): (Option<Duration>, Duration),
        now: Moment,
    ) {
        for number in 0..self.messages.len() {
            let message = &self.messages[number];
            let is_wanted = message.agent == log.agent && message.urgency >= log.urgency_min;
            if !is_wanted || !self.is_owed(number, now) {
                continue;
            }
            let seen = self.seen_of(number);
            let acked = seen.is_some_and(|seen| seen.acked || seen.perhaps_acked);
            let token = self.messages[number].token.as_ref();
            let sent = token.is_some_and(|token| log.sent.contains(token));
            assert!(
                acked || sent,
                "message {number} is stuck: {:?}",
                self.messages[number]
            );
        }
        let puts = self.versions.puts.iter();
        for put in puts.filter(|_| log.wants_updates()) {
            if put.agent == log.agent && self.is_update_owed(put, log.name(), now) {
                self.is_update_sent(put, log, interval, elapsed);
            }
        }
    }

    /// Whether an update that was accepted must still be with the gateway or its user agent, which
    /// goes by `name` now.
    fn is_update_owed(&self, put: &Put, name: Option<String>, now: Moment) -> bool {
        let subscription = &self.subscriptions[&(put.agent, put.channel)];
        let later = |step: Option<u64>| step.is_some_and(|step| step >= put.posted.step);
        let age = now.served.saturating_sub(put.posted.served);
        put.is_accepted()
            && put
                .ttl_secs
                .is_none_or(|ttl_secs| age < Duration::from_secs(ttl_secs))
            && put.posted.generation == now.generation
            && !(put.fate.acked || put.fate.perhaps_acked || put.fate.is_stale)
            && !later(subscription.unregistered)
            && !later(subscription.disowned)
            && name.as_ref() == Some(&subscription.name)
    }

    /// Whether anything waits for a user agent.
    pub(crate) fn has_waiting(&self, agent: usize, uaid: &str, now: Moment) -> bool {
        let name = name_of(uaid);
        let mut puts = self.versions.puts.iter();
        puts.any(|put| put.agent == agent && self.is_update_owed(put, name.clone(), now))
    }

    /// Promise 1, when every user agent has come back and read everything.
    ///
    /// `names`: how the user agents are called.
    pub(crate) fn all_received(&mut self, names: &[Option<String>], now: Moment) {
        assert!(self.open.is_empty(), "requests without an answer");
        for number in 0..self.messages.len() {
            let received = self.seen_of(number).is_some_and(|seen| seen.received);
            assert!(
                received || !self.is_owed(number, now),
                "message {number} was accepted and is lost: {:?}",
                self.messages[number]
            );
        }
        for (number, put) in self.versions.puts.iter().enumerate() {
            let name = names[put.agent].as_deref().and_then(name_of);
            assert!(
                !self.is_update_owed(put, name, now),
                "update {number} was accepted and not acked: {put:?}"
            );
        }
        self.count_undelivered(now);
    }

    fn count_undelivered(&mut self, now: Moment) {
        for number in 0..self.messages.len() {
            let message = &self.messages[number];
            let received = self.seen_of(number).is_some_and(|seen| seen.received);
            if received || message.answered.is_none_or(|(status, _)| status != 201) {
                continue;
            }
            let age = now.served.saturating_sub(message.posted.served);
            if message.ttl_secs == 0 {
                self.tally.add("ttl 0 dropped");
            } else if self.replacements(number).next().is_some() {
                self.tally.add("replaced by topic");
            } else if age >= Duration::from_secs(message.ttl_secs) {
                self.tally.add("expired undelivered");
            }
        }
    }

    /// An update that is owed to a user agent whose newest websocket this is.
    ///
    /// `interval`: after which it is repeated, if it is.
    fn is_update_sent(
        &self,
        put: &Put,
        log: &SessionLog,
        interval: Option<Duration>,
        elapsed: Duration,
    ) {
        let sent = log.sent_up_to(put.channel, |version, step| {
            let is_behind = || {
                let key = (put.agent, put.channel);
                self.versions.is_unacked(key, version, step)
            };
            put.is_reached_by(version) && (step >= put.posted.step || is_behind())
        });
        let (step, at) = sent.unwrap_or_else(|| panic!("an update is stuck: {put:?}"));
        assert!(
            step > log.again_step,
            "an update is not repeated after a second hello: {put:?}"
        );
        // What is sent a moment before the others are repeated waits once more.
        let late = interval.map(|interval| 2 * interval + Duration::from_secs(2));
        assert!(
            late.is_none_or(|late| elapsed < at + late),
            "an update is not repeated in time: {put:?}"
        );
    }
}
