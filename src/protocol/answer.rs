//! What a push service answers to HTTP, as application servers and user agents read it.

use std::time::Duration;

use serde_json::Value;

/// Longest text of an answer that is shown, in characters.
const MESSAGE_CHARS_MAX: usize = 400;
/// Longest pause that the other side can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// An answer, as far as anybody here looks at it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Location`: the URL of the accepted message.
    pub location: Option<String>,
    /// `Retry-After`, as it was sent: seconds or a date.
    pub retry_after: Option<String>,
    /// `TTL`: how long the message is kept, in seconds.
    pub ttl: Option<String>,
    /// The body, or the beginning of it.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether what was asked for is done.
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// Whether asking again later may help.
    pub const fn may_pass(&self) -> bool {
        matches!(self.status, 408 | 429 | 500..=599)
    }

    /// Where it sends on to, if it does: as it was sent.
    pub fn redirect(&self) -> Option<&str> {
        let sends_on = matches!(self.status, 301 | 302 | 303 | 307 | 308);
        self.location.as_deref().filter(|_| sends_on)
    }

    /// What `Retry-After` asks for, within reason; a date counts as nothing.
    pub fn asked_for(&self) -> Duration {
        let text = self.retry_after.as_deref();
        let secs = text.and_then(|text| text.trim().parse().ok());
        secs.map_or(Duration::ZERO, Duration::from_secs)
            .min(RETRY_AFTER_MAX)
    }

    /// That `who` opens no websocket, and why. Not fit for a terminal as it is.
    pub fn refusal(&self, who: &str) -> String {
        let status = self.status;
        match self.message() {
            Some(message) => format!("{who} refuses the websocket with {status}: {message}"),
            None => format!("{who} refuses the websocket with {status}"),
        }
    }

    /// What the other side has to say: the `message` of a JSON body, or the first line of a plain
    /// one. Not fit for a terminal as it is.
    pub fn message(&self) -> Option<String> {
        let message = match serde_json::from_slice::<Value>(&self.body) {
            Ok(json) => {
                let mut texts = ["message", "error", "reason"].into_iter();
                texts.find_map(|name| json.get(name)?.as_str().map(str::to_owned))?
            }
            Err(_) => {
                let text = str::from_utf8(&self.body).ok()?.trim();
                // A page for browsers says nothing to a person at a shell.
                if text.starts_with('<') {
                    return None;
                }
                text.lines().next()?.to_owned()
            }
        };
        let shown: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
        (!shown.is_empty()).then_some(shown)
    }

    /// The status in words: what it means to an application server.
    pub const fn meaning(&self) -> &'static str {
        match self.status {
            200 => "OK: the user agent has been told",
            201 => "Created: the user agent has it, or it is kept",
            202 => "Accepted: it is kept for the user agent",
            203..=299 => "accepted",
            301 | 302 | 303 | 307 | 308 => "moved: it is not followed",
            400 => "Bad Request: the push service does not take it like this",
            401 => "Unauthorized: it wants another VAPID key or token",
            403 => "Forbidden",
            404 => "Not Found: no such endpoint",
            405 => "Method Not Allowed: the endpoint does not take this kind of request",
            408 => "Request Timeout",
            410 => "Gone: the subscription has ended, forget its endpoint",
            413 => "Payload Too Large",
            429 => "Too Many Requests: too much waits for this user agent",
            500 => "Internal Server Error",
            502 => "Bad Gateway: what stands before the push service cannot reach it",
            503 => "Service Unavailable: the push service cannot take it now",
            504 => "Gateway Timeout: what stands before the push service cannot reach it",
            402 | 406 | 407 | 409 | 411 | 412 | 414..=428 | 430..=499 => "refused",
            _ => "no answer that a push service gives",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::Response;
    use crate::protocol::problem::Problem;

    fn message(body: &[u8]) -> Option<String> {
        let answer = Answer {
            body: body.to_vec(),
            ..Answer::default()
        };
        answer.message()
    }

    #[test]
    fn message_of_our_own_answers_is_found() {
        let body = Response::from(Problem::MissingTtl).body;
        assert_eq!(
            message(body.as_bytes()).as_deref(),
            Some("Missing TTL value")
        );
    }

    #[test]
    fn first_line_of_a_plain_answer_is_shown_and_no_page() {
        assert_eq!(message(b" No.\nReally ").as_deref(), Some("No."));
        assert_eq!(message(br#"{"error":"No"}"#).as_deref(), Some("No"));
        for body in [
            &b""[..],
            b"\xff",
            b"<html>No</html>",
            b"{}",
            b"[]",
            br#"{"message":1}"#,
        ] {
            assert_eq!(message(body), None);
        }
        let long = "x".repeat(MESSAGE_CHARS_MAX + 1);
        let shown = message(long.as_bytes()).unwrap();
        assert_eq!(shown.len(), MESSAGE_CHARS_MAX);
    }

    #[test]
    fn retry_after_is_obeyed_within_reason() {
        let asked_for = |text: Option<&str>| {
            let answer = Answer {
                retry_after: text.map(str::to_owned),
                ..Answer::default()
            };
            answer.asked_for()
        };
        for (text, secs) in [
            ("30", 30),
            ("0", 0),
            ("99999999999", 600),
            ("-1", 0),
            ("Mon", 0),
        ] {
            assert_eq!(asked_for(Some(text)).as_secs(), secs, "{text}");
        }
        assert_eq!(asked_for(None), Duration::ZERO);
    }
}
