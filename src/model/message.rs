//! Push messages and the header values that travel with them.

use std::fmt;

use super::ids::{ChannelId, MessageId};
use super::limits::{MESSAGE_OVERHEAD_BYTES, TOPIC_CHARS_MAX, TTL_SECS_MAX};
use super::time::ServiceTime;
use super::version::VersionUpdate;

/// One push message, as accepted from an application server.
#[derive(Clone, Eq, PartialEq)]
pub struct PushMessage {
    /// Its name and its place in the order.
    pub id: MessageId,
    /// The subscription that it was posted to, within its user agent.
    pub channel: ChannelId,
    /// When it was accepted.
    pub received_at: ServiceTime,
    /// How long it is kept.
    pub ttl: Ttl,
    /// Messages of one subscription with the same topic replace each other.
    pub topic: Option<Topic>,
    /// How much it matters.
    pub urgency: Urgency,
    /// What it says.
    pub payload: Payload,
}

impl PushMessage {
    /// The first second at which it must not be delivered any more.
    pub const fn expires_at(&self) -> ServiceTime {
        self.received_at.after(self.ttl)
    }

    /// Bytes that it costs to keep, for the limits: its body, its headers and its row.
    pub fn cost_bytes(&self) -> usize {
        let payload = match &self.payload {
            Payload::Empty => 0,
            Payload::Raw(body) => body.len(),
            Payload::Encrypted(content) => content.len_bytes(),
            Payload::Update(update) => update.data.as_ref().map_or(0, |data| data.len()),
        };
        let topic = self.topic.as_ref().map_or(0, |topic| topic.as_str().len());
        payload
            .saturating_add(topic)
            .saturating_add(MESSAGE_OVERHEAD_BYTES)
    }
}

/// Bodies and headers are secrets of the application server.
impl fmt::Debug for PushMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushMessage")
            .field("id", &self.id)
            .field("ttl", &self.ttl)
            .field("bytes", &self.cost_bytes())
            .finish_non_exhaustive()
    }
}

/// What a push message says.
#[derive(Clone, Eq, PartialEq)]
pub enum Payload {
    /// Nothing but that it is there.
    Empty,
    /// A body that only the user agent can read.
    Encrypted(Content),
    /// A body that says nothing of what it is (UnifiedPush without encryption); never empty.
    Raw(Box<[u8]>),
    /// The channel has a new version (SimplePush). Of one channel only the highest is kept.
    Update(VersionUpdate),
}

impl Payload {
    /// The update, if it is one.
    pub const fn update(&self) -> Option<&VersionUpdate> {
        match self {
            Self::Update(update) => Some(update),
            Self::Empty | Self::Encrypted(_) | Self::Raw(_) => None,
        }
    }

    /// The encrypted body, if there is one.
    pub const fn content(&self) -> Option<&Content> {
        match self {
            Self::Encrypted(content) => Some(content),
            Self::Empty | Self::Raw(_) | Self::Update(_) => None,
        }
    }

    /// The raw body, if there is one.
    pub const fn raw(&self) -> Option<&[u8]> {
        match self {
            Self::Raw(body) => Some(body),
            Self::Empty | Self::Encrypted(_) | Self::Update(_) => None,
        }
    }
}

/// An encrypted body and what the user agent needs to decrypt it. Never looked into.
#[derive(Clone, Eq, PartialEq)]
pub struct Content {
    /// `Content-Encoding`.
    pub encoding: Encoding,
    /// `Encryption`, cleaned as the user agent expects it.
    pub encryption: Option<Box<str>>,
    /// `Crypto-Key`, cleaned as the user agent expects it.
    pub crypto_key: Option<Box<str>>,
    /// The body, byte for byte; never empty.
    pub body: Box<[u8]>,
}

impl Content {
    fn len_bytes(&self) -> usize {
        let header = |value: &Option<Box<str>>| value.as_ref().map_or(0, |text| text.len());
        self.body
            .len()
            .saturating_add(header(&self.encryption))
            .saturating_add(header(&self.crypto_key))
    }
}

/// How the body of a push message is encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// The draft of 2016 (draft-ietf-webpush-encryption-04): keys travel in headers.
    Aesgcm,
    /// RFC 8188 and RFC 8291: keys travel in the body.
    Aes128gcm,
}

impl Encoding {
    /// Its name in `Content-Encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aesgcm => "aesgcm",
            Self::Aes128gcm => "aes128gcm",
        }
    }
}

