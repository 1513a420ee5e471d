//! Websockets: too slow, too much, or none.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::Message;

use super::attacked;
use super::network::connection;
use super::support::{Gateway, Http, PATIENCE, UserAgent, channel, handshake, post, wait_until};
use super::{Neighbour, Network};

const QUICK: &str =
    "[limits]\nhello_timeout_secs = 1\nping_interval_secs = 2\npong_timeout_secs = 1\n";
const HELLO: &str = r#"{"messageType":"hello","use_webpush":true}"#;

/// A websocket of which the test makes the bytes itself.
pub struct Raw(pub TcpStream);

impl Raw {
    pub fn open(gateway: &Gateway, network: Network) -> Self {
        let mut stream = connection(network.attacker, gateway.push);
        stream.write_all(handshake("/", "").as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        Self(stream)
    }

    /// The same with its hello said and answered.
    pub fn named(gateway: &Gateway, network: Network) -> Self {
        let mut raw = Self::open(gateway, network);
        raw.0.write_all(&frame(0x81, HELLO.as_bytes())).unwrap();
        assert_eq!(raw.receive().0, 1);
        raw
    }

    /// Opcode and payload of the next frame.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut length = u64::from(head[1]);
        if length == 126 {
            let mut two = [0; 2];
            self.0.read_exact(&mut two).unwrap();
            length = u64::from(u16::from_be_bytes(two));
        }
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).unwrap();
        (head[0] & 15, payload)
    }

    /// The close code that comes next, apart from pings and pongs, and its reason.
    fn closed(&mut self) -> (u16, String) {
        loop {
            let (opcode, payload) = self.receive();
            if opcode == 8 {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                return (code, String::from_utf8_lossy(&payload[2..]).into_owned());
            }
            assert!(opcode > 8, "{opcode}: {payload:?}");
        }
    }
}

/// A frame of a user agent, masked with zeros; `first`: FIN, reserved bits and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Sends the same for as long as `body` takes, over a few connections, as fast as it can.
fn flooded(streams: &[TcpStream], bytes: &[u8], body: impl FnOnce()) {
    let ended = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = streams
        .iter()
        .map(|stream| {
            let (mut stream, ended) = (stream.try_clone().unwrap(), Arc::clone(&ended));
            // One that is not read from stops here.
            stream
                .set_write_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            let many = bytes.repeat(16_384 / bytes.len() + 1);
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) && stream.write_all(&many).is_ok() {}
            })
        })
        .collect();
    body();
    ended.store(true, Ordering::Relaxed);
    for flood in floods {
        flood.join().unwrap();
    }
}

/// Waits until so many websockets were closed for their silence; the neighbour is not one of them.
fn are_timed_out(gateway: &Gateway, neighbour: &mut Neighbour, count: u64) {
    wait_until("websockets are timed out", || {
        neighbour.is_served();
        gateway.metric("edgepush_websockets_timed_out_total") >= count
    });
    assert_eq!(gateway.metric("edgepush_websockets_timed_out_total"), count);
}

#[test]
fn frames_that_never_end_are_closed_in_time() {
    let test = "websocket::frames_that_never_end_are_closed_in_time";
    attacked(test, QUICK, |gateway, neighbour, network| {
        // Its head announces 60,000 bytes, of which one comes now and then.
        let mut head = frame(0x81, &vec![0; 60_000]);
        head.truncate(20);
        let mut nameless = Raw::open(gateway, network);
        let mut named = Raw::named(gateway, network);
        let start = Instant::now();
        let dripping: Vec<_> = [&nameless, &named]
            .map(|raw| {
                let (mut stream, head) = (raw.0.try_clone().unwrap(), head.clone());
                std::thread::spawn(move || {
                    stream.write_all(&head).unwrap();
                    while stream.write_all(b" ").is_ok() {
                        assert!(start.elapsed() < PATIENCE);
                        std::thread::sleep(Duration::from_millis(50));
                    }
                })
            })
            .into_iter()
            .collect();
        are_timed_out(gateway, neighbour, 2);
        assert_eq!(nameless.closed(), (1011, "no hello in time".to_owned()));
        assert_eq!(named.closed(), (1011, "no pong in time".to_owned()));
        drop((nameless, named));
        for dripping in dripping {
            dripping.join().unwrap();
        }
    });
}

