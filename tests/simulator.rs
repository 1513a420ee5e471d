//! The engine and the storage in a simulated world, against the promises of `docs/guarantees.md`.
//!
//! `EDGEPUSH_SEED=123 cargo test --test simulator` runs one seed and shows its last events when it
//! fails; `EDGEPUSH_SEEDS=10000` runs more of them, `EDGEPUSH_FIRST=20000` others.

// A test may panic and may add.
#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]

#[path = "simulator/application_server.rs"]
mod application_server;
#[path = "simulator/checker.rs"]
mod checker;
#[path = "simulator/device.rs"]
mod device;
#[path = "simulator/directory.rs"]
mod directory;
#[path = "simulator/frames.rs"]
mod frames;
#[path = "simulator/kinds.rs"]
mod kinds;
#[path = "simulator/plan.rs"]
mod plan;
#[path = "simulator/rng.rs"]
mod rng;
#[path = "simulator/sabotage.rs"]
mod sabotage;
#[path = "simulator/seeds.rs"]
mod seeds;
#[path = "support/signer.rs"]
mod signer;
#[path = "simulator/sleepers.rs"]
mod sleepers;
#[path = "simulator/tally.rs"]
mod tally;
#[path = "simulator/trace.rs"]
mod trace;
#[path = "simulator/updates.rs"]
mod updates;
#[path = "simulator/user_agent.rs"]
mod user_agent;
#[path = "simulator/versions.rs"]
mod versions;
#[path = "simulator/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use edgepush::engine::Input;

use kinds::KINDS;
use sabotage::Sabotage;
use tally::Tally;
use world::World;

const SEEDS: u64 = 200;
/// Worlds in which a gateway that breaks a promise must be found out.
const SABOTAGED_SEEDS: u64 = 50;

/// Worlds in which these faults show, if they are put back. That lasts as long as nobody changes what a
/// world draws by chance, so each has a test of its own beside its code.
const FOUND: &[(u64, &str)] = &[
    (0, "a deletion took with it what the message stood for"),
    (19, "a deletion took with it what the message stood for"),
    (
        46,
        "an endpoint of a lost database came back as the other dialect's",
    ),
    (
        82,
        "a version that could not be written was given out again",
    ),
    (
        13084,
        "what expired on its way from flash came back above what was given out since",
    ),
];

thread_local! {
    /// Whether a broken promise in this thread is what it waits for.
    static IS_SABOTAGED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[test]
fn promises_hold_in_every_simulated_world() {
    seeds::run_all(SEEDS, KINDS, |seed, tells| {
        run(seed, tells, Sabotage::Nothing)
    });
}

#[test]
fn worlds_that_showed_a_fault_show_none_any_more() {
    for (seed, fault) in FOUND {
        let kept = catch_unwind(AssertUnwindSafe(|| run(*seed, false, Sabotage::Nothing)));
        assert!(kept.is_ok(), "seed {seed}, again perhaps: {fault}");
    }
}

#[test]
fn gateway_that_breaks_a_promise_is_found_out() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !IS_SABOTAGED.get() {
            loud(info);
        }
    }));
    IS_SABOTAGED.set(true);
    let is_found = |sabotage: Sabotage, seed: u64| {
        catch_unwind(AssertUnwindSafe(|| run(seed, false, sabotage))).is_err()
    };
    let find = |sabotage| (0..SABOTAGED_SEEDS).find(|seed| is_found(sabotage, *seed));
    let found: Vec<(Sabotage, Option<u64>)> = sabotage::ALL
        .iter()
        .map(|sabotage| (*sabotage, find(*sabotage)))
        .collect();
    IS_SABOTAGED.set(false);
    println!("{found:?}");
    let missed: Vec<_> = found.iter().filter(|(_, seed)| seed.is_none()).collect();
    assert!(missed.is_empty(), "never found out: {missed:?}");
}

fn run(seed: u64, verbose: bool, sabotage: Sabotage) -> Tally {
    let mut world = World::new(seed, verbose, sabotage);
    for _ in 0..world.plan.epochs {
        for _ in 0..world.plan.steps {
            something_happens(&mut world);
        }
        world.settle();
        world.check_forwarding();
        sleepers::fall_asleep(&mut world);
        sleepers::everybody_can_be_woken(&mut world);
    }
    everybody_comes_back(&mut world);
    let names: Vec<Option<String>> = world.agents.iter().map(|a| a.uaid.clone()).collect();
    world.checker.all_received(&names, world.moment());
    // All of it has been acked, and the acks are on flash: nothing is sent any more.
    let sent = world.notifications_sent();
    everybody_comes_back(&mut world);
    assert_eq!(
        world.notifications_sent(),
        sent,
        "acked messages came again"
    );
    world.stop();
    std::mem::take(&mut world.checker.tally)
}

fn something_happens(world: &mut World) {
    if world.rng.percent(world.plan.pace) {
        world.network_round();
    }
    if world.rng.percent(world.plan.pace) {
        world.storage_round();
    }
    match world.rng.below(100) {
        0..=29 => application_server::act(world),
        30..=59 => {
            let agent = world.rng.index(world.agents.len());
            user_agent::act(world, agent);
        }
        60..=84 => {
            let millis = match world.rng.below(100) {
                0..=59 => world.rng.below(20),
                60..=84 => world.rng.below(300),
                85..=97 => world.rng.below(5000),
                _ => world.rng.below(400_000),
            };
            world.advance(Duration::from_millis(millis));
        }
        85..=89 => {
            world.checker.tally.add("spurious timeout");
            world.input(Input::Timeout);
        }
        90..=91 => world.jump(),
        92..=93 if world.plan.faults => world.fail_storage(),
        94 if world.plan.crashes && world.rng.percent(60) => world.crash(),
        95 if world.rng.percent(20) => world.stop(),
        _ => {}
    }
}

/// On one new websocket each, well-behaved, until there is nothing more to do.
fn everybody_comes_back(world: &mut World) {
    let old: Vec<u64> = world.sockets.keys().copied().collect();
    for id in old {
        world.hang_up(id);
    }
    world.settle();
    for agent in 0..world.agents.len() {
        world.agents[agent].calm_down();
        user_agent::connect(world, agent);
    }
    world.settle();
}
