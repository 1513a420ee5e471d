//! What a VAPID token says and whether its key has signed it: a JWT with ES256 (RFC 8292 section 2).
//!
//! Checks in the order of the main service, whose JWT library has one of its own: shape, algorithm,
//! signature, claims, expiry, audience. Remembers nothing.

use data_encoding::BASE64URL_NOPAD;
use ring::digest;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Deserialize;

use super::origin::Audience;
use super::problem::Problem;
use super::vapid::Credentials;
use crate::model::time::Now;

/// Longest token that is looked at, in bytes.
///
/// Those of the libraries in use take 200 to 350. The rest is room for a long `sub`; past it nobody
/// has to be paid for decoding.
pub const TOKEN_BYTES_MAX: usize = 2048;

/// How far in the past `exp` may be, in seconds: clocks differ, and a message takes its time.
const EXPIRED_SECS_MAX: u64 = 60;

/// How far ahead `exp` may be, in seconds (RFC 8292 section 2).
const AHEAD_SECS_MAX: u64 = 24 * 60 * 60;

/// A token of the right shape and algorithm. Nothing is known of what it says.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    /// What is signed: header and claims, as written.
    message: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Token<'a> {
    /// Splits a token and reads its header.
    ///
    /// # Errors
    ///
    /// [`Problem::VapidNotAToken`], [`Problem::VapidNotBase64`], [`Problem::VapidNotJson`],
    /// [`Problem::VapidBadClaims`] (also for a header that says nothing of a known algorithm),
    /// [`Problem::VapidBadAlgorithm`].
    pub fn read(text: &'a str) -> Result<Self, Problem> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Problem::VapidNotAToken);
        }
        let (message, signature) = text.rsplit_once('.').ok_or(Problem::VapidNotAToken)?;
        let (header, claims) = message.rsplit_once('.').ok_or(Problem::VapidNotAToken)?;
        let Header { alg } = json(header)?;
        match alg {
            Algorithm::ES256 => Ok(Self {
                message,
                claims,
                signature,
            }),
            Algorithm::Other => Err(Problem::VapidBadAlgorithm),
        }
    }

    /// Whether `key`, an uncompressed point, has signed the token. Takes milliseconds on a small
    /// board, unless key or signature are not even of the right form.
    ///
    /// # Errors
    ///
    /// [`Problem::VapidNotBase64`], [`Problem::VapidBadSignature`].
    pub fn check_signature(&self, key: &[u8]) -> Result<(), Problem> {
        let signature = decode(self.signature)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
            .verify(self.message.as_bytes(), &signature)
            .map_err(|_| Problem::VapidBadSignature)
    }

    /// Whether the token is meant for this push service, and now.
    ///
    /// `nbf` is ignored and `sub` need only be text, as on the main service. Without a clock that
    /// can be trusted `exp` need only be a number.
    ///
    /// # Errors
    ///
    /// [`Problem::VapidNotBase64`], [`Problem::VapidNotJson`], [`Problem::VapidBadClaims`],
    /// [`Problem::VapidExpired`], [`Problem::VapidTooFarAhead`], [`Problem::VapidNoAudience`],
    /// [`Problem::VapidBadAudience`].
    pub fn check_claims(&self, now: Now, audience: Audience<'_>) -> Result<(), Problem> {
        let claims: Claims = json(self.claims)?;
        if now.wall_is_trusted {
            let now_secs = now.wall.as_secs();
            if claims.exp.saturating_add(EXPIRED_SECS_MAX) < now_secs {
                return Err(Problem::VapidExpired);
            }
            if claims.exp > now_secs.saturating_add(AHEAD_SECS_MAX) {
                return Err(Problem::VapidTooFarAhead);
            }
        }
        let aud = claims.aud.ok_or(Problem::VapidNoAudience)?;
        if audience.includes(&aud) {
            Ok(())
        } else {
            Err(Problem::VapidBadAudience)
        }
    }
}

impl std::fmt::Debug for Token<'_> {
    /// Shows nothing of the token: whoever has it may post.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What a token that was verified is known by: the SHA-256 of its text and its key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TokenDigest([u8; digest::SHA256_OUTPUT_LEN]);

