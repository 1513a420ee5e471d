//! Bodies that are encrypted, and bodies that only look like it.

use arbitrary::Unstructured;
use data_encoding::BASE64URL_NOPAD;
use edgepush::protocol::encryption::{
    AuthSecret, Headers, PLAINTEXT_BYTES_MAX, PrivateKey, PublicKey, ReceiverKeys, decrypt, encrypt,
};

use crate::fields::Fields;

fn receiver() -> ReceiverKeys {
    ReceiverKeys {
        private: PrivateKey::new(&[7; 32]).expect("a good key"),
        auth: AuthSecret([8; 16]),
    }
}

fn sender() -> PrivateKey {
    PrivateKey::new(&[9; 32]).expect("a good key")
}

pub(crate) fn encryption(bytes: &[u8]) {
    let fields = Fields::of(bytes);
    let (encryption, crypto_key) = (fields.header("encryption"), fields.header("crypto-key"));
    let keyed = format!(
        "dh={}",
        BASE64URL_NOPAD.encode(&sender().public().to_bytes())
    );
    for encoding in ["aes128gcm", "aesgcm", fields.first.as_str()] {
        for crypto_key in [crypto_key.as_deref().unwrap_or_default(), &keyed] {
            let headers = Headers {
                encoding,
                encryption: encryption.as_deref().unwrap_or_default(),
                crypto_key,
            };
            // Nobody has encrypted it.
            assert!(decrypt(fields.body, headers, &receiver()).is_err());
        }
    }
    let _ = PublicKey::new(fields.body);
    let _ = there_and_back(Unstructured::new(bytes));
}

/// What was encrypted comes back, and nothing does when any part of it is changed.
fn there_and_back(mut u: Unstructured<'_>) -> arbitrary::Result<()> {
    let salt: [u8; 16] = u.arbitrary()?;
    let (at, by): (u16, u8) = (u.arbitrary()?, u.arbitrary()?);
    let (cut, longer): (u8, bool) = (u.arbitrary()?, u.arbitrary()?);
    let plaintext = u.take_rest();
    let keys = receiver();
    let body = encrypt(plaintext, &keys.recipient(), &sender(), salt);
    assert_eq!(body.is_err(), plaintext.len() > PLAINTEXT_BYTES_MAX);
    let Ok(mut body) = body else {
        return Ok(());
    };
    let headers = Headers {
        encoding: "aes128gcm",
        ..Headers::default()
    };
    assert_eq!(decrypt(&body, headers, &keys).as_deref(), Ok(plaintext));
    let at = usize::from(at) % body.len();
    body[at] ^= by;
    if cut > 200 {
        body.truncate(at);
    } else if longer {
        body.push(by);
    }
    // The size of a record is the one field that is in no key: a larger one says the same.
    let record_size = (16..20).contains(&at) && cut <= 200 && !longer;
    if by != 0 && !record_size || cut > 200 || longer {
        assert!(decrypt(&body, headers, &keys).is_err());
    }
    Ok(())
}
