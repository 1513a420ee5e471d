//! `aesgcm`: draft-ietf-webpush-encryption-04, what application servers of 2016 send. Only
//! decrypted here; one record, as its section 4 demands.

use ring::aead;

use super::keys::{AuthSecret, POINT_BYTES, PublicKey};
use super::{DecryptError, KEY_BYTES, ReceiverKeys, TAG_BYTES, hkdf, open};
use crate::protocol::keyring::decode_base64url;
use crate::protocol::push_request::header_item;

/// Bytes of the salt.
const SALT_BYTES: usize = 16;
/// Plaintext and padding of one record when `Encryption` says nothing of `rs`.
const RECORD_BYTES_DEFAULT: usize = 4096;
/// The length of the padding, before it.
const PADDING_LENGTH_BYTES: usize = 2;

pub(super) fn decrypt(
    body: &[u8],
    encryption: &str,
    crypto_key: &str,
    keys: &ReceiverKeys,
) -> Result<Vec<u8>, DecryptError> {
    let salt = parameter(encryption, "salt", SALT_BYTES).ok_or(DecryptError::Parameters)?;
    if salt.len() != SALT_BYTES {
        return Err(DecryptError::Parameters);
    }
    let sender = parameter(crypto_key, "dh", POINT_BYTES)
        .and_then(|point| PublicKey::new(&point))
        .ok_or(DecryptError::Parameters)?;
    let record_bytes = match header_item(encryption, "rs") {
        Ok(Some(text)) => text.parse().map_err(|_| DecryptError::Parameters)?,
        Ok(None) | Err(_) => RECORD_BYTES_DEFAULT,
    };
    // A record that is full is followed by another one; the tag comes on top.
    let full = record_bytes.saturating_add(TAG_BYTES);
    if body.len() >= full || body.len() < TAG_BYTES.saturating_add(PADDING_LENGTH_BYTES) {
        return Err(DecryptError::Records);
    }
    let agreed = keys.private.agree(&sender);
    let (key, nonce) = record_key(&salt, &agreed, &keys.auth, &keys.private.public(), &sender);
    strip_padding(open(&key, nonce, body)?)
}

/// One base64url value of a header, of at most so many bytes.
fn parameter(header: &str, name: &str, bytes_max: usize) -> Option<Vec<u8>> {
    decode_base64url(header_item(header, name).ok()??, bytes_max)
}

/// Sections 3.3 and 4.2 of the draft.
fn record_key(
    salt: &[u8],
    agreed: &[u8],
    auth: &AuthSecret,
    receiver: &PublicKey,
    sender: &PublicKey,
) -> ([u8; KEY_BYTES], [u8; aead::NONCE_LEN]) {
    let input_key: [u8; 32] = hkdf(&auth.0, agreed, &[b"Content-Encoding: auth\0"]);
    let point_length: &[u8] = &[0, 65];
    let (receiver, sender) = (receiver.to_bytes(), sender.to_bytes());
    let info = |label: &'static [u8]| {
        [
            label,
            b"P-256\0",
            point_length,
            &receiver,
            point_length,
            &sender,
        ]
    };
    (
        hkdf(salt, &input_key, &info(b"Content-Encoding: aesgcm\0")),
        hkdf(salt, &input_key, &info(b"Content-Encoding: nonce\0")),
    )
}

/// Two bytes say how many zeros follow them.
fn strip_padding(mut padded: Vec<u8>) -> Result<Vec<u8>, DecryptError> {
    let (length, rest) = padded
        .split_first_chunk::<PADDING_LENGTH_BYTES>()
        .ok_or(DecryptError::Padding)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let padding = rest.get(..length).ok_or(DecryptError::Padding)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(DecryptError::Padding);
    }
    padded.drain(..length.saturating_add(PADDING_LENGTH_BYTES));
    Ok(padded)
}

#[cfg(test)]
mod tests {
    use super::super::cipher;
    use data_encoding::BASE64URL_NOPAD;

    use super::super::keys::PrivateKey;
    use super::super::testing::{bytes, receiver};
    use super::*;

