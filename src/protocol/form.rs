//! `application/x-www-form-urlencoded`, as it is sent from here.

use std::fmt::Write;

/// What such a body is called in `Content-Type`.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

/// The fields in their order, by name and value. Names are taken as they are.
pub fn write(fields: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in fields {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
                form.push(char::from(byte));
            } else {
                write!(form, "%{byte:02X}").expect("a string can be written to");
            }
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_a_form_is_escaped() {
        assert_eq!(write(&[]), "");
        let fields = [("version", "7"), ("data", "a&b=c d~\u{e9}")];
        assert_eq!(write(&fields), "version=7&data=a%26b%3Dc%20d%7E%C3%A9");
    }
}
