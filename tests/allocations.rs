//! What the engine allocates: for each push message, and for as long as a user agent is connected. Counted,
//! not timed: the same on every machine.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

#[path = "support/machine.rs"]
mod machine;

use std::cell::Cell;

use serde_json::json;

use edgepush::engine::SessionId;
use machine::Machine;

const HELLO: &str = r#"{"messageType": "hello", "use_webpush": true}"#;

thread_local! {
    /// Allocations of the engine.
    static COUNTED: Cell<u64> = const { Cell::new(0) };
}

fn count(work: &mut dyn FnMut()) {
    let found = allocation_counter::measure(work);
    COUNTED.set(COUNTED.get() + found.count_total);
}

/// A push message that is sent, acked within the window and answered.
fn push(machine: &mut Machine, session: SessionId, endpoint: &str) {
    machine.request("POST", endpoint, Some("60"), b"");
    machine.ack(session, |sent| sent["version"].clone());
}

#[test]
fn push_that_is_acked_within_its_window_takes_few_allocations() {
    const PUSHES: u64 = 100;
    let mut machine = Machine::new("push");
    let hello = serde_json::from_str(HELLO).unwrap();
    let (session, endpoint) = machine.user_agent(&hello);
    for around in [|work: &mut dyn FnMut()| work(), count] {
        machine.around = around;
        for _ in 0..PUSHES {
            push(&mut machine, session, &endpoint);
        }
    }
    assert_eq!(machine.statuses.len() as u64, 2 * PUSHES);
    assert!(machine.statuses.iter().all(|status| *status == 201));
    // Each is about 100 instructions, of 100,000 for all of a push message. More of them mean that something
    // is made twice. A list that grows meanwhile does not count: it is less than one for each.
    let each = COUNTED.get() / PUSHES;
    assert!(each <= 18, "{each} for each push message");
}

#[test]
fn user_agent_that_is_quiet_takes_little_memory_of_the_engine() {
    const AGENTS: i64 = 1000;
    let mut machine = Machine::new("quiet");
    let hello = json!({"messageType": "hello", "use_webpush": true});
    // What is made once, such as prepared statements.
    machine.user_agent(&hello);
    let found = allocation_counter::measure(|| {
        for _ in 0..AGENTS {
            machine.user_agent(&hello);
            machine.sent.clear();
        }
    });
    let each = found.bytes_current / AGENTS;
    // 523 when this was written, without the name that it reached us by: 168 of its session, 200 of its
    // agent, 16 of its subscription, the rest its places in tables. 10,000 user agents make 5 MB of it.
    assert!(each <= 550, "{each} bytes for each");
}
