//! Where log lines go: standard error, as the journal or a person reads them.

use std::io::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record, max_level, set_logger, set_max_level};
use rustix::fs::fstat;
use simple_logger::SimpleLogger;

/// The dependencies' own lines say nothing to an operator below this.
const DEPENDENCIES: LevelFilter = LevelFilter::Warn;

/// Logs from here on. Lines have no time of their own: the journal and containers add one.
///
/// Connected to the journal they begin with their priority (sd-daemon(3)), so that
/// `journalctl -p warning` finds them.
pub fn start(level: LevelFilter) {
    // Only a second logger in this process is refused, and there is none.
    let _ = if is_journal() {
        set_max_level(level);
        set_logger(&Journal)
    } else {
        SimpleLogger::new()
            .with_level(level.min(DEPENDENCIES))
            .with_module_level(OWN, level)
            .init()
    };
}

/// How the names of this program's own modules begin.
const OWN: &str = "edgepush";

/// Whether standard error is the journal's: systemd names it by device and inode (systemd.exec(5)).
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    fstat(io::stderr()).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[derive(Debug)]
struct Journal;

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_heard(metadata, max_level())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // One write for each line, so that those of two threads do not mix.
            let line = line(record);
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn is_heard(metadata: &Metadata<'_>, level: LevelFilter) -> bool {
    let is_own = metadata.target().starts_with(OWN);
    let dependencies = level.min(DEPENDENCIES);
    metadata.level() <= if is_own { level } else { dependencies }
}

/// `<4>[edgepush::io::tls] what happened`, with the priorities of syslog(3).
fn line(record: &Record<'_>) -> String {
    let priority = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    format!("<{priority}>[{}] {}\n", record.target(), record.args())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_the_journal_begins_with_its_priority() {
        let priorities = [
            (Level::Error, '3'),
            (Level::Warn, '4'),
            (Level::Info, '6'),
            (Level::Debug, '7'),
            (Level::Trace, '7'),
        ];
        for (level, priority) in priorities {
            let mut record = Record::builder();
            record.level(level).target("edgepush::io");
            let expected = format!("<{priority}>[edgepush::io] what happened\n");
            let record = record.args(format_args!("what happened")).build();
            assert_eq!(line(&record), expected);
        }
    }

    #[test]
    fn dependencies_are_heard_when_something_is_wrong() {
        let enabled = |target, level| {
            let metadata = Metadata::builder().target(target).level(level).build();
            is_heard(&metadata, LevelFilter::Debug)
        };
        assert!(enabled("edgepush::io::tls", Level::Debug));
        assert!(!enabled("edgepush::io::tls", Level::Trace));
        assert!(enabled("hyper::proto", Level::Warn));
        assert!(!enabled("hyper::proto", Level::Info));
    }
}
