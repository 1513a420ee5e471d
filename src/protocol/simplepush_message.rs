//! What a SimplePush user agent says on its websocket, and how it is told that it was wrong:
//! PROTOCOL.md part 2, rules R4 to R20.
//!
//! Clients of that era disagree on many forms, so that all of them are taken.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::model::dialect::Dialect;
use crate::model::ids::{ChannelId, Uaid};
use crate::model::version::Version;
use crate::model::wakeup::{MobileNetwork, Wakeup};

/// One message of a user agent.
#[derive(Debug, Eq, PartialEq)]
pub enum SimplePushMessage {
    /// Names itself, or asks for a name.
    Hello(Hello),
    /// Asks for an endpoint.
    Register(SpelledChannel),
    /// Ends a subscription. `None` for a name that no subscription can have: it has ended already.
    Unregister {
        /// Its name.
        channel: Option<ChannelId>,
        /// As it was sent.
        spelling: Box<str>,
    },
    /// Has seen these versions.
    Ack(Vec<VersionAck>),
    /// Is alive.
    Ping,
    /// What other push services have no answer for either (`purge`, `nack`).
    Ignored,
}

/// `hello`, as far as anybody here looks at it.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Hello {
    /// Its name, if it sent one that can be one.
    pub uaid: Option<SpelledUaid>,
    /// How many channels it believes to have.
    pub channels_len: usize,
    /// How it wants to be woken up (`wakeup_hostport`, `mobilenetwork`).
    pub wakeup: Option<Wakeup>,
}

/// A UAID and how the user agent spells it: some clients take no other spelling for an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SpelledUaid {
    /// The name.
    pub uaid: Uaid,
    /// 32 hex digits or 36 characters with dashes, in any case.
    pub spelling: Box<str>,
}

/// A channel and how the user agent spells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SpelledChannel {
    /// The name.
    pub channel: ChannelId,
    /// 32 hex digits or 36 characters with dashes, in any case.
    pub spelling: Box<str>,
}

/// One version that has been seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VersionAck {
    /// Of this channel.
    pub channel: ChannelId,
    /// The version.
    pub version: Version,
}

/// Why a message is refused, with the status that the user agent is told (R17, pushgo
/// `pg/error.go`). Whoever is refused is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Not a JSON object: there is nothing to answer to.
    NotAnObject,
    /// `messageType` is missing, and it is not a ping either.
    NoType,
    /// A `messageType` that is not known.
    UnknownType,
    /// `uaid` is not a string, or `channelIDs` is not a list.
    BadHello,
    /// `channelID` is missing or not a UUID.
    BadChannel,
    /// Another message before `hello`.
    HelloExpected,
    /// A second `hello`, by another name.
    AnotherName,
}

impl Refusal {
    /// The `status` of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::AnotherName => 503,
            Self::NotAnObject
            | Self::NoType
            | Self::UnknownType
            | Self::BadHello
            | Self::BadChannel
            | Self::HelloExpected => 401,
        }
    }

    /// What is wrong, short enough for a close frame (123 bytes).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAnObject => "message is not a JSON object",
            Self::NoType => "messageType is missing",
            Self::UnknownType => "messageType is not known",
            Self::BadHello => "uaid must be a string and channelIDs a list",
            Self::BadChannel => "channelID must be a UUID, with or without dashes",
            Self::HelloExpected => "the first message must be hello",
            Self::AnotherName => "this websocket has said hello under another uaid",
        }
    }

    /// The answer: the message itself, with `status` and what is wrong. `None` if it was no object.
    ///
    /// pushgo calls the text `error`, autopush `reason`: it has both names.
    pub fn answer(self, text: &str) -> Option<String> {
        let mut object = object(text)?;
        object.insert("status".to_owned(), self.status().into());
        for name in ["error", "reason"] {
            object.insert(name.to_owned(), self.as_str().into());
        }
        Some(Value::Object(object).to_string())
    }
}

/// Which protocol the first message of a websocket belongs to; `None` if it tells nothing.
///
/// SimplePush if and only if it is a `hello` with `channelIDs` and without `use_webpush`
/// (PROTOCOL.md 1.A). A message that both protocols have, or neither, tells nothing.
pub fn dialect(text: &str) -> Option<Dialect> {
    let Some(object) = object(text) else {
        return Some(Dialect::WebPush);
    };
    match message_type(&object).as_deref() {
        Some("hello") => {
            let has_channels = object.get("channelIDs").is_some_and(|ids| !ids.is_null());
            if has_channels && !object.contains_key("use_webpush") {
                Some(Dialect::SimplePush)
            } else {
                Some(Dialect::WebPush)
            }
        }
        Some("nack" | "broadcast_subscribe") => Some(Dialect::WebPush),
        Some(_) | None => None,
    }
}

