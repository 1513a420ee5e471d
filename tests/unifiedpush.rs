//! UnifiedPush: what an endpoint says of itself, servers that do not encrypt, and the Matrix push
//! gateway (SERV_1.2.0).

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::signer::Signer;
use support::{Answer, Gateway, Http, UserAgent, channel};

const NOTIFY: &str = "/_matrix/push/v1/notify";

/// A user agent, and its two endpoints: open, and restricted to the first [`Signer`].
struct Stage {
    gateway: Gateway,
    agent: UserAgent,
    open: String,
    restricted: String,
}

impl Stage {
    fn with_config(config: &str) -> Self {
        let gateway = Gateway::with_config(config);
        let mut agent = UserAgent::hello(&gateway, None);
        let (open, restricted) = agent.register_two();
        Self {
            gateway,
            agent,
            open,
            restricted,
        }
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        Http::connect(self.gateway.push).send(method, path, headers, body)
    }

    /// Its user agent goes away.
    fn leave(&mut self) {
        self.agent = UserAgent::connect(&self.gateway);
        self.gateway
            .wait_for_metric("edgepush_user_agents_connected", 0);
    }

    /// What a homeserver posts.
    fn notify(&self, body: &Value) -> Answer {
        let json = [("Content-Type", "application/json")];
        self.send("POST", NOTIFY, &json, body.to_string().as_bytes())
    }
}

fn notification(pushkeys: &[&str]) -> Value {
    let device = |pushkey: &&str| json!({"app_id": "im.example", "pushkey": pushkey});
    let devices: Vec<Value> = pushkeys.iter().map(device).collect();
    json!({"notification": {
        "event_id": "$event", "room_id": "!room:example.org", "prio": "high",
        "counts": {"unread": 2}, "devices": devices,
    }})
}

fn decoded(message: &Value) -> Vec<u8> {
    assert_eq!(message["messageType"], "notification");
    assert_eq!(message.get("headers"), None, "{message}");
    let data = message["data"].as_str().unwrap();
    data_encoding::BASE64URL_NOPAD
        .decode(data.as_bytes())
        .unwrap()
}

#[test]
fn endpoint_says_what_it_is_to_whoever_knows_it() {
    let stage = Stage::with_config("");
    let token = stage.open.rsplit_once('/').unwrap().1;
    for path in [&stage.open, &stage.restricted, &format!("/wpush/{token}")] {
        let answer = stage.send("GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.body, br#"{"unifiedpush":{"version":1}}"#);
        let head = stage.send("HEAD", path, &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), Some("29"));
    }
    for path in ["/wpush/v1/garbage", &stage.open.replace("/v1/", "/v2/")] {
        let answer = stage.send("GET", path, &[], b"");
        assert_eq!((answer.status, &answer.json()["errno"]), (404, &json!(102)));
        assert_eq!(stage.send("HEAD", path, &[], b"").status, 404);
    }
}

#[test]
fn raw_message_is_refused_unless_it_is_asked_for() {
    let stage = Stage::with_config("");
    let without_ttl = stage.send("POST", &stage.open, &[], b"hello");
    assert_eq!(without_ttl.status, 400);
    assert_eq!(without_ttl.json()["errno"], 111);
    let without_encoding = stage.send("POST", &stage.open, &[("TTL", "60")], b"hello");
    assert_eq!(without_encoding.status, 400);
    assert_eq!(without_encoding.json()["errno"], 110);
}

#[test]
fn lenient_gateway_passes_a_raw_message_on_as_it_is() {
    let mut stage = Stage::with_config("[unifiedpush]\nlenient = true\n");
    let every_byte: Vec<u8> = (0..=255).cycle().take(4096).collect();
    for body in [&b"x"[..], &every_byte] {
        let answer = stage.send("POST", &stage.open, &[], body);
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("ttl"), Some("0"));
        assert!(answer.header("location").is_some());
        let message = stage.agent.receive();
        assert_eq!(decoded(&message), body);
        assert_eq!(message["channelID"], channel(1));
    }
    let past = stage.send("POST", &stage.open, &[], &[1; 4097]);
    assert_eq!((past.status, &past.json()["errno"]), (413, &json!(104)));
    // Encrypted ones are what they were, and may leave the TTL out too.
    let encoding = [("Content-Encoding", "aes128gcm")];
    let encrypted = stage.send("POST", &stage.open, &encoding, &[1; 5630]);
    assert_eq!(
        (encrypted.status, encrypted.header("ttl")),
        (201, Some("0"))
    );
    let message = stage.agent.receive();
    assert_eq!(message["headers"], json!({"encoding": "aes128gcm"}));
    let wrong = stage.send("POST", &stage.open, &[("Content-Encoding", "gzip")], b"x");
    assert_eq!(wrong.json()["message"], "Unknown Content-Encoding header");
}

