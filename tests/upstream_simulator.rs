//! The engine, the storage and a model of the main service in one simulated world: connections that
//! end at any moment, a main service that does wrong, forgets or goes away for days, crashes of the
//! gateway, lost databases.
//!
//! `EDGEPUSH_SEED=123 cargo test --test upstream_simulator` runs one seed and shows its last events
//! when it fails; `EDGEPUSH_SEEDS=10000` runs more of them. The model of the main service is the one
//! of `tests/main_service`, which `tests/stand_in.rs` holds to what is known of the real one.

// A test may panic and may add.
#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]

#[path = "upstream_simulator/at_home.rs"]
mod at_home;
#[path = "upstream_simulator/checker.rs"]
mod checker;
#[path = "upstream_simulator/frames.rs"]
mod frames;
#[path = "upstream_simulator/gateway.rs"]
mod gateway;
#[path = "main_service/rules.rs"]
mod main_service;
#[path = "upstream_simulator/plan.rs"]
mod plan;
#[path = "simulator/rng.rs"]
mod rng;
#[path = "upstream_simulator/tally.rs"]
mod tally;
#[path = "upstream_simulator/user_agent.rs"]
mod user_agent;
#[path = "upstream_simulator/wire.rs"]
mod wire;
#[path = "upstream_simulator/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tally::{KINDS, Tally};
use world::World;

const SEEDS: u64 = 60;
const THREADS: usize = 2;

#[test]
fn promises_about_borrowed_subscriptions_hold_in_every_simulated_world() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("EDGEPUSH_SEED") {
        run(seed, true);
        return;
    }
    let seeds = number("EDGEPUSH_SEEDS").unwrap_or(SEEDS);
    let (tally, failed) = run_all(seeds);
    for kind in KINDS {
        println!("{:8} {kind}", tally.of(kind));
    }
    if let Some(seed) = failed.first() {
        panic!(
            "{} of {seeds} seeds failed; EDGEPUSH_SEED={seed} cargo test --test upstream_simulator",
            failed.len()
        );
    }
    for kind in KINDS {
        assert!(tally.of(kind) > 0, "`{kind}` was never exercised");
    }
}

/// What was exercised, and which seeds failed.
fn run_all(seeds: u64) -> (Tally, Vec<u64>) {
    let next = AtomicU64::new(0);
    let tally = Mutex::new(Tally::default());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    match catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
                        Ok(done) => tally.lock().unwrap().merge(&done),
                        Err(_) => {
                            println!("seed {seed} failed");
                            failed.lock().unwrap().push(seed);
                        }
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    (tally.into_inner().unwrap(), failed)
}

fn run(seed: u64, verbose: bool) -> Tally {
    let mut world = World::new(seed, verbose);
    for _ in 0..world.plan.steps {
        world.something_happens();
    }
    world.settle();
    world.post_to_all();
    world.settle();
    world.check_the_end();
    std::mem::take(&mut world.tally)
}
