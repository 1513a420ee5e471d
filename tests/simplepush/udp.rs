//! Devices that are let go of and woken by a datagram: rule R28 and 1.6.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::device::{Device, assert_accepted, put, unregister, unregistered, update};
use crate::support::{Gateway, UserAgent, channel, post};

const ON: &str = "[simplepush]\nudp_wakeup = true\n[limits]\nudp_idle_secs = 1\n";
/// Longer than a device is let be that can be woken: a second, to the next whole one.
const LONGER_THAN_IDLE: Duration = Duration::from_millis(2500);

/// A device on mobile data: what it listens on, and where that is.
struct Mobile {
    socket: UdpSocket,
    device: Device,
    endpoint: String,
}

impl Mobile {
    /// As Gecko says it.
    fn hello(socket: &UdpSocket, uaid: Option<&str>, ip: &str) -> String {
        let mut hello = json!({
            "messageType": "hello",
            "channelIDs": [],
            "wakeup_hostport": {"ip": ip, "port": socket.local_addr().unwrap().port()},
            "mobilenetwork": {"mcc": "214", "mnc": "07", "netid": ""},
        });
        if let Some(uaid) = uaid {
            hello["uaid"] = uaid.into();
            hello["channelIDs"] = json!([channel(1)]);
        }
        hello.to_string()
    }

    /// One that says that it listens on `ip`.
    fn at(gateway: &Gateway, ip: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut device = Device::connect(gateway);
        device.say_hello(&Self::hello(&socket, None, ip));
        let endpoint = device.register(&channel(1));
        Self {
            socket,
            device,
            endpoint,
        }
    }

    fn asleep(gateway: &Gateway) -> Self {
        let start = Instant::now();
        let mut mobile = Self::at(gateway, "127.0.0.1");
        assert_eq!(mobile.device.closed(), 4774);
        assert!(start.elapsed() >= Duration::from_secs(1));
        gateway.wait_for_metric("edgepush_user_agents_asleep", 1);
        mobile
    }

    fn is_woken(&self) {
        let (length, _) = self.socket.recv_from(&mut [0; 100]).expect("a datagram");
        assert!(length > 0);
    }

    fn is_left_alone(&self, time: Duration) {
        self.socket.set_read_timeout(Some(time)).unwrap();
        assert!(self.socket.recv_from(&mut [0; 100]).is_err(), "a datagram");
        self.socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
    }

    fn comes_back(&mut self, gateway: &Gateway) {
        let uaid = self.device.uaid.clone();
        self.device = Device::connect(gateway);
        self.device
            .say_hello(&Self::hello(&self.socket, Some(&uaid), "127.0.0.1"));
        assert_eq!(self.device.uaid, uaid);
    }
}

/// R28
#[test]
fn idle_device_is_let_go_of_and_woken_by_datagrams_until_it_is_back() {
    let gateway = Gateway::with_config(ON);
    let mut mobile = Mobile::asleep(&gateway);
    let start = Instant::now();
    assert_accepted(&put(&gateway, &mobile.endpoint, "version=5"), 202);
    mobile.is_woken();
    // One for the first of two updates; the second is in what it gets anyway.
    assert_accepted(&put(&gateway, &mobile.endpoint, "version=6"), 202);
    mobile.is_woken();
    assert!(start.elapsed() >= Duration::from_secs(1), "the second one");
    mobile.comes_back(&gateway);
    assert_eq!(mobile.device.hear(), update(&channel(1), 6));
    mobile.device.ack(&channel(1), 6);
    gateway.wait_for_metric("edgepush_user_agents_asleep", 0);
    // The third would come 5 s after the second.
    let awake = mobile.device.closed();
    assert_eq!(awake, 4774, "idle again");
    mobile.is_left_alone(Duration::from_secs(5));
}

/// R28
#[test]
fn push_message_wakes_as_a_version_does() {
    let gateway = Gateway::with_config(ON);
    let mut mobile = Mobile::asleep(&gateway);
    let now_or_never = post(&gateway, &mobile.endpoint, &[("TTL", "0")], b"x");
    assert_eq!(now_or_never.status, 201);
    mobile.is_left_alone(Duration::from_millis(400));
    let answer = post(&gateway, &mobile.endpoint, &[("TTL", "60")], b"x");
    assert_eq!(answer.status, 201);
    mobile.is_woken();
    mobile.comes_back(&gateway);
    crate::device::version_of(&mobile.device.hear());
}

