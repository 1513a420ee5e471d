//! What happened on one side while the other was away, lost its database or its memory.

use std::fs;

use crate::house::{
    ACCEPTED, House, QUIET, expect_once, post, receive_numbers, register, return_renamed,
};
use crate::main_service::Door;
use crate::support::signer::Signer;
use crate::support::{Http, UserAgent, channel, wait_until};

/// The database of a gateway that is not running is gone; its key is kept.
fn lose_database(house: &House) {
    for file in ["edgepush.db", "edgepush.db-wal", "edgepush.db-shm"] {
        let _ = fs::remove_file(house.gateway.data.join(file));
    }
}

#[test]
fn unregistered_while_the_main_service_was_away_never_comes_back() {
    for kill in [false, true] {
        let mut house = House::new();
        let (mut agent, ended) = house.newcomer();
        let kept = register(&mut agent, 2);
        house.main.go_away();
        agent.unregister(&channel(1));
        house.post_all(&ended, 0..3);
        house.post_all(&kept, 3..4);
        if kill {
            house.gateway.kill();
            house.gateway.start_again();
            agent = UserAgent::hello(&house.gateway, Some(&agent.uaid));
        }
        house.main.set_door(Door::Open);
        expect_once(&mut agent, 3..4);
        wait_until("it is unregistered there", || {
            house.main.service().channels().len() == 1
        });
        assert_eq!(post(&ended, &[("TTL", "600")], "5").status, 410);
        house.wait_until_nothing_waits_above();
    }
}

#[test]
fn all_unregistered_while_the_main_service_was_away_leaves_nothing_there_and_no_link() {
    let mut house = House::new();
    let (mut agent, _) = house.newcomer();
    house.main.go_away();
    agent.unregister(&channel(1));
    house.gateway.terminate();
    house.gateway.start_again();
    house.main.set_door(Door::Open);
    wait_until("it is unregistered there", || {
        house.main.service().channels().is_empty()
    });
    wait_until("the link is down", || {
        house.main.service().online.is_empty()
    });
}

#[test]
fn main_service_that_forgot_one_user_agent_costs_that_one_its_name_and_no_other() {
    let house = House::new();
    let (mut lost, old) = house.newcomer();
    let before = house.names();
    let (mut other, to_other) = house.newcomer();
    house.main.service().users.remove(&before[0]);
    house.main.cut();
    lost.expect_end();
    let mut again = return_renamed(&house.gateway, &lost.uaid);
    let new = register(&mut again, 1);
    assert_ne!(old, new);
    house.post(&new, "1");
    assert_eq!(receive_numbers(&mut again, 1), [1]);

    // The same websocket as before.
    house.wait_for_links(2);
    house.post(&to_other, "2");
    assert_eq!(receive_numbers(&mut other, 1), [2]);
    // And its new name is there to stay.
    let again = UserAgent::hello(&house.gateway, Some(&again.uaid)).uaid == again.uaid;
    assert!(again, "told once");
}

#[test]
fn what_waits_here_arrives_before_a_lost_name_is_taken() {
    let house = House::for_key(&Signer::new(1).public_key());
    let mut agent = UserAgent::hello(&house.gateway, None);
    agent.register_two();
    let local = register(&mut agent, 3);
    assert!(!house.is_borrowed(&local));
    let uaid = agent.uaid.clone();
    drop(agent);
    for number in 0..3 {
        let answer = post(&local, &[("TTL", "600")], &number.to_string());
        assert_eq!(answer.status, ACCEPTED);
    }
    house.main.service().reset();
    house.main.cut();
    house
        .gateway
        .wait_for_metric("edgepush_upstream_user_agents_to_tell", 1);
    let mut agent = UserAgent::hello(&house.gateway, Some(&uaid));
    assert_eq!(agent.uaid, uaid);
    assert_eq!(receive_numbers(&mut agent, 3), [0, 1, 2]);
    agent.expect_end();
    return_renamed(&house.gateway, &uaid);
    house
        .gateway
        .wait_for_metric("edgepush_upstream_user_agents_to_tell", 0);
    assert_eq!(post(&local, &[("TTL", "600")], "3").status, 410);
}

