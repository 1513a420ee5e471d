//! What the gateway says on a websocket: to WebPush user agents field for field as the main service
//! (PROTOCOL.md part 3, 4.3 to 4.8), to SimplePush ones as they expect it (part 2, R10 to R21).

use std::borrow::Cow;
use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use uuid::Uuid;
use uuid::fmt::{Hyphenated, Simple};

use crate::model::ids::{ChannelId, Uaid};
use crate::model::message::PushMessage;
use crate::model::version::Version;

/// The answer to a ping.
pub const PONG: &str = "{}";

/// What a user agent is told of the broadcasts that it listens to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BroadcastAnswer {
    #[serde(flatten)]
    versions: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<String, &'static str>,
}

impl BroadcastAnswer {
    /// It has another version than this.
    pub fn differs(&mut self, id: &str, version: &str) {
        self.versions.insert(id.to_owned(), version.to_owned());
    }

    /// There is no such broadcast.
    pub fn not_found(&mut self, id: &str) {
        self.errors.insert(id.to_owned(), "Broadcast not found");
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty() && self.errors.is_empty()
    }
}

/// Broadcasts whose versions differ from what the user agent has.
pub fn broadcast(broadcasts: &BroadcastAnswer) -> String {
    #[derive(Serialize)]
    struct Broadcast<'a> {
        #[serde(rename = "messageType")]
        message_type: &'static str,
        broadcasts: &'a BroadcastAnswer,
    }
    to_json(&Broadcast {
        message_type: "broadcast",
        broadcasts,
    })
}

/// The answer to `hello`.
pub fn hello(uaid: Uaid, broadcasts: &BroadcastAnswer) -> String {
    #[derive(Serialize)]
    struct Hello<'a> {
        #[serde(rename = "messageType")]
        message_type: &'static str,
        uaid: Simple,
        status: u16,
        use_webpush: bool,
        broadcasts: &'a BroadcastAnswer,
    }
    to_json(&Hello {
        message_type: "hello",
        uaid: uaid.uuid().simple(),
        status: 200,
        use_webpush: true,
        broadcasts,
    })
}

/// The answer to `hello` of a SimplePush user agent, in its own spelling of its name if it has one.
pub fn simplepush_hello(uaid: Uaid, spelling: Option<&str>) -> String {
    #[derive(Serialize)]
    struct Hello<'a> {
        #[serde(rename = "messageType")]
        message_type: &'static str,
        uaid: &'a str,
        status: u16,
    }
    let mut buffer = Uuid::encode_buffer();
    to_json(&Hello {
        message_type: "hello",
        uaid: spelling.unwrap_or_else(|| uaid.uuid().simple().encode_lower(&mut buffer)),
        status: 200,
    })
}

/// How a channel is spelled where its user agent has no spelling of its own.
pub fn dashed(channel: ChannelId) -> String {
    channel.uuid().hyphenated().to_string()
}

/// What of a spelling must be remembered: nothing of the usual one.
pub fn own_spelling(channel: ChannelId, spelling: &str) -> Option<Box<str>> {
    (dashed(channel) != spelling).then(|| spelling.into())
}

/// The answer to `register`; `channel` as the user agent spells it.
pub fn registered(channel: &str, outcome: Registered<'_>) -> String {
    #[derive(Serialize)]
    struct Register<'a> {
        #[serde(rename = "messageType")]
        message_type: &'static str,
        #[serde(rename = "channelID")]
        channel: &'a str,
        status: u16,
        #[serde(rename = "pushEndpoint")]
        endpoint: &'a str,
    }
    let (status, endpoint) = match outcome {
        Registered::Endpoint(url) => (200, url),
        Registered::InvalidKey => (400, "Failed to generate endpoint"),
        Registered::TooMany => (429, ""),
        Registered::StorageFault => (500, ""),
    };
    to_json(&Register {
        message_type: "register",
        channel,
        status,
        endpoint,
    })
}

/// What came of a `register`.
#[derive(Clone, Copy, Debug)]
pub enum Registered<'a> {
    /// There is a subscription; this is its URL.
    Endpoint(&'a str),
    /// Its `key` is not base64url.
    InvalidKey,
    /// The user agent has as many subscriptions as it may.
    TooMany,
    /// It could not be written down.
    StorageFault,
}

