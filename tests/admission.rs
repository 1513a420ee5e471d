//! Limits of the real program: what is turned away, with which answer, and whom it does not touch.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use support::{Answer, Gateway, Http, UserAgent, channel, handshake, post};

const TTL: (&str, &str) = ("TTL", "600");

/// A refusal that passes: 429, when to come back, and a sentence that has `about` in it.
fn assert_turned_away(answer: &Answer, about: &str) -> u64 {
    assert_eq!(answer.status, 429, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["code"], 429);
    assert_eq!(body["errno"], serde_json::Value::Null);
    assert_eq!(body["error"], "Too Many Requests");
    let message = body["message"].as_str().unwrap();
    assert!(message.contains(about), "{message}");
    answer.header("retry-after").unwrap().parse().unwrap()
}

#[test]
fn full_subscription_is_429_and_others_of_the_same_user_agent_still_have_room() {
    let gateway = Gateway::with_config("[limits]\nmessages_per_subscription_max = 2\n");
    let mut agent = UserAgent::hello(&gateway, None);
    let noisy = agent.register(&channel(1));
    let quiet = agent.register(&channel(2));
    let uaid = agent.uaid.clone();
    drop(agent);
    for body in ["1", "2"] {
        assert_eq!(post(&gateway, &noisy, &[TTL], body.as_bytes()).status, 201);
    }
    let refused = post(&gateway, &noisy, &[TTL], b"3");
    assert_eq!(assert_turned_away(&refused, "this subscription"), 300);
    assert_eq!(post(&gateway, &quiet, &[TTL], b"4").status, 201);
    gateway.wait_for_metric("edgepush_messages_over_subscription_quota_total", 1);

    let mut agent = UserAgent::hello(&gateway, Some(&uaid));
    for data in ["MQ", "Mg", "NA"] {
        let notification = agent.receive();
        assert_eq!(notification["data"], data);
        agent.ack(&notification);
    }
    agent.settle();
    drop(agent);
    assert_eq!(post(&gateway, &noisy, &[TTL], b"5").status, 201);
}

#[test]
fn flooded_subscription_is_429_until_its_time_and_another_one_is_not_touched() {
    let limits = "[limits]\nsubscription_rate_per_sec_max = 1\nsubscription_burst_max = 5\n";
    let gateway = Gateway::with_config(limits);
    let mut agent = UserAgent::hello(&gateway, None);
    let flooded = agent.register(&channel(1));
    let other = agent.register(&channel(2));
    let answers: Vec<Answer> = (0..20)
        .map(|_| post(&gateway, &flooded, &[("TTL", "0")], b"x"))
        .collect();
    assert!(answers[..5].iter().all(|answer| answer.status == 201));
    let mut refused = 0;
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(assert_turned_away(answer, "to this subscription"), 1);
        refused += 1;
    }
    assert!(refused > 0);
    assert_eq!(post(&gateway, &other, &[("TTL", "0")], b"x").status, 201);
    gateway.wait_for_metric("edgepush_messages_over_subscription_rate_total", refused);
}

const TOKEN: &str = "kitchen-raspberry-7";

/// The answer to a handshake that is refused.
fn refused(gateway: &Gateway, path: &str, headers: &str) -> Answer {
    let mut http = Http::connect(gateway.push);
    http.send_raw(handshake(path, headers).as_bytes());
    http.receive()
}

