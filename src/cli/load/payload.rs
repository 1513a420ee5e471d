//! What is sent: bytes that name their message and can be made again to compare with. The only source
//! of chance: the same seed sends the same bytes.

use std::cell::Cell;
use std::iter;

use crate::model::ids::ChannelId;
use uuid::Builder;

/// Least size of a body that names its message, in bytes.
pub(super) const SIZE_MIN: u16 = 8;

/// A source of chance: splitmix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(super) struct Chance(Cell<u64>);

impl Chance {
    pub(super) const fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub(super) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `first` to `last`, both included.
    pub(super) fn between(&self, first: u64, last: u64) -> u64 {
        let count = last.saturating_sub(first).saturating_add(1);
        let offset = self.next().checked_rem(count).unwrap_or(0);
        first.saturating_add(offset)
    }

    pub(super) fn channel(&self) -> ChannelId {
        let bytes = (u128::from(self.next()) << 64) | u128::from(self.next());
        ChannelId::from_uuid(Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid())
    }
}

/// What one message carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Payload {
    /// In bytes.
    pub(super) size: u16,
    /// Under the older encryption scheme, `aesgcm`, whose parameters travel in headers.
    pub(super) old: bool,
}

/// The body of message number `sequence`: its number, then bytes that look as if encrypted.
pub(super) fn body(seed: u64, sequence: u64, size: u16) -> Vec<u8> {
    let name = sequence.to_be_bytes().into_iter();
    let bytes = name.chain(noise(seed, sequence));
    bytes.take(usize::from(size)).collect()
}

/// The number that a body begins with.
pub(super) fn sequence(body: &[u8]) -> Option<u64> {
    body.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The `data` of version update number `sequence`: letters.
pub(super) fn data(seed: u64, sequence: u64, size: u16) -> String {
    let letters = noise(seed, sequence).map(|byte| char::from(b'a' | (byte & 0x0f)));
    letters.take(usize::from(size)).collect()
}

/// Without end.
fn noise(seed: u64, sequence: u64) -> impl Iterator<Item = u8> {
    let chance = Chance::new(seed ^ sequence.rotate_left(32));
    iter::repeat_with(move || chance.next().to_be_bytes()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_names_its_message_and_is_the_same_each_time() {
        for size in [SIZE_MIN, 9, 4096] {
            let made = body(1, 77, size);
            assert_eq!(made.len(), usize::from(size));
            assert_eq!(sequence(&made), Some(77));
            assert_eq!(made, body(1, 77, size));
        }
        assert_ne!(body(1, 77, 100)[8..], body(1, 78, 100)[8..]);
        assert_ne!(body(1, 77, 100), body(2, 77, 100));
        assert_eq!(sequence(&[0; 7]), None);
    }

    #[test]
    fn data_is_text_that_needs_no_escapes() {
        let made = data(1, 2, 300);
        assert!(made.len() == 300 && made.bytes().all(|byte| byte.is_ascii_lowercase()));
        assert_eq!(data(1, 2, 0), "");
    }

    #[test]
    fn chance_reaches_both_ends_and_nothing_beyond() {
        let chance = Chance::new(3);
        let drawn: Vec<u64> = (0..200).map(|_| chance.between(4, 7)).collect();
        assert_eq!(drawn.iter().min(), Some(&4));
        assert_eq!(drawn.iter().max(), Some(&7));
    }
}
