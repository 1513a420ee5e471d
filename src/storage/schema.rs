//! The tables, and how an older file becomes a present one. Nothing here is run on a newer file.

use rusqlite::Connection;

/// One entry for each version; its place, from 1, is the version that it leads to.
///
/// A published entry is never changed: the next schema is a new entry.
const MIGRATIONS: [&str; 5] = [VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5];

/// The schema that this program knows.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

const VERSION_1: &str = "
    -- One row. `lost_before`: an earlier database under the same key may have existed.
    CREATE TABLE meta (
        only         INTEGER PRIMARY KEY CHECK (only = 1),
        database     BLOB    NOT NULL CHECK (length(database) = 8),
        runs         INTEGER NOT NULL,
        service_secs INTEGER NOT NULL,
        lost_before  INTEGER NOT NULL CHECK (lost_before IN (0, 1))
    ) STRICT;

    -- A user agent exists if it has a subscription. `origin`: see subscriptions.rs.
    CREATE TABLE subscription (
        uaid    BLOB    NOT NULL CHECK (length(uaid) = 16),
        channel BLOB    NOT NULL CHECK (length(channel) = 16),
        origin  INTEGER NOT NULL CHECK (origin BETWEEN 0 AND 2),
        PRIMARY KEY (uaid, channel)
    ) STRICT, WITHOUT ROWID;

    -- The id is the order. Times are seconds of service. The body comes last: what is before it
    -- is then read without following its overflow pages.
    CREATE TABLE message (
        id          INTEGER PRIMARY KEY,
        uaid        BLOB    NOT NULL CHECK (length(uaid) = 16),
        channel     BLOB    NOT NULL CHECK (length(channel) = 16),
        topic       TEXT,
        received_at INTEGER NOT NULL,
        ttl_secs    INTEGER NOT NULL,
        expires_at  INTEGER NOT NULL,
        urgency     INTEGER NOT NULL CHECK (urgency BETWEEN 0 AND 3),
        cost_bytes  INTEGER NOT NULL,
        encoding    TEXT CHECK (encoding IN ('aesgcm', 'aes128gcm')),
        encryption  TEXT,
        crypto_key  TEXT,
        body        BLOB,
        CHECK ((encoding IS NULL) = (body IS NULL))
    ) STRICT;

    -- Holds all that a quota asks for, so that counting a queue never reads its rows.
    CREATE INDEX message_queue ON message (uaid, id, expires_at, cost_bytes);
    CREATE UNIQUE INDEX message_topic ON message (uaid, channel, topic) WHERE topic IS NOT NULL;
    CREATE INDEX message_expiry ON message (expires_at);

    -- Subscriptions that ended and that an endpoint of a lost database must not bring back.
    CREATE TABLE tombstone (
        uaid    BLOB NOT NULL CHECK (length(uaid) = 16),
        channel BLOB NOT NULL CHECK (length(channel) = 16),
        PRIMARY KEY (uaid, channel)
    ) STRICT, WITHOUT ROWID;
";

/// SimplePush.
const VERSION_2: &str = "
    -- How far the clock of those versions has come that nobody names.
    ALTER TABLE meta ADD COLUMN version_clock INTEGER NOT NULL DEFAULT 0 CHECK (version_clock >= 0);

    -- `dialect`: 1 for SimplePush. `spelling`: of the channel, unless in lower case with dashes.
    -- `last_version`: written only where the version clock alone would not lead beyond it.
    ALTER TABLE subscription ADD COLUMN dialect INTEGER NOT NULL DEFAULT 0 CHECK (dialect IN (0, 1));
    ALTER TABLE subscription ADD COLUMN spelling TEXT;
    ALTER TABLE subscription ADD COLUMN last_version INTEGER CHECK (last_version >= 0);

    -- A message with a version is an update: it has no body, and there is one for each channel.
    ALTER TABLE message ADD COLUMN version INTEGER CHECK (version >= 0);
    ALTER TABLE message ADD COLUMN data TEXT;
    CREATE UNIQUE INDEX message_version ON message (uaid, channel) WHERE version IS NOT NULL;

    -- User agents that wait for a datagram. The address is text, such as 192.168.1.5:2442.
    CREATE TABLE sleeper (
        uaid    BLOB NOT NULL PRIMARY KEY CHECK (length(uaid) = 16),
        address TEXT NOT NULL,
        country TEXT,
        network TEXT,
        part    TEXT
    ) STRICT, WITHOUT ROWID;
