//! Limits of the real program: what is turned away, with which answer, and whom it does not touch.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use support::{Answer, Gateway, UserAgent, channel, post};

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