#[test]
fn raw_message_with_a_ttl_waits_for_its_user_agent_over_a_kill_and_one_without_does_not() {
    let mut stage = Stage::with_config("[unifiedpush]\nlenient = true\n");
    let uaid = stage.agent.uaid.clone();
    stage.leave();
    let now_or_never = stage.send("POST", &stage.open, &[], b"never");
    assert_eq!(
        (now_or_never.status, now_or_never.header("ttl")),
        (201, Some("0"))
    );
    let kept = stage.send("POST", &stage.open, &[("TTL", "60")], b"kept \xff");
    assert_eq!((kept.status, kept.header("ttl")), (201, Some("60")));
    stage.gateway.kill();
    stage.gateway.start_again();
    let mut agent = UserAgent::hello(&stage.gateway, Some(&uaid));
    let message = agent.receive();
    assert_eq!(decoded(&message), b"kept \xff");
    agent.ack(&message);
    assert_eq!(agent.receive_within(Duration::from_millis(200)), None);
}

#[test]
fn subscription_restricted_to_a_key_takes_no_raw_message_from_anybody() {
    let config = "[vapid]\nclock = \"untrusted\"\n[unifiedpush]\nlenient = true\nmatrix = true\n";
    let stage = Stage::with_config(config);
    let authorization = Signer::new(1).authorization("http://localhost", 0);
    let owner = ("Authorization", authorization.as_str());
    let without_ttl = stage.send("POST", &stage.restricted, &[owner], b"x");
    assert_eq!(without_ttl.json()["errno"], 111);
    let raw = stage.send("POST", &stage.restricted, &[owner, ("TTL", "0")], b"x");
    assert_eq!(raw.json()["message"], "Missing Content-Encoding header");
    let pushkey = format!("http://localhost{}", stage.restricted);
    let answer = stage.notify(&notification(&[&pushkey]));
    assert_eq!(answer.json(), json!({"rejected": [pushkey]}));
}

#[test]
fn matrix_gateway_is_not_there_unless_it_is_asked_for() {
    let stage = Stage::with_config("");
    for method in ["GET", "POST", "HEAD"] {
        let answer = stage.send(method, NOTIFY, &[("Accept", "image/png")], b"");
        assert_eq!(answer.status, 404, "{method}");
    }
    let large = stage.send("POST", NOTIFY, &[], &[1; 5631]);
    assert_eq!(large.status, 404, "and reads no more than any other path");
}

#[test]
fn matrix_notification_is_passed_on_byte_for_byte_to_each_of_its_devices() {
    let mut stage = Stage::with_config("[unifiedpush]\nmatrix = true\n");
    let discovery = stage.send("GET", NOTIFY, &[], b"");
    assert_eq!(discovery.status, 200);
    assert_eq!(discovery.header("content-type"), Some("application/json"));
    assert_eq!(discovery.body, br#"{"unifiedpush":{"gateway":"matrix"}}"#);
    assert_eq!(stage.send("HEAD", NOTIFY, &[], b"").status, 200);

    let other = stage.agent.register(&channel(3));
    // By whatever name the homeserver knows this board.
    let first = format!("http://localhost{}", stage.open);
    let second = format!("https://pi.example.org/push{other}");
    let body = notification(&[&first, &second, &first]);
    let text = serde_json::to_string_pretty(&body).unwrap();
    let answer = stage.send("POST", NOTIFY, &[], text.as_bytes());
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), json!({"rejected": []}));
    for channel in [channel(1), channel(3)] {
        let message = stage.agent.receive();
        assert_eq!(message["channelID"], channel.as_str());
        assert_eq!(decoded(&message), text.as_bytes());
        stage.agent.ack(&message);
    }
    assert_eq!(stage.agent.receive_within(Duration::from_millis(200)), None);
}

