//! When an application server may be told that its push message was accepted.

/// What stands behind a 2xx answer to an application server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// Acked by the user agent, or committed to flash: a power cut after the answer loses nothing.
    #[default]
    Strict,
    /// Held in memory: the answer comes at once, and a power cut loses what was not written yet.
    Relaxed,
}
