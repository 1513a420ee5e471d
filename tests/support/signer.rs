//! An application server's key: signs VAPID tokens, with another library than the one that verifies
//! them, and the same token each time.

#![allow(dead_code, reason = "each user of it needs its own part")]
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]
#![allow(missing_docs, reason = "nobody's library either")]

use data_encoding::BASE64URL_NOPAD;
use web_push_native::p256::ecdsa::signature::Signer as _;
use web_push_native::p256::ecdsa::{Signature, SigningKey};

pub const HEADER: &str = r#"{"typ":"JWT","alg":"ES256"}"#;

/// Somebody who posts.
#[derive(Clone, Debug)]
pub struct Signer(SigningKey);

impl Signer {
    /// A key that is different for each number but 0.
    pub fn new(number: u8) -> Self {
        Self(SigningKey::from_slice(&[number; 32]).expect("a number below the order of the curve"))
    }

    /// The uncompressed point.
    pub fn public_key_bytes(&self) -> Vec<u8> {
        let point = self.0.verifying_key().to_encoded_point(false);
        point.as_bytes().to_vec()
    }

    /// As `register` and `k=` take it.
    pub fn public_key(&self) -> String {
        BASE64URL_NOPAD.encode(&self.public_key_bytes())
    }

    /// A token of any header and claims, right or wrong.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let [header, claims] = [header, claims].map(|part| BASE64URL_NOPAD.encode(part.as_bytes()));
        let message = format!("{header}.{claims}");
        let signature: Signature = self.0.sign(message.as_bytes());
        let signature = BASE64URL_NOPAD.encode(&signature.to_bytes());
        format!("{message}.{signature}")
    }

    /// A token as libraries make it.
    pub fn token(&self, aud: &str, exp: u64) -> String {
        let claims = format!(r#"{{"aud":"{aud}","exp":{exp},"sub":"mailto:a@example.org"}}"#);
        self.sign(HEADER, &claims)
    }

    /// The `Authorization` header of RFC 8292 for such a token.
    pub fn authorization(&self, aud: &str, exp: u64) -> String {
        self.present(&self.token(aud, exp))
    }

    /// The `Authorization` header of RFC 8292 for any token.
    pub fn present(&self, token: &str) -> String {
        format!("vapid t={token},k={}", self.public_key())
    }
}
