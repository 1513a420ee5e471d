//! SimplePush: the number of an update, and the update itself.

use std::fmt;

/// The version of a channel: 0 to 2^63 - 1, of which a user agent remembers the highest.
///
/// Clients in JavaScript compare them as doubles, exactly up to 2^53.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version(i64);

impl Version {
    /// The highest.
    pub const MAX: Self = Self(i64::MAX);

    /// Takes `number` if it is one; `None` above [`MAX`](Self::MAX).
    pub const fn new(number: u64) -> Option<Self> {
        if number <= i64::MAX as u64 {
            Some(Self(number.cast_signed()))
        } else {
            None
        }
    }

    /// Seconds since 1970 are the versions of those who name none, for the next 290 billion years.
    pub const fn from_secs(secs: u64) -> Self {
        match Self::new(secs) {
            Some(version) => version,
            None => Self::MAX,
        }
    }

    /// The next one. Stops at the highest.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Never above 2^63 - 1.
    pub const fn as_u64(self) -> u64 {
        self.0.cast_unsigned()
    }

    /// As the disk keeps it.
    pub const fn as_i64(self) -> i64 {
        self.0
    }

    /// As the disk kept it; `None` for a negative number, which is never written.
    pub const fn from_i64(value: i64) -> Option<Self> {
        if value < 0 { None } else { Some(Self(value)) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version that an update is accepted under.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NewVersion {
    /// Named by the application server, or sent to the user agent already.
    Exact(Version),
    /// Not named: this one, or a higher one if the channel has had it before.
    AtLeast(Version),
}

impl NewVersion {
    /// The number as far as it is known.
    pub const fn version(self) -> Version {
        match self {
            Self::Exact(version) | Self::AtLeast(version) => version,
        }
    }
}

/// What SimplePush delivers instead of a message: "there is something new".
#[derive(Clone, Eq, PartialEq)]
pub struct VersionUpdate {
    /// Its number.
    pub version: NewVersion,
    /// A short text that travels with it; never empty.
    pub data: Option<Box<str>>,
}

impl VersionUpdate {
    /// An update that says nothing but its number.
    pub const fn bare(version: NewVersion) -> Self {
        Self {
            version,
            data: None,
        }
    }
}

/// Its text is a secret of the application server.
impl fmt::Debug for VersionUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VersionUpdate({:?})", self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_takes_63_bits_and_not_one_more() {
        let max = (1 << 63) - 1;
        assert_eq!(Version::new(max), Some(Version::MAX));
        assert_eq!(Version::new(max + 1), None);
        assert_eq!(Version::MAX.as_u64(), max);
        assert_eq!(Version::MAX.next(), Version::MAX);
        assert_eq!(Version::from_secs(u64::MAX), Version::MAX);
        assert_eq!(Version::from_i64(-1), None);
    }
}
