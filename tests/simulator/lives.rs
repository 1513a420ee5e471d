//! Lives and deaths of the process.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edgepush::engine::{Engine, Input, Settings};
use edgepush::model::access::Access;
use edgepush::model::ids::DatabaseId;
use edgepush::model::store::Opened;
use edgepush::model::time::ServiceTime;
use edgepush::model::unifiedpush::UnifiedPush;
use edgepush::storage::{FreshDatabase, Store, Synchronous};

use super::{Failing, Run, World, keyring};
use crate::sabotage::Sabotage;

impl World {
    pub(super) fn boot(&mut self) {
        let fresh = FreshDatabase {
            id: DatabaseId(self.rng.bytes8()),
            key_is_new: self.generation == 0,
        };
        let settings = edgepush::storage::Settings {
            synchronous: Synchronous::Normal,
            ..edgepush::storage::Settings::default()
        };
        let (store, opened) =
            Store::open(&self.directory, &settings, fresh).expect("the database opens");
        if self.saboteur.is(Sabotage::LosesCommits) {
            copy(&self.directory, &self.before());
        }
        assert!(
            Duration::from_secs(opened.service_time.as_secs()) <= self.served,
            "service time ran ahead"
        );
        let engine = Engine::new(
            self.now(),
            Settings {
                limits: self.plan.limits.clone(),
                durability: self.plan.durability,
                simplepush: self.plan.simplepush.clone(),
                unifiedpush: UnifiedPush::default(),
                public_url: None,
                access: Access::default(),
                upstream: None,
                keyring: keyring(),
                opened: self.as_believed(opened),
                random: self.rng.bytes8(),
            },
        );
        self.run = Some(Run {
            engine: engine.expect("runs are not used up"),
            store,
            opened,
            started: self.elapsed,
            queue: VecDeque::new(),
            replies: VecDeque::new(),
            stopping: false,
            stopped_badly: false,
            stopped: false,
            knows_sleepers: false,
        });
        self.note(|| format!("boot {opened:?}"));
    }

    /// Whether it knows who slept when it was started, if anybody could.
    pub(crate) fn knows_sleepers(&self) -> bool {
        let run = self.run.as_ref().expect("it runs");
        run.knows_sleepers || !self.plan.simplepush.udp_wakeup
    }

    /// Everything in memory is gone; the network keeps some of what it had taken.
    pub(crate) fn crash(&mut self) {
        self.step += 1;
        self.note(|| "CRASH".to_owned());
        self.checker.tally.add("crash");
        self.run = None;
        if self.saboteur.is(Sabotage::LosesCommits) {
            copy(&self.before(), &self.directory);
        }
        self.checker.crashed(false);
        self.reboot();
    }

    /// Asks the engine to stop and waits until it says that it has.
    pub(crate) fn stop(&mut self) {
        self.checker.tally.add("clean stop");
        if let Some(run) = &mut self.run {
            run.stopping = true;
        }
        self.input(Input::Stop);
        for _ in 0..1000 {
            if self.run.as_ref().is_some_and(|run| run.stopped) {
                break;
            }
            if self.rng.percent(20) {
                crate::application_server::act(self);
            }
            if self.rng.percent(5) {
                self.open(0);
            }
            self.storage_round();
        }
        let now = self.moment();
        let mut run = self.run.take().expect("it runs");
        assert!(run.stopped, "never stopped");
        assert!(run.queue.is_empty() && run.replies.is_empty());
        assert_eq!(
            self.checker.open_requests(),
            0,
            "stopped with open requests"
        );
        for (id, socket) in &self.sockets {
            assert!(!socket.server_open, "stopped with socket {id} open");
        }
        // What the engine still had to delete and could not is delivered again.
        run.store.apply(Vec::new());
        let time = ServiceTime::from_secs(now.service_secs);
        run.store.close(time).expect("the database closes");
        self.checker.crashed(!run.stopped_badly);
        self.reboot();
    }

    fn reboot(&mut self) {
        let ids: Vec<u64> = self.sockets.keys().copied().collect();
        for id in ids {
            let read = self.rng.index(4);
            for _ in 0..read {
                self.client_reads(id);
            }
        }
        self.sockets.clear();
        self.newest.clear();
        self.failing = Failing::Nothing;
        self.jump();
        self.elapsed += Duration::from_millis(self.rng.below(100_000));
        if self.plan.losses && self.rng.percent(40) {
            self.lose_database();
        }
        self.boot();
    }

    fn as_believed(&self, mut opened: Opened) -> Opened {
        if self.saboteur.is(Sabotage::ForgetsTime) {
            opened.service_time = ServiceTime::default();
        }
        opened
    }

    /// Where a gateway that loses its commits takes its database from.
    pub(super) fn before(&self) -> PathBuf {
        self.directory.with_extension("before")
    }

    fn lose_database(&mut self) {
        self.note(|| "DATABASE LOST".to_owned());
        self.checker.tally.add("database lost");
        std::fs::remove_dir_all(&self.directory).expect("it is there");
        std::fs::create_dir(&self.directory).expect("its parent is there");
        self.generation += 1;
        self.served = Duration::ZERO;
        self.checker.database_lost(self.step);
    }
}

/// Makes `to` a copy of `from`, which has files only.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).expect("its parent is there");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("it can be copied");
    }
}
