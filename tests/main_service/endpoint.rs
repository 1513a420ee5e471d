//! The main service as an application server meets it: `POST /wpush/…` with its checks in their
//! order, `DELETE /m/…` (PROTOCOL.md part 3, 4.10 and 4.11).

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use web_push_native::p256::ecdsa::signature::Verifier as _;
use web_push_native::p256::ecdsa::{Signature, VerifyingKey};

use super::service::{Endpoint, Notification, Service};
use super::session::{decode_key, key_digest};

const BODY_BYTES_MAX: usize = 5630;
const TOPIC_CHARS_MAX: usize = 32;
const TTL_SECS_MAX: i64 = 2_592_000;
/// How far ahead a VAPID token may expire, and how long after that it is still good.
const TOKEN_SECS_MAX: u64 = 86_400;
const TOKEN_LEEWAY_SECS: u64 = 60;

/// A request, its header names in lower case.
#[derive(Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
#[derive(Debug, Eq, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Reply {
    const fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }
}

/// Status, errno, and what is wrong.
type Refusal = (u16, u16, &'static str);

const NO_TOKEN: Refusal = (404, 102, "");

impl Service {
    /// Answers a request of an application server.
    pub fn answer(&mut self, now: Duration, request: &Request) -> Reply {
        let method = request.method.as_str();
        let parts: Vec<&str> = request.path.split('/').skip(1).collect();
        let posted = match (method, parts.as_slice()) {
            ("POST", ["wpush", version @ ("v1" | "v2"), token]) => {
                self.post(now, request, version, token)
            }
            ("POST", ["wpush", token]) => self.post(now, request, "v1", token),
            ("DELETE", ["m", version]) => {
                self.users
                    .values_mut()
                    .for_each(|user| user.delete(version));
                return Reply::empty(204);
            }
            (_, ["wpush", ..]) => {
                let mut reply = Reply::empty(405);
                reply.headers.push(("Allow", "POST".to_owned()));
                return reply;
            }
            _ => return Reply::empty(404),
        };
        posted.unwrap_or_else(|(status, errno, message)| refuse(status, errno, message))
    }

    fn post(
        &mut self,
        now: Duration,
        request: &Request,
        version: &str,
        token: &str,
    ) -> Result<Reply, Refusal> {
        let token = token.trim_end_matches('=');
        let endpoint = self.endpoints.get(token).cloned().ok_or(NO_TOKEN)?;
        let key = self.vapid_key(request)?;
        if endpoint.key_digest.is_some() != (version == "v2") {
            return Err(NO_TOKEN);
        }
        if let Some(digest) = &endpoint.key_digest {
            let key = key.ok_or((401, 109, "Missing VAPID public key"))?;
            if key_digest(&key).as_ref() != Some(digest) {
                return Err((401, 109, "VAPID public key mismatch"));
            }
        }
        self.is_subscribed(&endpoint)?;
        let ttl_secs = check_ttl_and_body(request)?;
        let topic = request.header("topic").map(check_topic).transpose()?;

        let version = self.version(topic);
        let has_body = !request.body.is_empty();
        let notification = Notification {
            version: version.clone(),
            channel: endpoint.channel,
            ttl_secs,
            topic: topic.map(str::to_owned),
            data: has_body.then(|| BASE64URL_NOPAD.encode(&request.body)),
            headers: if has_body {
                forwarded(request)
            } else {
                BTreeMap::new()
            },
            since: now,
        };
        self.route(now, endpoint.uaid, notification);
        let mut reply = Reply::empty(201);
        let location = format!("{}/m/{version}", self.origin);
        reply.headers.push(("Location", location));
        reply.headers.push(("TTL", ttl_secs.to_string()));
        Ok(reply)
    }

    fn is_subscribed(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        let user = self.users.get(&endpoint.uaid);
        let is_there = user.is_some_and(|user| user.channels.contains(&endpoint.channel));
        is_there
            .then_some(())
            .ok_or((410, 106, "No such subscription"))
    }

    /// The key of a token that is good; `None` without one.
    fn vapid_key(&self, request: &Request) -> Result<Option<String>, Refusal> {
        let Some(authorization) = request.header("authorization") else {
            return Ok(None);
        };
        let (scheme, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
        let (token, key) = match scheme.to_lowercase().as_str() {
            "vapid" => {
                let rest = rest.replace(' ', "");
                let part = |name| rest.split(',').find_map(|part| part.strip_prefix(name));
                let token = part("t=").ok_or((401, 109, "Missing VAPID token"))?;
                let key = part("k=").ok_or((401, 109, "Missing VAPID public key"))?;
                (token.to_owned(), key.to_owned())
            }
            "webpush" | "bearer" => {
                let header = request.header("crypto-key");
                let header = header.ok_or((400, 110, "Missing Crypto-Key header"))?;
                let mut parts = header.split([',', ';']).map(str::trim);
                let key = parts.find_map(|part| part.strip_prefix("p256ecdsa="));
                let key = key.ok_or((400, 110, "Missing p256ecdsa in Crypto-Key header"))?;
                (rest.to_owned(), key.to_owned())
            }
            _ => return Err((401, 109, "Unknown auth scheme")),
        };
        self.check_token(&token, &key)?;
        Ok(Some(key))
    }

    fn check_token(&self, token: &str, key: &str) -> Result<(), Refusal> {
        let invalid = (401, 109, "InvalidToken");
        let (signed, signature) = token.rsplit_once('.').ok_or(invalid)?;
        let claims = signed.split_once('.').ok_or(invalid)?.1;
        let decoded = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let key = decode_key(key).and_then(|key| VerifyingKey::from_sec1_bytes(&key).ok());
        let key = key.ok_or((401, 109, "Invalid VAPID public key"))?;
        let signature = decoded(signature).and_then(|bytes| Signature::from_slice(&bytes).ok());
        let signature = signature.ok_or((401, 109, "InvalidSignature"))?;
        let verified = key.verify(signed.as_bytes(), &signature);
        verified.map_err(|_| (401, 109, "InvalidSignature"))?;
        let claims = decoded(claims).and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        let claims = claims.ok_or(invalid)?;
        if claims["aud"].as_str() != Some(&self.origin) {
            return Err((401, 109, "Invalid VAPID audience"));
        }
        let expires = claims["exp"].as_u64().ok_or(invalid)?;
        if expires + TOKEN_LEEWAY_SECS < self.wall_secs {
            return Err((401, 109, "ExpiredSignature"));
        }
        if expires > self.wall_secs + TOKEN_SECS_MAX {
            return Err((401, 109, "The VAPID token expiration is too long"));
        }
        Ok(())
    }
}

fn check_ttl_and_body(request: &Request) -> Result<u64, Refusal> {
    if request.body.len() > BODY_BYTES_MAX {
        return Err((413, 104, "payload reached size limit"));
    }
    let ttl = request
        .header("ttl")
        .and_then(|ttl| ttl.parse::<i64>().ok());
    let ttl = ttl.ok_or((400, 111, "Missing TTL value"))?;
    if !request.body.is_empty() {
        check_encoding(request)?;
    }
    let ttl = u64::try_from(ttl.min(TTL_SECS_MAX));
    ttl.map_err(|_| (400, 114, "ttl: TTL must be greater than 0"))
}

fn check_encoding(request: &Request) -> Result<(), Refusal> {
    let encryption = request.header("encryption");
    let parameter = |header: Option<&str>, name: &str| {
        let mut items = header.unwrap_or("").split([',', ';']).map(str::trim);
        items.any(|item| item.split('=').next() == Some(name))
    };
    let dh = parameter(request.header("crypto-key"), "dh");
    match request.header("content-encoding") {
        None => Err((400, 110, "Missing Content-Encoding header")),
        Some("aesgcm") if encryption.is_none() => Err((400, 110, "Missing Encryption header")),
        Some("aesgcm") if !parameter(encryption, "salt") => {
            Err((400, 110, "Missing salt value in Encryption header"))
        }
        Some("aesgcm") if request.header("crypto-key").is_some() && !dh => {
            Err((400, 110, "Missing dh value in Crypto-Key header"))
        }
        Some("aes128gcm") if parameter(encryption, "salt") => Err((
            400,
            110,
            "Do not include 'salt' header in aes128gcm Encryption header",
        )),
        Some("aes128gcm") if dh => Err((
            400,
            110,
            "Do not include 'dh' header in aes128gcm Crypto-Key header",
        )),
        Some("aesgcm" | "aes128gcm") => Ok(()),
        Some(_) => Err((400, 110, "Unknown Content-Encoding header")),
    }
}

fn check_topic(topic: &str) -> Result<&str, Refusal> {
    if topic.chars().count() > TOPIC_CHARS_MAX {
        return Err((
            400,
            113,
            "topic: Topic must be no greater than 32 characters",
        ));
    }
    let letters = topic.trim_end_matches('=');
    let is_base64url = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if letters.is_empty() || !letters.chars().all(is_base64url) {
        return Err((
            400,
            113,
            "topic: Topic must be URL and Filename safe Base64 alphabet",
        ));
    }
    Ok(topic)
}

/// The headers that a user agent needs to decrypt.
fn forwarded(request: &Request) -> BTreeMap<&'static str, String> {
    let names = [
        ("encoding", "content-encoding"),
        ("encryption", "encryption"),
        ("crypto_key", "crypto-key"),
    ];
    let all = names.into_iter();
    all.filter_map(|(name, header)| Some((name, bare(request.header(header)?))))
        .collect()
}

/// Without quotes, and without the padding of base64 before a separator or the end.
fn bare(value: &str) -> String {
    let value = value.replace('"', "");
    let mut bare = String::new();
    for part in value.split_inclusive([',', ';']) {
        let (text, separator) = match part.strip_suffix([',', ';']) {
            Some(text) => (text, &part[text.len()..]),
            None => (part, ""),
        };
        bare += text.trim_end_matches('=');
        bare += separator;
    }
    bare
}

fn refuse(status: u16, errno: u16, message: &str) -> Reply {
    let mut reply = Reply::empty(status);
    if status == 404 {
        return reply;
    }
    if status == 410 {
        let age = "max-age=86400".to_owned();
        reply.headers.push(("Cache-Control", age));
    }
    let error = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        410 => "Gone",
        _ => "Payload Too Large",
    };
    let more_info = "http://autopush.readthedocs.io/en/latest/http.html#error-codes";
    let body = json!({"code": status, "errno": errno, "error": error, "message": message,
        "more_info": more_info});
    reply.body = body.to_string();
    reply
}
