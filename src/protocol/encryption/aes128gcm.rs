//! `aes128gcm`: RFC 8188, with the keys of RFC 8291. One record, as RFC 8291 section 4 demands.

use std::fmt;

use ring::aead;

use super::keys::{AuthSecret, POINT_BYTES, PrivateKey, PublicKey};
use super::{DecryptError, KEY_BYTES, ReceiverKeys, RecipientKeys, TAG_BYTES, cipher, hkdf, open};

/// Bytes of the salt.
pub const SALT_BYTES: usize = 16;
/// Bytes of a record, as its header says them, and of a whole body: what every push service must
/// take (RFC 8030 section 7.2).
const RECORD_BYTES: u32 = 4096;
/// Salt, record size, length of the key ID, and the application server's public key as key ID.
const HEADER_BYTES: usize = SALT_BYTES + 4 + 1 + POINT_BYTES;
/// Behind the plaintext of the last record (RFC 8188 section 2).
const LAST_RECORD: u8 = 2;

/// Longest plaintext, in bytes (RFC 8291 section 4).
pub const PLAINTEXT_BYTES_MAX: usize = RECORD_BYTES as usize - HEADER_BYTES - 1 - TAG_BYTES;
const _: () = assert!(PLAINTEXT_BYTES_MAX == 3993);

/// Encrypts a push message; the result is the body to post with `Content-Encoding: aes128gcm`.
///
/// `ephemeral` and `salt` are random and used for this one message only.
///
/// # Errors
///
/// [`TooLong`] above [`PLAINTEXT_BYTES_MAX`].
pub fn encrypt(
    plaintext: &[u8],
    recipient: &RecipientKeys,
    ephemeral: &PrivateKey,
    salt: [u8; SALT_BYTES],
) -> Result<Vec<u8>, TooLong> {
    if plaintext.len() > PLAINTEXT_BYTES_MAX {
        return Err(TooLong);
    }
    let sender = ephemeral.public();
    let agreed = ephemeral.agree(&recipient.public);
    let input_key = input_key(&recipient.auth, &agreed, &recipient.public, &sender);
    let (key, nonce) = record_key(&salt, &input_key);

    let mut record = plaintext.to_vec();
    record.push(LAST_RECORD);
    let (key, nonce) = cipher(&key, nonce);
    key.seal_in_place_append_tag(nonce, aead::Aad::empty(), &mut record)
        .expect("4 KiB are within the cipher's limit");

    let point = sender.to_bytes();
    let mut body = Vec::with_capacity(HEADER_BYTES.saturating_add(record.len()));
    body.extend_from_slice(&salt);
    body.extend_from_slice(&RECORD_BYTES.to_be_bytes());
    body.push(point.len() as u8); // 65
    body.extend_from_slice(&point);
    body.append(&mut record);
    Ok(body)
}

/// A plaintext that does not fit into the 4096 bytes of a push message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "longer than the {PLAINTEXT_BYTES_MAX} bytes that fit into an encrypted push message"
        )
    }
}

impl std::error::Error for TooLong {}

pub(super) fn decrypt(body: &[u8], keys: &ReceiverKeys) -> Result<Vec<u8>, DecryptError> {
    let parts = Parts::of(body)?;
    let sender = PublicKey::new(parts.key_id).ok_or(DecryptError::Parameters)?;
    let agreed = keys.private.agree(&sender);
    let input_key = input_key(&keys.auth, &agreed, &keys.private.public(), &sender);
    decrypt_record(&parts, &input_key)
}

/// A body, taken apart (RFC 8188 section 2.1).
struct Parts<'a> {
    salt: &'a [u8; SALT_BYTES],
    key_id: &'a [u8],
    record: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(body: &'a [u8]) -> Result<Self, DecryptError> {
        let fail = DecryptError::Parameters;
        let (salt, rest) = body.split_first_chunk().ok_or(fail)?;
        let (record_bytes, rest) = rest.split_first_chunk().ok_or(fail)?;
        let record_bytes = u32::from_be_bytes(*record_bytes);
        let (key_id_bytes, rest) = rest.split_first().ok_or(fail)?;
        let (key_id, record) = rest
            .split_at_checked(usize::from(*key_id_bytes))
            .ok_or(fail)?;
        // Less than a tag and a delimiter would be a record of nothing at all.
        let one_record = record.len() > TAG_BYTES
            && u32::try_from(record.len()).is_ok_and(|n| n <= record_bytes);
        if !one_record {
            return Err(DecryptError::Records);
        }
        Ok(Self {
            salt,
            key_id,
            record,
        })
    }
}

fn decrypt_record(parts: &Parts<'_>, input_key: &[u8]) -> Result<Vec<u8>, DecryptError> {
    let (key, nonce) = record_key(parts.salt, input_key);
    let mut padded = open(&key, nonce, parts.record)?;
    // Any number of zeros may follow the delimiter.
    let delimiter = padded.iter().rposition(|byte| *byte != 0);
    match delimiter {
        Some(at) if padded.get(at) == Some(&LAST_RECORD) => {
            padded.truncate(at);
            Ok(padded)
        }
        Some(_) | None => Err(DecryptError::Padding),
    }
}

/// RFC 8291 section 3.4: both public keys and the shared secret go into the key.
fn input_key(
    auth: &AuthSecret,
    agreed: &[u8],
    receiver: &PublicKey,
    sender: &PublicKey,
) -> [u8; 32] {
    let info: [&[u8]; 3] = [b"WebPush: info\0", &receiver.to_bytes(), &sender.to_bytes()];
    hkdf(&auth.0, agreed, &info)
}

