//! What is kept of the links to the main service: names, borrowed subscriptions, and messages that
//! may come again.

use rusqlite::{Connection, Row};

use super::subscriptions::{self, Registration};
use crate::model::ids::{ChannelId, Uaid};
use crate::model::store::{StoreReply, UpstreamOp};
use crate::model::upstream::{Borrowed, Kept, Name, Owner, Received};

/// Carries out one operation.
pub(super) fn perform(connection: &Connection, op: &UpstreamOp) -> rusqlite::Result<StoreReply> {
    match op {
        UpstreamOp::Load => return Ok(StoreReply::Upstream(Box::new(load(connection)?))),
        UpstreamOp::Borrow {
            name,
            borrowed,
            spelling,
            dialect,
            subscriptions_max,
        } => {
            let registration = Registration {
                channel: borrowed.channel,
                spelling: spelling.as_deref(),
                dialect: *dialect,
            };
            let uaid = borrowed.uaid;
            let made =
                subscriptions::subscribe(connection, uaid, registration, *subscriptions_max)?;
            if made {
                set_name(connection, name)?;
                borrow(connection, borrowed)?;
            }
            return Ok(StoreReply::Subscribed(made));
        }
        UpstreamOp::Returned { owner, alias } => returned(connection, *owner, *alias)?,
        UpstreamOp::Lost { owner } => lose(connection, *owner)?,
        UpstreamOp::ToTell { uaid } => to_tell(connection, *uaid)?,
        UpstreamOp::Acked { owner, received } => {
            for received in received {
                receive(connection, *owner, *received)?;
            }
        }
        UpstreamOp::Settled { owner, received } => {
            for received in received {
                settle(connection, *owner, *received)?;
            }
        }
    }
    Ok(StoreReply::Done)
}

/// Whether anything is kept.
pub(super) fn is_anything_kept(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM upstream_name)
        OR EXISTS (SELECT 1 FROM upstream_borrowed)
        OR EXISTS (SELECT 1 FROM upstream_to_tell)";
    connection.query_row(sql, (), |row| row.get(0))
}

fn load(connection: &Connection) -> rusqlite::Result<Kept> {
    Ok(Kept {
        names: all(
            connection,
            "SELECT owner, name, service FROM upstream_name",
            |row| {
                Ok(Name {
                    owner: owner(row)?,
                    name: row.get(1)?,
                    service: row.get(2)?,
                })
            },
        )?,
        borrowed: all(
            connection,
            "SELECT owner, alias, uaid, channel, endpoint, key, ended FROM upstream_borrowed",
            borrowed,
        )?,
        received: all(
            connection,
            "SELECT owner, version FROM upstream_received",
            |row| Ok((owner(row)?, Received(row.get(1)?))),
        )?,
        to_tell: all(connection, "SELECT uaid FROM upstream_to_tell", |row| {
            Ok(Uaid::from_bytes(row.get(0)?))
        })?,
    })
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map((), read)?.collect()
}

fn owner(row: &Row<'_>) -> rusqlite::Result<Owner> {
    Ok(Owner(Uaid::from_bytes(row.get(0)?)))
}

fn borrowed(row: &Row<'_>) -> rusqlite::Result<Borrowed> {
    Ok(Borrowed {
        owner: owner(row)?,
        alias: ChannelId::from_bytes(row.get(1)?),
        uaid: Uaid::from_bytes(row.get(2)?),
        channel: ChannelId::from_bytes(row.get(3)?),
        endpoint: row.get(4)?,
        key: row.get(5)?,
        ended: row.get(6)?,
    })
}

/// Nothing is written where nothing changes: each new subscription says the name again.
fn set_name(connection: &Connection, name: &Name) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO upstream_name (owner, name, service) VALUES (?1, ?2, ?3)
             ON CONFLICT (owner) DO UPDATE SET name = excluded.name, service = excluded.service
             WHERE name <> excluded.name OR service <> excluded.service",
        )?
        .execute((name.owner.0.as_bytes(), &name.name, &name.service))?;
    Ok(())
}

fn borrow(connection: &Connection, borrowed: &Borrowed) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO upstream_borrowed
                (owner, alias, uaid, channel, endpoint, key, ended)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            borrowed.owner.0.as_bytes(),
            borrowed.alias.as_bytes(),
            borrowed.uaid.as_bytes(),
            borrowed.channel.as_bytes(),
            &borrowed.endpoint,
            &borrowed.key,
            borrowed.ended,
        ))?;
    Ok(())
}

