//! `edgepush send`: an application server for people with a shell.

pub(super) mod arguments;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use self::arguments::{MessageHeaders, Options, Push};
use super::text::one_line;
use super::{fail, print, private_key, refuse, vapid};
use crate::io::connect::Connector;
use crate::io::http_client::{Question, ask};
use crate::io::reactor::block_on;
use crate::io::{clock, entropy};
use crate::protocol::answer::Answer;
use crate::protocol::encryption::{PLAINTEXT_BYTES_MAX, RecipientKeys, TooLong, encrypt};
use crate::protocol::form;
use crate::protocol::peer_url::PeerUrl;
use crate::protocol::subscription::Subscription;

/// Sends once.
pub(super) fn run(options: &Options) -> ExitCode {
    let prepared = target(options).and_then(|(url, keys)| {
        let request = request(options, &url, keys.as_ref())?;
        Ok((url, request))
    });
    let (url, request) = match prepared {
        Ok(prepared) => prepared,
        Err(message) => return refuse(format_args!("edgepush: {message}")),
    };
    let question = Question {
        method: request.method,
        url: &url,
        headers: request.headers,
        body: request.body,
    };
    let connector = Connector::new(options.ca.clone());
    match block_on(ask(question, &connector)) {
        Ok(answer) if answer.is_success() => print(&accepted(&answer, request.ttl_secs)),
        Ok(answer) => fail(refused(&answer)),
        Err(error) => fail(one_line(&error.to_string())),
    }
}

/// Where to send, and what to encrypt with if it is known.
fn target(options: &Options) -> Result<(PeerUrl, Option<RecipientKeys>), String> {
    let (endpoint, keys) = match &options.to {
        Some(path) => {
            let subscription = subscription(path)?;
            let url = PeerUrl::endpoint(&subscription.endpoint)
                .map_err(|error| format!("endpoint in {} {error}", path.display()))?;
            (Some(url), subscription.keys)
        }
        None => (None, None),
    };
    let url = options.endpoint.clone().or(endpoint);
    let url = url.ok_or("ENDPOINT or --to is missing")?;
    Ok((url, options.keys.clone().or(keys)))
}

fn subscription(path: &Path) -> Result<Subscription, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    Subscription::from_json(&text).map_err(|error| format!("cannot use {shown}: {error}"))
}

/// What goes to the push service.
struct Request {
    method: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The TTL that is asked for.
    ttl_secs: Option<u32>,
}

fn request(
    options: &Options,
    url: &PeerUrl,
    keys: Option<&RecipientKeys>,
) -> Result<Request, String> {
    let mut request = match &options.push {
        Push::Update { version, data } => update(*version, data.as_deref()),
        Push::Empty(headers) => message(headers, Vec::new()),
        Push::Message(text, headers) => {
            let keys = keys.ok_or(
                "the subscription has no keys to encrypt MESSAGE with; leave it out for a version update",
            )?;
            let text = text_of(text)?;
            let body = encrypted(&text, keys).map_err(|error| format!("MESSAGE is {error}"))?;
            let mut request = message(headers, body);
            let encoding = ("content-encoding", "aes128gcm".to_owned());
            request.headers.push(encoding);
            let octets = ("content-type", "application/octet-stream".to_owned());
            request.headers.push(octets);
            request
        }
    };
    if let Some(path) = &options.vapid {
        let key = vapid::read(path)?;
        let now = clock::wall();
        let subject = options.subject.as_deref();
        let value = key.authorization(&url.origin(), subject, now, &entropy::source());
        request.headers.push(("authorization", value));
    }
    Ok(request)
}

/// A version update: a form.
fn update(version: Option<u64>, data: Option<&str>) -> Request {
    let version = version.map(|version| version.to_string());
    let fields = [("version", version.as_deref()), ("data", data)];
    let given = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let fields: Vec<_> = given.collect();
    Request {
        method: "PUT",
        headers: vec![("content-type", form::CONTENT_TYPE.to_owned())],
        body: form::write(&fields).into_bytes(),
        ttl_secs: None,
    }
}