#[test]
fn join_token_lets_a_user_agent_in_from_anywhere_and_is_seen_by_nobody() {
    let config = format!(
        "[access]\nwebsocket_from = [\"192.0.2.0/24\"]\njoin_tokens = [\"another-one-of-them\", \"{TOKEN}\"]\n"
    );
    let gateway = Gateway::with_config(&config);
    for path in [
        "/".to_owned(),
        format!("/{}", &TOKEN[1..]),
        format!("/{TOKEN}x/"),
        format!("/x/{TOKEN}/"),
        format!("//{TOKEN}/"),
        format!("/?{TOKEN}"),
    ] {
        let answer = refused(&gateway, &path, "");
        assert_eq!(answer.status, 403, "{path}");
        let said = String::from_utf8(answer.body).unwrap();
        assert!(said.contains("access.join_tokens"), "{said}");
        assert!(!said.contains(&TOKEN[1..]), "{said}");
    }
    gateway.wait_for_metric("edgepush_websockets_forbidden_total", 6);

    let hello = serde_json::json!({"messageType": "hello", "use_webpush": true});
    for path in [
        format!("/{TOKEN}"),
        format!("/{TOKEN}/"),
        format!("/{TOKEN}/a/b?c=d"),
        "/another-one-of-them/".to_owned(),
    ] {
        let (mut agent, _) = UserAgent::connect_with(&gateway, &handshake(&path, ""));
        agent.send(&hello);
        assert_eq!(agent.receive()["status"], 200, "{path}");
        let endpoint = agent.register(&channel(1));
        assert!(endpoint.starts_with("/wpush/v1/"), "{endpoint}");
        assert_eq!(post(&gateway, &endpoint, &[TTL], b"x").status, 201);
        assert_eq!(agent.receive()["data"], "eA");
    }
    // The SimplePush path behind it is still that.
    let path = format!("/{TOKEN}/simplepush/websocket");
    let (mut old, _) = UserAgent::connect_with(&gateway, &handshake(&path, ""));
    old.send_text(r#"{"messageType":"hello","uaid":"","channelIDs":[]}"#);
    assert!(old.receive().get("use_webpush").is_none());

    // At the log level that says most of connections.
    let log = gateway.log();
    assert!(log.contains("hello uaid="), "{log}");
    assert!(
        !log.contains(TOKEN) && !log.contains("another-one"),
        "{log}"
    );
}

#[test]
fn trusted_proxy_says_where_a_user_agent_is_and_others_are_not_believed() {
    let elsewhere = "X-Forwarded-For: 192.168.1.5, 203.0.113.7\r\n";
    let at_home = "X-Forwarded-For: 203.0.113.7, 192.168.1.5\r\n";
    let gateway = Gateway::with_config("[access]\ntrusted_proxies = [\"127.0.0.1\"]\n");
    assert_eq!(refused(&gateway, "/", elsewhere).status, 403);
    UserAgent::connect_with(&gateway, &handshake("/", at_home));
    UserAgent::connect_with(&gateway, &handshake("/", ""));

    let gateway = Gateway::start();
    UserAgent::connect_with(&gateway, &handshake("/", elsewhere));
}

#[test]
fn address_with_too_many_websockets_is_429_and_another_one_is_not() {
    let gateway = Gateway::with_config(
        "[access]\ntrusted_proxies = [\"127.0.0.1\"]\n[limits]\nwebsockets_per_address_max = 2\n",
    );
    let one = "X-Forwarded-For: 192.168.1.5\r\n";
    let other = "X-Forwarded-For: 192.168.1.6\r\n";
    let (first, _) = UserAgent::connect_with(&gateway, &handshake("/", one));
    let (mut second, _) = UserAgent::connect_with(&gateway, &handshake("/", one));
    second.send_text("{}");
    second.receive(); // both are open by now
    let answer = refused(&gateway, "/", one);
    assert_eq!(assert_turned_away(&answer, "from this address"), 60);
    UserAgent::connect_with(&gateway, &handshake("/", other));
    gateway.wait_for_metric("edgepush_websockets_over_address_max_total", 1);

    drop(first);
    gateway.wait_for_metric("edgepush_websockets_open", 1);
    UserAgent::connect_with(&gateway, &handshake("/", one));
}

#[test]
fn sender_that_floods_from_one_address_is_429_and_another_sender_is_not() {
    let gateway = Gateway::with_config(
        "[access]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [limits]\naddress_rate_per_sec_max = 1\naddress_burst_max = 3\n",
    );
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let send = |from: &str| {
        let headers = [("TTL", "0"), ("X-Forwarded-For", from)];
        post(&gateway, &endpoint, &headers, b"x")
    };
    let answers: Vec<Answer> = (0..9).map(|_| send("203.0.113.7")).collect();
    assert!(answers[..3].iter().all(|answer| answer.status == 201));
    let refused = answers.iter().find(|answer| answer.status != 201).unwrap();
    assert_eq!(assert_turned_away(refused, "from this address"), 1);
    assert_eq!(send("203.0.113.8").status, 201);
}

#[test]
fn registrations_over_http_count_for_their_address_as_those_of_a_websocket_do() {
    let gateway = Gateway::with_config(
        "[access]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [limits]\nnewcomer_rate_per_min_max = 1\nnewcomer_burst_max = 2\n",
    );
    let register = |from: &str| {
        let headers = [("X-Forwarded-For", from)];
        let path = "/v1/webpush/app/registration";
        Http::connect(gateway.push).send("POST", path, &headers, b"{}")
    };
    for _ in 0..2 {
        assert_eq!(register("192.168.1.5").status, 200);
    }
    let retry = assert_turned_away(&register("192.168.1.5"), "registrations from this address");
    assert!((55..=60).contains(&retry), "{retry}");
    let proxied = handshake("/", "X-Forwarded-For: 192.168.1.5\r\n");
    let (mut agent, _) = UserAgent::connect_with(&gateway, &proxied);
    agent.send_text(r#"{"messageType":"hello","use_webpush":true}"#);
    agent.receive();
    let text = format!(
        r#"{{"messageType":"register","channelID":"{}"}}"#,
        channel(1)
    );
    agent.send_text(&text);
    assert_eq!(agent.receive()["status"], 429);
    assert_eq!(register("192.168.1.6").status, 200);
    gateway.wait_for_metric("edgepush_newcomers_over_address_rate_total", 2);
    // Nobody outside registers by inventing where he is.
    assert_eq!(register("192.168.1.7, 203.0.113.7").status, 403);
}

#[test]
fn flooded_subscription_is_not_reached_by_way_of_the_matrix_gateway_either() {
    let gateway = Gateway::with_config(
        "[unifiedpush]\nmatrix = true\n\
         [limits]\nsubscription_rate_per_sec_max = 1\nsubscription_burst_max = 1\n",
    );
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = format!("http://pi{}", agent.register(&channel(1)));
    let body = serde_json::json!({"notification": {"devices": [{"pushkey": endpoint}]}});
    let notify = || {
        let path = "/_matrix/push/v1/notify";
        Http::connect(gateway.push).send("POST", path, &[], body.to_string().as_bytes())
    };
    let answers: Vec<Answer> = (0..5).map(|_| notify()).collect();
    assert_eq!(answers[0].status, 200, "{:?}", answers[0]);
    let refused = answers.iter().find(|answer| answer.status != 200).unwrap();
    assert_eq!(refused.status, 503, "a homeserver sends it again");
    assert!(refused.header("retry-after").is_some());
}
