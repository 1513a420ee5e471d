//! The open database, and how a batch of operations becomes one commit.
//!
//! Owns the transaction and what is kept in memory beside it; the queries are the other modules'.

use std::sync::Arc;

use log::{debug, error, info};
use rusqlite::Connection;

use super::enqueue::Terms;
use super::health::Health;
use super::operations::{is_write, takes_room};
use super::reserve::Reserve;
use super::subscriptions::Registration;
use super::{fault, messages, sleepers, subscriptions, upstream, usage};
use crate::model::store::{Deletion, StoreError, StoreOp, StoreReply};
use crate::model::time::ServiceTime;
use crate::model::version::Version;

/// Pages that the largest message takes, with its share of the indexes.
const PAGES_OF_MESSAGE: usize = 4;
/// Free pages that are left for deleting, which writes to some before it frees others.
const FREE_PAGES_MIN: usize = 32;

/// The open database. One thread owns it.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    /// What each recently used queue holds; agrees with the open transaction at all times.
    pub(super) usage: usage::Cache,
    /// A database under the same key may have been lost before this one was made.
    pub(super) lost_before: bool,
    pub(super) page_bytes: u64,
    pub(super) reserve: Reserve,
    health: Arc<Health>,
    /// Why the last batch failed, so that a full disk is logged once and not at every batch.
    failing: Option<StoreError>,
    /// A damaged row has been logged; its user agent's every return would log it again.
    damage_logged: bool,
}

impl Store {
    pub(super) fn new(
        connection: Connection,
        page_bytes: u64,
        lost_before: bool,
        reserve: Reserve,
    ) -> Self {
        Self {
            connection,
            usage: usage::Cache::default(),
            lost_before,
            page_bytes,
            reserve,
            health: Arc::default(),
            failing: None,
            damage_logged: false,
        }
    }

    /// What is wrong with the disk or the database, to be looked at from elsewhere.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Carries out `ops` in their order and commits once; one reply for each, in the same order.
    ///
    /// If anything that writes fails, or the commit does, all of the batch is taken back: every
    /// operation that wanted to write gets [`StoreReply::Failed`], and those that only read are
    /// answered from what is still there. The next batch may succeed again.
    ///
    /// On a full disk only what takes room is refused, as long as there is room for the rest of it.
    ///
    /// After a commit that failed at the very flush, a power cut may bring back what was reported as
    /// failed; at worst a push message that was answered with 503 is then delivered.
    pub fn apply(&mut self, ops: Vec<StoreOp>) -> Vec<StoreReply> {
        if !ops.iter().any(is_write) {
            // No transaction: nothing to flush.
            return ops.iter().map(|op| self.answer(op)).collect();
        }
        match self.commit(&ops) {
            Ok(Committed::All(replies)) => {
                self.log_change(None, None);
                replies
            }
            Ok(Committed::WhatTakesNoRoom(replies)) => replies,
            Err(error) => {
                let kind = fault::store_error(&error);
                self.log_change(Some(kind), Some(&error));
                let reply = |op| {
                    if is_write(op) {
                        StoreReply::Failed(kind)
                    } else {
                        self.answer(op)
                    }
                };
                ops.iter().map(reply).collect()
            }
        }
    }

    /// Writes down the time, empties the write-ahead log into the database and closes it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the disk did not take it. What was committed is safe all the same: the
    /// next start reads it from the write-ahead log.
    pub fn close(self, now: ServiceTime) -> Result<(), StoreError> {
        self.save_service_time(now)
            .and_then(|()| {
                // Its row says whether a reader held it up, which does no harm.
                empty_log(&self.connection)
            })
            .and_then(|()| self.connection.close().map_err(|(_, error)| error))
            .map_err(|error| fault::store_error(&error))
    }

