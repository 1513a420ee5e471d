//! Which name a device gets in answer to its hello, and what it finds there: rules R6 to R12.

use serde_json::json;

use crate::device::{
    Device, HELLO, assert_accepted, begin_put, hello_answer, hello_as, put, update,
};
use crate::support::{Gateway, UserAgent, channel};

const HEX: &str = "0123456789abcdef0123456789abcdef";
const DASHED: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// R6
#[test]
fn hello_without_a_usable_name_gets_a_new_one_and_one_that_is_no_text_is_refused() {
    let gateway = Gateway::start();
    let long = "a".repeat(300);
    for uaid in [
        json!(null),
        json!(""),
        json!("garbage"),
        json!(" fooey barrey "),
        json!(long),
        json!(&HEX[1..]),
        json!(format!("{HEX}0")),
        json!(format!("{{{DASHED}}}")),
        json!(format!("urn:uuid:{DASHED}")),
        json!("0123456789abcdef0123456789abcdeg"),
        json!("0123-456789ab-cdef-0123-456789abcdef"),
        json!(
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}"
        ),
    ] {
        let mut device = Device::connect(&gateway);
        let hello = json!({"messageType": "hello", "channelIDs": [], "uaid": uaid});
        let answer = device.ask(&hello.to_string());
        let said: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let name = said["uaid"].as_str().unwrap();
        assert_eq!(answer, hello_answer(name), "{uaid}");
        assert_eq!(name.len(), 32, "{uaid}");
        assert!(name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        assert_ne!(json!(name), uaid);
    }
    for uaid in [
        json!(5),
        json!(1.5),
        json!(true),
        json!([]),
        json!([HEX]),
        json!({}),
    ] {
        let hello = json!({"messageType": "hello", "channelIDs": [], "uaid": uaid});
        Device::connect(&gateway).assert_refused(&hello.to_string(), 401);
    }
    for channels in [json!("abc"), json!(5), json!({}), json!(true)] {
        let hello = json!({"messageType": "hello", "channelIDs": channels});
        Device::connect(&gateway).assert_refused(&hello.to_string(), 401);
    }
}

/// R7 (a)
#[test]
fn unknown_name_without_channels_is_adopted_in_its_own_spelling() {
    let mut gateway = Gateway::start();
    let upper = HEX.to_uppercase().replace('0', "F");
    let mixed = "ABCDEF67-89ab-CDEF-0123-456789abcdef";
    for name in [HEX, DASHED, &upper, mixed] {
        let mut device = Device::connect(&gateway);
        assert_eq!(device.ask(&hello_as(name, &[])), hello_answer(name));
    }
    // `channelIDs` absent: on SimplePush's own path.
    let mut device = Device::connect_to(&gateway, "/simplepush/websocket");
    let hello = json!({"messageType": "hello", "uaid": mixed}).to_string();
    assert_eq!(device.ask(&hello), hello_answer(mixed));

    // It is a name like any other from there on.
    let endpoint = device.register(&channel(1));
    drop(device);
    assert_accepted(&put(&gateway, &endpoint, "version=7"), 202);
    gateway.kill();
    gateway.start_again();
    let mut device = Device::connect(&gateway);
    let lower = mixed.to_lowercase();
    let known = hello_as(&lower, &[&channel(1)]);
    assert_eq!(device.ask(&known), hello_answer(&lower));
    assert_eq!(device.hear(), update(&channel(1), 7));
}

/// R7 (b) and (c)
#[test]
fn unknown_name_with_channels_or_of_webpush_is_replaced_so_that_it_registers_again() {
    let gateway = Gateway::start();
    let mut device = Device::connect(&gateway);
    device.say_hello(&hello_as(HEX, &["1", "2"]));
    assert_ne!(device.uaid, HEX);
    device.register(&channel(1));

    for channels in [json!([]), json!(null), json!([channel(1)])] {
        let mut agent = UserAgent::connect(&gateway);
        agent.send(
            &json!({"messageType": "hello", "uaid": HEX, "channelIDs": channels, "use_webpush": true}),
        );
        let answer = agent.receive();
        assert_eq!(answer["use_webpush"], true);
        assert_ne!(answer["uaid"], HEX);
    }
}

/// R8
#[test]
fn known_name_is_kept_whatever_channels_it_lists() {
    let gateway = Gateway::start();
    let mut device = Device::newcomer(&gateway);
    let kept = device.register(&channel(1));
    let uaid = device.uaid.clone();
    drop(device);
    let mut device = Device::connect(&gateway);
    let hello = hello_as(&uaid, &[&channel(2), "whatever", "3"]);
    assert_eq!(device.ask(&hello), hello_answer(&uaid));
    device.settle();
    assert_accepted(&put(&gateway, &kept, "version=1"), 200);
    assert_eq!(
        device.hear(),
        update(&channel(1), 1),
        "not listed, not dropped"
    );

    // A name of ours without a row in the database is known all the same.
    let mut nothing_registered = Device::newcomer(&gateway);
    let uaid = nothing_registered.uaid.clone();
    nothing_registered.settle();
    drop(nothing_registered);
    let mut device = Device::connect(&gateway);
    let hello = hello_as(&uaid, &[&channel(9)]);
    assert_eq!(device.ask(&hello), hello_answer(&uaid));
}

