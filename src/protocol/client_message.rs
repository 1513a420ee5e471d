//! What a WebPush user agent says on its websocket: PROTOCOL.md part 3, 4.2 to 4.7.
//!
//! One JSON object a message; its `messageType` is read first, then only that type's fields, so
//! that other fields may hold anything, as on the main service.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use super::keyring::{KeyDigest, decode_base64url, parse_uaid};
use super::push_request::urgency_of;
use crate::model::ids::{ChannelId, Uaid};
use crate::model::limits::VAPID_KEY_CHARS_MAX;
use crate::model::message::Urgency;
use crate::model::version::Version;

/// One message of a user agent.
#[derive(Debug, Eq, PartialEq)]
pub enum ClientMessage<'a> {
    /// Names itself, or asks for a name.
    Hello {
        /// Its name, if it sent one that can be one.
        uaid: Option<Uaid>,
        /// The broadcasts that it listens to, with the versions that it has.
        broadcasts: Broadcasts<'a>,
    },
    /// Asks for an endpoint.
    Register {
        /// The name of the new subscription.
        channel: ChannelId,
        /// The VAPID key that the endpoint is to be restricted to.
        key: RegisterKey<'a>,
    },
    /// Ends a subscription.
    Unregister {
        /// Its name.
        channel: ChannelId,
    },
    /// Has received push messages.
    Ack(Vec<AckUpdate<'a>>),
    /// Has received a push message and could not make use of it.
    Nack {
        /// The message's `version`.
        version: Cow<'a, str>,
        /// Why, if it says that in a way that is known.
        code: Option<NackCode>,
    },
    /// Is alive.
    Ping,
    /// Wants no messages below an urgency for now; `None` if it does not say which.
    Urgency(Option<Urgency>),
    /// Wants to hear of broadcasts as well, of which it has these versions.
    BroadcastSubscribe(Broadcasts<'a>),
}

/// Broadcasts and their versions.
pub type Broadcasts<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// The `key` of a register.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RegisterKey<'a> {
    /// None: any application server may post.
    Absent,
    /// Digest of the decoded key, and the key as it was sent.
    Present(KeyDigest, Cow<'a, str>),
    /// Not base64url, or longer than [`VAPID_KEY_CHARS_MAX`].
    Invalid,
}

/// One push message that has been received.
#[derive(Debug, Deserialize, Eq, PartialEq)]
pub struct AckUpdate<'a> {
    /// Its subscription.
    #[serde(rename = "channelID")]
    channel: Uuid,
    /// Its `version`.
    #[serde(borrow)]
    pub version: AckVersion<'a>,
    /// 100 delivered, 101 not decrypted, 102 not delivered.
    #[serde(default)]
    code: Option<u16>,
}

/// Why a push message that arrived was of no use: 301 to 303 (the handler threw, its promise was
/// rejected, anything else of the user agent).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NackCode(u16);

impl NackCode {
    /// The handler failed.
    pub const HANDLER_FAILED: Self = Self(301);

    fn new(number: i32) -> Option<Self> {
        let number = u16::try_from(number).ok()?;
        matches!(number, 301..=303).then_some(Self(number))
    }

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// The `version` of an ack, as it was sent.
#[derive(Debug, Eq, PartialEq)]
pub enum AckVersion<'a> {
    /// The opaque one of a push message. KUnifiedPush may send an empty one.
    Text(Cow<'a, str>),
    /// Of a version update, which any user agent gets where an application server puts one.
    Number(Version),
}

impl<'de: 'a, 'a> Deserialize<'de> for AckVersion<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = AckVersion<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a number from 0 to 2^63 - 1")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(AckVersion::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(AckVersion::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                let version = Version::new(number);
                let version = version.ok_or_else(|| E::custom("above 2^63 - 1"))?;
                Ok(AckVersion::Number(version))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl AckUpdate<'_> {
    /// Its subscription.
    pub const fn channel(&self) -> ChannelId {
        ChannelId::from_uuid(self.channel)
    }

