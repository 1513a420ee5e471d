//! Borrowed subscriptions while everything is well: who gets them, and what travels on them.

use serde_json::{Value, json};

use crate::house::{ACCEPTED, House, QUIET, post, register, register_with, try_register};
use crate::support::signer::Signer;
use crate::support::{UserAgent, channel, handshake, path_of, wait_until};

#[test]
fn message_posted_to_the_main_service_reaches_a_user_agent_of_the_house_with_its_headers() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    assert!(house.is_borrowed(&endpoint), "{endpoint}");

    let version = house.post(&endpoint, "body");
    let notification = agent.receive();
    assert_eq!(notification["messageType"], "notification");
    assert_eq!(notification["channelID"], channel(1));
    assert_eq!(notification["data"], "Ym9keQ");
    assert_eq!(notification["headers"], json!({"encoding": "aes128gcm"}));
    agent.ack(&notification);
    assert_eq!(house.ack_of(&version), 100);

    let headers = [
        ("TTL", "600"),
        ("Content-Encoding", "aesgcm"),
        ("Encryption", "keyid=p256dh;salt=S82AseB7pAVBJ2143qtM3A"),
        (
            "Crypto-Key",
            "keyid=p256dh;dh=BNoRDbb84JGm8g5Z5CFxurSqsXWJ11ItfXEWYVLE85Y",
        ),
    ];
    let address = house.main.endpoints;
    let mut http = crate::support::Http::connect(address);
    let answer = http.send("POST", &path_of(&endpoint), &headers, b"body");
    assert_eq!(answer.status, ACCEPTED);
    let notification = agent.receive();
    let expected = json!({"encoding": "aesgcm",
        "encryption": "keyid=p256dh;salt=S82AseB7pAVBJ2143qtM3A",
        "crypto_key": "keyid=p256dh;dh=BNoRDbb84JGm8g5Z5CFxurSqsXWJ11ItfXEWYVLE85Y"});
    assert_eq!(notification["headers"], expected);
    agent.ack(&notification);

    house.post(&endpoint, "");
    let notification = agent.receive();
    assert_eq!(notification["channelID"], channel(1));
    let nothing = (&notification["data"], &notification["headers"]);
    assert_eq!(nothing, (&Value::Null, &Value::Null));
}

#[test]
fn longest_message_that_the_main_service_takes_arrives() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    house.post(&endpoint, &"x".repeat(5630));
    let data = agent.receive()["data"].as_str().unwrap().len();
    // Base64 without padding.
    assert_eq!(data, (5630_usize * 4).div_ceil(3));
}

#[test]
fn vapid_key_of_a_subscription_is_the_same_at_the_main_service() {
    let house = House::new();
    let mut agent = UserAgent::hello(&house.gateway, None);
    let signer = Signer::new(1);
    let endpoint = register_with(
        &mut agent,
        &json!({"messageType": "register", "channelID": channel(1), "key": signer.public_key()}),
    );
    assert!(endpoint.contains("/wpush/v2/"), "{endpoint}");
    assert_eq!(
        house.main.service().told("register")[0]["key"],
        signer.public_key()
    );

    assert_eq!(post(&endpoint, &[("TTL", "600")], "unsigned").status, 401);
    let origin = house.main.service().origin.clone();
    let expires = house.main.service().wall_secs + 600;
    let signed = signer.authorization(&origin, expires);
    let headers = [("TTL", "600"), ("Authorization", signed.as_str())];
    assert_eq!(post(&endpoint, &headers, "signed").status, ACCEPTED);
    assert_eq!(agent.receive()["data"], "c2lnbmVk");
}

#[test]
fn key_that_the_main_service_refuses_is_refused_here_as_well() {
    let house = House::new();
    let mut agent = UserAgent::hello(&house.gateway, None);
    let message = json!({"messageType": "register", "channelID": channel(1), "key": "+/"});
    assert_eq!(try_register(&mut agent, &message)["status"], 400);
    agent.settle();
    assert_eq!(house.main.service().channels(), []);
}

