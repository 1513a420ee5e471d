//! Borrowed subscriptions, as user agents, application servers and the main service meet them: the
//! real program below the stand-in of `main_service`, and below other gateways.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]

#[path = "support/certificates.rs"]
mod certificates;
mod main_service;
mod support;

#[path = "upstream/borrowing.rs"]
mod borrowing;
#[path = "upstream/chain.rs"]
mod chain;
#[path = "upstream/encrypted.rs"]
mod encrypted;
#[path = "upstream/house.rs"]
mod house;
#[path = "upstream/manners.rs"]
mod manners;
#[path = "upstream/operator.rs"]
mod operator;
#[path = "upstream/outages.rs"]
mod outages;
#[path = "upstream/reconciliation.rs"]
mod reconciliation;
#[path = "upstream/redirects.rs"]
mod redirects;
