//! A SimplePush device and the application servers of its time, as these tests play them: what is
//! said and heard is the very text of the frames.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::{Answer, Gateway, Http, UserAgent, channel, handshake, path_of};

/// How long nothing must come.
pub const QUIET: Duration = Duration::from_millis(400);

/// The hello of a device without a name and without channels.
pub const HELLO: &str = r#"{"messageType":"hello","channelIDs":[]}"#;

/// A device on a websocket.
pub struct Device {
    agent: UserAgent,
    /// As the answer to its hello spelled it.
    pub uaid: String,
    /// Read while waiting for something else.
    early: VecDeque<String>,
}

impl Device {
    /// Connects on `/` without saying anything.
    pub fn connect(gateway: &Gateway) -> Self {
        Self::on(UserAgent::connect(gateway))
    }

    /// The same on another path.
    pub fn connect_to(gateway: &Gateway, path: &str) -> Self {
        Self::on(UserAgent::connect_with(gateway, &handshake(path, "")).0)
    }

    pub const fn on(agent: UserAgent) -> Self {
        Self {
            agent,
            uaid: String::new(),
            early: VecDeque::new(),
        }
    }

    /// Connects and says hello without a name.
    pub fn newcomer(gateway: &Gateway) -> Self {
        let mut device = Self::connect(gateway);
        device.say_hello(HELLO);
        device
    }

    /// Connects and says hello under its name; what waits for it comes next.
    pub fn returning(gateway: &Gateway, uaid: &str) -> Self {
        let mut device = Self::connect(gateway);
        device.say_hello(&hello_as(uaid, &[]));
        assert_eq!(device.uaid, uaid, "it keeps its name");
        device
    }

    pub fn say_hello(&mut self, hello: &str) {
        let answer: Value = serde_json::from_str(&self.ask(hello)).unwrap();
        assert_eq!(answer["messageType"], "hello", "{answer}");
        assert_eq!(answer["status"], 200, "{answer}");
        answer["uaid"].as_str().unwrap().clone_into(&mut self.uaid);
    }

    pub fn say(&mut self, text: &str) {
        self.agent.send_text(text);
    }

    pub fn say_binary(&mut self, bytes: &[u8]) {
        self.agent.send_frame(Message::binary(bytes.to_vec()));
    }

    /// The next text frame.
    pub fn hear(&mut self) -> String {
        if let Some(early) = self.early.pop_front() {
            return early;
        }
        self.hear_next()
    }

    fn hear_next(&mut self) -> String {
        loop {
            match self.agent.receive_frame() {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a text frame: {other:?}"),
            }
        }
    }

    pub fn ask(&mut self, text: &str) -> String {
        self.say(text);
        self.hear()
    }

    /// Nothing comes for a while.
    pub fn assert_quiet(&mut self) {
        assert_eq!(self.early.pop_front(), None);
        assert_eq!(self.agent.receive_within(QUIET), None);
    }

    /// The next text frame, unless none comes for so long.
    pub fn hear_within(&mut self, time: Duration) -> Option<Value> {
        self.agent.receive_within(time)
    }

    /// The code of the close frame that must come next.
    pub fn closed(&mut self) -> u16 {
        self.agent.closed().0
    }

    /// Is refused: told so in the message itself, then closed.
    pub fn assert_refused(&mut self, text: &str, status: u16) {
        let mut expected: Value = serde_json::from_str(text).unwrap();
        let answer: Value = serde_json::from_str(&self.ask(text)).unwrap();
        assert!(answer["error"].is_string(), "{answer}");
        assert_eq!(answer["error"], answer["reason"], "{answer}");
        expected["status"] = status.into();
        expected["error"] = answer["error"].clone();
        expected["reason"] = answer["reason"].clone();
        assert_eq!(answer, expected, "the message itself, and what is wrong");
        assert_eq!(self.closed(), 1011, "{text}");
    }

    /// A new channel's endpoint, as a path.
    pub fn register(&mut self, channel: &str) -> String {
        let answer = self.ask(&register(channel));
        let url: Value = serde_json::from_str(&answer).unwrap();
        let url = url["pushEndpoint"].as_str().unwrap();
        assert_eq!(answer, registered(channel, url));
        path_of(url)
    }

    /// Waits until everything that was said has been heard, and is on flash where it belongs there.
    pub fn settle(&mut self) {
        let channel = "00000000-0000-0000-0000-000000000000";
        self.say(&unregister(channel));
        loop {
            let text = self.hear_next();
            if text == unregistered(channel) {
                return;
            }
            self.early.push_back(text);
        }
    }