/// RFC 8188 sections 2.2 and 2.3, for the first record.
fn record_key(salt: &[u8], input_key: &[u8]) -> ([u8; KEY_BYTES], [u8; aead::NONCE_LEN]) {
    (
        hkdf(salt, input_key, &[b"Content-Encoding: aes128gcm\0"]),
        hkdf(salt, input_key, &[b"Content-Encoding: nonce\0"]),
    )
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;
    use web_push_native::{Auth, p256};

    use super::super::testing::{bytes, receiver};
    use super::*;

    fn encrypted(plaintext: &[u8]) -> Vec<u8> {
        let ephemeral = PrivateKey::new(&[9; 32]).unwrap();
        encrypt(plaintext, &receiver().recipient(), &ephemeral, [5; 16]).unwrap()
    }

    /// RFC 8291 section 5, with the keys of its appendix A.
    #[test]
    fn example_of_rfc_8291_comes_out_byte_for_byte() {
        let keys = ReceiverKeys {
            private: PrivateKey::new(&bytes("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"))
                .unwrap(),
            auth: AuthSecret(bytes("BTBZMqHH6r4Tts7J_aSIgg")),
        };
        let ephemeral =
            PrivateKey::new(&bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")).unwrap();
        assert_eq!(
            BASE64URL_NOPAD.encode(&keys.private.public().to_bytes()),
            "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
        );
        let expected = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml\
                        mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT\
                        pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        let text = b"When I grow up, I want to be a watermelon";
        let salt = bytes("DGv6ra1nlYgDCS1FRnbzlw");
        let body = encrypt(text, &keys.recipient(), &ephemeral, salt).unwrap();
        assert_eq!(BASE64URL_NOPAD.encode(&body), expected);
        assert_eq!(decrypt(&body, &keys).unwrap(), text);
    }

    /// RFC 8188 section 3.1: another key, no key ID.
    #[test]
    fn example_of_rfc_8188_is_decrypted() {
        let body: [u8; 53] =
            bytes("I1BsxtFttlv3u_Oo94xnmwAAEAAA-NAVub2qFgBEuQKRapoZu-IxkIva3MEB1PD-ly8Thjg");
        let key: [u8; 16] = bytes("yqdlZ-tYemfogSmv7Ws5PQ");
        let parts = Parts::of(&body).unwrap();
        assert_eq!(decrypt_record(&parts, &key).unwrap(), b"I am the walrus");
    }

    #[test]
    fn another_implementation_decrypts_what_we_encrypt_and_we_what_it_encrypts() {
        let secret = p256::SecretKey::from_slice(&[7; 32]).unwrap();
        let auth = Auth::clone_from_slice(&[8; 16]);
        let longest = vec![b'x'; PLAINTEXT_BYTES_MAX];
        for text in [&b""[..], b"The washing is done", b"\x02\0\0", &longest] {
            let ours = web_push_native::decrypt(encrypted(text), &secret, &auth);
            assert_eq!(ours.unwrap(), text);

            let body = web_push_native::encrypt(text.to_vec(), &secret.public_key(), &auth);
            assert_eq!(decrypt(&body.unwrap(), &receiver()).unwrap(), text);
        }
    }

    #[test]
    fn longest_message_makes_the_longest_body_that_every_push_service_takes() {
        assert_eq!(encrypted(&[0; PLAINTEXT_BYTES_MAX]).len(), 4096);
        let ephemeral = PrivateKey::new(&[9; 32]).unwrap();
        let longer = [0; PLAINTEXT_BYTES_MAX + 1];
        let refused = encrypt(&longer, &receiver().recipient(), &ephemeral, [5; 16]);
        assert_eq!(refused, Err(TooLong));
    }

    #[test]
    fn body_that_was_cut_or_changed_is_refused_and_never_panics() {
        let body = encrypted(b"text");
        for length in 0..body.len() {
            assert!(decrypt(&body[..length], &receiver()).is_err(), "{length}");
        }
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 0x80;
            // A record size that is larger than the record is only a limit, and is not signed.
            let harmless = (SALT_BYTES..SALT_BYTES + 4).contains(&at);
            assert_eq!(decrypt(&changed, &receiver()).is_ok(), harmless, "{at}");
        }
    }

    #[test]
    fn each_fault_of_a_body_has_its_name() {
        let body = encrypted(b"text");
        let mut other = receiver();
        other.auth = AuthSecret([0; 16]);
        assert_eq!(decrypt(&body, &other), Err(DecryptError::Keys));
        let mut two_records = body.clone();
        two_records[SALT_BYTES + 2..SALT_BYTES + 4].copy_from_slice(&[0, 18]);
        assert_eq!(
            decrypt(&two_records, &receiver()),
            Err(DecryptError::Records)
        );
        let mut no_point = body;
        no_point[HEADER_BYTES - 1] ^= 1;
        assert_eq!(
            decrypt(&no_point, &receiver()),
            Err(DecryptError::Parameters)
        );

        let input_key = [1; 32];
        let (key, nonce) = record_key(&[2; 16], &input_key);
        for padded in [&b"text\x01"[..], b"text", b"\0\0", b""] {
            let (key, nonce) = cipher(&key, nonce);
            let mut record = padded.to_vec();
            key.seal_in_place_append_tag(nonce, aead::Aad::empty(), &mut record)
                .unwrap();
            let parts = Parts {
                salt: &[2; 16],
                key_id: b"",
                record: &record,
            };
            let refused = decrypt_record(&parts, &input_key);
            assert_eq!(refused, Err(DecryptError::Padding), "{padded:?}");
        }
    }
}
