//! What tests of encryption share.

use data_encoding::BASE64URL_NOPAD;

use super::{AuthSecret, PrivateKey, ReceiverKeys};

pub(crate) fn bytes<const N: usize>(text: &str) -> [u8; N] {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    bytes.try_into().unwrap()
}

/// The same each time.
pub(crate) fn receiver() -> ReceiverKeys {
    ReceiverKeys {
        private: PrivateKey::new(&[7; 32]).unwrap(),
        auth: AuthSecret([8; 16]),
    }
}