    /// What became of it.
    pub fn code(&self) -> AckCode {
        match self.code {
            Some(101) => AckCode::DecryptionError,
            Some(102) => AckCode::NotDelivered,
            Some(_) | None => AckCode::Delivered,
        }
    }
}

/// What a user agent says of a push message that it has received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AckCode {
    /// It went to its application (100, or nothing said).
    Delivered,
    /// It could not be decrypted: the application server is at fault (101).
    DecryptionError,
    /// It was seen before, or its subscription is unknown (102).
    NotDelivered,
}

/// Reads one text message.
///
/// # Errors
///
/// [`MessageError`]; the main service closes the websocket on each of them.
pub fn parse(text: &str) -> Result<ClientMessage<'_>, MessageError> {
    let Some(message_type) = message_type(text)? else {
        // Nothing but braces is the oldest ping.
        return match text.trim() {
            "{}" => Ok(ClientMessage::Ping),
            _ if is_empty_object(text) => Ok(ClientMessage::Ping),
            _ => Err(MessageError::NoType),
        };
    };
    match &*message_type {
        "hello" => hello(text),
        "register" => register(text),
        "unregister" => {
            let fields: UnregisterFields = from_json(text)?;
            let channel = ChannelId::from_uuid(fields.channel);
            Ok(ClientMessage::Unregister { channel })
        }
        "ack" => {
            let fields: AckFields<'_> = from_json(text)?;
            Ok(ClientMessage::Ack(fields.updates))
        }
        "nack" => {
            let fields: NackFields<'_> = from_json(text)?;
            Ok(ClientMessage::Nack {
                version: fields.version,
                code: fields.code.and_then(NackCode::new),
            })
        }
        "ping" => Ok(ClientMessage::Ping),
        "urgency" => Ok(ClientMessage::Urgency(urgency_min(text))),
        "broadcast_subscribe" => {
            let fields: BroadcastFields<'_> = from_json(text)?;
            Ok(ClientMessage::BroadcastSubscribe(fields.broadcasts))
        }
        _ => Err(MessageError::UnknownType),
    }
}

fn message_type(text: &str) -> Result<Option<Cow<'_, str>>, MessageError> {
    #[derive(Deserialize)]
    struct Tag<'a> {
        #[serde(rename = "messageType", borrow, default)]
        message_type: Option<Cow<'a, str>>,
    }
    Ok(from_json::<Tag<'_>>(text)?.message_type)
}

fn is_empty_object(text: &str) -> bool {
    from_json::<BTreeMap<Cow<'_, str>, IgnoredAny>>(text).is_ok_and(|fields| fields.is_empty())
}

/// Whatever `use_webpush` is: a hello of SimplePush does not come here.
fn hello(text: &str) -> Result<ClientMessage<'_>, MessageError> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow, default)]
        uaid: Option<Cow<'a, str>>,
        #[serde(rename = "channelIDs", borrow, default)]
        channels: Option<Vec<Cow<'a, str>>>,
        #[serde(borrow, default)]
        broadcasts: Option<Broadcasts<'a>>,
    }
    let fields: Fields<'_> = from_json(text)?;
    let channels_are_uuids = |channels: &Vec<Cow<'_, str>>| {
        let mut channels = channels.iter();
        channels.all(|channel| Uuid::try_parse(channel).is_ok())
    };
    if !fields.channels.as_ref().is_none_or(channels_are_uuids) {
        return Err(MessageError::BadJson);
    }
    let uaid = fields.uaid.as_deref().and_then(parse_uaid);
    Ok(ClientMessage::Hello {
        uaid,
        broadcasts: fields.broadcasts.unwrap_or_default(),
    })
}

