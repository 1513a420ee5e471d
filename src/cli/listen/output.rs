//! What is written to standard output: one line for each thing, for people and for `while read`.

use data_encoding::BASE64;
use serde::Serialize;

use super::agent::Identity;
use super::inbox::Event;
use crate::cli::text::{one_line, one_line_of_bytes};
use crate::protocol::subscription::Subscription;

/// How lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// `update version=5`
    Plain,
    /// `{"kind":"update","version":5}`
    Json,
}

/// Where to post to, and with which keys.
pub(super) fn subscribed(identity: &Identity, form: Form) -> String {
    let endpoint = identity.endpoint.clone().unwrap_or_default();
    let keys = identity.keys.as_ref().map(|keys| keys.recipient());
    let mut lines = match form {
        Form::Plain => format!("endpoint {endpoint}\n"),
        Form::Json => json_line(&Line {
            endpoint: Some(&endpoint),
            ..Line::of("endpoint")
        }),
    };
    if keys.is_some() {
        let subscription = Subscription { endpoint, keys };
        lines.push_str(&match form {
            Form::Plain => format!("subscription {}\n", subscription.to_json()),
            Form::Json => json_line(&Line {
                subscription: Some(subscription),
                ..Line::of("subscription")
            }),
        });
    }
    lines
}

/// What came.
pub(super) fn event(event: &Event, form: Form) -> String {
    match (event, form) {
        (Event::Update(update), Form::Plain) => {
            let version = update.version;
            match &update.data {
                Some(data) => format!("update version={version} data={}\n", one_line(data)),
                None => format!("update version={version}\n"),
            }
        }
        (Event::Message { text, .. }, Form::Plain) => {
            format!("message {}\n", one_line_of_bytes(text))
        }
        (Event::Update(update), Form::Json) => json_line(&Line {
            version: Some(update.version),
            data: update.data.as_deref(),
            ..Line::of("update")
        }),
        (Event::Message { text, .. }, Form::Json) => {
            let readable = str::from_utf8(text);
            json_line(&Line {
                text: readable.ok(),
                base64: readable.is_err().then(|| BASE64.encode(text)),
                ..Line::of("message")
            })
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription: Option<Subscription>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// In place of `text` where that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Line<'_> {
    fn of(kind: &'static str) -> Self {
        Self {
            kind,
            endpoint: None,
            subscription: None,
            version: None,
            data: None,
            text: None,
            base64: None,
        }
    }
}

fn json_line(line: &Line<'_>) -> String {
    let mut text = serde_json::to_string(line).expect("strings and numbers are always JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::ChannelId;
    use crate::protocol::encryption::{AuthSecret, PrivateKey, ReceiverKeys};
    use crate::protocol::user_agent::Update;

    fn update(data: Option<&str>) -> Event {
        Event::Update(Update {
            channel: ChannelId::from_bytes([0; 16]),
            version: 5,
            data: data.map(str::to_owned),
        })
    }

    fn message(text: &[u8]) -> Event {
        Event::Message {
            version: "v".to_owned(),
            text: text.to_vec(),
        }
    }

    #[test]
    fn each_event_is_one_line_whatever_it_holds() {
        for (what, plain, json) in [
            (
                update(None),
                "update version=5\n",
                r#"{"kind":"update","version":5}"#,
            ),
            (
                update(Some("a\nb")),
                "update version=5 data=a\\nb\n",
                r#"{"kind":"update","version":5,"data":"a\nb"}"#,
            ),
            (
                message("Größe: 5 €".as_bytes()),
                "message Größe: 5 €\n",
                r#"{"kind":"message","text":"Größe: 5 €"}"#,
            ),
            (
                message(b""),
                "message \n",
                r#"{"kind":"message","text":""}"#,
            ),
            (
                message(b"a\xff\r\n\x1b[2J\\"),
                "message a\\xff\\r\\n\\u{1b}[2J\\\\\n",
                r#"{"kind":"message","base64":"Yf8NChtbMkpc"}"#,
            ),
        ] {
            assert_eq!(event(&what, Form::Plain), plain);
            assert_eq!(event(&what, Form::Json), format!("{json}\n"));
        }
    }

    #[test]
    fn subscription_is_said_with_its_keys_if_it_has_any() {
        let mut identity = Identity {
            uaid: None,
            channel: ChannelId::from_bytes([0; 16]),
            endpoint: Some("http://h/e".to_owned()),
            keys: None,
            server_key: None,
        };
        assert_eq!(subscribed(&identity, Form::Plain), "endpoint http://h/e\n");
        identity.keys = Some(ReceiverKeys {
            private: PrivateKey::new(&[7; 32]).unwrap(),
            auth: AuthSecret([0; 16]),
        });
        let plain = subscribed(&identity, Form::Plain);
        let (_, json) = plain.split_once("\nsubscription ").unwrap();
        let subscription = Subscription::from_json(json.trim_end()).unwrap();
        assert_eq!(subscription.endpoint, "http://h/e");
        assert_eq!(
            subscribed(&identity, Form::Json),
            format!(
                "{{\"kind\":\"endpoint\",\"endpoint\":\"http://h/e\"}}\n\
                 {{\"kind\":\"subscription\",\"subscription\":{}}}\n",
                json.trim_end()
            )
        );
    }
}