#[test]
fn push_message_becomes_a_version_update_for_a_simplepush_device() {
    let house = House::new();
    let mut device = UserAgent::connect(&house.gateway);
    device.send(&json!({"messageType": "hello", "channelIDs": []}));
    assert_eq!(device.receive()["status"], 200);
    let endpoint = register(&mut device, 1);
    let mut last = 0;
    for body in ["", "first", "second"] {
        let above = house.post(&endpoint, body);
        let told = device.receive();
        let update = &told["updates"][0];
        assert_eq!(told["messageType"], "notification");
        assert_eq!(update["channelID"], channel(1));
        let version = update["version"].as_u64().unwrap();
        assert!(version > last, "{version} after {last}");
        last = version;
        device.send(&json!({"messageType": "ack",
            "updates": [{"channelID": channel(1), "version": version}]}));
        house.ack_of(&above);
    }
    assert_eq!(device.receive_within(QUIET), None);
}

#[test]
fn without_a_policy_nothing_is_borrowed_and_nobody_connects() {
    let house = House::with("");
    let (mut agent, endpoint) = house.newcomer();
    assert!(!house.is_borrowed(&endpoint), "{endpoint}");
    assert_eq!(post(&endpoint, &[("TTL", "600")], "1").status, ACCEPTED);
    assert_eq!(agent.receive()["channelID"], channel(1));
    std::thread::sleep(QUIET);
    assert!(house.main.connections().is_empty());
}

#[test]
fn subscriptions_of_one_vapid_key_are_borrowed_and_no_others() {
    let key = Signer::new(1).public_key();
    let house = House::for_key(&key);
    let mut agent = UserAgent::hello(&house.gateway, None);
    let mut keyed = |number: u32, key: &str| {
        let message = json!({"messageType": "register", "channelID": channel(number), "key": key});
        register_with(&mut agent, &message)
    };
    assert!(house.is_borrowed(&keyed(1, &key)));
    assert!(
        house.is_borrowed(&keyed(2, &format!("{key}="))),
        "padding says nothing"
    );
    assert!(!house.is_borrowed(&keyed(3, &Signer::new(2).public_key())));
    assert!(!house.is_borrowed(&register(&mut agent, 4)));
}

#[test]
fn subscriptions_of_one_user_agent_are_borrowed_and_no_others() {
    let mut house = House::with("");
    let (first, _) = house.newcomer();
    let tag: String = first.uaid.replace('-', "").chars().take(8).collect();
    let rule = format!("endpoints = [{{ user_agent = \"{tag}\" }}]\n");
    house
        .gateway
        .restart_with(&crate::house::config(&house.main.url(), &rule));
    let mut first = UserAgent::hello(&house.gateway, Some(&first.uaid));
    assert!(house.is_borrowed(&register(&mut first, 2)));
    let (_, other) = house.newcomer();
    assert!(!house.is_borrowed(&other));
}

#[test]
fn subscriptions_of_those_with_a_join_token_are_borrowed_and_no_others() {
    let token = "correct-horse-battery";
    let house = House::with(&format!(
        "endpoints = [{{ join_token = \"{token}\" }}]\n[access]\njoin_tokens = [\"{token}\"]\n"
    ));
    let path = handshake(&format!("/{token}"), "");
    let (agent, _) = UserAgent::connect_with(&house.gateway, &path);
    let mut agent = agent.greet(None);
    assert!(house.is_borrowed(&register(&mut agent, 1)));
    let (_, other) = house.newcomer();
    assert!(!house.is_borrowed(&other));
}

