//! Which subscriptions there are, and which ended ones must not come back.
//!
//! Messages are dropped here only together with their subscription.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension};

use super::{messages, upstream};
use crate::model::dialect::Dialect;
use crate::model::ids::{ChannelId, Uaid};
use crate::model::store::Subscription;
use crate::model::version::Version;

/// How a subscription came to be here; what may still name it follows from that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Origin {
    /// Its user agent registered it with this database. No endpoint of a lost one is known.
    Registered,
    /// Taken back in from a lost database, and not yet confirmed by its user agent.
    Restored,
    /// Its user agent registered it here, and an endpoint of a lost database names it too.
    Both,
}

/// Most tombstones of one user agent: as many as it may have subscriptions by default, so that each
/// subscription that it can have lost has room.
///
/// Beyond it no more are written and those that are there stay. Whoever gets there has ended
/// subscriptions that it never had, and the worst that follows is its own: an endpoint of the lost
/// database may bring a subscription back, until the user agent disowns it again.
const TOMBSTONES_MAX: u32 = 1000;

/// As much of a subscription as decides what becomes of a push message to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) origin: Origin,
    pub(super) dialect: Dialect,
    pub(super) last_version: Option<Version>,
}

/// The subscriptions of a user agent.
pub(super) fn load(connection: &Connection, uaid: Uaid) -> rusqlite::Result<Vec<Subscription>> {
    connection
        .prepare_cached(
            "SELECT channel, spelling, last_version, origin FROM subscription WHERE uaid = ?1",
        )?
        .query_map([uaid.as_bytes()], |row| {
            let origin: Origin = row.get(3)?;
            Ok(Subscription {
                channel: ChannelId::from_bytes(row.get(0)?),
                spelling: row.get(1)?,
                last_version: messages::version(row, 2)?,
                is_restored: origin == Origin::Restored,
            })
        })?
        .collect()
}

/// What is known of a subscription; `None` if there is no such subscription.
pub(super) fn known(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
) -> rusqlite::Result<Option<Known>> {
    connection
        .prepare_cached(
            "SELECT origin, dialect, last_version FROM subscription WHERE uaid = ?1 AND channel = ?2",
        )?
        .query_row((uaid.as_bytes(), channel.as_bytes()), |row| {
            let Spoken(dialect) = row.get(1)?;
            Ok(Known {
                origin: row.get(0)?,
                dialect,
                last_version: messages::version(row, 2)?,
            })
        })
        .optional()
}

fn origin(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
) -> rusqlite::Result<Option<Origin>> {
    Ok(known(connection, uaid, channel)?.map(|known| known.origin))
}

/// Makes the subscription or gives it another origin.
pub(super) fn set_origin(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
    origin: Origin,
    dialect: Dialect,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO subscription (uaid, channel, origin, dialect) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (uaid, channel) DO UPDATE SET origin = excluded.origin",
        )?
        .execute((uaid.as_bytes(), channel.as_bytes(), origin, Spoken(dialect)))?;
    Ok(())
}

/// Writes down that a channel has had a version, unless it has had a higher one.
pub(super) fn set_last_version(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
    version: Version,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE subscription SET last_version = ?3
             WHERE uaid = ?1 AND channel = ?2 AND ifnull(last_version < ?3, 1)",
        )?
        .execute((uaid.as_bytes(), channel.as_bytes(), version.as_i64()))?;
    Ok(())
}

/// How a user agent registers a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registration<'a> {
    pub(super) channel: ChannelId,
    pub(super) spelling: Option<&'a str>,
    pub(super) dialect: Dialect,
}

/// Makes a subscription; `false` if that would be one too many.
pub(super) fn subscribe(
    connection: &Connection,
    uaid: Uaid,
    registration: Registration<'_>,
    subscriptions_max: u32,
) -> rusqlite::Result<bool> {
    let made = make(connection, uaid, registration, subscriptions_max)?;
    if made {
        let Registration {
            channel,
            spelling,
            dialect,
        } = registration;
        // Nothing is written where nothing changes: user agents register again at each start.
        connection
            .prepare_cached(
                "UPDATE subscription SET dialect = ?3, spelling = ?4
                 WHERE uaid = ?1 AND channel = ?2 AND (dialect <> ?3 OR spelling IS NOT ?4)",
            )?
            .execute((
                uaid.as_bytes(),
                channel.as_bytes(),
                Spoken(dialect),
                spelling,
            ))?;
    }
    Ok(made)
}

