//! Who posts, and whether their token says so.

use std::time::Instant;

use data_encoding::BASE64URL_NOPAD;
use edgepush::model::time::{Now, UnixTime};
use edgepush::protocol::http::{BaseUrl, Response, Scheme};
use edgepush::protocol::origin::Audience;
use edgepush::protocol::problem::Problem;
use edgepush::protocol::vapid::Credentials;
use edgepush::protocol::vapid_token::{TOKEN_BYTES_MAX, Token, TokenDigest};

use crate::fields::Fields;

pub(crate) fn vapid(bytes: &[u8]) {
    let fields = Fields::of(bytes);
    let host = fields
        .header("host")
        .unwrap_or_else(|| "pi:8090".to_owned());
    let reached_by = BaseUrl::of_host(Scheme::Http, &host);
    let audience = Audience {
        public_url: None,
        reached_by: reached_by.as_ref(),
    };
    for aud in [fields.first.as_str(), &format!("http://{}", fields.first)] {
        if audience.includes(aud) {
            let scheme = aud.split("://").next().unwrap_or_default();
            assert!(["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()));
            assert!(
                !aud[scheme.len() + 3..].contains(['/', '?', '#', '@', ' ']),
                "{aud}"
            );
        }
    }
    // As it comes.
    let authorization = fields.header("authorization").unwrap_or_default();
    match Credentials::read(&authorization, fields.header("crypto-key").as_deref()) {
        Err(problem) => check(problem),
        Ok(credentials) => {
            assert!(credentials.token.len() <= authorization.len());
            let _ = TokenDigest::of(&credentials);
            check_token(&credentials.token, &credentials.key, audience);
        }
    }
    // The claims alone, which a signature would keep from being looked at.
    let header = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"ES256"}"#);
    let claims = BASE64URL_NOPAD.encode(fields.body);
    check_token(&format!("{header}.{claims}.AAAA"), &[4; 65], audience);
}

fn check_token(text: &str, key: &[u8], audience: Audience<'_>) {
    let token = match Token::read(text) {
        Ok(token) => token,
        Err(problem) => return check(problem),
    };
    assert!(text.len() <= TOKEN_BYTES_MAX);
    if let Err(problem) = token.check_signature(key) {
        check(problem);
    }
    for wall_is_trusted in [true, false] {
        let now = Now {
            monotonic: Instant::now(),
            wall: UnixTime::from_secs(1_780_000_000),
            wall_is_trusted,
        };
        match token.check_claims(now, audience) {
            Ok(()) => assert!(audience.reached_by.is_some()),
            Err(problem) => check(problem),
        }
    }
}

fn check(problem: Problem) {
    let status = Response::from(problem).status;
    assert!(status == 400 || status == 401, "{problem:?}");
}
