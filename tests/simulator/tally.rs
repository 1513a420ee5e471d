//! What has been exercised: a run that passes without having tried something proves nothing.

use std::collections::BTreeMap;

/// Everything that must have happened at least once over all seeds.
pub(crate) const KINDS: &[&str] = &[
    "ack after the window",
    "ack in the window",
    "ack of somebody else's message",
    "ack repeated",
    "ack with code 101",
    "ack with code 102",
    "ack with empty version",
    "acks in one frame",
    "application ping",
    "bad frame",
    "bad request",
    "batch failed",
    "clean stop",
    "clock far ahead",
    "clock in 1970",
    "closed: hello timeout",
    "closed: other fault",
    "closed: ping too soon",
    "closed: pong timeout",
    "closed: stopping",
    "closed: superseded",
    "crash",
    "database lost",
    "deleted by its application server",
    "disconnect",
    "expired undelivered",
    "first frame was not hello",
    "half-open connection",
    "hello with a foreign uaid",
    "hello with a kept uaid",
    "hello with an empty uaid",
    "hello without uaid",
    "lost endpoint used",
    "message delivered",
    "message delivered again",
    "message without a body",
    "nack",
    "overtaken by a more urgent one",
    "page read failed",
    "paused",
    "pong",
    "post 201",
    "post 404",
    "post 410",
    "post 429",
    "post 503",
    "post of a restricted endpoint",
    "register",
    "register with key",
    "replaced by topic",
    "run with relaxed durability",
    "second hello",
    "slow reader",
    "spurious timeout",
    "ttl 0 delivered",
    "ttl 0 dropped",
    "two websockets at once",
    "uaid kept over a lost database",
    "unregister",
    "urgency asked for",
];

#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(crate) fn add(&mut self, kind: &'static str) {
        assert!(KINDS.contains(&kind), "`{kind}` is not in the list");
        *self.0.entry(kind).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind).or_default() += count;
        }
    }

    pub(crate) fn of(&self, kind: &'static str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }
}
