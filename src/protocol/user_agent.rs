//! The websocket from the user agent's side, in both dialects: what it says to a gateway, and what
//! it reads of it. Liberal in what it reads: a gateway is not always this one.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client_message::{AckCode, NackCode};
use super::encryption::Headers;
use super::server_message::dashed;
use crate::model::dialect::Dialect;
use crate::model::ids::ChannelId;
use crate::model::message::{Content, Encoding, Payload};

/// Asks whether the gateway is there; any answer will do.
pub const PING: &str = "{}";
/// Longest UAID taken, in characters, as in Firefox.
const UAID_CHARS_MAX: usize = 128;
/// What an [`unregister`] says of its reason: the page does not want it any more.
const UNSUBSCRIBED: u16 = 200;

/// The first message: the user agent's name, if it has one, and in SimplePush its subscriptions.
pub fn hello(dialect: Dialect, uaid: Option<&str>, channels: &[ChannelId]) -> String {
    let mut hello = match dialect {
        Dialect::WebPush => {
            json!({"messageType": "hello", "use_webpush": true, "broadcasts": {}})
        }
        Dialect::SimplePush => {
            let channels: Vec<String> = channels.iter().map(|channel| dashed(*channel)).collect();
            json!({"messageType": "hello", "channelIDs": channels})
        }
    };
    if let Some(uaid) = uaid {
        insert(&mut hello, "uaid", uaid.into());
    }
    hello.to_string()
}

/// Asks for an endpoint, restricted to the owner of `key` if there is one.
pub fn register(channel: ChannelId, key: Option<&str>) -> String {
    let mut register = json!({"messageType": "register", "channelID": dashed(channel)});
    if let Some(key) = key {
        insert(&mut register, "key", key.into());
    }
    register.to_string()
}

/// Gives a subscription up.
pub fn unregister(channel: ChannelId) -> String {
    json!({"messageType": "unregister", "channelID": dashed(channel), "code": UNSUBSCRIBED})
        .to_string()
}

/// Asks for broadcasts, whatever their versions are.
pub fn broadcast_subscribe<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    // Which no broadcast has: the answer names each that there is.
    let wanted: BTreeMap<&str, &str> = ids.into_iter().map(|id| (id, "")).collect();
    json!({"messageType": "broadcast_subscribe", "broadcasts": wanted}).to_string()
}

/// A push message has been received.
pub fn ack(channel: ChannelId, version: &str, code: AckCode) -> String {
    acks([(channel, version, code)])
}

/// Push messages have been received.
pub fn acks<'a>(all: impl IntoIterator<Item = (ChannelId, &'a str, AckCode)>) -> String {
    let update = |(channel, version, code)| {
        let code = match code {
            AckCode::Delivered => 100,
            AckCode::DecryptionError => 101,
            AckCode::NotDelivered => 102,
        };
        json!({"channelID": dashed(channel), "version": version, "code": code})
    };
    let updates: Vec<Value> = all.into_iter().map(update).collect();
    json!({"messageType": "ack", "updates": updates}).to_string()
}

/// A version update has been received.
pub fn ack_update(channel: ChannelId, version: u64) -> String {
    let update = json!({"channelID": dashed(channel), "version": version});
    json!({"messageType": "ack", "updates": [update]}).to_string()
}

