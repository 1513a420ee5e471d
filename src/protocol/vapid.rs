//! Who posts: the `Authorization` header in both generations of VAPID (RFC 8292, and its draft 01
//! with `Crypto-Key: p256ecdsa=`).
//!
//! Reads the public key that a restricted endpoint is compared with. The token's claims and
//! signature are not checked here.

use data_encoding::BASE64URL_NOPAD;

use super::problem::Problem;
use super::push_request::header_item;

/// The application server's public key, as `Authorization` presents it.
///
/// # Errors
///
/// [`Problem::UnknownAuthScheme`], [`Problem::MissingVapidToken`], [`Problem::MissingVapidKey`],
/// [`Problem::InvalidVapidKey`] (401); of the draft's `Crypto-Key` [`Problem::MissingCryptoKey`],
/// [`Problem::InvalidCryptoKey`], [`Problem::MissingP256ecdsa`] (400).
pub fn public_key(authorization: &str, crypto_key: Option<&str>) -> Result<Vec<u8>, Problem> {
    let authorization = authorization.trim();
    let (scheme, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
    let key = match scheme.to_ascii_lowercase().as_str() {
        "vapid" => vapid_parameter(rest)?,
        "webpush" | "bearer" => {
            if rest.trim().is_empty() {
                return Err(Problem::MissingVapidToken);
            }
            let header = crypto_key.ok_or(Problem::MissingCryptoKey)?;
            header_item(header, "p256ecdsa")
                .map_err(|_| Problem::InvalidCryptoKey)?
                .ok_or(Problem::MissingP256ecdsa)?
                .to_owned()
        }
        _ => return Err(Problem::UnknownAuthScheme),
    };
    decode_key(&key).ok_or(Problem::InvalidVapidKey)
}

/// `k` of `t=TOKEN,k=KEY`, in either order, spaces anywhere.
fn vapid_parameter(parameters: &str) -> Result<String, Problem> {
    let spaceless: String = parameters.chars().filter(|c| !c.is_whitespace()).collect();
    let find = |name: &str| {
        let mut items = spaceless.split(',');
        items
            .find_map(|item| item.strip_prefix(name))
            .filter(|value| !value.is_empty())
    };
    find("t=").ok_or(Problem::MissingVapidToken)?;
    let key = find("k=").ok_or(Problem::MissingVapidKey)?;
    Ok(key.trim_matches('"').to_owned())
}

/// base64url or standard base64, padded or not, as senders in the wild write it.
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
    fn public_key_is_found_in_both_generations() {
        for (authorization, crypto_key) in [
            ("vapid t=a.b.c,k=_-8", None),
            ("VAPID k=_-8, t=a.b.c", None),
            ("vapid t=a.b.c, k=/+8=", None),
            ("WebPush a.b.c", Some("p256ecdsa=_-8")),
            ("Bearer a.b.c", Some("dh=abc;p256ecdsa=_-8")),
            ("webpush a.b.c", Some("keyid=x;dh=abc,p256ecdsa=\"_-8=\"")),
        ] {
            assert_eq!(
                public_key(authorization, crypto_key),
                Ok(vec![0xff, 0xef]),
                "{authorization}"
            );
        }
    }

    #[test]
    fn each_fault_has_its_own_answer() {
        for (authorization, crypto_key, problem) in [
            ("", None, Problem::UnknownAuthScheme),
            ("Basic dXNlcg==", None, Problem::UnknownAuthScheme),
            ("vapid", None, Problem::MissingVapidToken),
            ("vapid k=_-8", None, Problem::MissingVapidToken),
            ("vapid t=a.b.c", None, Problem::MissingVapidKey),
            ("vapid t=a.b.c,k=", None, Problem::MissingVapidKey),
            ("vapid t=a.b.c,k=!", None, Problem::InvalidVapidKey),
            ("webpush", None, Problem::MissingVapidToken),
            ("webpush a.b.c", None, Problem::MissingCryptoKey),
            ("webpush a.b.c", Some("nonsense"), Problem::InvalidCryptoKey),
            ("webpush a.b.c", Some("dh=abc"), Problem::MissingP256ecdsa),
        ] {
            assert_eq!(
                public_key(authorization, crypto_key),
                Err(problem),
                "{authorization} {crypto_key:?}"
            );
        }
    }
}