fn message(headers: &MessageHeaders, body: Vec<u8>) -> Request {
    let mut all = vec![("ttl", headers.ttl_secs.to_string())];
    if let Some(topic) = &headers.topic {
        all.push(("topic", topic.clone()));
    }
    if let Some(urgency) = &headers.urgency {
        all.push(("urgency", urgency.clone()));
    }
    Request {
        method: "POST",
        headers: all,
        body,
        ttl_secs: Some(headers.ttl_secs),
    }
}

/// `MESSAGE`, or what comes on standard input; of that no more is read than is needed to know
/// that it is too long.
fn text_of(argument: &OsStr) -> Result<Vec<u8>, String> {
    if argument != "-" {
        return Ok(argument.as_bytes().to_vec());
    }
    let mut text = Vec::new();
    let limit = PLAINTEXT_BYTES_MAX as u64;
    io::stdin()
        .take(limit.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(|error| format!("cannot read MESSAGE from standard input: {error}"))?;
    Ok(text)
}

fn encrypted(text: &[u8], keys: &RecipientKeys) -> Result<Vec<u8>, TooLong> {
    encrypt(text, keys, &private_key(), entropy::random())
}

/// What to say of a 2xx answer.
fn accepted(answer: &Answer, asked_ttl_secs: Option<u32>) -> String {
    let mut text = format!("{} {}\n", answer.status, answer.meaning());
    if let Some(location) = &answer.location {
        text.push_str(&format!("Location: {}\n", one_line(location)));
    }
    // A push service may keep a message for less than was asked for, if it says so.
    let kept = answer.ttl.as_ref().and_then(|ttl| ttl.parse::<u32>().ok());
    if let (Some(kept), Some(asked)) = (kept, asked_ttl_secs)
        && kept < asked
    {
        text.push_str(&format!("TTL: {kept} s, not {asked} s\n"));
    }
    text
}

/// What to say of any other.
fn refused(answer: &Answer) -> String {
    let mut text = format!("{} {}", answer.status, answer.meaning());
    if let Some(message) = answer.message() {
        text.push_str(&format!("\nthe push service says: {}", one_line(&message)));
    }
    if let Some(when) = &answer.retry_after {
        let unit = if when.parse::<u64>().is_ok() {
            " s"
        } else {
            ""
        };
        text.push_str(&format!("\nRetry-After: {}{unit}", one_line(when)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_is_a_form() {
        let body = |version, data| String::from_utf8(update(version, data).body).unwrap();
        assert_eq!(body(None, None), "");
        assert_eq!(body(Some(5), None), "version=5");
        assert_eq!(
            body(Some(5), Some("a b&c=ü")),
            "version=5&data=a%20b%26c%3D%C3%BC"
        );
        assert_eq!(body(None, Some("")), "data=");
    }

    #[test]
    fn ttl_is_mentioned_where_it_was_lowered() {
        let answer = |ttl: &str| Answer {
            status: 201,
            location: Some("http://h/m/t".to_owned()),
            ttl: Some(ttl.to_owned()),
            ..Answer::default()
        };
        let said = "201 Created: the user agent has it, or it is kept\nLocation: http://h/m/t\n";
        assert_eq!(accepted(&answer("60"), Some(60)), said);
        let lowered = format!("{said}TTL: 30 s, not 60 s\n");
        assert_eq!(accepted(&answer("30"), Some(60)), lowered);
    }

    #[test]
    fn refusal_says_when_to_try_again() {
        let answer = |when: &str| Answer {
            status: 503,
            retry_after: Some(when.to_owned()),
            body: br#"{"message":"full\u001b"}"#.to_vec(),
            ..Answer::default()
        };
        let said = "503 Service Unavailable: the push service cannot take it now\n\
                    the push service says: full\\u{1b}\nRetry-After: ";
        assert_eq!(refused(&answer("30")), format!("{said}30 s"));
        assert_eq!(refused(&answer("Monday")), format!("{said}Monday"));
    }
}