    /// The other half, which nothing but these tests needs: both headers and the body.
    fn encrypt(padded: &[u8]) -> (String, String, Vec<u8>) {
        let ephemeral = PrivateKey::new(&[9; 32]).unwrap();
        let keys = receiver();
        let (salt, public) = ([5; 16], keys.private.public());
        let agreed = ephemeral.agree(&public);
        let (key, nonce) = record_key(&salt, &agreed, &keys.auth, &public, &ephemeral.public());
        let (key, nonce) = cipher(&key, nonce);
        let mut body = padded.to_vec();
        key.seal_in_place_append_tag(nonce, aead::Aad::empty(), &mut body)
            .unwrap();
        let dh = BASE64URL_NOPAD.encode(&ephemeral.public().to_bytes());
        (
            format!("keyid=p256dh;salt={}", BASE64URL_NOPAD.encode(&salt)),
            format!("keyid=p256dh;dh={dh},p256ecdsa=abc"),
            body,
        )
    }

    /// Section 5 of the draft, with the keys of its appendix A.
    #[test]
    fn example_of_the_draft_is_decrypted() {
        let private = bytes("9FWl15_QUQAWDaD3k3l50ZBZQJ4au27F1V4F0uLSD_M");
        let keys = ReceiverKeys {
            private: PrivateKey::new(&private).unwrap(),
            auth: AuthSecret(bytes("R29vIGdvbyBnJyBqb29iIQ")),
        };
        let body: [u8; 33] = bytes("6nqAQUME8hNqw5J3kl8cpVVJylXKYqZOeseZG8UueKpA");
        let encryption = "salt=\"lngarbyKfMoi9Z75xYXmkg\"";
        let crypto_key = "dh=\"BNoRDbb84JGm8g5Z5CFxurSqsXWJ11ItfXEWYVLE85Y7\
                          CYkDjXsIEc4aqxYaQ1G8BqkXCJ6DPpDrWtdWj_mugHU\"";
        let text = decrypt(&body, encryption, crypto_key, &keys);
        assert_eq!(text.unwrap(), b"I am the walrus");
    }

    #[test]
    fn padding_is_taken_off_and_nothing_else() {
        for (padded, text) in [
            (&b"\0\0"[..], &b""[..]),
            (b"\0\0text", b"text"),
            (b"\0\x03\0\0\0\0text", b"\0text"),
            (b"\0\x01\0", b""),
        ] {
            let (encryption, crypto_key, body) = encrypt(padded);
            let opened = decrypt(&body, &encryption, &crypto_key, &receiver());
            assert_eq!(opened.unwrap(), text);
        }
        for padded in [&b"\0\x05\0"[..], b"\xff\xfftext", b"\0\x02\0xtext"] {
            let (encryption, crypto_key, body) = encrypt(padded);
            let refused = decrypt(&body, &encryption, &crypto_key, &receiver());
            assert_eq!(refused, Err(DecryptError::Padding), "{padded:?}");
        }
    }

    #[test]
    fn parameters_that_are_missing_or_wrong_are_refused() {
        let (encryption, crypto_key, body) = encrypt(b"\0\0text");
        for (encryption, crypto_key) in [
            ("", &*crypto_key),
            ("salt=abc", &crypto_key),
            ("salt=!", &crypto_key),
            (&encryption, ""),
            (&encryption, "dh=abc"),
            (&encryption, "p256ecdsa=abc"),
            (&format!("{encryption};rs=x"), &crypto_key),
        ] {
            let refused = decrypt(&body, encryption, crypto_key, &receiver());
            assert_eq!(
                refused,
                Err(DecryptError::Parameters),
                "{encryption} {crypto_key}"
            );
        }
    }

    #[test]
    fn anything_but_one_record_is_refused() {
        let (encryption, crypto_key, body) = encrypt(b"\0\0text");
        let with = |encryption: &str, body: &[u8]| {
            decrypt(body, encryption, &crypto_key, &receiver()).unwrap_err()
        };
        // 22 bytes with the tag, so 6 of them are plaintext and padding.
        let smaller = format!("{encryption};rs=6");
        assert_eq!(with(&smaller, &body), DecryptError::Records);
        assert_eq!(with(&encryption, &body[..17]), DecryptError::Records);
        assert_eq!(with(&encryption, b""), DecryptError::Records);
        assert_eq!(with(&encryption, &body[..18]), DecryptError::Keys);
        let fits = format!("{encryption};rs=7");
        assert!(decrypt(&body, &fits, &crypto_key, &receiver()).is_ok());
    }
}
