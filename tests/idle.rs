//! A day on which nothing happens, compressed: the engine on a clock of the test and the real storage.
//! User agents are connected and answer pings; nothing of it may reach flash.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

#[path = "support/machine.rs"]
mod machine;

use std::fs;
use std::time::Duration;

use serde_json::json;

use edgepush::engine::SessionId;
use machine::Machine;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes that this process has had written to a disk, as the kernel counts them.
fn bytes_written() -> u64 {
    let account = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = account
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.map_or(0, |bytes| bytes.parse().unwrap())
}

/// A morning with all that a gateway does, after which nothing waits.
fn busy_morning(machine: &mut Machine) -> (SessionId, String) {
    let hello = json!({"messageType": "hello", "use_webpush": true});
    let agents: Vec<_> = (0..20).map(|_| machine.user_agent(&hello)).collect();
    for (session, endpoint) in &agents {
        machine.request("POST", endpoint, Some("60"), b"");
        machine.ack(*session, |sent| sent["version"].clone());
    }
    // One that is acked when it is on flash already.
    let (session, endpoint) = agents[0].clone();
    machine.request("POST", &endpoint, Some("3600"), b"");
    machine.pass(Duration::from_secs(1));
    machine.ack(session, |sent| sent["version"].clone());

    let hello = json!({"messageType": "hello", "uaid": "", "channelIDs": []});
    let (device, simple) = machine.user_agent(&hello);
    machine.request("PUT", &simple, None, b"");
    machine.ack(device, |update| update["version"].clone());
    assert_eq!(machine.statuses.len(), 22);
    assert!(
        machine.statuses.iter().all(|status| *status / 100 == 2),
        "{:?}",
        machine.statuses
    );
    machine.pass(Duration::from_secs(2 * 60 * 60));
    (session, endpoint)
}

#[test]
fn nothing_is_written_on_a_day_when_nothing_happens() {
    let mut machine = Machine::new("day");
    let (session, endpoint) = busy_morning(&mut machine);
    let (before, written) = (machine.files(), bytes_written());
    machine.pings = 0;
    machine.operations = 0;

    machine.pass(DAY);
    assert!(machine.files() == before, "a file has changed");
    assert_eq!(bytes_written(), written);
    assert_eq!(machine.operations, 0, "the storage was asked for something");
    // Each of them was pinged every five minutes.
    assert!(machine.pings > 21 * 280, "{}", machine.pings);

    // And it is all there still: what waits is written down, and how long it has waited each hour.
    machine.request("POST", &endpoint, Some("172800"), b"");
    machine.pass(Duration::from_secs(1));
    let kept = machine.files();
    assert!(kept != before, "a message was to be kept");
    machine.pass(DAY);
    assert!(machine.files() != kept, "the time was to be kept");
    machine.ack(session, |sent| sent["version"].clone());
}