#[test]
fn what_is_no_frame_is_closed_with_a_reason_also_right_after_a_new_name() {
    let test = "websocket::what_is_no_frame_is_closed_with_a_reason_also_right_after_a_new_name";
    attacked(test, "", |gateway, neighbour, network| {
        let mut unmasked = frame(0x81, b"{}");
        unmasked[1] &= 0x7f;
        unmasked.drain(2..6);
        let mut announced = vec![0x81, 0xff];
        announced.extend((1_u64 << 62).to_be_bytes());
        announced.extend([0; 4]);
        let mut wrapped = vec![0x81, 0xff];
        wrapped.extend(u64::MAX.to_be_bytes());
        wrapped.extend([0; 4]);
        let fragments = [frame(0x01, &[b' '; 60_000]), frame(0x00, &[b' '; 60_000])].concat();
        let attacks: Vec<Vec<u8>> = vec![
            unmasked,
            announced,
            wrapped,
            fragments,
            frame(0x81, &[b' '; 65_537]),
            frame(0xc1, b"{}"),                               // a reserved bit
            frame(0x83, b"{}"),                               // a reserved opcode
            frame(0x8b, b""),                                 // the same for control
            frame(0x09, b""),                                 // half a ping
            frame(0x89, &[0; 126]),                           // a long ping
            frame(0x80, b"{}"),                               // the rest of nothing
            [frame(0x01, b"{"), frame(0x81, b"{}")].concat(), // two at once
            frame(0x88, b"x"),                                // half a close code
            frame(0x81, b"{\"messageType\":\"\xff\xfe\"}"),   // no UTF-8
            frame(0x81, b"\xed\xa0\x80"),                     // a surrogate
        ];
        for attack in &attacks {
            let mut nameless = Raw::open(gateway, network);
            nameless.0.write_all(attack).unwrap();
            let mut named = Raw::named(gateway, network);
            named.0.write_all(attack).unwrap();
            for raw in [&mut nameless, &mut named] {
                let (code, reason) = raw.closed();
                assert_eq!(code, 1002, "{:?}: {reason}", &attack[..8.min(attack.len())]);
                assert!(!reason.is_empty());
            }
        }
        neighbour.is_served();
        let faulted = 2 * attacks.len() as u64;
        gateway.wait_for_metric("edgepush_websockets_faulted_total", faulted);
        gateway.wait_for_metric("edgepush_websockets_open", 1);
    });
}

#[test]
fn close_frames_of_every_kind_end_the_websocket() {
    let test = "websocket::close_frames_of_every_kind_end_the_websocket";
    attacked(test, "", |gateway, neighbour, network| {
        for payload in [
            &b""[..],
            b"\x03\xe8",
            b"\x00\x00",
            b"\xff\xff",
            b"\x03\xed",
            b"\x03\xe8\xff\xfe",
        ] {
            let mut raw = Raw::named(gateway, network);
            let mut bytes = frame(0x88, payload);
            // What follows is not read.
            bytes.extend(frame(0x81, b"{}").repeat(100));
            raw.0.write_all(&bytes).unwrap();
            let mut said = Vec::new();
            let _ = raw.0.read_to_end(&mut said);
            assert!(said.is_empty() || said[0] == 0x88, "{payload:?}: {said:?}");
        }
        // It closes and never hangs up.
        let mut raw = Raw::named(gateway, network);
        raw.0.write_all(&frame(0x88, b"\x03\xe8")).unwrap();
        assert_eq!(raw.closed().0, 1000);
        assert_eq!(raw.0.read(&mut [0; 1]).unwrap_or(0), 0);
        neighbour.is_served();
        gateway.wait_for_metric("edgepush_websockets_open", 1);
    });
}

#[test]
fn json_as_deep_as_a_message_goes_is_refused() {
    let test = "websocket::json_as_deep_as_a_message_goes_is_refused";
    attacked(test, "", |gateway, neighbour, network| {
        for text in [
            "[".repeat(65_000),
            "{\"a\":".repeat(13_000),
            format!("{{\"messageType\":{}", "[".repeat(60_000)),
        ] {
            let mut agent = UserAgent::over(connection(network.attacker, gateway.push)).unwrap();
            agent.send_text(&text);
            let (code, reason) = agent.closed();
            assert_eq!(code, 1011, "{reason}");
            let agent = UserAgent::over(connection(network.attacker, gateway.push)).unwrap();
            let mut agent = agent.greet(None);
            agent.send_text(&text);
            assert_eq!(agent.closed().0, 1011);
        }
        neighbour.is_served();
        gateway.wait_for_metric("edgepush_websockets_faulted_total", 6);
    });
}

/// Whatever comes as fast as it can, over a few websockets with a name and without.
fn held_off(gateway: &Gateway, neighbour: &mut Neighbour, network: Network, bytes: &[u8]) {
    let named: Vec<Raw> = (0..4).map(|_| Raw::named(gateway, network)).collect();
    let streams: Vec<TcpStream> = named.iter().map(|raw| raw.0.try_clone().unwrap()).collect();
    flooded(&streams, bytes, || {
        std::thread::sleep(Duration::from_millis(500));
        for _ in 0..20 {
            neighbour.is_served();
        }
    });
}

