//! What the gateway says on a websocket, field for field as the main service
//! (PROTOCOL.md part 3, 4.3 to 4.8).

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use uuid::fmt::{Hyphenated, Simple};

use crate::model::ids::{ChannelId, Uaid};
use crate::model::message::PushMessage;

/// The answer to a ping.
pub const PONG: &str = "{}";

/// The answer to `hello`.
pub fn hello(uaid: Uaid) -> String {
    #[derive(Serialize)]
    struct Hello {
        #[serde(rename = "messageType")]
        message_type: &'static str,
        uaid: Simple,
        status: u16,
        use_webpush: bool,
        broadcasts: BTreeMap<String, String>,
    }
    to_json(&Hello {
        message_type: "hello",
        uaid: uaid.uuid().simple(),
        status: 200,
        use_webpush: true,
        broadcasts: BTreeMap::new(),
    })
}

/// The answer to `register`.
pub fn registered(channel: ChannelId, outcome: Registered<'_>) -> String {
    #[derive(Serialize)]
    struct Register<'a> {
        #[serde(rename = "messageType")]
        message_type: &'static str,
        #[serde(rename = "channelID")]
        channel: Hyphenated,
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
        channel: channel.uuid().hyphenated(),
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
pub fn unregistered(channel: ChannelId, ended: bool) -> String {
    #[derive(Serialize)]
    struct Unregister {
        #[serde(rename = "messageType")]
        message_type: &'static str,
        #[serde(rename = "channelID")]
        channel: Hyphenated,
        status: u16,
    }
    to_json(&Unregister {
        message_type: "unregister",
        channel: channel.uuid().hyphenated(),
        status: if ended { 200 } else { 500 },
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
    let content = message.content.as_ref();
    to_json(&Notification {
        message_type: "notification",
        channel: message.channel.uuid().hyphenated(),
        version,
        data: content.map(|content| BASE64URL_NOPAD.encode(&content.body)),
        headers: content.map(|content| Headers {
            encoding: content.encoding.as_str(),
            encryption: content.encryption.as_deref(),
            crypto_key: content.crypto_key.as_deref(),
        }),
    })
}

fn to_json(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("a struct of strings and numbers is always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::MessageId;
    use crate::model::message::{Content, Encoding, Ttl, Urgency};
    use crate::model::time::ServiceTime;

    const CHANNEL: ChannelId = ChannelId::from_bytes([0xab; 16]);
    const DASHED: &str = "abababab-abab-abab-abab-abababababab";

    fn message(content: Option<Content>) -> PushMessage {
        PushMessage {
            id: MessageId::ZERO,
            channel: CHANNEL,
            received_at: ServiceTime::from_secs(0),
            ttl: Ttl::from_secs_lowered(60),
            topic: None,
            urgency: Urgency::Normal,
            content,
        }
    }

    #[test]
    fn hello_is_spelled_as_the_main_service_does() {
        assert_eq!(
            hello(Uaid::from_bytes([0xab; 16])),
            r#"{"messageType":"hello","uaid":"abababababababababababababababab","status":200,"use_webpush":true,"broadcasts":{}}"#
        );
    }

    #[test]
    fn register_and_unregister_echo_the_channel() {
        assert_eq!(
            registered(CHANNEL, Registered::Endpoint("http://h/wpush/v1/t")),
            format!(
                r#"{{"messageType":"register","channelID":"{DASHED}","status":200,"pushEndpoint":"http://h/wpush/v1/t"}}"#
            )
        );
        assert_eq!(
            registered(CHANNEL, Registered::InvalidKey),
            format!(
                r#"{{"messageType":"register","channelID":"{DASHED}","status":400,"pushEndpoint":"Failed to generate endpoint"}}"#
            )
        );
        assert_eq!(
            registered(CHANNEL, Registered::StorageFault),
            format!(
                r#"{{"messageType":"register","channelID":"{DASHED}","status":500,"pushEndpoint":""}}"#
            )
        );
        assert_eq!(
            unregistered(CHANNEL, true),
            format!(r#"{{"messageType":"unregister","channelID":"{DASHED}","status":200}}"#)
        );
    }

    #[test]
    fn notification_without_a_body_has_neither_data_nor_headers() {
        assert_eq!(
            notification(&message(None), "v"),
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
            notification(&message(Some(content)), "v"),
            format!(
                r#"{{"messageType":"notification","channelID":"{DASHED}","version":"v","data":"_-8","headers":{{"encoding":"aesgcm","encryption":"salt=abc","crypto_key":"dh=def"}}}}"#
            )
        );
    }
}
