//! What a process of this machine uses, as Linux accounts for it in `/proc`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One reading.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Resident memory, in bytes.
    pub(super) resident_bytes: u64,
    /// The part of it that is no file's, in bytes.
    pub(super) anonymous_bytes: u64,
    /// Time on a processor, of all threads that are still there.
    pub(super) cpu: Duration,
    /// How often a thread has waited and was woken.
    pub(super) wakeups: u64,
    /// Handed to `write` and its relatives, in bytes, sockets included.
    pub(super) written_bytes: u64,
    /// What of it went to a disk, in bytes.
    pub(super) stored_bytes: u64,
    /// Reads and writes.
    pub(super) system_calls: u64,
}

impl Usage {
    /// What process `pid` has used so far; `None` if it cannot be looked at.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(process.join("status")).ok()?;
        let io = fs::read_to_string(process.join("io")).unwrap_or_default();
        let mut usage = Self {
            resident_bytes: kibibytes(&status, "VmRSS:"),
            anonymous_bytes: kibibytes(&status, "RssAnon:"),
            written_bytes: number(&io, "wchar:"),
            stored_bytes: number(&io, "write_bytes:"),
            system_calls: number(&io, "syscr:").saturating_add(number(&io, "syscw:")),
            ..Self::default()
        };
        for thread in fs::read_dir(process.join("task")).ok()?.flatten() {
            usage.add_thread(&thread.path());
        }
        Some(usage)
    }

    fn add_thread(&mut self, thread: &Path) {
        // A thread may end while it is looked at.
        let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
        let wakeups = number(&status, "voluntary_ctxt_switches:");
        self.wakeups = self.wakeups.saturating_add(wakeups);
        // Nanoseconds on a processor, nanoseconds in line for one, turns (scheduler's documentation).
        let schedule = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        let nanos = schedule
            .split_whitespace()
            .next()
            .and_then(|n| n.parse().ok());
        let cpu = Duration::from_nanos(nanos.unwrap_or(0));
        self.cpu = self.cpu.saturating_add(cpu);
    }
}

fn kibibytes(text: &str, name: &str) -> u64 {
    number(text, name).saturating_mul(1024)
}

/// The number behind `name` at the start of a line; 0 without it.
fn number(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name));
    let first = value.and_then(|value| value.split_whitespace().next());
    first.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_uses_something_and_one_that_is_not_there_nothing() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 100 << 10, "{usage:?}");
        assert!(usage.anonymous_bytes < usage.resident_bytes, "{usage:?}");
        assert!(usage.cpu > Duration::ZERO, "{usage:?}");
        assert!(Usage::of(u32::MAX).is_none());
    }

    #[test]
    fn lines_are_found_by_their_whole_name() {
        let status =
            "VmRSS:\t  12 kB\nnonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t3\n";
        assert_eq!(kibibytes(status, "VmRSS:"), 12 << 10);
        assert_eq!(number(status, "voluntary_ctxt_switches:"), 3);
        assert_eq!(number(status, "Threads:"), 0);
    }
}
