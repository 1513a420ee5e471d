//! A memory card whose power can be cut: a file system (FUSE, served by the test itself) that keeps what
//! was written in memory until it is synced, and forgets the rest, or some of it, at the cut.
//!
//! A file's bytes are certain after its fsync or fdatasync, a name after the fsync of its directory, as
//! POSIX has it and no more. Memory-mapped files work: SQLite's `-shm` is one.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]

mod contents;
mod file_system;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use fuser::BackgroundSession;

use crate::storm::Rng;
use contents::Contents;
pub use contents::Remains;
use file_system::FileSystem;

/// A card in its slot, or out of it.
pub struct Card {
    power: Arc<Power>,
    session: Option<BackgroundSession>,
    mount_point: PathBuf,
}

/// What the file system and the test share.
struct Power {
    state: Mutex<State>,
    went: Condvar,
}

struct State {
    contents: Contents,
    on: bool,
    /// Counts what changes something, syncs included.
    moment: u64,
    /// When the power goes by itself.
    cut_at: Option<CutAt>,
    /// Says that it has synced, and has not.
    lies: bool,
    /// Longest that a sync takes.
    sync_micros_max: u64,
    rng: Rng,
}

/// A moment at which the power goes.
#[derive(Clone, Debug)]
pub enum CutAt {
    /// Before this change, counted from now and from 0.
    Change(u64),
    /// Before this write to the file of this name, from now and from 0.
    WriteTo(&'static str, u64),
}

impl Card {
    /// An empty one, in a slot; the reason where this machine has none.
    pub fn new(rng: &mut Rng) -> Result<Self, String> {
        let mount_point = crate::support::temporary_folder();
        let state = State {
            contents: Contents::empty(),
            on: true,
            moment: 0,
            cut_at: None,
            lies: false,
            sync_micros_max: 0,
            rng: Rng::new(rng.next()),
        };
        let mut card = Self {
            power: Arc::new(Power {
                state: Mutex::new(state),
                went: Condvar::new(),
            }),
            session: None,
            mount_point,
        };
        card.put_in()?;
        Ok(card)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// From here on syncs take some time, as they do on a card: up to this long.
    pub fn set_sync_time_max(&self, micros: u64) {
        self.power.lock().sync_micros_max = micros;
    }

    /// From here on it says that it has synced and has not.
    pub fn lie(&self) {
        self.power.lock().lies = true;
    }

    /// Everything on it is certain.
    pub fn sync_all(&self) {
        self.power.lock().contents.sync_all();
    }

    /// The power goes now.
    pub fn cut(&self) {
        self.power.go(&mut self.power.lock());
    }

    /// The power goes by itself, at a moment of the future.
    pub fn cut_at(&self, at: CutAt) {
        let mut state = self.power.lock();
        let at = match at {
            CutAt::Change(change) => CutAt::Change(state.moment + change),
            CutAt::WriteTo(..) => at,
        };
        state.cut_at = Some(at);
    }

    /// Whether the power has gone by itself; if not, it does not any more.
    pub fn was_cut(&self) -> bool {
        let mut state = self.power.lock();
        state.cut_at = None;
        !state.on
    }

    /// Whether the power has gone.
    pub fn is_off(&self) -> bool {
        !self.power.lock().on
    }

    /// Waits until the power has gone, at most so long; whether it has.
    pub fn wait_for_cut(&self, at_most: Duration) -> bool {
        let state = self.power.lock();
        let waited = self
            .power
            .went
            .wait_timeout_while(state, at_most, |state| state.on);
        !waited.expect("nobody panics with it").0.on
    }

    /// The card in a board with power again; nobody may use it now. Nothing is cached anywhere.
    pub fn restart(&mut self, remains: Remains) -> Result<(), String> {
        self.take_out();
        let mut state = self.power.lock();
        let State {
            contents,
            moment,
            rng,
            ..
        } = &mut *state;
        contents.after_cut(remains, *moment, rng);
        state.on = true;
        state.cut_at = None;
        drop(state);
        self.put_in()
    }

    fn put_in(&mut self) -> Result<(), String> {
        let file_system = FileSystem(Arc::clone(&self.power));
        let session = fuser::spawn_mount(file_system, &self.mount_point, &fuser::Config::default());
        self.session = Some(session.map_err(|error| format!("no FUSE here: {error}"))?);
        Ok(())
    }

    fn take_out(&mut self) {
        if let Some(session) = self.session.take() {
            // What the kernel still wants to write is too late.
            self.power.lock().on = false;
            match session.umount_and_join() {
                Ok(()) => {}
                // What the session reads last, if the kernel is quicker than it.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => panic!("nobody has a file open any more: {error}"),
            }
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.power.lock().on = false;
        // Unmounts, also after a panic of the test.
        drop(self.session.take());
        let _ = std::fs::remove_dir(&self.mount_point);
    }
}

impl Power {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    fn go(&self, state: &mut State) {
        state.on = false;
        self.went.notify_all();
    }
}
