//! The websocket of a SimplePush device, without what its hello is about: rules R1 to R5 and R13 to R18.

use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::Message;

use crate::device::{
    Device, HELLO, assert_accepted, put, register, unregister, unregistered, update,
};
use crate::support::{Gateway, Http, UserAgent, channel, handshake};

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
    let mut refused = Vec::new();
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
        let text = json!({"messageType": "register", "channelID": channel, "uaid": "", "extra": "\u{1F4A9}"}).to_string();
        // Side by side: after a new name none is closed within a second.
        refused.push(std::thread::spawn(move || {
            device.assert_refused(&text, 401)
        }));
    }
    for device in refused {
        device.join().unwrap();
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
