//! What clients of the era send, from `tests/fixtures/simplepush/` (see the README there), and the
//! exact answers.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use crate::device::{Device, unix_secs};
use crate::support::{Gateway, Http, UserAgent, handshake, path_of};

#[test]
fn firefox_os_gets_what_gecko_understands() {
    let played = play(include_str!("../fixtures/simplepush/gecko.jsonl"));
    assert_eq!((played.heard, played.answered), (14, 8));
}

#[test]
fn pushgos_smoke_test_finds_what_it_wants() {
    let played = play(include_str!("../fixtures/simplepush/pushgo-smoke.jsonl"));
    assert_eq!((played.heard, played.answered), (39, 2));
}

#[test]
fn autopushs_simplepush_test_finds_what_it_wants() {
    let played = play(include_str!("../fixtures/simplepush/simplepush_test.jsonl"));
    assert_eq!((played.heard, played.answered), (35, 6));
}

#[test]
fn push_testers_properties_hold() {
    let played = play(include_str!("../fixtures/simplepush/push-tester.jsonl"));
    assert_eq!((played.heard, played.answered), (6, 1));
}

#[test]
fn aerogears_node_client_is_understood_in_its_echoed_acks() {
    let played = play(include_str!("../fixtures/simplepush/aerogear-node.jsonl"));
    assert_eq!((played.heard, played.answered), (9, 4));
}

#[test]
fn aerogears_java_client_is_understood_in_its_haste_and_its_broken_acks() {
    let played = play(include_str!("../fixtures/simplepush/aerogear-java.jsonl"));
    assert_eq!((played.heard, played.answered), (9, 4));
}

#[test]
fn zaachs_client_gets_its_sub_protocol_and_keeps_its_own_name() {
    let played = play(include_str!("../fixtures/simplepush/zaach.jsonl"));
    assert_eq!((played.heard, played.answered), (6, 2));
}

#[test]
fn hobbyist_with_wscat_and_curl_is_served_or_told_what_is_wrong() {
    let played = play(include_str!("../fixtures/simplepush/wscat.jsonl"));
    assert_eq!((played.heard, played.answered), (9, 2));
}

/// How much of a transcript was compared.
struct Played {
    heard: usize,
    answered: usize,
}

fn play(transcript: &str) -> Played {
    let mut player = Player {
        // An answer waits for the ack that the transcript has next; without one not for long.
        gateway: Gateway::with_config("[limits]\nack_window_millis = 1000\n"),
        devices: HashMap::new(),
        requests: VecDeque::new(),
        learned: HashMap::new(),
        played: Played {
            heard: 0,
            answered: 0,
        },
    };
    for line in transcript.lines() {
        println!("{line}");
        let line: Value = serde_json::from_str(line).unwrap();
        if line["put"].is_string() {
            player.put(&line);
        } else if line["answer"].is_u64() {
            player.answer(&line);
        } else if line["connect"].is_string() {
            player.connect(&line);
        } else if !line["about"].is_string() {
            player.frame(&line);
        }
    }
    assert!(player.requests.is_empty(), "each has its answer");
    player.played
}

struct Player {
    gateway: Gateway,
    devices: HashMap<u64, Device>,
    requests: VecDeque<Http>,
    /// What `<name>` stands for.
    learned: HashMap<String, String>,
    played: Played,
}

impl Player {
    fn connect(&mut self, line: &Value) {
        let path = line["connect"].as_str().unwrap();
        let headers = line["headers"].as_str().unwrap();
        let (agent, answer) = UserAgent::connect_with(&self.gateway, &handshake(path, headers));
        let chosen = answer.contains("\r\nsec-websocket-protocol: push-notification\r\n");
        assert_eq!(line["chosen"], chosen, "{answer}");
        self.devices.insert(number(line), Device::on(agent));
    }

    fn frame(&mut self, line: &Value) {
        let conn = number(line);
        if line["leave"] == true {
            drop(self.devices.remove(&conn));
            let open = self.devices.len() as u64;
            self.gateway
                .wait_for_metric("edgepush_websockets_open", open);
            return;
        }
        let device = self.devices.get_mut(&conn).unwrap();
        if let Some(text) = line["say"].as_str() {
            device.say(&filled(text, &self.learned));
        } else if let Some(expected) = line["hear"].as_str() {
            let heard = device.hear();
            learn(expected, &heard, &mut self.learned);
            assert_eq!(heard, filled(expected, &self.learned));
            self.played.heard += 1;
        } else if let Some(code) = line["closed"].as_u64() {
            assert_eq!(u64::from(device.closed()), code);
            self.devices.remove(&conn);
        } else if line["settle"] == true {
            device.settle();
        } else {
            assert_eq!(line["quiet"], true, "a line of a known kind: {line}");
            device.assert_quiet();
        }
    }

    fn put(&mut self, line: &Value) {
        let path = path_of(&filled(line["put"].as_str().unwrap(), &self.learned));
        let body = line["body"].as_str().unwrap();
        let mut request = format!("PUT {path} HTTP/1.1\r\nHost: pi\r\n");
        for (name, value) in line["headers"].as_object().unwrap() {
            request.push_str(&format!("{name}: {}\r\n", value.as_str().unwrap()));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let mut http = Http::connect(self.gateway.push);
        http.send_raw(request.as_bytes());
        self.requests.push_back(http);
    }

    fn answer(&mut self, line: &Value) {
        let answer = self.requests.pop_front().unwrap().receive();
        assert_eq!(line["answer"], answer.status, "{answer:?}");
        if let Some(body) = line["body"].as_str() {
            assert_eq!(answer.body, body.as_bytes());
        }
        self.played.answered += 1;
    }
}

fn number(line: &Value) -> u64 {
    line["conn"].as_u64().unwrap()
}

/// The text with what is known in the place of `<name>`.
fn filled(text: &str, learned: &HashMap<String, String>) -> String {
    let mut text = text.to_owned();
    for (name, value) in learned {
        text = text.replace(&format!("<{name}>"), value);
    }
    text
}

/// Takes in what stands in the place of each `<name>` that is not known yet.
fn learn(expected: &str, heard: &str, learned: &mut HashMap<String, String>) {
    let expected = filled(expected, learned);
    let mut rest = heard;
    let mut parts = expected.split('<');
    rest = rest
        .strip_prefix(parts.next().unwrap_or_default())
        .unwrap_or_else(|| panic!("heard {heard}\nexpected {expected}"));
    for part in parts {
        let (name, tail) = part.split_once('>').unwrap();
        let end = rest.find(['"', ',', '}']).unwrap();
        let value = &rest[..end];
        if name.starts_with("now") {
            let version: u64 = value.parse().unwrap();
            assert!(version.abs_diff(unix_secs()) < 60, "{version}");
        }
        learned.insert(name.to_owned(), value.to_owned());
        rest = rest[end..]
            .strip_prefix(tail)
            .unwrap_or_else(|| panic!("heard {heard}\nexpected {expected}"));
    }
}
