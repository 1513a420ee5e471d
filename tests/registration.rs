//! Registration over HTTP, as a user agent without a websocket does it (PROTOCOL.md part 3, 4.12).

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::signer::Signer;
use support::{Answer, Gateway, Http, UserAgent, channel, path_of, post};

const REGISTRATION: &str = "/v1/webpush/app/registration";

/// A user agent that speaks HTTP.
struct Registered {
    path: String,
    uaid: String,
    channel: String,
    endpoint: String,
    authorization: String,
}

impl Registered {
    fn new(gateway: &Gateway) -> Self {
        let answer = send(gateway, "POST", REGISTRATION, None, b"{}");
        assert_eq!(answer.status, 200);
        let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
        Self {
            path: format!("{REGISTRATION}/{}", text("uaid")),
            uaid: text("uaid"),
            channel: text("channelID"),
            endpoint: path_of(&text("endpoint")),
            authorization: format!("Bearer {}", text("secret")),
        }
    }

    fn send(&self, gateway: &Gateway, method: &str, behind: &str, body: &[u8]) -> Answer {
        let path = format!("{}{behind}", self.path);
        send(gateway, method, &path, Some(&self.authorization), body)
    }

    fn channels(&self, gateway: &Gateway) -> Value {
        let answer = self.send(gateway, "GET", "", b"");
        assert_eq!(answer.status, 200);
        let body = answer.json();
        assert_eq!(body["uaid"], self.uaid.as_str());
        body["channelIDs"].clone()
    }
}

fn send(
    gateway: &Gateway,
    method: &str,
    path: &str,
    authorization: Option<&str>,
    body: &[u8],
) -> Answer {
    let header = authorization.map(|value| ("Authorization", value));
    let headers: Vec<_> = header.into_iter().collect();
    Http::connect(gateway.push).send(method, path, &headers, body)
}

fn told(answer: &Answer) -> (u16, Value, Value) {
    let body = answer.json();
    assert_eq!(body["code"], answer.status);
    (
        answer.status,
        body["errno"].clone(),
        body["message"].clone(),
    )
}

#[test]
fn user_agent_gets_a_name_an_endpoint_and_a_secret_without_a_websocket() {
    let gateway = Gateway::start();
    let body = json!({"token": "anything", "channelID": channel(7)}).to_string();
    let answer = send(&gateway, "POST", REGISTRATION, None, body.as_bytes());
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    let text = |name: &str| body[name].as_str().unwrap();
    assert_eq!(body.as_object().unwrap().len(), 4, "{body}");
    assert_eq!(text("channelID"), channel(7));
    let uaid = uuid::Uuid::try_parse(text("uaid")).unwrap();
    assert_eq!(text("uaid"), uaid.hyphenated().to_string());
    assert_eq!(uaid.get_version_num(), 4);
    assert!(text("endpoint").starts_with("http://localhost/wpush/v1/"));
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    assert!(text("secret").len() == 64 && text("secret").bytes().all(is_hex));
    // Names are chosen where none are given, and are others each time.
    let (one, other) = (Registered::new(&gateway), Registered::new(&gateway));
    assert_ne!(one.uaid, other.uaid);
    assert_ne!(one.channel, other.channel);
    assert_ne!(one.authorization, other.authorization);
}

#[test]
fn what_was_registered_over_http_is_known_on_the_websocket_and_gets_its_messages_there() {
    let gateway = Gateway::start();
    let registered = Registered::new(&gateway);
    let answer = post(&gateway, &registered.endpoint, &[("TTL", "60")], b"hello");
    assert_eq!(answer.status, 201);
    let mut agent = UserAgent::hello(&gateway, Some(&registered.uaid));
    assert_eq!(agent.uaid, registered.uaid.replace('-', ""), "kept");
    let message = agent.receive();
    assert_eq!(message["channelID"], registered.channel.as_str());
    assert_eq!(message["data"], "aGVsbG8");
    agent.ack(&message);

    // And the other way round: what the websocket registers is listed over HTTP.
    agent.register(&channel(1));
    let mut channels = vec![channel(1), registered.channel.clone()];
    channels.sort();
    let mut listed: Vec<String> = serde_json::from_value(registered.channels(&gateway)).unwrap();
    listed.sort();
    assert_eq!(listed, channels);
}

