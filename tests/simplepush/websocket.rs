//! The websocket of a SimplePush device: rules R1 to R18.

use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::Message;

use crate::device::{
    Device, HELLO, assert_accepted, handshake, hello_answer, hello_as, put, register, unregister,
    unregistered, update,
};
use crate::support::{Gateway, Http, UserAgent, channel};

const HEX: &str = "0123456789abcdef0123456789abcdef";
const DASHED: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// R1
#[test]
fn websocket_of_a_device_opens_on_the_root_on_aerogears_path_and_on_any_free_one() {
    let gateway = Gateway::start();
    for path in [
        "/",
        "/simplepush/websocket",
        "/simplepush/websocket/",
        "/v1/ws?x=1",
    ] {
        let mut device = Device::connect_to(&gateway, path);
        device.say_hello(HELLO);
    }
    let mut http = Http::connect(gateway.push);
    http.send_raw(handshake("/update/x", "").as_bytes());
    assert_eq!(http.receive().status, 405, "an endpoint is no websocket");
}

/// R2
#[test]
fn sub_protocol_push_notification_is_answered_where_offered_and_no_other() {
    let gateway = Gateway::start();
    let answered = "sec-websocket-protocol: push-notification";
    for (offer, chosen) in [
        ("", false),
        ("Sec-WebSocket-Protocol: push-notification\r\n", true),
        ("Sec-WebSocket-Protocol: a, push-notification\r\n", true),
        (
            "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: push-notification\r\n",
            true,
        ),
        ("Sec-WebSocket-Protocol: push-notification-2\r\n", false),
        ("Sec-WebSocket-Protocol: wamp, mqtt\r\n", false),
    ] {
        let (agent, answer) = UserAgent::connect_with(&gateway, &handshake("/", offer));
        let protocols = answer.matches("sec-websocket-protocol").count();
        assert_eq!(protocols, usize::from(chosen), "{offer}: {answer}");
        assert_eq!(answer.contains(answered), chosen, "{offer}: {answer}");
        Device::on(agent).say_hello(HELLO);
    }
}

/// R3
#[test]
fn origin_of_any_form_is_let_in() {
    let gateway = Gateway::start();
    for origin in [
        "https://example.org",
        "localhost:8080",
        "null",
        "",
        "file://",
        "a b c",
    ] {
        let header = format!("Origin: {origin}\r\n");
        let (agent, _) = UserAgent::connect_with(&gateway, &handshake("/", &header));
        Device::on(agent).say_hello(HELLO);
    }
}

