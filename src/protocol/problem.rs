//! Every way in which a request is refused, and how the application server is told: status, errno
//! and text as on the main service (PROTOCOL.md part 3, 4.10), where it has them.

use std::fmt;

use serde::Serialize;

use crate::model::limits::{
    NOTIFY_DEVICES_MAX, QUEUE_RETRY_AFTER_SECS, STORAGE_RETRY_AFTER_SECS,
    WEBSOCKETS_RETRY_AFTER_SECS,
};

/// Why a request was refused.
///
/// Each text says what to change. None repeats a header's value: values can hold tokens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)] // the text of `wire` beside each name says more than a line here could
pub enum Problem {
    // 404 and 410: the endpoint.
    BadToken,
    NoSuchRoute,
    NoSubscription,
    // 401: who posts.
    UnknownAuthScheme,
    MissingVapidToken,
    MissingVapidKey,
    InvalidVapidKey,
    VapidNotAToken,
    VapidNotBase64,
    VapidNotJson,
    VapidBadClaims,
    VapidBadAlgorithm,
    VapidBadSignature,
    VapidExpired,
    VapidTooFarAhead,
    VapidNoAudience,
    VapidBadAudience,
    VapidKeyMismatch,
    // 400: headers.
    MissingCryptoKey,
    InvalidCryptoKey,
    MissingP256ecdsa,
    MissingTtl,
    BadTtl,
    NegativeTtl,
    MissingContentEncoding,
    UnknownContentEncoding,
    MissingEncryption,
    InvalidEncryption,
    MissingSalt,
    InvalidSalt,
    MissingDh,
    InvalidDh,
    SaltNotAllowed,
    DhNotAllowed,
    InvalidAes128gcmEncryption,
    InvalidAes128gcmCryptoKey,
    TopicTooLong,
    TopicBadAlphabet,
    TopicTooLongBadAlphabet,
    BadUrgency,
    InvalidMessageId,
    BadVersion,
    BadData,
    // Registration over HTTP.
    InvalidRouterType,
    NoUser,
    LocalAuthMissingHeader,
    LocalAuthMissingToken,
    LocalAuthIncorrect,
    RegistrationNotJson,
    RegistrationBadKey,
    RegistrationTooLarge,
    TooManySubscriptions,
    // The Matrix push gateway.
    NotifyNotJson,
    NotifyTooManyDevices,
    NotifyTooLarge,
    NotifyUndelivered,
    // What it carries.
    BodyTooLarge,
    DataTooLarge,
    BodyIncomplete,
    BodyMalformed,
    // The websocket.
    WebsocketForbidden,
    TooManyWebsockets,
    BadHost,
    BadHandshake,
    PlainConnection,
    // 429 and 503: limits and faults.
    /// With the seconds until there is room, as the next four.
    SubscriptionTooFast(u32),
    UserAgentTooFast(u32),
    AddressTooFast(u32),
    RegistrationsTooFast(u32),
    WebsocketsTooFast(u32),
    SubscriptionFull,
    QueueFull,
    StoreFull,
    Overloaded,
    StorageFault,
    ShuttingDown,
}

/// What is said of a [`Problem`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wire {
    /// HTTP status.
    pub status: u16,
    /// The main service's number for it, if it has one.
    pub errno: Option<u16>,
    /// For the one who reads the application server's log.
    pub message: &'static str,
}

const fn wire(status: u16, errno: u16, message: &'static str) -> Wire {
    Wire {
        status,
        errno: Some(errno),
        message,
    }
}

/// A problem that the main service has no number for.
const fn ours(status: u16, message: &'static str) -> Wire {
    Wire {
        status,
        errno: None,
        message,
    }
}

