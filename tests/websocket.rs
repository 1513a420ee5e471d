//! What a user agent may say on its websocket, and the close code of everything else
//! (PROTOCOL.md part 3, 4.2 to 4.6).

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "anything else fails the test"
)]

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{Gateway, Http, UserAgent, channel};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Bytes, Message};

#[test]
fn what_is_no_message_closes_with_the_main_services_code_and_a_sentence() {
    let gateway = Gateway::start();
    let hello = r#"{"messageType":"hello","use_webpush":true}"#;
    let register = r#"{"messageType":"register","channelID":"testChannel"}"#;
    for (texts, code, about) in [
        (vec!["nonsense"], 1011, "JSON"),
        (vec!["[]"], 1011, "JSON"),
        (vec![r#"{"messageType":"dance"}"#], 1011, "not known"),
        (vec![r#"{"messageType":"hello","uaid":5}"#], 1011, "JSON"),
        (
            vec![r#"{"messageType":"hello","use_webpush":true,"channelIDs":["abc"]}"#],
            1011,
            "JSON",
        ),
        (vec![register], 1011, "channelID"),
        (
            vec![r#"{"messageType":"broadcast_subscribe","broadcasts":{}}"#],
            1011,
            "hello",
        ),
        (vec![hello, hello], 1011, "one hello"),
        (vec![hello, register], 1011, "channelID"),
        (vec![hello, r#"{"messageType":"ack"}"#], 1011, "JSON"),
        (vec![hello, r#"{"messageType":"nack"}"#], 1011, "JSON"),
        (
            vec![hello, r#"{"messageType":"unregister","channelID":"x"}"#],
            1011,
            "JSON",
        ),
        (vec![hello, "{}", "{}"], 1011, "pings"),
    ] {
        let mut agent = UserAgent::connect(&gateway);
        for text in &texts {
            agent.send_text(text);
        }
        let (closed, reason) = loop {
            match agent.receive_frame() {
                Message::Close(Some(frame)) => {
                    break (u16::from(frame.code), frame.reason.to_string());
                }
                Message::Text(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(closed, code, "{texts:?}");
        assert!(reason.contains(about), "{texts:?}: {reason}");
    }
}

#[test]
fn frames_that_carry_no_text_close_with_the_code_for_it() {
    let gateway = Gateway::start();
    let closed_after = |frame: Message| {
        let mut agent = UserAgent::connect(&gateway);
        agent.send_frame(frame);
        agent.closed().0
    };
    assert_eq!(closed_after(Message::binary(b"{}".to_vec())), 1003);
    assert_eq!(closed_after(Message::text("x".repeat(65_537))), 1002);
    // One byte less is only JSON that is none.
    assert_eq!(closed_after(Message::text("x".repeat(65_536))), 1011);
}

#[test]
fn message_of_the_greatest_length_is_read() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::connect(&gateway);
    let padding = " ".repeat(65_536 - 2);
    agent.send_text(&format!("{{}}{padding}"));
    assert_eq!(agent.receive(), json!({}));
}

#[test]
fn websocket_ping_is_answered_and_a_private_close_code_echoed() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    agent.send_frame(Message::Ping(Bytes::from_static(b"abc")));
    assert_eq!(
        agent.receive_frame(),
        Message::Pong(Bytes::from_static(b"abc"))
    );

    let close = tungstenite::protocol::CloseFrame {
        code: 4774.into(),
        reason: "stop".into(),
    };
    agent.send_frame(Message::Close(Some(close)));
    assert_eq!(agent.closed(), (4774, "stop".to_owned()));
}

#[test]
fn user_agent_that_says_nothing_or_answers_no_ping_is_closed() {
    let gateway = Gateway::with_config(
        "[limits]\nhello_timeout_secs = 1\nping_interval_secs = 2\npong_timeout_secs = 1\n",
    );
    let start = Instant::now();
    let mut silent = UserAgent::connect(&gateway);
    assert_eq!(silent.closed(), (1011, "no hello in time".to_owned()));
    assert!(start.elapsed() >= Duration::from_secs(1));

    // tungstenite answers pings while it reads; one that is not read from answers none.
    let mut deaf = UserAgent::hello(&gateway, None);
    let mut alive = UserAgent::hello(&gateway, None);
    assert!(matches!(alive.receive_frame(), Message::Ping(_)));
    assert!(
        matches!(alive.receive_frame(), Message::Ping(_)),
        "its pong was heard"
    );
    let (code, reason) = deaf.closed();
    assert_eq!((code, reason.as_str()), (1011, "no pong in time"));
}

#[test]
fn register_is_answered_in_every_case_and_the_websocket_stays_open() {
    let gateway = Gateway::with_config("[limits]\nsubscriptions_per_user_agent_max = 2\n");
    let mut agent = UserAgent::hello(&gateway, None);
    let register = |number: u32| json!({"messageType": "register", "channelID": channel(number)});

    let endpoint = agent.register(&channel(1));
    assert!(endpoint.starts_with("/wpush/v1/"), "{endpoint}");
    assert_eq!(agent.register(&channel(1)), endpoint, "the same again");

    let mut with_key = register(2);
    with_key["key"] =
        "BJsbCP4YcRlbBbpfWqGXqOiofhriqiG0KjdMaDwbHS3eHzj3J2vK74EWjokhG7WQH_l-SRvApsvBUNnnyz4lXnU="
            .into();
    assert!(agent.register_with(&with_key).starts_with("/wpush/v2/"));

    let mut bad_key = register(2);
    bad_key["key"] = "a+b/".into();
    agent.send(&bad_key);
    let refused = json!({"messageType": "register", "channelID": channel(2), "status": 400, "pushEndpoint": "Failed to generate endpoint"});
    assert_eq!(agent.receive(), refused);

    agent.send(&register(3));
    assert_eq!(agent.receive()["status"], 429, "two are there");
    agent.unregister(&channel(1));
    agent.unregister(&channel(1));
    agent.register(&channel(3));
}

#[test]
fn endpoint_starts_with_how_the_user_agent_reached_us_or_with_the_public_url() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    agent.send(&json!({"messageType": "register", "channelID": channel(1)}));
    let endpoint = agent.receive()["pushEndpoint"].as_str().unwrap().to_owned();
    assert!(
        endpoint.starts_with(&format!("http://{}/wpush/", gateway.push)),
        "{endpoint}"
    );

    let public = Gateway::with_config("public_url = \"https://push.example.org/a/\"\n");
    let mut agent = UserAgent::hello(&public, None);
    agent.send(&json!({"messageType": "register", "channelID": channel(1)}));
    let endpoint = agent.receive()["pushEndpoint"].as_str().unwrap().to_owned();
    assert!(
        endpoint.starts_with("https://push.example.org/a/wpush/v1/"),
        "{endpoint}"
    );
}

#[test]
fn websocket_is_opened_on_any_free_path_and_refused_to_strangers() {
    let gateway = Gateway::start();
    let handshake = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: pi\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    for path in ["/", "/simplepush/websocket", "/some/where?x=1"] {
        let (_, answer) = UserAgent::connect_with(&gateway, &handshake(path));
        assert!(
            answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{answer}"
        );
        assert!(
            !answer.contains("sec-websocket-protocol"),
            "none was offered: {answer}"
        );
    }

    let closed = Gateway::with_config("[access]\nwebsocket_from = [\"192.0.2.0/24\"]\n");
    let mut http = Http::connect(closed.push);
    http.send_raw(handshake("/").as_bytes());
    let answer = http.receive();
    assert_eq!(answer.status, 403);
    assert!(
        answer.json()["message"]
            .as_str()
            .unwrap()
            .contains("access.websocket_from")
    );

    for wrong in [
        "Sec-WebSocket-Version: 8",
        "Sec-WebSocket-Version: 13\r\nX: y",
    ] {
        let mut http = Http::connect(gateway.push);
        let request = handshake("/").replace("Sec-WebSocket-Version: 13", wrong);
        let without_key = request.replace("Sec-WebSocket-Key", "X-Key");
        http.send_raw(without_key.as_bytes());
        assert_eq!(http.receive().status, 400, "{wrong}");
    }
}

#[test]
fn name_of_another_gateway_is_replaced_and_one_of_ours_is_kept_in_every_spelling() {
    let gateway = Gateway::start();
    let ours = UserAgent::hello(&gateway, None).uaid;
    assert_eq!(ours.len(), 32);
    let dashed = uuid::Uuid::try_parse(&ours)
        .unwrap()
        .hyphenated()
        .to_string();
    for spelling in [ours.clone(), dashed, ours.to_uppercase()] {
        assert_eq!(UserAgent::hello(&gateway, Some(&spelling)).uaid, ours);
    }
    for foreign in ["deadbeef00000000deadbeef00000000", "", "garbage"] {
        assert_ne!(UserAgent::hello(&gateway, Some(foreign)).uaid, foreign);
    }
}

#[test]
fn ack_with_an_empty_version_is_taken_if_it_can_mean_only_one_message() {
    let gateway = Gateway::with_config("[limits]\nack_window_millis = 5000\n");
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let mut sender = Http::connect(gateway.push);
    let head =
        format!("POST {endpoint} HTTP/1.1\r\nHost: h\r\nTTL: 60\r\nContent-Length: 0\r\n\r\n");
    sender.send_raw(head.as_bytes());
    agent.receive();
    agent.send(
        &json!({"messageType": "ack", "updates": [{"channelID": channel(1), "version": ""}]}),
    );
    assert_eq!(sender.receive().status, 201, "long before its window ends");
    gateway.wait_for_metric("edgepush_messages_never_written_total", 1);
}

#[test]
fn message_in_fragments_is_read_within_the_same_limit() {
    let gateway = Gateway::start();
    let fragments = |agent: &mut UserAgent, filling: usize| {
        let text = format!("{{}}{}", " ".repeat(filling));
        for (part, opcode, is_last) in [
            (&text[..1], OpCode::Data(Data::Text), false),
            (&text[1..], OpCode::Data(Data::Continue), true),
        ] {
            let payload = part.as_bytes().to_vec();
            let frame = Frame::message(payload, opcode, is_last);
            agent.send_frame(Message::Frame(frame));
        }
    };
    let mut agent = UserAgent::connect(&gateway);
    fragments(&mut agent, 65_536 - 2);
    assert_eq!(agent.receive(), json!({}));
    let mut agent = UserAgent::connect(&gateway);
    fragments(&mut agent, 65_536 - 1);
    assert_eq!(agent.closed().0, 1002);
}
