//! The stand-in for the main service, against what PROTOCOL.md part 3 says of autopush-rs: what
//! `upstream.rs` tries the gateway on must itself be right.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod main_service;
mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use main_service::{Door, MainService};
use serde_json::{Value, json};
use support::signer::Signer;
use support::{Answer, Folder, Http, UserAgent, channel, path_of, wait_until};
use tungstenite::Message;

type Headers<'a> = &'a [(&'a str, &'a str)];

const TTL: (&str, &str) = ("TTL", "600");
/// How long nothing must come.
const QUIET: Duration = Duration::from_millis(300);

fn connect(main: &MainService) -> UserAgent {
    let address = main.websocket;
    UserAgent::try_connect_to(address).expect("a websocket")
}

fn hello(main: &MainService, uaid: Option<&str>) -> UserAgent {
    connect(main).greet(uaid)
}

fn post(main: &MainService, endpoint: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut all = vec![("Content-Encoding", "aes128gcm")];
    all.extend_from_slice(headers);
    Http::connect(main.endpoints).send("POST", endpoint, &all, body)
}

/// Posts so many, the number in the body.
fn post_all(main: &MainService, endpoint: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let body = format!("{number}");
        assert_eq!(post(main, endpoint, &[TTL], body.as_bytes()).status, 201);
    }
}

fn receive_all(agent: &mut UserAgent, count: usize) -> Vec<Value> {
    (0..count).map(|_| agent.receive()).collect()
}

/// A user agent that has registered a channel, and its endpoint.
fn newcomer(main: &MainService) -> (UserAgent, String) {
    let mut agent = hello(main, None);
    let endpoint = agent.register(&channel(1));
    (agent, endpoint)
}

#[test]
fn hello_is_answered_field_by_field_and_an_unknown_uaid_is_replaced() {
    let main = MainService::start();
    let mut agent = connect(&main);
    let claimed = "5a1b2c3d-0000-4000-8000-00000000000a";
    agent.send(&json!({"messageType": "hello", "uaid": claimed, "use_webpush": "anything"}));
    let Message::Text(text) = agent.receive_frame() else {
        panic!("not a text");
    };
    let uaid = text.split('"').nth(7).unwrap();
    assert_eq!(uaid.len(), 32);
    assert_ne!(uaid, claimed.replace('-', ""));
    let expected = format!(
        r#"{{"messageType":"hello","uaid":"{uaid}","status":200,"use_webpush":true,"broadcasts":{{}}}}"#
    );
    assert_eq!(text.as_str(), expected);

    // Without a channel it was never written.
    let uaid = uaid.to_owned();
    let mut again = hello(&main, Some(&uaid));
    assert_ne!(again.uaid, uaid);
    // With one it is known, in any spelling.
    again.register(&channel(1));
    let spelled = again.uaid.to_uppercase();
    assert_eq!(hello(&main, Some(&spelled)).uaid, again.uaid);
}