/// R4
#[test]
fn json_in_a_binary_frame_is_taken_from_a_device_and_from_nobody_else() {
    let gateway = Gateway::start();
    let mut device = Device::connect_to(&gateway, "/simplepush/websocket");
    device.say_binary(HELLO.as_bytes());
    assert!(device.hear().contains(r#""status":200"#));
    device.say_binary(unregister("x").as_bytes());
    assert_eq!(device.hear(), unregistered("x"));

    let mut device = Device::newcomer(&gateway);
    device.say_binary(b"{}");
    assert_eq!(device.hear(), "{}");
    device.say_binary(&[0xff, 0xfe]);
    assert_eq!(device.closed(), 1003);

    let mut nobody = Device::connect(&gateway);
    nobody.say_binary(HELLO.as_bytes());
    assert_eq!(nobody.closed(), 1003);
}

/// R5
#[test]
fn message_type_is_read_in_any_case_and_the_keys_are_not() {
    let gateway = Gateway::start();
    let mut device = Device::connect(&gateway);
    device.say_hello(r#"{"messageType":"HELLO","channelIDs":[]}"#);
    let channel = channel(1);
    let shouted = format!(r#"{{"messageType":"REGISTER","channelID":"{channel}"}}"#);
    let answer = device.ask(&shouted);
    assert!(answer.contains(r#""status":200"#), "{answer}");
    let endpoint: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let endpoint = crate::support::path_of(endpoint["pushEndpoint"].as_str().unwrap());
    assert_accepted(&put(&gateway, &endpoint, "version=1"), 200);
    assert_eq!(device.hear(), update(&channel, 1));
    device.say(&format!(
        r#"{{"messageType":"acK","updates":[{{"channelID":"{channel}","version":1}}]}}"#
    ));
    assert_eq!(device.ask(r#"{"messageType":"Ping"}"#), "{}");
    let ended = device.ask(&format!(
        r#"{{"messageType":"unRegister","channelID":"{channel}"}}"#
    ));
    assert_eq!(ended, unregistered(&channel));

    for key in ["messagetype", "MessageType", " messageType "] {
        let mut device = Device::connect(&gateway);
        let hello = json!({key: "hello", "channelIDs": [], "uaid": HEX});
        device.assert_refused(&hello.to_string(), 401);
    }
    // Without its list it is a WebPush user agent, which never keeps a foreign name.
    let mut device = Device::connect(&gateway);
    let answer = device.ask(&json!({"messageType": "hello", "ChannelIDs": []}).to_string());
    assert!(answer.contains(r#""use_webpush":true"#), "{answer}");
}

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
    let mut answer = crate::device::begin_put(&gateway, &endpoint, "version=5");
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
    assert_accepted(&put(&gateway, &endpoint, "version=1"), 200);
    assert_eq!(newer.hear(), update(&channel(1), 1));
    assert_eq!(older.closed(), 1011);
}

/// R13
#[test]
fn device_that_says_no_hello_in_time_is_closed() {
    let gateway = Gateway::with_config(
        "[limits]\nsimplepush_hello_timeout_secs = 2\nhello_timeout_secs = 1\n",
    );
    let start = Instant::now();
    let mut anybody = Device::connect(&gateway);
    let mut device = Device::connect_to(&gateway, "/simplepush/websocket");
    assert_eq!(device.ask("{}"), "{}", "a ping is no hello");
    assert_eq!(anybody.closed(), 1011);
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(device.closed(), 1011);
    assert!(start.elapsed() >= Duration::from_secs(2));
}

const EVERY_PACE: &str = "[limits]\napp_ping_interval_secs_min = 0\n";

/// R14
#[test]
fn ping_of_every_form_is_answered_before_and_after_hello() {
    let gateway = Gateway::with_config(EVERY_PACE);
    let pings = [
        "{}",
        " { } ",
        r#"{"messageType":"ping"}"#,
        r#"{"messageType":"PING"}"#,
        r#"{"messageType":"Ping","channelIDs":["x"],"uaid":"y","nada":""}"#,
    ];
    for path in ["/", "/simplepush/websocket"] {
        let mut device = Device::connect_to(&gateway, path);
        for ping in pings {
            assert_eq!(device.ask(ping), "{}", "before hello on {path}: {ping}");
        }
        device.say_hello(HELLO);
        for ping in pings
            .into_iter()
            .chain([r#"{"a":1}"#, r#"{"channelId":"x"}"#])
        {
            assert_eq!(device.ask(ping), "{}", "after hello on {path}: {ping}");
        }
    }
}

/// R14
#[test]
fn before_hello_every_other_message_is_answered_with_401_and_closed() {
    let gateway = Gateway::start();
    for text in [
        r#"{"a":1}"#,
        r#"{"channelID":"x","version":1}"#,
        r#"{"messageType":""}"#,
        r#"{"messageType":"","channelIDs":[],"uaid":"x"}"#,
        r#"{"messageType":123}"#,
        r#"{"messageType":null}"#,
        r#"{"messageType":"dance"}"#,
        r#"{"messageType":" hello "}"#,
        r#"{"messageType":"register","channelID":"x"}"#,
        r#"{"messageType":"acK","updates":[{"channelID":"x","version":23}]}"#,
        r#"{"messageType":"unregister"}"#,
        r#"{"messageType":"purge"}"#,
    ] {
        for path in ["/", "/simplepush/websocket"] {
            Device::connect_to(&gateway, path).assert_refused(text, 401);
        }
    }
    for text in ["", "garbage", "[]", "5", "null", r#""hello""#, "{", "{}{}"] {
        for path in ["/", "/simplepush/websocket"] {
            let mut device = Device::connect_to(&gateway, path);
            device.say(text);
            assert_eq!(device.closed(), 1011, "there is nothing to answer to");
        }
    }
}

/// R15
#[test]
fn pings_may_come_as_quickly_as_the_configuration_says() {
    let gateway = Gateway::with_config(EVERY_PACE);
    let mut device = Device::newcomer(&gateway);
    for _ in 0..100 {
        assert_eq!(device.ask("{}"), "{}");
    }
    let gateway = Gateway::with_config("[limits]\napp_ping_interval_secs_min = 1\n");
    let mut device = Device::newcomer(&gateway);
    assert_eq!(device.ask("{}"), "{}");
    std::thread::sleep(Duration::from_millis(1050)); // the interval itself
    assert_eq!(device.ask(r#"{"messageType":"ping"}"#), "{}");
    device.say("{}");
    assert_eq!(device.closed(), 1011);
}

/// R16
#[test]
fn register_takes_a_uuid_in_any_spelling_echoes_it_and_may_come_twice() {
    let gateway = Gateway::start();
    let mut device = Device::newcomer(&gateway);
    let mut other = Device::newcomer(&gateway);
    for channel in [HEX, DASHED, &HEX.to_uppercase(), &DASHED.to_uppercase()] {
        let endpoint = device.register(channel);
        assert!(endpoint.starts_with("/update/"), "{endpoint}");
        assert_eq!(device.register(channel), endpoint, "the same again");
        let others = other.register(channel);
        assert_ne!(others, endpoint, "another device's channel of that name");
        assert_accepted(&put(&gateway, &others, "version=3"), 200);
        assert_eq!(other.hear(), update(channel, 3), "in this spelling");
        other.ack(channel, 3);
    }
    device.assert_quiet();
}

/// R17
#[test]
fn register_without_a_uuid_is_answered_with_itself_and_401_and_closed() {
    let gateway = Gateway::start();
    for channel in [
        json!(null),
        json!(5),
        json!(""),
        json!("testChannel"),
        json!([HEX]),
        json!({"a": [1, {"b": null}]}),
        json!(&HEX[1..]),
        json!(format!("{HEX}00")),
        json!(format!("{{{DASHED}}}")),
        json!("x".repeat(1000)),
    ] {
        let mut device = Device::newcomer(&gateway);
        let text = json!({"messageType": "register", "channelID": channel, "uaid": "", "extra": "\u{1F4A9}"});
        device.assert_refused(&text.to_string(), 401);
    }
    let mut device = Device::newcomer(&gateway);
    device.assert_refused(r#"{"messageType":"register","channelIDs":["x"]}"#, 401);
}

/// R17: in WebPush mode 400 for a bad key keeps the websocket, as the main service does.
#[test]
fn one_subscription_too_many_is_429_and_the_websocket_stays_open() {
    let gateway = Gateway::with_config("[limits]\nsubscriptions_per_user_agent_max = 1\n");
    let mut device = Device::newcomer(&gateway);
    device.register(&channel(1));
    let channel = channel(2);
    assert_eq!(
        device.ask(&register(&channel)),
        format!(
            r#"{{"messageType":"register","channelID":"{channel}","status":429,"pushEndpoint":""}}"#
        )
    );
    device.register(&crate::support::channel(1));
}

/// R18
#[test]
fn unregister_of_any_text_is_200_and_without_one_401() {
    let gateway = Gateway::start();
    let mut device = Device::newcomer(&gateway);
    let endpoint = device.register(HEX);
    for channel in [
        "foo",
        "",
        "testChannel",
        DASHED,
        HEX,
        HEX,
        "\u{1F4A9}",
        &"x".repeat(9000),
    ] {
        assert_eq!(device.ask(&unregister(channel)), unregistered(channel));
    }
    let answer = put(&gateway, &endpoint, "version=1");
    crate::device::assert_refused(&answer, 410, Some(106), "No such subscription");
    for text in [
        r#"{"messageType":"unregister"}"#,
        r#"{"messageType":"unregister","channelID":5}"#,
        r#"{"messageType":"unregister","channelID":null}"#,
    ] {
        Device::newcomer(&gateway).assert_refused(text, 401);
    }
    Device::connect(&gateway).assert_refused(&unregister(HEX), 401);
}

/// 1.3: what the peers have no answer for either.
#[test]
fn purge_and_nack_are_passed_over_and_an_unknown_type_is_refused() {
    let gateway = Gateway::start();
    let mut device = Device::newcomer(&gateway);
    device.say(r#"{"messageType":"purge"}"#);
    device.say(r#"{"messageType":"nack","version":"x"}"#);
    assert_eq!(device.ask("{}"), "{}");
    device.assert_refused(r#"{"messageType":"dance"}"#, 401);
    let mut device = Device::newcomer(&gateway);
    device.assert_refused(r#"{"messageType":null}"#, 401);
}

/// 1.3
#[test]
fn device_is_closed_for_what_is_no_json_object_and_websocket_pings_are_answered() {
    let gateway = Gateway::start();
    let mut device = Device::newcomer(&gateway);
    device.say("[1]");
    assert_eq!(device.closed(), 1011);
    let mut agent = UserAgent::connect_with(&gateway, &handshake("/simplepush/websocket", "")).0;
    agent.send_frame(Message::Ping(b"abc".to_vec().into()));
    assert_eq!(agent.receive_frame(), Message::Pong(b"abc".to_vec().into()));
}
