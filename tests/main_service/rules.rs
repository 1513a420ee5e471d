//! The rules of the main service without its threads and sockets, for the simulator.

#![allow(dead_code, reason = "other tests use other parts of it")]
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]

pub mod endpoint;
pub mod service;
pub mod session;
