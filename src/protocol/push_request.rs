//! What an application server posts to an endpoint: headers of RFC 8030 section 5 and of the two
//! content encodings, checked in the order of the main service (PROTOCOL.md part 3, 4.10).

use super::keyring::{Endpoint, KeyDigest};
use super::problem::Problem;
use crate::model::limits::{BODY_BYTES_MAX, RAW_BODY_BYTES_MAX};
use crate::model::message::{
    Content, Encoding, Payload, Topic, TopicError, Ttl, Urgency, is_base64url,
};

/// The headers of a push message, as they arrived; a repeated one is joined by `, `.
#[derive(Clone, Debug, Default)]
pub struct PushHeaders {
    /// `Authorization`
    pub authorization: Option<String>,
    /// `Content-Encoding`
    pub content_encoding: Option<String>,
    /// `Content-Type`
    pub content_type: Option<String>,
    /// `Crypto-Key`
    pub crypto_key: Option<String>,
    /// `Encryption`
    pub encryption: Option<String>,
    /// `Topic`
    pub topic: Option<String>,
    /// `TTL`
    pub ttl: Option<String>,
    /// `Urgency`
    pub urgency: Option<String>,
}

/// What arrived of a request's body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// All of it: at most as much as its route and method take.
    Whole(Vec<u8>),
    /// More than that; not kept.
    TooLarge,
    /// The peer stopped sending.
    Incomplete,
    /// Its chunks are none.
    Malformed,
}

impl Body {
    /// All of it, or what is wrong: `too_large` is what that is for its route.
    pub(super) fn whole(self, too_large: Problem) -> Result<Vec<u8>, Problem> {
        match self {
            Self::Whole(bytes) => Ok(bytes),
            Self::TooLarge => Err(too_large),
            Self::Incomplete => Err(Problem::BodyIncomplete),
            Self::Malformed => Err(Problem::BodyMalformed),
        }
    }
}

/// A push message as posted, before it has an id and a time.
#[derive(Clone, Eq, PartialEq)]
pub struct Draft {
    /// How long to keep it, already lowered.
    pub ttl: Ttl,
    /// Which older ones it replaces.
    pub topic: Option<Topic>,
    /// How much it matters.
    pub urgency: Urgency,
    /// What it says; never an update.
    pub payload: Payload,
}

/// Whether the endpoint takes messages from the owner of `key`, the public key of a verified token;
/// `None` without a token.
///
/// # Errors
///
/// For a restricted endpoint [`Problem::MissingVapidKey`] and [`Problem::VapidKeyMismatch`].
pub fn check_key(endpoint: &Endpoint, key: Option<&[u8]>) -> Result<(), Problem> {
    match (endpoint.restricted_to, key) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Problem::MissingVapidKey),
        (Some(digest), Some(key)) if KeyDigest::of(key) == digest => Ok(()),
        (Some(_), Some(_)) => Err(Problem::VapidKeyMismatch),
    }
}

/// What a message must say of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manners {
    /// How long it is to be kept, and how it is encrypted: Web Push.
    Strict,
    /// Nothing. Without a `TTL` it is for a connected user agent only; without a `Content-Encoding` its
    /// body is passed on as it is (UnifiedPush, SERV_1.2.0).
    Lenient,
}

/// Reads the message itself.
///
/// # Errors
///
/// In this order: the body (408, 413), `TTL` (111, 112), the content encoding (110), a negative
/// `TTL` (114), `Topic` (113), `Urgency`.
pub fn read(headers: &PushHeaders, body: Body, manners: Manners) -> Result<Draft, Problem> {
    let body = body.whole(Problem::BodyTooLarge)?;
    if body.len() > BODY_BYTES_MAX {
        return Err(Problem::BodyTooLarge);
    }
    let ttl_secs = match (headers.ttl.as_deref(), manners) {
        (None, Manners::Strict) => return Err(Problem::MissingTtl),
        (None, Manners::Lenient) => 0,
        (Some(text), _) => ttl_secs(text)?,
    };
    let payload = match (&headers.content_encoding, manners) {
        _ if body.is_empty() => Payload::Empty,
        (None, Manners::Lenient) if body.len() > RAW_BODY_BYTES_MAX => {
            return Err(Problem::BodyTooLarge);
        }
        (None, Manners::Lenient) => Payload::Raw(body.into()),
        (None, Manners::Strict) | (Some(_), _) => Payload::Encrypted(content(headers, body)?),
    };
    let ttl_secs = u64::try_from(ttl_secs).map_err(|_| Problem::NegativeTtl)?;
    Ok(Draft {
        ttl: Ttl::from_secs_lowered(ttl_secs),
        topic: topic(headers.topic.as_deref())?,
        urgency: urgency(headers.urgency.as_deref())?,
        payload,
    })
}

