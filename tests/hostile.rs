//! Peers that mean harm, or have gone wild, against the real program, from an address that is not the
//! board's own; well-behaved peers must be served all the while. `docs/hostile-peers.md` says which
//! attack meets which limit, and `benches/hostile.rs` measures how long the others wait.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "anything else fails the test"
)]

mod support;

#[path = "hostile/floods.rs"]
mod floods;
#[path = "hostile/http.rs"]
mod http;
#[path = "hostile/neighbour.rs"]
mod neighbour;
#[path = "hostile/network.rs"]
mod network;
#[path = "hostile/websocket.rs"]
mod websocket;

use neighbour::Neighbour;
use network::Network;
use support::Gateway;

/// Lets `attack` loose on a gateway that has a well-behaved peer, which is served before and after; it
/// is for the attack to see to it that it is served meanwhile. `test` is the calling test's own name.
fn attacked(test: &str, config: &str, attack: impl FnOnce(&mut Gateway, &mut Neighbour, Network)) {
    network::within(test, |network| {
        let mut gateway = Gateway::with_config(config);
        let mut neighbour = Neighbour::new(&gateway, network);
        neighbour.is_served();
        attack(&mut gateway, &mut neighbour, network);
        neighbour.is_served();
        assert!(gateway.is_running(), "{}", gateway.log());
    });
}
