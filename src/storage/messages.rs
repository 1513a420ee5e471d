//! The rows of push messages: in, out, dropped.
//!
//! Decides nothing about quotas, subscriptions or topics: see `enqueue`.

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, Error, OptionalExtension, Row};

use super::fault;
use crate::model::ids::{ChannelId, MessageId, Uaid};
use crate::model::message::{Content, Encoding, Payload, PushMessage, Topic, Ttl, Urgency};
use crate::model::store::{Cursors, Deletion};
use crate::model::time::ServiceTime;
use crate::model::version::{NewVersion, Version, VersionUpdate};

// Texts that a test looks at: none of them may read more rows than it has to.

const PAGE: &str = "
    SELECT id, channel, topic, received_at, ttl_secs, urgency, encoding, encryption, crypto_key, body,
        version, data, raw
    FROM message WHERE uaid = ?1 AND id > ?2 AND expires_at > ?3
        AND id > CASE urgency WHEN 0 THEN ?4 WHEN 1 THEN ?5 WHEN 2 THEN ?6 ELSE ?7 END
    ORDER BY id";
const WITH_TOPIC: &str = "
    SELECT id, cost_bytes, expires_at, version
    FROM message WHERE uaid = ?1 AND channel = ?2 AND topic = ?3";
const UPDATE_OF: &str = "
    SELECT id, cost_bytes, expires_at, version
    FROM message WHERE uaid = ?1 AND channel = ?2 AND version IS NOT NULL";
const DELETE: &str =
    "DELETE FROM message WHERE id = ?1 AND (uaid = ?2 OR (?2 IS NULL AND version IS NULL))
     RETURNING uaid";
const DELETE_UPDATE: &str =
    "DELETE FROM message WHERE uaid = ?1 AND channel = ?2 AND version <= ?3 AND +id <= ?4
     RETURNING uaid";
const DELETE_OF_SUBSCRIPTION: &str = "DELETE FROM message WHERE uaid = ?1 AND channel = ?2";
const EXPIRE: &str = "
    DELETE FROM message WHERE id IN
        (SELECT id FROM message WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)
    RETURNING uaid";
const EXPIRE_OF: &str = "DELETE FROM message WHERE uaid = ?1 AND expires_at <= ?2";

/// Some messages of a queue, in order.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) messages: Vec<PushMessage>,
    /// Others come after them.
    pub(super) more: bool,
    /// Rows that were passed over because they cannot be understood.
    pub(super) damaged: u32,
}

/// Which messages of a queue have not been read, and may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) after: Cursors,
    pub(super) urgency_min: Urgency,
}

/// As much of a kept message as is needed to replace it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) id: MessageId,
    pub(super) cost_bytes: u64,
    pub(super) expires_at: ServiceTime,
    /// Of an update.
    pub(super) version: Option<Version>,
}

/// Keeps a message.
pub(super) fn insert(
    connection: &Connection,
    uaid: Uaid,
    message: &PushMessage,
) -> rusqlite::Result<()> {
    let content = message.payload.content();
    let update = message.payload.update();
    connection
        .prepare_cached(
            "INSERT INTO message (id, uaid, channel, topic, received_at, ttl_secs, expires_at, urgency,
                 cost_bytes, encoding, encryption, crypto_key, body, version, data, raw)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?
        .execute((
            message.id.as_i64(),
            uaid.as_bytes(),
            message.channel.as_bytes(),
            message.topic.as_ref().map(Topic::as_str),
            signed(message.received_at),
            message.ttl.as_secs(),
            signed(message.expires_at()),
            message.urgency.as_number(),
            i64::try_from(message.cost_bytes()).unwrap_or(i64::MAX),
            content.map(|content| content.encoding.as_str()),
            content.and_then(|content| content.encryption.as_deref()),
            content.and_then(|content| content.crypto_key.as_deref()),
            content.map(|content| &*content.body),
            update.map(|update| update.version.version().as_i64()),
            update.and_then(|update| update.data.as_deref()),
            message.payload.raw(),
        ))?;
    Ok(())
}

/// Whether the message of this id belongs to this subscription.
pub(super) fn is_kept(
    connection: &Connection,
    uaid: Uaid,
    message: &PushMessage,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM message WHERE id = ?1 AND uaid = ?2 AND channel = ?3")?
        .exists((
            message.id.as_i64(),
            uaid.as_bytes(),
            message.channel.as_bytes(),
        ))
}

