//! The look through the whole database once a day, beside everything else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, error, warn};
use rustix::process::setpriority_process;
use smol::channel::Sender;

use super::aside::aside;
use super::reactor::Timer;
use crate::storage::Health;
use crate::storage::check::QuickCheck;

/// After a start, which is when people look, and when the disk is busy with other things.
const FIRST_AFTER: Duration = Duration::from_secs(10 * 60);
/// Longest that a check may take: a gigabyte at 2 MB/s. While it reads, the write-ahead log may grow.
const TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// The least pressing that a thread can be (setpriority(2)).
const NICE: i32 = 19;

/// What is looked at, and who is told.
#[derive(Debug)]
pub struct DatabaseCheck {
    /// Where the database is.
    pub directory: PathBuf,
    /// From one check to the next.
    pub interval: Duration,
    /// Notes the damage.
    pub health: Arc<Health>,
    /// Told of it.
    pub damage: Sender<()>,
}

impl DatabaseCheck {
    /// Looks again and again. Ends only when damage was found.
    pub async fn run(self) {
        Timer::after(FIRST_AFTER.min(self.interval)).await;
        while !self.finds_damage().await {
            Timer::after(self.interval).await;
        }
        let _ = self.damage.try_send(());
    }

    async fn finds_damage(&self) -> bool {
        let check = match QuickCheck::open(&self.directory) {
            Ok(check) => check,
            Err(error) => {
                warn!("database_check_failed reason=\"{error}\"");
                return false;
            }
        };
        // Ends the thread's work also when this future is dropped.
        let _interrupter = check.interrupter();
        let checking = aside("check", move || {
            // On Linux this is about the one thread. Without it the check is as good.
            let _ = setpriority_process(None, NICE);
            check.run()
        });
        let late = async {
            Timer::after(TIME_MAX).await;
            Err(std::io::ErrorKind::TimedOut.into())
        };
        match smol::future::or(checking, late).await {
            Ok(Ok(None)) => debug!("database_checked"),
            Ok(Ok(Some(fault))) => {
                self.health.note_damage();
                error!("database_damaged fault=\"{fault}\"");
                return true;
            }
            Ok(Err(error)) => warn!("database_check_failed reason=\"{error}\""),
            Err(error) => warn!("database_check_ended reason=\"{error}\""),
        }
        false
    }
}
