//! What the operator sees of the links: numbers, states, the last error in words.

use crate::house::{House, receive_numbers};
use crate::main_service::Door;
use crate::support::{Gateway, Http, wait_until};

fn page(gateway: &Gateway, path: &str) -> String {
    let answer = Http::connect(gateway.console).send("GET", path, &[], b"");
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body).unwrap()
}

#[test]
fn metrics_count_what_went_over_the_link() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    house.main.service().faults.duplicates = true;
    house.post_all(&endpoint, 0..3);
    receive_numbers(&mut agent, 3);
    house.wait_until_nothing_waits_above();
    agent.unregister(&crate::support::channel(1));
    for (name, value) in [
        ("connects_total", 1),
        ("registrations_total", 1),
        ("registrations_failed_total", 0),
        ("unregistrations_total", 1),
        ("messages_total", 6),
        ("duplicates_total", 3),
        ("resets_total", 0),
        ("borrowed_subscriptions", 0),
    ] {
        let name = format!("edgepush_upstream_{name}");
        house.gateway.wait_for_metric(&name, value);
    }
    assert!(house.gateway.metric("edgepush_upstream_acks_total") >= 3);
}

#[test]
fn console_says_the_state_of_each_link_and_its_last_error_in_words() {
    let house = House::new();
    let (agent, _) = house.newcomer();
    let ready = "edgepush_upstream_links{state=\"ready\"}";
    house.gateway.wait_for_metric(ready, 1);
    let console = page(&house.gateway, "/");
    assert!(console.contains("ready"), "{console}");
    let tag: String = agent.uaid.replace('-', "").chars().take(8).collect();
    assert!(console.contains(&tag), "{tag} in {console}");
    assert!(!console.contains(&agent.uaid), "never the whole name");

    house
        .main
        .set_door(Door::Refused("503 Service Unavailable", String::new()));
    house.main.cut();
    wait_until("the error is told", || {
        page(&house.gateway, "/").contains("503")
    });
    house
        .gateway
        .wait_for_metric("edgepush_upstream_links{state=\"waiting\"}", 1);
    house.gateway.wait_for_metric(ready, 0);
}
