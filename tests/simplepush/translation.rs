//! Both kinds of application server for both kinds of user agent (PROTOCOL.md 1.A), and people with
//! curl.

use std::process::Command;

use serde_json::json;

use crate::device::{
    Device, Online, assert_accepted, assert_is_now, assert_refused, begin_put, put, unix_secs,
    version_of,
};
use crate::support::{Gateway, UserAgent, channel, path_of, post};

/// 1.5 and 1.D: as AeroGear's documentation tells people to do it by hand.
#[test]
fn curl_by_hand_is_understood_with_aerogears_odd_accept_header() {
    let mut online = Online::start();
    let url = format!("http://{}{}", online.gateway.push, online.endpoint);
    let accept = "Accept:application/x-www-form-urlencoded";
    let since = unix_secs();
    for (arguments, version) in [
        (vec!["-X", "PUT", "-d", "version=1", "-H", accept], Some(1)),
        (vec!["-X", "PUT", "-d", "version=2"], Some(2)),
        (vec!["-X", "PUT"], None),
        (vec!["-X", "PUT", "--http1.0", "-d", "version=3"], Some(3)),
        (
            vec![
                "-X",
                "PUT",
                "-H",
                "Transfer-Encoding: chunked",
                "-d",
                "version=4",
            ],
            Some(4),
        ),
        (
            vec![
                "-X",
                "PUT",
                "-H",
                "Content-Type: application/json",
                "-d",
                "{}",
            ],
            None,
        ),
        (vec!["-T", "/dev/null"], None),
    ] {
        let output = Command::new("curl")
            .args(["-s", "-S", "--max-time", "20", "-w", "\n%{http_code}"])
            .args(&arguments)
            .arg(&url)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, "{}\n200", "{arguments:?}");
        let got = version_of(&online.device.hear());
        match version {
            Some(version) => assert_eq!(got, version, "{arguments:?}"),
            None => assert_is_now(got, since),
        }
        online.device.ack(&channel(1), got);
    }
}

/// 1.A: a push message for a device that takes versions only.
#[test]
fn webpush_message_becomes_a_version_for_a_device_that_is_here_or_away() {
    let mut online = Online::start();
    let since = unix_secs();
    // As pywebpush makes it: salt, record size, key length, key, ciphertext.
    let mut body = vec![7; 16];
    body.extend([0, 0, 16, 0, 65, 4]);
    body.extend([9; 64 + 30]);
    let ttl = ("TTL", "600");
    let mut last = 0;
    for path in [
        online.endpoint.clone(),
        online.endpoint.replace("/update/", "/wpush/v1/"),
    ] {
        for body in [body.as_slice(), b""] {
            let answer = post(&online.gateway, &path, &[ttl, ("Topic", "a")], body);
            assert_eq!(answer.status, 201);
            assert!(answer.header("location").unwrap().contains("/m/"));
            let version = version_of(&online.device.hear());
            assert_is_now(version, since);
            assert!(version > last, "{version} after {last}");
            last = version;
            online.device.ack(&channel(1), version);
        }
    }
    let missing_ttl = post(&online.gateway, &online.endpoint, &[], &body);
    assert_refused(&missing_ttl, 400, Some(111), "Missing TTL value");
    let now_or_never = post(&online.gateway, &online.endpoint, &[("TTL", "0")], &body);
    assert_eq!(now_or_never.status, 201);
    let version = version_of(&online.device.hear());
    assert!(version > last);
    online.device.ack(&channel(1), version);
    online.device.settle();
    last = version;

    let uaid = online.device.uaid.clone();
    drop(online.device);
    online
        .gateway
        .wait_for_metric("edgepush_websockets_open", 0);
    for ttl in ["600", "600", "0"] {
        let answer = post(&online.gateway, &online.endpoint, &[("TTL", ttl)], &body);
        assert_eq!(answer.status, 201);
    }
    let mut device = Device::returning(&online.gateway, &uaid);
    let version = version_of(&device.hear());
    assert!(version > last, "{version} after {last}");
    device.ack(&channel(1), version);
    device.assert_quiet();
}

/// 1.A: an update for a user agent that takes messages.
#[test]
fn version_put_to_a_webpush_user_agent_comes_as_an_update_and_its_ack_is_a_number() {
    let gateway = Gateway::with_config("[limits]\nack_window_millis = 10000\n");
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    assert!(endpoint.starts_with("/wpush/v1/"), "{endpoint}");
    let mut answer = begin_put(&gateway, &endpoint, "version=5");
    let notification = agent.receive();
    let entry = json!({"channelID": channel(1), "version": 5});
    assert_eq!(
        notification,
        json!({"messageType": "notification", "updates": [entry]})
    );
    agent.send(&json!({"messageType": "ack", "updates": [{"channelID": channel(1), "version": 5, "code": 100}]}));
    assert_accepted(&answer.receive(), 200);

    let uaid = agent.uaid.clone();
    drop(agent);
    gateway.wait_for_metric("edgepush_websockets_open", 0);
    assert_accepted(&put(&gateway, &endpoint, "version=6"), 202);
    let message = post(&gateway, &endpoint, &[("TTL", "60")], b"x");
    assert_eq!(message.status, 201);
    let mut agent = UserAgent::hello(&gateway, Some(&uaid));
    assert_eq!(agent.receive()["updates"][0]["version"], 6);
    let second = agent.receive();
    assert_eq!(second["data"], "eA");
    agent
        .send(&json!({"messageType": "ack", "updates": [{"channelID": channel(1), "version": 6}]}));
    agent.ack(&second);
    agent.settle();
    drop(agent);
    let mut agent = UserAgent::hello(&gateway, Some(&uaid));
    assert_eq!(agent.receive_within(crate::device::QUIET), None);
}

/// R24: both are endpoints, whoever they were made for.
#[test]
fn endpoint_that_is_restricted_takes_a_version_from_the_owner_of_its_key_only() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let key =
        "BJsbCP4YcRlbBbpfWqGXqOiofhriqiG0KjdMaDwbHS3eHzj3J2vK74EWjokhG7WQH_l-SRvApsvBUNnnyz4lXnU";
    let register = json!({"messageType": "register", "channelID": channel(1), "key": key});
    agent.send(&register);
    let endpoint = path_of(agent.receive()["pushEndpoint"].as_str().unwrap());
    let answer = put(&gateway, &endpoint, "version=5");
    assert_refused(&answer, 401, Some(109), "Missing VAPID public key");
    assert_eq!(agent.receive_within(crate::device::QUIET), None);
}