#[test]
fn each_user_agent_has_a_name_of_its_own_at_the_main_service_or_all_have_one() {
    for (identity, names) in [("per-user-agent", 2), ("shared", 1)] {
        let house = House::with(&format!("endpoints = \"all\"\nidentity = \"{identity}\"\n"));
        let (mut first, to_first) = house.newcomer();
        let (mut second, to_second) = house.newcomer();
        assert_eq!(house.names().len(), names, "{identity}");
        assert_eq!(house.main.service().online.len(), names, "{identity}");
        house.post(&to_second, "2");
        house.post(&to_first, "1");
        assert_eq!(first.receive()["data"], "MQ", "{identity}");
        assert_eq!(second.receive()["data"], "Mg", "{identity}");
        assert_eq!(first.receive_within(QUIET), None);
        assert_eq!(second.receive_within(QUIET), None);
    }
}

#[test]
fn registering_again_gives_an_endpoint_that_delivers_to_the_same_subscription() {
    let house = House::new();
    let (mut agent, first) = house.newcomer();
    let again = register(&mut agent, 1);
    assert!(house.is_borrowed(&again));
    for endpoint in [&first, &again] {
        house.post(endpoint, "1");
        let notification = agent.receive();
        assert_eq!(notification["channelID"], channel(1));
        agent.ack(&notification);
    }
}

#[test]
fn unregistered_here_is_unregistered_there_and_the_link_of_nothing_ends() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    agent.unregister(&channel(1));
    wait_until("it is unregistered there", || {
        house.main.service().channels().is_empty()
    });
    assert_eq!(post(&endpoint, &[("TTL", "600")], "1").status, 410);
    wait_until("nobody is connected for nothing", || {
        house.main.service().online.is_empty()
    });
    assert_eq!(agent.receive_within(QUIET), None);
}

#[test]
fn message_for_a_user_agent_that_is_away_is_taken_down_and_waits_here() {
    let house = House::new();
    let (uaid, endpoint) = house.newcomer_who_left();
    let versions = house.post_all(&endpoint, 0..3);
    for version in &versions {
        house.ack_of(version);
    }
    house.main.go_away();
    let mut agent = UserAgent::hello(&house.gateway, Some(&uaid));
    crate::house::expect_once(&mut agent, 0..3);
}

#[test]
fn code_of_an_ack_is_handed_up() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    for code in [100, 101, 102] {
        let version = house.post(&endpoint, "1");
        let notification = agent.receive();
        let (channel, own) = (&notification["channelID"], &notification["version"]);
        let update = json!({"channelID": channel, "version": own, "code": code});
        agent.send(&json!({"messageType": "ack", "updates": [update]}));
        assert_eq!(house.ack_of(&version), code);
        if code == 102 {
            // It has disowned the subscription.
            return;
        }
    }
}

#[test]
fn nack_is_handed_up_with_its_code_behind_the_ack() {
    let house = House::new();
    let (mut agent, endpoint) = house.newcomer();
    let version = house.post(&endpoint, "1");
    let notification = agent.receive();
    agent.ack(&notification);
    let own = &notification["version"];
    agent.send(&json!({"messageType": "nack", "version": own, "code": 303}));
    wait_until("the nack is heard", || {
        let nack = json!({"messageType": "nack", "version": version, "code": 303});
        house.main.service().told("nack") == [nack]
    });
    assert_eq!(house.ack_of(&version), 100);
    house.wait_for_links(1);
}

#[test]
fn message_of_a_subscription_that_has_ended_here_does_not_hold_up_the_others() {
    let house = House::new();
    let (mut agent, ended) = house.newcomer();
    let kept = register(&mut agent, 2);
    house.wait_for_links(1);
    house.main.go_away();
    // More than a batch of them, so that they are in front of what follows.
    house.post_all(&ended, 0..25);
    house.post_all(&kept, 25..30);
    agent.unregister(&channel(1));
    house.main.set_door(crate::main_service::Door::Open);
    crate::house::expect_once(&mut agent, 25..30);
    house.wait_until_nothing_waits_above();
    wait_until("it is unregistered there", || {
        house.main.service().channels().len() == 1
    });
}