#[test]
fn user_agents_that_borrowed_learn_that_the_main_service_is_taken_away() {
    let mut house = House::new();
    let (uaid, _) = house.newcomer_who_left();
    house.gateway.restart_with("");
    house
        .gateway
        .wait_for_log("upstream_taken_away user_agents=1");
    let console = Http::connect(house.gateway.console).send("GET", "/", &[], b"");
    let console = String::from_utf8(console.body).unwrap();
    assert!(
        console.contains("have lost their subscriptions"),
        "{console}"
    );
    let mut agent = return_renamed(&house.gateway, &uaid);
    let endpoint = register(&mut agent, 1);
    assert!(!house.is_borrowed(&endpoint));
    assert_eq!(post(&endpoint, &[("TTL", "600")], "1").status, ACCEPTED);
    assert_eq!(receive_numbers(&mut agent, 1), [1]);
}

#[test]
fn user_agent_that_was_away_when_its_subscriptions_were_lost_learns_it_after_a_restart() {
    let mut house = House::new();
    let (uaid, _) = house.newcomer_who_left();
    house.main.service().reset();
    house.main.cut();
    wait_until("the gateway has asked for its name", || {
        house.main.service().told("hello").len() == 2
    });
    house
        .gateway
        .wait_for_metric("edgepush_upstream_resets_total", 1);
    house.gateway.terminate();
    house.gateway.start_again();
    let mut agent = return_renamed(&house.gateway, &uaid);
    let endpoint = register(&mut agent, 1);
    house.post(&endpoint, "1");
    assert_eq!(receive_numbers(&mut agent, 1), [1]);
}

#[test]
fn local_subscriptions_of_others_do_not_notice_that_the_main_service_lost_everything() {
    let house = House::for_key(&Signer::new(1).public_key());
    let mut borrower = UserAgent::hello(&house.gateway, None);
    borrower.register_two();
    let mut local = UserAgent::hello(&house.gateway, None);
    let endpoint = register(&mut local, 1);
    house.main.service().reset();
    house.main.cut();
    borrower.expect_end();
    assert_eq!(post(&endpoint, &[("TTL", "600")], "1").status, ACCEPTED);
    assert_eq!(receive_numbers(&mut local, 1), [1]);
    assert_eq!(
        UserAgent::hello(&house.gateway, Some(&local.uaid)).uaid,
        local.uaid
    );
}

#[test]
fn lost_database_lets_those_who_borrowed_subscribe_again() {
    let mut house = House::new();
    let (agent, old) = house.newcomer();
    house.gateway.kill();
    lose_database(&house);
    house.gateway.start_again();
    // Nobody takes what is posted there any more: its user agent must not believe that it is well.
    house.post(&old, "0");
    let mut agent = return_renamed(&house.gateway, &agent.uaid);
    let endpoint = register(&mut agent, 1);
    assert!(house.is_borrowed(&endpoint));
    house.post(&endpoint, "1");
    assert_eq!(receive_numbers(&mut agent, 1), [1]);
    assert_eq!(agent.receive_within(QUIET), None);
}

#[test]
fn outage_of_both_sides_one_after_the_other_changes_nothing() {
    let mut house = House::new();
    let (uaid, endpoint) = house.newcomer_who_left();
    let names = house.names();
    for number in 0..3 {
        house.main.go_away();
        house.post(&endpoint, &number.to_string());
        house.gateway.terminate();
        house.main.set_door(Door::Open);
        house.gateway.start_again();
        house.wait_for_links(1);
    }
    let mut agent = UserAgent::hello(&house.gateway, Some(&uaid));
    assert_eq!(agent.uaid, uaid);
    expect_once(&mut agent, 0..3);
    assert_eq!(house.names(), names);
    assert_eq!(
        house.main.service().told("register").len(),
        1,
        "nothing is registered again"
    );
}
