//! Text from outside, made fit for one line of a terminal.

/// Escapes what would end the line or steer the terminal, and the backslash that escapes.
pub(super) fn one_line(text: &str) -> String {
    one_line_of_bytes(text.as_bytes())
}

/// The same for bytes; those that are not UTF-8 become `\xff`.
pub(super) fn one_line_of_bytes(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char == '\\' || is_unfit(char) {
                // Spells \n, \r, \t and \\ by name and the others as \u{1b}.
                line.extend(char.escape_default());
            } else {
                line.push(char);
            }
        }
        for byte in chunk.invalid() {
            line.push_str(&format!("\\x{byte:02x}"));
        }
    }
    line
}

/// Controls, the separators that some programs end a line at, and what turns the direction of text.
fn is_unfit(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_one_line_stays_as_it_is() {
        for text in ["", "The washing is done", "Größe: 5 € \"x\" 'y' 🧺"] {
            assert_eq!(one_line(text), text);
        }
    }

    #[test]
    fn nothing_ends_the_line_or_steers_the_terminal() {
        assert_eq!(one_line("a\nb\r\tc\\d"), "a\\nb\\r\\tc\\\\d");
        assert_eq!(
            one_line("\0\u{1b}[2J\u{7f}\u{9b}"),
            "\\u{0}\\u{1b}[2J\\u{7f}\\u{9b}"
        );
        assert_eq!(one_line("\u{202e}x\u{2028}"), "\\u{202e}x\\u{2028}");
        assert_eq!(one_line_of_bytes(b"a\xff\xc3"), "a\\xff\\xc3");
    }
}
