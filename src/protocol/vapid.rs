//! Who posts: the `Authorization` header in both generations of VAPID (RFC 8292, and its draft 01
//! with `Crypto-Key: p256ecdsa=`).
//!
//! Reads the token and the public key that the header presents. What the token says, and whether
//! the key has signed it, is `vapid_token`'s.

use data_encoding::BASE64URL_NOPAD;

use super::problem::Problem;
use super::push_request::header_item;

/// What an application server presents: a token, and the key that has signed it, so it says.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    /// The JWT as written.
    pub token: String,
    /// The decoded public key, of any length.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Credentials {
    /// Shows nothing of the token: whoever has it may post.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Reads `Authorization`, and `Crypto-Key` for a token of the draft.
    ///
    /// # Errors
    ///
    /// [`Problem::UnknownAuthScheme`], [`Problem::MissingVapidToken`], [`Problem::MissingVapidKey`],
    /// [`Problem::InvalidVapidKey`] (401); of the draft's `Crypto-Key` [`Problem::MissingCryptoKey`],
    /// [`Problem::InvalidCryptoKey`], [`Problem::MissingP256ecdsa`] (400). Which of them comes
    /// first is as on the main service.
    pub fn read(authorization: &str, crypto_key: Option<&str>) -> Result<Self, Problem> {
        // A header of one word is a token that is missing, whatever the word is.
        let (scheme, rest) = authorization
            .trim()
            .split_once(' ')
            .ok_or(Problem::MissingVapidToken)?;
        let rest: String = rest.chars().filter(|c| !c.is_whitespace()).collect();
        let (token, key) = match scheme.to_ascii_lowercase().as_str() {
            "vapid" => {
                let key = parameter(&rest, "k=").ok_or(Problem::MissingVapidKey)?;
                let token = parameter(&rest, "t=").ok_or(Problem::MissingVapidToken)?;
                (token.to_owned(), key)
            }
            "webpush" | "bearer" => {
                let header = crypto_key.ok_or(Problem::MissingCryptoKey)?;
                let key = header_item(header, "p256ecdsa")
                    .map_err(|_| Problem::InvalidCryptoKey)?
                    .ok_or(Problem::MissingP256ecdsa)?;
                (rest, key)
            }
            _ => return Err(Problem::UnknownAuthScheme),
        };
        let key = decode_key(key).ok_or(Problem::InvalidVapidKey)?;
        Ok(Self { token, key })
    }
}

/// One value of `t=TOKEN,k=KEY`, in either order.
fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    let mut items = parameters.split(',');
    let value = items.find_map(|item| item.strip_prefix(name))?;
    let value = value.trim_matches('"');
    (!value.is_empty()).then_some(value)
}

/// base64url or standard base64, padded or not, as application servers in the wild write it.
fn decode_key(text: &str) -> Option<Vec<u8>> {
    let url_safe: String = text
        .trim_matches('"')
        .trim_end_matches('=')
        .chars()
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    BASE64URL_NOPAD.decode(url_safe.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_and_key_are_found_in_both_generations() {
        for (authorization, crypto_key) in [
            ("vapid t=a.b.c,k=_-8", None),
            ("VAPID k=_-8, t=a.b.c", None),
            ("vapid t=a.b.c, k=/+8=", None),
            ("vapid t = \"a.b.c\" , k = \"_-8==\"", None),
            ("WebPush a.b.c", Some("p256ecdsa=_-8")),
            ("Bearer a.b.c", Some("dh=abc;p256ecdsa=_-8")),
            ("webpush a.b.c", Some("keyid=x;dh=abc,p256ecdsa=\"_-8=\"")),
        ] {
            let expected = Credentials {
                token: "a.b.c".to_owned(),
                key: vec![0xff, 0xef],
            };
            assert_eq!(
                Credentials::read(authorization, crypto_key),
                Ok(expected),
                "{authorization}"
            );
        }
    }

    #[test]
    fn each_fault_has_its_own_answer() {
        for (authorization, crypto_key, problem) in [
            ("", None, Problem::MissingVapidToken),
            ("Basic", None, Problem::MissingVapidToken),
            ("Basic dXNlcg==", None, Problem::UnknownAuthScheme),
            ("vapid", None, Problem::MissingVapidToken),
            ("vapid x", None, Problem::MissingVapidKey),
            ("vapid k=_-8", None, Problem::MissingVapidToken),
            ("vapid t=,k=_-8", None, Problem::MissingVapidToken),
            ("vapid t=a.b.c", None, Problem::MissingVapidKey),
            ("vapid t=a.b.c,k=", None, Problem::MissingVapidKey),
            ("vapid t=a.b.c,k=!", None, Problem::InvalidVapidKey),
            ("webpush", None, Problem::MissingVapidToken),
            ("webpush a.b.c", None, Problem::MissingCryptoKey),
            ("webpush a.b.c", Some("nonsense"), Problem::InvalidCryptoKey),
            ("webpush a.b.c", Some("dh=abc"), Problem::MissingP256ecdsa),
            (
                "webpush a.b.c",
                Some("p256ecdsa=!"),
                Problem::InvalidVapidKey,
            ),
        ] {
            assert_eq!(
                Credentials::read(authorization, crypto_key),
                Err(problem),
                "{authorization} {crypto_key:?}"
            );
        }
    }

    #[test]
    fn nothing_of_a_token_is_shown() {
        let credentials = Credentials::read("vapid t=secret,k=_-8", None).unwrap();
        assert_eq!(format!("{credentials:?}"), "Credentials");
    }
}