impl TokenDigest {
    /// Digests what an application server presents.
    pub fn of(credentials: &Credentials) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        // The length first: no byte of a key can pass for one of the token.
        context.update(&credentials.key.len().to_be_bytes());
        context.update(&credentials.key);
        context.update(credentials.token.as_bytes());
        let bytes = context.finish();
        Self(
            bytes
                .as_ref()
                .try_into()
                .expect("a SHA-256 digest is 32 bytes long"),
        )
    }
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
}

/// The main service's JWT library knows more than it takes here: a known algorithm is refused as
/// such, an unknown one as a header that cannot be read.
#[derive(Deserialize)]
enum Algorithm {
    ES256,
    #[serde(
        rename = "HS256",
        alias = "ES384",
        alias = "HS384",
        alias = "HS512",
        alias = "RS256",
        alias = "RS384",
        alias = "RS512",
        alias = "PS256",
        alias = "PS384",
        alias = "PS512",
        alias = "EdDSA"
    )]
    Other,
}

#[derive(Deserialize)]
struct Claims {
    exp: u64,
    aud: Option<String>,
    /// Looked at for its type alone.
    #[serde(rename = "sub")]
    _sub: Option<String>,
}

/// One part of a token. Its length is bounded by [`TOKEN_BYTES_MAX`], its nesting by serde_json.
fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, Problem> {
    serde_json::from_slice(&decode(part)?).map_err(|error| {
        if error.is_data() {
            Problem::VapidBadClaims
        } else {
            Problem::VapidNotJson
        }
    })
}