/// A push message has been received and was of no use.
pub fn nack(version: &str, code: NackCode) -> String {
    json!({"messageType": "nack", "version": version, "code": code.number()}).to_string()
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

/// One message of a gateway.
#[derive(Debug, Eq, PartialEq)]
pub enum GatewayMessage {
    /// The answer to `hello`.
    Hello {
        /// The name to use from here on; `None` if there is none that can be used.
        uaid: Option<String>,
        /// Where it sends on to, as it was sent. pushgo does that with a status of 307.
        redirect: Option<String>,
        /// What else it says.
        verdict: Verdict,
    },
    /// The answer to `register`.
    Registered {
        /// The subscription.
        channel: ChannelId,
        /// Where to post to, as it was sent.
        endpoint: String,
        /// What else it says.
        verdict: Verdict,
    },
    /// The answer to `unregister`.
    Unregistered {
        /// The subscription, if it says which.
        channel: Option<ChannelId>,
        /// Whether it has ended.
        verdict: Verdict,
    },
    /// Versions of broadcasts.
    Broadcasts(BTreeMap<String, String>),
    /// A push message.
    Notification(Notification),
    /// New versions.
    Updates(Vec<Update>),
    /// Anything else, such as the answer to a ping.
    Other,
}

/// Whether a request was granted.
#[derive(Debug, Eq, PartialEq)]
pub struct Verdict {
    /// 200, or why not.
    pub status: u16,
    /// The reason in words, if one came.
    pub reason: Option<String>,
}

impl Verdict {
    /// Whether it was granted.
    pub const fn is_ok(&self) -> bool {
        self.status == 200
    }

    fn of(object: &Value) -> Self {
        // AeroGear leaves it out where all is well.
        let status = object.get("status").map_or(Some(200), Value::as_u64);
        let reasons = ["reason", "error", "message", "pushEndpoint"];
        let mut reasons = reasons.iter().filter_map(|name| text(object, name));
        Self {
            status: status.and_then(|s| s.try_into().ok()).unwrap_or(0),
            reason: reasons.find(|reason| !reason.is_empty()),
        }
    }
}

/// A push message.
#[derive(Debug, Eq, PartialEq)]
pub struct Notification {
    /// Its subscription.
    pub channel: ChannelId,
    /// Its name, opaque.
    pub version: String,
    /// What it says.
    pub body: Body,
}

/// What a push message says.
#[derive(Debug, Eq, PartialEq)]
pub enum Body {
    /// Nothing: it has no body.
    Empty,
    /// This, encrypted.
    Encrypted(Encrypted),
    /// Its `data` is not base64url.
    Malformed,
}

/// An encrypted body with its headers.
#[derive(Debug, Eq, PartialEq)]
pub struct Encrypted {
    /// The body.
    pub data: Vec<u8>,
    encoding: String,
    encryption: String,
    crypto_key: String,
}

impl Encrypted {
    /// The same as a push service keeps it; `None` if its encoding is unknown.
    pub fn into_payload(self) -> Option<Payload> {
        let encoding = match self.encoding.as_str() {
            "aesgcm" => Encoding::Aesgcm,
            "aes128gcm" => Encoding::Aes128gcm,
            // Another gateway passes on what was not encrypted.
            "" => return Some(Payload::Raw(self.data.into())),
            _ => return None,
        };
        let header = |text: String| (!text.is_empty()).then(|| text.into());
        Some(Payload::Encrypted(Content {
            encoding,
            encryption: header(self.encryption),
            crypto_key: header(self.crypto_key),
            body: self.data.into(),
        }))
    }

    /// How it is encrypted.
    pub fn headers(&self) -> Headers<'_> {
        Headers {
            encoding: &self.encoding,
            encryption: &self.encryption,
            crypto_key: &self.crypto_key,
        }
    }
}

/// A new version of a subscription.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Update {
    /// The subscription.
    pub channel: ChannelId,
    /// The version.
    pub version: u64,
    /// What the application server sent along.
    pub data: Option<String>,
}

/// A message that is none of the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotUnderstood;

