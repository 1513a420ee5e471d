//! A subscription as JSON, in the form of the Push API's `PushSubscription.toJSON()`: what a user
//! agent hands to its application server, and what libraries for application servers take.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize, Serializer};

use super::encryption::{AUTH_BYTES, AuthSecret, POINT_BYTES, PublicKey, RecipientKeys};
use super::keyring::decode_base64url;

/// A subscription, as its application server knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscription {
    /// Where to post to.
    pub endpoint: String,
    /// What to encrypt with. A user agent that speaks SimplePush has none.
    pub keys: Option<RecipientKeys>,
}

/// `keys`, as they are spelled.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeysText {
    /// The public key.
    pub p256dh: String,
    /// The shared secret.
    pub auth: String,
}

impl Subscription {
    /// Reads one; other fields than those of a subscription are left alone.
    ///
    /// # Errors
    ///
    /// One variant of [`SubscriptionError`] for each part that can be wrong.
    pub fn from_json(text: &str) -> Result<Self, SubscriptionError> {
        #[derive(Deserialize)]
        struct Fields {
            endpoint: String,
            keys: Option<KeysText>,
        }
        let fields: Fields =
            serde_json::from_str(text).map_err(|_| SubscriptionError::NoSubscription)?;
        let keys = fields.keys.map(|keys| keys.decode()).transpose()?;
        Ok(Self {
            endpoint: fields.endpoint,
            keys,
        })
    }

    /// On one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("three strings are always JSON")
    }
}

impl Serialize for Subscription {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            endpoint: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            keys: Option<KeysText>,
        }
        Fields {
            endpoint: &self.endpoint,
            keys: self.keys.as_ref().map(KeysText::of),
        }
        .serialize(serializer)
    }
}

impl KeysText {
    /// Spells them: base64url without padding.
    pub fn of(keys: &RecipientKeys) -> Self {
        Self {
            p256dh: BASE64URL_NOPAD.encode(&keys.public.to_bytes()),
            auth: BASE64URL_NOPAD.encode(&keys.auth.0),
        }
    }

    /// Reads them.
    ///
    /// # Errors
    ///
    /// [`SubscriptionError::PublicKey`] and [`SubscriptionError::Auth`].
    pub fn decode(&self) -> Result<RecipientKeys, SubscriptionError> {
        let public = decode_base64url(&self.p256dh, POINT_BYTES)
            .and_then(|bytes| PublicKey::new(&bytes))
            .ok_or(SubscriptionError::PublicKey)?;
        let auth = decode_base64url(&self.auth, AUTH_BYTES)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(SubscriptionError::Auth)?;
        Ok(RecipientKeys {
            public,
            auth: AuthSecret(auth),
        })
    }
}

/// Why a text is no subscription.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubscriptionError {
    /// No JSON object with an `endpoint`.
    NoSubscription,
    /// `p256dh` is no public key.
    PublicKey,
    /// `auth` is not 16 bytes.
    Auth,
}

impl fmt::Display for SubscriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSubscription => {
                "it must hold a subscription as JSON: {\"endpoint\":…,\"keys\":{\"p256dh\":…,\"auth\":…}}"
            }
            Self::PublicKey => "p256dh must be the base64url of a P-256 public key of 65 bytes",
            Self::Auth => "auth must be the base64url of 16 bytes",
        })
    }
}

impl std::error::Error for SubscriptionError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of RFC 8291 appendix A.
    const KEYS: &str = r#"{"p256dh":"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4","auth":"BTBZMqHH6r4Tts7J_aSIgg"}"#;

    #[test]
    fn subscription_is_written_as_it_was_read() {
        let whole = format!(r#"{{"endpoint":"http://h/","keys":{KEYS}}}"#);
        let subscription = Subscription::from_json(&whole).unwrap();
        assert_eq!(subscription.to_json(), whole);

        let keyless = r#"{"endpoint":"http://h/"}"#;
        let subscription = Subscription::from_json(keyless).unwrap();
        assert_eq!(subscription.keys, None);
        assert_eq!(subscription.to_json(), keyless);
    }

    #[test]
    fn what_browsers_and_libraries_add_is_tolerated() {
        let keys = KEYS.replace("iw4\"", "iw4=\"").replace("gg\"", "gg==\"");
        let text = format!(
            r#"{{"expirationTime":null,"endpoint":"http://h/","contentEncoding":"x","keys":{keys}}}"#
        );
        assert!(Subscription::from_json(&text).unwrap().keys.is_some());
    }

    #[test]
    fn text_that_is_no_subscription_is_refused_for_its_reason() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"endpoint":1}"#,
            r#"{"endpoint":"e","keys":{}}"#,
        ] {
            let refused = Subscription::from_json(text);
            assert_eq!(refused, Err(SubscriptionError::NoSubscription), "{text}");
        }
        for (keys, error) in [
            (KEYS.replace("BCV", "BCW"), SubscriptionError::PublicKey),
            (KEYS.replace("BCV", "B!V"), SubscriptionError::PublicKey),
            (KEYS.replace("BTB", "B"), SubscriptionError::Auth),
            (KEYS.replace("BTB", "BTBBTB"), SubscriptionError::Auth),
        ] {
            let text = format!(r#"{{"endpoint":"http://h/","keys":{keys}}}"#);
            assert_eq!(Subscription::from_json(&text), Err(error), "{text}");
        }
    }
}