fn register(text: &str) -> Result<ClientMessage<'_>, MessageError> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(rename = "channelID", borrow)]
        channel: Cow<'a, str>,
        #[serde(borrow, default)]
        key: Option<Cow<'a, str>>,
    }
    let fields: Fields<'_> = from_json(text)?;
    let channel = dashed_lower_case(&fields.channel).ok_or(MessageError::BadChannel)?;
    let key = match fields.key {
        None => RegisterKey::Absent,
        Some(text) => match decode_base64url(&text, VAPID_KEY_CHARS_MAX) {
            None => RegisterKey::Invalid,
            Some(key) => RegisterKey::Present(KeyDigest::of(&key), text),
        },
    };
    Ok(ClientMessage::Register { channel, key })
}

/// The only spelling that a register may use, because it is echoed and compared as text.
fn dashed_lower_case(text: &str) -> Option<ChannelId> {
    let uuid = Uuid::try_parse(text).ok()?;
    let mut buffer = Uuid::encode_buffer();
    let spelled = uuid.hyphenated().encode_lower(&mut buffer);
    (spelled == text).then_some(ChannelId::from_uuid(uuid))
}

/// Whatever is wrong with `min` is answered: the user agent tries something new (autopush's branch
/// `feat/urgency`), which should not cost it its websocket.
fn urgency_min(text: &str) -> Option<Urgency> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow)]
        min: Cow<'a, str>,
    }
    let fields: Fields<'_> = from_json(text).ok()?;
    urgency_of(&fields.min)
}

#[derive(Deserialize)]
struct UnregisterFields {
    #[serde(rename = "channelID")]
    channel: Uuid,
    #[serde(default)]
    #[expect(dead_code, reason = "checked for its type, as on the main service")]
    code: Option<u32>,
}

#[derive(Deserialize)]
struct AckFields<'a> {
    #[serde(borrow)]
    updates: Vec<AckUpdate<'a>>,
}

#[derive(Deserialize)]
struct NackFields<'a> {
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(default)]
    code: Option<i32>,
}

#[derive(Deserialize)]
struct BroadcastFields<'a> {
    #[serde(borrow)]
    broadcasts: Broadcasts<'a>,
}

fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, MessageError> {
    // serde reads a struct from an array as well, in the order of its fields; no peer means that.
    if !text.trim_start().starts_with('{') {
        return Err(MessageError::BadJson);
    }
    serde_json::from_str(text).map_err(|_| MessageError::BadJson)
}

/// Why a message was not understood. Each closes the websocket with its text as the reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MessageError {
    /// Not a JSON object, or a field is missing, doubled or of the wrong type.
    BadJson,
    /// `register` with a channelID in another form than lower case and dashes.
    BadChannel,
    /// An object that says something, but not of which type.
    NoType,
    /// A `messageType` that is not known.
    UnknownType,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl MessageError {
    /// What is wrong, short enough for a close frame (123 bytes).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "message is not a JSON object with the fields of its messageType",
            Self::BadChannel => "channelID must be a UUID in lower case with dashes",
            Self::NoType => "messageType is missing",
            Self::UnknownType => "messageType is not known",
        }
    }
}

