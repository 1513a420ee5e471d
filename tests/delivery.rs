//! A push message's way through the real program: kept, delivered, acknowledged, gone; also across a
//! kill, a lost database and full queues. `crashes.rs` has more kills.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::json;
use support::{Gateway, Http, UserAgent, channel, post};

const TTL: (&str, &str) = ("TTL", "600");
/// How long nothing must come.
const QUIET: Duration = Duration::from_millis(400);

#[test]
fn message_posted_while_away_survives_a_kill_and_is_gone_after_its_ack() {
    let mut gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let uaid = agent.uaid.clone();
    drop(agent);

    assert_eq!(post(&gateway, &endpoint, &[TTL], b"kept").status, 201);
    gateway.kill();
    gateway.start_again();

    let mut agent = UserAgent::hello(&gateway, Some(&uaid));
    assert_eq!(agent.uaid, uaid);
    let notification = agent.receive();
    assert_eq!(notification["channelID"], channel(1));
    assert_eq!(notification["data"], "a2VwdA");
    assert_eq!(
        notification["headers"],
        serde_json::json!({"encoding": "aes128gcm"})
    );
    agent.ack(&notification);
    agent.settle();

    gateway.kill();
    gateway.start_again();
    let mut agent = UserAgent::hello(&gateway, Some(&uaid));
    assert_eq!(agent.receive_within(QUIET), None);
}

#[test]
fn message_acked_in_time_is_never_written() {
    let gateway = Gateway::with_config("[limits]\nack_window_millis = 5000\n");
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let before = gateway.metric("edgepush_storage_written_bytes_total");

    let mut sender = Http::connect(gateway.push);
    let head =
        format!("POST {endpoint} HTTP/1.1\r\nHost: h\r\nTTL: 60\r\nContent-Length: 0\r\n\r\n");
    for _ in 0..50 {
        sender.send_raw(head.as_bytes());
        let notification = agent.receive();
        agent.ack(&notification);
        assert_eq!(sender.receive().status, 201);
    }

    let after = gateway.metric("edgepush_storage_written_bytes_total");
    assert_eq!(after - before, 0, "bytes written for 50 messages");
    gateway.wait_for_metric("edgepush_messages_never_written_total", 50);
}

#[test]
fn database_lost_and_key_kept_the_name_and_the_endpoints_are_still_good() {
    let mut gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let kept = agent.register(&channel(1));
    let ended = agent.register(&channel(2));
    let uaid = agent.uaid.clone();
    drop(agent);
    gateway.kill();
    for file in ["edgepush.db", "edgepush.db-wal", "edgepush.db-shm"] {
        let _ = fs::remove_file(gateway.data.join(file));
    }
    gateway.start_again();

    // Used before its user agent is back, and after.
    assert_eq!(post(&gateway, &kept, &[TTL], b"a").status, 201);
    let mut agent = UserAgent::hello(&gateway, Some(&uaid));
    assert_eq!(agent.uaid, uaid, "its name is its own");
    assert_eq!(agent.receive()["channelID"], channel(1));
    assert_eq!(post(&gateway, &kept, &[TTL], b"b").status, 201);
    assert_eq!(agent.receive()["channelID"], channel(1));

    // What it ends now stays ended, also for an endpoint of the lost database.
    agent.unregister(&channel(2));
    assert_eq!(post(&gateway, &ended, &[TTL], b"c").status, 410);
    agent.unregister(&channel(1));
    assert_eq!(post(&gateway, &kept, &[TTL], b"d").status, 410);
}

#[test]
fn key_lost_every_name_is_a_strangers() {
    let mut gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let uaid = agent.uaid.clone();
    gateway.kill();
    fs::remove_file(gateway.data.join("edgepush.key")).unwrap();
    gateway.start_again();

    assert_ne!(UserAgent::hello(&gateway, Some(&uaid)).uaid, uaid);
    assert_eq!(post(&gateway, &endpoint, &[TTL], b"a").status, 404);
}

#[test]
fn second_process_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let gateway = Gateway::start();
    let output = support::edgepush()
        .args(["--listen", "127.0.0.1:0", "--console", "off", "--data"])
        .arg(&gateway.data)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("another edgepush is using the data directory"),
        "{said}"
    );
    UserAgent::hello(&gateway, None);
}

