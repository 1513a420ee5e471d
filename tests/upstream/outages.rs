//! Messages and the ends of links: cut, closed, away, killed; what is acked there is kept here, and
//! nothing comes twice.

use std::time::Duration;

use serde_json::json;

use crate::house::{
    ACCEPTED, House, QUIET, expect_once, number_in, post, receive_numbers, register, register_with,
    return_renamed, try_register,
};
use crate::main_service::Door;
use crate::support::{UserAgent, channel, wait_until};

const FIVE: std::ops::Range<usize> = 0..5;

#[test]
fn five_posted_while_the_link_is_cut_arrive_once_when_it_is_back() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    house.main.go_away();
    house.post_all(&endpoint, FIVE);
    assert_eq!(agent.receive_within(QUIET), None);
    house.main.set_door(Door::Open);
    expect_once(&mut agent, FIVE);
    house.wait_until_nothing_waits_above();
}

#[test]
fn five_posted_before_a_kill_while_the_link_is_cut_arrive_once_after_it() {
    let mut house = House::new();
    let (agent, endpoint) = house.newcomer();
    house.main.go_away();
    house.post_all(&endpoint, FIVE);
    house.gateway.kill();
    house.gateway.start_again();
    let mut agent = UserAgent::hello(&house.gateway, Some(&agent.uaid));
    house.main.set_door(Door::Open);
    expect_once(&mut agent, FIVE);
}

#[test]
fn five_taken_down_before_a_kill_arrive_once_though_the_main_service_never_got_their_acks() {
    let mut house = House::new();
    let (uaid, endpoint) = house.newcomer_who_left();
    // Between the commit and the ack, as far as the main service knows.
    house.main.service().faults.ignores.insert("ack");
    let versions = house.post_all(&endpoint, FIVE);
    for version in &versions {
        house.ack_of(version);
    }
    house.gateway.kill();
    house.main.cut();
    assert_eq!(
        house.main.service().stored_len(),
        5,
        "it will send them again"
    );
    house.main.service().faults.ignores.clear();
    house.gateway.start_again();
    house.wait_for_links(1);
    house.wait_until_nothing_waits_above();
    let mut agent = UserAgent::hello(&house.gateway, Some(&uaid));
    expect_once(&mut agent, FIVE);
}

#[test]
fn what_was_delivered_and_acked_is_not_delivered_again_when_it_comes_down_again() {
    let mut house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    house.main.service().faults.ignores.insert("ack");
    let versions = house.post_all(&endpoint, FIVE);
    expect_once(&mut agent, FIVE);
    for version in &versions {
        house.ack_of(version);
    }
    house.main.cut();
    house.main.service().faults.ignores.clear();
    house.wait_for_links(1);
    house.wait_until_nothing_waits_above();
    assert_eq!(agent.receive_within(QUIET), None);
    // The same when the gateway has only its flash to know by: but for what a kill took back of
    // its memory, which was in nobody's hands but the user agent's.
    house.gateway.terminate();
    house.gateway.start_again();
    let mut agent = UserAgent::hello(&house.gateway, Some(&agent.uaid));
    assert_eq!(agent.receive_within(QUIET), None);
}

#[test]
fn ack_at_the_main_service_means_that_the_message_survives_a_kill() {
    let mut house = House::new();
    let (uaid, endpoint) = house.newcomer_who_left();
    for number in 0..3 {
        let version = house.post(&endpoint, &number.to_string());
        house.ack_of(&version);
        house.gateway.kill();
        house.main.set_door(Door::Closed);
        house.gateway.start_again();
        let mut agent = UserAgent::hello(&house.gateway, Some(&uaid));
        assert_eq!(receive_numbers(&mut agent, 1), [number]);
        agent.settle();
        drop(agent);
        house.main.set_door(Door::Open);
        house.wait_for_links(1);
    }
}

#[test]
fn user_agent_that_never_acks_holds_up_neither_the_acks_above_nor_those_behind_it() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    house.main.go_away();
    house.post_all(&endpoint, 0..25);
    house.main.set_door(Door::Open);
    // Taken from batch after batch, which wait for every ack.
    house.wait_until_nothing_waits_above();
    let mut numbers: Vec<usize> = (0..25).map(|_| number_in(&agent.receive())).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..25).collect::<Vec<_>>());
}

#[test]
fn duplicates_and_disorder_of_the_main_service_reach_nobody() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    house.main.service().faults.duplicates = true;
    house.main.service().faults.reorders = Some(Duration::from_millis(50));
    let versions = house.post_all(&endpoint, 0..10);
    expect_once(&mut agent, 0..10);
    for version in &versions {
        house.ack_of(version);
    }
}

#[test]
fn every_close_is_followed_by_another_connection_under_the_same_name() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    let name = house.names();
    for (number, (code, reason)) in [
        (1011, "SM"),
        (1000, ""),
        (1001, "bye"),
        (4774, "UDP Wakeup"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = house.main.connections().len();
        house.main.close_all(code, reason);
        wait_until("another connection", || {
            house.main.connections().len() > before
        });
        house.wait_for_links(1);
        house.post(&endpoint, &number.to_string());
        assert_eq!(receive_numbers(&mut agent, 1), [number], "after {code}");
    }
    assert_eq!(house.names(), name);
}

