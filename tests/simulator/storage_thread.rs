//! The storage thread of the simulated world: slow, in batches of any size, sometimes failing.

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
        let step = self.step;
        let failing = self.failing;
        let run = self.run.as_mut().expect("it runs");
        let batch: Vec<StoreOp> = run.queue.drain(..count).collect();
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
        for (op, reply) in batch.iter().zip(&replies) {
            if let StoreOp::Delete(deletions) = op {
                let done = *reply == StoreReply::Done;
                self.checker.deletions_applied(deletions, done, step);
            }
            match (op, reply) {
                (StoreOp::Fetch { .. }, StoreReply::Failed(_)) => {
                    self.checker.tally.add("page read failed");
                }
                (_, StoreReply::Failed(_)) => self.checker.tally.add("batch failed"),
                _ => {}
            }
        }
        self.note(|| format!("applied {batch:?} => {replies:?}"));
        let run = self.run.as_mut().expect("it runs");
        run.replies.extend(replies);
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
        StoreOp::Load { .. } | StoreOp::Find { .. } | StoreOp::Fetch { .. }
    )
}
