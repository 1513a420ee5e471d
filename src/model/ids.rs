//! Names of user agents, subscriptions and push messages.

use std::fmt;

use uuid::Uuid;

/// The push service's name for one user agent (`uaid` on the wire).
///
/// Whoever knows it can take over the user agent's connection, so it is never logged whole:
/// use [`tag`](Self::tag).
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uaid(Uuid);

impl Uaid {
    /// Wraps the 16 bytes of a UAID as `protocol::token` minted them or the disk kept them.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes, as they are kept on disk.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The UUID behind the name, for its spellings.
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The first eight hex digits: enough to follow one user agent through a log.
    pub fn tag(self) -> Tag {
        Tag(self.0.as_fields().0)
    }
}

impl fmt::Debug for Uaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uaid({}..)", self.tag())
    }
}

/// What a log line may say of a [`Uaid`]: 8 hex digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tag(u32);

impl Tag {
    /// Takes 8 hex digits, as the log spells them.
    pub fn new(text: &str) -> Option<Self> {
        let is_hex = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u32::from_str_radix(text, 16).ok()?;
        is_hex.then_some(Self(number))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The user agent's name for one of its subscriptions (`channelID` on the wire).
///
/// Unique within one user agent only.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChannelId(Uuid);

impl ChannelId {
    /// Names the subscription by `uuid`; version and variant bits do not matter.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Wraps the 16 bytes that the disk kept or a token held.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes, as they are kept on disk.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The UUID behind the name, for its spellings.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

/// One push message, and its place in the order of all of them.
///
/// The upper bits count the starts of the gateway on this database, the lower ones the messages
/// since, from a random number on. So an id is not given twice: not when messages that were never
/// written are lost with the process, and not when an older copy of the database is put back, whose
/// runs are counted once more. A user agent drops what it has seen before by the name that is made
/// of the id.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageId(i64);

/// Bits of a [`MessageId`] that count messages within one run: 10^12.
const SEQUENCE_BITS: u32 = 40;
/// Bits of the random number that they start from. The other half is left for counting: 17 years at
/// 1,000 a second. Two runs of one number that give 10,000 ids each share some with a chance of 1 in
/// 27 million.
const START_BITS: u32 = SEQUENCE_BITS - 1;
/// Runs that fit above them in a positive `i64`, which is what SQLite keeps: 8 million.
const RUNS_MAX: i64 = i64::MAX >> SEQUENCE_BITS;

impl MessageId {
    /// Below every id that is ever given: "from the first one on".
    pub const ZERO: Self = Self(0);

    /// The id before the first of the given run, of which `random` decides; `None` when the runs are
    /// used up.
    pub const fn before_run(run: u32, random: [u8; 8]) -> Option<Self> {
        let run = run as i64;
        if run > RUNS_MAX {
            return None;
        }
        let start = u64::from_be_bytes(random) >> (u64::BITS - START_BITS);
        Some(Self(run << SEQUENCE_BITS | start.cast_signed()))
    }

    /// The run that gave the id.
    pub const fn run(self) -> i64 {
        self.0 >> SEQUENCE_BITS
    }

    /// The next id. Stops at the end of the numbers instead of starting again.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// As the disk keeps it.
    pub const fn as_i64(self) -> i64 {
        self.0
    }

    /// As the disk kept it.
    pub const fn from_i64(value: i64) -> Self {
        Self(value)
    }
}

/// Names one database file, so that a token tells whether it was minted under this one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DatabaseId(pub [u8; 8]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_of_a_uaid_does_not_reveal_it() {
        let uaid = Uaid::from_bytes((0x0123_4567_89ab_cdef_u128 << 64).to_be_bytes());
        assert_eq!(format!("{uaid:?}"), "Uaid(01234567..)");
    }

    #[test]
    fn ids_of_a_later_run_come_after_all_of_an_earlier_one() {
        let late_in_first = MessageId::from_i64((2 << SEQUENCE_BITS) - 1);
        assert!(MessageId::before_run(2, [0; 8]).unwrap().next() > late_in_first);
        assert_eq!(MessageId::before_run(u32::MAX, [0; 8]), None);
    }

    #[test]
    fn run_counted_twice_does_not_give_the_same_ids() {
        let first = |random| MessageId::before_run(7, random).unwrap().next();
        let (one, other) = (first([0xff; 8]), first([0x7f; 8]));
        assert_eq!((one.run(), other.run()), (7, 7));
        assert!(one.as_i64() - other.as_i64() >= 1 << (START_BITS - 1));
        let room = (8 << SEQUENCE_BITS) - one.as_i64();
        assert!(room >= 1 << START_BITS, "{room}");
    }
}