#[test]
fn user_agents_that_were_more_than_150_messages_behind_subscribe_again_and_no_others() {
    let mut house = House::new();
    let (behind, endpoint) = house.newcomer();
    let (other, to_other) = house.newcomer();
    house.gateway.kill();
    wait_until("the links are down", || {
        house.main.service().online.is_empty()
    });
    house.post_all(&endpoint, 0..151);
    house.post_all(&to_other, 0..1);
    house.gateway.start_again();
    let mut other = UserAgent::hello(&house.gateway, Some(&other.uaid));
    expect_once(&mut other, 0..1);
    wait_until("the main service has dropped it", || {
        house.main.service().users.len() == 1
    });
    let mut behind = return_renamed(&house.gateway, &behind.uaid);
    let endpoint = register(&mut behind, 1);
    house.post(&endpoint, "151");
    assert_eq!(receive_numbers(&mut behind, 1), [151]);
    // It was not disturbed.
    house.post(&to_other, "1");
    assert_eq!(receive_numbers(&mut other, 1), [1]);
}

#[test]
fn batches_behind_each_other_all_arrive_once_though_the_link_breaks_within() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    house.main.go_away();
    house.post_all(&endpoint, 0..35);
    // Acks are taken late, so that the cuts fall between a batch and its acks.
    house.main.service().faults.slow = Duration::from_millis(300);
    house.main.set_door(Door::Open);
    let mut arrived = receive_numbers(&mut agent, 10);
    house.main.cut();
    arrived.extend(receive_numbers(&mut agent, 10));
    house.main.cut();
    house.main.service().faults.slow = Duration::ZERO;
    arrived.extend(receive_numbers(&mut agent, 15));
    arrived.sort_unstable();
    assert_eq!(arrived, (0..35).collect::<Vec<_>>());
    house.wait_until_nothing_waits_above();
    assert_eq!(agent.receive_within(QUIET), None, "nothing twice");
}

#[test]
fn unreachable_main_service_means_an_endpoint_of_the_gateways_own() {
    let house = House::new();
    for door in [
        Door::Closed,
        Door::Refused("503 Service Unavailable", "Retry-After: 120\r\n".to_owned()),
        Door::Silent,
    ] {
        house.main.set_door(door.clone());
        let (mut agent, endpoint) = house.newcomer();
        assert!(!house.is_borrowed(&endpoint), "{door:?}: {endpoint}");
        assert_eq!(post(&endpoint, &[("TTL", "600")], "1").status, ACCEPTED);
        assert_eq!(receive_numbers(&mut agent, 1), [1], "{door:?}");
    }
}

#[test]
fn unreachable_main_service_can_mean_an_error_until_it_is_back() {
    let house = House::with("endpoints = \"all\"\nunreachable = \"refuse\"\n");
    house.main.go_away();
    let mut agent = UserAgent::hello(&house.gateway, None);
    let message = json!({"messageType": "register", "channelID": channel(1)});
    let refused = try_register(&mut agent, &message);
    assert!(refused["status"].as_u64().unwrap() >= 500, "{refused}");
    assert!(refused["pushEndpoint"].as_str().is_none_or(str::is_empty));
    house.main.set_door(Door::Open);
    let mut endpoint = String::new();
    wait_until("it is back", || {
        let answer = try_register(&mut agent, &message);
        answer["pushEndpoint"]
            .as_str()
            .unwrap_or("")
            .clone_into(&mut endpoint);
        answer["status"] == 200
    });
    house.post(&endpoint, "1");
    assert_eq!(receive_numbers(&mut agent, 1), [1]);
}

#[test]
fn main_service_that_refuses_or_does_not_answer_registers_is_unreachable() {
    let house = House::with("endpoints = \"all\"\nregister_timeout_secs = 1\n");
    let (mut agent, endpoint) = house.newcomer();
    assert!(house.is_borrowed(&endpoint));
    house.main.service().faults.refuses_registers = Some(500);
    assert!(!house.is_borrowed(&register(&mut agent, 2)));
    house.main.service().faults.refuses_registers = None;
    house.main.service().faults.ignores.insert("register");
    assert!(!house.is_borrowed(&register(&mut agent, 3)));
    house.main.service().faults.ignores.clear();

    // An answer that comes too late leaves nothing behind there.
    house.main.service().faults.slow = Duration::from_secs(2);
    assert!(!house.is_borrowed(&register(&mut agent, 4)));
    house.main.service().faults.slow = Duration::ZERO;
    wait_until("only the first is left there", || {
        house.main.service().told("register").len() >= 4
            && house.main.service().channels().len() == 1
    });
    house.post(&endpoint, "1");
    assert_eq!(receive_numbers(&mut agent, 1), [1]);
}

#[test]
fn user_agent_is_answered_in_time_whatever_the_main_service_does() {
    let house = House::with("endpoints = \"all\"\nregister_timeout_secs = 1\n");
    house.main.service().faults.ignores.insert("hello");
    let start = std::time::Instant::now();
    let (mut agent, endpoint) = house.newcomer();
    assert!(!house.is_borrowed(&endpoint));
    // Firefox gives up after ten seconds.
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    // What waits for the main service holds up nobody else.
    let message = json!({"messageType": "register", "channelID": channel(2)});
    agent.send(&message);
    let start = std::time::Instant::now();
    let mut other = UserAgent::hello(&house.gateway, None);
    other.settle();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(agent.receive()["status"], 200);
    let _ = register_with(&mut agent, &message);
}