/// The message of a subscription that has this topic.
pub(super) fn with_topic(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
    topic: &Topic,
) -> rusqlite::Result<Option<Kept>> {
    connection
        .prepare_cached(WITH_TOPIC)?
        .query_row((uaid.as_bytes(), channel.as_bytes(), topic.as_str()), kept)
        .optional()
}

/// The version update of a subscription.
pub(super) fn update_of(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
) -> rusqlite::Result<Option<Kept>> {
    connection
        .prepare_cached(UPDATE_OF)?
        .query_row((uaid.as_bytes(), channel.as_bytes()), kept)
        .optional()
}

/// The oldest messages of a user agent behind its cursors; see `StoreOp::Fetch`.
///
/// Those that are held back or were read before are passed over in the index, where they take some
/// 50 bytes each.
///
/// A row that cannot be understood is passed over and counted: it neither ends the page nor fails it,
/// so the messages behind it are still delivered. It goes when it expires.
pub(super) fn page(
    connection: &Connection,
    uaid: Uaid,
    wanted: Wanted,
    now: ServiceTime,
    messages_max: u32,
    bytes_max: usize,
) -> rusqlite::Result<Page> {
    let Wanted { after, urgency_min } = wanted;
    let [very_low, low, normal, high] = Urgency::ALL.map(|urgency| {
        if urgency < urgency_min {
            i64::MAX
        } else {
            after.of(urgency).as_i64()
        }
    });
    let first = very_low.min(low).min(normal).min(high);
    let mut statement = connection.prepare_cached(PAGE)?;
    let mut rows = statement.query((
        uaid.as_bytes(),
        first,
        signed(now),
        very_low,
        low,
        normal,
        high,
    ))?;
    let messages_max = usize::try_from(messages_max.max(1)).unwrap_or(usize::MAX);
    let mut page = Page {
        messages: Vec::new(),
        more: false,
        damaged: 0,
    };
    let mut bytes = 0_usize;
    while let Some(row) = rows.next()? {
        let is_full = page.messages.len() >= messages_max || bytes >= bytes_max;
        if is_full && !page.messages.is_empty() {
            page.more = true;
            break;
        }
        match read(row) {
            Ok(message) => {
                bytes = bytes.saturating_add(message.cost_bytes());
                page.messages.push(message);
            }
            Err(error) if fault::is_bad_value(&error) => {
                page.damaged = page.damaged.saturating_add(1);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(page)
}

/// Lets a kept message expire with another one, as if it had been received with it.
pub(super) fn keep_as_long_as(
    connection: &Connection,
    kept: MessageId,
    other: &PushMessage,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE message SET received_at = ?2, ttl_secs = ?3, expires_at = ?4 WHERE id = ?1",
        )?
        .execute((
            kept.as_i64(),
            signed(other.received_at),
            other.ttl.as_secs(),
            signed(other.expires_at()),
        ))?;
    Ok(())
}

/// Drops a message. Returns whose it was, if it was there.
pub(super) fn delete(
    connection: &Connection,
    deletion: Deletion,
) -> rusqlite::Result<Option<Uaid>> {
    let deleted = match &deletion {
        Deletion::Message { id, owner: only } => connection
            .prepare_cached(DELETE)?
            .query_row((id.as_i64(), only.as_ref().map(Uaid::as_bytes)), owner),
        Deletion::Update {
            uaid,
            channel,
            version,
            until,
        } => {
            let (uaid, channel) = (uaid.as_bytes(), channel.as_bytes());
            connection
                .prepare_cached(DELETE_UPDATE)?
                .query_row((uaid, channel, version.as_i64(), until.as_i64()), owner)
        }
    };
    deleted.optional()
}

/// Drops all messages of a subscription.
pub(super) fn delete_of_subscription(
    connection: &Connection,
    uaid: Uaid,
    channel: ChannelId,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(DELETE_OF_SUBSCRIPTION)?
        .execute((uaid.as_bytes(), channel.as_bytes()))?;
    Ok(())
}

/// Drops the messages that expired first. Returns whose they were, one entry a message.
pub(super) fn expire(
    connection: &Connection,
    now: ServiceTime,
    messages_max: u32,
) -> rusqlite::Result<Vec<Uaid>> {
    connection
        .prepare_cached(EXPIRE)?
        .query_map((signed(now), messages_max), owner)?
        .collect()
}

/// Drops what is expired of one user agent.
pub(super) fn expire_of(
    connection: &Connection,
    uaid: Uaid,
    now: ServiceTime,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(EXPIRE_OF)?
        .execute((uaid.as_bytes(), signed(now)))?;
    Ok(())
}

/// What a message counts for.
pub(super) fn cost_bytes(message: &PushMessage) -> u64 {
    u64::try_from(message.cost_bytes()).unwrap_or(u64::MAX)
}

/// A time as SQLite keeps it. The far end of time is lowered, which no run ever reaches.
pub(super) fn signed(time: ServiceTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// A number that is never negative, as SQLite kept it.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn owner(row: &Row<'_>) -> rusqlite::Result<Uaid> {
    Ok(Uaid::from_bytes(row.get(0)?))
}

fn read(row: &Row<'_>) -> rusqlite::Result<PushMessage> {
    let topic = row.get::<_, Option<Box<str>>>(2)?;
    let ttl_secs: u32 = row.get(4)?;
    Ok(PushMessage {
        id: MessageId::from_i64(row.get(0)?),
        channel: ChannelId::from_bytes(row.get(1)?),
        received_at: ServiceTime::from_secs(unsigned(row.get(3)?)),
        ttl: Ttl::from_disk(ttl_secs),
        topic: match topic {
            Some(text) => Some(Topic::new(&text).map_err(|_| bad_value(2))?),
            None => None,
        },
        urgency: Urgency::from_number(row.get(5)?).ok_or_else(|| bad_value(5))?,
        payload: payload(row)?,
    })
}

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept {
        id: MessageId::from_i64(row.get(0)?),
        cost_bytes: unsigned(row.get(1)?),
        expires_at: ServiceTime::from_secs(unsigned(row.get(2)?)),
        version: version(row, 3)?,
    })
}