#[test]
fn user_agents_that_send_as_fast_as_they_can_leave_the_others_their_turns() {
    let test = "websocket::user_agents_that_send_as_fast_as_they_can_leave_the_others_their_turns";
    attacked(test, "", |gateway, neighbour, network| {
        let update = json!({"channelID": channel(9), "version": "x".repeat(40), "code": 100});
        let ack = json!({"messageType": "ack", "updates": [update]}).to_string();
        let long = json!({"messageType": "ack", "updates": vec![update; 300]}).to_string();
        let nack = r#"{"messageType":"nack","version":"x"}"#;
        for bytes in [
            frame(0x81, ack.as_bytes()),
            frame(0x81, long.as_bytes()),
            frame(0x81, nack.as_bytes()),
            frame(0x89, b""), // pings, whose pongs nobody reads
            frame(0x8a, b""), // pongs
        ] {
            held_off(gateway, neighbour, network, &bytes);
        }
    });
}

#[test]
fn fragments_without_an_end_leave_the_others_their_turns_and_are_closed_in_time() {
    let test =
        "websocket::fragments_without_an_end_leave_the_others_their_turns_and_are_closed_in_time";
    attacked(test, QUICK, |gateway, neighbour, network| {
        let raws = [Raw::open(gateway, network), Raw::named(gateway, network)];
        let streams: Vec<TcpStream> = raws.iter().map(|raw| raw.0.try_clone().unwrap()).collect();
        for mut stream in &streams {
            stream.write_all(&frame(0x01, b"{")).unwrap();
        }
        flooded(&streams, &frame(0x00, b""), || {
            are_timed_out(gateway, neighbour, 2);
        });
    });
}

#[test]
fn user_agent_that_never_reads_is_let_go_of_and_loses_nothing() {
    let test = "websocket::user_agent_that_never_reads_is_let_go_of_and_loses_nothing";
    let config = "[limits]\nwrite_timeout_secs = 1\nsubscription_burst_max = 10000\n";
    attacked(test, config, |gateway, neighbour, network| {
        let agent = UserAgent::over(connection(network.attacker, gateway.push)).unwrap();
        let mut agent = agent.greet(None);
        let endpoint = agent.register(&channel(1));
        let uaid = agent.uaid.clone();
        let mut accepted = 0;
        for _ in 0..300 {
            accepted +=
                u32::from(post(gateway, &endpoint, &[("TTL", "600")], &[7; 5000]).status == 201);
        }
        assert_eq!(accepted, 300);
        neighbour.is_served();
        gateway.wait_for_metric("edgepush_writes_timed_out_total", 1);
        drop(agent);

        let agent = UserAgent::over(connection(network.attacker, gateway.push)).unwrap();
        let mut again = agent.greet(Some(&uaid));
        for _ in 0..accepted {
            let notification = again.receive();
            again.ack(&notification);
        }
        again.settle();
        gateway.wait_for_metric("edgepush_stored_messages", 0);
    });
}

#[test]
fn hellos_and_pings_without_end_on_one_websocket_close_it() {
    let test = "websocket::hellos_and_pings_without_end_on_one_websocket_close_it";
    attacked(test, "", |gateway, neighbour, network| {
        for (bytes, reason) in [
            (
                frame(0x81, HELLO.as_bytes()),
                "only one hello per websocket",
            ),
            (frame(0x81, b"{}"), "pings come too quickly"),
        ] {
            let mut raw = Raw::named(gateway, network);
            let stream = raw.0.try_clone().unwrap();
            flooded(&[stream], &bytes, || {
                let text = loop {
                    let (opcode, payload) = raw.receive();
                    if opcode == 8 {
                        break String::from_utf8_lossy(&payload[2..]).into_owned();
                    }
                };
                assert_eq!(text, reason);
            });
        }
        neighbour.is_served();
        gateway.wait_for_metric("edgepush_websockets_faulted_total", 2);
    });
}

#[test]
fn registers_without_end_are_429_and_the_others_are_served() {
    let test = "websocket::registers_without_end_are_429_and_the_others_are_served";
    let config = "[limits]\nregistration_rate_per_min_max = 1\nregistration_burst_max = 50\n";
    attacked(test, config, |gateway, neighbour, network| {
        if !network.has_others {
            return;
        }
        let agent = UserAgent::over(connection(network.attacker, gateway.push)).unwrap();
        let mut agent = agent.greet(None);
        // All at once; answers keep the order of their questions.
        for number in 0..500 {
            agent.send(&json!({"messageType": "register", "channelID": channel(number)}));
        }
        let statuses: Vec<u64> = (0..500)
            .map(|_| agent.receive()["status"].as_u64().unwrap())
            .collect();
        let made = statuses.iter().filter(|status| **status == 200).count();
        assert!((50..53).contains(&made), "{made}");
        assert!(statuses.iter().all(|status| [200, 429].contains(status)));
        neighbour.is_served();
        let refused = 500 - made as u64;
        gateway.wait_for_metric("edgepush_registrations_over_address_rate_total", refused);
        // It has not been closed for it.
        agent.send_frame(Message::Ping(Vec::new().into()));
        assert!(matches!(agent.receive_frame(), Message::Pong(_)));
        drop(Http::over(connection(network.neighbour, gateway.push)));
    });
}
