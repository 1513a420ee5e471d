//! SimplePush, as the devices and application servers of its time speak it.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "anything else fails the test"
)]

mod support;

#[path = "simplepush/device.rs"]
mod device;
#[path = "simplepush/websocket.rs"]
mod websocket;
