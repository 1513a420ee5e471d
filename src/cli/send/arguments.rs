//! The arguments of `edgepush send`.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use crate::model::message::Topic;
use crate::protocol::encryption::RecipientKeys;
use crate::protocol::peer_url::PeerUrl;
use crate::protocol::push_request::urgency_of;
use crate::protocol::subscription::KeysText;

/// The answer to `--help`.
pub(in crate::cli) const HELP: &str = "\
Sends to an endpoint: a version update, or an encrypted message.

Usage: edgepush send [options] ENDPOINT
       edgepush send [options] ENDPOINT --p256dh KEY --auth SECRET MESSAGE
       edgepush send [options] --to FILE [MESSAGE]

Without MESSAGE it is a version update. MESSAGE may have 3993 bytes; \"-\" reads
it from standard input.

Options:
  --to FILE           the subscription: JSON as browsers and edgepush listen
                      print it, or the state file of edgepush listen
  --p256dh KEY        the subscription's public key (base64url)
  --auth SECRET       the subscription's shared secret (base64url)
  --empty             send a message without a body
  --vapid FILE        sign with this key; edgepush vapid makes one
  --subject URI       whom the signature names: mailto:... or https://...
  --ca FILE           certificates to trust, for https://
  -h, --help          print this

For a version update:
  --version N         the version (default: the gateway counts)
  --data TEXT         what to send along

For a message:
  --ttl SECS          how long it may wait for the user agent (default 86400)
  --topic TOPIC       replaces an older message of the same topic
  --urgency URGENCY   very-low, low, normal or high

It ends with 0 if it was accepted, with 1 if not.

Example:
  edgepush send --to edgepush-listen.json 'The washing is done'
";

/// How long a message is kept unless something else is said, in seconds: a day, so that a user
/// agent that is switched off for the night gets it.
const TTL_SECS_DEFAULT: u32 = 86_400;

/// What `edgepush send` is to do.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::cli) struct Options {
    /// If it is missing, `to` has one.
    pub(super) endpoint: Option<PeerUrl>,
    pub(super) to: Option<PathBuf>,
    pub(super) keys: Option<RecipientKeys>,
    pub(super) push: Push,
    pub(super) vapid: Option<PathBuf>,
    pub(super) subject: Option<String>,
    pub(super) ca: Option<PathBuf>,
}

/// What is sent.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Push {
    Update {
        version: Option<u64>,
        data: Option<String>,
    },
    /// `-` stands for standard input.
    Message(OsString, MessageHeaders),
    Empty(MessageHeaders),
}

/// What travels with a message.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct MessageHeaders {
    pub(super) ttl_secs: u32,
    pub(super) topic: Option<String>,
    pub(super) urgency: Option<String>,
}

/// As they stand there, not yet put together.
#[derive(Default)]
struct Given {
    values: Vec<OsString>,
    to: Option<PathBuf>,
    p256dh: Option<String>,
    auth: Option<String>,
    empty: bool,
    version: Option<u64>,
    data: Option<String>,
    ttl_secs: Option<u32>,
    topic: Option<String>,
    urgency: Option<String>,
    vapid: Option<PathBuf>,
    subject: Option<String>,
    ca: Option<PathBuf>,
}

