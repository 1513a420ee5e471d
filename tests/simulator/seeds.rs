//! Runs many worlds, or one again: as the environment asks.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::tally::Tally;

const THREADS: usize = 2;

/// Runs the worlds of `usual` many seeds: as many as `EDGEPUSH_SEEDS` says, from `EDGEPUSH_FIRST` on; or
/// the one of `EDGEPUSH_SEED`, which tells its events. `run` gets a seed and whether to tell, and panics if
/// a promise is broken.
///
/// # Panics
///
/// If a world fails, with its seed; if over all of them something of `kinds` never happened.
pub(crate) fn run_all(usual: u64, kinds: &[&'static str], run: impl Fn(u64, bool) -> Tally + Sync) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("EDGEPUSH_SEED") {
        run(seed, true);
        return;
    }
    let first: u64 = number("EDGEPUSH_FIRST").unwrap_or(0);
    let seeds = first..first + number("EDGEPUSH_SEEDS").unwrap_or(usual);
    let (tally, failed) = run_each(seeds, |seed| run(seed, false));
    assert!(
        failed.is_empty(),
        "these seeds failed, each can be run alone with EDGEPUSH_SEED: {failed:?}"
    );
    tally.check(kinds);
}

/// What was exercised, and which seeds failed.
fn run_each(seeds: Range<u64>, run: impl Fn(u64) -> Tally + Sync) -> (Tally, Vec<u64>) {
    let next = AtomicU64::new(seeds.start);
    let tally = Mutex::new(Tally::default());
    let failed = Mutex::new(Vec::new());
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end {
            break;
        }
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(done) => tally.lock().unwrap().merge(&done),
            Err(_) => {
                println!("seed {seed} failed");
                failed.lock().unwrap().push(seed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    (tally.into_inner().unwrap(), failed)
}
