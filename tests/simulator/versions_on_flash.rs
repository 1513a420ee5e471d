//! What of it has been written down, and what a crash may forget.

use std::time::Duration;

use uuid::Uuid;

use super::{Deleted, Versions};
use crate::checker::Moment;

impl Versions {
    /// An operation that was asked for at `asked_step` has been committed.
    pub(crate) fn committed(&mut self, asked_step: u64) {
        let puts = &mut self.puts;
        self.undecided.retain(|number| {
            let gone = puts[*number].fate.gone.as_mut().expect("it is gone");
            let is_behind = gone.is == Deleted::Asked && gone.step < asked_step;
            if is_behind {
                gone.is = Deleted::Done;
            }
            !is_behind
        });
    }

    /// A deletion that was asked for at `asked_step` has failed.
    pub(crate) fn deletion_failed(&mut self, asked_step: u64) {
        self.deletions_fail = true;
        for number in &self.undecided {
            let gone = self.puts[*number].fate.gone.as_mut();
            let gone = gone.expect("it is gone");
            if gone.step <= asked_step {
                gone.is = Deleted::Failed;
            }
        }
    }

    /// Nothing moves any more and the storage works: what failed has been tried again.
    ///
    /// Where somebody never acks, something is sent again up to this very moment, and may have been
    /// acked at last: such a deletion still gathers, for no longer than `delete_delay`, and is lost
    /// if the process is killed now.
    pub(crate) fn deletions_are_over(&mut self, now: Moment, delete_delay: Duration) {
        self.deletions_fail = false;
        let puts = &mut self.puts;
        self.undecided.retain(|number| {
            let gone = puts[*number].fate.gone.as_mut().expect("it is gone");
            if gone.is == Deleted::Failed {
                gone.step = now.step;
            } else if now.served.saturating_sub(gone.at) < delete_delay {
                return true;
            }
            gone.is = Deleted::Done;
            false
        });
        assert!(
            self.clock_failed || self.clock_written >= self.clock_used,
            "the version clock is written down up to {}, and was used up to {}",
            self.clock_written,
            self.clock_used
        );
    }

    /// The version clock has been written down, or was not.
    pub(crate) fn clock_saved(&mut self, clock: u64, done: bool) {
        // It is tried again, but not at once.
        self.clock_failed = !done;
        if done {
            self.clock_written = clock;
        }
    }

    /// The highest version of a channel has been written down.
    pub(crate) fn version_saved(&mut self, key: (usize, Uuid), version: u64) {
        if let Some(channel) = self.channels.get_mut(&key)
            && channel.had.is_some_and(|had| had >= version)
        {
            channel.written = channel.written.max(Some(version));
        }
    }

    /// The process has ended, in good order or not. What only its memory knew is forgotten then.
    ///
    /// Of versions that is no more than this: one above what was written down of the version clock,
    /// of an update that was acked before it was written, or never answered.
    pub(crate) fn crashed(&mut self, orderly: bool) {
        let clock_written = self.clock_written;
        for channel in self.channels.values_mut().filter(|_| !orderly) {
            if channel.had.is_some_and(|had| had >= clock_written) {
                channel.had = channel.written;
            }
        }
        self.posting = None;
        self.clock_used = 0;
        (self.clock_failed, self.deletions_fail) = (false, false);
        for number in std::mem::take(&mut self.undecided) {
            self.puts[number].fate.gone = None;
        }
    }

    pub(crate) fn database_lost(&mut self) {
        self.clock_written = 0;
        for channel in self.channels.values_mut() {
            (channel.had, channel.written) = (None, None);
            for number in &channel.puts {
                self.puts[*number].fate.ended = true;
            }
        }
    }
}