#[test]
fn subscription_made_or_ended_over_http_is_so_on_an_open_websocket_too() {
    let gateway = Gateway::start();
    let registered = Registered::new(&gateway);
    let mut agent = UserAgent::hello(&gateway, Some(&registered.uaid));
    let body = json!({"channelID": channel(2)}).to_string();
    let made = registered.send(&gateway, "POST", "/subscription", body.as_bytes());
    assert_eq!(made.status, 200);
    let body = made.json();
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    assert_eq!(body["channelID"], channel(2));
    let endpoint = path_of(body["endpoint"].as_str().unwrap());
    assert_eq!(post(&gateway, &endpoint, &[("TTL", "0")], b"x").status, 201);
    assert_eq!(agent.receive()["channelID"], channel(2));

    let subscription = format!("/subscription/{}", channel(2));
    let ended = registered.send(&gateway, "DELETE", &subscription, b"");
    assert_eq!((ended.status, ended.body.len()), (200, 0));
    let gone = post(&gateway, &endpoint, &[("TTL", "60")], b"x");
    assert_eq!(
        told(&gone),
        (410, json!(106), json!("No such subscription"))
    );
    // The other one is as it was, and nothing else has come.
    let other = post(&gateway, &registered.endpoint, &[("TTL", "0")], b"x");
    assert_eq!(other.status, 201);
    assert_eq!(agent.receive()["channelID"], registered.channel.as_str());
    assert_eq!(registered.channels(&gateway), json!([registered.channel]));

    for unknown in [channel(2), channel(9), "garbage".to_owned()] {
        let path = format!("/subscription/{unknown}");
        let answer = registered.send(&gateway, "DELETE", &path, b"");
        assert_eq!(
            told(&answer),
            (410, json!(106), json!("No such subscription"))
        );
    }
}

