//! Prints what keeping a push message costs: messages a second, processor time and bytes written, alone
//! and in batches, and the same for a bare loop of SQLite's that inserts the same rows and looks at nothing.
//!
//! `cargo bench --bench storage [DIRECTORY]`; without a directory it uses `target/tmp`.

#![allow(clippy::arithmetic_side_effects)] // every number is its own

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use edgepush::model::dialect::Dialect;
use edgepush::model::ids::{ChannelId, DatabaseId, MessageId, Uaid};
use edgepush::model::limits::MESSAGE_OVERHEAD_BYTES;
use edgepush::model::message::{Content, Encoding, Payload, PushMessage, Ttl, Urgency};
use edgepush::model::store::{EnqueueOutcome, Quota, StoreOp, StoreReply};
use edgepush::model::time::ServiceTime;
use edgepush::model::version::Version;
use edgepush::storage::{FreshDatabase, Settings, Store};
use rusqlite::Connection;

/// A usual WebPush message: a few hundred bytes, encrypted.
const BODY_BYTES: usize = 400;
const USER_AGENTS: u64 = 100;
/// What the store writes for such a message.
const INSERT: &str =
    "INSERT INTO message (id, uaid, channel, received_at, ttl_secs, expires_at, urgency,
    cost_bytes, encoding, body) VALUES (?1, ?2, ?3, ?4, 86400, ?5, 1, ?6, 'aes128gcm', ?7)";

fn main() {
    let parent = std::env::args()
        .nth(1)
        .filter(|argument| !argument.starts_with('-'))
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    println!("batch  messages/s  CPU microseconds/message  written bytes/message");
    // One alone waits for the disk and for little else.
    for (batch, messages) in [(1, 400), (64, 32_000)] {
        // In turn, so that a change of the machine's mood hits both.
        let rates = [0, 1, 2, 3, 4].map(|_| {
            [measure_store, measure_bare].map(|measure| {
                let directory =
                    parent.join(format!("storage-bench-{}-{batch}", std::process::id()));
                std::fs::create_dir_all(&directory).expect("the directory can be made");
                let rate = measure(&directory, batch, messages);
                std::fs::remove_dir_all(&directory).expect("the directory is ours");
                rate
            })
        });
        let best = |index: usize| rates.iter().map(|pair| pair[index]).fold(0.0, f64::max);
        let percent = best(0) / best(1) * 100.0;
        println!("{batch:5}  the store reaches {percent:.0} % of the bare loop, best of five each");
    }
}

fn open(directory: &Path) -> Store {
    let fresh = FreshDatabase {
        id: DatabaseId([1; 8]),
        key_is_new: true,
    };
    let opened = Store::open(directory, &Settings::default(), fresh);
    let (mut store, _) = opened.expect("a new database opens");
    store.apply((0..USER_AGENTS).map(subscribe).collect());
    store
}

fn measure_store(directory: &Path, batch: u64, messages: u64) -> f64 {
    let mut store = open(directory);
    measure("store", batch, messages, |numbers| {
        let kept = StoreReply::Enqueued(EnqueueOutcome::Kept);
        let replies = store.apply(numbers.map(enqueue).collect());
        assert!(replies.iter().all(|reply| *reply == kept));
    })
}

/// The same schema, settings and rows.
fn measure_bare(directory: &Path, batch: u64, messages: u64) -> f64 {
    drop(open(directory));
    let database = Connection::open(directory.join("edgepush.db")).expect("it was just made");
    let settings =
        "PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA cache_size = -512;";
    database.execute_batch(settings).expect("they are known");
    let (mut begin, mut insert, mut commit) = (
        database.prepare("BEGIN IMMEDIATE").expect("it is SQL"),
        database.prepare(INSERT).expect("the schema has it"),
        database.prepare("COMMIT").expect("it is SQL"),
    );
    measure("bare", batch, messages, |numbers| {
        begin.execute(()).expect("nobody else writes");
        for number in numbers {
            let body = [0x5a_u8; BODY_BYTES];
            let cost = (BODY_BYTES + MESSAGE_OVERHEAD_BYTES) as i64;
            let secs = (number / 1000) as i64;
            let (uaid, channel) = (uaid(number), [1_u8; 16]);
            let row = (
                number as i64 + 1,
                uaid.as_bytes(),
                channel,
                secs,
                secs + 86_400,
                cost,
                body,
            );
            insert.execute(row).expect("the id is new");
        }
        commit.execute(()).expect("the disk has room");
    })
}

/// Does all `messages` in batches; how many a second.
fn measure(name: &str, batch: u64, messages: u64, mut keep: impl FnMut(Range<u64>)) -> f64 {
    let (written_before, cpu_before) = (written_bytes(), cpu_nanos());
    let started = Instant::now();
    for first in (0..messages).step_by(batch as usize) {
        keep(first..first + batch);
    }
    let secs = started.elapsed().as_secs_f64();
    let per_second = messages as f64 / secs;
    println!(
        "{batch:5}  {per_second:10.0}  {:24.1}  {:21}  {name}",
        (cpu_nanos() - cpu_before) as f64 / 1e3 / messages as f64,
        (written_bytes() - written_before) / messages
    );
    per_second
}

/// The time that this thread was on a processor.
fn cpu_nanos() -> u64 {
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = account.split_whitespace().next();
    first.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What this thread has handed to `write`: the main thread is the only one that writes here.
fn written_bytes() -> u64 {
    let counters = std::fs::read_to_string("/proc/thread-self/io").unwrap_or_default();
    let written = counters
        .lines()
        .find_map(|line| line.strip_prefix("wchar: "));
    written.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn subscribe(user_agent: u64) -> StoreOp {
    StoreOp::Subscribe {
        uaid: uaid(user_agent),
        channel: ChannelId::from_bytes([1; 16]),
        spelling: None,
        dialect: Dialect::WebPush,
        subscriptions_max: 1,
    }
}

fn enqueue(number: u64) -> StoreOp {
    StoreOp::Enqueue {
        uaid: uaid(number),
        message: Arc::new(PushMessage {
            id: MessageId::from_i64(number as i64 + 1),
            channel: ChannelId::from_bytes([1; 16]),
            received_at: ServiceTime::from_secs(number / 1000),
            ttl: Ttl::from_secs_lowered(86_400),
            topic: None,
            urgency: Urgency::Normal,
            payload: Payload::Encrypted(Content {
                encoding: Encoding::Aes128gcm,
                encryption: None,
                crypto_key: None,
                body: vec![0x5a; BODY_BYTES].into(),
            }),
        }),
        lost: None,
        version_clock: Version::from_secs(0),
        noted_from: Version::from_secs(0),
        quota: Quota {
            subscription_messages_max: u32::MAX,
            subscription_bytes_max: u64::MAX,
            messages_max: 1000,
            bytes_max: 4 << 20,
            total_bytes_max: 1 << 30,
        },
        received: None,
    }
}

/// Spread over the keys, as random ones are.
fn uaid(number: u64) -> Uaid {
    let name = (number % USER_AGENTS).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Uaid::from_bytes((u128::from(name) << 64).to_be_bytes())
}