#[test]
fn end_is_said_to_every_user_agent_and_what_was_accepted_is_kept() {
    let mut gateway = Gateway::with_config("[limits]\nack_window_millis = 5000\n");
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let uaid = agent.uaid.clone();
    let mut sender = Http::connect(gateway.push);
    let head =
        format!("POST {endpoint} HTTP/1.1\r\nHost: h\r\nTTL: 60\r\nContent-Length: 0\r\n\r\n");
    sender.send_raw(head.as_bytes());
    let first = agent.receive();

    let end = std::thread::spawn(move || (gateway.terminate(), gateway));
    assert_eq!(
        sender.receive().status,
        201,
        "its window was cut short by the commit"
    );
    let (code, reason) = agent.closed();
    assert_eq!(code, 1001);
    assert!(reason.contains("connect again"), "{reason}");
    let (status, mut gateway) = end.join().unwrap();
    assert_eq!(status.code(), Some(0));

    gateway.start_again();
    let mut agent = UserAgent::hello(&gateway, Some(&uaid));
    assert_eq!(
        agent.receive()["version"],
        first["version"],
        "the same message again"
    );
}

#[test]
fn full_queue_is_answered_429_and_nothing_in_it_is_lost() {
    let gateway = Gateway::with_config("[limits]\nmessages_per_user_agent_max = 3\n");
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let uaid = agent.uaid.clone();
    drop(agent);
    for body in ["1", "2", "3"] {
        assert_eq!(
            post(&gateway, &endpoint, &[TTL], body.as_bytes()).status,
            201
        );
    }
    let refused = post(&gateway, &endpoint, &[TTL], b"4");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), Some("300"));

    let mut agent = UserAgent::hello(&gateway, Some(&uaid));
    for data in ["MQ", "Mg", "Mw"] {
        let notification = agent.receive();
        assert_eq!(notification["data"], data, "in order");
        agent.ack(&notification);
    }
    agent.settle();
    assert_eq!(post(&gateway, &endpoint, &[("TTL", "0")], b"5").status, 201);
    assert_eq!(agent.receive()["data"], "NQ");
}

#[test]
fn backlog_of_any_length_costs_no_user_agent_its_name() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let uaid = agent.uaid.clone();
    drop(agent);
    let mut sender = Http::connect(gateway.push);
    for _ in 0..200 {
        assert_eq!(sender.send("POST", &endpoint, &[TTL], b"").status, 201);
    }
    // Twice: nothing is acked the first time.
    for _ in 0..2 {
        let mut agent = UserAgent::hello(&gateway, Some(&uaid));
        assert_eq!(agent.uaid, uaid);
        let versions: BTreeSet<_> = (0..200)
            .map(|_| agent.receive()["version"].to_string())
            .collect();
        assert_eq!(versions.len(), 200);
    }
}

#[test]
fn newer_message_of_a_topic_replaces_the_older_and_expired_ones_never_come() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let uaid = agent.uaid.clone();
    drop(agent);
    let topic = ("Topic", "doorbell");
    assert_eq!(
        post(&gateway, &endpoint, &[("TTL", "1")], b"short").status,
        201
    );
    assert_eq!(post(&gateway, &endpoint, &[TTL, topic], b"old").status, 201);
    assert_eq!(post(&gateway, &endpoint, &[TTL], b"other").status, 201);
    assert_eq!(post(&gateway, &endpoint, &[TTL, topic], b"new").status, 201);
    assert_eq!(
        post(&gateway, &endpoint, &[("TTL", "0")], b"never").status,
        201
    );
    std::thread::sleep(Duration::from_millis(2100)); // the TTL of `short`, in whole seconds

    let mut agent = UserAgent::hello(&gateway, Some(&uaid));
    assert_eq!(agent.receive()["data"], "b3RoZXI");
    assert_eq!(agent.receive()["data"], "bmV3");
    assert_eq!(agent.receive_within(QUIET), None);
}

