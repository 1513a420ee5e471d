//! Connections that this program opens, for the client commands: the one place that knows how.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use smol::Timer;
use smol::future::or;
use smol::net::TcpStream;

use crate::protocol::peer_url::PeerUrl;

/// What is read from and written to.
pub(super) type Stream = TcpStream;

/// How long looking up the name and connecting may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the host of `url`; `ca` is a file of certificates to trust beside the usual ones.
pub(super) async fn connect(url: &PeerUrl, ca: Option<&Path>) -> Result<Stream, ConnectError> {
    let _ = ca; // for TLS
    if url.tls() {
        return Err(ConnectError::NoTls);
    }
    let connecting = async {
        let stream = TcpStream::connect((url.host(), url.port())).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let late = async {
        Timer::after(CONNECT_TIMEOUT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    or(connecting, late).await.map_err(ConnectError::Io)
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// Asked for, but not in this program. Trying again is no use.
    NoTls,
    /// Not reached.
    Io(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTls => f.write_str("https:// and wss:// are not built into this edgepush yet"),
            Self::Io(error) => write!(f, "cannot connect: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {}