fn decode(part: &str) -> Result<Vec<u8>, Problem> {
    BASE64URL_NOPAD
        .decode(part.as_bytes())
        .map_err(|_| Problem::VapidNotBase64)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::model::time::UnixTime;
    use crate::protocol::http::{BaseUrl, Scheme};
    use crate::protocol::signer::{HEADER, Signer};

    const NOW_SECS: u64 = 1_780_000_000;

    fn at(secs: u64) -> Now {
        Now {
            monotonic: Instant::now(),
            wall: UnixTime::from_secs(secs),
            wall_is_trusted: true,
        }
    }

    fn verify_at(now: Now, token: &str, key: &[u8]) -> Result<(), Problem> {
        let base_url = BaseUrl::of_host(Scheme::Http, "pi:8090");
        let audience = Audience {
            public_url: None,
            reached_by: base_url.as_ref(),
        };
        let token = Token::read(token)?;
        token.check_signature(key)?;
        token.check_claims(now, audience)
    }

    fn verify(token: &str) -> Result<(), Problem> {
        verify_at(at(NOW_SECS), token, &Signer::new(1).public_key_bytes())
    }

    fn claims(claims: &str) -> Result<(), Problem> {
        verify(&Signer::new(1).sign(HEADER, claims))
    }

    #[test]
    fn token_is_verified_with_the_key_that_signed_it_alone() {
        let token = Signer::new(1).token("http://pi:8090", NOW_SECS);
        assert_eq!(verify(&token), Ok(()));
        let key = Signer::new(1).public_key_bytes();
        for wrong in [
            Signer::new(2).public_key_bytes(),
            key[..64].to_vec(),
            key[1..].to_vec(),
            [&key[..], &[0]].concat(),
            vec![4; 65],
            vec![],
        ] {
            let refused = verify_at(at(NOW_SECS), &token, &wrong);
            assert_eq!(refused, Err(Problem::VapidBadSignature));
        }
    }

    #[test]
    fn token_with_any_character_changed_is_refused() {
        let token = Signer::new(1).token("http://pi:8090", NOW_SECS);
        for at in 0..token.len() {
            for other in ["A", "B", "_", ".", "="] {
                if token[at..=at] != *other {
                    let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
                    assert!(verify(&changed).is_err(), "{changed}");
                }
            }
            assert!(verify(&token[..at]).is_err());
        }
    }

    #[test]
    fn what_is_no_token_is_told_apart_as_by_the_main_services_library() {
        let signer = Signer::new(1);
        let good = signer.token("http://pi:8090", NOW_SECS);
        let (message, _) = good.rsplit_once('.').unwrap();
        let header = |header: &str| signer.sign(header, "{}");
        for (token, problem) in [
            (String::new(), Problem::VapidNotAToken),
            ("a.b".to_owned(), Problem::VapidNotAToken),
            ("a.b.c".to_owned(), Problem::VapidNotBase64),
            (format!("A{good}"), Problem::VapidNotBase64),
            (format!("{good}="), Problem::VapidNotBase64),
            (format!("{good}.x"), Problem::VapidNotBase64),
            (format!("{message}."), Problem::VapidBadSignature),
            (format!("{message}.AAAA"), Problem::VapidBadSignature),
            ("..".to_owned(), Problem::VapidNotJson),
            (header("ES256"), Problem::VapidNotJson),
            (header("{"), Problem::VapidNotJson),
            (header("{}"), Problem::VapidBadClaims),
            (header(r#"{"alg":"none"}"#), Problem::VapidBadClaims),
            (header(r#"{"alg":"es256"}"#), Problem::VapidBadClaims),
            (header(r#"{"alg":"Other"}"#), Problem::VapidBadClaims),
            (header(r#"{"alg":1}"#), Problem::VapidNotJson),
            (header(r#"{"alg":"HS256"}"#), Problem::VapidBadAlgorithm),
            (header(r#"{"alg":"ES384"}"#), Problem::VapidBadAlgorithm),
            (header(r#"{"alg":"RS256"}"#), Problem::VapidBadAlgorithm),
            (header(r#"{"alg":"EdDSA"}"#), Problem::VapidBadAlgorithm),
        ] {
            assert_eq!(verify(&token), Err(problem), "{token}");
        }
    }

    #[test]
    fn signature_is_found_wrong_before_the_claims_are() {
        let token = Signer::new(1).sign(HEADER, "{}");
        let (message, _) = token.rsplit_once('.').unwrap();
        let forged = format!("{message}.{}", "A".repeat(86));
        assert_eq!(verify(&forged), Err(Problem::VapidBadSignature));
        assert_eq!(verify(&token), Err(Problem::VapidBadClaims));
    }

    #[test]
    fn each_claim_has_its_form() {
        for good in [
            r#"{"aud":"http://pi:8090","exp":1780000000}"#,
            r#"{"aud":"http://pi:8090","exp":1780000000,"sub":null}"#,
            r#"{"aud":"http://pi:8090","exp":1780000000,"sub":""}"#,
            r#"{"aud":"http://pi:8090","exp":1780000000,"sub":"foo"}"#,
            r#"{"aud":"http://pi:8090","exp":1780000000,"nbf":9999999999}"#,
            r#"{"aud":"http://pi:8090","exp":1780000000,"nbf":"soon"}"#,
            r#"{"aud":"http:\u002f/pi:8090", "exp" : 1780000000, "more": [{}]}"#,
        ] {
            assert_eq!(claims(good), Ok(()), "{good}");
        }
        for (bad, problem) in [
            ("", Problem::VapidNotJson),
            ("null", Problem::VapidBadClaims),
            ("{", Problem::VapidNotJson),
            ("{}", Problem::VapidBadClaims),
            (r#"{"exp":1780000000}"#, Problem::VapidNoAudience),
            (r#"{"exp":1780000000,"aud":null}"#, Problem::VapidNoAudience),
            (r#"{"aud":"http://pi:8090"}"#, Problem::VapidBadClaims),
            (
                r#"{"aud":"http://pi:8090","exp":null}"#,
                Problem::VapidBadClaims,
            ),
            (
                r#"{"aud":"http://pi:8090","exp":"1780000000"}"#,
                Problem::VapidBadClaims,
            ),
            (
                r#"{"aud":"http://pi:8090","exp":1780000000.0}"#,
                Problem::VapidBadClaims,
            ),
            (
                r#"{"aud":"http://pi:8090","exp":-1}"#,
                Problem::VapidBadClaims,
            ),
            (
                r#"{"aud":"http://pi:8090","exp":1780000000,"sub":1}"#,
                Problem::VapidBadClaims,
            ),
            (
                r#"{"aud":["http://pi:8090"],"exp":1780000000}"#,
                Problem::VapidBadClaims,
            ),
            (
                r#"{"aud":"http://pi:8090/","exp":1780000000}"#,
                Problem::VapidBadAudience,
            ),
            (r#"{"aud":"","exp":1780000000}"#, Problem::VapidBadAudience),
        ] {
            assert_eq!(claims(bad), Err(problem), "{bad}");
        }
    }

    #[test]
    fn nesting_in_a_token_is_no_recursion() {
        let deep = format!(r#"{{"exp":{},"a":{}"#, NOW_SECS, "[".repeat(1400));
        assert_eq!(claims(&deep), Err(Problem::VapidNotJson));
        let deep = format!(
            r#"{{"exp":{NOW_SECS},"a":{}{}}}"#,
            "[".repeat(600),
            "]".repeat(600)
        );
        assert_eq!(claims(&deep), Err(Problem::VapidNoAudience));
    }

    #[test]
    fn token_is_good_until_60_seconds_after_and_from_24_hours_before_its_expiry() {
        let key = Signer::new(1).public_key_bytes();
        let verify = |now, exp| verify_at(now, &Signer::new(1).token("http://pi:8090", exp), &key);
        for (exp, result) in [
            (NOW_SECS - 61, Err(Problem::VapidExpired)),
            (NOW_SECS - 60, Ok(())),
            (NOW_SECS, Ok(())),
            (NOW_SECS + 86_400, Ok(())),
            (NOW_SECS + 86_401, Err(Problem::VapidTooFarAhead)),
            (0, Err(Problem::VapidExpired)),
            (u64::MAX, Err(Problem::VapidTooFarAhead)),
        ] {
            assert_eq!(verify(at(NOW_SECS), exp), result, "{exp}");
            let untrusted = Now {
                wall_is_trusted: false,
                ..at(NOW_SECS)
            };
            assert_eq!(verify(untrusted, exp), Ok(()), "{exp}");
        }
        assert_eq!(verify(at(u64::MAX), u64::MAX), Ok(()));
        assert_eq!(verify(at(0), 86_401), Err(Problem::VapidTooFarAhead));
    }

    #[test]
    fn time_is_looked_at_before_the_audience() {
        let token = Signer::new(1).token("http://elsewhere", NOW_SECS + 100_000);
        assert_eq!(verify(&token), Err(Problem::VapidTooFarAhead));
        let token = Signer::new(1).token("http://elsewhere", NOW_SECS);
        assert_eq!(verify(&token), Err(Problem::VapidBadAudience));
    }

    #[test]
    fn token_is_taken_to_its_limit_and_not_one_byte_more() {
        // Three bytes of a subject are four characters of the token.
        let with = |subject: usize| {
            let subject = "a".repeat(subject);
            let claims =
                format!(r#"{{"aud":"http://pi:8090","exp":{NOW_SECS},"sub":"{subject}"}}"#);
            Signer::new(1).sign(HEADER, &claims)
        };
        let longest = (0..2048)
            .map_while(|subject| Some(with(subject)).filter(|t| t.len() <= TOKEN_BYTES_MAX))
            .last()
            .unwrap();
        assert!(longest.len() > TOKEN_BYTES_MAX - 3, "{}", longest.len());
        assert_eq!(verify(&longest), Ok(()));
        let past = format!(
            "{longest}{}",
            "A".repeat(TOKEN_BYTES_MAX + 1 - longest.len())
        );
        assert_eq!(verify(&past), Err(Problem::VapidNotAToken));
    }

    #[test]
    fn digest_is_of_the_token_and_the_key_with_the_border_between_them() {
        let digest = |key: &[u8], token: &str| {
            TokenDigest::of(&Credentials {
                token: token.to_owned(),
                key: key.to_vec(),
            })
        };
        assert_eq!(digest(b"key", "token"), digest(b"key", "token"));
        assert_ne!(digest(b"key", "token"), digest(b"ke", "ytoken"));
        assert_ne!(digest(b"key", "token"), digest(b"kez", "token"));
        assert_ne!(digest(b"key", "token"), digest(b"key", "tokem"));
    }
}