/// Reads one text message.
///
/// # Errors
///
/// [`Refusal`]: its [`answer`](Refusal::answer) comes before the websocket is closed.
pub fn parse(text: &str) -> Result<SimplePushMessage, Refusal> {
    let object = object(text).ok_or(Refusal::NotAnObject)?;
    let Some(message_type) = message_type(&object) else {
        return match object.get("messageType") {
            Some(_) => Err(Refusal::UnknownType),
            // The AeroGear Java client forgets both the type and the list (R20).
            None => Ok(
                ack_of(&Value::Object(object)).map_or(SimplePushMessage::Ping, |ack| {
                    SimplePushMessage::Ack(vec![ack])
                }),
            ),
        };
    };
    match message_type.as_str() {
        "hello" => hello(&object).map(SimplePushMessage::Hello),
        "register" => register(&object).map(SimplePushMessage::Register),
        "unregister" => unregister(&object),
        "ack" => Ok(SimplePushMessage::Ack(acks(&object))),
        "ping" => Ok(SimplePushMessage::Ping),
        "purge" | "nack" => Ok(SimplePushMessage::Ignored),
        _ => Err(Refusal::UnknownType),
    }
}

/// Whether a message is a ping in a form that is taken before `hello` as well.
pub fn is_early_ping(text: &str) -> bool {
    object(text)
        .is_some_and(|object| object.is_empty() || message_type(&object).as_deref() == Some("ping"))
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

/// In lower case: user agents shout or whisper it (R5).
fn message_type(object: &Map<String, Value>) -> Option<String> {
    let text = object.get("messageType")?.as_str()?;
    Some(text.to_ascii_lowercase())
}

fn hello(object: &Map<String, Value>) -> Result<Hello, Refusal> {
    let uaid = match object.get("uaid") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => spelled(text).map(|uuid| SpelledUaid {
            uaid: Uaid::from_bytes(uuid.into_bytes()),
            spelling: text.as_str().into(),
        }),
        Some(_) => return Err(Refusal::BadHello),
    };
    let channels_len = match object.get("channelIDs") {
        None | Some(Value::Null) => 0,
        Some(Value::Array(channels)) => channels.len(),
        Some(_) => return Err(Refusal::BadHello),
    };
    Ok(Hello {
        uaid,
        channels_len,
        wakeup: object.get("wakeup_hostport").and_then(|hostport| {
            Some(Wakeup {
                address: address(hostport)?,
                network: object.get("mobilenetwork").and_then(mobile_network),
            })
        }),
    })
}

/// `{"ip": "192.168.1.5", "port": 2442}`; anything else is as if it were not there.
fn address(hostport: &Value) -> Option<SocketAddr> {
    let ip: IpAddr = hostport.get("ip")?.as_str()?.parse().ok()?;
    let port = number(hostport.get("port")?)?;
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(ip, port))
}

/// Longest part of a mobile network's name that is kept: a domain name's length.
const NETWORK_NAME_BYTES_MAX: usize = 253;

fn mobile_network(value: &Value) -> Option<MobileNetwork> {
    let part = |name: &str| match value.get(name) {
        Some(Value::String(text)) if text.len() <= NETWORK_NAME_BYTES_MAX => {
            Some(text.as_str().into())
        }
        Some(Value::Number(number)) => Some(number.to_string().into()),
        _ => None,
    };
    Some(MobileNetwork {
        country: part("mcc")?,
        network: part("mnc")?,
        part: part("netid").unwrap_or_default(),
    })
}

fn register(object: &Map<String, Value>) -> Result<SpelledChannel, Refusal> {
    let text = object.get("channelID").and_then(Value::as_str);
    let text = text.ok_or(Refusal::BadChannel)?;
    let uuid = spelled(text).ok_or(Refusal::BadChannel)?;
    Ok(SpelledChannel {
        channel: ChannelId::from_uuid(uuid),
        spelling: text.into(),
    })
}

/// Any text is answered with success: what is not there needs no end (R18).
fn unregister(object: &Map<String, Value>) -> Result<SimplePushMessage, Refusal> {
    let text = object.get("channelID").and_then(Value::as_str);
    let text = text.ok_or(Refusal::BadChannel)?;
    Ok(SimplePushMessage::Unregister {
        channel: spelled(text).map(ChannelId::from_uuid),
        spelling: text.into(),
    })
}

/// What of the list can be understood; the rest may be for another push service.
fn acks(object: &Map<String, Value>) -> Vec<VersionAck> {
    let updates = object.get("updates").and_then(Value::as_array);
    updates.into_iter().flatten().filter_map(ack_of).collect()
}

fn ack_of(update: &Value) -> Option<VersionAck> {
    let channel = update.get("channelID").or_else(|| update.get("channelId"));
    let channel = spelled(channel?.as_str()?)?;
    Some(VersionAck {
        channel: ChannelId::from_uuid(channel),
        version: Version::new(number(update.get("version")?)?)?,
    })
}