#[test]
fn message_that_waits_for_its_ack_is_410_when_its_subscription_ends_over_http() {
    let gateway = Gateway::with_config("[limits]\nack_window_millis = 10000\n");
    let registered = Registered::new(&gateway);
    let mut agent = UserAgent::hello(&gateway, Some(&registered.uaid));
    agent.settle();
    let mut http = Http::connect(gateway.push);
    let endpoint = &registered.endpoint;
    http.send_raw(
        format!(
            "POST {endpoint} HTTP/1.1\r\nHost: localhost\r\nTTL: 60\r\nContent-Length: 0\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!(agent.receive()["messageType"], "notification");
    let path = format!("/subscription/{}", registered.channel);
    assert_eq!(registered.send(&gateway, "DELETE", &path, b"").status, 200);
    assert_eq!(http.receive().status, 410);
}

#[test]
fn user_agent_that_ends_its_registration_is_closed_and_finds_nothing_when_it_comes_back() {
    let gateway = Gateway::start();
    let registered = Registered::new(&gateway);
    let mut agent = UserAgent::hello(&gateway, Some(&registered.uaid));
    let ended = registered.send(&gateway, "DELETE", "", b"");
    assert_eq!((ended.status, ended.body.len()), (200, 0));
    let reason = "this user agent has ended its registration".to_owned();
    assert_eq!(agent.closed(), (1000, reason));
    let gone = post(&gateway, &registered.endpoint, &[("TTL", "60")], b"x");
    assert_eq!(
        told(&gone),
        (410, json!(106), json!("No such subscription"))
    );

    // The name stays good: it is recognised by itself, not by its row.
    assert_eq!(registered.channels(&gateway), json!([]));
    let mut agent = UserAgent::hello(&gateway, Some(&registered.uaid));
    assert_eq!(agent.uaid, registered.uaid.replace('-', ""));
    assert_eq!(agent.receive_within(Duration::from_millis(200)), None);
    let again = registered.send(&gateway, "POST", "/subscription", b"");
    assert_eq!(again.status, 200);
    let endpoint = path_of(again.json()["endpoint"].as_str().unwrap());
    assert_eq!(post(&gateway, &endpoint, &[("TTL", "0")], b"x").status, 201);
    assert_eq!(agent.receive()["channelID"], again.json()["channelID"]);
}

#[test]
fn each_refusal_has_the_main_services_status_number_and_words() {
    let gateway = Gateway::start();
    let registered = Registered::new(&gateway);
    let other = Registered::new(&gateway);
    let incorrect = "Invalid Local Auth incorrect auth token";
    let missing_token = "Invalid Local Auth missing auth token";
    let shouted = registered.authorization.to_uppercase();
    let path = registered.path.as_str();
    let subscription = &format!("{path}/subscription");
    let one = &format!("{path}/subscription/{}", registered.channel);
    for (authorization, message) in [
        (None, "Invalid Local Auth missing auth header"),
        (Some("Bearer"), missing_token),
        (Some("Basic dXNlcg=="), missing_token),
        (Some("Bearer "), missing_token),
        (Some("Bearer abc"), incorrect),
        (Some(&*other.authorization), incorrect),
        (Some(&*shouted), incorrect),
    ] {
        for (method, path) in [
            ("GET", path),
            ("PUT", path),
            ("DELETE", path),
            ("POST", subscription),
            ("DELETE", one),
        ] {
            let answer = send(&gateway, method, path, authorization, b"");
            let expected = (401, json!(109), json!(message));
            assert_eq!(told(&answer), expected, "{method} {authorization:?}");
        }
    }
    assert_eq!(registered.channels(&gateway), json!([registered.channel]));
    let shouting = send(
        &gateway,
        "GET",
        path,
        Some(&registered.authorization.replace("Bearer", "WEBPUSH")),
        b"",
    );
    assert_eq!(shouting.status, 200);

    for uaid in ["garbage", "", "0207da37"] {
        let path = format!("{REGISTRATION}/{uaid}");
        let answer = send(&gateway, "GET", &path, Some("Bearer abc"), b"");
        assert_eq!(told(&answer), (410, json!(103), json!("UAID not found")));
        assert_eq!(answer.header("cache-control"), Some("max-age=86400"));
    }
}

#[test]
fn other_ways_to_a_user_agent_than_the_websocket_are_of_an_unknown_type() {
    let gateway = Gateway::start();
    let registered = Registered::new(&gateway);
    let refusal = (400, json!(108), json!("Invalid router type"));
    for router_type in ["fcm", "gcm", "apns", "adm", "WebPush", ""] {
        let path = format!("/v1/{router_type}/app/registration");
        let answer = send(&gateway, "POST", &path, None, b"{\"token\":\"x\"}");
        assert_eq!(told(&answer), refusal, "{router_type}");
        let path = format!("{path}/{}", registered.uaid);
        let authorization = Some(registered.authorization.as_str());
        let answer = send(&gateway, "GET", &path, authorization, b"");
        assert_eq!(told(&answer), refusal, "{router_type}");
        // The secret is looked at first.
        assert_eq!(send(&gateway, "GET", &path, None, b"").status, 401);
    }
}

#[test]
fn body_is_taken_as_json_to_its_limit_and_not_one_byte_more() {
    let gateway = Gateway::start();
    let registered = Registered::new(&gateway);
    let not_json =
        json!("The body must be a JSON object; token, channelID (a UUID) and key may be in it");
    for body in ["", "x", "{\"token\":1}", "{\"channelID\":\"x\"}"] {
        let answer = send(&gateway, "POST", REGISTRATION, None, body.as_bytes());
        assert_eq!(
            told(&answer),
            (400, json!(null), not_json.clone()),
            "{body}"
        );
        let answer = registered.send(&gateway, "PUT", "", body.as_bytes());
        assert_eq!(
            told(&answer),
            (400, json!(null), not_json.clone()),
            "{body}"
        );
        // Of a further subscription it is optional, and what is not understood is passed over.
        let answer = registered.send(&gateway, "POST", "/subscription", body.as_bytes());
        assert_eq!(answer.status, 200, "{body}");
    }
    let renewed = registered.send(&gateway, "PUT", "", b"{\"token\":\"x\"}");
    assert_eq!((renewed.status, renewed.body.len()), (200, 0));

    let body = |length: usize| format!("{{\"token\":\"{}\"}}", "x".repeat(length - 12));
    let at_limit = send(&gateway, "POST", REGISTRATION, None, body(5630).as_bytes());
    assert_eq!(at_limit.status, 200);
    let past = send(&gateway, "POST", REGISTRATION, None, body(5631).as_bytes());
    assert_eq!(past.header("connection"), Some("close"));
    let message = json!("The body is too large for a registration");
    assert_eq!(told(&past), (413, json!(null), message));
}

#[test]
fn key_restricts_the_endpoint_of_either_request_to_its_owner() {
    let gateway = Gateway::with_config("[vapid]\nclock = \"untrusted\"\n");
    let owner = Signer::new(1);
    let body = json!({"key": owner.public_key()}).to_string();
    let registered = Registered::new(&gateway);
    let first = send(&gateway, "POST", REGISTRATION, None, body.as_bytes());
    let second = registered.send(&gateway, "POST", "/subscription", body.as_bytes());
    let authorization = owner.authorization("http://localhost", 0);
    for answer in [first, second] {
        assert_eq!(answer.status, 200);
        let endpoint = path_of(answer.json()["endpoint"].as_str().unwrap());
        assert!(endpoint.starts_with("/wpush/v2/"), "{endpoint}");
        let without = post(&gateway, &endpoint, &[("TTL", "0")], b"x");
        let refusal = (401, json!(109), json!("Missing VAPID public key"));
        assert_eq!(told(&without), refusal);
        let headers = [("TTL", "0"), ("Authorization", authorization.as_str())];
        assert_eq!(post(&gateway, &endpoint, &headers, b"x").status, 201);
    }
    for path in [
        REGISTRATION.to_owned(),
        format!("{}/subscription", registered.path),
    ] {
        let authorization = Some(registered.authorization.as_str());
        let answer = send(&gateway, "POST", &path, authorization, b"{\"key\":\"a+b\"}");
        let refusal = (400, json!(null), json!("key: must be base64url"));
        assert_eq!(told(&answer), refusal);
    }
}

#[test]
fn user_agent_has_as_many_subscriptions_over_http_as_over_the_websocket() {
    let gateway = Gateway::with_config("[limits]\nsubscriptions_per_user_agent_max = 2\n");
    let registered = Registered::new(&gateway);
    let made = registered.send(&gateway, "POST", "/subscription", b"");
    assert_eq!(made.status, 200);
    let past = registered.send(&gateway, "POST", "/subscription", b"");
    let message =
        json!("This user agent has as many subscriptions as it may have; end others first");
    assert_eq!(told(&past), (429, json!(null), message));
    assert!(past.header("retry-after").is_some());
}

#[test]
fn stranger_who_may_open_no_websocket_may_not_register_either() {
    let mut gateway = Gateway::start();
    let registered = Registered::new(&gateway);
    gateway.restart_with("[access]\nwebsocket_from = [\"10.0.0.0/8\"]\n");
    assert_eq!(
        send(&gateway, "POST", REGISTRATION, None, b"{}").status,
        403
    );
    for (method, behind) in [
        ("GET", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", "/subscription"),
        ("DELETE", "/subscription/x"),
    ] {
        let answer = registered.send(&gateway, method, behind, b"");
        assert_eq!(answer.status, 403, "{method} {behind}");
    }
    // Anybody may post.
    let answer = post(&gateway, &registered.endpoint, &[("TTL", "60")], b"x");
    assert_eq!(answer.status, 201);
}

#[test]
fn registration_survives_a_kill() {
    let mut gateway = Gateway::start();
    let registered = Registered::new(&gateway);
    gateway.kill();
    gateway.start_again();
    assert_eq!(registered.channels(&gateway), json!([registered.channel]));
    let answer = post(&gateway, &registered.endpoint, &[("TTL", "60")], b"x");
    assert_eq!(answer.status, 201);
}
