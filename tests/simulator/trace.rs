//! What has happened last, for whoever reads why a run has failed.

use std::collections::VecDeque;

/// Events that are shown when a run fails.
const LINES: usize = 4000;

/// The last events, shown when it is dropped by a panic. Keeps none unless somebody wants to read them.
#[derive(Debug)]
pub(crate) struct Trace(Option<VecDeque<String>>);

impl Trace {
    pub(crate) fn new(verbose: bool) -> Self {
        Self(verbose.then(VecDeque::new))
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            if lines.len() >= LINES {
                lines.pop_front();
            }
            lines.push_back(line());
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.0.iter().flatten() {
                eprintln!("{line}");
            }
        }
    }
}
