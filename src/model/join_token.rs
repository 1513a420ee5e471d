//! Secrets that let a user agent in from anywhere.

use std::fmt;

use subtle::ConstantTimeEq;

use super::message::is_base64url;

/// Shortest join token, in characters: 96 bits where it is random, which nobody guesses over a network.
pub const JOIN_TOKEN_CHARS_MIN: usize = 16;
/// Longest join token, in characters.
pub const JOIN_TOKEN_CHARS_MAX: usize = 128;
/// Most join tokens: one for each household is meant, not one for each user agent.
pub const JOIN_TOKENS_MAX: usize = 100;

/// The first part of the path by which a user agent may connect from anywhere: characters of the
/// base64url alphabet. Never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct JoinToken(Box<str>);

impl JoinToken {
    /// Takes `text` if it is a join token: of so many characters, and without padding.
    pub fn new(text: &str) -> Option<Self> {
        let is_long_enough = (JOIN_TOKEN_CHARS_MIN..=JOIN_TOKEN_CHARS_MAX).contains(&text.len());
        let fits = is_long_enough && is_base64url(text) && !text.ends_with('=');
        fits.then(|| Self(text.into()))
    }

    /// Whether `text` is this token. How long that takes tells nothing but its length.
    pub fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_token_is_16_to_128_characters_of_base64url() {
        for good in ["a".repeat(16), "A-_9".repeat(32)] {
            assert!(JoinToken::new(&good).is_some(), "{good}");
        }
        for bad in [
            String::new(),
            "a".repeat(15),
            "a".repeat(129),
            "a".repeat(15) + "=",
            "a".repeat(15) + "/",
            "a".repeat(15) + "+",
            "ä".repeat(16),
        ] {
            assert!(JoinToken::new(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn join_token_is_itself_alone_and_is_not_shown() {
        let token = JoinToken::new("0123456789abcdef").unwrap();
        assert!(token.is("0123456789abcdef"));
        for other in [
            "",
            "0123456789abcdeF",
            "0123456789abcde",
            "0123456789abcdef0",
        ] {
            assert!(!token.is(other), "{other}");
        }
        assert_eq!(format!("{token:?}"), "JoinToken");
    }
}
