//! Outgoing connections, plain or over TLS: of the commands that are clients of a gateway, and of
//! the gateway itself.
//!
//! Names are looked up and files are read on other threads.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use futures_rustls::rustls::client::Resumption;
use futures_rustls::rustls::crypto::ring::default_provider;
use futures_rustls::rustls::pki_types::ServerName;
use futures_rustls::rustls::{
    CertificateError, ClientConfig, DEFAULT_VERSIONS, Error, RootCertStore,
};
use smol::future::or;

use super::aside::aside;
use super::reactor::Timer;
use super::stream::Stream;
use super::tcp::Tcp;
use super::tls::{self, TlsError};

/// How long a peer has until the connection stands, its TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Makes connections.
#[derive(Debug)]
pub struct Connector {
    ca_file: Option<PathBuf>,
    /// Made for the first connection that needs it: reading the system's authorities takes a while.
    config: OnceCell<Arc<ClientConfig>>,
}

impl Connector {
    /// Trusts the authorities in the PEM file `ca_file`; without one, those that the system trusts.
    pub const fn new(ca_file: Option<PathBuf>) -> Self {
        Self {
            ca_file,
            config: OnceCell::new(),
        }
    }

    /// Connects to `host`, a name or an address, with TLS if `tls`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], which says whose fault it is.
    pub async fn connect(&self, host: &str, port: u16, tls: bool) -> Result<Stream, ConnectError> {
        // As it stands in an URL: [::1].
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let connecting = async {
            if tls {
                self.connect_tls(host, port).await
            } else {
                connect_plain(host, port).await.map(Stream::Plain)
            }
        };
        let late = async {
            Timer::after(CONNECT_TIMEOUT).await;
            Err(ConnectError::Late)
        };
        or(connecting, late).await
    }

    async fn connect_tls(&self, host: &str, port: u16) -> Result<Stream, ConnectError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Name)?;
        let config = self.config().await?;
        let socket = connect_plain(host, port).await?;
        let stream = TlsConnector::from(config).connect(name, socket).await;
        let stream = stream.map_err(ConnectError::of_handshake)?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    async fn config(&self) -> Result<Arc<ClientConfig>, ConnectError> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        let ca_file = self.ca_file.clone();
        let reading = aside("edgepush-roots", move || config(ca_file.as_deref()));
        let config = reading.await.map_err(ConnectError::Connect)??;
        Ok(Arc::clone(self.config.get_or_init(|| config)))
    }
}

fn config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, ConnectError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(DEFAULT_VERSIONS)
        .map_err(ConnectError::Tls)?
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![tls::HTTP_1_1.to_vec()];
    // Few connections are made: what would be kept for later ones is of no use.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    let certificates = match ca_file {
        Some(path) => tls::certificates(path).map_err(ConnectError::CaFile)?,
        // Of the system's, what can be used counts: some are always too old or too new.
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(ConnectError::NoAuthority);
    }
    Ok(roots)
}

async fn connect_plain(host: &str, port: u16) -> Result<Tcp, ConnectError> {
    let addresses = look_up(host, port).await.map_err(ConnectError::Connect)?;
    let mut failed = io::Error::other("the name has no address");
    for address in addresses {
        match Tcp::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(ConnectError::Connect(failed))
}

/// The addresses of `host`, in the order in which they are to be tried.
async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let host = host.to_owned();
    let looking = aside("edgepush-names", move || {
        let addresses = (host.as_str(), port).to_socket_addrs()?;
        Ok(addresses.collect())
    });
    looking.await.and_then(|found| found)
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The name cannot be found, or nobody listens there.
    Connect(io::Error),
    /// No connection, or no end of the handshake, in time.
    Late,
    /// TLS needs a host name or an address.
    Name,
    /// The file of authorities.
    CaFile(TlsError),
    /// Neither the file nor the system has an authority that can be used.
    NoAuthority,
    /// The peer's certificate is signed by nobody we trust.
    UnknownAuthority,
    /// The peer's certificate is for another name.
    OtherName,
    /// The peer's certificate is too old, or not valid yet.
    WrongTime,
    /// Anything else that is wrong with what the peer says.
    Tls(Error),
    /// The connection broke during the handshake.
    Handshake(io::Error),
}

impl ConnectError {
    /// Whether trying again is no use: somebody must change something.
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::Name
            | Self::CaFile(_)
            | Self::NoAuthority
            | Self::UnknownAuthority
            | Self::OtherName => true,
            Self::Connect(_) | Self::Late | Self::WrongTime | Self::Tls(_) | Self::Handshake(_) => {
                false
            }
        }
    }

    fn of_handshake(error: io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        let certificate = match cause {
            Some(Error::InvalidCertificate(certificate)) => certificate,
            Some(other) => return Self::Tls(other.clone()),
            None => return Self::Handshake(error),
        };
        #[allow(
            clippy::wildcard_enum_match_arm,
            reason = "rustls tells faults apart that call for the same"
        )]
        match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::UnknownAuthority
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherName
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::WrongTime,
            other => Self::Tls(Error::InvalidCertificate(other.clone())),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Late => write!(
                f,
                "no connection within {} s; is the host up, and is it the right port?",
                CONNECT_TIMEOUT.as_secs()
            ),
            Self::Name => f.write_str("TLS needs a host name or an address"),
            Self::CaFile(error) => error.fmt(f),
            Self::NoAuthority => f.write_str(
                "no certificate authority to trust: install the system's (ca-certificates), or give \
                 the file of your own",
            ),
            Self::UnknownAuthority => f.write_str(
                "the certificate is signed by no authority that is trusted here; if it is your own, \
                 give the authority's file",
            ),
            Self::OtherName => f.write_str(
                "the certificate is for another name; connect by the name or address it was made for",
            ),
            Self::WrongTime => f.write_str(
                "the certificate has expired or is not valid yet; renew it, or set the clock of this \
                 machine",
            ),
            Self::Tls(error) => write!(f, "no TLS with this peer: {error}"),
            Self::Handshake(error) => {
                write!(f, "connection ended in the TLS handshake: {error}; does the peer speak TLS?")
            }
        }
    }
}

impl std::error::Error for ConnectError {}