#[test]
fn what_must_not_be_said_is_closed_with_its_code() {
    let main = MainService::start();
    let cases = [
        ("{}", (1011, "SM")),
        (r#"{"messageType":"ping"}"#, (1011, "SM")),
        (r#"{"messageType":"Hello"}"#, (1011, "Json")),
        (r#"{"messageType":"hello","uaid":1}"#, (1011, "Json")),
        (
            r#"{"messageType":"hello","channelIDs":["abc"]}"#,
            (1011, "Json"),
        ),
    ];
    for (text, (code, reason)) in cases {
        let mut agent = connect(&main);
        agent.send_text(text);
        assert_eq!(agent.closed(), (code, reason.to_owned()), "{text}");
    }
    let cases = [
        (r#"{"messageType":"hello"}"#, (1011, "SM")),
        (
            r#"{"messageType":"register","channelID":"0207DA37-1A37-408C-B2F7-000000000001"}"#,
            (1011, "SM"),
        ),
        (
            r#"{"messageType":"register","channelID":null}"#,
            (1011, "Json"),
        ),
        (
            r#"{"messageType":"unregister","channelID":"garbage"}"#,
            (1011, "Json"),
        ),
        (
            r#"{"messageType":"ack","updates":[{"channelID":"0207da37-1a37-408c-b2f7-000000000001","version":1}]}"#,
            (1011, "Json"),
        ),
        (r#"{"messageType":"nack","code":302}"#, (1011, "Json")),
    ];
    for (text, (code, reason)) in cases {
        let mut agent = hello(&main, None);
        agent.send_text(text);
        assert_eq!(agent.closed(), (code, reason.to_owned()), "{text}");
    }
    let mut agent = hello(&main, None);
    agent.send_frame(Message::binary(vec![1]));
    assert_eq!(agent.closed(), (1003, "UnsupportedMessage".to_owned()));
    let mut agent = hello(&main, None);
    agent.send_text(&"x".repeat(65_537));
    assert_eq!(agent.closed(), (1002, "Protocol".to_owned()));
}

#[test]
fn nobody_may_be_silent_before_hello_or_after_a_ping() {
    let main = MainService::start();
    main.service().rules.hello_timeout = Duration::from_millis(200);
    main.service().rules.ping_interval = Duration::from_millis(100);
    main.service().rules.pong_timeout = Duration::from_millis(100);
    assert_eq!(
        connect(&main).closed(),
        (1011, "HandshakeTimeout".to_owned())
    );

    let mut agent = hello(&main, None);
    // A read answers the pings before it.
    for _ in 0..3 {
        assert!(matches!(agent.receive_frame(), Message::Ping(payload) if payload.is_empty()));
    }
    std::thread::sleep(2 * QUIET);
    assert_eq!(agent.closed(), (1011, "PongTimeout".to_owned()));
}

#[test]
fn ping_is_answered_and_a_second_one_too_soon_is_the_end() {
    let main = MainService::start();
    main.service().rules.ping_interval_min = QUIET;
    let mut agent = hello(&main, None);
    for form in ["{}", r#"{"messageType":"ping","more":1}"#] {
        agent.send_text(form);
        assert_eq!(agent.receive(), json!({}));
        std::thread::sleep(QUIET + QUIET / 2);
    }
    agent.send_text("{}");
    assert_eq!(agent.receive(), json!({}));
    agent.send_text("{}");
    assert_eq!(agent.closed(), (1011, "SM".to_owned()));
}

#[test]
fn pong_means_that_all_before_it_has_been_read() {
    let main = MainService::start();
    let (mut agent, endpoint) = newcomer(&main);
    post_all(&main, &endpoint, 0..1);
    let sent = agent.receive();
    main.service().faults.slow = QUIET;
    agent.ack(&sent);
    agent.send_frame(Message::Ping("x".into()));
    assert_eq!(agent.receive_frame(), Message::Pong("x".into()));
    main.cut();
    assert_eq!(main.service().stored_len(), 0);
}

#[test]
fn register_and_unregister_are_answered_as_by_the_real_one() {
    let main = MainService::start();
    let (mut agent, first) = newcomer(&main);
    let second = agent.register(&channel(1));
    assert_ne!(first, second, "another endpoint each time");
    assert_eq!(first.len(), "/wpush/v1/".len() + 140);
    let key = Signer::new(1).public_key();
    let keyed = agent
        .register_with(&json!({"messageType": "register", "channelID": channel(2), "key": key}));
    assert_eq!(keyed.len(), "/wpush/v2/".len() + 183);
    agent.send(&json!({"messageType": "register", "channelID": channel(3), "key": "+/"}));
    let refused = json!({"messageType": "register", "channelID": channel(3), "status": 400,
        "pushEndpoint": "Failed to generate endpoint"});
    assert_eq!(agent.receive(), refused);

    post_all(&main, &first, 0..1);
    post_all(&main, &second, 1..2);
    receive_all(&mut agent, 2);
    agent.unregister(&channel(1));
    agent.unregister(&channel(9));
    for endpoint in [&first, &second] {
        let answer = post(&main, endpoint, &[TTL], b"x");
        assert_eq!((answer.status, &answer.json()["errno"]), (410, &json!(106)));
        assert_eq!(answer.header("cache-control"), Some("max-age=86400"));
    }
    main.service().faults.refuses_registers = Some(500);
    agent.send(&json!({"messageType": "register", "channelID": channel(4)}));
    let refused = json!({"messageType": "register", "channelID": channel(4), "status": 500,
        "pushEndpoint": ""});
    assert_eq!(agent.receive(), refused);
}

#[test]
fn endpoint_answers_with_location_and_the_ttl_in_effect() {
    let main = MainService::start();
    let (mut agent, endpoint) = newcomer(&main);
    let topic = ("Topic", "weather");
    let answer = post(&main, &endpoint, &[("TTL", "9999999"), topic], b"body");
    assert_eq!((answer.status, answer.body.len()), (201, 0));
    assert_eq!(answer.header("ttl"), Some("2592000"));
    let sent = agent.receive();
    let version = sent["version"].as_str().unwrap();
    let location = answer.header("location").unwrap();
    assert_eq!(path_of(location), format!("/m/{version}"));
    let expected = json!({"messageType": "notification", "channelID": channel(1), "version": version,
        "data": "Ym9keQ", "headers": {"encoding": "aes128gcm"}});
    assert_eq!(sent, expected);

    // Without a body there are no headers either.
    assert_eq!(post(&main, &endpoint, &[TTL], b"").status, 201);
    let sent = agent.receive();
    assert_eq!(
        (&sent["data"], &sent["headers"]),
        (&Value::Null, &Value::Null)
    );
    // What was handed on is not in storage; a DELETE says 204 all the same.
    let deleted = Http::connect(main.endpoints).send("DELETE", &path_of(location), &[], b"");
    assert_eq!(deleted.status, 204);
}

#[test]
fn endpoint_refuses_with_the_errno_of_each_fault() {
    let main = MainService::start();
    let (mut agent, endpoint) = newcomer(&main);
    let long_topic = "t".repeat(33);
    let cases: [(Headers, u16, u16); 6] = [
        (&[], 400, 111),
        (&[("TTL", "1.5")], 400, 111),
        (&[("TTL", "-1")], 400, 114),
        (&[TTL, ("Topic", &long_topic)], 400, 113),
        (&[TTL, ("Topic", "a b")], 400, 113),
        (&[TTL, ("Authorization", "Basic x")], 401, 109),
    ];
    for (headers, status, errno) in cases {
        let answer = post(&main, &endpoint, headers, b"x");
        let found = (answer.status, answer.json()["errno"].clone());
        assert_eq!(found, (status, json!(errno)), "{headers:?}");
    }
    assert_eq!(post(&main, &endpoint, &[TTL], &[0; 5630]).status, 201);
    assert_eq!(post(&main, &endpoint, &[TTL], &[0; 5631]).status, 413);
    let unknown = Http::connect(main.endpoints).send(
        "POST",
        &endpoint,
        &[TTL, ("Content-Encoding", "x")],
        b"x",
    );
    assert_eq!(
        (unknown.status, &unknown.json()["errno"]),
        (400, &json!(110))
    );
    let none = post(&main, "/wpush/v1/none", &[TTL], b"x");
    assert_eq!((none.status, none.body.len()), (404, 0));

    let signer = Signer::new(1);
    let keyed =
        json!({"messageType": "register", "channelID": channel(2), "key": signer.public_key()});
    agent.receive();
    let keyed = agent.register_with(&keyed);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let origin = format!("http://{}", main.endpoints);
    let good = signer.authorization(&origin, now + 600);
    let cases = [
        (good.as_str(), 201),
        (&signer.authorization("http://elsewhere", now + 600), 401),
        (&signer.authorization(&origin, now - 600), 401),
        (&signer.authorization(&origin, now + 90_000), 401),
        (&Signer::new(2).authorization(&origin, now + 600), 401),
        (&good.replace("k=B", "k=C"), 401),
    ];
    for (authorization, status) in cases {
        let answer = post(
            &main,
            &keyed,
            &[TTL, ("Authorization", authorization)],
            b"x",
        );
        assert_eq!(answer.status, status, "{authorization}");
    }
    assert_eq!(post(&main, &keyed, &[TTL], b"x").status, 401);
    let crossed = keyed.replace("/v2/", "/v1/");
    assert_eq!(
        post(&main, &crossed, &[TTL, ("Authorization", &good)], b"x").status,
        404
    );
}

#[test]
fn stored_messages_come_in_batches_that_wait_for_every_ack() {
    let main = MainService::start();
    let (agent, endpoint) = newcomer(&main);
    let uaid = agent.uaid.clone();
    drop(agent);
    wait_until("it is away", || main.service().online.is_empty());
    post_all(&main, &endpoint, 0..25);

    let mut agent = hello(&main, Some(&uaid));
    let batch = receive_all(&mut agent, 10);
    for notification in &batch[..9] {
        agent.ack(notification);
    }
    assert_eq!(agent.receive_within(QUIET), None, "nine of ten acked");
    // Acks of a part are forgotten.
    drop(agent);
    wait_until("it is away", || main.service().online.is_empty());
    let mut agent = hello(&main, Some(&uaid));
    assert_eq!(receive_all(&mut agent, 10), batch);
    // One that comes meanwhile is sent at once, and must be acked as well.
    post_all(&main, &endpoint, 25..26);
    let direct = agent.receive();
    assert_eq!(direct["data"], "MjU");
    for notification in &batch {
        agent.ack(notification);
    }
    assert_eq!(agent.receive_within(QUIET), None, "one outstanding");
    agent.ack(&direct);
    for count in [10, 5] {
        for notification in receive_all(&mut agent, count) {
            agent.ack(&notification);
        }
    }
    agent.settle();
    assert_eq!(main.service().stored_len(), 0);
    drop(agent);
    let mut agent = hello(&main, Some(&uaid));
    assert_eq!(agent.receive_within(QUIET), None);
}

#[test]
fn topics_come_first_and_only_the_latest_of_each() {
    let main = MainService::start();
    let (agent, endpoint) = newcomer(&main);
    let uaid = agent.uaid.clone();
    drop(agent);
    wait_until("it is away", || main.service().online.is_empty());
    post_all(&main, &endpoint, 0..1);
    for body in ["old", "new"] {
        let topic = ("Topic", "t");
        post(&main, &endpoint, &[TTL, topic], body.as_bytes());
    }
    post(&main, &endpoint, &[("TTL", "0")], b"never");
    let mut agent = hello(&main, Some(&uaid));
    let first = agent.receive();
    assert_eq!(first["data"], "bmV3");
    assert_eq!(agent.receive_within(QUIET), None);
    agent.ack(&first);
    assert_eq!(agent.receive()["data"], "MA");
}

#[test]
fn more_than_150_stored_messages_cost_the_uaid() {
    let main = MainService::start();
    for (count, kept) in [(150, true), (151, false)] {
        let (agent, endpoint) = newcomer(&main);
        let uaid = agent.uaid.clone();
        drop(agent);
        wait_until("it is away", || main.service().online.is_empty());
        post_all(&main, &endpoint, 0..count);
        let mut agent = hello(&main, Some(&uaid));
        for _ in 0..150 {
            let notification = agent.receive();
            agent.ack(&notification);
        }
        if kept {
            agent.settle();
        } else {
            assert_eq!(agent.closed(), (1000, "SM".to_owned()));
            assert_eq!(post(&main, &endpoint, &[TTL], b"x").status, 410);
        }
        assert_eq!(hello(&main, Some(&uaid)).uaid == uaid, kept);
    }
}

#[test]
fn unacked_direct_messages_are_stored_when_the_websocket_ends() {
    let main = MainService::start();
    let (mut agent, endpoint) = newcomer(&main);
    let uaid = agent.uaid.clone();
    post_all(&main, &endpoint, 0..3);
    post(&main, &endpoint, &[("TTL", "0")], b"once");
    let sent = receive_all(&mut agent, 4);
    agent.ack(&sent[0]);
    agent.settle();
    main.cut();
    let mut agent = hello(&main, Some(&uaid));
    let mut again: Vec<String> = receive_all(&mut agent, 2)
        .iter()
        .map(|n| n["version"].to_string())
        .collect();
    let mut expected: Vec<String> = sent[1..3]
        .iter()
        .map(|n| n["version"].to_string())
        .collect();
    again.sort();
    expected.sort();
    assert_eq!(again, expected);
    assert_eq!(agent.receive_within(QUIET), None);
}

#[test]
fn second_websocket_of_a_uaid_ends_the_first() {
    let main = MainService::start();
    let (mut agent, endpoint) = newcomer(&main);
    post_all(&main, &endpoint, 0..1);
    agent.receive();
    let mut newer = hello(&main, Some(&agent.uaid));
    assert_eq!(agent.closed(), (1011, "SM".to_owned()));
    assert_eq!(newer.receive()["data"], "MA", "what was not acked there");
    post_all(&main, &endpoint, 1..2);
    assert_eq!(newer.receive()["data"], "MQ");
}

#[test]
fn message_of_a_channel_that_was_unregistered_still_comes_from_storage() {
    let main = MainService::start();
    let (agent, endpoint) = newcomer(&main);
    let uaid = agent.uaid.clone();
    drop(agent);
    wait_until("it is away", || main.service().online.is_empty());
    post_all(&main, &endpoint, 0..11);
    let mut agent = hello(&main, Some(&uaid));
    let batch = receive_all(&mut agent, 10);
    agent.unregister(&channel(1));
    for notification in batch {
        agent.ack(&notification);
    }
    assert_eq!(agent.receive()["channelID"], channel(1));
}

#[test]
fn nack_and_an_ack_of_nothing_change_nothing() {
    let main = MainService::start();
    let (mut agent, endpoint) = newcomer(&main);
    let uaid = agent.uaid.clone();
    post_all(&main, &endpoint, 0..1);
    let sent = agent.receive();
    agent.send(&json!({"messageType": "nack", "code": 302, "version": sent["version"]}));
    agent.send(&json!({"messageType": "ack", "updates": []}));
    let other = json!({"channelID": channel(1), "version": "unknown"});
    agent.send(&json!({"messageType": "ack", "updates": [other]}));
    agent.settle();
    main.cut();
    let mut agent = hello(&main, Some(&uaid));
    assert_eq!(agent.receive()["version"], sent["version"]);
    // The channel of an ack is not looked at, nor its code.
    let update = json!({"channelID": channel(7), "version": sent["version"], "code": 102});
    agent.send(&json!({"messageType": "ack", "updates": [update]}));
    agent.settle();
    assert_eq!(main.service().stored_len(), 0);
}

#[test]
fn broadcasts_are_told_at_hello_at_a_subscription_and_at_the_ping() {
    let main = MainService::start();
    main.service().broadcasts = [("a", "1"), ("b", "1")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let mut agent = connect(&main);
    agent.send(&json!({"messageType": "hello", "broadcasts": {"a": "0", "b": "1", "c": "1"}}));
    let told = &agent.receive()["broadcasts"];
    assert_eq!(
        *told,
        json!({"a": "1", "errors": {"c": "Broadcast not found"}})
    );
    agent.send(&json!({"messageType": "broadcast_subscribe", "broadcasts": {"b": "1"}}));
    agent.settle();
    assert_eq!(agent.receive_within(QUIET), None);
    agent.send(&json!({"messageType": "broadcast_subscribe", "broadcasts": {"b": "0"}}));
    assert_eq!(
        agent.receive(),
        json!({"messageType": "broadcast", "broadcasts": {"b": "1"}})
    );

    // A change waits for the tick of the pings, and takes the ping's place.
    main.service().rules.ping_interval = Duration::from_millis(50);
    main.service()
        .broadcasts
        .insert("a".to_owned(), "2".to_owned());
    let mut agent = connect(&main);
    agent.send(&json!({"messageType": "hello", "broadcasts": {"a": "2"}}));
    assert_eq!(agent.receive()["broadcasts"], json!({}));
    main.service()
        .broadcasts
        .insert("a".to_owned(), "3".to_owned());
    assert_eq!(
        agent.receive(),
        json!({"messageType": "broadcast", "broadcasts": {"a": "3"}})
    );
}

#[test]
fn faults_do_what_they_are_called() {
    let main = MainService::start();
    let (mut agent, endpoint) = newcomer(&main);
    main.service().faults.duplicates = true;
    post_all(&main, &endpoint, 0..1);
    assert_eq!(agent.receive(), agent.receive());
    main.service().faults.duplicates = false;
    main.service().faults.reorders = Some(QUIET);
    post_all(&main, &endpoint, 1..3);
    assert_eq!(
        [agent.receive(), agent.receive()].map(|n| n["data"].clone()),
        ["Mg", "MQ"]
    );
    post_all(&main, &endpoint, 3..4);
    assert_eq!(agent.receive()["data"], "Mw", "held back, not lost");

    main.service().faults.slow = QUIET;
    agent.send_text("{}");
    assert_eq!(agent.receive_within(QUIET / 2), None);
    assert_eq!(agent.receive(), json!({}));
    main.service().faults.slow = Duration::ZERO;
    main.service().faults.ignores.insert("register");
    agent.send(&json!({"messageType": "register", "channelID": channel(5)}));
    agent.settle();
    assert_eq!(main.service().channels().len(), 1);

    main.service().reset();
    assert_eq!(post(&main, &endpoint, &[TTL], b"x").status, 404);
    assert_ne!(hello(&main, Some(&agent.uaid)).uaid, agent.uaid);
    main.close_all(4774, "bye");
    // Not the one whose place was taken.
    assert_eq!(agent.closed(), (4774, "bye".to_owned()));
}

#[test]
fn doors_keep_out_in_each_way() {
    let main = MainService::start();
    let address = main.websocket;
    let mut agent = hello(&main, None);
    main.go_away();
    agent.expect_end();
    wait_until("the port is closed", || {
        std::net::TcpStream::connect(address).is_err()
    });
    main.set_door(Door::Refused(
        "503 Service Unavailable",
        "Retry-After: 120\r\n".to_owned(),
    ));
    wait_until("the port is open", || {
        std::net::TcpStream::connect(address).is_ok()
    });
    assert!(UserAgent::try_connect_to(address).is_none());
    main.set_door(Door::Open);
    wait_until("it is back", || {
        UserAgent::try_connect_to(address).is_some()
    });
    let path = Http::connect(address).send("GET", "/other", &[("Sec-WebSocket-Key", "x")], b"");
    assert_eq!(path.status, 404);
    assert_eq!(
        Http::connect(address).send("GET", "/", &[], b"").status,
        500
    );
}

#[test]
fn all_that_it_is_told_is_remembered() {
    let main = MainService::start();
    let (mut agent, _) = newcomer(&main);
    agent.send_text(
        r#"{"messageType":"unregister","channelID":"00000000-0000-0000-0000-00000000beef"}"#,
    );
    agent.receive();
    let heard = main.service().everything_heard();
    for text in ["GET / HTTP/1.1", "\"hello\"", &channel(1), "00000000beef"] {
        assert!(heard.contains(text), "no {text} in {heard}");
    }
    assert_eq!(main.connections().len(), 1);
}

/// A second program that was not written for it, end to end.
#[test]
fn edgepush_listen_takes_it_for_a_push_service() {
    let main = MainService::start();
    let folder = Folder::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgepush"))
        .args(["listen", &main.url(), "--state"])
        .arg(folder.path("state.json"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    let endpoint = path_of(line().strip_prefix("endpoint ").unwrap());
    line();
    assert_eq!(post(&main, &endpoint, &[TTL], b"").status, 201);
    assert_eq!(line(), "message ");
    wait_until("it has registered", || {
        !main.service().channels().is_empty()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(main.service().told("register").len(), 1);
}