    pub fn ack(&mut self, channel: &str, version: u64) {
        self.say(&ack(channel, version));
    }
}

pub fn hello_as(uaid: &str, channels: &[&str]) -> String {
    json!({"messageType": "hello", "uaid": uaid, "channelIDs": channels}).to_string()
}

pub fn hello_answer(uaid: &str) -> String {
    format!(r#"{{"messageType":"hello","uaid":"{uaid}","status":200}}"#)
}

pub fn register(channel: &str) -> String {
    format!(r#"{{"messageType":"register","channelID":"{channel}"}}"#)
}

pub fn registered(channel: &str, url: &str) -> String {
    format!(
        r#"{{"messageType":"register","channelID":"{channel}","status":200,"pushEndpoint":"{url}"}}"#
    )
}

pub fn unregister(channel: &str) -> String {
    format!(r#"{{"messageType":"unregister","channelID":"{channel}"}}"#)
}

pub fn unregistered(channel: &str) -> String {
    format!(r#"{{"messageType":"unregister","channelID":"{channel}","status":200}}"#)
}

/// As Gecko spells it.
pub fn ack(channel: &str, version: u64) -> String {
    format!(
        r#"{{"updates":[{{"channelID":"{channel}","version":{version}}}],"messageType":"ack"}}"#
    )
}

/// The notification of one version.
pub fn update(channel: &str, version: u64) -> String {
    updates(&[(channel, version)])
}

/// The notification of some versions.
pub fn updates(list: &[(&str, u64)]) -> String {
    let entries: Vec<String> = list
        .iter()
        .map(|(channel, version)| format!(r#"{{"channelID":"{channel}","version":{version}}}"#))
        .collect();
    let entries = entries.join(",");
    format!(r#"{{"messageType":"notification","updates":[{entries}]}}"#)
}

/// The version of the one update of a notification.
pub fn version_of(notification: &str) -> u64 {
    let notification: Value = serde_json::from_str(notification).unwrap();
    let updates = notification["updates"].as_array().unwrap();
    assert_eq!(updates.len(), 1, "{notification}");
    updates[0]["version"].as_u64().unwrap()
}

pub const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// Puts a form.
pub fn put(gateway: &Gateway, endpoint: &str, body: &str) -> Answer {
    Http::connect(gateway.push).send("PUT", endpoint, &[FORM], body.as_bytes())
}

/// Puts a form and does not wait for the answer.
pub fn begin_put(gateway: &Gateway, endpoint: &str, body: &str) -> Http {
    let mut http = Http::connect(gateway.push);
    let length = body.len();
    let (name, value) = FORM;
    http.send_raw(
        format!("PUT {endpoint} HTTP/1.1\r\nHost: h\r\n{name}: {value}\r\nContent-Length: {length}\r\n\r\n{body}")
            .as_bytes(),
    );
    http
}

/// An update was accepted: nothing but that.
pub fn assert_accepted(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.body, b"{}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

/// A request was refused as the main service does.
pub fn assert_refused(answer: &Answer, status: u16, errno: Option<u16>, message: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(body["code"], status, "{body}");
    assert_eq!(body["errno"], json!(errno), "{body}");
    assert_eq!(body["message"], message, "{body}");
}

/// A device that is online, and its endpoint.
pub struct Online {
    pub gateway: Gateway,
    pub device: Device,
    pub endpoint: String,
}

impl Online {
    pub fn start() -> Self {
        // So that the answer does not wait for an ack.
        let gateway = Gateway::with_config("[limits]\nack_window_millis = 0\n");
        let mut device = Device::newcomer(&gateway);
        let endpoint = device.register(&channel(1));
        Self {
            gateway,
            device,
            endpoint,
        }
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        Http::connect(self.gateway.push).send(method, path, headers, body)
    }

    /// Accepted as handed over, and this is what came.
    pub fn accepted(&mut self, answer: &Answer) -> u64 {
        assert_accepted(answer, 200);
        let version = version_of(&self.device.hear());
        self.device.ack(&channel(1), version);
        version
    }

    pub fn put(&mut self, body: &str) -> u64 {
        let answer = put(&self.gateway, &self.endpoint, body);
        self.accepted(&answer)
    }
}

pub fn unix_secs() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The version that nobody named: 10 digits.
pub fn assert_is_now(version: u64, since: u64) {
    // Within a second one more for each update before it.
    assert!((since..=unix_secs() + 60).contains(&version), "{version}");
}
