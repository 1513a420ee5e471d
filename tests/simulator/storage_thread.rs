//! The storage thread of the simulated world: slow, in batches of any size, sometimes failing.

use std::collections::BTreeSet;

use edgepush::engine::Input;
use edgepush::model::store::{StoreError, StoreOp, StoreReply};

use super::{Failing, World};

impl World {
    pub(crate) fn fail_storage(&mut self) {
        self.failing = match self.rng.below(5) {
            0 => Failing::Writes,
            1 => Failing::Everything,
            _ => Failing::Nothing,
        };
    }

    /// Some operations are committed, some replies come back.
    pub(crate) fn storage_round(&mut self) {
        let run = self.run.as_ref().expect("it runs");
        let (queued, done) = (run.queue.len(), run.replies.len());
        if queued > 0 && self.rng.percent(60) {
            let count = 1 + self.rng.index(queued);
            self.apply(count);
        }
        if done > 0 && self.rng.percent(60) {
            let count = 1 + self.rng.index(done);
            self.report(count);
        }
    }

    pub(super) fn apply(&mut self, count: usize) {
        self.step += 1;
        let failing = self.failing;
        let run = self.run.as_mut().expect("it runs");
        let (asked, batch): (Vec<u64>, Vec<StoreOp>) = run.queue.drain(..count).unzip();
        let replies = match failing {
            Failing::Nothing => run.store.apply(batch.clone()),
            Failing::Writes | Failing::Everything => batch
                .iter()
                .map(|op| {
                    if is_read(op) && failing == Failing::Writes {
                        run.store.apply(vec![op.clone()]).remove(0)
                    } else {
                        StoreReply::Failed(StoreError::DiskFull)
                    }
                })
                .collect(),
        };
        assert_eq!(replies.len(), batch.len());
        for ((op, reply), asked_step) in batch.iter().zip(&replies).zip(asked) {
            self.note_applied(op, reply, asked_step);
        }
        self.note(|| format!("applied {batch:?} => {replies:?}"));
        let run = self.run.as_mut().expect("it runs");
        run.replies.extend(replies);
    }

    fn note_applied(&mut self, op: &StoreOp, reply: &StoreReply, asked_step: u64) {
        let step = self.step;
        let failed = matches!(reply, StoreReply::Failed(_));
        let checker = &mut self.checker;
        if failed {
            checker.tally.add(if matches!(op, StoreOp::Fetch { .. }) {
                "page read failed"
            } else if matches!(op, StoreOp::Sleepers) {
                "sleepers not read"
            } else {
                "batch failed"
            });
            let run = self.run.as_mut().expect("it runs");
            run.stopped_badly |= run.stopping;
        } else {
            checker.versions.committed(asked_step);
        }
        match (op, reply) {
            (StoreOp::Delete(deletions), _) => {
                if failed {
                    checker.versions.deletion_failed(asked_step);
                }
                checker.deletions_applied(deletions, !failed, step);
            }
            (StoreOp::SaveTime { version_clock, .. }, _) => {
                let clock = version_clock.as_u64();
                checker.versions.clock_saved(clock, !failed);
            }
            (StoreOp::SaveVersions { uaid, versions }, _) => {
                for (channel, version) in versions {
                    let name = uaid.uuid().simple().to_string();
                    checker.version_saved(&name, channel.uuid(), version.as_u64(), !failed);
                }
            }
            (StoreOp::Fetch { .. }, StoreReply::Page { messages, .. }) => {
                let updates = messages.iter();
                let updates = updates.filter(|message| message.payload.update().is_some());
                let channels: Vec<_> = updates.map(|message| *message.channel.as_bytes()).collect();
                let distinct: BTreeSet<_> = channels.iter().collect();
                assert_eq!(distinct.len(), channels.len(), "two updates of one channel");
            }
            _ => {}
        }
    }

    pub(super) fn report(&mut self, count: usize) {
        let run = self.run.as_mut().expect("it runs");
        let replies: Vec<StoreReply> = run.replies.drain(..count).collect();
        self.input(Input::Stored(replies));
    }
}

const fn is_read(op: &StoreOp) -> bool {
    matches!(
        op,
        StoreOp::Load { .. } | StoreOp::Find { .. } | StoreOp::Fetch { .. } | StoreOp::Sleepers
    )
}
