//! What may be chosen about UnifiedPush.

/// What may be chosen about UnifiedPush. All of it is off unless asked for: who encrypts needs none of
/// it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UnifiedPush {
    /// Messages without a `TTL` or without a `Content-Encoding` are taken, as application servers send
    /// them that were written before UnifiedPush became Web Push.
    pub lenient: bool,
    /// This gateway is a Matrix push gateway to its own endpoints.
    pub matrix: bool,
}
