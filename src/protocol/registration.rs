//! Registration over HTTP: what a user agent without a websocket sends, and what it is answered
//! (PROTOCOL.md part 3, 4.12).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::http::Response;
use super::keyring::{KeyDigest, decode_base64url};
use super::problem::Problem;
use super::push_request::Body;
use crate::model::ids::{ChannelId, Uaid};
use crate::model::limits::VAPID_KEY_CHARS_MAX;

/// The only router type of this gateway: the websocket.
pub const ROUTER_TYPE: &str = "webpush";

/// What a user agent asks for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Wish {
    /// The name of the subscription; `None`: the push service chooses one.
    pub channel: Option<ChannelId>,
    /// The VAPID key that may post to it.
    pub restricted_to: Option<KeyDigest>,
}

/// Reads the body of a registration. `token` is of no use here and may be missing.
///
/// # Errors
///
/// The body (408, 413), [`Problem::RegistrationNotJson`], [`Problem::RegistrationBadKey`].
pub fn read(body: &Body) -> Result<Wish, Problem> {
    let fields: Fields<'_> =
        serde_json::from_slice(whole(body)?).map_err(|_| Problem::RegistrationNotJson)?;
    fields.wish()
}

/// Reads the body of a further subscription, which may be missing or anything: as on the main
/// service, what is not understood asks for nothing.
///
/// # Errors
///
/// The body (408, 413), [`Problem::RegistrationBadKey`].
pub fn read_optional(body: &Body) -> Result<Wish, Problem> {
    match serde_json::from_slice::<Fields<'_>>(whole(body)?) {
        Ok(fields) => fields.wish(),
        Err(_) => Ok(Wish::default()),
    }
}

fn whole(body: &Body) -> Result<&[u8], Problem> {
    match body {
        Body::Whole(bytes) => Ok(bytes),
        Body::TooLarge => Err(Problem::RegistrationTooLarge),
        Body::Incomplete => Err(Problem::BodyIncomplete),
        Body::Malformed => Err(Problem::BodyMalformed),
    }
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "checked for its type, as on the main service")]
    token: Option<Cow<'a, str>>,
    #[serde(rename = "channelID", default)]
    channel: Option<Uuid>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
}

impl Fields<'_> {
    fn wish(&self) -> Result<Wish, Problem> {
        let digest = |key: &str| {
            let key = decode_base64url(key, VAPID_KEY_CHARS_MAX);
            let key = key.ok_or(Problem::RegistrationBadKey)?;
            Ok(KeyDigest::of(&key))
        };
        Ok(Wish {
            channel: self.channel.map(ChannelId::from_uuid),
            restricted_to: self.key.as_deref().map(digest).transpose()?,
        })
    }
}

/// The secret that a user agent presents.
///
/// # Errors
///
/// [`Problem::LocalAuthMissingHeader`], [`Problem::LocalAuthMissingToken`].
pub fn secret(authorization: Option<&str>) -> Result<&str, Problem> {
    let header = authorization.ok_or(Problem::LocalAuthMissingHeader)?;
    let (scheme, secret) = header
        .split_once(' ')
        .ok_or(Problem::LocalAuthMissingToken)?;
    // The push component of Firefox for Android says "webpush".
    let known = ["bearer", "webpush"];
    if known.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
        Ok(secret)
    } else {
        Err(Problem::LocalAuthMissingToken)
    }
}

/// A user agent has a name and its first subscription.
pub fn registered(uaid: Uaid, channel: ChannelId, endpoint: &str, secret: &str) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        uaid: Hyphenated,
        #[serde(rename = "channelID")]
        channel: Hyphenated,
        endpoint: &'a str,
        secret: &'a str,
    }
    ok(&Answer {
        uaid: uaid.uuid().hyphenated(),
        channel: channel.uuid().hyphenated(),
        endpoint,
        secret,
    })
}

/// A user agent has one more subscription.
pub fn subscribed(channel: ChannelId, endpoint: &str) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        #[serde(rename = "channelID")]
        channel: Hyphenated,
        endpoint: &'a str,
    }
    ok(&Answer {
        channel: channel.uuid().hyphenated(),
        endpoint,
    })
}

/// What a user agent is subscribed to.
pub fn subscriptions(uaid: Uaid, channels: impl Iterator<Item = ChannelId>) -> Response {
    #[derive(Serialize)]
    struct Answer {
        uaid: Hyphenated,
        #[serde(rename = "channelIDs")]
        channels: Vec<Hyphenated>,
    }
    ok(&Answer {
        uaid: uaid.uuid().hyphenated(),
        channels: channels
            .map(|channel| channel.uuid().hyphenated())
            .collect(),
    })
}

fn ok(answer: &impl Serialize) -> Response {
    let body = serde_json::to_string(answer);
    Response::json(200, body.expect("a struct of strings is always JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: &str = "0207da37-1a37-408c-b2f7-000000000001";

    fn whole(text: &str) -> Body {
        Body::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn every_field_of_a_registration_is_optional() {
        let channel = Some(ChannelId::from_uuid(Uuid::try_parse(CHANNEL).unwrap()));
        for (text, wish) in [
            ("{}".to_owned(), Wish::default()),
            (r#"{"token":"x","more":[1]}"#.to_owned(), Wish::default()),
            (
                r#"{"token":null,"channelID":null,"key":null}"#.to_owned(),
                Wish::default(),
            ),
            (
                format!(r#"{{"channelID":"{CHANNEL}","key":"_-8="}}"#),
                Wish {
                    channel,
                    restricted_to: Some(KeyDigest::of(&[0xff, 0xef])),
                },
            ),
        ] {
            assert_eq!(read(&whole(&text)), Ok(wish), "{text}");
            assert_eq!(read_optional(&whole(&text)), Ok(wish), "{text}");
        }
    }

    #[test]
    fn body_that_is_none_is_refused_where_it_is_needed_and_passed_over_where_it_is_not() {
        for text in [
            "",
            "x",
            "7",
            r#"{"token":1}"#,
            r#"{"channelID":"x"}"#,
            r#"{"key":[]}"#,
            "\u{ff}",
        ] {
            assert_eq!(
                read(&whole(text)),
                Err(Problem::RegistrationNotJson),
                "{text}"
            );
            assert_eq!(read_optional(&whole(text)), Ok(Wish::default()), "{text}");
        }
        for key in ["a+b", &"A".repeat(1400)] {
            let body = whole(&format!(r#"{{"key":"{key}"}}"#));
            assert_eq!(read(&body), Err(Problem::RegistrationBadKey));
            assert_eq!(read_optional(&body), Err(Problem::RegistrationBadKey));
        }
        for (body, problem) in [
            (Body::TooLarge, Problem::RegistrationTooLarge),
            (Body::Incomplete, Problem::BodyIncomplete),
        ] {
            assert_eq!(read(&body), Err(problem));
            assert_eq!(read_optional(&body), Err(problem));
        }
    }

    #[test]
    fn secret_is_presented_by_either_scheme() {
        assert_eq!(secret(None), Err(Problem::LocalAuthMissingHeader));
        for header in ["", "Bearer", "Basic abc", "vapid t=a,k=b"] {
            let refused = secret(Some(header));
            assert_eq!(refused, Err(Problem::LocalAuthMissingToken), "{header}");
        }
        for header in ["Bearer abc", "bearer abc", "WebPush abc"] {
            assert_eq!(secret(Some(header)), Ok("abc"), "{header}");
        }
    }
}
