//! The state file: what makes the next start the same user agent. It holds secrets.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::agent::Identity;
use crate::io::private_file;
use crate::model::ids::ChannelId;
use crate::protocol::encryption::{PrivateKey, ReceiverKeys, SCALAR_BYTES};
use crate::protocol::keyring::decode_base64url;
use crate::protocol::peer_url::PeerUrl;
use crate::protocol::subscription::KeysText;

/// Where the state is kept.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// The file that is at `path`, locked, so that nobody else is this user agent at the same time.
    held: Option<File>,
}

/// The file as it is written. `endpoint` and `keys` stand in it as in a subscription, so that
/// `edgepush send --to` takes it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    url: String,
    uaid: String,
    #[serde(rename = "channelID")]
    channel: Uuid,
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<KeysText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<String>,
    #[serde(rename = "application_server_key")]
    #[serde(skip_serializing_if = "Option::is_none")]
    server_key: Option<String>,
}

impl StateFile {
    /// Opens the file; its content, if it is there, with the URL that it is for.
    ///
    /// # Errors
    ///
    /// [`StateError`]; a file that cannot be used is left alone.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<(String, Identity)>), StateError> {
        let fail = |fault| StateError {
            path: path.to_owned(),
            fault,
        };
        let mut file = Self {
            path: path.to_owned(),
            held: None,
        };
        let opened = match File::open(path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((file, None)),
            Err(error) => return Err(fail(Fault::Read(error))),
        };
        match opened.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(fail(Fault::InUse)),
            Err(TryLockError::Error(error)) => return Err(fail(Fault::Read(error))),
        }
        file.held = Some(opened);
        let text = fs::read_to_string(path).map_err(|error| fail(Fault::Read(error)))?;
        let read = parse(&text).ok_or_else(|| fail(Fault::Content))?;
        Ok((file, Some(read)))
    }

    /// Writes the identity of a registered user agent.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub(super) fn keep(&mut self, url: &PeerUrl, identity: &Identity) -> Result<(), StateError> {
        let mut unfinished = self.path.as_os_str().to_owned();
        unfinished.push(".new");
        let text = to_json(url, identity);
        match private_file::replace(&self.path, Path::new(&unfinished), &text) {
            Ok(file) => {
                self.held = Some(file);
                Ok(())
            }
            Err(error) => Err(StateError {
                path: self.path.clone(),
                fault: Fault::Write(error),
            }),
        }
    }
}

fn to_json(url: &PeerUrl, identity: &Identity) -> String {
    let keys = identity.keys.as_ref();
    let mut text = serde_json::to_string_pretty(&Fields {
        url: url.to_string(),
        uaid: identity.uaid.clone().unwrap_or_default(),
        channel: identity.channel.uuid(),
        endpoint: identity.endpoint.clone().unwrap_or_default(),
        keys: keys.map(|keys| KeysText::of(&keys.recipient())),
        private_key: keys.map(|keys| BASE64URL_NOPAD.encode(&keys.private.to_bytes())),
        server_key: identity.server_key.clone(),
    })
    .expect("strings are always JSON");
    text.push('\n');
    text
}

fn parse(text: &str) -> Option<(String, Identity)> {
    let fields: Fields = serde_json::from_str(text).ok()?;
    let keys = match (fields.keys, fields.private_key) {
        (Some(keys), Some(private)) => {
            let recipient = keys.decode().ok()?;
            let bytes: [u8; SCALAR_BYTES] =
                decode_base64url(&private, SCALAR_BYTES)?.try_into().ok()?;
            let private = PrivateKey::new(&bytes)?;
            if private.public() != recipient.public {
                return None;
            }
            let auth = recipient.auth;
            Some(ReceiverKeys { private, auth })
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return None,
    };
    PeerUrl::endpoint(&fields.endpoint).ok()?;
    let identity = Identity {
        uaid: Some(fields.uaid),
        channel: ChannelId::from_uuid(fields.channel),
        endpoint: Some(fields.endpoint),
        keys,
        server_key: fields.server_key,
    };
    Some((fields.url, identity))
}

/// A state file that cannot be used.
#[derive(Debug)]
pub(super) struct StateError {
    path: PathBuf,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    Read(io::Error),
    Write(io::Error),
    Content,
    InUse,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Read(error) => write!(f, "cannot read the state file {path}: {error}"),
            Fault::Write(error) => write!(f, "cannot write the state file {path}: {error}"),
            Fault::Content => write!(
                f,
                "state file {path} is damaged, or is none; restore it, or give another --state (which \
                 makes a new user agent with a new endpoint)"
            ),
            Fault::InUse => write!(
                f,
                "another edgepush listen is using the state file {path}; stop it, or give another --state"
            ),
        }
    }
}

impl std::error::Error for StateError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::encryption::AuthSecret;
    use crate::protocol::subscription::Subscription;

    fn identity() -> Identity {
        Identity {
            uaid: Some("u".to_owned()),
            channel: ChannelId::from_bytes([0xab; 16]),
            endpoint: Some("http://h/wpush/v1/t".to_owned()),
            keys: Some(ReceiverKeys {
                private: PrivateKey::new(&[7; 32]).unwrap(),
                auth: AuthSecret([8; 16]),
            }),
            server_key: Some("k".to_owned()),
        }
    }

    fn text() -> String {
        to_json(&PeerUrl::new("ws://h").unwrap(), &identity())
    }

    #[test]
    fn state_is_read_as_it_was_written() {
        let (url, read) = parse(&text()).unwrap();
        assert_eq!(url, "http://h/");
        assert_eq!(to_json(&PeerUrl::new(&url).unwrap(), &read), text());

        let mut simplepush = identity();
        simplepush.keys = None;
        let written = to_json(&PeerUrl::new("ws://h").unwrap(), &simplepush);
        assert!(parse(&written).unwrap().1.keys.is_none());
    }

    #[test]
    fn state_file_is_a_subscription_as_well() {
        let subscription = Subscription::from_json(&text()).unwrap();
        assert_eq!(subscription.endpoint, "http://h/wpush/v1/t");
        let keys = identity().keys.unwrap().recipient();
        assert_eq!(subscription.keys, Some(keys));
    }

    #[test]
    fn state_that_was_damaged_is_refused() {
        let text = text();
        for damaged in [
            String::new(),
            "{}".to_owned(),
            text[..text.len() / 2].to_owned(),
            text.replace("uaid", "uaib"),
            text.replace("\"BwcH", "\"BwcI"),
            text.replace("private_key", "private"),
            text.replace("http://h/wpush", "h/wpush"),
            text.replace("abab", "abaz"),
        ] {
            assert!(parse(&damaged).is_none(), "{damaged}");
        }
    }
}
