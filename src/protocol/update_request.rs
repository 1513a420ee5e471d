//! What an application server puts to an endpoint: a version and a short text, as a form
//! (PROTOCOL.md part 2, R24 to R26 and 1.5).

use std::borrow::Cow;

use super::form;
use super::problem::Problem;
use super::push_request::{Body, PushHeaders};
use crate::model::limits::UPDATE_DATA_BYTES_MAX;
use crate::model::version::Version;

/// A version update as it was put.
#[derive(Clone, Eq, PartialEq)]
pub struct UpdateDraft {
    /// Its number; `None` where the push service is to choose.
    pub version: Option<Version>,
    /// Its text; never empty.
    pub data: Option<Box<str>>,
}

/// Reads the body if it is a form or does not say what it is, and the query of the URL where the
/// body names no version.
///
/// # Errors
///
/// In this order: the body (408, 413), `version` (400), `data` (400, 413).
pub fn read(
    headers: &PushHeaders,
    query: Option<&str>,
    body: Body,
) -> Result<UpdateDraft, Problem> {
    let body = body.whole(Problem::DataTooLarge)?;
    let body = if is_form(headers.content_type.as_deref()) {
        body.as_slice()
    } else {
        // Curl in a hurry, and every JSON library: somebody wants to say "now".
        &[]
    };
    let query = query.unwrap_or_default().as_bytes();
    let version = field(body, b"version").or_else(|| field(query, b"version"));
    let data = field(body, b"data").or_else(|| field(query, b"data"));
    Ok(UpdateDraft {
        version: version.as_deref().map(number).transpose()?,
        data: data.map(text).transpose()?,
    })
}

fn is_form(content_type: Option<&str>) -> bool {
    content_type.is_none_or(|content_type| {
        let media_type = content_type.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case(form::CONTENT_TYPE)
    })
}

/// The first value of `name` that is not empty.
fn field<'a>(form: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    form.split(|byte| *byte == b'&').find_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let is_named = parts.next().is_some_and(|key| *decode(key) == *name);
        let value = parts.next().filter(|value| is_named && !value.is_empty())?;
        Some(decode(value))
    })
}

/// A form's own escapes: `+` for a space, `%41` for a byte. What is none stays as it is.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        decoded.push(match (*byte, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, behind @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = behind;
                    // Two digits of four bits each fill a byte.
                    (high << 4 | low) as u8
                }
                _ => b'%',
            },
            (other, _) => other,
        });
    }
    Cow::Owned(decoded)
}

fn number(text: &[u8]) -> Result<Version, Problem> {
    let digits = text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| digits);
    number
        .and_then(|number| number.parse().ok())
        .and_then(Version::new)
        .ok_or(Problem::BadVersion)
}

fn text(bytes: Cow<'_, [u8]>) -> Result<Box<str>, Problem> {
    if bytes.len() > UPDATE_DATA_BYTES_MAX {
        return Err(Problem::DataTooLarge);
    }
    let text = String::from_utf8(bytes.into_owned()).map_err(|_| Problem::BadData)?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl std::fmt::Debug for UpdateDraft {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{:?} {:?}", self.version, self.data)
        }
    }

    fn put(
        content_type: Option<&str>,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<(Option<u64>, Option<String>), Problem> {
        let headers = PushHeaders {
            content_type: content_type.map(str::to_owned),
            ..PushHeaders::default()
        };
        let draft = read(&headers, query, Body::Whole(body.to_vec()))?;
        Ok((
            draft.version.map(Version::as_u64),
            draft.data.map(String::from),
        ))
    }

    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");

    #[test]
    fn version_is_a_number_of_63_bits() {
        for (body, version) in [
            ("version=5", 5),
            ("version=0", 0),
            ("version=007", 7),
            ("a=b&version=5&c", 5),
            ("version=5&version=6", 5),
            ("version=&version=6", 6),
            ("%76ersion=%35", 5),
            ("version=9223372036854775807", (1 << 63) - 1),
        ] {
            assert_eq!(
                put(FORM, None, body.as_bytes()),
                Ok((Some(version), None)),
                "{body}"
            );
        }
        for body in [
            "version=-1",
            "version=abc",
            "version=1.5",
            "version=1e3",
            "version=+5",
            "version=%2B5",
            "version= 5",
            "version=0x5",
            "version=\u{665}",
            "version=%ff",
            "version=9223372036854775808",
            "version=99999999999999999999999999",
        ] {
            assert_eq!(
                put(FORM, None, body.as_bytes()),
                Err(Problem::BadVersion),
                "{body}"
            );
        }
    }

    #[test]
    fn version_that_nobody_names_is_chosen_here() {
        for body in [
            "",
            "version",
            "version=",
            "=",
            "&",
            "versions=5",
            "Version=5",
        ] {
            assert_eq!(put(FORM, None, body.as_bytes()), Ok((None, None)), "{body}");
        }
    }

    #[test]
    fn body_of_another_type_is_not_looked_at() {
        for content_type in [
            "text/plain",
            "application/json",
            "multipart/form-data; boundary=x",
        ] {
            assert_eq!(
                put(Some(content_type), None, b"version=5"),
                Ok((None, None))
            );
            let query = Some("version=7");
            assert_eq!(
                put(Some(content_type), query, b"version=5"),
                Ok((Some(7), None))
            );
        }
        for content_type in [
            None,
            FORM,
            Some("Application/X-WWW-Form-Urlencoded; charset=UTF-8"),
        ] {
            assert_eq!(put(content_type, None, b"version=5"), Ok((Some(5), None)));
        }
    }

    #[test]
    fn body_wins_over_the_query() {
        assert_eq!(
            put(FORM, Some("version=7"), b"version=5"),
            Ok((Some(5), None))
        );
        assert_eq!(
            put(FORM, Some("version=7"), b"version="),
            Ok((Some(7), None))
        );
        assert_eq!(put(FORM, Some("version=x"), b""), Err(Problem::BadVersion));
    }

    #[test]
    fn data_is_text_of_4096_bytes_and_not_one_more() {
        let with = |data: &str| put(FORM, None, format!("version=5&data={data}").as_bytes());
        let data = |text: &str| Ok((Some(5), Some(text.to_owned())));
        assert_eq!(with("hello"), data("hello"));
        assert_eq!(with("a+b%20c%26d%3D%C3%A4"), data("a b c&d=ä"));
        assert_eq!(with("100%&x"), data("100%"));
        assert_eq!(with("%zz%4"), data("%zz%4"));
        assert_eq!(with(""), Ok((Some(5), None)));
        assert_eq!(with(&"x".repeat(4096)), data(&"x".repeat(4096)));
        assert_eq!(with(&"%41".repeat(4096)), data(&"A".repeat(4096)));
        assert_eq!(with(&"x".repeat(4097)), Err(Problem::DataTooLarge));
        assert_eq!(with("%ff"), Err(Problem::BadData));
    }

    #[test]
    fn body_that_did_not_arrive_is_refused_for_its_reason() {
        let headers = PushHeaders::default();
        let read = |body| read(&headers, None, body);
        assert_eq!(read(Body::TooLarge), Err(Problem::DataTooLarge));
        assert_eq!(read(Body::Incomplete), Err(Problem::BodyIncomplete));
    }
}
