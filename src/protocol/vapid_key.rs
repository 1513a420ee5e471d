//! The application server's key, and the tokens signed with it (RFC 8292): the sending side of
//! `vapid`.

use std::fmt;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::rand::SecureRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde::Serialize;

use crate::model::time::UnixTime;

/// How long a token is good, in seconds: half of the 24 hours that RFC 8292 section 2 allows, so
/// that clocks may differ.
const TOKEN_SECS: u64 = 12 * 60 * 60;
/// Where a PEM file breaks its lines, in characters (RFC 7468 section 2).
const PEM_LINE_CHARS: usize = 64;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// A P-256 key pair that signs.
pub struct VapidKey {
    pair: EcdsaKeyPair,
}

impl VapidKey {
    /// A new one, as the PEM text to keep.
    ///
    /// # Panics
    ///
    /// When `random` has no bytes to give.
    pub fn generate(random: &dyn SecureRandom) -> String {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random)
            .expect("the random generator answers");
        let base64 = BASE64.encode(document.as_ref());
        let mut pem = format!("{PEM_BEGIN}\n");
        for (index, digit) in base64.chars().enumerate() {
            if index > 0 && index.checked_rem(PEM_LINE_CHARS) == Some(0) {
                pem.push('\n');
            }
            pem.push(digit);
        }
        pem.push('\n');
        pem.push_str(PEM_END);
        pem.push('\n');
        pem
    }

    /// Reads a key in PKCS#8 PEM, as [`generate`](Self::generate), openssl and py-vapid write it.
    ///
    /// # Errors
    ///
    /// [`VapidKeyError`]: not PEM, another form, or another curve.
    pub fn from_pem(pem: &str, random: &dyn SecureRandom) -> Result<Self, VapidKeyError> {
        let (_, rest) = pem.split_once(PEM_BEGIN).ok_or(VapidKeyError)?;
        let (base64, _) = rest.split_once(PEM_END).ok_or(VapidKeyError)?;
        let base64: String = base64.split_whitespace().collect();
        let document = BASE64
            .decode(base64.as_bytes())
            .map_err(|_| VapidKeyError)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document, random);
        pair.map(|pair| Self { pair }).map_err(|_| VapidKeyError)
    }

    /// The public key in base64url without padding: `applicationServerKey` of the Push API, `key` of
    /// a register.
    pub fn public_text(&self) -> String {
        BASE64URL_NOPAD.encode(self.pair.public_key().as_ref())
    }

    /// The `Authorization` header for a request to an endpoint of `origin`.
    ///
    /// # Panics
    ///
    /// When `random` has no bytes to give.
    pub fn authorization(
        &self,
        origin: &str,
        subject: Option<&str>,
        now: UnixTime,
        random: &dyn SecureRandom,
    ) -> String {
        #[derive(Serialize)]
        struct Claims<'a> {
            aud: &'a str,
            exp: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            sub: Option<&'a str>,
        }
        let claims = serde_json::to_vec(&Claims {
            aud: origin,
            exp: now.as_secs().saturating_add(TOKEN_SECS),
            sub: subject,
        })
        .expect("two strings and a number are always JSON");
        let header = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"ES256"}"#);
        let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(&claims));
        let signature = self
            .pair
            .sign(random, signed.as_bytes())
            .expect("the random generator answers");
        let signature = BASE64URL_NOPAD.encode(signature.as_ref());
        format!("vapid t={signed}.{signature}, k={}", self.public_text())
    }
}

impl fmt::Debug for VapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VapidKey({}, ..)", self.public_text())
    }
}

/// A text that is no VAPID key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VapidKeyError;

impl fmt::Display for VapidKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "it must hold a P-256 private key in PKCS#8 PEM (\"BEGIN PRIVATE KEY\"); an \"EC PRIVATE \
             KEY\" becomes one with openssl pkcs8 -topk8 -nocrypt",
        )
    }
}

impl std::error::Error for VapidKeyError {}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::vapid::Credentials;

    fn key() -> VapidKey {
        let random = SystemRandom::new();
        VapidKey::from_pem(&VapidKey::generate(&random), &random).unwrap()
    }

    #[test]
    fn token_is_signed_for_the_origin_and_for_twelve_hours() {
        let key = key();
        let now = UnixTime::from_secs(1_000_000);
        let random = SystemRandom::new();
        let header = key.authorization("http://h:8090", Some("mailto:a@b"), now, &random);

        let public = Credentials::read(&header, None).unwrap().key;
        let token = header.strip_prefix("vapid t=").unwrap();
        let (token, _) = token.split_once(", k=").unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)
            .verify(signed.as_bytes(), &signature)
            .expect("the signature is good");

        let parts: Vec<Value> = signed
            .split('.')
            .map(|part| BASE64URL_NOPAD.decode(part.as_bytes()).unwrap())
            .map(|part| serde_json::from_slice(&part).unwrap())
            .collect();
        let claims = json!({"aud": "http://h:8090", "exp": 1_043_200, "sub": "mailto:a@b"});
        assert_eq!(parts, [json!({"typ": "JWT", "alg": "ES256"}), claims]);
    }

    #[test]
    fn token_without_a_subject_does_not_name_one() {
        let random = SystemRandom::new();
        let header = key().authorization("http://h", None, UnixTime::from_secs(0), &random);
        let claims = header.split('.').nth(1).unwrap();
        let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap();
        assert_eq!(claims, br#"{"aud":"http://h","exp":43200}"#);
    }

    /// Made by `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`.
    #[test]
    fn key_made_by_openssl_is_read() {
        let random = SystemRandom::new();
        let key = VapidKey::from_pem(OPENSSL, &random).unwrap();
        assert_eq!(key.public_text(), OPENSSL_PUBLIC);
        let crlf = OPENSSL.replace('\n', "\r\n");
        assert!(VapidKey::from_pem(&crlf, &random).is_ok());
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        let random = SystemRandom::new();
        let pem = VapidKey::generate(&random);
        let cut = &pem[..pem.len() / 2];
        let other = pem.replace("PRIVATE KEY", "EC PRIVATE KEY");
        let damaged = pem.replacen("MIG", "MIH", 1);
        for text in [
            "",
            "abc",
            cut,
            &other,
            &damaged,
            &format!("{PEM_BEGIN}{PEM_END}"),
        ] {
            assert_eq!(
                VapidKey::from_pem(text, &random).err(),
                Some(VapidKeyError),
                "{text}"
            );
        }
    }

    const OPENSSL: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg9YPXuPBeL5WQIAlr\n\
NZd7lWxoEHVBRszn7osr8vs/hVuhRANCAATjTM+J8zIk3qGFmPF+0TDfSLgaboc1\n\
pjsPRPMewMzpnx6g85z3LfUcuLtI4rD1QgnMejijjiHswly9al3UGSOO\n\
-----END PRIVATE KEY-----\n";
    const OPENSSL_PUBLIC: &str =
        "BONMz4nzMiTeoYWY8X7RMN9IuBpuhzWmOw9E8x7AzOmfHqDznPct9Ry4u0jisPVCCcx6OKOOIezCXL1qXdQZI44";
}
