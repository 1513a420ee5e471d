//! What the main service sees of the house: nothing that it does not need, and not too often.

use std::time::Duration;

use serde_json::{Value, json};

use crate::house::{House, QUIET, post, receive_numbers, register, register_with};
use crate::main_service::Door;
use crate::support::signer::Signer;
use crate::support::{UserAgent, channel, path_of, wait_until};

#[test]
fn nothing_about_local_subscriptions_leaves_the_house() {
    let signer = Signer::new(1);
    let key = signer.public_key();
    let house = House::for_key(&key);
    let mut agent = UserAgent::hello(&house.gateway, None);
    let borrowed = register_with(
        &mut agent,
        &json!({"messageType": "register", "channelID": channel(1), "key": key}),
    );
    let local_key = Signer::new(2).public_key();
    let own = register(&mut agent, 2);
    let keyed = register_with(
        &mut agent,
        &json!({"messageType": "register", "channelID": channel(3), "key": local_key}),
    );
    let (mut local, endpoint) = house.newcomer();
    for endpoint in [&own, &endpoint] {
        post(
            endpoint,
            &[("TTL", "600"), ("Topic", "secret-topic")],
            "7777",
        );
    }
    assert_eq!(receive_numbers(&mut agent, 1), [7777]);
    assert_eq!(receive_numbers(&mut local, 1), [7777]);
    local.unregister(&channel(1));
    agent.unregister(&channel(3));
    house.main.cut();
    house.wait_for_links(1);
    let (origin, expires) = {
        let service = house.main.service();
        (service.origin.clone(), service.wall_secs + 600)
    };
    let signed = signer.authorization(&origin, expires);
    post(
        &borrowed,
        &[("TTL", "600"), ("Authorization", &signed)],
        "1",
    );
    assert_eq!(receive_numbers(&mut agent, 1), [1]);
    wait_until("its ack", || house.main.service().acks().len() == 1);

    let heard = house.main.service().everything_heard();
    assert!(heard.contains(&key), "what is borrowed is told");
    let mut secrets = vec![
        channel(2),
        channel(3),
        local_key,
        "secret-topic".to_owned(),
        "7777".to_owned(),
    ];
    for uaid in [&agent.uaid, &local.uaid] {
        secrets.push(uaid.replace('-', ""));
        secrets.push(uuid::Uuid::try_parse(uaid).unwrap().to_string());
    }
    for endpoint in [&own, &keyed, &endpoint] {
        secrets.push(path_of(endpoint).rsplit('/').next().unwrap().to_owned());
    }
    for secret in secrets {
        assert!(!heard.contains(&secret), "{secret} in {heard}");
    }
    assert_eq!(house.main.service().told("register").len(), 1);
    let types: Vec<Value> = ["unregister", "nack", "broadcast_subscribe", "ping"]
        .into_iter()
        .flat_map(|kind| house.main.service().told(kind))
        .collect();
    assert_eq!(types, Vec::<Value>::new());
}

#[test]
fn link_that_has_nothing_to_do_says_nothing() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    house.post(&endpoint, "1");
    receive_numbers(&mut agent, 1);
    house.wait_until_nothing_waits_above();
    std::thread::sleep(QUIET);
    let before = house.main.service().heard.len();
    // What goes on inside is no reason to speak either.
    agent.send_text("{}");
    assert_eq!(agent.receive(), json!({}));
    let mut again = UserAgent::hello(&house.gateway, Some(&agent.uaid));
    again.settle();
    std::thread::sleep(5 * QUIET);
    assert_eq!(house.main.service().heard.len(), before);
    assert_eq!(house.main.connections().len(), 1);
}

#[test]
fn pings_of_the_main_service_are_answered_in_time_and_its_ping_rule_is_kept() {
    let house = House::new();
    {
        let mut service = house.main.service();
        service.rules.ping_interval = Duration::from_millis(200);
        service.rules.pong_timeout = Duration::from_millis(500);
    }
    let (mut agent, endpoint) = house.newcomer();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(house.main.connections().len(), 1, "never closed");
    house.post(&endpoint, "1");
    assert_eq!(receive_numbers(&mut agent, 1), [1]);
}

#[test]
fn all_links_together_keep_below_the_rate_of_connections() {
    let house =
        House::with("endpoints = \"all\"\nconnects_per_min_max = 8\nreconnect_secs_max = 10\n");
    let _agents: Vec<_> = (0..3).map(|_| house.newcomer()).collect();
    house.wait_for_links(3);
    // Everybody is taken in and thrown out at once, for as long as the test has patience.
    for _ in 0..100 {
        house.main.cut();
        std::thread::sleep(Duration::from_millis(100));
    }
    let connections = house.main.connections().len();
    assert!(
        (4..=8).contains(&connections),
        "{connections} in less than a minute"
    );
}

#[test]
fn attempts_on_a_closed_port_come_more_and_more_slowly() {
    let house = House::new();
    let (_agent, _) = house.newcomer();
    house
        .main
        .set_door(Door::Refused("500 Internal Server Error", String::new()));
    house.main.cut();
    std::thread::sleep(Duration::from_secs(12));
    let times = house.main.connections();
    // After 0.5 to 1, 1 to 2, 2 to 4 and 4 to 8 seconds, the first being the one that was cut.
    assert!((4..=5).contains(&times.len()), "{times:?}");
    let waits: Vec<Duration> = times[1..]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!(
        waits
            .iter()
            .zip(1..)
            .all(|(wait, at)| *wait >= Duration::from_millis(500 << at)),
        "{times:?}"
    );
}

#[test]
fn main_service_that_says_when_to_come_again_is_left_alone_until_then() {
    let house = House::new();
    let (_agent, _) = house.newcomer();
    let headers = "Retry-After: 120\r\n".to_owned();
    house
        .main
        .set_door(Door::Refused("503 Service Unavailable", headers));
    house.main.cut();
    wait_until("one attempt", || house.main.connections().len() == 2);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(house.main.connections().len(), 2);
}

#[test]
fn broadcast_is_subscribed_once_and_reaches_everybody_who_listens() {
    let house = House::new();
    house
        .main
        .service()
        .broadcasts
        .insert("news".to_owned(), "1".to_owned());
    house.main.service().rules.ping_interval = Duration::from_millis(100);
    let mut agents: Vec<UserAgent> = (0..3).map(|_| house.newcomer().0).collect();
    for agent in &mut agents {
        agent.send(&json!({"messageType": "broadcast_subscribe", "broadcasts": {"news": "0"}}));
    }
    let told = |version: &str| json!({"messageType": "broadcast", "broadcasts": {"news": version}});
    for agent in &mut agents {
        let mut message = agent.receive();
        if message["broadcasts"]["errors"].is_object() {
            // It was quicker than the main service.
            message = agent.receive();
        }
        assert_eq!(message, told("1"));
    }
    house
        .main
        .service()
        .broadcasts
        .insert("news".to_owned(), "2".to_owned());
    for agent in &mut agents {
        assert_eq!(agent.receive(), told("2"));
    }
    let subscriptions = house.main.service().told("broadcast_subscribe").len();
    let in_hello = house
        .main
        .service()
        .told("hello")
        .iter()
        .filter(|hello| hello["broadcasts"]["news"].is_string())
        .count();
    assert_eq!(subscriptions + in_hello, 1);
    // Also after the link was cut, and what changed meanwhile.
    house.main.go_away();
    house
        .main
        .service()
        .broadcasts
        .insert("news".to_owned(), "3".to_owned());
    house.main.set_door(Door::Open);
    for agent in &mut agents {
        assert_eq!(agent.receive(), told("3"));
    }
}