/// `TTL` in seconds, of any size; a number too large for an `i64` is the largest.
fn ttl_secs(text: &str) -> Result<i64, Problem> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Problem::BadTtl);
    }
    let limit = if negative { i64::MIN } else { i64::MAX };
    Ok(text.parse().unwrap_or(limit))
}

fn topic(value: Option<&str>) -> Result<Option<Topic>, Problem> {
    let Some(text) = value else { return Ok(None) };
    match Topic::new(text) {
        Ok(topic) => Ok(Some(topic)),
        Err(TopicError::TooLong) if is_base64url(text) => Err(Problem::TopicTooLong),
        Err(TopicError::TooLong) => Err(Problem::TopicTooLongBadAlphabet),
        Err(TopicError::BadAlphabet) => Err(Problem::TopicBadAlphabet),
    }
}

fn urgency(value: Option<&str>) -> Result<Urgency, Problem> {
    match value.map(str::trim) {
        None => Ok(Urgency::default()),
        Some(word) => urgency_of(word).ok_or(Problem::BadUrgency),
    }
}

/// The urgency of this name (RFC 8030 section 5.3).
pub fn urgency_of(word: &str) -> Option<Urgency> {
    match word {
        "very-low" => Some(Urgency::VeryLow),
        "low" => Some(Urgency::Low),
        "normal" => Some(Urgency::Normal),
        "high" => Some(Urgency::High),
        _ => None,
    }
}

fn content(headers: &PushHeaders, body: Vec<u8>) -> Result<Content, Problem> {
    let encryption = headers.encryption.as_deref().map(clean);
    let crypto_key = headers.crypto_key.as_deref().map(clean);
    let encoding = match headers.content_encoding.as_deref() {
        None => return Err(Problem::MissingContentEncoding),
        Some("aesgcm") => {
            check_aesgcm(encryption.as_deref(), crypto_key.as_deref())?;
            Encoding::Aesgcm
        }
        Some("aes128gcm") => {
            check_aes128gcm(encryption.as_deref(), crypto_key.as_deref())?;
            Encoding::Aes128gcm
        }
        Some(_) => return Err(Problem::UnknownContentEncoding),
    };
    Ok(Content {
        encoding,
        encryption: encryption.map(Into::into),
        crypto_key: crypto_key.map(Into::into),
        body: body.into(),
    })
}

/// The keys travel in the headers: a salt, and, if there is `Crypto-Key` at all, `dh`.
fn check_aesgcm(encryption: Option<&str>, crypto_key: Option<&str>) -> Result<(), Problem> {
    let encryption = encryption.ok_or(Problem::MissingEncryption)?;
    let salt = header_item(encryption, "salt")
        .map_err(|_| Problem::InvalidEncryption)?
        .ok_or(Problem::MissingSalt)?;
    if !is_base64url(salt) {
        return Err(Problem::InvalidSalt);
    }
    let Some(crypto_key) = crypto_key else {
        return Ok(());
    };
    let dh = header_item(crypto_key, "dh")
        .map_err(|_| Problem::InvalidCryptoKey)?
        .ok_or(Problem::MissingDh)?;
    if is_base64url(dh) {
        Ok(())
    } else {
        Err(Problem::InvalidDh)
    }
}

/// The keys travel in the body: the headers may hold other things, but not these.
fn check_aes128gcm(encryption: Option<&str>, crypto_key: Option<&str>) -> Result<(), Problem> {
    let item = |header: Option<&str>, name| match header {
        None => Ok(false),
        Some(header) => header_item(header, name).map(|item| item.is_some()),
    };
    if item(encryption, "salt").map_err(|_| Problem::InvalidAes128gcmEncryption)? {
        return Err(Problem::SaltNotAllowed);
    }
    if item(crypto_key, "dh").map_err(|_| Problem::InvalidAes128gcmCryptoKey)? {
        return Err(Problem::DhNotAllowed);
    }
    Ok(())
}