fn make(
    connection: &Connection,
    uaid: Uaid,
    registration: Registration<'_>,
    subscriptions_max: u32,
) -> rusqlite::Result<bool> {
    let Registration {
        channel, dialect, ..
    } = registration;
    match origin(connection, uaid, channel)? {
        Some(Origin::Registered | Origin::Both) => return Ok(true),
        // Its user agent knows it after all; the endpoint of the lost database is still out there.
        Some(Origin::Restored) => {
            set_origin(connection, uaid, channel, Origin::Both, dialect)?;
            return Ok(true);
        }
        None => {}
    }
    if count(connection, "subscription", uaid)? >= subscriptions_max {
        return Ok(false);
    }
    let had_tombstone = connection
        .prepare_cached("DELETE FROM tombstone WHERE uaid = ?1 AND channel = ?2")?
        .execute((uaid.as_bytes(), channel.as_bytes()))?
        > 0;
    // Without remembering it, ending the subscription again would leave no tombstone.
    let origin = if had_tombstone {
        Origin::Both
    } else {
        Origin::Registered
    };
    set_origin(connection, uaid, channel, origin, dialect)?;
    Ok(true)
}

/// Ends all subscriptions of a user agent.
pub(super) fn forget(
    connection: &Connection,
    uaid: Uaid,
    lost_before: bool,
) -> rusqlite::Result<()> {
    for subscription in load(connection, uaid)? {
        unsubscribe(connection, uaid, subscription.channel, lost_before)?;
    }
    Ok(())
}

/// Ends a subscription, with a tombstone if an endpoint of a lost database may name it: one that was
/// never used here cannot be known, so where a database was lost every end leaves one.
pub(super) fn unsubscribe(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
    lost_before: bool,
) -> rusqlite::Result<()> {
    let needs_tombstone = match origin(connection, uaid, channel)? {
        Some(Origin::Registered) | None => lost_before,
        Some(Origin::Restored | Origin::Both) => true,
    };
    end(connection, uaid, channel, needs_tombstone)
}

/// Ends a subscription that was taken back in and that its user agent does not know.
pub(super) fn disown(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
) -> rusqlite::Result<()> {
    if origin(connection, uaid, channel)? == Some(Origin::Restored) {
        end(connection, uaid, channel, true)?;
    }
    Ok(())
}

/// Whether a push message could be kept for a subscription; `lost` as in `StoreOp::Find`.
pub(super) fn find(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
    lost: bool,
) -> rusqlite::Result<bool> {
    Ok(origin(connection, uaid, channel)?.is_some()
        || (lost && may_return(connection, uaid, channel)?))
}

/// Whether a subscription that is not there may be taken back in: it was not ended.
pub(super) fn may_return(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
) -> rusqlite::Result<bool> {
    let has_tombstone = connection
        .prepare_cached("SELECT 1 FROM tombstone WHERE uaid = ?1 AND channel = ?2")?
        .exists((uaid.as_bytes(), channel.as_bytes()))?;
    Ok(!has_tombstone)
}

fn end(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
    needs_tombstone: bool,
) -> rusqlite::Result<()> {
    let names = (uaid.as_bytes(), channel.as_bytes());
    connection
        .prepare_cached("DELETE FROM subscription WHERE uaid = ?1 AND channel = ?2")?
        .execute(names)?;
    messages::delete_of_subscription(connection, uaid, channel)?;
    upstream::end(connection, uaid, channel)?;
    if needs_tombstone && count(connection, "tombstone", uaid)? < TOMBSTONES_MAX {
        connection
            .prepare_cached("INSERT OR IGNORE INTO tombstone (uaid, channel) VALUES (?1, ?2)")?
            .execute(names)?;
    }
    Ok(())
}