#[test]
fn newest_websocket_of_a_user_agent_gets_everything_and_the_older_is_closed_a_little_later() {
    let gateway = Gateway::start();
    let mut older = UserAgent::hello(&gateway, None);
    let endpoint = older.register(&channel(1));
    assert_eq!(post(&gateway, &endpoint, &[TTL], b"a").status, 201);
    let first = older.receive();

    let start = std::time::Instant::now();
    let mut newer = UserAgent::hello(&gateway, Some(&older.uaid));
    assert_eq!(
        newer.receive()["version"],
        first["version"],
        "un-acked: sent again"
    );
    assert_eq!(post(&gateway, &endpoint, &[TTL], b"b").status, 201);
    assert_eq!(newer.receive()["data"], "Yg");

    let (code, reason) = older.closed();
    assert_eq!(code, 1011);
    assert!(reason.contains("another websocket"), "{reason}");
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "KUnifiedPush needs the delay"
    );
}

#[test]
fn deleted_message_is_not_delivered_and_others_are() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let uaid = agent.uaid.clone();
    drop(agent);
    let unwanted = post(&gateway, &endpoint, &[TTL], b"unwanted");
    assert_eq!(post(&gateway, &endpoint, &[TTL], b"wanted").status, 201);
    let location = support::path_of(unwanted.header("location").unwrap());
    for _ in 0..2 {
        let deleted = Http::connect(gateway.push).send("DELETE", &location, &[], b"");
        assert_eq!(deleted.status, 204);
    }
    let mut agent = UserAgent::hello(&gateway, Some(&uaid));
    assert_eq!(agent.receive()["data"], "d2FudGVk");
    assert_eq!(agent.receive_within(QUIET), None);
}

#[test]
fn less_urgent_messages_wait_until_their_user_agent_wants_them_again() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let say = |agent: &mut UserAgent, min: &str| {
        agent.send(&json!({"messageType": "urgency", "min": min}));
        assert_eq!(
            agent.receive(),
            json!({"messageType": "urgency", "status": 200})
        );
    };
    let send = |urgency: &str, headers: &[(&str, &str)], body: &str| {
        let mut all = vec![TTL, ("Urgency", urgency)];
        all.extend_from_slice(headers);
        assert_eq!(post(&gateway, &endpoint, &all, body.as_bytes()).status, 201);
    };
    say(&mut agent, "normal");
    let topic = ("Topic", "a");
    send("low", &[topic], "replaced");
    send("very-low", &[], "1");
    send("low", &[topic], "2");
    send("high", &[], "urgent");
    send("low", &[], "3");
    assert_eq!(agent.receive()["data"], "dXJnZW50");
    assert_eq!(agent.receive_within(QUIET), None);
    gateway.wait_for_metric("edgepush_messages_held_back_total", 4);

    // Nothing was acked, and what was sent is not sent twice.
    say(&mut agent, "low");
    for data in ["Mg", "Mw"] {
        let notification = agent.receive();
        assert_eq!(notification["data"], data, "in order");
        agent.ack(&notification);
    }
    say(&mut agent, "very-low");
    assert_eq!(agent.receive()["data"], "MQ");
    send("very-low", &[], "4");
    assert_eq!(agent.receive()["data"], "NA");
    assert_eq!(agent.receive_within(QUIET), None);

    // Another session has not asked.
    say(&mut agent, "high");
    send("normal", &[], "5");
    let uaid = agent.uaid.clone();
    let mut again = UserAgent::hello(&gateway, Some(&uaid));
    for data in ["MQ", "dXJnZW50", "NA", "NQ"] {
        assert_eq!(again.receive()["data"], data, "all of it, in order");
    }
}

#[test]
fn urgency_that_is_none_is_refused_and_the_websocket_stays_open() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    for text in [
        r#"{"messageType":"urgency"}"#,
        r#"{"messageType":"urgency","min":"urgent"}"#,
        r#"{"messageType":"urgency","min":{}}"#,
    ] {
        agent.send_text(text);
        let refused = json!({"messageType": "urgency", "status": 400});
        assert_eq!(agent.receive(), refused, "{text}");
    }
    agent.register(&channel(1));
}
