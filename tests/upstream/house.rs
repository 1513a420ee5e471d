//! A gateway with an upstream, the main service above it, and what comes and goes between them.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;
use uuid::Uuid;

use crate::main_service::MainService;
use crate::support::{Answer, Gateway, Http, UserAgent, channel, path_of, wait_until};

/// How long nothing must come.
pub const QUIET: Duration = Duration::from_millis(600);
/// What an application server is answered when it is accepted.
pub const ACCEPTED: u16 = 201;

/// The gateway of a house, and the main service that it has as its upstream.
pub struct House {
    pub main: MainService,
    pub gateway: Gateway,
}

impl House {
    /// Every subscription is borrowed.
    pub fn new() -> Self {
        Self::with("endpoints = \"all\"\n")
    }

    /// Those of this VAPID key are borrowed.
    pub fn for_key(key: &str) -> Self {
        Self::with(&format!("endpoints = [{{ vapid = \"{key}\" }}]\n"))
    }

    /// With these settings of `[upstream]`, and whatever follows them.
    pub fn with(settings: &str) -> Self {
        let main = MainService::start();
        let gateway = Gateway::with_config(&config(&main.url(), settings));
        Self { main, gateway }
    }

    /// A user agent of the house with one subscription, and its endpoint.
    pub fn newcomer(&self) -> (UserAgent, String) {
        let mut agent = UserAgent::hello(&self.gateway, None);
        let endpoint = register(&mut agent, 1);
        (agent, endpoint)
    }

    /// One that has gone away since: its name, and its endpoint.
    pub fn newcomer_who_left(&self) -> (String, String) {
        let (agent, endpoint) = self.newcomer();
        (agent.uaid.clone(), endpoint)
    }

    /// Whether an endpoint is the main service's.
    pub fn is_borrowed(&self, endpoint: &str) -> bool {
        endpoint.starts_with(&self.main.service().origin)
    }

    /// Posts to an endpoint, which must be the main service's, and accepted; the message's name there.
    pub fn post(&self, endpoint: &str, body: &str) -> String {
        assert!(self.is_borrowed(endpoint), "{endpoint}");
        let answer = post(endpoint, &[("TTL", "600")], body);
        assert_eq!(answer.status, ACCEPTED, "{answer:?}");
        let location = answer.header("location").unwrap();
        location.rsplit('/').next().unwrap().to_owned()
    }

    /// The body is its number; their names.
    pub fn post_all(&self, endpoint: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
        numbers
            .map(|number| self.post(endpoint, &number.to_string()))
            .collect()
    }

    /// Waits until so many links are up.
    pub fn wait_for_links(&self, count: usize) {
        wait_until("the links are up", || {
            self.main.service().online.len() == count
        });
    }

    /// Waits until a message has been acked at the main service, and says with which code.
    pub fn ack_of(&self, version: &str) -> u64 {
        let mut code = None;
        wait_until("an ack at the main service", || {
            code = self.ack_so_far(version);
            code.is_some()
        });
        code.unwrap()
    }

    pub fn ack_so_far(&self, version: &str) -> Option<u64> {
        let acks = self.main.service().acks();
        let found = acks.into_iter().find(|(acked, _)| acked == version);
        found.map(|(_, code)| code)
    }

    /// The names that the main service has given, of those who have a channel.
    pub fn names(&self) -> Vec<Uuid> {
        self.main.service().users.keys().copied().collect()
    }

    /// Waits until nothing is kept at the main service for anybody.
    pub fn wait_until_nothing_waits_above(&self) {
        wait_until("the main service keeps nothing", || {
            self.main.service().stored_len() == 0
        });
    }
}

/// A configuration with an upstream that is not encrypted.
pub fn config(url: &str, settings: &str) -> String {
    let mut config = format!("[upstream]\nurl = \"{url}\"\nplain = true\n");
    // A busy machine is no main service that is away, and a test has no five minutes.
    for (key, secs) in [("register_timeout_secs", 8), ("reconnect_secs_max", 10)] {
        if !settings.contains(key) {
            config += &format!("{key} = {secs}\n");
        }
    }
    config + settings
}

/// Connects until it has another name, as a user agent does that is told to; with that name. Before
/// that it acks what waits for it.
pub fn return_renamed(gateway: &Gateway, uaid: &str) -> UserAgent {
    let mut renamed = None;
    wait_until("it gets another name", || {
        let mut agent = UserAgent::connect(gateway);
        agent.send(&json!({"messageType": "hello", "use_webpush": true, "uaid": uaid}));
        // It may be closed at this very moment.
        if let Message::Text(text) = agent.receive_frame() {
            let answer: Value = serde_json::from_str(&text).unwrap();
            answer["uaid"].as_str().unwrap().clone_into(&mut agent.uaid);
            if agent.uaid == uaid {
                agent.ack_all_until_the_end();
            } else {
                renamed = Some(agent);
            }
        }
        renamed.is_some()
    });
    renamed.unwrap()
}

/// Registers the channel of this number; the whole endpoint.
pub fn register(agent: &mut UserAgent, number: u32) -> String {
    register_with(
        agent,
        &json!({"messageType": "register", "channelID": channel(number)}),
    )
}

/// The same with any message.
pub fn register_with(agent: &mut UserAgent, message: &Value) -> String {
    let answer = try_register(agent, message);
    assert_eq!(answer["status"], 200, "{answer}");
    answer["pushEndpoint"].as_str().unwrap().to_owned()
}

pub fn try_register(agent: &mut UserAgent, message: &Value) -> Value {
    agent.send(message);
    let answer = agent.receive();
    assert_eq!(answer["messageType"], "register", "{answer}");
    assert_eq!(answer["channelID"], message["channelID"]);
    answer
}

/// Posts to wherever an endpoint is.
pub fn post(endpoint: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut all = vec![("Content-Encoding", "aes128gcm")];
    all.extend_from_slice(headers);
    Http::connect(host_of(endpoint)).send("POST", &path_of(endpoint), &all, body.as_bytes())
}

fn host_of(url: &str) -> SocketAddr {
    let host = url.split('/').nth(2).unwrap();
    host.parse().unwrap()
}

/// What arrives, acked, as the numbers in the bodies.
pub fn receive_numbers(agent: &mut UserAgent, count: usize) -> Vec<usize> {
    let all = (0..count).map(|_| {
        let notification = agent.receive();
        agent.ack(&notification);
        number_in(&notification)
    });
    all.collect()
}

pub fn number_in(notification: &Value) -> usize {
    let data = notification["data"].as_str();
    let data = data.unwrap_or_else(|| panic!("no data in {notification}"));
    let body = data_encoding::BASE64URL_NOPAD
        .decode(data.as_bytes())
        .unwrap();
    String::from_utf8(body).unwrap().parse().unwrap()
}

/// These and no others arrive, each once, in any order: the main service promises none.
pub fn expect_once(agent: &mut UserAgent, numbers: std::ops::Range<usize>) {
    let mut arrived = receive_numbers(agent, numbers.len());
    arrived.sort_unstable();
    assert_eq!(arrived, numbers.collect::<Vec<_>>());
    assert_eq!(agent.receive_within(QUIET), None, "nothing twice");
}
