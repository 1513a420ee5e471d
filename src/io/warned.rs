//! Warnings that may come in floods.

use std::fmt;
use std::time::{Duration, Instant};

use log::warn;

use super::clock;

/// At most one line of a kind in this time.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Keeps a flood of one kind of trouble from becoming a flood of lines on a memory card.
#[derive(Debug, Default)]
pub(super) struct Warned {
    at: Option<Instant>,
}

impl Warned {
    pub(super) fn say(&mut self, what: fmt::Arguments<'_>) {
        let now = clock::monotonic();
        let quiet = self
            .at
            .is_some_and(|at| now.saturating_duration_since(at) < WARN_INTERVAL);
        if !quiet {
            self.at = Some(now);
            warn!("{what}");
        }
    }
}