";

/// UnifiedPush.
///
/// Bodies without an encoding have a column of their own: to let `encoding` be empty beside a `body`,
/// the whole table would have to be copied, up to a gigabyte of it on a memory card. A CHECK that only
/// one of them is there would have each row read for the same reason.
const VERSION_3: &str = "
    ALTER TABLE message ADD COLUMN raw BLOB;
";

/// Urgency and quotas of subscriptions.
const VERSION_4: &str = "
    -- Also tells which messages are urgent enough and, by six bytes of its channel, which subscription
    -- they belong to, so that neither a page nor a count reads rows that it has no use for. All of the
    -- channel would make each message cost more of flash. From both of its ends, because not every user
    -- agent draws them at random.
    DROP INDEX message_queue;
    CREATE INDEX message_queue ON message
        (uaid, id, expires_at, cost_bytes, urgency, substr(channel, 1, 2), substr(channel, 13, 4));
";

/// The main service.
const VERSION_5: &str = "
    -- Who we are there. `owner`: the user agent whose link it is; zeros for that of all.
    CREATE TABLE upstream_name (
        owner   BLOB NOT NULL PRIMARY KEY CHECK (length(owner) = 16),
        name    TEXT NOT NULL,
        service TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- Subscriptions there, called `alias` there. `ended`: here, and not confirmed there.
    CREATE TABLE upstream_borrowed (
        owner    BLOB    NOT NULL CHECK (length(owner) = 16),
        alias    BLOB    NOT NULL CHECK (length(alias) = 16),
        uaid     BLOB    NOT NULL CHECK (length(uaid) = 16),
        channel  BLOB    NOT NULL CHECK (length(channel) = 16),
        endpoint TEXT    NOT NULL,
        key      TEXT,
        ended    INTEGER NOT NULL CHECK (ended IN (0, 1)),
        PRIMARY KEY (owner, alias)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX upstream_borrowed_subscription ON upstream_borrowed (uaid, channel);

    -- Messages that were kept and may come again, by a digest of their names there.
    CREATE TABLE upstream_received (
        owner   BLOB NOT NULL CHECK (length(owner) = 16),
        version BLOB NOT NULL CHECK (length(version) = 16),
        PRIMARY KEY (owner, version)
    ) STRICT, WITHOUT ROWID;

    -- User agents whose subscriptions there are lost, and who do not know it.
    CREATE TABLE upstream_to_tell (
        uaid BLOB NOT NULL PRIMARY KEY CHECK (length(uaid) = 16)
    ) STRICT, WITHOUT ROWID;
";

/// `application_id` of a database (SQLite's own field for telling whose a file is), and of a copy of
/// one. An older edgepush has left it at 0.
pub(super) const DATABASE: i32 = i32::from_be_bytes(*b"EPdb");
/// See [`DATABASE`].
pub(super) const COPY: i32 = i32::from_be_bytes(*b"EPcp");

/// Whose an opened file is.
pub(super) fn application(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "application_id", |row| row.get(0))
}

/// Says whose the file is.
pub(super) fn set_application(connection: &Connection, application: i32) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", application)
}