/// Reads what stands behind `send`; `None` if help is asked for.
///
/// # Errors
///
/// The first argument that is not understood, by name, or two that do not go together.
pub(in crate::cli) fn read(parser: &mut Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut given = Given::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("to") => given.to = Some(parser.value()?.into()),
            Arg::Long("p256dh") => given.p256dh = Some(parser.value()?.string()?),
            Arg::Long("auth") => given.auth = Some(parser.value()?.string()?),
            Arg::Long("empty") => given.empty = true,
            Arg::Long("version") => {
                let number = parser.value()?.string()?;
                let number = number.parse().map_err(|_| "--version must be a number")?;
                given.version = Some(number);
            }
            Arg::Long("data") => given.data = Some(parser.value()?.string()?),
            Arg::Long("ttl") => {
                let secs = parser.value()?.string()?;
                let secs = secs.parse().map_err(|_| "--ttl must be whole seconds")?;
                given.ttl_secs = Some(secs);
            }
            Arg::Long("topic") => given.topic = Some(topic(parser.value()?.string()?)?),
            Arg::Long("urgency") => given.urgency = Some(urgency(parser.value()?.string()?)?),
            Arg::Long("vapid") => given.vapid = Some(parser.value()?.into()),
            Arg::Long("subject") => given.subject = Some(subject(parser.value()?.string()?)?),
            Arg::Long("ca") => given.ca = Some(parser.value()?.into()),
            Arg::Value(value) if given.values.len() < 2 => given.values.push(value),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        }
    }
    Ok(Some(put_together(given)?))
}

fn put_together(given: Given) -> Result<Options, lexopt::Error> {
    let mut values = given.values.into_iter();
    let (first, second) = (values.next(), values.next());
    let (endpoint, message) = match (first, second) {
        // A message may look like a URL: with --to, one value is always the message.
        (message, None) if given.to.is_some() => (None, message),
        (endpoint, message) => (endpoint, message),
    };
    let endpoint = match endpoint {
        None if given.to.is_none() => return Err("ENDPOINT or --to is missing".into()),
        None => None,
        Some(text) => {
            let text = text.string()?;
            Some(PeerUrl::endpoint(&text).map_err(|error| format!("ENDPOINT {error}"))?)
        }
    };
    let keys = match (given.p256dh, given.auth) {
        (None, None) => None,
        (Some(p256dh), Some(auth)) => {
            let decoded = KeysText { p256dh, auth }.decode();
            Some(decoded.map_err(|error| format!("--{error}"))?)
        }
        (Some(_), None) | (None, Some(_)) => return Err("--p256dh and --auth go together".into()),
    };
    let is_update = message.is_none() && !given.empty;
    if is_update && keys.is_some() {
        return Err("there is no MESSAGE to encrypt".into());
    }
    if is_update && (given.ttl_secs.is_some() || given.topic.is_some() || given.urgency.is_some()) {
        return Err(
            "--ttl, --topic and --urgency are for a message: give MESSAGE or --empty".into(),
        );
    }
    if !is_update && (given.version.is_some() || given.data.is_some()) {
        return Err("--version and --data are for a version update, without MESSAGE".into());
    }
    if given.subject.is_some() && given.vapid.is_none() {
        return Err("--subject is for --vapid".into());
    }
    let headers = MessageHeaders {
        ttl_secs: given.ttl_secs.unwrap_or(TTL_SECS_DEFAULT),
        topic: given.topic,
        urgency: given.urgency,
    };
    let push = match message {
        Some(_) if given.empty => return Err("--empty is for no MESSAGE".into()),
        Some(_) if keys.is_none() && given.to.is_none() => {
            return Err("MESSAGE needs --p256dh and --auth, or --to".into());
        }
        Some(message) => Push::Message(message, headers),
        None if given.empty => Push::Empty(headers),
        None => Push::Update {
            version: given.version,
            data: given.data,
        },
    };
    Ok(Options {
        endpoint,
        to: given.to,
        keys,
        push,
        vapid: given.vapid,
        subject: given.subject,
        ca: given.ca,
    })
}

fn topic(text: String) -> Result<String, &'static str> {
    match Topic::new(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err("--topic must be 1 to 32 letters, digits, \"-\" or \"_\""),
    }
}

fn urgency(text: String) -> Result<String, &'static str> {
    match urgency_of(&text) {
        Some(_) => Ok(text),
        None => Err("--urgency must be one of very-low, low, normal and high"),
    }
}

/// RFC 8292 section 2.1.
fn subject(text: String) -> Result<String, &'static str> {
    if text.starts_with("mailto:") || text.starts_with("https://") {
        return Ok(text);
    }
    Err("--subject must start with mailto: or https://")
}