impl Problem {
    /// Its status, errno and text.
    pub const fn wire(self) -> Wire {
        match self {
            Self::BadToken => wire(
                404,
                102,
                "Invalid endpoint: its token was not made by this push service",
            ),
            Self::NoSuchRoute => wire(404, 102, "Nothing is served at this path"),
            Self::NoSubscription => wire(410, 106, "No such subscription"),
            Self::UnknownAuthScheme => wire(401, 109, "Unknown auth scheme"),
            Self::MissingVapidToken => wire(401, 109, "Missing VAPID token"),
            Self::MissingVapidKey => wire(401, 109, "Missing VAPID public key"),
            Self::InvalidVapidKey => wire(401, 109, "Invalid VAPID public key: not base64url"),
            Self::VapidNotAToken => wire(401, 109, "InvalidToken"),
            Self::VapidNotBase64 => wire(
                401,
                109,
                "Base64 error: each part of a VAPID token is base64url without padding",
            ),
            Self::VapidNotJson => wire(
                401,
                109,
                "Invalid VAPID token: its header and its claims must be JSON",
            ),
            Self::VapidBadClaims => wire(401, 109, VAPID_BAD_CLAIMS),
            Self::VapidBadAlgorithm => wire(401, 109, "InvalidAlgorithm"),
            Self::VapidBadSignature => wire(401, 109, "InvalidSignature"),
            Self::VapidExpired => wire(401, 109, "ExpiredSignature"),
            Self::VapidTooFarAhead => wire(401, 109, "The VAPID token expiration is too long"),
            Self::VapidNoAudience => wire(401, 109, "Invalid VAPID token: Missing required aud"),
            Self::VapidBadAudience => wire(401, 109, "Invalid VAPID audience"),
            Self::VapidKeyMismatch => wire(401, 109, "VAPID public key mismatch"),
            Self::MissingCryptoKey => wire(400, 110, "Missing Crypto-Key header"),
            Self::InvalidCryptoKey => wire(400, 110, "Invalid Crypto-Key header"),
            Self::MissingP256ecdsa => wire(400, 110, "Missing p256ecdsa in Crypto-Key header"),
            Self::MissingTtl => wire(400, 111, "Missing TTL value"),
            Self::BadTtl => wire(400, 112, "ttl: TTL must be a whole number of seconds"),
            Self::NegativeTtl => wire(400, 114, "ttl: TTL must be greater than 0"),
            Self::MissingContentEncoding => wire(400, 110, "Missing Content-Encoding header"),
            Self::UnknownContentEncoding => wire(400, 110, "Unknown Content-Encoding header"),
            Self::MissingEncryption => wire(400, 110, "Missing Encryption header"),
            Self::InvalidEncryption => wire(400, 110, "Invalid Encryption header"),
            Self::MissingSalt => wire(400, 110, "Missing salt value in Encryption header"),
            Self::InvalidSalt => wire(400, 110, "Invalid salt value in Encryption header"),
            Self::MissingDh => wire(400, 110, "Missing dh value in Crypto-Key header"),
            Self::InvalidDh => wire(400, 110, "Invalid dh value in Crypto-Key header"),
            Self::SaltNotAllowed => wire(
                400,
                110,
                "Do not include 'salt' header in aes128gcm Encryption header",
            ),
            Self::DhNotAllowed => wire(
                400,
                110,
                "Do not include 'dh' header in aes128gcm Crypto-Key header",
            ),
            Self::InvalidAes128gcmEncryption => {
                wire(400, 110, "Invalid aes128gcm Encryption header")
            }
            Self::InvalidAes128gcmCryptoKey => {
                wire(400, 110, "Invalid aes128gcm Crypto-Key header")
            }
            Self::TopicTooLong => wire(
                400,
                113,
                "topic: Topic must be no greater than 32 characters",
            ),
            Self::TopicBadAlphabet => wire(
                400,
                113,
                "topic: Topic must be URL and Filename safe Base64 alphabet",
            ),
            Self::TopicTooLongBadAlphabet => wire(
                400,
                113,
                "topic: Topic must be no greater than 32 characters\n\
                 topic: Topic must be URL and Filename safe Base64 alphabet",
            ),
            Self::BadUrgency => ours(
                400,
                "urgency: Urgency must be one of very-low, low, normal, high",
            ),
            Self::InvalidMessageId => ours(400, "Invalid message ID"),
            Self::BadVersion => ours(
                400,
                "version: must be a whole number from 0 to 9223372036854775807, without a sign",
            ),
            Self::BadData => ours(400, "data: must be UTF-8 text"),
            Self::InvalidRouterType => wire(400, 108, "Invalid router type"),
            Self::NoUser => wire(410, 103, "UAID not found"),
            Self::LocalAuthMissingHeader => {
                wire(401, 109, "Invalid Local Auth missing auth header")
            }
            Self::LocalAuthMissingToken => wire(401, 109, "Invalid Local Auth missing auth token"),
            Self::LocalAuthIncorrect => wire(401, 109, "Invalid Local Auth incorrect auth token"),
            Self::RegistrationNotJson => ours(
                400,
                "The body must be a JSON object; token, channelID (a UUID) and key may be in it",
            ),
            Self::RegistrationBadKey => ours(400, "key: must be base64url"),
            Self::RegistrationTooLarge => ours(413, "The body is too large for a registration"),
            Self::TooManySubscriptions => ours(
                429,
                "This user agent has as many subscriptions as it may have; end others first",
            ),
            Self::NotifyNotJson => ours(
                400,
                "The body must be a JSON object with notification.devices, each with a pushkey",
            ),
            Self::NotifyTooManyDevices => {
                const { assert!(NOTIFY_DEVICES_MAX == 16) };
                ours(400, "At most 16 devices are notified at once")
            }
            Self::NotifyTooLarge => ours(413, "The notification is too large"),
            Self::NotifyUndelivered => ours(
                503,
                "The notification was not taken for every device; send it again later",
            ),
            Self::BodyTooLarge => wire(413, 104, "payload reached size limit"),
            Self::DataTooLarge => wire(413, 104, "Data exceeds max length of 4096 bytes"),
            Self::BodyIncomplete => ours(408, "The request's body did not arrive in time"),
            Self::BodyMalformed => {
                ours(400, "The request's body is not in chunks as HTTP has them")
            }
            Self::WebsocketForbidden => ours(
                403,
                "User agents may not connect from this address without a join token; see \
                 access.websocket_from and access.join_tokens in the configuration",
            ),
            Self::TooManyWebsockets => ours(
                429,
                "Too many websockets are open from this address; connect again when one has ended",
            ),
            Self::BadHost => ours(400, "The Host header is missing or is not a host name"),
            Self::BadHandshake => ours(
                400,
                "A websocket needs GET, Sec-WebSocket-Version: 13 and a Sec-WebSocket-Key",
            ),
            Self::PlainConnection => ours(
                400,
                "Only TLS is taken here: use https:// or wss:// instead of http:// or ws://",
            ),
            Self::SubscriptionTooFast(_) => ours(
                429,
                "Too many messages to this subscription; send more slowly",
            ),
            Self::UserAgentTooFast(_) => ours(
                429,
                "Too many messages to the user agent of this subscription; send more slowly",
            ),
            Self::AddressTooFast(_) => {
                ours(429, "Too many messages from this address; send more slowly")
            }
            Self::RegistrationsTooFast(_) => ours(
                429,
                "Too many registrations from this address; register again later",
            ),
            Self::WebsocketsTooFast(_) => ours(
                429,
                "Too many new websockets from this address; connect again later",
            ),
            Self::SubscriptionFull => ours(
                429,
                "Too many messages wait for this subscription; send again when its user agent has been \
                 online",
            ),
            Self::QueueFull => ours(
                429,
                "Too many messages wait for this user agent; send again when it has been online",
            ),
            Self::StoreFull => ours(503, "The push service's storage has reached its limit"),
            Self::Overloaded => wire(503, 201, "Please slow message send rate"),
            Self::StorageFault => wire(
                503,
                201,
                "The push service cannot store messages at the moment",
            ),
            Self::ShuttingDown => ours(503, "The push service is restarting"),
        }
    }

