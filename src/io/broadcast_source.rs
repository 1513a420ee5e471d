//! Where broadcasts come from: a server in the megaphone's form, or a file, looked at now and then.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use log::{info, warn};

use super::aside::aside;
use super::connect::Connector;
use super::gateway::Gateway;
use super::http_client::{self, ClientError, Question};
use super::reactor::Timer;
use crate::engine::Input;
use crate::protocol::broadcast_list::{self, LIST_BYTES_MAX, ListError};
use crate::protocol::peer_url::PeerUrl;

/// Where broadcasts come from.
#[derive(Debug)]
pub enum BroadcastSource {
    /// A server.
    Url(PeerUrl, Connector),
    /// A file.
    File(PathBuf),
}

impl BroadcastSource {
    /// Reads it every `poll` and tells the engine. Never ends.
    ///
    /// A fault is logged when it begins and when it ends, not each time.
    pub async fn run(self, gateway: Rc<Gateway>, poll: Duration) {
        let mut healthy = true;
        loop {
            let read = self.read().await;
            let list = read.and_then(|bytes| Ok(broadcast_list::parse(&bytes)?));
            match list {
                Ok(versions) => {
                    if !healthy {
                        info!("broadcasts can be read again count={}", versions.len());
                    }
                    healthy = true;
                    gateway.turn(Input::Broadcasts(versions));
                }
                Err(fault) => {
                    if healthy {
                        warn!("broadcasts cannot be read, what is known stays: {self} {fault}");
                    }
                    healthy = false;
                }
            }
            Timer::after(poll).await;
        }
    }

    async fn read(&self) -> Result<Vec<u8>, Fault> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let reading = aside("edgepush-broadcasts", move || read_file(&path));
                reading.await.and_then(|read| read).map_err(Fault::File)
            }
            Self::Url(url, connector) => {
                let question = Question {
                    method: "GET",
                    url,
                    headers: vec![("accept", "application/json".to_owned())],
                    body: Vec::new(),
                };
                let answer = http_client::ask(question, connector).await;
                let answer = answer.map_err(Fault::Client)?;
                if answer.status == 200 {
                    Ok(answer.body)
                } else {
                    Err(Fault::Status(answer.status))
                }
            }
        }
    }
}

impl fmt::Display for BroadcastSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Its path may hold a secret.
            Self::Url(url, _) => f.write_str(&url.origin()),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// One byte more than a list may have, so that a longer file is seen to be one.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bytes_max = (LIST_BYTES_MAX as u64).saturating_add(1);
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Why there is no list this time.
#[derive(Debug)]
enum Fault {
    File(io::Error),
    Client(ClientError),
    Status(u16),
    List(ListError),
}

impl From<ListError> for Fault {
    fn from(error: ListError) -> Self {
        Self::List(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Client(error) => error.fmt(f),
            Self::Status(status) => write!(f, "answered with status {status}"),
            Self::List(error) => error.fmt(f),
        }
    }
}
