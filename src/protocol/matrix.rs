//! The Matrix push gateway: what a homeserver posts, and what it is answered (Matrix Push Gateway
//! API, `/_matrix/push/v1/notify`; UnifiedPush's convention for it).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::http::Response;
use super::problem::Problem;
use super::push_request::Body;
use super::route::Route;
use crate::model::limits::{NOTIFY_DEVICES_MAX, RAW_BODY_BYTES_MAX};
use crate::model::message::Urgency;

/// The answer to a user agent that asks whether this is a gateway.
pub fn discovery() -> Response {
    Response::json(200, r#"{"unifiedpush":{"gateway":"matrix"}}"#)
}

/// One notification, for one or more devices.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notification {
    /// What the devices are named by, each once: their endpoints.
    pub pushkeys: Vec<Box<str>>,
    /// How much it matters.
    pub urgency: Urgency,
    /// What each device gets.
    pub body: Box<[u8]>,
}

/// Reads a notification. Its devices get all of it, byte for byte; one that is too long for that is
/// cut to what a homeserver sends to those that ask for the id of the event only.
///
/// # Errors
///
/// The body (408, 413), [`Problem::NotifyNotJson`], [`Problem::NotifyTooManyDevices`], and
/// [`Problem::NotifyTooLarge`] where cutting does not help.
pub fn read(body: Body) -> Result<Notification, Problem> {
    let body = body.whole(Problem::NotifyTooLarge)?;
    let Fields { notification } =
        serde_json::from_slice(&body).map_err(|_| Problem::NotifyNotJson)?;
    if notification.devices.len() > NOTIFY_DEVICES_MAX {
        return Err(Problem::NotifyTooManyDevices);
    }
    let mut pushkeys: Vec<Box<str>> = Vec::new();
    for Device { pushkey } in notification.devices {
        if !pushkeys.iter().any(|known| **known == *pushkey) {
            pushkeys.push(pushkey.into());
        }
    }
    // Without one it is high, says the specification.
    let urgency = match notification.prio.as_deref() {
        Some("low") => Urgency::Low,
        Some(_) | None => Urgency::High,
    };
    let body = if body.len() > RAW_BODY_BYTES_MAX {
        shortened(&body)?
    } else {
        body
    };
    Ok(Notification {
        pushkeys,
        urgency,
        body: body.into(),
    })
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    notification: NotificationFields<'a>,
}

#[derive(Deserialize)]
struct NotificationFields<'a> {
    #[serde(borrow)]
    devices: Vec<Device<'a>>,
    #[serde(borrow, default)]
    prio: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Device<'a> {
    #[serde(borrow)]
    pushkey: Cow<'a, str>,
}

fn shortened(body: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut all: Value = serde_json::from_slice(body).map_err(|_| Problem::NotifyNotJson)?;
    if let Some(fields) = all.get_mut("notification").and_then(Value::as_object_mut) {
        let needed = ["event_id", "room_id", "counts", "prio"];
        fields.retain(|name, _| needed.contains(&name.as_str()));
    }
    let notification = all.get("notification").unwrap_or(&Value::Null);
    let short = serde_json::json!({ "notification": notification }).to_string();
    if short.len() > RAW_BODY_BYTES_MAX {
        return Err(Problem::NotifyTooLarge);
    }
    Ok(short.into_bytes())
}

/// The token of the endpoint that a pushkey names; `None` if it cannot be one that takes a message
/// of nobody in particular.
///
/// Only the end of the URL counts. The token proves by itself that it was made here, nothing is ever
/// fetched, and one board goes by several names on a local network.
pub fn endpoint_token(pushkey: &str) -> Option<&str> {
    let path = pushkey.get(pushkey.rfind("/wpush/")?..)?;
    if let Route::OpenEndpoint(token) = Route::of(path) {
        Some(token)
    } else {
        None
    }
}