    /// All of `ops` in one transaction, or what takes no room of them, or none.
    fn commit(&mut self, ops: &[StoreOp]) -> rusqlite::Result<Committed> {
        let was_full = self.health.is_disk_full() && !self.reserve.has_room_beside();
        if was_full && self.reserve.is_spent() && !self.fits_into_free_pages(ops)? {
            // What the disk has left is what deleting needs.
            return self.commit_what_takes_no_room(ops);
        }
        if self.reserve.is_spent() && ops.iter().any(|op| matches!(op, StoreOp::Expire { .. })) {
            // Once a minute: another program may have made room again, or we with a smaller log.
            self.reserve.take();
        }
        let mut replies = self.try_commit(ops, Doing::All);
        if replies.as_ref().is_err_and(fault::is_disk_full) {
            reuse_log(&self.connection);
            replies = self.try_commit(ops, Doing::All);
        }
        match replies {
            // That nothing was refused tells nothing about the room there is.
            Ok(replies) if was_full && !ops.iter().any(takes_room) => {
                Ok(Committed::WhatTakesNoRoom(replies))
            }
            Ok(replies) => {
                self.health
                    .set_disk_full(was_full && self.reserve.is_spent());
                Ok(Committed::All(replies))
            }
            Err(error) if fault::is_disk_full(&error) => {
                self.health.set_disk_full(true);
                self.log_change(Some(StoreError::DiskFull), Some(&error));
                self.commit_what_takes_no_room(ops)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the pages that the database has free are enough for `ops`. It does not grow then, and
    /// its log can be used again and again.
    fn fits_into_free_pages(&self, ops: &[StoreOp]) -> rusqlite::Result<bool> {
        let taking = ops.iter().filter(|op| takes_room(op)).count();
        let needed = taking
            .saturating_mul(PAGES_OF_MESSAGE)
            .saturating_add(FREE_PAGES_MIN);
        let free: i64 = self
            .connection
            .prepare_cached("PRAGMA freelist_count")?
            .query_row((), |row| row.get(0))?;
        Ok(usize::try_from(free).is_ok_and(|free| free >= needed))
    }

    /// On a full disk. An operation that is refused is as if it had not been asked for.
    fn commit_what_takes_no_room(&mut self, ops: &[StoreOp]) -> rusqlite::Result<Committed> {
        let mut replies = self.try_commit(ops, Doing::WhatTakesNoRoom);
        if replies.as_ref().is_err_and(fault::is_disk_full) {
            if self.reserve.release() {
                info!("reserve_released");
            }
            reuse_log(&self.connection);
            replies = self.try_commit(ops, Doing::WhatTakesNoRoom);
        }
        if replies.is_ok() && self.reserve.is_spent() && self.reserve.fits_with_the_log() {
            let _ = empty_log(&self.connection);
            self.reserve.take();
        }
        replies.map(Committed::WhatTakesNoRoom)
    }

    /// `ops` in one transaction, or none.
    fn try_commit(&mut self, ops: &[StoreOp], doing: Doing) -> rusqlite::Result<Vec<StoreReply>> {
        let replies = self
            .execute("BEGIN IMMEDIATE")
            .and_then(|()| self.perform_all(ops, doing))
            .and_then(|replies| self.execute("COMMIT").map(|()| replies));
        if let Err(error) = &replies {
            self.watch_for_damage(error);
            self.roll_back();
        }
        replies
    }

    /// The replies, or the error because of which all must be rolled back.
    fn perform_all(&mut self, ops: &[StoreOp], doing: Doing) -> rusqlite::Result<Vec<StoreReply>> {
        let mut replies = Vec::with_capacity(ops.len());
        for op in ops {
            if doing == Doing::WhatTakesNoRoom && takes_room(op) {
                replies.push(StoreReply::Failed(StoreError::DiskFull));
                continue;
            }
            match self.perform(op) {
                Ok(reply) => replies.push(reply),
                // SQLite may end the transaction by itself. What came after would be committed alone.
                Err(error) if is_write(op) || self.connection.is_autocommit() => return Err(error),
                Err(error) => replies.push(self.failed(&error)),
            }
        }
        Ok(replies)
    }

    fn failed(&self, error: &rusqlite::Error) -> StoreReply {
        self.watch_for_damage(error);
        StoreReply::Failed(fault::store_error(error))
    }

    fn watch_for_damage(&self, error: &rusqlite::Error) {
        if fault::is_damage(error) && self.health.note_damage() {
            error!("database_damaged cause=\"{error}\"");
        }
    }

    fn roll_back(&mut self) {
        self.usage.clear();
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            // Nothing is lost: each further batch fails at its BEGIN until a rollback succeeds.
            error!("rollback_failed error=\"{error}\"");
        }
    }

    /// An operation that only reads, outside of a transaction.
    fn answer(&mut self, op: &StoreOp) -> StoreReply {
        self.perform(op).unwrap_or_else(|error| self.failed(&error))
    }

    fn perform(&mut self, op: &StoreOp) -> rusqlite::Result<StoreReply> {
        let connection = &self.connection;
        Ok(match *op {
            StoreOp::Load { uaid } => StoreReply::Loaded(subscriptions::load(connection, uaid)?),
            StoreOp::Subscribe {
                uaid,
                channel,
                ref spelling,
                dialect,
                subscriptions_max,
            } => {
                let registration = Registration {
                    channel,
                    spelling: spelling.as_deref(),
                    dialect,
                };
                let (new, max) = (registration, subscriptions_max);
                StoreReply::Subscribed(subscriptions::subscribe(connection, uaid, new, max)?)
            }
            StoreOp::Find {
                uaid,
                channel,
                lost,
            } => StoreReply::Subscription(subscriptions::find(connection, uaid, channel, lost)?),
            StoreOp::Enqueue {
                uaid,
                ref message,
                lost,
                version_clock,
                noted_from,
                quota,
                received,
            } => {
                let terms = Terms {
                    lost,
                    version_clock,
                    noted_from,
                    quota,
                    received,
                };
                StoreReply::Enqueued(self.enqueue(uaid, message, terms)?)
            }
            StoreOp::Fetch {
                uaid,
                after,
                urgency_min,
                now,
                messages_max,
                bytes_max,
            } => {
                let wanted = messages::Wanted { after, urgency_min };
                let page = messages::page(connection, uaid, wanted, now, messages_max, bytes_max)?;
                self.page_reply(page)
            }
            StoreOp::Expire { now, messages_max } => self.expire(now, messages_max)?,
            StoreOp::Sleepers => StoreReply::Sleepers(sleepers::all(connection)?),
            StoreOp::Upstream(ref op) => upstream::perform(connection, op)?,
            StoreOp::Unsubscribe { .. }
            | StoreOp::Forget { .. }
            | StoreOp::Disown { .. }
            | StoreOp::Delete(_)
            | StoreOp::SaveTime { .. }
            | StoreOp::SaveVersions { .. }
            | StoreOp::Sleep { .. }
            | StoreOp::Woken { .. } => {
                self.just_do(op)?;
                StoreReply::Done
            }
        })
    }

    /// What is answered by [`StoreReply::Done`].
    fn just_do(&mut self, op: &StoreOp) -> rusqlite::Result<()> {
        let connection = &self.connection;
        match *op {
            StoreOp::Unsubscribe { uaid, channel } => {
                subscriptions::unsubscribe(connection, uaid, channel, self.lost_before)?;
                self.usage.forget(uaid);
            }
            StoreOp::Forget { uaid } => {
                subscriptions::forget(connection, uaid, self.lost_before)?;
                sleepers::remove(connection, uaid)?;
                upstream::told(connection, uaid)?;
                self.usage.forget(uaid);
            }
            StoreOp::Disown { uaid, channel } => {
                subscriptions::disown(connection, uaid, channel)?;
                self.usage.forget(uaid);
            }
            StoreOp::Delete(ref deletions) => self.delete(deletions)?,
            StoreOp::SaveTime {
                service_time,
                version_clock,
            } => self.save_time(service_time, version_clock)?,
            StoreOp::SaveVersions { uaid, ref versions } => {
                for (channel, version) in versions {
                    subscriptions::set_last_version(connection, uaid, *channel, *version)?;
                }
            }
            StoreOp::Sleep { uaid, ref wakeup } => sleepers::add(connection, uaid, wakeup)?,
            StoreOp::Woken { uaid } => sleepers::remove(connection, uaid)?,
            StoreOp::Load { .. }
            | StoreOp::Subscribe { .. }
            | StoreOp::Find { .. }
            | StoreOp::Enqueue { .. }
            | StoreOp::Fetch { .. }
            | StoreOp::Expire { .. }
            | StoreOp::Upstream(_)
            | StoreOp::Sleepers => {}
        }
        Ok(())
    }

    fn page_reply(&mut self, page: messages::Page) -> StoreReply {
        if page.damaged > 0 && !self.damage_logged {
            self.damage_logged = true;
            let rows = page.damaged;
            error!("stored_messages_damaged rows={rows} advice=\"restore a backup\"");
        }
        StoreReply::Page {
            messages: page.messages,
            more: page.more,
        }
    }

    fn delete(&mut self, deletions: &[Deletion]) -> rusqlite::Result<()> {
        for deletion in deletions {
            if let Some(owner) = messages::delete(&self.connection, *deletion)? {
                self.usage.forget(owner);
            }
        }
        Ok(())
    }

    fn expire(&mut self, now: ServiceTime, messages_max: u32) -> rusqlite::Result<StoreReply> {
        let owners = messages::expire(&self.connection, now, messages_max)?;
        for owner in &owners {
            self.usage.forget(*owner);
        }
        Ok(StoreReply::Expired(
            u32::try_from(owners.len()).unwrap_or(messages_max),
        ))
    }

    /// Writes nothing where nothing is kept that could expire: the next message brings the time along
    /// (see `service_time` of [`Opened`](crate::model::store::Opened)), and an idle gateway leaves flash
    /// alone.
    fn save_time(&self, now: ServiceTime, version_clock: Version) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "UPDATE meta
                 SET service_secs = max(service_secs, ?1), version_clock = ?2
                 WHERE version_clock <> ?2
                    OR service_secs < ?1 AND EXISTS (SELECT 1 FROM message)",
            )?
            .execute((messages::signed(now), version_clock.as_i64()))?;
        Ok(())
    }

