//! One life of the gateway: the engine, the database, and the storage thread between them.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use edgepush::engine::{Engine, Settings};
use edgepush::model::access::Access;
use edgepush::model::durability::Durability;
use edgepush::model::ids::DatabaseId;
use edgepush::model::simplepush::SimplePush;
use edgepush::model::store::{Opened, StoreError, StoreOp, StoreReply};
use edgepush::model::time::{Now, ServiceTime};
use edgepush::model::unifiedpush::UnifiedPush;
use edgepush::protocol::keyring::Keyring;
use edgepush::storage::{FreshDatabase, Store, Synchronous};

use crate::plan::Plan;
use crate::rng::Rng;

#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) engine: Engine,
    store: Store,
    opened: Opened,
    started: Duration,
    /// Given to the storage thread and not carried out: what a crash loses.
    pub(crate) queue: VecDeque<StoreOp>,
    /// Carried out and not reported.
    pub(crate) replies: VecDeque<StoreReply>,
    pub(crate) failing: bool,
    pub(crate) stopped: bool,
}

impl Gateway {
    pub(crate) fn boot(
        directory: &Path,
        plan: &Plan,
        rng: &mut Rng,
        key_is_new: bool,
        (now, elapsed): (Now, Duration),
    ) -> Self {
        let fresh = FreshDatabase {
            id: DatabaseId(rng.bytes8()),
            key_is_new,
        };
        let settings = edgepush::storage::Settings {
            synchronous: Synchronous::Normal,
            ..edgepush::storage::Settings::default()
        };
        let (store, opened) = Store::open(directory, &settings, fresh).expect("it opens");
        let settings = Settings {
            limits: plan.limits.clone(),
            durability: Durability::Strict,
            simplepush: SimplePush::default(),
            unifiedpush: UnifiedPush::default(),
            public_url: None,
            access: Access::default(),
            upstream: Some(Box::new(plan.upstream.clone())),
            // The key outlives every database.
            keyring: Keyring::new(&[[7; 32]]).expect("one key is enough"),
            opened,
            random: rng.bytes8(),
        };
        Self {
            engine: Engine::new(now, settings).expect("runs are not used up"),
            store,
            opened,
            started: elapsed,
            queue: VecDeque::new(),
            replies: VecDeque::new(),
            failing: false,
            stopped: false,
        }
    }

    /// Commits some of what is queued. Whether it failed.
    pub(crate) fn commit(&mut self, count: usize) -> bool {
        let batch: Vec<StoreOp> = self.queue.drain(..count).collect();
        if self.failing {
            let failed = batch
                .iter()
                .map(|_| StoreReply::Failed(StoreError::DiskFull));
            self.replies.extend(failed);
        } else {
            self.replies.extend(self.store.apply(batch));
        }
        self.failing
    }

    /// Ends it in order, once the engine has stopped.
    pub(crate) fn close(self, elapsed: Duration) {
        assert!(self.stopped && self.queue.is_empty() && self.replies.is_empty());
        let running = (elapsed - self.started).as_secs();
        let time = ServiceTime::from_secs(self.opened.service_time.as_secs() + running);
        self.store.close(time).expect("it closes");
    }
}