/// Reads one text message.
///
/// # Errors
///
/// [`NotUnderstood`] for what is no JSON object, or lacks what its type needs.
pub fn parse(frame: &str) -> Result<GatewayMessage, NotUnderstood> {
    let message: Value = serde_json::from_str(frame).map_err(|_| NotUnderstood)?;
    if !message.is_object() {
        return Err(NotUnderstood);
    }
    let message_type = message.get("messageType").and_then(Value::as_str);
    match message_type.map(str::to_ascii_lowercase).as_deref() {
        Some("hello") => Ok(hello_answer(&message)),
        Some("register") => Ok(GatewayMessage::Registered {
            channel: channel(&message)?,
            endpoint: text(&message, "pushEndpoint").unwrap_or_default(),
            verdict: Verdict::of(&message),
        }),
        Some("unregister") => Ok(GatewayMessage::Unregistered {
            channel: channel(&message).ok(),
            verdict: Verdict::of(&message),
        }),
        Some("broadcast") => Ok(GatewayMessage::Broadcasts(broadcasts(&message))),
        Some("notification") => match message.get("updates") {
            Some(updates) => {
                let updates = updates.as_array().ok_or(NotUnderstood)?;
                let updates: Result<_, _> = updates.iter().map(update).collect();
                updates.map(GatewayMessage::Updates)
            }
            None => notification(&message).map(GatewayMessage::Notification),
        },
        Some(_) | None => Ok(GatewayMessage::Other),
    }
}

/// What does not exist is listed under `errors`, which is no version.
fn broadcasts(message: &Value) -> BTreeMap<String, String> {
    let all = message.get("broadcasts").and_then(Value::as_object);
    let all = all.into_iter().flatten();
    all.filter_map(|(id, version)| Some((id.clone(), version.as_str()?.to_owned())))
        .collect()
}

fn hello_answer(message: &Value) -> GatewayMessage {
    let usable = |uaid: &String| !uaid.is_empty() && uaid.chars().count() <= UAID_CHARS_MAX;
    let verdict = Verdict::of(message);
    let sends_on = matches!(verdict.status, 300..=399);
    GatewayMessage::Hello {
        uaid: text(message, "uaid").filter(usable),
        redirect: text(message, "redirect").filter(|_| sends_on),
        verdict,
    }
}

fn notification(message: &Value) -> Result<Notification, NotUnderstood> {
    let header = |name| {
        let headers = message.get("headers");
        headers
            .and_then(|headers| text(headers, name))
            .unwrap_or_default()
    };
    // Firefox takes `data` without headers for an empty message; a body that cannot be decrypted is
    // more useful to the person who looks for the fault.
    let body = match text(message, "data") {
        None => Body::Empty,
        Some(data) => match BASE64URL_NOPAD.decode(data.trim_end_matches('=').as_bytes()) {
            Err(_) => Body::Malformed,
            Ok(data) => Body::Encrypted(Encrypted {
                data,
                encoding: header("encoding"),
                encryption: header("encryption"),
                crypto_key: header("crypto_key"),
            }),
        },
    };
    Ok(Notification {
        channel: channel(message)?,
        version: text(message, "version").ok_or(NotUnderstood)?,
        body,
    })
}

fn update(update: &Value) -> Result<Update, NotUnderstood> {
    let version = update.get("version").and_then(Value::as_u64);
    Ok(Update {
        channel: channel(update)?,
        version: version.ok_or(NotUnderstood)?,
        data: text(update, "data").filter(|data| !data.is_empty()),
    })
}

fn channel(object: &Value) -> Result<ChannelId, NotUnderstood> {
    let channel = object.get("channelID").and_then(Value::as_str);
    let uuid = channel.and_then(|text| Uuid::try_parse(text).ok());
    uuid.map(ChannelId::from_uuid).ok_or(NotUnderstood)
}

