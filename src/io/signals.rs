//! SIGTERM and SIGINT: the process is asked to end. SIGHUP: to read its certificate again.

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

/// The signals that ask for files to be read again.
#[derive(Debug)]
pub struct ReloadSignals(Signals);

impl ReloadSignals {
    /// Catches them from here on; without this SIGHUP ends the process.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn catch() -> io::Result<Self> {
        Signals::new([Signal::Hup]).map(Self)
    }

    /// Waits for one. Several that come at once may be one.
    pub async fn next(&mut self) {
        if self.0.next().await.is_none() {
            // There will be none any more.
            std::future::pending().await
        }
    }
}
