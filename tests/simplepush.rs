//! SimplePush, as the devices and application servers of its time speak it.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "anything else fails the test"
)]

mod support;

#[path = "simplepush/delivery.rs"]
mod delivery;
#[path = "simplepush/device.rs"]
mod device;
#[path = "simplepush/endpoint.rs"]
mod endpoint;
#[path = "simplepush/udp.rs"]
mod udp;
#[path = "simplepush/websocket.rs"]
mod websocket;