/// R28: an old endpoint must not empty a battery.
#[test]
fn what_is_refused_wakes_nobody() {
    let gateway = Gateway::with_config(ON);
    let mut mobile = Mobile::at(&gateway, "127.0.0.1");
    let ended = mobile.device.register(&channel(2));
    let answer = mobile.device.ask(&unregister(&channel(2)));
    assert_eq!(answer, unregistered(&channel(2)));
    assert_eq!(mobile.device.closed(), 4774);
    for _ in 0..3 {
        assert_eq!(put(&gateway, &ended, "version=5").status, 410);
        let bad = put(&gateway, &mobile.endpoint, "version=-1");
        assert_eq!(bad.status, 400);
    }
    mobile.is_left_alone(Duration::from_millis(1500));
    assert_accepted(&put(&gateway, &mobile.endpoint, "version=5"), 202);
    mobile.is_woken();
}

/// R28
#[test]
fn device_that_is_owed_something_or_has_no_channel_is_not_let_go_of() {
    let config = ON.replace("[limits]\n", "[limits]\nack_window_millis = 0\n");
    let gateway = Gateway::with_config(&config);
    let mut mobile = Mobile::at(&gateway, "127.0.0.1");
    assert_accepted(&put(&gateway, &mobile.endpoint, "version=5"), 200);
    assert_eq!(mobile.device.hear(), update(&channel(1), 5));
    assert_eq!(mobile.device.hear_within(LONGER_THAN_IDLE), None);
    mobile.device.ack(&channel(1), 5);
    assert_eq!(mobile.device.closed(), 4774);

    let mut without_channel = Device::connect(&gateway);
    without_channel.say_hello(&Mobile::hello(&mobile.socket, None, "127.0.0.1"));
    assert_eq!(without_channel.hear_within(LONGER_THAN_IDLE), None);
}

/// R28: nobody is shot at on behalf of another.
#[test]
fn device_that_names_another_address_than_its_own_is_treated_as_any_other() {
    let gateway = Gateway::with_config(ON);
    let mut mobile = Mobile::at(&gateway, "127.0.0.2");
    assert_eq!(mobile.device.hear_within(LONGER_THAN_IDLE), None);
    drop(mobile.device);
    gateway.wait_for_metric("edgepush_websockets_open", 0);
    assert_accepted(&put(&gateway, &mobile.endpoint, "version=5"), 202);
    assert_eq!(gateway.metric("edgepush_wakeups_sent_total"), 0);
}

/// R28
#[test]
fn device_in_another_network_or_without_the_option_or_of_webpush_is_never_let_go_of() {
    let elsewhere = format!("{ON}[simplepush]\n").replacen(
        "udp_wakeup = true\n",
        "udp_wakeup = true\nudp_from = [\"10.0.0.0/8\"]\n",
        1,
    );
    let elsewhere = elsewhere.trim_end_matches("[simplepush]\n");
    for config in [elsewhere, "[limits]\nudp_idle_secs = 1\n"] {
        let gateway = Gateway::with_config(config);
        let mut mobile = Mobile::at(&gateway, "127.0.0.1");
        assert_eq!(mobile.device.hear_within(LONGER_THAN_IDLE), None);
        drop(mobile.device);
        gateway.wait_for_metric("edgepush_websockets_open", 0);
        assert_accepted(&put(&gateway, &mobile.endpoint, "version=5"), 202);
        mobile.socket.set_nonblocking(true).unwrap();
        assert!(mobile.socket.recv_from(&mut [0; 9]).is_err());
        assert_eq!(gateway.metric("edgepush_wakeups_sent_total"), 0);
    }
    let gateway = Gateway::with_config(ON);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut agent = UserAgent::connect(&gateway);
    let mut hello: serde_json::Value =
        serde_json::from_str(&Mobile::hello(&socket, None, "127.0.0.1")).unwrap();
    hello["use_webpush"] = true.into();
    agent.send(&hello);
    assert_eq!(agent.receive()["status"], 200);
    agent.register(&channel(1));
    assert_eq!(agent.receive_within(LONGER_THAN_IDLE), None);
}

/// R28
#[test]
fn device_that_sleeps_over_a_kill_is_woken_for_what_waits_and_for_what_comes() {
    let mut gateway = Gateway::with_config(ON);
    let mut mobile = Mobile::asleep(&gateway);
    gateway.kill();
    gateway.start_again();
    assert_accepted(&put(&gateway, &mobile.endpoint, "version=5"), 202);
    mobile.is_woken();

    gateway.kill();
    // What was under way before has arrived by now, on loopback.
    mobile.socket.set_nonblocking(true).unwrap();
    while mobile.socket.recv_from(&mut [0; 9]).is_ok() {}
    mobile.socket.set_nonblocking(false).unwrap();
    gateway.start_again();
    mobile.is_woken();
    mobile.comes_back(&gateway);
    assert_eq!(mobile.device.hear(), update(&channel(1), 5));
    mobile.device.ack(&channel(1), 5);
    mobile.device.settle();

    // Awake: nobody is woken after the next start.
    gateway.kill();
    gateway.start_again();
    gateway.wait_for_metric("edgepush_user_agents_asleep", 0);
}