/// The answer to `unregister`: `ended` unless it could not be written down.
pub fn unregistered(channel: &str, ended: bool) -> String {
    #[derive(Serialize)]
    struct Unregister<'a> {
        #[serde(rename = "messageType")]
        message_type: &'static str,
        #[serde(rename = "channelID")]
        channel: &'a str,
        status: u16,
    }
    to_json(&Unregister {
        message_type: "unregister",
        channel,
        status: if ended { 200 } else { 500 },
    })
}

/// The answer to `urgency`: `taken` unless it names none.
pub fn urgency(taken: bool) -> String {
    #[derive(Serialize)]
    struct Answer {
        #[serde(rename = "messageType")]
        message_type: &'static str,
        status: u16,
    }
    to_json(&Answer {
        message_type: "urgency",
        status: if taken { 200 } else { 400 },
    })
}

/// A push message on its way to the user agent; `version` is its token.
pub fn notification(message: &PushMessage, version: &str) -> String {
    #[derive(Serialize)]
    struct Notification<'a> {
        #[serde(rename = "messageType")]
        message_type: &'static str,
        #[serde(rename = "channelID")]
        channel: Hyphenated,
        version: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        headers: Option<Headers<'a>>,
    }
    #[derive(Serialize)]
    struct Headers<'a> {
        encoding: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        encryption: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        crypto_key: Option<&'a str>,
    }
    let content = message.payload.content();
    let body = content.map_or_else(|| message.payload.raw(), |content| Some(&content.body));
    to_json(&Notification {
        message_type: "notification",
        channel: message.channel.uuid().hyphenated(),
        version,
        data: body.map(|body| BASE64URL_NOPAD.encode(body)),
        headers: content.map(|content| Headers {
            encoding: content.encoding.as_str(),
            encryption: content.encryption.as_deref(),
            crypto_key: content.crypto_key.as_deref(),
        }),
    })
}

/// One entry of a notification of version updates.
#[derive(Clone, Debug, Serialize)]
pub struct Update<'a> {
    #[serde(rename = "channelID")]
    channel: Cow<'a, str>,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
}

impl<'a> Update<'a> {
    /// The version of a channel, which is spelled with dashes unless the user agent does otherwise.
    pub fn new(
        channel: ChannelId,
        spelling: Option<&'a str>,
        version: Version,
        data: Option<&'a str>,
    ) -> Self {
        Self {
            channel: spelling.map_or_else(|| dashed(channel).into(), Cow::Borrowed),
            version: version.as_u64(),
            data,
        }
    }

    /// At most how many bytes it takes in a frame: names, 20 digits, and data as JSON escapes it.
    pub fn len_bytes_max(&self) -> usize {
        let escaped = |byte: u8| match byte {
            0..=0x1f => r"\u0000".len(),
            b'"' | b'\\' => 2,
            _ => 1,
        };
        let data: usize = self.data.unwrap_or_default().bytes().map(escaped).sum();
        self.channel.len().saturating_add(data).saturating_add(80)
    }
}

/// Version updates on their way to the user agent; at least one.
pub fn updates(updates: &[Update<'_>]) -> String {
    #[derive(Serialize)]
    struct Notification<'a> {
        #[serde(rename = "messageType")]
        message_type: &'static str,
        updates: &'a [Update<'a>],
    }
    to_json(&Notification {
        message_type: "notification",
        updates,
    })
}