    fn save_service_time(&self, now: ServiceTime) -> rusqlite::Result<()> {
        self.connection.execute(
            "UPDATE meta SET service_secs = ?1 WHERE service_secs < ?1",
            [messages::signed(now)],
        )?;
        Ok(())
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute(())?;
        Ok(())
    }

    fn log_change(&mut self, failing: Option<StoreError>, cause: Option<&rusqlite::Error>) {
        if self.failing == failing {
            return;
        }
        self.failing = failing;
        match (failing, cause) {
            (Some(kind), Some(cause)) => {
                error!("storage_failed reason=\"{kind}\" cause=\"{cause}\"")
            }
            _ => info!("storage_works_again"),
        }
    }
}

/// On a full disk: copies the write-ahead log into the database, so that it is written from its
/// beginning again and the next commit needs no space that the file system would have to give.
///
/// Meant for a database with free pages in it. One that would have to grow for this is left as it is.
pub(super) fn reuse_log(connection: &Connection) {
    let done = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()));
    if let Err(error) = done {
        debug!("checkpoint_failed error=\"{error}\"");
    }
}

/// Copies the write-ahead log into the database and gives its room back to the file system.
pub(super) fn empty_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
}

/// What of a batch is to be carried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Doing {
    All,
    WhatTakesNoRoom,
}

