//! What is on the wire between a user agent and the gateway, as text in both directions.

use serde_json::{Value, json};
use uuid::Uuid;

/// What a user agent says.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Hello(Value),
    Register {
        channel: Uuid,
        key: Option<&'static str>,
    },
    Unregister {
        channel: Uuid,
    },
    Ack(Vec<Ack>),
    /// Of a message that has arrived.
    Nack {
        version: String,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Ack {
    pub(crate) channel: Uuid,
    /// Empty for those who lost it.
    pub(crate) version: String,
    pub(crate) code: Option<u16>,
}

impl Said {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Hello(value) => value.to_string(),
            Self::Register { channel, key: None } => {
                json!({"messageType": "register", "channelID": channel}).to_string()
            }
            Self::Register { channel, key } => {
                json!({"messageType": "register", "channelID": channel, "key": key}).to_string()
            }
            Self::Unregister { channel } => {
                json!({"messageType": "unregister", "channelID": channel, "code": 200}).to_string()
            }
            Self::Ack(updates) => {
                let updates: Vec<Value> = updates.iter().map(Ack::json).collect();
                json!({"messageType": "ack", "updates": updates}).to_string()
            }
            Self::Nack { version } => {
                json!({"messageType": "nack", "version": version, "code": 302}).to_string()
            }
        }
    }
}

impl Ack {
    fn json(&self) -> Value {
        let mut update = json!({"channelID": self.channel, "version": self.version});
        if let Some(code) = self.code {
            update["code"] = code.into();
        }
        update
    }
}

/// What travels to the gateway.
#[derive(Debug)]
pub(crate) enum Up {
    Said(Said),
    Pong,
}

/// What travels to the user agent.
#[derive(Debug)]
pub(crate) enum Down {
    Frame(Frame),
    Ping,
}

/// What the gateway says.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    Hello {
        uaid: String,
    },
    Registered {
        channel: Uuid,
        status: u64,
        endpoint: String,
    },
    Unregistered {
        channel: Uuid,
        status: u64,
    },
    Notification {
        channel: Uuid,
        version: String,
        body: Option<Vec<u8>>,
    },
    UrgencyTaken,
    /// Nothing is broadcast here.
    NoBroadcast,
    Pong,
}

impl Frame {
    /// Reads a frame as strictly as the strictest user agent.
    pub(crate) fn read(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).expect("frames are JSON");
        let word = |name: &str| {
            let word = value[name].as_str();
            word.unwrap_or_else(|| panic!("no {name} in {text}"))
                .to_owned()
        };
        let channel = || Uuid::parse_str(&word("channelID")).expect("channelID is a UUID");
        let status = || value["status"].as_u64().expect("there is a status");
        match value["messageType"].as_str() {
            None => {
                assert_eq!(text, "{}");
                Self::Pong
            }
            Some("hello") => {
                assert_eq!(status(), 200);
                Self::Hello { uaid: word("uaid") }
            }
            Some("urgency") => {
                assert_eq!(status(), 200);
                Self::UrgencyTaken
            }
            Some("register") => Self::Registered {
                channel: channel(),
                status: status(),
                endpoint: word("pushEndpoint"),
            },
            Some("unregister") => Self::Unregistered {
                channel: channel(),
                status: status(),
            },
            Some("notification") => Self::Notification {
                channel: channel(),
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
