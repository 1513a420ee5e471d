//! What real user agents sent (`tests/fixtures/frames/`, see the README there), sent again: the
//! gateway must answer each in the form that it was recorded to understand.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use std::collections::{HashMap, HashSet};

use data_encoding::BASE64;
use serde_json::Value;
use support::{Gateway, Http, UserAgent, path_of};

const FIREFOX: &str = include_str!("fixtures/frames/firefox.jsonl");
const KUNIFIEDPUSH: &str = include_str!("fixtures/frames/kunifiedpush.jsonl");
const AUTOPUSH_MANAGER: &str = include_str!("fixtures/frames/autopush-manager.jsonl");

#[test]
fn firefox_is_answered_in_the_form_that_it_understands() {
    let seen = Replay::run(FIREFOX);
    assert_eq!((seen.hellos, seen.registers, seen.unregisters), (4, 4, 2));
    assert_eq!((seen.posts, seen.notifications), (21, 19));
}

#[test]
fn kunifiedpush_is_answered_in_the_form_that_it_understands() {
    let seen = Replay::run(KUNIFIEDPUSH);
    assert_eq!((seen.hellos, seen.registers, seen.unregisters), (4, 2, 1));
    assert_eq!((seen.posts, seen.notifications), (7, 9));
}

#[test]
fn autopush_manager_is_answered_in_the_form_that_it_understands() {
    let seen = Replay::run(AUTOPUSH_MANAGER);
    assert_eq!((seen.hellos, seen.registers, seen.unregisters), (2, 1, 1));
    assert_eq!((seen.posts, seen.notifications), (21, 21));
}

/// How much there was of each kind in a recording.
#[derive(Debug, Default)]
struct Seen {
    hellos: usize,
    registers: usize,
    unregisters: usize,
    posts: usize,
    notifications: usize,
}

/// One recording against one gateway.
///
/// The recordings leave out what repeats: a connection that begins in the middle is opened under the
/// last name, and what belongs to a subscription whose register was left out is passed over.
struct Replay {
    gateway: Gateway,
    agents: HashMap<u64, UserAgent>,
    /// Recorded names to the gateway's: UAIDs, endpoints, versions.
    ours: HashMap<String, String>,
    channels: HashSet<String>,
    uaid: String,
    seen: Seen,
}

impl Replay {
    fn run(recording: &str) -> Seen {
        // Answers do not wait for acks here, so that one thing can come after the other. The
        // VAPID tokens are real, and were made out for the day of the recording.
        let config = "[limits]\nack_window_millis = 0\n[vapid]\nclock = \"untrusted\"\n";
        let gateway = Gateway::with_config(config);
        let mut replay = Self {
            gateway,
            agents: HashMap::new(),
            ours: HashMap::new(),
            channels: HashSet::new(),
            uaid: String::new(),
            seen: Seen::default(),
        };
        let mut posted = None;
        for line in recording.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["method"].is_string() {
                posted = replay.post(&line);
            } else if let Some(expected) = line["status"].as_u64() {
                assert!(
                    posted.is_none_or(|status| u64::from(status) == expected),
                    "{line}"
                );
            } else {
                replay.frame(&line);
            }
        }
        replay.seen
    }

    fn frame(&mut self, line: &Value) {
        let connection = line["conn"].as_u64().unwrap_or_default();
        let raw = self.translated(line["raw"].as_str().unwrap_or_default());
        match (line["direction"].as_str(), line["kind"].as_str()) {
            (Some("c2s"), Some("handshake")) => {
                let offered = raw.contains("push-notification");
                let (agent, answer) = UserAgent::connect_with(&self.gateway, &raw);
                let chosen = answer.contains("sec-websocket-protocol: push-notification");
                assert_eq!(chosen, offered, "{answer}");
                assert!(!answer.contains("sec-websocket-extensions"), "{answer}");
                self.agents.insert(connection, agent);
            }
            (Some("c2s"), Some("text")) => {
                let agent = self.agent(connection);
                agent.send_text(&raw);
                if raw.contains(r#""messageType":"ack""#) {
                    agent.settle();
                }
            }
            (Some("s2c"), Some("text")) => self.answer(connection, line),
            (Some("c2s"), Some("tcp-end" | "close")) => drop(self.agents.remove(&connection)),
            _ => {}
        }
    }

    fn agent(&mut self, connection: u64) -> &mut UserAgent {
        let (gateway, uaid) = (&self.gateway, &self.uaid);
        let open = || UserAgent::hello(gateway, Some(uaid));
        self.agents.entry(connection).or_insert_with(open)
    }

    /// The recorded text with the gateway's own names in it.
    fn translated(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (theirs, ours) in &self.ours {
            text = text.replace(theirs, ours);
        }
        text
    }

    fn remember(&mut self, theirs: &Value, ours: &Value) {
        let names = (theirs.as_str().unwrap(), ours.as_str().unwrap());
        self.ours.insert(names.0.to_owned(), names.1.to_owned());
    }

    /// Compares what the gateway says next with what the recorded server said.
    fn answer(&mut self, connection: u64, line: &Value) {
        let recorded: Value = serde_json::from_str(line["raw"].as_str().unwrap()).unwrap();
        let channel = recorded["channelID"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let unknown = !self.channels.contains(&channel);
        match recorded["messageType"].as_str() {
            // What there is to broadcast is not in the recording.
            Some("broadcast") => return,
            Some("notification") if unknown => return,
            _ => {}
        }
        let mut said = self.agent(connection).receive();
        if said["messageType"] == "broadcast" {
            // Nothing is broadcast here, which the main service would say as well.
            let errors =
                serde_json::json!({"remote-settings/monitor_changes": "Broadcast not found"});
            assert_eq!(said["broadcasts"], serde_json::json!({"errors": errors}));
            said = self.agent(connection).receive();
        }
        for field in [
            "messageType",
            "status",
            "channelID",
            "use_webpush",
            "data",
            "headers",
        ] {
            assert_eq!(said[field], recorded[field], "{field}\n{recorded}\n{said}");
        }
        match said["messageType"].as_str() {
            Some("hello") => {
                self.seen.hellos += 1;
                self.remember(&recorded["uaid"], &said["uaid"]);
                self.uaid = said["uaid"].as_str().unwrap().to_owned();
            }
            Some("register") => {
                self.seen.registers += 1;
                self.channels.insert(channel);
                self.remember(&recorded["pushEndpoint"], &said["pushEndpoint"]);
            }
            Some("unregister") => self.seen.unregisters += 1,
            Some("notification") => {
                self.seen.notifications += 1;
                self.remember(&recorded["version"], &said["version"]);
            }
            _ => assert_eq!(said, recorded),
        }
    }

    /// Posts as recorded, if the endpoint is one of ours; the status.
    fn post(&mut self, line: &Value) -> Option<u16> {
        let url = line["url"].as_str().unwrap();
        let endpoint = self.ours.get(url)?;
        let host = url.strip_suffix(&path_of(url)).unwrap();
        let host = host.strip_prefix("http://").unwrap();
        let body = line["body_b64"].as_str().unwrap();
        let body = BASE64.decode(body.as_bytes()).unwrap();
        let headers = line["headers"].as_object().unwrap().iter();
        let mut headers: Vec<(&str, &str)> = headers
            .filter(|(name, _)| !name.eq_ignore_ascii_case("content-length"))
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();
        // What the token is made out for.
        headers.push(("Host", host));
        let method = line["method"].as_str().unwrap();
        let mut http = Http::connect(self.gateway.push);
        let answer = http.send(method, &path_of(endpoint), &headers, &body);
        self.seen.posts += 1;
        Some(answer.status)
    }
}
