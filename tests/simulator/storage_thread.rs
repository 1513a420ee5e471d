//! The storage thread of the simulated world: slow, in batches of any size, sometimes failing.

use std::collections::BTreeSet;

use edgepush::engine::Input;
use edgepush::model::store::{StoreError, StoreOp, StoreReply};

use super::{Failing, Run, World};
use crate::sabotage::Saboteur;

impl World {
    pub(crate) fn fail_storage(&mut self) {
        let fault = self.rng.pick(&[
            StoreError::DiskFull,
            StoreError::ReadOnly,
            StoreError::Io,
            StoreError::Corrupt,
        ]);
        self.failing = match self.rng.below(10) {
            0 => Failing::Writes(fault),
            1 => Failing::Everything(fault),
            2 => Failing::Full,
            3 => Failing::NowAndThen(fault),
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
        let mut failing = self.failing;
        if let Failing::NowAndThen(fault) = failing
            && self.rng.percent(30)
        {
            failing = Failing::Writes(fault);
        }
        let run = self.run.as_mut().expect("it runs");
        let (asked, batch): (Vec<u64>, Vec<StoreOp>) = run.queue.drain(..count).unzip();
        let replies = commit(run, &mut self.saboteur, &batch, failing);
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
            (StoreOp::Sleepers, _) if !failed => {
                let run = self.run.as_mut().expect("it runs");
                run.knows_sleepers = true;
            }
            (StoreOp::SaveVersions { uaid, versions }, _) if !failed => {
                for (channel, version) in versions {
                    let name = uaid.uuid().simple().to_string();
                    checker.version_saved(&name, channel.uuid(), version.as_u64());
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

/// Commits what does not fail, as the storage does it.
fn commit(
    run: &mut Run,
    saboteur: &mut Saboteur,
    batch: &[StoreOp],
    failing: Failing,
) -> Vec<StoreReply> {
    let mut given = Vec::new();
    let mut said: Vec<Option<StoreReply>> = Vec::new();
    for op in batch {
        let reply = fault_of(op, failing)
            .map(StoreReply::Failed)
            .or_else(|| saboteur.store(op));
        if reply.is_none() {
            given.push(op.clone());
        }
        said.push(reply);
    }
    let mut replies = run.store.apply(given).into_iter();
    said.into_iter()
        .map(|said| said.unwrap_or_else(|| replies.next().expect("one reply each")))
        .collect()
}

/// Why an operation fails, if it does.
fn fault_of(op: &StoreOp, failing: Failing) -> Option<StoreError> {
    match failing {
        Failing::Nothing | Failing::NowAndThen(_) => None,
        Failing::Full => takes_room(op).then_some(StoreError::DiskFull),
        Failing::Writes(fault) => (!is_read(op)).then_some(fault),
        Failing::Everything(fault) => Some(fault),
    }
}

/// What a full disk refuses: see `takes_room` of the storage.
const fn takes_room(op: &StoreOp) -> bool {
    matches!(
        op,
        StoreOp::Subscribe { .. } | StoreOp::Enqueue { .. } | StoreOp::Sleep { .. }
    )
}

const fn is_read(op: &StoreOp) -> bool {
    matches!(
        op,
        StoreOp::Load { .. } | StoreOp::Find { .. } | StoreOp::Fetch { .. } | StoreOp::Sleepers
    )
}