#[test]
fn matrix_notification_waits_for_a_user_agent_that_is_away() {
    let mut stage = Stage::with_config("[unifiedpush]\nmatrix = true\n");
    let uaid = stage.agent.uaid.clone();
    stage.leave();
    let body = notification(&[&format!("http://localhost{}", stage.open)]);
    assert_eq!(stage.notify(&body).json(), json!({"rejected": []}));
    stage.gateway.kill();
    stage.gateway.start_again();
    let mut agent = UserAgent::hello(&stage.gateway, Some(&uaid));
    assert_eq!(decoded(&agent.receive()), body.to_string().as_bytes());
}

#[test]
fn pushkeys_that_are_no_subscription_here_are_rejected_and_nobody_else_is_asked() {
    let mut stage = Stage::with_config("[unifiedpush]\nmatrix = true\n");
    let ended = stage.agent.register(&channel(3));
    stage.agent.unregister(&channel(3));
    let mut away = UserAgent::hello(&stage.gateway, None);
    let ended_away = away.register(&channel(1));
    away.unregister(&channel(1));
    drop(away);
    stage
        .gateway
        .wait_for_metric("edgepush_user_agents_connected", 1);
    // Whoever would fetch it would come here.
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let foreign = format!("http://{}/wpush/v1/token", trap.local_addr().unwrap());

    let good = format!("http://localhost{}", stage.open);
    let ended = format!("http://localhost{ended}");
    let ended_away = format!("http://localhost{ended_away}");
    let keys = [&foreign, "no url", &ended, &good, &ended_away];
    let answer = stage.notify(&notification(&keys));
    assert_eq!(answer.status, 200);
    let mut rejected: Vec<String> =
        serde_json::from_value(answer.json()["rejected"].clone()).unwrap();
    rejected.sort();
    let mut expected = vec![foreign, "no url".to_owned(), ended, ended_away];
    expected.sort();
    assert_eq!(rejected, expected);
    assert_eq!(stage.agent.receive()["channelID"], channel(1));
    assert!(trap.accept().is_err(), "nothing is fetched");
    assert_eq!(
        stage.notify(&notification(&[])).json(),
        json!({"rejected": []})
    );
}

#[test]
fn notification_that_cannot_be_taken_now_is_503_and_rejects_nobody() {
    let config = "[unifiedpush]\nmatrix = true\n[limits]\nmessages_per_user_agent_max = 1\n";
    let mut stage = Stage::with_config(config);
    stage.leave();
    let body = notification(&[&format!("http://localhost{}", stage.open), "no url"]);
    assert_eq!(stage.notify(&body).status, 200);
    let full = stage.notify(&body);
    assert_eq!(full.status, 503);
    assert!(full.header("retry-after").is_some());
    assert_eq!(full.json().get("rejected"), None);
}

#[test]
fn matrix_notification_has_limits_and_each_is_answered() {
    let mut stage = Stage::with_config("[unifiedpush]\nmatrix = true\n");
    let good = format!("http://localhost{}", stage.open);
    let mut long = notification(&[&good]);
    long["notification"]["content"] = json!({"body": "x".repeat(60_000)});
    assert_eq!(stage.notify(&long).json(), json!({"rejected": []}));
    let short = json!({"notification": {
        "event_id": "$event", "room_id": "!room:example.org", "prio": "high",
        "counts": {"unread": 2},
    }});
    let received: Value = serde_json::from_slice(&decoded(&stage.agent.receive())).unwrap();
    assert_eq!(received, short, "cut to what names the event");

    let names: Vec<String> = (0..17).map(|number| format!("k{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(stage.notify(&notification(&names[..16])).status, 200);
    assert_eq!(stage.notify(&notification(&names)).status, 400);
    let at_limit = stage.send("POST", NOTIFY, &[], &[b' '; 69_632]);
    assert_eq!(at_limit.status, 400, "read, and no JSON");
    let past = stage.send("POST", NOTIFY, &[], &[b' '; 69_633]);
    assert_eq!(
        (past.status, past.header("connection")),
        (413, Some("close"))
    );
    for body in ["", "{}", "[1]"] {
        assert_eq!(stage.send("POST", NOTIFY, &[], body.as_bytes()).status, 400);
    }
}