/// A subscription has ended here, borrowed or not: what is there is to be ended as well.
pub(super) fn end(connection: &Connection, uaid: Uaid, channel: ChannelId) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE upstream_borrowed SET ended = 1 WHERE uaid = ?1 AND channel = ?2 AND ended = 0",
        )?
        .execute((uaid.as_bytes(), channel.as_bytes()))?;
    Ok(())
}

fn returned(connection: &Connection, owner: Owner, alias: ChannelId) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM upstream_borrowed WHERE owner = ?1 AND alias = ?2 AND ended = 1",
        )?
        .execute((owner.0.as_bytes(), alias.as_bytes()))?;
    Ok(())
}

fn lose(connection: &Connection, owner: Owner) -> rusqlite::Result<()> {
    for sql in [
        "INSERT OR IGNORE INTO upstream_to_tell (uaid)
            SELECT uaid FROM upstream_borrowed WHERE owner = ?1 AND ended = 0",
        "DELETE FROM upstream_borrowed WHERE owner = ?1",
        "DELETE FROM upstream_received WHERE owner = ?1",
        "DELETE FROM upstream_name WHERE owner = ?1",
    ] {
        connection
            .prepare_cached(sql)?
            .execute([owner.0.as_bytes()])?;
    }
    Ok(())
}

fn to_tell(connection: &Connection, uaid: Uaid) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO upstream_to_tell (uaid) VALUES (?1)")?
        .execute([uaid.as_bytes()])?;
    Ok(())
}

/// The user agent has been told to subscribe again, or has asked to be forgotten.
pub(super) fn told(connection: &Connection, uaid: Uaid) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM upstream_to_tell WHERE uaid = ?1")?
        .execute([uaid.as_bytes()])?;
    Ok(())
}

/// Remembers a message that was kept, or acked.
pub(super) fn receive(
    connection: &Connection,
    owner: Owner,
    received: Received,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO upstream_received (owner, version) VALUES (?1, ?2)")?
        .execute((owner.0.as_bytes(), received.0))?;
    Ok(())
}

