//! signal-hook-mio: SIGTERM and SIGINT ask the process to end, SIGHUP to read its certificate again.

use std::ffi::c_int;
use std::io;

use signal_hook_mio::v1_0::Signals;

use super::reactor::{Direction, Watched};

const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;

/// The signals that ask the process to end.
#[derive(Debug)]
pub struct StopSignals(Watched<Signals>);

impl StopSignals {
    /// Catches them from here on.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn catch() -> io::Result<Self> {
        Watched::new(Signals::new([SIGTERM, SIGINT])?).map(Self)
    }

    /// Waits for one, and says which.
    pub async fn next(&mut self) -> &'static str {
        match next(&mut self.0).await {
            SIGINT => "SIGINT",
            _ => "SIGTERM",
        }
    }
}

/// The signals that ask for files to be read again.
#[derive(Debug)]
pub struct ReloadSignals(Watched<Signals>);

impl ReloadSignals {
    /// Catches them from here on; without this SIGHUP ends the process.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn catch() -> io::Result<Self> {
        Watched::new(Signals::new([SIGHUP])?).map(Self)
    }

    /// Waits for one. Several that come at once may be one.
    pub async fn next(&mut self) {
        next(&mut self.0).await;
    }
}

async fn next(signals: &mut Watched<Signals>) -> c_int {
    loop {
        if let Some(signal) = signals.get_mut().pending().next() {
            return signal;
        }
        signals.must_wait(Direction::Read);
        signals.ready(Direction::Read).await;
    }
}