fn to_json(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("a struct of strings and numbers is always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::MessageId;
    use crate::model::message::{Content, Encoding, Payload, Ttl, Urgency};
    use crate::model::time::ServiceTime;

    const CHANNEL: ChannelId = ChannelId::from_bytes([0xab; 16]);
    const DASHED: &str = "abababab-abab-abab-abab-abababababab";

    fn message(payload: Payload) -> PushMessage {
        PushMessage {
            id: MessageId::ZERO,
            channel: CHANNEL,
            received_at: ServiceTime::from_secs(0),
            ttl: Ttl::from_secs_lowered(60),
            topic: None,
            urgency: Urgency::Normal,
            payload,
        }
    }

    #[test]
    fn hello_is_spelled_as_the_main_service_does() {
        assert_eq!(
            hello(Uaid::from_bytes([0xab; 16]), &BroadcastAnswer::default()),
            r#"{"messageType":"hello","uaid":"abababababababababababababababab","status":200,"use_webpush":true,"broadcasts":{}}"#
        );
    }

    #[test]
    fn register_and_unregister_echo_the_channel() {
        assert_eq!(
            registered(DASHED, Registered::Endpoint("http://h/wpush/v1/t")),
            format!(
                r#"{{"messageType":"register","channelID":"{DASHED}","status":200,"pushEndpoint":"http://h/wpush/v1/t"}}"#
            )
        );
        assert_eq!(
            registered(DASHED, Registered::InvalidKey),
            format!(
                r#"{{"messageType":"register","channelID":"{DASHED}","status":400,"pushEndpoint":"Failed to generate endpoint"}}"#
            )
        );
        assert_eq!(
            registered(DASHED, Registered::StorageFault),
            format!(
                r#"{{"messageType":"register","channelID":"{DASHED}","status":500,"pushEndpoint":""}}"#
            )
        );
        assert_eq!(
            unregistered(DASHED, true),
            format!(r#"{{"messageType":"unregister","channelID":"{DASHED}","status":200}}"#)
        );
    }

    #[test]
    fn urgency_is_answered_with_its_status() {
        assert_eq!(urgency(true), r#"{"messageType":"urgency","status":200}"#);
        assert_eq!(urgency(false), r#"{"messageType":"urgency","status":400}"#);
    }

    #[test]
    fn simplepush_hello_says_no_more_than_a_simplepush_user_agent_reads() {
        let uaid = Uaid::from_bytes([0xab; 16]);
        assert_eq!(
            simplepush_hello(uaid, None),
            r#"{"messageType":"hello","uaid":"abababababababababababababababab","status":200}"#
        );
        assert!(simplepush_hello(uaid, Some("ABAB")).contains(r#""uaid":"ABAB""#));
    }

    #[test]
    fn updates_are_numbers_and_have_data_only_where_there_is_some() {
        let list = [
            Update::new(CHANNEL, None, Version::MAX, None),
            Update::new(CHANNEL, Some("ABAB"), Version::from_secs(0), Some("\"")),
        ];
        assert_eq!(
            updates(&list),
            format!(
                r#"{{"messageType":"notification","updates":[{{"channelID":"{DASHED}","version":9223372036854775807}},{{"channelID":"ABAB","version":0,"data":"\""}}]}}"#
            )
        );
    }

    #[test]
    fn update_is_never_longer_than_it_says_and_hardly_shorter() {
        for data in ["", "plain", "\"\\\0\u{1f}\n\u{7f}\u{e9}\u{1F4A9}"] {
            let update = Update::new(CHANNEL, None, Version::MAX, Some(data));
            let (written, max) = (to_json(&update).len(), update.len_bytes_max());
            assert!((written..=written + 40).contains(&max), "{written} {max}");
        }
    }

    #[test]
    fn notification_without_a_body_has_neither_data_nor_headers() {
        assert_eq!(
            notification(&message(Payload::Empty), "v"),
            format!(r#"{{"messageType":"notification","channelID":"{DASHED}","version":"v"}}"#)
        );
    }

    #[test]
    fn notification_has_its_body_in_base64url_and_the_headers_that_were_sent() {
        let content = Content {
            encoding: Encoding::Aesgcm,
            encryption: Some("salt=abc".into()),
            crypto_key: Some("dh=def".into()),
            body: [0xff, 0xef].into(),
        };
        assert_eq!(
            notification(&message(Payload::Encrypted(content)), "v"),
            format!(
                r#"{{"messageType":"notification","channelID":"{DASHED}","version":"v","data":"_-8","headers":{{"encoding":"aesgcm","encryption":"salt=abc","crypto_key":"dh=def"}}}}"#
            )
        );
    }

    #[test]
    fn raw_body_travels_without_headers() {
        let raw = Payload::Raw([0xff, 0xef].into());
        assert_eq!(
            notification(&message(raw), "v"),
            format!(
                r#"{{"messageType":"notification","channelID":"{DASHED}","version":"v","data":"_-8"}}"#
            )
        );
    }
}
