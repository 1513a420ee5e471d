//! SIGTERM and SIGINT: the process is asked to end.

use std::io;

use async_signal::{Signal, Signals};
use smol::stream::StreamExt;

/// The signals that ask the process to end.
#[derive(Debug)]
pub struct StopSignals(Signals);

impl StopSignals {
    /// Catches them from here on.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn catch() -> io::Result<Self> {
        Signals::new([Signal::Term, Signal::Int]).map(Self)
    }

    /// Waits for one, and says which.
    pub async fn next(&mut self) -> &'static str {
        match self.0.next().await {
            Some(Ok(Signal::Int)) => "SIGINT",
            // Without signals there is only the other way to end: as if asked to.
            _ => "SIGTERM",
        }
    }
}