/// How many rows a table has for one user agent.
fn count(connection: &Connection, table: &'static str, uaid: Uaid) -> rusqlite::Result<u32> {
    connection
        .prepare_cached(&format!("SELECT count(*) FROM {table} WHERE uaid = ?1"))?
        .query_row([uaid.as_bytes()], |row| row.get(0))
}

impl ToSql for Origin {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(match self {
            Self::Registered => 0_u8,
            Self::Restored => 1,
            Self::Both => 2,
        }))
    }
}

/// A [`Dialect`] on the disk.
struct Spoken(Dialect);

impl ToSql for Spoken {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(match self.0 {
            Dialect::WebPush => 0_u8,
            Dialect::SimplePush => 1,
        }))
    }
}

impl FromSql for Spoken {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Self(Dialect::WebPush)),
            1 => Ok(Self(Dialect::SimplePush)),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

impl FromSql for Origin {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Self::Registered),
            1 => Ok(Self::Restored),
            2 => Ok(Self::Both),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::store::{EnqueueOutcome, StoreOp, StoreReply};
    use crate::storage::testing::{
        self, Folder, disown, enqueue, enqueue_lost, find, ids, load, message, one, subscribe,
        unsubscribe,
    };
    use crate::storage::{FreshDatabase, Settings, Store};

    fn found(store: &mut Store, lost: bool) -> bool {
        one(store, find(1, 1, lost)) == StoreReply::Subscription(true)
    }

    #[test]
    fn subscriptions_of_a_user_agent_are_its_own() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![subscribe(1, 1), subscribe(1, 2), subscribe(2, 3)]);
        let StoreReply::Loaded(mut loaded) = one(&mut store, load(1)) else {
            panic!("not loaded");
        };
        loaded.sort();
        let channels: Vec<_> = loaded.iter().map(|known| known.channel).collect();
        assert_eq!(channels, [testing::channel(1), testing::channel(2)]);
        assert_eq!(one(&mut store, load(9)), StoreReply::Loaded(vec![]));
    }

    #[test]
    fn subscribing_again_changes_nothing_also_at_the_limit() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        let limited = |channel| StoreOp::Subscribe {
            uaid: testing::uaid(1),
            channel: testing::channel(channel),
            spelling: None,
            dialect: Dialect::WebPush,
            subscriptions_max: 2,
        };
        let replies = store.apply(vec![limited(1), limited(2), limited(3), limited(1)]);
        assert_eq!(
            replies,
            [true, true, false, true].map(StoreReply::Subscribed)
        );
        assert_eq!(
            one(&mut store, find(1, 3, false)),
            StoreReply::Subscription(false)
        );
    }

    #[test]
    fn nothing_is_left_after_unsubscribe() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![
            subscribe(1, 1),
            subscribe(1, 2),
            enqueue(1, message(10, 1)),
            enqueue(1, message(11, 2)),
            unsubscribe(1, 1),
        ]);
        assert_eq!(ids(&mut store, 1), [11]);
        let again = one(&mut store, enqueue(1, message(12, 1)));
        assert_eq!(again, StoreReply::Enqueued(EnqueueOutcome::NoSubscription));
    }

    #[test]
    fn subscription_of_a_lost_database_ended_by_its_user_agent_does_not_come_back() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        assert!(found(&mut store, true));
        store.apply(vec![unsubscribe(1, 1)]);
        assert!(!found(&mut store, true));
        let reply = one(&mut store, enqueue_lost(1, message(10, 1)));
        assert_eq!(reply, StoreReply::Enqueued(EnqueueOutcome::NoSubscription));
    }

    #[test]
    fn restored_subscription_ended_by_its_user_agent_does_not_come_back() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![enqueue_lost(1, message(10, 1)), unsubscribe(1, 1)]);
        assert!(!found(&mut store, true));
        assert!(ids(&mut store, 1).is_empty());
    }

    #[test]
    fn unregistration_under_a_new_key_needs_no_tombstone() {
        let folder = Folder::new();
        let fresh = FreshDatabase {
            key_is_new: true,
            ..testing::FRESH
        };
        let settings = Settings::default();
        drop(Store::open(folder.path(), &settings, fresh).unwrap());
        // The second start finds the key and the database: still no earlier one.
        let (mut store, _) = folder.open();
        store.apply(vec![unsubscribe(1, 1)]);
        assert!(found(&mut store, true));
    }

    #[test]
    fn registered_subscription_leaves_a_tombstone_only_where_a_database_was_lost() {
        for (key_is_new, tombstones) in [(true, 0), (false, 1)] {
            let folder = Folder::new();
            let fresh = FreshDatabase {
                key_is_new,
                ..testing::FRESH
            };
            let settings = Settings::default();
            let (mut store, _) = Store::open(folder.path(), &settings, fresh).unwrap();
            store.apply(vec![subscribe(1, 1), unsubscribe(1, 1)]);
            assert_eq!(
                count(&store.connection, "tombstone", testing::uaid(1)),
                Ok(tombstones)
            );
        }
    }

    #[test]
    fn registering_again_takes_the_tombstone_away_until_the_next_unregistration() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![unsubscribe(1, 1), subscribe(1, 1)]);
        assert!(found(&mut store, true));
        store.apply(vec![unsubscribe(1, 1)]);
        assert!(!found(&mut store, true));
    }

    #[test]
    fn registered_subscription_that_a_lost_endpoint_used_does_not_come_back_after_its_end() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![
            subscribe(1, 1),
            enqueue_lost(1, message(10, 1)),
            unsubscribe(1, 1),
        ]);
        assert!(!found(&mut store, true));
    }

    #[test]
    fn disown_ends_a_restored_subscription_for_good() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![enqueue_lost(1, message(10, 1)), disown(1, 1)]);
        assert!(ids(&mut store, 1).is_empty());
        assert!(!found(&mut store, false));
        assert!(!found(&mut store, true));
    }

    #[test]
    fn disown_leaves_a_registered_subscription_alone() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![
            subscribe(1, 1),
            enqueue(1, message(10, 1)),
            disown(1, 1),
        ]);
        assert!(found(&mut store, false));
        assert_eq!(ids(&mut store, 1), [10]);
    }

    #[test]
    fn disown_leaves_a_restored_subscription_alone_once_it_was_registered_again() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![
            enqueue_lost(1, message(10, 1)),
            subscribe(1, 1),
            disown(1, 1),
        ]);
        assert!(found(&mut store, false));
    }

    #[test]
    fn disown_of_an_unknown_subscription_leaves_no_tombstone() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![disown(1, 1)]);
        assert!(found(&mut store, true));
    }

    #[test]
    fn find_tells_a_lost_subscription_from_an_unknown_one_and_changes_nothing() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        assert!(!found(&mut store, false));
        assert!(found(&mut store, true));
        assert!(!found(&mut store, false));
    }

    #[test]
    fn tombstones_of_a_user_agent_are_bounded_and_the_first_ones_stay() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        let unsubscribe = |number: u32| StoreOp::Unsubscribe {
            uaid: testing::uaid(1),
            channel: ChannelId::from_bytes(u128::from(number).to_be_bytes()),
        };
        let tombstones = |store: &Store| count(&store.connection, "tombstone", testing::uaid(1));
        store.apply((0..TOMBSTONES_MAX).map(unsubscribe).collect());
        assert_eq!(tombstones(&store), Ok(TOMBSTONES_MAX));
        store.apply(vec![unsubscribe(TOMBSTONES_MAX)]);
        assert_eq!(tombstones(&store), Ok(TOMBSTONES_MAX));
        let lost = |number: u32| StoreOp::Find {
            uaid: testing::uaid(1),
            channel: ChannelId::from_bytes(u128::from(number).to_be_bytes()),
            lost: true,
        };
        assert_eq!(
            store.apply(vec![lost(0), lost(TOMBSTONES_MAX)]),
            [false, true].map(StoreReply::Subscription)
        );
    }
}
