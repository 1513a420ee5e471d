//! User agents whose subscriptions at the main service are lost, until they know it.
//!
//! They learn it by a new name, and what waits for them here under the old one ends with that. So they
//! get it first: only one that is owed nothing is let go, and told when it comes back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::ids::Uaid;

/// How long a user agent that has come keeps its name at most, whatever it is owed. A long backlog
/// is acked by then; and as long as it is not told, what is posted to its lost subscriptions is
/// refused at the main service.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often those that are here are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Who must be told.
#[derive(Debug, Default)]
pub(in crate::engine) struct Telling {
    all: BTreeMap<Uaid, Owed>,
    /// When to look at those that are here; `None` if none is.
    look_at: Option<Instant>,
}

/// What is known of what waits for a user agent here.
#[derive(Debug, Default)]
struct Owed {
    /// It has got everything, and nothing has come for it since.
    nothing: bool,
    /// When that does not matter any more; `None`: it has not been here since its loss.
    until: Option<Instant>,
}

impl Telling {
    /// These must be told.
    pub(in crate::engine) fn add(&mut self, uaids: impl IntoIterator<Item = Uaid>) {
        for uaid in uaids {
            self.all.entry(uaid).or_default();
        }
    }

    /// It has been told, or is no more.
    pub(in crate::engine) fn remove(&mut self, uaid: Uaid) {
        self.all.remove(&uaid);
    }

    pub(in crate::engine) fn uaids(&self) -> Vec<Uaid> {
        self.all.keys().copied().collect()
    }

    pub(in crate::engine) fn len(&self) -> usize {
        self.all.len()
    }

    /// A message has been accepted for it.
    pub(in crate::engine) fn owes(&mut self, uaid: Uaid) {
        if let Some(owed) = self.all.get_mut(&uaid) {
            owed.nothing = false;
        }
    }

    /// Whether a user agent that says hello is told now. If it must be and is not, its session is
    /// looked at soon.
    pub(in crate::engine) fn tells_at_hello(&mut self, now: Instant, uaid: Uaid) -> bool {
        let Some(owed) = self.all.get_mut(&uaid) else {
            return false;
        };
        if owed.nothing || owed.is_over(now) {
            return true;
        }
        self.look_soon(now);
        false
    }

    /// Whether a user agent that is here is to be let go, so that it comes back and is told.
    pub(in crate::engine) fn lets_go(
        &mut self,
        now: Instant,
        uaid: Uaid,
        has_everything: bool,
    ) -> bool {
        let Some(owed) = self.all.get_mut(&uaid) else {
            return false;
        };
        owed.nothing = has_everything;
        let is_over = owed.is_over(now);
        if !has_everything && !is_over {
            self.look_soon(now);
        }
        has_everything || is_over
    }

    pub(in crate::engine) const fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// Whether it is time to look at those that are here.
    pub(in crate::engine) fn is_time_to_look(&mut self, now: Instant) -> bool {
        self.look_at.take_if(|at| *at <= now).is_some()
    }

    /// Looks soon at those that are here, if anybody must be told.
    pub(in crate::engine) fn look_soon(&mut self, now: Instant) {
        if self.look_at.is_none() && !self.all.is_empty() {
            self.look_at = now.checked_add(LOOK_INTERVAL);
        }
    }
}

impl Owed {
    /// Whether its time has passed, which begins when this is asked for the first time.
    fn is_over(&mut self, now: Instant) -> bool {
        let until = *self
            .until
            .get_or_insert_with(|| now.checked_add(PATIENCE).unwrap_or(now));
        until <= now
    }
}