/// A number, or one in quotes.
fn number(value: &Value) -> Option<u64> {
    match value.as_str() {
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Some(_) => None,
        None => value.as_u64(),
    }
}

/// 32 hex digits, or 36 characters with dashes, in any case (R6, R16).
fn spelled(text: &str) -> Option<Uuid> {
    matches!(text.len(), 32 | 36)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_message_tells_the_dialect_only_where_one_of_both_has_it() {
        for (text, expected) in [
            (
                r#"{"messageType":"hello","channelIDs":[]}"#,
                Some(Dialect::SimplePush),
            ),
            (
                r#"{"messageType":"HELLO","channelIDs":5}"#,
                Some(Dialect::SimplePush),
            ),
            (
                r#"{"messageType":"hello","channelIDs":[],"use_webpush":true}"#,
                Some(Dialect::WebPush),
            ),
            (
                r#"{"messageType":"hello","channelIDs":null}"#,
                Some(Dialect::WebPush),
            ),
            (r#"{"messageType":"hello"}"#, Some(Dialect::WebPush)),
            (
                r#"{"messageType":"broadcast_subscribe"}"#,
                Some(Dialect::WebPush),
            ),
            (r#"{"messageType":"nack"}"#, Some(Dialect::WebPush)),
            ("nonsense", Some(Dialect::WebPush)),
            ("{}", None),
            (r#"{"a":1}"#, None),
            (r#"{"messageType":"PING"}"#, None),
            (r#"{"messageType":""}"#, None),
            (r#"{"messageType":5}"#, None),
            (r#"{"messageType":"register"}"#, None),
        ] {
            assert_eq!(dialect(text), expected, "{text}");
        }
    }

    #[test]
    fn way_to_be_woken_is_an_address_with_a_port_and_anything_else_is_as_if_it_were_not_there() {
        let wakeup = |rest: &str| {
            let text = format!(r#"{{"messageType":"hello","wakeup_hostport":{rest}}}"#);
            match parse(&text) {
                Ok(SimplePushMessage::Hello(hello)) => hello.wakeup,
                other => panic!("{other:?}"),
            }
        };
        let found = wakeup(r#"{"ip":"192.168.1.5","port":2442}"#).unwrap();
        assert_eq!(found.address, SocketAddr::from(([192, 168, 1, 5], 2442)));
        assert_eq!(found.network, None);
        let found =
            wakeup(r#"{"ip":"::1","port":"9"},"mobilenetwork":{"mcc":"214","mnc":7,"netid":null}"#);
        let network = found.unwrap().network.unwrap();
        assert_eq!((&*network.country, &*network.network), ("214", "7"));
        for none in [
            "null",
            "[]",
            r#""192.168.1.5:2442""#,
            r#"{"ip":"192.168.1.5"}"#,
            r#"{"ip":"192.168.1.5","port":0}"#,
            r#"{"ip":"192.168.1.5","port":65536}"#,
            r#"{"ip":"192.168.1.5","port":-1}"#,
            r#"{"ip":"device.local","port":2442}"#,
            r#"{"ip":3232235781,"port":2442}"#,
        ] {
            assert_eq!(wakeup(none), None, "{none}");
        }
    }

    #[test]
    fn ack_is_taken_with_what_of_it_can_be_understood() {
        const CHANNEL: &str = "0123456789abcdef0123456789ABCDEF";
        let versions = |updates: &str| {
            let text = format!(r#"{{"messageType":"ack","updates":{updates}}}"#);
            match parse(&text.replace('C', &format!(r#""channelID":"{CHANNEL}""#))) {
                Ok(SimplePushMessage::Ack(acks)) => acks
                    .iter()
                    .map(|ack| ack.version.as_u64())
                    .collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            }
        };
        for (updates, expected) in [
            (r#"[{C,"version":1}]"#, vec![1]),
            (
                r#"[{C,"version":"23","data":"x"},{C,"version":0}]"#,
                vec![23, 0],
            ),
            (
                r#"[{C,"version":9223372036854775807}]"#,
                vec![i64::MAX as u64],
            ),
            (
                r#"[5,null,{},[],{C},{"channelID":"x","version":1},{C,"version":2}]"#,
                vec![2],
            ),
            (r#"[{C,"version":9223372036854775808}]"#, vec![]),
            (
                r#"[{C,"version":-1},{C,"version":1.0},{C,"version":"+1"}]"#,
                vec![],
            ),
            (
                r#"[{C,"version":""},{C,"version":null},{C,"version":1e2}]"#,
                vec![],
            ),
            ("null", vec![]),
            ("{}", vec![]),
            ("5", vec![]),
        ] {
            assert_eq!(versions(updates), expected, "{updates}");
        }
    }
}