/// The answer: which devices are no more.
pub fn rejected(pushkeys: &[Box<str>]) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        rejected: &'a [Box<str>],
    }
    let body = serde_json::to_string(&Answer { rejected: pushkeys });
    Response::json(200, body.expect("a list of strings is always JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Notification, Problem> {
        read(Body::Whole(text.as_bytes().to_vec()))
    }

    /// What Synapse posts, with `content` in the event.
    fn posted(content: &str) -> String {
        format!(
            r#"{{"notification":{{"id":"$e","event_id":"$e","room_id":"!r:h","type":"m.room.message","sender":"@a:h","prio":"low","content":{{"body":"{content}"}},"counts":{{"unread":2}},"devices":[{{"app_id":"a","pushkey":"http://pi/wpush/v1/t","data":{{"format":null}}}}]}}}}"#
        )
    }

    #[test]
    fn notification_goes_on_byte_for_byte() {
        let text = posted("hello");
        let notification = parse(&text).unwrap();
        assert_eq!(&*notification.body, text.as_bytes());
        assert_eq!(notification.pushkeys, ["http://pi/wpush/v1/t".into()]);
        assert_eq!(notification.urgency, Urgency::Low);
    }

    #[test]
    fn notification_that_is_too_long_is_cut_to_the_name_of_its_event() {
        let filling = RAW_BODY_BYTES_MAX - posted("").len();
        let at_limit = posted(&"x".repeat(filling));
        assert_eq!(&*parse(&at_limit).unwrap().body, at_limit.as_bytes());
        let past = posted(&"x".repeat(filling + 1));
        let short: Value = serde_json::from_slice(&parse(&past).unwrap().body).unwrap();
        let expected = serde_json::json!({"notification": {
            "event_id": "$e", "room_id": "!r:h", "prio": "low", "counts": {"unread": 2}
        }});
        assert_eq!(short, expected);
        let long_id = past.replace("!r:h", &"x".repeat(RAW_BODY_BYTES_MAX));
        assert_eq!(parse(&long_id), Err(Problem::NotifyTooLarge));
    }

    #[test]
    fn urgency_is_high_unless_it_is_said_to_be_low() {
        for (prio, urgency) in [
            (r#""high""#, Urgency::High),
            (r#""low""#, Urgency::Low),
            (r#""other""#, Urgency::High),
            ("null", Urgency::High),
        ] {
            let text = format!(r#"{{"notification":{{"prio":{prio},"devices":[]}}}}"#);
            assert_eq!(parse(&text).unwrap().urgency, urgency, "{prio}");
        }
        let without = parse(r#"{"notification":{"devices":[]}}"#).unwrap();
        assert_eq!(without.urgency, Urgency::High);
        assert!(without.pushkeys.is_empty());
    }

    #[test]
    fn devices_are_as_many_as_allowed_and_each_is_named_once() {
        let devices = |numbers: std::ops::Range<usize>| {
            let device = |number: usize| format!(r#"{{"pushkey":"k{}"}}"#, number % 16);
            let devices = numbers.map(device).collect::<Vec<_>>().join(",");
            parse(&format!(r#"{{"notification":{{"devices":[{devices}]}}}}"#))
        };
        let len = |notification: Notification| notification.pushkeys.len();
        assert_eq!(devices(0..NOTIFY_DEVICES_MAX).map(len), Ok(16));
        assert_eq!(
            devices(0..NOTIFY_DEVICES_MAX + 1),
            Err(Problem::NotifyTooManyDevices)
        );
        let twice = r#"{"notification":{"devices":[{"pushkey":"k"},{"pushkey":"k"}]}}"#;
        assert_eq!(parse(twice).map(len), Ok(1));
    }

    #[test]
    fn body_that_is_no_notification_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"notification":{}}"#,
            r#"{"notification":{"devices":[{}]}}"#,
            r#"{"notification":{"devices":[{"pushkey":1}]}}"#,
            r#"{"notification":{"devices":{}}}"#,
        ] {
            assert_eq!(parse(text), Err(Problem::NotifyNotJson), "{text}");
        }
        assert_eq!(read(Body::TooLarge), Err(Problem::NotifyTooLarge));
        assert_eq!(read(Body::Incomplete), Err(Problem::BodyIncomplete));
    }

    #[test]
    fn token_is_found_at_the_end_of_any_url_and_nowhere_else() {
        for (pushkey, token) in [
            ("http://pi:8090/wpush/v1/abc", Some("abc")),
            ("https://push.example.org/pi/wpush/abc", Some("abc")),
            ("https://push.example.org/wpush/x/wpush/v1/abc", Some("abc")),
            ("http://pi/wpush/v2/abc", None),
            ("http://pi/wpush/v1/abc/d", None),
            ("http://pi/update/abc", None),
            ("http://pi/wpush", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(endpoint_token(pushkey), token, "{pushkey}");
        }
    }
}
