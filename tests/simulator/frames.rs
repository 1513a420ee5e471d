//! What is on the wire between a user agent and the gateway, as text in both directions.

use serde_json::{Value, json};
use uuid::Uuid;

/// From the least urgent on.
pub(crate) const URGENCIES: [&str; 4] = ["very-low", "low", "normal", "high"];

/// What a user agent says.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Hello(Value),
    Register {
        channel: Spelled,
        key: Option<&'static str>,
    },
    Unregister {
        channel: Spelled,
    },
    Ack(Form, Vec<Ack>),
    /// Its place in [`URGENCIES`].
    Urgency(usize),
    /// What SimplePush answers with this status, if it is an object, and then closes.
    Wrong {
        text: String,
        answer: Option<u64>,
    },
    Other(String),
}

/// A channel and how its user agent spells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Spelled {
    pub(crate) channel: Uuid,
    pub(crate) text: String,
}

/// The many ways to ack.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// As the protocols have it.
    Plain,
    /// The AeroGear Java client's: neither a type nor a list.
    Bare,
    /// The AeroGear node client's: the notification itself, under another type.
    Echo,
}

#[derive(Clone, Debug)]
pub(crate) struct Ack {
    pub(crate) channel: Spelled,
    pub(crate) version: AckVersion,
    pub(crate) code: Option<u16>,
}

#[derive(Clone, Debug)]
pub(crate) enum AckVersion {
    /// Of a push message; empty for those who lost it.
    Token(String),
    Number(u64),
    /// The same in quotes.
    Quoted(u64),
}

impl Spelled {
    /// As everybody does it today.
    pub(crate) fn dashed(channel: Uuid) -> Self {
        Self {
            channel,
            text: channel.to_string(),
        }
    }
}

impl Said {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Hello(value) => value.to_string(),
            Self::Register { channel, key: None } => {
                json!({"messageType": "register", "channelID": channel.text}).to_string()
            }
            Self::Register { channel, key } => {
                json!({"messageType": "register", "channelID": channel.text, "key": key})
                    .to_string()
            }
            Self::Unregister { channel } => {
                json!({"messageType": "unregister", "channelID": channel.text, "code": 200})
                    .to_string()
            }
            Self::Ack(Form::Bare, acks) => {
                let ack = acks.first().expect("it acks something");
                let version = ack.version.json();
                json!({"channelId": ack.channel.text, "version": version}).to_string()
            }
            Self::Ack(form, acks) => {
                let updates: Vec<Value> = acks.iter().map(|ack| ack.json(form)).collect();
                json!({"messageType": "ack", "updates": updates}).to_string()
            }
            Self::Urgency(min) => {
                json!({"messageType": "urgency", "min": URGENCIES[*min]}).to_string()
            }
            Self::Wrong { text, .. } | Self::Other(text) => text.clone(),
        }
    }
}

impl Ack {
    fn json(&self, form: &Form) -> Value {
        let version = self.version.json();
        let mut update = json!({"channelID": self.channel.text, "version": version});
        if let Some(code) = self.code {
            update["code"] = code.into();
        }
        if matches!(form, Form::Echo) {
            update["data"] = "hello".into();
            update["uaid"] = 5.into();
        }
        update
    }
}

impl AckVersion {
    fn json(&self) -> Value {
        match self {
            Self::Token(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Quoted(number) => number.to_string().into(),
        }
    }
}

/// What travels to the gateway.
#[derive(Debug)]
pub(crate) enum Up {
    Said(Said),
    /// The same in a binary frame.
    Binary(Said),
    Pong,
    Fin,
}

/// What travels to the user agent.
#[derive(Debug)]
pub(crate) enum Down {
    Frame(Frame),
    Ping,
    Close { will_be_woken: bool },
}

/// What the gateway says.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    Hello {
        uaid: String,
        webpush: bool,
    },
    Registered {
        channel: String,
        status: u64,
        endpoint: String,
    },
    Unregistered {
        channel: String,
        status: u64,
    },
    Notification {
        channel: Uuid,
        version: String,
        body: Option<Vec<u8>>,
    },
    Updates {
        /// When it was sent.
        step: u64,
        updates: Vec<Update>,
    },
    /// The answer to what is wrong.
    Refused {
        status: u64,
    },
    UrgencyTaken,
    /// Nothing is broadcast here.
    NoBroadcast,
    Pong,
}

/// One entry of a notification of updates.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Update {
    pub(crate) channel: String,
    pub(crate) version: u64,
    pub(crate) data: Option<String>,
}

impl Frame {
    /// Reads a frame as strictly as the strictest user agent.
    pub(crate) fn read(text: &str, step: u64) -> Self {
        let value: Value = serde_json::from_str(text).expect("frames are JSON");
        let word = |name: &str| {
            let word = value[name].as_str();
            word.unwrap_or_else(|| panic!("no {name} in {text}"))
                .to_owned()
        };
        let status = || value["status"].as_u64().expect("there is a status");
        if value.get("error").is_some() {
            assert_eq!(word("error"), word("reason"));
            return Self::Refused { status: status() };
        }
        match value["messageType"].as_str() {
            None => {
                assert_eq!(text, "{}");
                Self::Pong
            }
            Some("hello") => {
                assert_eq!(status(), 200);
                Self::Hello {
                    uaid: word("uaid"),
                    webpush: value["use_webpush"] == true,
                }
            }
            Some("urgency") => {
                assert_eq!(status(), 200);
                Self::UrgencyTaken
            }
            Some("register") => Self::Registered {
                channel: word("channelID"),
                status: status(),
                endpoint: word("pushEndpoint"),
            },
            Some("unregister") => Self::Unregistered {
                channel: word("channelID"),
                status: status(),
            },
            Some("notification") if value.get("updates").is_some() => Self::Updates {
                step,
                updates: updates(&value),
            },
            Some("notification") => Self::Notification {
                channel: Uuid::parse_str(&word("channelID")).expect("channelID is a UUID"),
                version: word("version"),
                body: value.get("data").map(|data| {
                    let data = data.as_str().expect("data is text");
                    data_encoding::BASE64URL_NOPAD
                        .decode(data.as_bytes())
                        .expect("data is base64url")
                }),
            },
            Some("broadcast") => {
                let errors = serde_json::json!({"a/b": "Broadcast not found"});
                assert_eq!(value["broadcasts"], serde_json::json!({"errors": errors}));
                Self::NoBroadcast
            }
            Some(other) => panic!("unknown frame {other}"),
        }
    }
}

/// At least one, of distinct channels, and without `data` where there is none.
fn updates(value: &Value) -> Vec<Update> {
    let fields = value.as_object().expect("a frame is an object");
    assert_eq!(fields.len(), 2, "a notification has a type and a list");
    let list = value["updates"].as_array().expect("updates is a list");
    assert!(!list.is_empty(), "a notification of nothing");
    let read = |update: &Value| {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let data = update.get("data").map(text);
        assert_ne!(data.as_deref(), Some(""), "empty data");
        Update {
            channel: text(&update["channelID"]),
            version: update["version"].as_u64().expect("a number"),
            data,
        }
    };
    let updates: Vec<Update> = list.iter().map(read).collect();
    let channels: std::collections::BTreeSet<Uuid> = updates
        .iter()
        .map(|update| Uuid::parse_str(&update.channel).expect("channelID is a UUID"))
        .collect();
    assert_eq!(
        channels.len(),
        updates.len(),
        "one channel twice in one frame"
    );
    updates
}