/// The schema of an opened file; 0 for one that was just made.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings the file from version `found` to [`VERSION`]. The caller holds the transaction, so that
/// a power cut leaves the old version whole.
pub(super) fn migrate(connection: &Connection, found: u32) -> rusqlite::Result<()> {
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    for migration in MIGRATIONS.iter().skip(done) {
        connection.execute_batch(migration)?;
    }
    if found < VERSION {
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::{Payload, PushMessage};
    use crate::model::store::StoreReply;
    use crate::storage::FILE_NAME;
    use crate::storage::testing::{self, Folder, enqueue, fetch, message, one};

    /// A file as the first `version` entries make it, with a subscription and two messages in it.
    fn older(folder: &Folder, version: u32) {
        let connection = Connection::open(folder.path().join(FILE_NAME)).unwrap();
        for migration in &MIGRATIONS[..version as usize] {
            connection.execute_batch(migration).unwrap();
        }
        connection
            .pragma_update(None, "user_version", version)
            .unwrap();
        let (uaid, channel) = (testing::uaid(1), testing::channel(1));
        let (uaid, channel) = (uaid.as_bytes(), channel.as_bytes());
        connection
            .execute(
                "INSERT INTO meta (only, database, runs, service_secs, lost_before) VALUES (1, ?1, 1, 0, 0)",
                [[7_u8; 8]],
            )
            .unwrap();
        connection
            .execute(
                "INSERT INTO subscription (uaid, channel, origin) VALUES (?1, ?2, 0)",
                (uaid, channel),
            )
            .unwrap();
        let insert =
            "INSERT INTO message (id, uaid, channel, received_at, ttl_secs, expires_at, urgency,
                 cost_bytes, encoding, body)
             VALUES (?1, ?2, ?3, 100, 3600, 3700, 2, 356, ?4, ?5)";
        let body = [0xab_u8; 100];
        let full = (10, uaid, channel, Some("aes128gcm"), Some(body));
        connection.execute(insert, full).unwrap();
        let empty = (11, uaid, channel, None::<&str>, None::<&[u8]>);
        connection.execute(insert, empty).unwrap();
    }

    #[test]
    fn messages_of_every_older_version_are_still_there() {
        for version in 1..VERSION {
            let folder = Folder::new();
            older(&folder, version);
            let (mut store, opened) = folder.open();
            assert_eq!(opened.run, 2, "version {version}");
            assert_eq!(super::version(&store.connection), Ok(VERSION));
            let raw = PushMessage {
                payload: Payload::Raw([1, 0, 255].into()),
                ..message(12, 1)
            };
            let empty = PushMessage {
                payload: Payload::Empty,
                ..message(11, 1)
            };
            store.apply(vec![enqueue(1, raw.clone())]);
            let expected = StoreReply::Page {
                messages: vec![message(10, 1), empty, raw],
                more: false,
            };
            assert_eq!(one(&mut store, fetch(1)), expected, "version {version}");
        }
    }

    #[test]
    fn power_cut_in_the_middle_of_a_migration_leaves_the_older_version_whole() {
        for version in 1..VERSION {
            let folder = Folder::new();
            older(&folder, version);
            let connection = Connection::open(folder.path().join(FILE_NAME)).unwrap();
            // Nothing of it fits into memory: all of it is on its way to the disk already.
            let set_up = "PRAGMA journal_mode = wal; PRAGMA cache_size = 1; BEGIN IMMEDIATE";
            connection.execute_batch(set_up).unwrap();
            migrate(&connection, version).unwrap();
            connection.cache_flush().unwrap();
            let cut = Folder::new();
            for suffix in ["", "-wal"] {
                let name = format!("{FILE_NAME}{suffix}");
                std::fs::copy(folder.path().join(&name), cut.path().join(name)).unwrap();
            }
            let after = Connection::open(cut.path().join(FILE_NAME)).unwrap();
            assert_eq!(super::version(&after), Ok(version));
            let sound = after.query_row("PRAGMA integrity_check", (), |row| row.get(0));
            assert_eq!(sound, Ok("ok".to_owned()));
            drop(after);
            let (mut store, _) = cut.open();
            assert_eq!(testing::ids(&mut store, 1), [10, 11]);
        }
    }
}
