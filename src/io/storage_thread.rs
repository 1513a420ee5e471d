//! The one thread that commits: it takes what has gathered, commits it once, and hands back the
//! replies.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use log::{error, info};
use smol::channel::{Receiver, Sender, bounded, unbounded};

use crate::model::store::{StoreOp, StoreReply};
use crate::model::time::ServiceTime;
use crate::storage::{Health, Store};

/// Most operations of one commit. More would let the first of them wait for the last.
const BATCH_MAX: usize = 1024;

/// A running storage thread.
///
/// Its queues are unbounded because the engine bounds what it asks for.
#[derive(Debug)]
pub struct StorageThread {
    /// Operations, in their order.
    pub operations: Sender<Vec<StoreOp>>,
    /// Their replies, in the same order.
    pub replies: Receiver<Vec<StoreReply>>,
    /// What is wrong with the disk or the database.
    pub health: Arc<Health>,
    /// Has something in it once the database has turned out to be damaged, and takes the same word
    /// from elsewhere.
    pub damage: (Sender<()>, Receiver<()>),
    /// The thread's account of its input and output, where the kernel keeps one.
    pub io_account: Option<PathBuf>,
    handle: JoinHandle<()>,
}

impl StorageThread {
    /// Starts the thread; the database is its own from here on.
    ///
    /// # Errors
    ///
    /// When the system starts no more threads.
    pub fn start(store: Store) -> io::Result<Self> {
        let (operations, incoming) = unbounded();
        let (outgoing, replies) = unbounded();
        let (health, damage) = (store.health(), bounded(1));
        let teller = Teller {
            health: Arc::clone(&health),
            damage: damage.0.clone(),
        };
        let (account_sender, account) = std::sync::mpsc::sync_channel(1);
        let handle = std::thread::Builder::new()
            .name("storage".to_owned())
            .spawn(move || {
                let _ = account_sender.send(io_account());
                run(store, &teller, &incoming, &outgoing);
            })?;
        Ok(Self {
            operations,
            replies,
            health,
            damage,
            io_account: account.recv().unwrap_or_default(),
            handle,
        })
    }

    /// Closes the database after the last operation, and waits for that.
    pub fn stop(self) {
        let Self {
            operations,
            replies,
            handle,
            ..
        } = self;
        operations.close();
        drop(replies);
        if handle.join().is_err() {
            error!("storage thread died");
        }
    }
}

struct Teller {
    health: Arc<Health>,
    damage: Sender<()>,
}

impl Teller {
    fn tell(&self) {
        if self.health.is_damaged() {
            // Full: it has been told.
            let _ = self.damage.try_send(());
        }
    }
}

fn run(
    mut store: Store,
    teller: &Teller,
    incoming: &Receiver<Vec<StoreOp>>,
    outgoing: &Sender<Vec<StoreReply>>,
) {
    while let Ok(mut batch) = incoming.recv_blocking() {
        while batch.len() < BATCH_MAX {
            let Ok(mut more) = incoming.try_recv() else {
                break;
            };
            batch.append(&mut more);
        }
        let replies = store.apply(batch);
        teller.tell();
        if outgoing.send_blocking(replies).is_err() {
            break;
        }
    }
    match store.close(ServiceTime::default()) {
        Ok(()) => info!("database closed"),
        Err(fault) => error!("database not closed cleanly: {fault}"),
    }
}

/// Linux keeps an account for each thread; `/proc/thread-self` is a link to it.
fn io_account() -> Option<PathBuf> {
    let this_thread = std::fs::read_link("/proc/thread-self").ok()?;
    Some(PathBuf::from("/proc").join(this_thread).join("io"))
}
