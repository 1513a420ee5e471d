//! The content of push messages: encrypted for one user agent (RFC 8291), decrypted by it.
//!
//! Pure: random bytes are arguments. Owns both encodings and the keys; where the keys are kept
//! is the caller's.

mod aes128gcm;
mod aesgcm;
mod keys;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;

use ring::{aead, hkdf};

pub use aes128gcm::{PLAINTEXT_BYTES_MAX, SALT_BYTES, TooLong, encrypt};
pub use keys::{AUTH_BYTES, AuthSecret, POINT_BYTES, PrivateKey, PublicKey, SCALAR_BYTES};

/// What a user agent decrypts with.
#[derive(Debug)]
pub struct ReceiverKeys {
    /// Its half of the key agreement.
    pub private: PrivateKey,
    /// What it shares with its application server.
    pub auth: AuthSecret,
}

/// What an application server encrypts for: the `keys` of a subscription.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecipientKeys {
    /// `p256dh`.
    pub public: PublicKey,
    /// `auth`.
    pub auth: AuthSecret,
}

impl ReceiverKeys {
    /// What to give to an application server.
    pub fn recipient(&self) -> RecipientKeys {
        RecipientKeys {
            public: self.private.public(),
            auth: self.auth.clone(),
        }
    }
}

/// How a body is encrypted: the `headers` of a notification, as the application server sent them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    /// `Content-Encoding`.
    pub encoding: &'a str,
    /// `Encryption`: the salt of aesgcm.
    pub encryption: &'a str,
    /// `Crypto-Key`: the application server's public key of aesgcm.
    pub crypto_key: &'a str,
}

/// Decrypts the body of a push message.
///
/// # Errors
///
/// [`DecryptError`]; in each case the application server is at fault, or encrypted for somebody else.
pub fn decrypt(
    body: &[u8],
    headers: Headers<'_>,
    keys: &ReceiverKeys,
) -> Result<Vec<u8>, DecryptError> {
    match headers.encoding {
        "aes128gcm" => aes128gcm::decrypt(body, keys),
        "aesgcm" => aesgcm::decrypt(body, headers.encryption, headers.crypto_key, keys),
        _ => Err(DecryptError::Encoding),
    }
}

/// Why a body cannot be decrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DecryptError {
    /// Neither aes128gcm nor aesgcm.
    Encoding,
    /// The salt or the application server's public key is missing or is none.
    Parameters,
    /// More than one record, which RFC 8291 section 4 forbids, or none.
    Records,
    /// Encrypted with other keys, or changed on its way.
    Keys,
    /// The padding is not as its encoding wants it.
    Padding,
}

impl fmt::Display for DecryptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoding => "its encoding is neither aes128gcm nor aesgcm",
            Self::Parameters => "its salt or its public key is missing or wrong",
            Self::Records => "it is not exactly one encrypted record",
            Self::Keys => "it was encrypted with other keys, or changed on its way",
            Self::Padding => "its padding is wrong",
        })
    }
}

impl std::error::Error for DecryptError {}

/// Bytes of the content encryption key: AES-128.
const KEY_BYTES: usize = 16;
/// Bytes that the cipher adds.
const TAG_BYTES: usize = 16;

/// HKDF with SHA-256 (RFC 5869), `N` bytes of it.
fn hkdf<const N: usize>(salt: &[u8], input_key: &[u8], info: &[&[u8]]) -> [u8; N] {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut output = [0; N];
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(input_key)
        .expand(info, Length(N))
        .and_then(|okm| okm.fill(&mut output))
        .expect("a few bytes are within HKDF's limit of 255 hashes");
    output
}

/// AES-128-GCM under a key that is used once.
fn cipher(key: &[u8; KEY_BYTES], nonce: [u8; aead::NONCE_LEN]) -> (aead::LessSafeKey, aead::Nonce) {
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, key).expect("the key is 16 bytes long");
    (
        aead::LessSafeKey::new(key),
        aead::Nonce::assume_unique_for_key(nonce),
    )
}

/// Decrypts one record in place.
fn open(
    key: &[u8; KEY_BYTES],
    nonce: [u8; aead::NONCE_LEN],
    record: &[u8],
) -> Result<Vec<u8>, DecryptError> {
    let (key, nonce) = cipher(key, nonce);
    let mut bytes = record.to_vec();
    let length = key
        .open_in_place(nonce, aead::Aad::empty(), &mut bytes)
        .map_err(|_| DecryptError::Keys)?
        .len();
    bytes.truncate(length);
    Ok(bytes)
}
