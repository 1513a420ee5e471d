//! p256: the keys of a subscription. ring makes none that can be kept.

use std::fmt;

use p256::ecdh::diffie_hellman;
use p256::elliptic_curve::sec1::ToEncodedPoint;

/// Bytes of a private key.
pub const SCALAR_BYTES: usize = 32;
/// Bytes of a public key: an uncompressed point, the only form that RFC 8291 section 3.1 knows.
pub const POINT_BYTES: usize = 65;
/// Bytes of the secret that user agent and application server share (RFC 8291 section 3.2).
pub const AUTH_BYTES: usize = 16;

/// A private key on P-256.
pub struct PrivateKey(p256::SecretKey);

impl PrivateKey {
    /// Takes 32 random bytes; `None` for the one in four thousand million that are no key.
    pub fn new(bytes: &[u8; SCALAR_BYTES]) -> Option<Self> {
        p256::SecretKey::from_slice(bytes).ok().map(Self)
    }

    /// As it is kept.
    pub fn to_bytes(&self) -> [u8; SCALAR_BYTES] {
        self.0.to_bytes().into()
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }

    /// The secret that only the owners of both private keys can compute (ECDH).
    pub(super) fn agree(&self, peer: &PublicKey) -> [u8; SCALAR_BYTES] {
        let shared = diffie_hellman(self.0.to_nonzero_scalar(), peer.0.as_affine());
        (*shared.raw_secret_bytes()).into()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A public key on P-256.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicKey(p256::PublicKey);

impl PublicKey {
    /// Takes an uncompressed point; `None` for anything else, and for what is not on the curve.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != POINT_BYTES {
            return None;
        }
        p256::PublicKey::from_sec1_bytes(bytes).ok().map(Self)
    }

    /// As an uncompressed point.
    pub fn to_bytes(&self) -> [u8; POINT_BYTES] {
        let point = self.0.to_encoded_point(false);
        let bytes = point.as_bytes().try_into();
        bytes.expect("a public key is never the point at infinity")
    }
}

/// The secret that user agent and application server share, beside the key agreement.
#[derive(Clone, Eq, PartialEq)]
pub struct AuthSecret(pub [u8; AUTH_BYTES]);

impl fmt::Debug for AuthSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        assert!(PrivateKey::new(&[0; 32]).is_none());
        assert!(PrivateKey::new(&[0xff; 32]).is_none());
        let key = PrivateKey::new(&[7; 32]).unwrap();
        assert_eq!(key.to_bytes(), [7; 32]);

        let mut point = key.public().to_bytes();
        assert_eq!(PublicKey::new(&point), Some(key.public()));
        assert_eq!(PublicKey::new(&point[..64]), None);
        assert_eq!(PublicKey::new(&[0]), None, "infinity");
        let mut compressed = point[..33].to_vec();
        compressed[0] = 2 + (point[64] & 1);
        assert_eq!(PublicKey::new(&compressed), None);
        point[64] ^= 1;
        assert_eq!(PublicKey::new(&point), None, "not on the curve");
    }

    #[test]
    fn debug_output_of_secrets_does_not_reveal_them() {
        let key = PrivateKey::new(&[7; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        assert_eq!(format!("{:?}", AuthSecret([7; 16])), "AuthSecret(..)");
    }
}
