//! The list of broadcasts and their versions, in the form of the main service's megaphone
//! (PROTOCOL.md part 3, 4.7): `{"broadcasts": {"id": "version"}}`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// Largest list, in bytes: room for a thousand broadcasts. Mozilla's has a dozen.
pub const LIST_BYTES_MAX: usize = 64 << 10;

/// Reads a list.
///
/// # Errors
///
/// [`ListError`] when it is too long or has another form.
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, String>, ListError> {
    #[derive(Deserialize)]
    struct List {
        broadcasts: BTreeMap<String, String>,
    }
    if bytes.len() > LIST_BYTES_MAX {
        return Err(ListError::TooLong);
    }
    let list: List = serde_json::from_slice(bytes).map_err(|_| ListError::BadForm)?;
    Ok(list.broadcasts)
}

/// Why a text is no list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListError {
    /// More than [`LIST_BYTES_MAX`] bytes.
    TooLong,
    /// Not the JSON that it must be.
    BadForm,
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "is longer than {LIST_BYTES_MAX} bytes"),
            Self::BadForm => {
                f.write_str(r#"must be JSON such as {"broadcasts": {"id": "version"}}"#)
            }
        }
    }
}

impl std::error::Error for ListError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_read_in_the_megaphones_form_and_in_no_other() {
        let list = parse(br#"{"broadcasts":{"a/b":"\"5\""},"code":200}"#).unwrap();
        assert_eq!(list, BTreeMap::from([("a/b".into(), "\"5\"".into())]));
        for text in [
            "",
            "{}",
            "[]",
            r#"{"broadcasts":[]}"#,
            r#"{"broadcasts":{"a":1}}"#,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(ListError::BadForm), "{text}");
        }
        let padding = " ".repeat(LIST_BYTES_MAX);
        let long = format!(r#"{{"broadcasts":{{}}}}{padding}"#);
        assert_eq!(parse(long.as_bytes()), Err(ListError::TooLong));
    }
}