/// A version, in a column that may be empty.
pub(super) fn version(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Version>> {
    let Some(number) = row.get(column)? else {
        return Ok(None);
    };
    let version = Version::from_i64(number).ok_or_else(|| bad_value(column))?;
    Ok(Some(version))
}

fn payload(row: &Row<'_>) -> rusqlite::Result<Payload> {
    if let Some(version) = version(row, 10)? {
        return Ok(Payload::Update(VersionUpdate {
            version: NewVersion::Exact(version),
            data: row.get(11)?,
        }));
    }
    let Some(name) = row.get_ref(6)?.as_str_or_null()? else {
        let raw = row.get_ref(12)?.as_blob_or_null()?;
        return Ok(raw.map_or(Payload::Empty, |raw| Payload::Raw(raw.into())));
    };
    let encoding = [Encoding::Aesgcm, Encoding::Aes128gcm]
        .into_iter()
        .find(|encoding| encoding.as_str() == name)
        .ok_or_else(|| bad_value(6))?;
    Ok(Payload::Encrypted(Content {
        encoding,
        encryption: row.get(7)?,
        crypto_key: row.get(8)?,
        body: row.get_ref(9)?.as_blob()?.into(),
    }))
}

/// A column that holds what this program never writes.
pub(super) fn bad_value(column: usize) -> Error {
    Error::FromSqlConversionFailure(column, Type::Null, Box::new(FromSqlError::InvalidType))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::store::{StoreOp, StoreReply};
    use crate::storage::Store;
    use crate::storage::testing::{
        self, Folder, at, delete, enqueue, fetch, ids, message, one, subscribe, with_topic,
    };

    fn with_messages(folder: &Folder, messages: impl IntoIterator<Item = PushMessage>) -> Store {
        let (mut store, _) = folder.open();
        store.apply(vec![subscribe(1, 1), subscribe(2, 1)]);
        store.apply(messages.into_iter().map(|m| enqueue(1, m)).collect());
        store
    }

    fn page_of(
        store: &mut Store,
        after: i64,
        messages_max: u32,
        bytes_max: usize,
    ) -> (Vec<i64>, bool) {
        let mut cursors = Cursors::START;
        cursors.advance(Urgency::VeryLow, MessageId::from_i64(after));
        let op = StoreOp::Fetch {
            uaid: testing::uaid(1),
            after: cursors,
            urgency_min: Urgency::VeryLow,
            now: at(100),
            messages_max,
            bytes_max,
        };
        pages(one(store, op))
    }

    fn pages(reply: StoreReply) -> (Vec<i64>, bool) {
        let StoreReply::Page { messages, more } = reply else {
            panic!("not a page");
        };
        (messages.iter().map(|m| m.id.as_i64()).collect(), more)
    }

    /// What a user agent gets that wants no less than `urgency_min`.
    fn urgent(store: &mut Store, after: Cursors, urgency_min: Urgency) -> (Vec<i64>, bool) {
        let op = StoreOp::Fetch {
            uaid: testing::uaid(1),
            after,
            urgency_min,
            now: at(100),
            messages_max: 2,
            bytes_max: usize::MAX,
        };
        pages(one(store, op))
    }

    #[test]
    fn message_comes_back_byte_for_byte() {
        let folder = Folder::new();
        let every_byte: Vec<u8> = (0..=255).cycle().take(5630).collect();
        let full = PushMessage {
            urgency: Urgency::VeryLow,
            payload: Payload::Encrypted(Content {
                encoding: Encoding::Aesgcm,
                encryption: Some("salt=abc".into()),
                crypto_key: Some("dh=def".into()),
                body: every_byte.into(),
            }),
            ..with_topic(message(10, 1), "a-_=")
        };
        let empty = PushMessage {
            urgency: Urgency::High,
            payload: Payload::Empty,
            ..message(11, 1)
        };
        let raw = PushMessage {
            payload: Payload::Raw((0..=255).collect()),
            ..message(12, 1)
        };
        let mut store = with_messages(&folder, [full.clone(), empty.clone(), raw.clone()]);
        assert_eq!(
            one(&mut store, fetch(1)),
            StoreReply::Page {
                messages: vec![full, empty, raw],
                more: false
            }
        );
    }

    #[test]
    fn messages_come_in_the_order_of_their_ids_not_of_their_writing() {
        let folder = Folder::new();
        let mut store = with_messages(&folder, [12, 10, 11].map(|id| message(id, 1)));
        assert_eq!(ids(&mut store, 1), [10, 11, 12]);
    }

    #[test]
    fn page_ends_at_its_number_of_messages() {
        let folder = Folder::new();
        let mut store = with_messages(&folder, [10, 11, 12].map(|id| message(id, 1)));
        assert_eq!(page_of(&mut store, 0, 2, usize::MAX), (vec![10, 11], true));
        assert_eq!(page_of(&mut store, 11, 2, usize::MAX), (vec![12], false));
        assert_eq!(
            page_of(&mut store, 10, 2, usize::MAX),
            (vec![11, 12], false)
        );
        assert_eq!(page_of(&mut store, 12, 2, usize::MAX), (vec![], false));
        assert_eq!(page_of(&mut store, 0, 0, usize::MAX), (vec![10], true));
    }

    #[test]
    fn page_ends_with_the_message_that_reaches_its_bytes() {
        let folder = Folder::new();
        let cost = message(10, 1).cost_bytes();
        let mut store = with_messages(&folder, [10, 11, 12].map(|id| message(id, 1)));
        assert_eq!(page_of(&mut store, 0, 9, 2 * cost), (vec![10, 11], true));
        assert_eq!(page_of(&mut store, 0, 9, 2 * cost + 1).0, [10, 11, 12]);
        assert_eq!(page_of(&mut store, 0, 9, 0), (vec![10], true));
    }

    #[test]
    fn expired_message_is_not_delivered() {
        let folder = Folder::new();
        let lasting = |id, secs| PushMessage {
            received_at: at(90),
            ttl: Ttl::from_secs_lowered(secs),
            ..message(id, 1)
        };
        let mut store = with_messages(&folder, [lasting(10, 9), lasting(11, 10), lasting(12, 0)]);
        assert_eq!(page_of(&mut store, 0, 1, usize::MAX), (vec![11], false));
    }

    #[test]
    fn page_holds_what_is_urgent_enough_and_what_was_held_back_comes_later_in_order() {
        let folder = Folder::new();
        let of = |id: i64, urgency| PushMessage {
            urgency,
            ..message(id, 1)
        };
        let queue = [
            of(10, Urgency::VeryLow),
            of(11, Urgency::Normal),
            of(12, Urgency::Low),
            of(13, Urgency::High),
            of(14, Urgency::VeryLow),
            of(15, Urgency::Normal),
        ];
        let mut store = with_messages(&folder, queue);
        let mut after = Cursors::START;
        assert_eq!(
            urgent(&mut store, after, Urgency::Normal),
            (vec![11, 13], true)
        );
        after.advance(Urgency::Normal, MessageId::from_i64(13));
        assert_eq!(
            urgent(&mut store, after, Urgency::Normal),
            (vec![15], false)
        );
        after.advance(Urgency::Normal, MessageId::from_i64(15));
        assert_eq!(urgent(&mut store, after, Urgency::High), (vec![], false));
        // Nothing is left but what was held back.
        assert_eq!(urgent(&mut store, after, Urgency::Low), (vec![12], false));
        after.advance(Urgency::Low, MessageId::from_i64(12));
        assert_eq!(
            urgent(&mut store, after, Urgency::VeryLow),
            (vec![10, 14], false)
        );
        after.advance(Urgency::VeryLow, MessageId::from_i64(14));
        assert_eq!(urgent(&mut store, after, Urgency::VeryLow), (vec![], false));
    }

    #[test]
    fn damaged_row_is_passed_over_and_those_behind_it_are_delivered() {
        let folder = Folder::new();
        let mut store = with_messages(&folder, [10, 11, 12, 13].map(|id| message(id, 1)));
        store
            .connection
            .execute_batch(
                "PRAGMA ignore_check_constraints = ON;
                 UPDATE message SET urgency = 9 WHERE id = 10;
                 UPDATE message SET topic = 'not a topic' WHERE id = 11;
                 UPDATE message SET encoding = 'rot13' WHERE id = 12;",
            )
            .unwrap();
        assert_eq!(page_of(&mut store, 0, 1, usize::MAX), (vec![13], false));
        store.apply(vec![delete(10, None), delete(11, Some(1))]);
        assert_eq!(page_of(&mut store, 0, 1, usize::MAX), (vec![13], false));
    }

    #[test]
    fn message_is_deleted_by_its_owner_or_by_its_url_only() {
        let folder = Folder::new();
        let mut store = with_messages(&folder, [10, 11, 12].map(|id| message(id, 1)));
        let replies = store.apply(vec![
            delete(10, Some(2)),
            delete(11, Some(1)),
            delete(12, None),
            delete(99, None),
        ]);
        assert_eq!(replies, vec![StoreReply::Done; 4]);
        assert_eq!(ids(&mut store, 1), [10]);
    }

    #[test]
    fn sweep_drops_the_expired_in_steps_and_nothing_else() {
        let folder = Folder::new();
        let lasting = |id, secs| PushMessage {
            ttl: Ttl::from_secs_lowered(secs),
            ..message(id, 1)
        };
        let messages = [(10, 30), (11, 10), (12, 20), (13, 31)].map(|(id, secs)| lasting(id, secs));
        let mut store = with_messages(&folder, messages);
        let sweep = |messages_max| StoreOp::Expire {
            now: at(131),
            messages_max,
        };
        assert_eq!(one(&mut store, sweep(0)), StoreReply::Expired(0));
        assert_eq!(one(&mut store, sweep(2)), StoreReply::Expired(2));
        assert_eq!(ids(&mut store, 1), [10, 13]);
        assert_eq!(one(&mut store, sweep(2)), StoreReply::Expired(1));
        assert_eq!(ids(&mut store, 1), [13]);
    }

    #[test]
    fn index_alone_tells_which_messages_are_on_a_page() {
        let folder = Folder::new();
        let (store, _) = folder.open();
        let conditions = PAGE.find("FROM").unwrap();
        let plan = testing::plan(&store, &format!("SELECT id {}", &PAGE[conditions..]));
        assert!(plan.contains("COVERING INDEX message_queue"), "{plan}");
    }

    #[test]
    fn no_query_reads_more_rows_than_it_needs() {
        let folder = Folder::new();
        let (store, _) = folder.open();
        let queue = "INDEX message_queue (uaid=?)";
        let cases = [
            (PAGE, "INDEX message_queue (uaid=? AND id>?)"),
            (
                WITH_TOPIC,
                "message_topic (uaid=? AND channel=? AND topic=?)",
            ),
            (UPDATE_OF, "message_version (uaid=? AND channel=?)"),
            (DELETE, "INTEGER PRIMARY KEY (rowid=?)"),
            (DELETE_UPDATE, "message_version (uaid=? AND channel=?)"),
            (DELETE_OF_SUBSCRIPTION, queue),
            (EXPIRE, "COVERING INDEX message_expiry (expires_at<?)"),
            (EXPIRE_OF, queue),
            (
                crate::storage::usage::COUNT,
                "COVERING INDEX message_queue (uaid=?)",
            ),
        ];
        for (sql, expected) in cases {
            let plan = testing::plan(&store, sql);
            assert!(plan.contains(expected), "{sql}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }
}