/// R9
#[test]
fn device_that_lists_more_channels_than_it_may_have_starts_again_with_nothing() {
    let gateway = Gateway::with_config("[limits]\nsubscriptions_per_user_agent_max = 2\n");
    let mut device = Device::newcomer(&gateway);
    let endpoint = device.register(&channel(1));
    let uaid = device.uaid.clone();
    drop(device);

    let mut at_limit = Device::connect(&gateway);
    let hello = hello_as(&uaid, &["1", "2"]);
    assert_eq!(at_limit.ask(&hello), hello_answer(&uaid));
    at_limit.settle();
    assert_accepted(&put(&gateway, &endpoint, "version=1"), 200);
    assert_eq!(at_limit.hear(), update(&channel(1), 1));

    let mut past_limit = Device::connect(&gateway);
    past_limit.say_hello(&hello_as(&uaid, &["1", "2", "3"]));
    assert_ne!(past_limit.uaid, uaid);
    assert_eq!(put(&gateway, &endpoint, "version=2").status, 410);
    past_limit.register(&channel(1));
    assert_eq!(at_limit.closed(), 1011, "its name is no more");

    // Whoever has no name has no records either.
    let mut nameless = Device::connect(&gateway);
    let hello = json!({"messageType": "hello", "channelIDs": ["1", "2", "3"]});
    nameless.say_hello(&hello.to_string());
}

/// R10
#[test]
fn hello_is_answered_with_name_and_status_and_what_waited_comes_in_its_own_frame() {
    let gateway = Gateway::start();
    let mut device = Device::newcomer(&gateway);
    let endpoint = device.register(&channel(1));
    let uaid = device.uaid.clone();
    drop(device);
    assert_accepted(&put(&gateway, &endpoint, "version=5"), 202);

    let mut device = Device::connect(&gateway);
    assert_eq!(device.ask(&hello_as(&uaid, &[])), hello_answer(&uaid));
    assert_eq!(device.hear(), update(&channel(1), 5));

    let mut webpush = UserAgent::connect(&gateway);
    webpush.send(&json!({"messageType": "hello", "use_webpush": true}));
    let answer = webpush.receive();
    let expected = json!({"messageType": "hello", "uaid": answer["uaid"], "status": 200,
        "use_webpush": true, "broadcasts": {}});
    assert_eq!(answer, expected);
}

/// R11
#[test]
fn second_hello_of_the_same_or_no_name_is_answered_with_all_that_was_not_acked() {
    let gateway = Gateway::with_config("[limits]\nack_window_millis = 0\n");
    let mut device = Device::newcomer(&gateway);
    let uaid = device.uaid.clone();
    let endpoint = device.register(&channel(1));
    assert_accepted(&put(&gateway, &endpoint, "version=5"), 200);
    assert_eq!(device.hear(), update(&channel(1), 5));
    let dashed = uuid::Uuid::try_parse(&uaid)
        .unwrap()
        .hyphenated()
        .to_string();
    for (named, spelled) in [
        (json!(uaid), &uaid),
        (json!(""), &uaid),
        (json!(null), &uaid),
        (json!(dashed), &dashed),
        (json!("garbage"), &dashed),
    ] {
        let hello = json!({"messageType": "hello", "channelIDs": [], "uaid": named});
        assert_eq!(device.ask(&hello.to_string()), hello_answer(spelled));
        assert_eq!(device.hear(), update(&channel(1), 5), "{named}");
    }
    device.ack(&channel(1), 5);
    assert_eq!(device.ask(HELLO), hello_answer(&dashed));
    device.assert_quiet();

    device.assert_refused(&hello_as(HEX, &[]), 503);
}

/// R11: what was sent a moment ago and is not on flash yet is among it.
#[test]
fn second_hello_brings_what_only_memory_holds() {
    let gateway = Gateway::with_config("[limits]\nack_window_millis = 10000\n");
    let mut device = Device::newcomer(&gateway);
    let endpoint = device.register(&channel(1));
    let mut answer = begin_put(&gateway, &endpoint, "version=5");
    assert_eq!(device.hear(), update(&channel(1), 5));
    let uaid = device.uaid.clone();
    assert_eq!(device.ask(HELLO), hello_answer(&uaid));
    assert_eq!(device.hear(), update(&channel(1), 5));
    device.ack(&channel(1), 5);
    assert_accepted(&answer.receive(), 200);
}

/// R12
#[test]
fn newest_websocket_of_a_device_wins_and_the_older_is_closed() {
    let gateway = Gateway::start();
    let mut older = Device::newcomer(&gateway);
    let endpoint = older.register(&channel(1));
    let mut newer = Device::returning(&gateway, &older.uaid);
    newer.settle();
    assert_accepted(&put(&gateway, &endpoint, "version=1"), 200);
    assert_eq!(newer.hear(), update(&channel(1), 1));
    assert_eq!(older.closed(), 1011);
}
