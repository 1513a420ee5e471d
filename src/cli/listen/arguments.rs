//! The arguments of `edgepush listen`.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use super::output::Form;
use crate::protocol::encryption::{POINT_BYTES, PublicKey};
use crate::protocol::keyring::decode_base64url;
use crate::protocol::peer_url::PeerUrl;

/// The answer to `--help`.
pub(in crate::cli) const HELP: &str = "\
A small user agent: has one subscription and prints what it receives.

Usage: edgepush listen [options] URL

URL is the gateway: ws://HOST:PORT/, wss://..., http://..., https://... or
HOST:PORT.

Options:
  --exec CMD          run CMD with sh -c for each update and each message, one
                      after the other; it is acknowledged when CMD has ended
  --json              print one JSON object a line
  --once              end after the first update or message
  --state FILE        what makes the next start the same user agent; holds
                      secrets (default edgepush-listen.json)
  --simplepush        speak SimplePush: version updates only
  --key KEY           let only the owner of this VAPID key send (base64url;
                      edgepush vapid prints it)
  --ca FILE           certificates to trust, for wss:// and https://
  -h, --help          print this

It prints lines that begin with
  endpoint URL                  where to send to
  subscription JSON             the same with its keys, for a web push library
  update version=N [data=TEXT]  a version update
  message TEXT                  a message, decrypted; \\n, \\\\ and \\xff escape

CMD finds the data or the message on its standard input and in its environment
EDGEPUSH_KIND (update or message), EDGEPUSH_VERSION, EDGEPUSH_DATA and
EDGEPUSH_ENDPOINT.

Example:
  edgepush listen raspberrypi:8090 --exec 'notify-send \"$EDGEPUSH_DATA\"'
";

/// What `edgepush listen` is to do.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::cli) struct Options {
    pub(super) url: PeerUrl,
    pub(super) exec: Option<OsString>,
    pub(super) form: Form,
    pub(super) once: bool,
    pub(super) state: PathBuf,
    pub(super) simplepush: bool,
    pub(super) key: Option<String>,
    pub(super) ca: Option<PathBuf>,
}

/// Reads what stands behind `listen`; `None` if help is asked for.
///
/// # Errors
///
/// The first argument that is not understood, by name.
pub(in crate::cli) fn read(parser: &mut Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut url = None;
    let mut exec = None;
    let mut form = Form::Plain;
    let (mut once, mut simplepush) = (false, false);
    let mut state = PathBuf::from("edgepush-listen.json");
    let (mut key, mut ca) = (None, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("exec") => exec = Some(parser.value()?),
            Arg::Long("json") => form = Form::Json,
            Arg::Long("once") => once = true,
            Arg::Long("state") => state = parser.value()?.into(),
            Arg::Long("simplepush") => simplepush = true,
            Arg::Long("key") => key = Some(server_key(&parser.value()?.string()?)?),
            Arg::Long("ca") => ca = Some(PathBuf::from(parser.value()?)),
            Arg::Value(text) if url.is_none() => {
                let text = text.string()?;
                url = Some(PeerUrl::new(&text).map_err(|error| format!("URL {error}"))?);
            }
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        }
    }
    if simplepush && key.is_some() {
        return Err("--key is not for --simplepush".into());
    }
    Ok(Some(Options {
        url: url.ok_or("the URL of the gateway is missing")?,
        exec,
        form,
        once,
        state,
        simplepush,
        key,
        ca,
    }))
}

/// The key as it is registered: without padding.
fn server_key(text: &str) -> Result<String, String> {
    let point = decode_base64url(text, POINT_BYTES).and_then(|bytes| PublicKey::new(&bytes));
    match point {
        Some(_) => Ok(text.trim_end_matches('=').to_owned()),
        None => Err("--key must be the base64url of a P-256 public key of 65 bytes".to_owned()),
    }
}