    /// Seconds after which to try again, where that can help.
    pub const fn retry_after_secs(self) -> Option<u32> {
        if let Self::SubscriptionTooFast(secs)
        | Self::UserAgentTooFast(secs)
        | Self::AddressTooFast(secs)
        | Self::RegistrationsTooFast(secs)
        | Self::WebsocketsTooFast(secs) = self
        {
            return Some(secs);
        }
        if let Self::TooManyWebsockets = self {
            return Some(WEBSOCKETS_RETRY_AFTER_SECS);
        }
        match self.wire().status {
            429 => Some(QUEUE_RETRY_AFTER_SECS),
            503 => Some(STORAGE_RETRY_AFTER_SECS),
            _ => None,
        }
    }

    /// The JSON body, in the main service's form.
    pub fn body(self) -> String {
        #[derive(Serialize)]
        struct Body {
            code: u16,
            errno: Option<u16>,
            error: &'static str,
            message: &'static str,
            more_info: &'static str,
        }
        let wire = self.wire();
        serde_json::to_string(&Body {
            code: wire.status,
            errno: wire.errno,
            error: reason_phrase(wire.status),
            message: wire.message,
            more_info: MORE_INFO,
        })
        .expect("five plain fields are always JSON")
    }
}

/// To the letter as on the main service.
const VAPID_BAD_CLAIMS: &str = "Invalid VAPID token: A value in the vapid claims is either missing \
    or incorrectly specified (e.g. \"exp\":\"12345\" or \"sub\":null). Please correct and retry.";

/// Where the main service explains its numbers; they mean the same here.
const MORE_INFO: &str = "http://autopush.readthedocs.io/en/latest/http.html#error-codes";

/// The name of a status that a [`Problem`] can have (RFC 9110 section 15).
const fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Payload Too Large",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wire().message)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_has_the_main_services_fields_in_its_order() {
        assert_eq!(
            Problem::MissingTtl.body(),
            r#"{"code":400,"errno":111,"error":"Bad Request","message":"Missing TTL value","more_info":"http://autopush.readthedocs.io/en/latest/http.html#error-codes"}"#
        );
        assert!(Problem::InvalidMessageId.body().contains(r#""errno":null"#));
    }

    #[test]
    fn what_passes_by_itself_says_when_to_try_again() {
        for problem in [
            Problem::SubscriptionFull,
            Problem::QueueFull,
            Problem::Overloaded,
            Problem::StorageFault,
        ] {
            assert!(problem.retry_after_secs().is_some());
        }
        assert_eq!(Problem::AddressTooFast(7).retry_after_secs(), Some(7));
        assert_eq!(Problem::MissingTtl.retry_after_secs(), None);
    }
}
