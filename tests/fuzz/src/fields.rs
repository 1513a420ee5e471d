//! How an input is laid out where a target needs more than one text: as an HTTP request is.

use edgepush::protocol::push_request::PushHeaders;

/// A first line, headers, and a body behind an empty line.
pub(crate) struct Fields<'a> {
    pub(crate) first: String,
    headers: Vec<(String, String)>,
    pub(crate) body: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let mut rest = bytes;
        let mut lines = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            rest = &rest[end + 1..];
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let mut lines = lines.into_iter();
        let first = lines.next().unwrap_or_default();
        let split = |line: String| {
            let (name, value) = line.split_once(':')?;
            let value = value.strip_prefix(' ').unwrap_or(value);
            Some((name.to_ascii_lowercase(), value.to_owned()))
        };
        Self {
            first,
            headers: lines.filter_map(split).collect(),
            body: rest,
        }
    }

    /// A header; a repeated one is joined.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values = self.headers.iter().filter(|(known, _)| known == name);
        let values: Vec<&str> = values.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn push_headers(&self) -> PushHeaders {
        PushHeaders {
            authorization: self.header("authorization"),
            content_encoding: self.header("content-encoding"),
            content_type: self.header("content-type"),
            crypto_key: self.header("crypto-key"),
            encryption: self.header("encryption"),
            topic: self.header("topic"),
            ttl: self.header("ttl"),
            urgency: self.header("urgency"),
        }
    }
}
