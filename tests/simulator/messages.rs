//! Push messages on their way to user agents, and their acks.

use std::time::Duration;

use edgepush::model::store::Deletion;
use uuid::Uuid;

use super::{Checker, Gone, Message, Moment, Seen, SessionLog, URGENCY_NORMAL, number_in};

impl Checker {
    /// A notification leaves the gateway.
    pub(crate) fn sent(
        &mut self,
        log: &mut SessionLog,
        channel: Uuid,
        version: &str,
        body: Option<&[u8]>,
        now: Moment,
    ) {
        let id = self.keyring.open_message(now.database, version);
        let id = id.expect("a version opens under the present database");
        assert!(
            log.sent.insert(version.to_owned()),
            "sent twice on one session"
        );
        self.may_be_sent_to(log.agent, channel, &log.uaid);
        if let Some(number) = body.and_then(number_in) {
            let token = self.messages[number].token.clone();
            assert!(
                token.is_none_or(|token| token == version),
                "another version"
            );
            let message = &self.messages[number];
            let seen = self
                .seen
                .entry(version.to_owned())
                .or_insert_with(|| Seen::of(message));
            seen.message = Some(number);
        }
        let seen = self
            .seen
            .entry(version.to_owned())
            .or_insert_with(|| Seen::unknown(log.agent, channel));
        assert_eq!(
            (seen.agent, seen.channel),
            (log.agent, channel),
            "to the wrong place"
        );
        assert_eq!(seen.body.as_deref(), body, "another body");
        seen.uaid.clone_from(&log.uaid);
        if let Some(gone) = seen.gone {
            assert!(
                log.hello_step <= gone.step,
                "sent again after its ack or its deletion"
            );
        }
        self.by_id.insert(id, version.to_owned());
        let number = seen.message;
        let acked = seen.acked || seen.perhaps_acked;
        if let Some(number) = number {
            self.may_be_sent(number, acked, log, now);
        }
        if number.is_none_or(|number| self.messages[number].ttl_secs > 0) {
            let urgency = number.map_or(URGENCY_NORMAL, |number| self.messages[number].urgency);
            let of_channel = log.last.range((channel, 0)..=(channel, usize::MAX));
            if of_channel.into_iter().any(|(_, last)| *last > id) {
                assert!(log.asked_urgency, "out of order");
                self.tally.add("overtaken by a more urgent one");
            }
            let last = log.last.insert((channel, urgency), id);
            assert!(last.is_none_or(|last| last < id), "out of order");
        }
    }

    /// Neither expired nor replaced.
    fn may_be_sent(&self, number: usize, acked: bool, log: &SessionLog, now: Moment) {
        let message = &self.messages[number];
        assert!(
            message.urgency >= log.urgency_min,
            "message {number} sent though less urgent than asked for"
        );
        if message.ttl_secs > 0 {
            // The second in which it was posted is not counted: it may have just begun.
            let expires = message.posted.service_secs + message.ttl_secs + 1;
            assert!(
                now.service_secs < expires,
                "message {number} sent after its TTL"
            );
        }
        // Its ack or its deletion may be lost with the process. It is then sent again, whatever came
        // after it.
        let dropped = message.deleted || acked;
        let newer = self.replacements(number).find(|newer| {
            let accepted = newer.answered.filter(|(status, _)| *status == 201);
            // An expired one is not looked for, and a crash takes back some of the service time.
            let was_kept =
                newer.posted.service_secs <= message.posted.service_secs + message.ttl_secs;
            was_kept && accepted.is_some_and(|(_, step)| step < log.hello_step)
        });
        assert!(
            newer.is_none() || dropped,
            "message {number} sent again though replaced by topic"
        );
    }

    pub(super) fn replacements(&self, number: usize) -> impl Iterator<Item = &Message> {
        let old = &self.messages[number];
        self.messages[number + 1..].iter().filter(move |newer| {
            old.topic.is_some()
                && newer.topic == old.topic
                && (newer.agent, newer.channel) == (old.agent, old.channel)
                && newer.ttl_secs > 0
        })
    }

    /// A notification has reached the user agent.
    pub(crate) fn received(&mut self, version: &str) {
        let seen = self.seen.get_mut(version).expect("it was sent");
        let again = std::mem::replace(&mut seen.received, true);
        let ttl = seen.message.map(|number| self.messages[number].ttl_secs);
        self.tally.add(match (again, ttl) {
            (true, _) => "message delivered again",
            (false, Some(0)) => "ttl 0 delivered",
            (false, _) => "message delivered",
        });
        if !again && seen.body.is_none() {
            self.tally.add("message without a body");
        }
    }

    /// The gateway has read an ack that does not say of what; of something received it must be.
    pub(crate) fn acked_without_version(&mut self, agent: usize, channel: Uuid) {
        for seen in self.seen.values_mut() {
            if (seen.agent, seen.channel) == (agent, channel) && seen.received {
                seen.perhaps_acked = true;
            }
        }
        self.versions.perhaps_acked((agent, channel));
    }

    /// The gateway has read an ack by version.
    pub(crate) fn acked(&mut self, agent: usize, version: &str, code: Option<u16>, now: Moment) {
        let Some(seen) = self.seen.get_mut(version) else {
            return;
        };
        if seen.agent != agent {
            self.tally.add("ack of somebody else's message");
            return;
        }
        seen.acked = true;
        seen.to_drop = true;
        seen.gone.get_or_insert(Gone {
            step: now.step,
            committed: false,
        });
        if code == Some(102) {
            let key = (agent, seen.channel);
            let subscription = self.subscriptions.get_mut(&key);
            subscription.expect("it was sent").disowned = Some(now.step);
            self.versions.ended(key, false, now.step);
        }
        let waiting = seen
            .message
            .is_some_and(|number| self.messages[number].answered.is_none());
        self.tally.add(if waiting {
            "ack in the window"
        } else {
            "ack after the window"
        });
    }

    /// The storage has carried out deletions, or failed to.
    pub(crate) fn deletions_applied(&mut self, deletions: &[Deletion], done: bool, step: u64) {
        for deletion in deletions {
            let Deletion::Message { id, owner } = deletion else {
                continue;
            };
            let Some(token) = self.by_id.get(id) else {
                continue;
            };
            let Some(seen) = self.seen.get_mut(token) else {
                continue;
            };
            let owner = owner.map(|owner| owner.uuid().simple().to_string());
            if owner.is_some_and(|owner| owner != seen.uaid) {
                continue;
            }
            match (&mut seen.gone, done) {
                (Some(gone), true) => gone.committed = true,
                (gone @ Some(_), false) => *gone = None,
                (gone @ None, true) if seen.acked => {
                    *gone = Some(Gone {
                        step,
                        committed: true,
                    });
                }
                (None, _) => {}
            }
        }
    }

    /// Nothing moves any more and the storage works: what failed has been tried again.
    pub(crate) fn deletions_are_over(&mut self, now: Moment, delete_delay: Duration) {
        self.versions.deletions_are_over(now, delete_delay);
        for seen in self.seen.values_mut().filter(|seen| seen.to_drop) {
            seen.gone.get_or_insert(Gone {
                step: now.step,
                committed: true,
            });
        }
    }
}