/// What of a batch was committed: its replies.
#[derive(Debug)]
enum Committed {
    All(Vec<StoreReply>),
    WhatTakesNoRoom(Vec<StoreReply>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::store::EnqueueOutcome;
    use crate::storage::testing::{
        self, Folder, delete, enqueue, fetch, find, ids, load, message, one, subscribe, unsubscribe,
    };

    /// The disk is full from here on, or has room again.
    fn set_room(store: &Store, has_room: bool) {
        let pages = if has_room { 1 << 20 } else { 1 };
        store
            .connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .unwrap();
    }

    fn fill(first: i64) -> impl Iterator<Item = StoreOp> {
        (first..first + 100).map(|id| enqueue(1, message(id, 1)))
    }

    #[test]
    fn full_disk_refuses_what_takes_room_does_the_rest_and_answers_reads() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![subscribe(1, 1), enqueue(1, message(1, 1))]);
        set_room(&store, false);
        let mut ops = vec![find(1, 2, false), subscribe(1, 2), find(1, 2, false)];
        ops.extend(fill(10));
        ops.extend([
            unsubscribe(1, 1),
            delete(1, None),
            find(1, 1, false),
            fetch(1),
        ]);
        let reads = [0, 2, ops.len() - 2, ops.len() - 1];
        let replies = store.apply(ops.clone());
        assert_eq!(replies.len(), ops.len());
        for (place, reply) in replies.iter().enumerate() {
            let failed = *reply == StoreReply::Failed(StoreError::DiskFull);
            assert_eq!(failed, takes_room(&ops[place]), "{place}");
        }
        assert_eq!(replies[2], StoreReply::Subscription(false));
        assert_eq!(replies[reads[2]], StoreReply::Subscription(false));
        assert!(ids(&mut store, 1).is_empty());
        assert_eq!(store.health().fault(), Some(StoreError::DiskFull));
        // That there was nothing to refuse does not make room.
        store.apply(vec![delete(1, None)]);
        assert_eq!(store.health().fault(), Some(StoreError::DiskFull));
    }

    #[test]
    fn storage_works_again_without_reopening_when_there_is_room() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![subscribe(1, 1)]);
        set_room(&store, false);
        let failed = store.apply(fill(10).collect());
        assert_eq!(failed, vec![StoreReply::Failed(StoreError::DiskFull); 100]);
        set_room(&store, true);
        let kept = store.apply(fill(10).collect());
        assert_eq!(kept, vec![StoreReply::Enqueued(EnqueueOutcome::Kept); 100]);
        assert_eq!(store.health().fault(), None);
        assert_eq!(ids(&mut store, 1).len(), 100);
    }

    #[test]
    fn taken_back_messages_do_not_count_against_the_quota() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![subscribe(1, 1)]);
        set_room(&store, false);
        store.apply(fill(10).collect());
        set_room(&store, true);
        let quota = crate::model::store::Quota {
            messages_max: 1,
            ..testing::NO_QUOTA
        };
        assert_eq!(
            one(
                &mut store,
                testing::enqueue_within(1, message(10, 1), quota)
            ),
            StoreReply::Enqueued(EnqueueOutcome::Kept)
        );
    }

    #[test]
    fn id_of_another_message_is_refused_and_overwrites_nothing() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![
            subscribe(1, 1),
            subscribe(2, 1),
            enqueue(1, message(10, 1)),
        ]);
        assert_eq!(
            one(&mut store, enqueue(2, message(10, 1))),
            StoreReply::Failed(StoreError::Io)
        );
        assert_eq!(ids(&mut store, 1), [10]);
        assert!(ids(&mut store, 2).is_empty());
    }

    #[test]
    fn batch_that_only_reads_needs_no_commit() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![subscribe(1, 1)]);
        // Another process that writes holds up a commit, but not a read.
        let writer = Connection::open(folder.path().join(super::super::FILE_NAME));
        let writer = writer.unwrap();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(
            store.apply(vec![load(1), find(1, 1, false)]),
            [
                StoreReply::Loaded(vec![testing::plain_subscription(1)]),
                StoreReply::Subscription(true)
            ]
        );
        assert_eq!(
            store.apply(vec![subscribe(1, 2), find(1, 1, false)]),
            [
                StoreReply::Failed(StoreError::Io),
                StoreReply::Subscription(true)
            ]
        );
    }

    #[test]
    fn each_operation_sees_those_before_it() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        let replies = store.apply(vec![
            find(1, 1, false),
            subscribe(1, 1),
            find(1, 1, false),
            enqueue(1, message(10, 1)),
            delete(10, Some(1)),
            fetch(1),
            testing::save_time(5),
        ]);
        assert_eq!(
            replies,
            [
                StoreReply::Subscription(false),
                StoreReply::Subscribed(true),
                StoreReply::Subscription(true),
                StoreReply::Enqueued(EnqueueOutcome::Kept),
                StoreReply::Done,
                StoreReply::Page {
                    messages: vec![],
                    more: false
                },
                StoreReply::Done,
            ]
        );
        assert!(store.apply(vec![]).is_empty());
    }

    #[test]
    fn failing_read_does_not_fail_the_writes_beside_it() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store
            .connection
            .execute_batch(
                "PRAGMA ignore_check_constraints = ON;
                 INSERT INTO subscription (uaid, channel, origin)
                     VALUES (x'09090909090909090909090909090909', x'00', 0);",
            )
            .unwrap();
        assert_eq!(
            store.apply(vec![subscribe(1, 1), load(9)]),
            [
                StoreReply::Subscribed(true),
                StoreReply::Failed(StoreError::Corrupt)
            ]
        );
        assert!(store.apply(vec![find(1, 1, false)]) == [StoreReply::Subscription(true)]);
    }
}