/// How long an undelivered push message is kept: 0 to [`TTL_SECS_MAX`] seconds, or
/// [`UNBOUNDED`](Self::UNBOUNDED).
///
/// Zero is valid and means "deliver now or never" (RFC 8030 section 5.2).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ttl(u32);

impl Ttl {
    /// Of a version update that was put: it is kept until it is acked or a higher one takes its
    /// place, because SimplePush has no TTL. 136 years.
    pub const UNBOUNDED: Self = Self(u32::MAX);

    /// Takes the asked-for `secs`, lowered to [`TTL_SECS_MAX`] where it is more.
    ///
    /// RFC 8030 section 5.2 lets a push service keep a push message for less than was asked, if
    /// the `TTL` of its response says so.
    pub const fn from_secs_lowered(secs: u64) -> Self {
        if secs < TTL_SECS_MAX as u64 {
            // Fits: it is below a u32.
            Self(secs as u32)
        } else {
            Self(TTL_SECS_MAX)
        }
    }

    /// As the disk kept it.
    pub const fn from_disk(secs: u32) -> Self {
        if secs == u32::MAX {
            Self::UNBOUNDED
        } else {
            Self::from_secs_lowered(secs as u64)
        }
    }

    /// Seconds.
    pub const fn as_secs(self) -> u32 {
        self.0
    }

    /// Whether the message is for a connected user agent only.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// A name under which a newer push message replaces an older one: 1 to 32 characters of the
/// base64url alphabet, `=` at the end allowed (RFC 8030 section 5.4, and what the main service takes).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Topic(Box<str>);

impl Topic {
    /// Takes `text` if it is a topic.
    ///
    /// # Errors
    ///
    /// [`TopicError::TooLong`] above 32 characters, [`TopicError::BadAlphabet`] otherwise.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        if text.len() > TOPIC_CHARS_MAX {
            return Err(TopicError::TooLong);
        }
        if !is_base64url(text) {
            return Err(TopicError::BadAlphabet);
        }
        Ok(Self(text.into()))
    }

    /// As it was sent.
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `text` is one or more characters of the base64url alphabet, then any number of `=`.
pub fn is_base64url(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !body.is_empty() && body.bytes().all(allowed)
}

/// Why a text is no [`Topic`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TopicError {
    /// Longer than 32 characters.
    TooLong,
    /// Empty, or a character outside of base64url.
    BadAlphabet,
}

/// How much a push message matters (RFC 8030 section 5.3). Later is more urgent.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Urgency {
    /// Only on power and wifi.
    VeryLow,
    /// On power or wifi.
    Low,
    /// Neither: what a message without the header has.
    #[default]
    Normal,
    /// Also on a low battery.
    High,
}

impl Urgency {
    /// All of them, the least urgent first.
    pub const ALL: [Self; 4] = [Self::VeryLow, Self::Low, Self::Normal, Self::High];

    /// As a number that keeps the order, for the disk.
    pub const fn as_number(self) -> u8 {
        match self {
            Self::VeryLow => 0,
            Self::Low => 1,
            Self::Normal => 2,
            Self::High => 3,
        }
    }

    /// The urgency behind a number of [`as_number`](Self::as_number).
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::VeryLow),
            1 => Some(Self::Low),
            2 => Some(Self::Normal),
            3 => Some(Self::High),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_takes_32_characters_and_not_one_more() {
        assert!(Topic::new(&"a".repeat(32)).is_ok());
        assert_eq!(Topic::new(&"a".repeat(33)), Err(TopicError::TooLong));
    }

    #[test]
    fn topic_takes_base64url_with_padding_only_at_its_end() {
        for good in ["a", "ab=", "A-_9", "ab=="] {
            assert!(Topic::new(good).is_ok(), "{good}");
        }
        for bad in ["", "=", "a=b", "a b", "a+b", "a/b", "ä"] {
            assert_eq!(Topic::new(bad), Err(TopicError::BadAlphabet), "{bad}");
        }
    }

    #[test]
    fn urgency_keeps_its_order_on_disk() {
        for urgency in Urgency::ALL {
            assert_eq!(Urgency::from_number(urgency.as_number()), Some(urgency));
        }
        assert!(Urgency::ALL.is_sorted_by_key(|urgency| urgency.as_number()));
        assert_eq!(Urgency::from_number(4), None);
    }

    #[test]
    fn ttl_is_lowered_to_thirty_days() {
        assert_eq!(Ttl::from_secs_lowered(2_592_000).as_secs(), 2_592_000);
        assert_eq!(Ttl::from_secs_lowered(2_592_001).as_secs(), 2_592_000);
        assert_eq!(Ttl::from_secs_lowered(0).as_secs(), 0);
    }
}
