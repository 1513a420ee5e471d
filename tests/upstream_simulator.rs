//! The engine, the storage and a model of the main service in one simulated world: connections that
//! end at any moment, a main service that does wrong, forgets or goes away for days, crashes of the
//! gateway, lost databases.
//!
//! `EDGEPUSH_SEED=123 cargo test --test upstream_simulator` runs one seed and shows its last events
//! when it fails; `EDGEPUSH_SEEDS=10000` runs more of them, `EDGEPUSH_FIRST=20000` others. The model of the main service is the one
//! of `tests/main_service`, which `tests/stand_in.rs` holds to what is known of the real one.

// A test may panic and may add.
#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]

#[path = "upstream_simulator/at_home.rs"]
mod at_home;
#[path = "upstream_simulator/checker.rs"]
mod checker;
#[path = "simulator/directory.rs"]
mod directory;
#[path = "upstream_simulator/frames.rs"]
mod frames;
#[path = "upstream_simulator/gateway.rs"]
mod gateway;
#[path = "upstream_simulator/kinds.rs"]
mod kinds;
#[path = "main_service/rules.rs"]
mod main_service;
#[path = "upstream_simulator/plan.rs"]
mod plan;
#[path = "simulator/rng.rs"]
mod rng;
#[path = "simulator/seeds.rs"]
mod seeds;
#[path = "simulator/tally.rs"]
mod tally;
#[path = "simulator/trace.rs"]
mod trace;
#[path = "upstream_simulator/user_agent.rs"]
mod user_agent;
#[path = "upstream_simulator/wire.rs"]
mod wire;
#[path = "upstream_simulator/world.rs"]
mod world;

use kinds::KINDS;
use tally::Tally;
use world::World;

const SEEDS: u64 = 60;

#[test]
fn promises_about_borrowed_subscriptions_hold_in_every_simulated_world() {
    seeds::run_all(SEEDS, KINDS, run);
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
