//! User agents that were let go of, and the datagrams that bring them back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::deadlines::Deadlines;
use super::outbox::Waiting;
use super::{Engine, Output};
use crate::model::ids::Uaid;
use crate::model::store::{Sleeper, StoreOp};
use crate::model::time::Now;
use crate::model::wakeup::Wakeup;

/// Most user agents that are let go of; the next ones stay connected. About 10 MiB.
const SLEEPERS_MAX: usize = 65_536;

/// Waits between the datagrams for one message: one may be lost, and a radio takes seconds to wake.
const WAITS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// Who sleeps, and who is being woken.
#[derive(Debug)]
pub(super) struct Sleep {
    sleepers: HashMap<Uaid, Asleep>,
    deadlines: Deadlines<Uaid>,
}

#[derive(Debug)]
struct Asleep {
    wakeup: Wakeup,
    /// When the next datagram is due, and which wait comes after it.
    next: Option<Instant>,
    waits: usize,
}

impl Sleep {
    pub(super) fn new() -> Self {
        Self {
            sleepers: HashMap::new(),
            deadlines: Deadlines::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sleepers.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.sleepers.len() < SLEEPERS_MAX
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    pub(super) fn add(&mut self, uaid: Uaid, wakeup: Wakeup) {
        self.remove(uaid);
        let asleep = Asleep {
            wakeup,
            next: None,
            waits: 0,
        };
        self.sleepers.insert(uaid, asleep);
    }

    /// Whether it was there.
    fn remove(&mut self, uaid: Uaid) -> bool {
        let Some(mut asleep) = self.sleepers.remove(&uaid) else {
            return false;
        };
        self.deadlines.set(uaid, &mut asleep.next, None);
        true
    }
}

impl Engine {
    /// The user agent is back.
    pub(super) fn woken(&mut self, uaid: Uaid) {
        if self.sleep.remove(uaid) {
            self.desk
                .out
                .store(StoreOp::Woken { uaid }, Waiting::Nobody);
        }
    }

    /// Those who slept when the gateway ended the last time.
    pub(super) fn sleepers_loaded(&mut self, now: Now, sleepers: Vec<Sleeper>) {
        for sleeper in sleepers.into_iter().take(SLEEPERS_MAX) {
            // Its hello may have come first.
            if self.newest.contains_key(&sleeper.uaid) {
                continue;
            }
            self.sleep.add(sleeper.uaid, sleeper.wakeup);
            if sleeper.is_due {
                self.wake(now, sleeper.uaid);
            }
        }
    }

    /// Something is there for a user agent that may sleep. One that is being woken is left to that.
    pub(super) fn wake(&mut self, now: Now, uaid: Uaid) {
        if self.newest.contains_key(&uaid) {
            return;
        }
        let Some(asleep) = self.sleep.sleepers.get_mut(&uaid) else {
            return;
        };
        if asleep.next.is_none() {
            asleep.waits = 0;
            self.shake(now, uaid);
        }
    }

    /// Sends the datagrams whose time has come.
    pub(super) fn wake_again(&mut self, now: Now) {
        while let Some(uaid) = self.sleep.deadlines.pop_due(now.monotonic) {
            if let Some(asleep) = self.sleep.sleepers.get_mut(&uaid) {
                asleep.next = None;
                self.shake(now, uaid);
            }
        }
    }

    fn shake(&mut self, now: Now, uaid: Uaid) {
        let Some(asleep) = self.sleep.sleepers.get_mut(&uaid) else {
            return;
        };
        let output = match &self.desk.simplepush.udp_proxy {
            None => Output::Datagram {
                to: asleep.wakeup.address,
            },
            Some(url) => Output::AskProxy {
                url: url.clone(),
                wakeup: asleep.wakeup.clone(),
            },
        };
        let wait = WAITS.get(asleep.waits);
        asleep.waits = asleep.waits.saturating_add(1);
        let at = wait.and_then(|wait| now.monotonic.checked_add(*wait));
        self.sleep.deadlines.set(uaid, &mut asleep.next, at);
        Counters::add(&mut self.desk.out.counters.wakeups_sent);
        self.desk.out.push(output);
    }
}