/// A header that is not made of `name=value` items.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotItems;

/// The value of `name` in `name=value;name=value,…`, without its quotes.
///
/// # Errors
///
/// [`NotItems`] when any item has no `=`, or when the header holds what is not printable ASCII.
pub fn header_item<'a>(header: &'a str, name: &str) -> Result<Option<&'a str>, NotItems> {
    if !header.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(NotItems);
    }
    let mut found = None;
    for item in header.split([';', ',']) {
        let (key, value) = item.trim().split_once('=').ok_or(NotItems)?;
        if key.trim() == name && found.is_none() {
            found = Some(value.trim_matches([' ', '"']));
        }
    }
    Ok(found)
}

/// What is forwarded of `Encryption` and `Crypto-Key`: no quotes, no base64 padding at an item's end.
fn clean(header: &str) -> String {
    let unquoted = header.replace('"', "");
    let mut clean = String::with_capacity(unquoted.len());
    for item in unquoted.split_inclusive([';', ',']) {
        let (item, separator) = match item.strip_suffix([';', ',']) {
            Some(rest) => item.split_at(rest.len()),
            None => (item, ""),
        };
        let unpadded = item.trim_end_matches('=');
        let is_padding =
            unpadded.ends_with(|last: char| is_base64url(last.encode_utf8(&mut [0; 4])));
        clean.push_str(if is_padding { unpadded } else { item });
        clean.push_str(separator);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dialect::Dialect;
    use crate::model::ids::{ChannelId, DatabaseId, Uaid};

    fn headers(change: impl FnOnce(&mut PushHeaders)) -> PushHeaders {
        let mut headers = PushHeaders {
            ttl: Some("60".to_owned()),
            content_encoding: Some("aes128gcm".to_owned()),
            ..PushHeaders::default()
        };
        change(&mut headers);
        headers
    }

    fn read_body(change: impl FnOnce(&mut PushHeaders)) -> Result<Draft, Problem> {
        read(&headers(change), Body::Whole(vec![1]), Manners::Strict)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    impl std::fmt::Debug for Draft {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "Draft({:?}, {:?})", self.ttl, self.topic)
        }
    }

    #[test]
    fn ttl_is_read_as_the_main_service_reads_it() {
        for (text, secs) in [
            ("0", 0),
            ("60", 60),
            ("+5", 5),
            ("2592001", 2_592_000),
            ("99999999999999999999999999", 2_592_000),
        ] {
            let draft = read_body(|h| h.ttl = some(text)).unwrap();
            assert_eq!(draft.ttl.as_secs(), secs, "{text}");
        }
        for text in ["", "abc", "1.5", "5s", "--5", "+", "-", "٣", "60, 60"] {
            let refused = read_body(|h| h.ttl = some(text));
            assert_eq!(refused, Err(Problem::BadTtl), "{text}");
        }
        for text in ["-1", "-99999999999999999999999"] {
            let refused = read_body(|h| h.ttl = some(text));
            assert_eq!(refused, Err(Problem::NegativeTtl), "{text}");
        }
        assert_eq!(read_body(|h| h.ttl = None), Err(Problem::MissingTtl));
    }

    #[test]
    fn body_is_taken_up_to_its_limit_and_not_one_byte_more() {
        let plain = headers(|_| ());
        let read = |body| read(&plain, body, Manners::Strict);
        let draft = read(Body::Whole(vec![0; BODY_BYTES_MAX])).unwrap();
        assert_eq!(draft.payload.content().unwrap().body.len(), BODY_BYTES_MAX);
        for body in [Body::Whole(vec![0; BODY_BYTES_MAX + 1]), Body::TooLarge] {
            assert_eq!(read(body), Err(Problem::BodyTooLarge));
        }
    }

    #[test]
    fn empty_body_needs_no_encoding_and_carries_no_headers() {
        let read = |headers: &PushHeaders| read(headers, Body::Whole(vec![]), Manners::Strict);
        let draft = read(&headers(|h| h.content_encoding = None)).unwrap();
        assert!(draft.payload == Payload::Empty);
        let with = headers(|h| h.encryption = some("salt=abc"));
        let draft = read(&with).unwrap();
        assert!(draft.payload == Payload::Empty);
    }

    #[test]
    fn each_fault_of_the_content_encoding_has_its_own_answer() {
        for (encoding, encryption, crypto_key, problem) in [
            (None, None, None, Problem::MissingContentEncoding),
            (
                Some("aesgcm128"),
                None,
                None,
                Problem::UnknownContentEncoding,
            ),
            (
                Some("AES128GCM"),
                None,
                None,
                Problem::UnknownContentEncoding,
            ),
            (Some("aesgcm"), None, None, Problem::MissingEncryption),
            (
                Some("aesgcm"),
                Some("salt"),
                None,
                Problem::InvalidEncryption,
            ),
            (
                Some("aesgcm"),
                Some("salt=a;b"),
                None,
                Problem::InvalidEncryption,
            ),
            (
                Some("aesgcm"),
                Some("sält=a"),
                None,
                Problem::InvalidEncryption,
            ),
            (Some("aesgcm"), Some("keyid=a"), None, Problem::MissingSalt),
            (Some("aesgcm"), Some("salt=a b"), None, Problem::InvalidSalt),
            (
                Some("aesgcm"),
                Some("salt=a"),
                Some("dh"),
                Problem::InvalidCryptoKey,
            ),
            (
                Some("aesgcm"),
                Some("salt=a"),
                Some("keyid=a"),
                Problem::MissingDh,
            ),
            (
                Some("aesgcm"),
                Some("salt=a"),
                Some("dh=a+b"),
                Problem::InvalidDh,
            ),
            (
                Some("aes128gcm"),
                Some("salt=a"),
                None,
                Problem::SaltNotAllowed,
            ),
            (Some("aes128gcm"), None, Some("dh=a"), Problem::DhNotAllowed),
            (
                Some("aes128gcm"),
                Some("x"),
                None,
                Problem::InvalidAes128gcmEncryption,
            ),
            (
                Some("aes128gcm"),
                None,
                Some("x"),
                Problem::InvalidAes128gcmCryptoKey,
            ),
        ] {
            let refused = read_body(|h| {
                h.content_encoding = encoding.map(str::to_owned);
                h.encryption = encryption.map(str::to_owned);
                h.crypto_key = crypto_key.map(str::to_owned);
            });
            assert_eq!(
                refused,
                Err(problem),
                "{encoding:?} {encryption:?} {crypto_key:?}"
            );
        }
    }

    #[test]
    fn encryption_headers_are_forwarded_without_quotes_and_padding() {
        let draft = read_body(|h| {
            h.content_encoding = some("aesgcm");
            h.encryption = some(r#"keyid="p256dh";salt="S82A==""#);
            h.crypto_key = some(r#"keyid=p256dh;dh=abc=,p256ecdsa=def=="#);
        });
        let draft = draft.unwrap();
        let content = draft.payload.content().unwrap();
        assert_eq!(
            content.encryption.as_deref(),
            Some("keyid=p256dh;salt=S82A")
        );
        assert_eq!(
            content.crypto_key.as_deref(),
            Some("keyid=p256dh;dh=abc,p256ecdsa=def")
        );
    }

    #[test]
    fn padding_is_taken_off_only_behind_base64url() {
        for (header, cleaned) in [
            ("salt=a==", "salt=a"),
            ("salt=a==;keyid=b=,x=c=", "salt=a;keyid=b,x=c"),
            ("salt=a+=", "salt=a+="),
            ("salt=a=b", "salt=a=b"),
            ("salt=a= ;x=y", "salt=a= ;x=y"),
            (r#"salt="a=""#, "salt=a"),
            ("salt=", "salt"),
            ("=", "="),
            ("", ""),
        ] {
            assert_eq!(clean(header), cleaned, "{header}");
        }
    }

    #[test]
    fn spaces_around_a_value_do_not_matter() {
        for header in [
            "salt=abc",
            " salt = abc ",
            "x=y; salt= abc;z=1",
            "x=y , salt=abc",
        ] {
            let draft = read_body(|h| {
                h.content_encoding = some("aesgcm");
                h.encryption = some(header);
            });
            let draft = draft.unwrap();
            let forwarded = draft.payload.content().unwrap().encryption.as_deref();
            assert_eq!(forwarded, Some(header), "verbatim");
        }
    }

    #[test]
    fn lenient_manners_ask_for_neither_ttl_nor_encryption() {
        let read = |headers: &PushHeaders, body: &[u8]| {
            read(headers, Body::Whole(body.to_vec()), Manners::Lenient)
        };
        let bare = PushHeaders::default();
        let draft = read(&bare, b"hello").unwrap();
        assert!(draft.ttl.is_zero());
        assert!(draft.payload == Payload::Raw((*b"hello").into()));
        assert!(read(&bare, &[1; RAW_BODY_BYTES_MAX]).is_ok());
        assert_eq!(
            read(&bare, &[1; RAW_BODY_BYTES_MAX + 1]),
            Err(Problem::BodyTooLarge)
        );
        assert!(read(&bare, b"").unwrap().payload == Payload::Empty);

        // What is said is held to what it means.
        let encrypted = headers(|h| h.ttl = None);
        let draft = read(&encrypted, &[1; RAW_BODY_BYTES_MAX + 1]).unwrap();
        assert!(draft.payload.content().is_some());
        for (headers, problem) in [
            (headers(|h| h.ttl = some("x")), Problem::BadTtl),
            (headers(|h| h.ttl = some("-1")), Problem::NegativeTtl),
            (
                headers(|h| h.content_encoding = some("identity")),
                Problem::UnknownContentEncoding,
            ),
            (
                headers(|h| h.topic = some("a b")),
                Problem::TopicBadAlphabet,
            ),
        ] {
            assert_eq!(read(&headers, b"x"), Err(problem));
        }
    }

    #[test]
    fn urgency_is_one_word_of_four() {
        for (text, urgency) in [
            ("very-low", Urgency::VeryLow),
            ("low", Urgency::Low),
            ("normal", Urgency::Normal),
            ("high", Urgency::High),
        ] {
            assert_eq!(
                read_body(|h| h.urgency = some(text)).unwrap().urgency,
                urgency
            );
        }
        for text in ["", "urgent", "HIGH", "low, high"] {
            let refused = read_body(|h| h.urgency = some(text));
            assert_eq!(refused, Err(Problem::BadUrgency), "{text}");
        }
    }

    #[test]
    fn checks_come_in_the_order_of_the_main_service() {
        // Everything is wrong: each repair brings the next answer.
        let mut all = PushHeaders {
            ttl: None,
            topic: some("bad topic"),
            urgency: some("bad"),
            ..PushHeaders::default()
        };
        let body = || Body::Whole(vec![1]);
        let read = |headers: &PushHeaders, body| read(headers, body, Manners::Strict);
        assert_eq!(read(&all, Body::TooLarge), Err(Problem::BodyTooLarge));
        assert_eq!(read(&all, body()), Err(Problem::MissingTtl));
        all.ttl = some("-1");
        assert_eq!(read(&all, body()), Err(Problem::MissingContentEncoding));
        all.content_encoding = some("aes128gcm");
        assert_eq!(read(&all, body()), Err(Problem::NegativeTtl));
        all.ttl = some("1");
        assert_eq!(read(&all, body()), Err(Problem::TopicBadAlphabet));
        all.topic = some(&"a ".repeat(17));
        assert_eq!(read(&all, body()), Err(Problem::TopicTooLongBadAlphabet));
        all.topic = some(&"a".repeat(33));
        assert_eq!(read(&all, body()), Err(Problem::TopicTooLong));
        all.topic = None;
        assert_eq!(read(&all, body()), Err(Problem::BadUrgency));
        all.urgency = None;
        assert!(read(&all, body()).is_ok());
    }

    #[test]
    fn restricted_endpoint_takes_only_its_own_key() {
        let endpoint = |restricted_to| Endpoint {
            database: DatabaseId([0; 8]),
            uaid: Uaid::from_bytes([0; 16]),
            channel: ChannelId::from_bytes([0; 16]),
            restricted_to,
            dialect: Dialect::WebPush,
        };
        let open = endpoint(None);
        let restricted = endpoint(Some(KeyDigest::of(b"owner")));
        for (endpoint, key, allowed) in [
            (&restricted, Some("owner"), Ok(())),
            (&restricted, None, Err(Problem::MissingVapidKey)),
            (&restricted, Some("other"), Err(Problem::VapidKeyMismatch)),
            (&open, None, Ok(())),
            (&open, Some("other"), Ok(())),
        ] {
            let key = key.map(str::as_bytes);
            assert_eq!(check_key(endpoint, key), allowed);
        }
    }
}