impl std::error::Error for MessageError {}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: &str = "0207da37-1a37-408c-b2f7-d2b9be76bcdc";

    fn channel() -> ChannelId {
        ChannelId::from_uuid(Uuid::try_parse(CHANNEL).unwrap())
    }

    #[test]
    fn hello_of_each_real_user_agent_is_understood() {
        for (rest, named) in [
            (r#""broadcasts":{},"use_webpush":true"#, false),
            (r#""uaid":"ID","use_webpush":true"#, true),
            (r#""uaid":"","channelIDs":[],"use_webpush":true"#, false),
            (r#""uaid":"ID""#, true),
            (r#""uaid":null,"use_webpush":"any""#, false),
        ] {
            let rest = rest.replace("\"ID\"", "\"5899e2060503436faf416102564443e0\"");
            let text = format!(r#"{{{rest},"messageType":"hello"}}"#);
            let Ok(ClientMessage::Hello { uaid, .. }) = parse(&text) else {
                panic!("{text}: {:?}", parse(&text));
            };
            assert_eq!(uaid.is_some(), named, "{text}");
        }
        let bare = ClientMessage::Hello {
            uaid: None,
            broadcasts: Broadcasts::new(),
        };
        assert_eq!(parse(r#"{"messageType":"hello"}"#), Ok(bare));
    }

    #[test]
    fn hello_with_a_field_of_the_wrong_type_is_refused() {
        for fields in [
            r#""uaid":5"#,
            r#""use_webpush":true,"channelIDs":["abc"]"#,
            r#""use_webpush":true,"channelIDs":"abc""#,
            r#""use_webpush":true,"broadcasts":[]"#,
            r#""use_webpush":true,"broadcasts":{"a":1}"#,
            r#""uaid":"","uaid":"""#,
        ] {
            let text = format!(r#"{{"messageType":"hello",{fields}}}"#);
            assert_eq!(parse(&text), Err(MessageError::BadJson), "{text}");
        }
    }

    #[test]
    fn register_takes_only_the_lower_case_dashed_channel() {
        let text = format!(r#"{{"channelID":"{CHANNEL}","messageType":"register"}}"#);
        let expected = ClientMessage::Register {
            channel: channel(),
            key: RegisterKey::Absent,
        };
        assert_eq!(parse(&text), Ok(expected));
        for bad in [
            CHANNEL.to_uppercase(),
            CHANNEL.replace('-', ""),
            "testChannel".to_owned(),
            String::new(),
        ] {
            let text = format!(r#"{{"channelID":"{bad}","messageType":"register"}}"#);
            assert_eq!(parse(&text), Err(MessageError::BadChannel), "{bad}");
        }
        for missing in ["", r#","channelID":null"#, r#","channelID":5"#] {
            let text = format!(r#"{{"messageType":"register"{missing}}}"#);
            assert_eq!(parse(&text), Err(MessageError::BadJson), "{text}");
        }
    }

    #[test]
    fn register_key_is_digested_with_and_without_padding() {
        let read = |key: &str, expected: &RegisterKey<'_>| {
            let text =
                format!(r#"{{"messageType":"register","channelID":"{CHANNEL}","key":"{key}"}}"#);
            match parse(&text) {
                Ok(ClientMessage::Register { key, .. }) => assert_eq!(key, *expected),
                other => panic!("{other:?}"),
            }
        };
        for (text, decoded) in [("YQ==", &b"a"[..]), ("YQ", b"a"), ("", b"")] {
            let expected = RegisterKey::Present(KeyDigest::of(decoded), text.into());
            read(text, &expected);
        }
        read("a+b/", &RegisterKey::Invalid);
        read(&"A".repeat(10_000), &RegisterKey::Invalid);
    }

    #[test]
    fn ack_carries_channel_version_and_code() {
        let text = format!(
            r#"{{"messageType":"ack","updates":[{{"channelID":"{CHANNEL}","version":"v","code":102}},{{"channelID":"{CHANNEL}","version":""}}]}}"#
        );
        let Ok(ClientMessage::Ack(updates)) = parse(&text) else {
            panic!("{:?}", parse(&text));
        };
        assert_eq!(updates.len(), 2);
        assert_eq!(
            (updates[0].channel(), &updates[0].version),
            (channel(), &AckVersion::Text("v".into()))
        );
        assert_eq!(updates[0].code(), AckCode::NotDelivered);
        assert_eq!(updates[1].code(), AckCode::Delivered);
    }

    #[test]
    fn ack_with_a_missing_or_wrong_field_is_refused() {
        for updates in [
            "",
            r#","updates":[{"version":"v"}]"#,
            r#","updates":[{"channelID":"0207da37-1a37-408c-b2f7-d2b9be76bcdc"}]"#,
            r#","updates":[{"channelID":"0207da37-1a37-408c-b2f7-d2b9be76bcdc","version":-1}]"#,
            r#","updates":[{"channelID":"0207da37-1a37-408c-b2f7-d2b9be76bcdc","version":1.5}]"#,
            r#","updates":[{"channelID":"0207da37-1a37-408c-b2f7-d2b9be76bcdc","version":9223372036854775808}]"#,
            r#","updates":[{"channelID":"0207da37-1a37-408c-b2f7-d2b9be76bcdc","version":null}]"#,
            r#","updates":[{"channelID":"0207da37-1a37-408c-b2f7-d2b9be76bcdc","version":"","code":65536}]"#,
        ] {
            let text = format!(r#"{{"messageType":"ack"{updates}}}"#);
            assert_eq!(parse(&text), Err(MessageError::BadJson), "{text}");
        }
    }

    #[test]
    fn ack_of_a_version_update_carries_its_number() {
        let text = format!(
            r#"{{"messageType":"ack","updates":[{{"channelID":"{CHANNEL}","version":9223372036854775807}}]}}"#
        );
        let Ok(ClientMessage::Ack(updates)) = parse(&text) else {
            panic!("{:?}", parse(&text));
        };
        assert_eq!(updates[0].version, AckVersion::Number(Version::MAX));
    }

    #[test]
    fn urgency_is_one_word_of_four_and_anything_else_is_none() {
        for (fields, min) in [
            (r#","min":"very-low""#, Some(Urgency::VeryLow)),
            (r#","min":"low""#, Some(Urgency::Low)),
            (r#","min":"normal","x":1"#, Some(Urgency::Normal)),
            (r#","min":"h\u0069gh""#, Some(Urgency::High)),
            (r#","min":"High""#, None),
            (r#","min":"" "#, None),
            (r#","min":null"#, None),
            (r#","min":2"#, None),
            (r#","min":["low"]"#, None),
            (r#","min":"low","min":"high""#, None),
            ("", None),
        ] {
            let text = format!(r#"{{"messageType":"urgency"{fields}}}"#);
            assert_eq!(parse(&text), Ok(ClientMessage::Urgency(min)), "{text}");
        }
    }

    #[test]
    fn every_form_of_a_ping_is_a_ping() {
        for text in [
            "{}",
            "{ }",
            " {\n} ",
            r#"{"messageType":"ping"}"#,
            r#"{"messageType":"ping","x":[1]}"#,
        ] {
            assert_eq!(parse(text), Ok(ClientMessage::Ping), "{text}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (text, error) in [
            ("", MessageError::BadJson),
            ("nonsense", MessageError::BadJson),
            ("[]", MessageError::BadJson),
            (r#"["hello"]"#, MessageError::BadJson),
            ("5", MessageError::BadJson),
            ("null", MessageError::BadJson),
            ("{} {}", MessageError::BadJson),
            (r#"{"messageType":5}"#, MessageError::BadJson),
            (
                r#"{"messageType":"ping","messageType":"ping"}"#,
                MessageError::BadJson,
            ),
            (r#"{"x":1}"#, MessageError::NoType),
            (r#"{"messageType":"HELLO"}"#, MessageError::UnknownType),
            (r#"{"messageType":"purge"}"#, MessageError::UnknownType),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn deeply_nested_json_is_refused_without_a_deep_stack() {
        let deep = format!(r#"{{"messageType":"hello","uaid":{}"#, "[".repeat(60_000));
        assert_eq!(parse(&deep), Err(MessageError::BadJson));
        let ignored = format!(
            r#"{{"messageType":"ping","x":{}{}}}"#,
            "[".repeat(30_000),
            "]".repeat(30_000)
        );
        assert!(parse(&ignored).is_ok() || parse(&ignored) == Err(MessageError::BadJson));
    }

    #[test]
    fn close_reasons_fit_into_a_close_frame() {
        for error in [
            MessageError::BadJson,
            MessageError::BadChannel,
            MessageError::NoType,
            MessageError::UnknownType,
        ] {
            assert!(error.as_str().len() <= 123);
        }
    }
}
