//! The real program, killed with -9 at random moments of a storm again and again: what it has answered
//! 2xx to is in its user agents' hands in the end.
//!
//! `EDGEPUSH_KILLS=200 cargo test --test crashes -- --nocapture` kills it more often and shows the account;
//! `EDGEPUSH_SEED=1` makes the same choices again, at other moments.

// A test may panic and may add.
#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]

mod storm;
mod support;

use std::fs;
use std::time::Duration;

use storm::{Rng, Storm, number};
use support::Gateway;

const KILLS: u64 = 10;
/// Longest life of the process.
const LIFE_MILLIS_MAX: u64 = 700;
/// Messages that must be taken between two kills, on average.
const ACCEPTED_MIN: u64 = 10;

#[test]
fn nothing_accepted_is_lost_and_nothing_acked_comes_again_over_kills_at_any_moment() {
    let kills = number("EDGEPUSH_KILLS", KILLS);
    let mut rng = Rng::new(storm::seed());
    let mut gateway = Gateway::with_config(storm::CONFIG);
    let storm = Storm::begin(gateway.push, &mut rng);
    for _ in 0..kills {
        // Some are killed before they have taken anything.
        std::thread::sleep(Duration::from_millis(rng.below(LIFE_MILLIS_MAX)));
        gateway.kill();
        gateway.start_again();
    }
    let mut calm = storm.end();
    calm.drain();
    // Once more, with everything acked: nothing must come.
    gateway.kill();
    gateway.start_again();
    calm.drain();
    let account = calm.account();
    println!("kills {}, {account}", kills + 1);
    account.check(kills * ACCEPTED_MIN);
}

/// Without this the other test would prove nothing.
#[test]
fn account_finds_what_is_lost_with_a_database() {
    let mut rng = Rng::new(storm::seed());
    let mut gateway = Gateway::with_config(storm::CONFIG);
    let storm = Storm::begin(gateway.push, &mut rng);
    for _ in 0..5 {
        storm.wait_for(100);
        gateway.kill();
        for file in ["edgepush.db", "edgepush.db-wal", "edgepush.db-shm"] {
            let _ = fs::remove_file(gateway.data.join(file));
        }
        gateway.start_again();
    }
    let mut calm = storm.end();
    calm.drain();
    let account = calm.account();
    println!("databases lost 5, {account}");
    assert!(!account.lost.is_empty(), "{account}");
}
