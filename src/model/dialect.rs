//! The two protocols that user agents speak.

/// The protocol that a user agent speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// Push messages with a body (desktop Firefox, UnifiedPush distributors).
    WebPush,
    /// Version numbers only (Firefox OS).
    SimplePush,
}
