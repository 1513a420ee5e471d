//! The words of the field, as types that cannot hold a wrong value.
//!
//! No wire text, no clock, no randomness: those belong to `protocol` and `io`.

pub mod access;
pub mod dialect;
pub mod durability;
pub mod ids;
pub mod join_token;
pub mod limits;
pub mod message;
pub mod public_url;
pub mod simplepush;
pub mod store;
pub mod time;
pub mod unifiedpush;
pub mod upstream;
pub mod version;
pub mod wakeup;