fn text(object: &Value, name: &str) -> Option<String> {
    object.get(name)?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client_message::{
        AckVersion, ClientMessage, RegisterKey, parse as parse_at_gateway,
    };

    const CHANNEL: ChannelId = ChannelId::from_bytes([0xab; 16]);
    const DASHED: &str = "abababab-abab-abab-abab-abababababab";
    const OK: Verdict = Verdict {
        status: 200,
        reason: None,
    };

    #[test]
    fn hello_is_spelled_as_firefox_and_as_firefox_os_do() {
        for (dialect, uaid, expected) in [
            (
                Dialect::WebPush,
                None,
                r#"{"broadcasts":{},"messageType":"hello","use_webpush":true}"#.to_owned(),
            ),
            (
                Dialect::WebPush,
                Some("u"),
                r#"{"broadcasts":{},"messageType":"hello","uaid":"u","use_webpush":true}"#
                    .to_owned(),
            ),
            (
                Dialect::SimplePush,
                Some("u"),
                format!(r#"{{"channelIDs":["{DASHED}"],"messageType":"hello","uaid":"u"}}"#),
            ),
        ] {
            assert_eq!(hello(dialect, uaid, &[CHANNEL]), expected);
        }
        let first = hello(Dialect::SimplePush, None, &[]);
        assert_eq!(first, r#"{"channelIDs":[],"messageType":"hello"}"#);
    }

    #[test]
    fn gateway_understands_what_the_user_agent_says() {
        let register_text = register(CHANNEL, None);
        let ClientMessage::Register { channel, key } = parse_at_gateway(&register_text).unwrap()
        else {
            panic!("{register_text}")
        };
        assert_eq!((channel, key), (CHANNEL, RegisterKey::Absent));

        let ack_text = ack(CHANNEL, "v", AckCode::DecryptionError);
        let ClientMessage::Ack(updates) = parse_at_gateway(&ack_text).unwrap() else {
            panic!("{ack_text}")
        };
        assert_eq!(updates[0].channel(), CHANNEL);
        assert_eq!(updates[0].version, AckVersion::Text("v".into()));
        assert_eq!(updates[0].code(), AckCode::DecryptionError);

        let unregister_text = unregister(CHANNEL);
        let ended = ClientMessage::Unregister { channel: CHANNEL };
        assert_eq!(parse_at_gateway(&unregister_text), Ok(ended));

        let nack_text = nack("v", NackCode::HANDLER_FAILED);
        let nacked = |code| ClientMessage::Nack {
            version: "v".into(),
            code,
        };
        let expected = nacked(Some(NackCode::HANDLER_FAILED));
        assert_eq!(parse_at_gateway(&nack_text), Ok(expected));
        for code in ["300", "304", "-1", "null"] {
            let text = format!(r#"{{"messageType":"nack","version":"v","code":{code}}}"#);
            assert_eq!(parse_at_gateway(&text), Ok(nacked(None)), "{code}");
        }
        assert_eq!(parse_at_gateway(PING), Ok(ClientMessage::Ping));
        assert_eq!(
            ack_update(CHANNEL, 5),
            format!(
                r#"{{"messageType":"ack","updates":[{{"channelID":"{DASHED}","version":5}}]}}"#
            )
        );
    }

    #[test]
    fn answers_are_read_with_and_without_a_status() {
        let hello = |uaid: Option<&str>, status, reason: Option<&str>| GatewayMessage::Hello {
            uaid: uaid.map(str::to_owned),
            redirect: None,
            verdict: Verdict {
                status,
                reason: reason.map(str::to_owned),
            },
        };
        let long = format!(r#"{{"messageType":"hello","uaid":"{}"}}"#, "a".repeat(129));
        for (text, expected) in [
            (
                r#"{"messageType":"hello","uaid":"u","status":200}"#,
                hello(Some("u"), 200, None),
            ),
            (
                r#"{"messageType":"Hello","uaid":"u"}"#,
                hello(Some("u"), 200, None),
            ),
            (
                r#"{"messageType":"hello","uaid":""}"#,
                hello(None, 200, None),
            ),
            (
                r#"{"messageType":"hello","uaid":1,"status":"x"}"#,
                hello(None, 0, None),
            ),
            (
                r#"{"messageType":"hello","status":503,"reason":"full"}"#,
                hello(None, 503, Some("full")),
            ),
            (
                r#"{"messageType":"hello","uaid":"u","status":200,"redirect":"wss://other"}"#,
                hello(Some("u"), 200, None),
            ),
            (&long, hello(None, 200, None)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        let elsewhere =
            r#"{"messageType":"hello","uaid":"u","status":307,"redirect":"wss://other"}"#;
        let expected = GatewayMessage::Hello {
            uaid: Some("u".to_owned()),
            redirect: Some("wss://other".to_owned()),
            verdict: Verdict {
                status: 307,
                reason: None,
            },
        };
        assert_eq!(parse(elsewhere), Ok(expected));
        let registered = format!(
            r#"{{"messageType":"register","channelID":"{DASHED}","status":400,"pushEndpoint":"Failed"}}"#
        );
        let unregistered = r#"{"messageType":"unregister","status":200}"#;
        let expected = GatewayMessage::Unregistered {
            channel: None,
            verdict: OK,
        };
        assert_eq!(parse(unregistered), Ok(expected));
        let expected = GatewayMessage::Registered {
            channel: CHANNEL,
            endpoint: "Failed".to_owned(),
            verdict: Verdict {
                status: 400,
                reason: Some("Failed".to_owned()),
            },
        };
        assert_eq!(parse(&registered), Ok(expected));
    }

    #[test]
    fn both_forms_of_a_notification_are_read() {
        let update = |version, data: Option<&str>| Update {
            channel: CHANNEL,
            version,
            data: data.map(str::to_owned),
        };
        let text = format!(
            r#"{{"messageType":"notification","updates":[{{"channelID":"{DASHED}","version":5}},
                {{"channelID":"{DASHED}","version":18446744073709551615,"data":"d"}},
                {{"channelID":"{DASHED}","version":6,"data":""}}]}}"#
        );
        let updates = vec![
            update(5, None),
            update(u64::MAX, Some("d")),
            update(6, None),
        ];
        assert_eq!(parse(&text), Ok(GatewayMessage::Updates(updates)));

        for (fields, body) in [
            ("", Body::Empty),
            (r#","data":null"#, Body::Empty),
            (r#","data":"a+b""#, Body::Malformed),
            (
                r#","data":"_-8=","headers":{"encoding":"aesgcm","encryption":"e","crypto_key":"c"}"#,
                Body::Encrypted(Encrypted {
                    data: vec![0xff, 0xef],
                    encoding: "aesgcm".to_owned(),
                    encryption: "e".to_owned(),
                    crypto_key: "c".to_owned(),
                }),
            ),
        ] {
            let text = format!(
                r#"{{"messageType":"notification","channelID":"{DASHED}","version":"v"{fields}}}"#
            );
            let expected = Notification {
                channel: CHANNEL,
                version: "v".to_owned(),
                body,
            };
            assert_eq!(
                parse(&text),
                Ok(GatewayMessage::Notification(expected)),
                "{text}"
            );
        }
    }

    #[test]
    fn broadcasts_that_there_are_come_with_their_versions() {
        let asked = broadcast_subscribe(["a", "b"]);
        let expected = r#"{"broadcasts":{"a":"","b":""},"messageType":"broadcast_subscribe"}"#;
        assert_eq!(asked, expected);
        let text = r#"{"messageType":"broadcast","broadcasts":{"a":"1","errors":{"b":"none"}}}"#;
        let versions = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert_eq!(parse(text), Ok(GatewayMessage::Broadcasts(versions)));
        let none = parse(r#"{"messageType":"broadcast"}"#);
        assert_eq!(none, Ok(GatewayMessage::Broadcasts(BTreeMap::new())));
    }

    #[test]
    fn what_is_not_of_the_protocol_is_told_apart_from_what_is_unknown() {
        for text in [
            "{}",
            r#"{"messageType":1}"#,
            r#"{"messageType":"urgency","status":200}"#,
        ] {
            assert_eq!(parse(text), Ok(GatewayMessage::Other), "{text}");
        }
        let nested = "[".repeat(200_000);
        let negative = format!(
            r#"{{"messageType":"notification","updates":[{{"channelID":"{DASHED}","version":-1}}]}}"#
        );
        for text in [
            "",
            "null",
            "[]",
            &nested,
            &negative,
            r#"{"messageType":"register"}"#,
            r#"{"messageType":"notification","channelID":"x","version":"v"}"#,
            r#"{"messageType":"notification","updates":{}}"#,
            r#"{"messageType":"notification","updates":[1]}"#,
        ] {
            assert_eq!(parse(text), Err(NotUnderstood), "{text:.80}");
        }
        assert!(OK.is_ok());
    }
}
