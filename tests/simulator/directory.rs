//! Where the database of a simulated gateway is.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// A new one, in memory where the system offers that: a simulator is not there to wear out a disk.
pub(crate) fn new_directory(simulator: &str) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let shared_memory = PathBuf::from("/dev/shm");
    let parent = if shared_memory.is_dir() {
        shared_memory
    } else {
        std::env::temp_dir()
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("edgepush-{simulator}-{}-{number}", std::process::id());
    let directory = parent.join(name);
    std::fs::create_dir_all(&directory).expect("a directory for the database");
    directory
}