fn settle(connection: &Connection, owner: Owner, received: Received) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM upstream_received WHERE owner = ?1 AND version = ?2")?
        .execute((owner.0.as_bytes(), received.0))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::dialect::Dialect;
    use crate::model::store::{EnqueueOutcome, StoreOp};
    use crate::storage::Store;
    use crate::storage::testing::{self, Folder, NO_QUOTA, message, one};

    const OWNER: Owner = Owner(Uaid::from_bytes([1; 16]));

    fn subscription(channel: u8) -> Borrowed {
        Borrowed {
            owner: OWNER,
            alias: testing::channel(channel),
            uaid: testing::uaid(1),
            channel: testing::channel(channel),
            endpoint: "https://push.example/1".into(),
            key: Some("BKey".into()),
            ended: false,
        }
    }

    fn name(name: &str) -> Name {
        Name {
            owner: OWNER,
            name: name.into(),
            service: "https://push.example/".into(),
        }
    }

    fn borrow_op(channel: u8, known_as: &str) -> StoreOp {
        StoreOp::Upstream(UpstreamOp::Borrow {
            name: name(known_as),
            borrowed: subscription(channel),
            spelling: None,
            dialect: Dialect::WebPush,
            subscriptions_max: 2,
        })
    }

    const fn settled_op(received: Vec<Received>) -> StoreOp {
        StoreOp::Upstream(UpstreamOp::Settled {
            owner: OWNER,
            received,
        })
    }

    fn kept(store: &mut Store) -> Kept {
        let reply = one(store, StoreOp::Upstream(UpstreamOp::Load));
        if let StoreReply::Upstream(kept) = reply {
            return *kept;
        }
        panic!("{reply:?}");
    }

    #[test]
    fn borrowed_subscription_is_one_of_its_user_agents_and_survives_a_restart() {
        let folder = Folder::new();
        let (mut store, opened) = folder.open();
        assert!(!opened.has_links);
        assert_eq!(
            one(&mut store, borrow_op(1, "a")),
            StoreReply::Subscribed(true)
        );
        assert_eq!(
            one(&mut store, borrow_op(2, "b")),
            StoreReply::Subscribed(true)
        );
        // One too many leaves nothing behind.
        assert_eq!(
            one(&mut store, borrow_op(3, "c")),
            StoreReply::Subscribed(false)
        );
        drop(store);
        let (mut store, opened) = folder.open();
        assert!(opened.has_links);
        let expected = Kept {
            names: vec![name("b")],
            borrowed: vec![subscription(1), subscription(2)],
            ..Kept::default()
        };
        assert_eq!(kept(&mut store), expected);
        assert_eq!(
            one(&mut store, testing::find(1, 1, false)),
            StoreReply::Subscription(true)
        );
    }

    #[test]
    fn ended_subscription_is_to_be_ended_there_until_that_is_confirmed() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![borrow_op(1, "a")]);
        let returned = || {
            StoreOp::Upstream(UpstreamOp::Returned {
                owner: OWNER,
                alias: testing::channel(1),
            })
        };
        // A confirmation that comes for a subscription that is back is of its predecessor.
        store.apply(vec![returned()]);
        assert_eq!(kept(&mut store).borrowed, [subscription(1)]);
        let (uaid, channel) = (testing::uaid(1), testing::channel(1));
        store.apply(vec![StoreOp::Unsubscribe { uaid, channel }]);
        let ended = Borrowed {
            ended: true,
            ..subscription(1)
        };
        assert_eq!(kept(&mut store).borrowed, [ended]);
        store.apply(vec![returned()]);
        assert_eq!(kept(&mut store).borrowed, []);
    }

    #[test]
    fn lost_name_leaves_nothing_but_whom_to_tell_until_that_is_done() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![
            borrow_op(1, "a"),
            StoreOp::Upstream(UpstreamOp::Lost { owner: OWNER }),
        ]);
        let to_tell = Kept {
            to_tell: vec![testing::uaid(1)],
            ..Kept::default()
        };
        assert_eq!(kept(&mut store), to_tell);
        let uaid = testing::uaid(1);
        store.apply(vec![StoreOp::Forget { uaid }]);
        assert_eq!(kept(&mut store), Kept::default());
    }

    #[test]
    fn user_agent_that_is_to_be_told_is_remembered_until_that_is_done() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        let uaid = testing::uaid(1);
        let to_tell = || StoreOp::Upstream(UpstreamOp::ToTell { uaid });
        store.apply(vec![to_tell()]);
        store.apply(vec![to_tell()]);
        drop(store);
        let (mut store, opened) = folder.open();
        assert!(opened.has_links);
        assert_eq!(kept(&mut store).to_tell, [uaid]);
        store.apply(vec![StoreOp::Forget { uaid }]);
        assert_eq!(kept(&mut store), Kept::default());
    }

    #[test]
    fn message_that_is_kept_is_remembered_with_it_and_one_that_is_refused_is_not() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![testing::subscribe(1, 1)]);
        let received = Received([7; 16]);
        let take = |channel| StoreOp::Enqueue {
            uaid: testing::uaid(1),
            message: Arc::new(message(10, channel)),
            lost: None,
            version_clock: testing::VERSION_CLOCK,
            noted_from: testing::VERSION_CLOCK,
            quota: NO_QUOTA,
            received: Some((OWNER, received)),
        };
        let refused = StoreReply::Enqueued(EnqueueOutcome::NoSubscription);
        assert_eq!(one(&mut store, take(2)), refused);
        assert_eq!(kept(&mut store).received, []);
        let done = StoreReply::Enqueued(EnqueueOutcome::Kept);
        assert_eq!(one(&mut store, take(1)), done);
        assert_eq!(kept(&mut store).received, [(OWNER, received)]);
        store.apply(vec![settled_op(vec![received])]);
        assert_eq!(kept(&mut store).received, []);
    }

    #[test]
    fn message_that_was_acked_is_remembered_once_until_it_is_settled() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        let received: Vec<Received> = [1, 2].map(|number| Received([number; 16])).to_vec();
        let acked = || {
            StoreOp::Upstream(UpstreamOp::Acked {
                owner: OWNER,
                received: received.clone(),
            })
        };
        store.apply(vec![acked()]);
        store.apply(vec![acked()]);
        let all: Vec<_> = received.iter().map(|received| (OWNER, *received)).collect();
        assert_eq!(kept(&mut store).received, all);
        store.apply(vec![settled_op(received)]);
        assert_eq!(kept(&mut store).received, []);
    }
}
