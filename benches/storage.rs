//! Prints what keeping a push message costs: commits a second and bytes written, alone and in batches.
//!
//! `cargo bench --bench storage [DIRECTORY]`; without a directory it uses `target/tmp`.

#![allow(clippy::arithmetic_side_effects)] // every number is its own

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use edgepush::model::dialect::Dialect;
use edgepush::model::ids::{ChannelId, DatabaseId, MessageId, Uaid};
use edgepush::model::message::{Content, Encoding, Payload, PushMessage, Ttl, Urgency};
use edgepush::model::store::{EnqueueOutcome, Quota, StoreOp, StoreReply};
use edgepush::model::time::ServiceTime;
use edgepush::model::version::Version;
use edgepush::storage::{FreshDatabase, Settings, Store};

/// A usual WebPush message: a few hundred bytes, encrypted.
const BODY_BYTES: usize = 400;
const USER_AGENTS: u64 = 100;

fn main() {
    let parent = std::env::args()
        .nth(1)
        .filter(|argument| !argument.starts_with('-'))
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    println!("batch  messages/s  commits/s  written bytes/message");
    for (batch, messages) in [(1, 4_000), (64, 64_000)] {
        let directory = parent.join(format!("storage-bench-{}-{batch}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the directory can be made");
        measure(&directory, batch, messages);
        std::fs::remove_dir_all(&directory).expect("the directory is ours");
    }
}

fn measure(directory: &std::path::Path, batch: u64, messages: u64) {
    let fresh = FreshDatabase {
        id: DatabaseId([1; 8]),
        key_is_new: true,
    };
    let opened = Store::open(directory, &Settings::default(), fresh);
    let (mut store, _) = opened.expect("a new database opens");
    store.apply((0..USER_AGENTS).map(subscribe).collect());
    let written_before = written_bytes();
    let started = Instant::now();
    for first in (0..messages).step_by(batch as usize) {
        let ops = (first..first + batch).map(enqueue).collect();
        let kept = StoreReply::Enqueued(EnqueueOutcome::Kept);
        assert!(store.apply(ops).iter().all(|reply| *reply == kept));
    }
    let secs = started.elapsed().as_secs_f64();
    let per_second = messages as f64 / secs;
    println!(
        "{batch:5}  {per_second:10.0}  {:9.0}  {:21}",
        per_second / batch as f64,
        (written_bytes() - written_before) / messages
    );
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
