//! A version's way to its device: acks, order, repetition, reconnects and kills; rules R19 to R23
//! and R26, and what 200 and 202 promise.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::device::{
    Device, QUIET, ack, assert_accepted, begin_put, put, update, updates, version_of,
};
use crate::support::{Gateway, Http, channel};

/// No answer waits for an ack.
const NO_WINDOW: &str = "[limits]\nack_window_millis = 0\n";
/// Every answer waits for its ack.
const LONG_WINDOW: &str = "[limits]\nack_window_millis = 10000\n";

fn device_of(gateway: &Gateway) -> (Device, String) {
    let mut device = Device::newcomer(gateway);
    let endpoint = device.register(&channel(1));
    (device, endpoint)
}

/// Leaves, and comes back under its name.
fn again(gateway: &Gateway, device: Device) -> Device {
    let uaid = device.uaid.clone();
    drop(device);
    Device::returning(gateway, &uaid)
}

/// R19
#[test]
fn ack_in_every_form_is_taken_and_has_no_answer() {
    let gateway = Gateway::with_config(LONG_WINDOW);
    let (mut device, endpoint) = device_of(&gateway);
    let c = channel(1);
    let upper = c.to_uppercase();
    let hex = c.replace('-', "");
    for (body, form) in [
        ("version=1", ack(&c, 1)),
        (
            "version=2",
            format!(r#"{{"messageType":"ack","updates":[{{"channelID":"{c}","version":"2"}}]}}"#),
        ),
        (
            "version=3",
            format!(
                r#"{{"messageType":"ack","updates":[{{"channelID":"{upper}","version":3,"data":"x","code":7}}],"uaid":"x","channelIDs":[1]}}"#
            ),
        ),
        (
            "version=4",
            format!(
                r#"{{"messageType":"ack","updates":[null,5,{{}},{{"channelID":"{hex}","version":4}}]}}"#
            ),
        ),
        // One that is higher than what was sent.
        ("version=5", ack(&c, 50)),
    ] {
        let mut answer = begin_put(&gateway, &endpoint, body);
        let version = body["version=".len()..].parse().unwrap();
        assert_eq!(device.hear(), update(&c, version));
        device.say(&form);
        assert_accepted(&answer.receive(), 200);
    }
    // What says nothing that can be understood says nothing.
    for form in [
        r#"{"messageType":"ack"}"#.to_owned(),
        r#"{"messageType":"ack","updates":[]}"#.to_owned(),
        r#"{"messageType":"ack","updates":{}}"#.to_owned(),
        ack("testChannel", 1),
        ack(&channel(9), 1),
        format!(r#"{{"messageType":"ack","updates":[{{"channelID":"{c}","version":1.5}}]}}"#),
        format!(r#"{{"messageType":"ack","updates":[{{"channelID":"{c}"}}]}}"#),
    ] {
        device.say(&form);
    }
    device.assert_quiet();
    assert_eq!(device.ask("{}"), "{}");
}

/// R19
#[test]
fn ack_clears_its_channel_up_to_its_version_and_no_other() {
    let gateway = Gateway::with_config(NO_WINDOW);
    let (mut device, endpoint) = device_of(&gateway);
    let other = device.register(&channel(2));
    assert_accepted(&put(&gateway, &endpoint, "version=5"), 200);
    assert_accepted(&put(&gateway, &other, "version=5"), 200);
    assert_eq!(device.hear(), update(&channel(1), 5));
    assert_eq!(device.hear(), update(&channel(2), 5));
    device.ack(&channel(1), 4);
    let mut device = again(&gateway, device);
    let both = updates(&[(&channel(1), 5), (&channel(2), 5)]);
    assert_eq!(device.hear(), both, "4 is not 5");
    device.ack(&channel(1), 6);
    device.settle();
    let mut device = again(&gateway, device);
    assert_eq!(device.hear(), update(&channel(2), 5), "6 is more than 5");
    // An ack of what came on an earlier websocket.
    let mut device = again(&gateway, device);
    device.ack(&channel(2), 5);
    device.settle();
    assert_eq!(device.hear(), update(&channel(2), 5));
    again(&gateway, device).assert_quiet();
}

/// R20
#[test]
fn ack_of_the_aerogear_java_client_without_type_and_list_is_taken_and_never_closes() {
    let gateway = Gateway::with_config(LONG_WINDOW);
    let (mut device, endpoint) = device_of(&gateway);
    for version in 1..=5 {
        let mut answer = begin_put(&gateway, &endpoint, &format!("version={version}"));
        assert_eq!(device.hear(), update(&channel(1), version));
        device.say(&json!({"channelId": channel(1), "version": version}).to_string());
        assert_accepted(&answer.receive(), 200);
    }
    device.assert_quiet();
}

/// R21
#[test]
fn notification_has_one_update_when_live_and_all_that_wait_at_hello() {
    let gateway = Gateway::with_config(NO_WINDOW);
    let mut device = Device::newcomer(&gateway);
    let endpoints: Vec<String> = (0..3).map(|n| device.register(&channel(n))).collect();
    for (number, endpoint) in endpoints.iter().enumerate() {
        assert_accepted(&put(&gateway, endpoint, "version=7"), 200);
        assert_eq!(device.hear(), update(&channel(number as u32), 7));
    }
    let uaid = device.uaid.clone();
    drop(device);
    gateway.wait_for_metric("edgepush_websockets_open", 0);
    assert_accepted(&put(&gateway, &endpoints[1], "version=9&data=hi"), 202);
    let mut device = Device::returning(&gateway, &uaid);
    let (first, second, third) = (channel(0), channel(1), channel(2));
    let expected = format!(
        r#"{{"messageType":"notification","updates":[{{"channelID":"{first}","version":7}},{{"channelID":"{second}","version":9,"data":"hi"}},{{"channelID":"{third}","version":7}}]}}"#
    );
    assert_eq!(device.hear(), expected);
    for (channel, version) in [(&first, 7), (&second, 9), (&third, 7)] {
        device.ack(channel, version);
    }
    device.settle();
    again(&gateway, device).assert_quiet();
}

/// R21: of more channels than pushgo lets a device have, and with much data.
#[test]
fn everything_that_waits_for_many_channels_comes_in_one_frame() {
    let gateway = Gateway::start();
    let mut device = Device::newcomer(&gateway);
    let names: Vec<String> = (0..500).map(channel).collect();
    let endpoints: Vec<String> = names.iter().map(|name| device.register(name)).collect();
    let uaid = device.uaid.clone();
    drop(device);
    gateway.wait_for_metric("edgepush_websockets_open", 0);
    let mut http = Http::connect(gateway.push);
    for endpoint in &endpoints {
        let answer = http.send("PUT", &format!("{endpoint}?version=3"), &[], b"");
        assert_accepted(&answer, 202);
    }
    let mut device = Device::returning(&gateway, &uaid);
    let expected: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 3)).collect();
    assert_eq!(device.hear(), updates(&expected));
    let acks: Vec<Value> = names
        .iter()
        .map(|name| json!({"channelID": name, "version": 3}))
        .collect();
    device.say(&json!({"messageType": "ack", "updates": acks}).to_string());
    device.settle();
    let device = again(&gateway, device);
    drop(device);
    gateway.wait_for_metric("edgepush_websockets_open", 0);
    let data = "x".repeat(4096);
    for endpoint in &endpoints[..20] {
        let answer = put(&gateway, endpoint, &format!("version=4&data={data}"));
        assert_accepted(&answer, 202);
    }
    let mut device = Device::returning(&gateway, &uaid);
    let frame: Value = serde_json::from_str(&device.hear()).unwrap();
    assert_eq!(frame["updates"].as_array().unwrap().len(), 20);
    assert_eq!(frame["updates"][19]["data"], data);
}

/// R22
#[test]
fn every_update_is_forwarded_while_the_device_is_here_and_the_highest_is_kept() {
    let gateway = Gateway::with_config(NO_WINDOW);
    let (mut device, endpoint) = device_of(&gateway);
    for version in [5, 3, 5, 4, 0] {
        let body = format!("version={version}");
        assert_accepted(&put(&gateway, &endpoint, &body), 200);
        assert_eq!(device.hear(), update(&channel(1), version));
    }
    let mut device = again(&gateway, device);
    assert_eq!(device.hear(), update(&channel(1), 5), "only the highest");
    device.ack(&channel(1), 5);
    device.settle();
    // Lower than what was acked: a new one all the same.
    assert_accepted(&put(&gateway, &endpoint, "version=2"), 200);
    assert_eq!(device.hear(), update(&channel(1), 2));
    let uaid = device.uaid.clone();
    drop(device);
    gateway.wait_for_metric("edgepush_websockets_open", 0);
    for (body, _) in [("version=8", 8), ("version=6", 6), ("version=7", 7)] {
        assert_accepted(&put(&gateway, &endpoint, body), 202);
    }
    let mut device = Device::returning(&gateway, &uaid);
    assert_eq!(device.hear(), update(&channel(1), 8));
}

/// R22: pushgo's TestPush.
#[test]
fn fifty_updates_at_once_all_come() {
    let gateway = Gateway::start();
    let (mut device, endpoint) = device_of(&gateway);
    let mut answers: Vec<Http> = (1..=50)
        .map(|version| begin_put(&gateway, &endpoint, &format!("version={version}")))
        .collect();
    let mut missing: BTreeSet<u64> = (1..=50).collect();
    while !missing.is_empty() {
        let version = version_of(&device.hear());
        assert!(missing.remove(&version), "{version} once");
        device.ack(&channel(1), version);
    }
    for answer in &mut answers {
        assert_accepted(&answer.receive(), 200);
    }
    device.assert_quiet();
}

/// R23
#[test]
fn update_is_not_repeated_for_another_ones_ack_but_after_the_interval_and_on_reconnect() {
    let gateway =
        Gateway::with_config("[limits]\nack_window_millis = 0\nredelivery_interval_secs = 1\n");
    let (mut device, endpoint) = device_of(&gateway);
    let other = device.register(&channel(2));
    let sent = Instant::now();
    assert_accepted(&put(&gateway, &endpoint, "version=5"), 200);
    assert_eq!(device.hear(), update(&channel(1), 5));
    assert_accepted(&put(&gateway, &other, "version=6"), 200);
    assert_eq!(device.hear(), update(&channel(2), 6));
    device.ack(&channel(2), 6);
    assert_eq!(device.ask("{}"), "{}", "nothing before this");
    // Twice: as long as there is no ack.
    for round in 1..=2 {
        assert_eq!(device.hear(), update(&channel(1), 5));
        assert!(sent.elapsed() >= Duration::from_secs(round));
    }
    let mut device = again(&gateway, device);
    assert_eq!(device.hear(), update(&channel(1), 5));
    device.ack(&channel(1), 5);
    device.settle();
    let quiet = device.hear_within(Duration::from_millis(1500)); // one interval and a half
    assert_eq!(quiet, None, "acked, so no more");
}

/// 1.5
#[test]
fn update_acked_at_once_is_200_and_never_written() {
    let gateway = Gateway::with_config(LONG_WINDOW);
    let (mut device, endpoint) = device_of(&gateway);
    let mut before = 0;
    for version in 0..=20 {
        // The first update after a start writes how far the version clock may run.
        if version == 1 {
            before = gateway.metric("edgepush_storage_written_bytes_total");
        }
        let mut answer = begin_put(&gateway, &endpoint, &format!("version={version}"));
        assert_eq!(device.hear(), update(&channel(1), version));
        device.ack(&channel(1), version);
        assert_accepted(&answer.receive(), 200);
    }
    let after = gateway.metric("edgepush_storage_written_bytes_total");
    assert_eq!(after - before, 0, "bytes written for 20 updates");
}

/// 1.5
#[test]
fn update_never_acked_is_200_after_the_window_and_comes_again_on_reconnect_and_after_a_kill() {
    let mut gateway = Gateway::with_config("[limits]\nack_window_millis = 300\n");
    let (mut device, endpoint) = device_of(&gateway);
    let uaid = device.uaid.clone();
    let start = Instant::now();
    assert_accepted(&put(&gateway, &endpoint, "version=5&data=x"), 200);
    assert!(start.elapsed() >= Duration::from_millis(300));
    let with_data = device.hear();
    assert!(with_data.contains(r#""data":"x""#), "{with_data}");
    gateway.kill();
    gateway.start_again();
    let mut device = Device::returning(&gateway, &uaid);
    assert_eq!(device.hear(), with_data, "with the data that it came with");
}

/// 1.5
#[test]
fn update_whose_websocket_is_lost_before_the_ack_is_202_and_comes_on_reconnect() {
    for (config, status) in [
        (LONG_WINDOW, 202),
        (
            "[limits]\nack_window_millis = 10000\n[simplepush]\noffline_status = 200\n",
            200,
        ),
    ] {
        let mut gateway = Gateway::with_config(config);
        let (mut device, endpoint) = device_of(&gateway);
        let uaid = device.uaid.clone();
        let mut answer = begin_put(&gateway, &endpoint, "version=5");
        assert_eq!(device.hear(), update(&channel(1), 5));
        drop(device);
        assert_accepted(&answer.receive(), status);
        gateway.kill();
        gateway.start_again();
        let mut device = Device::returning(&gateway, &uaid);
        assert_eq!(device.hear(), update(&channel(1), 5));
    }
}

/// 1.5
#[test]
fn update_answered_202_survives_a_kill_and_is_gone_after_its_ack() {
    let mut gateway = Gateway::start();
    let (device, endpoint) = device_of(&gateway);
    let uaid = device.uaid.clone();
    drop(device);
    gateway.wait_for_metric("edgepush_websockets_open", 0);
    assert_accepted(&put(&gateway, &endpoint, "version=5"), 202);
    gateway.kill();
    gateway.start_again();
    let mut device = Device::returning(&gateway, &uaid);
    assert_eq!(device.hear(), update(&channel(1), 5));
    device.ack(&channel(1), 5);
    device.settle();
    gateway.kill();
    gateway.start_again();
    Device::returning(&gateway, &uaid).assert_quiet();
}

/// R24: after unregister nothing, as simplepush_test's `test_unreg_race` wants it.
#[test]
fn unregister_drops_what_was_not_acked() {
    let gateway =
        Gateway::with_config("[limits]\nack_window_millis = 0\nredelivery_interval_secs = 1\n");
    let (mut device, endpoint) = device_of(&gateway);
    assert_accepted(&put(&gateway, &endpoint, "version=5"), 200);
    assert_eq!(device.hear(), update(&channel(1), 5));
    device.say(&crate::device::unregister(&channel(1)));
    assert_eq!(device.hear(), crate::device::unregistered(&channel(1)));
    assert_eq!(device.hear_within(Duration::from_millis(1500)), None); // one interval and a half
    // Registered again it starts with nothing, under the same URL.
    assert_eq!(device.register(&channel(1)), endpoint);
    assert_eq!(device.hear_within(QUIET), None);
    let mut device = again(&gateway, device);
    device.settle();
    assert_accepted(&put(&gateway, &endpoint, "version=1"), 200);
    assert_eq!(device.hear(), update(&channel(1), 1));
}

/// A device that remembers the highest version that it saw, as Gecko does.
struct Versions {
    last: u64,
}

impl Versions {
    fn assert_higher(&mut self, notification: &str, about: &str) -> u64 {
        let version = version_of(notification);
        assert!(
            version > self.last,
            "{about}: {version} after {}",
            self.last
        );
        self.last = version;
        version
    }
}

/// R26
#[test]
fn version_that_nobody_names_is_higher_than_all_before_it_whatever_happened_in_between() {
    let mut gateway = Gateway::start();
    let (mut device, endpoint) = device_of(&gateway);
    let uaid = device.uaid.clone();
    let mut seen = Versions { last: 0 };
    for _ in 0..5 {
        let mut answer = begin_put(&gateway, &endpoint, "");
        let version = seen.assert_higher(&device.hear(), "online");
        device.ack(&channel(1), version);
        assert_accepted(&answer.receive(), 200);
    }
    for round in 0..3 {
        drop(device);
        gateway.wait_for_metric("edgepush_websockets_open", 0);
        for _ in 0..5 {
            assert_accepted(&put(&gateway, &endpoint, ""), 202);
        }
        if round == 1 {
            gateway.kill();
            gateway.start_again();
        }
        device = Device::returning(&gateway, &uaid);
        let version = seen.assert_higher(&device.hear(), "away");
        device.ack(&channel(1), version);
        let mut answer = begin_put(&gateway, &endpoint, "version=");
        let version = seen.assert_higher(&device.hear(), "back again");
        device.ack(&channel(1), version);
        assert_accepted(&answer.receive(), 200);
    }
    // Above what somebody named.
    let named = seen.last + 1_000_000;
    let mut answer = begin_put(&gateway, &endpoint, &format!("version={named}"));
    assert_eq!(device.hear(), update(&channel(1), named));
    device.ack(&channel(1), named);
    assert_accepted(&answer.receive(), 200);
    seen.last = named;
    let mut answer = begin_put(&gateway, &endpoint, "");
    let version = seen.assert_higher(&device.hear(), "above a named one");
    assert_eq!(version, named + 1);
    device.ack(&channel(1), version);
    assert_accepted(&answer.receive(), 200);
    gateway.terminate();
    gateway.start_again();
    assert_accepted(&put(&gateway, &endpoint, ""), 202);
    let mut device = Device::returning(&gateway, &uaid);
    seen.assert_higher(&device.hear(), "after a restart");
}

/// R26: all of them acked in their window, so that none was ever written.
#[test]
fn version_that_nobody_names_is_higher_after_a_kill_than_a_burst_before_it() {
    let mut gateway = Gateway::with_config(LONG_WINDOW);
    let (mut device, endpoint) = device_of(&gateway);
    let uaid = device.uaid.clone();
    let mut seen = Versions { last: 0 };
    for _ in 0..200 {
        let mut answer = begin_put(&gateway, &endpoint, "");
        let version = seen.assert_higher(&device.hear(), "burst");
        device.ack(&channel(1), version);
        assert_accepted(&answer.receive(), 200);
    }
    device.settle();
    gateway.kill();
    gateway.start_again();
    assert_accepted(&put(&gateway, &endpoint, ""), 202);
    let mut device = Device::returning(&gateway, &uaid);
    seen.assert_higher(&device.hear(), "after the kill");
}
