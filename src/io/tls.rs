//! rustls on the push port: the certificate and its key from their files, the handshake, and
//! reading the files again when a new certificate is there.
//!
//! Names, versions and ciphers are left to rustls; what a connection costs in memory is set here.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::compress::CompressionCache;
use futures_rustls::rustls::crypto::ring::{Ticketer, default_provider};
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::server::NoServerSessionStorage;
use futures_rustls::rustls::{DEFAULT_VERSIONS, Error, InconsistentKeys, ServerConfig};
use log::{error, info};

use super::aside::aside;
use super::stream::Stream;
use super::tcp::Tcp;

/// What a TLS connection starts with: the type of a handshake record (RFC 8446 section 5.1). No
/// HTTP method starts with it.
const HANDSHAKE_RECORD: u8 = 0x16;
/// The only protocol inside of TLS (RFC 7301); one who offers others and not this is refused.
pub(super) const HTTP_1_1: &[u8] = b"http/1.1";
/// Largest record that we send, in bytes: a websocket's write buffer with the header of the record.
/// Longer messages take several, at 22 to 29 bytes each.
const RECORD_BYTES_MAX: usize = 4 * 1024 + 5;
/// Most bytes of records that wait for a socket which takes none; what comes after them waits
/// outside, where the engine bounds it.
const UNSENT_BYTES_MAX: usize = 4 * 1024;
/// Largest file that is read: a chain of four large certificates takes about 10 KiB.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Where the certificate and its key are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The gateway's certificate and those between it and its authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// TLS on the push port.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    only: bool,
    /// For connections from now on; those that are open keep theirs.
    config: RefCell<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files. With `only`, connections without TLS are to be refused.
    ///
    /// # Errors
    ///
    /// [`TlsError`], with the file that must change.
    pub fn load(files: Files, only: bool) -> Result<Rc<Self>, TlsError> {
        let config = RefCell::new(load(&files)?);
        Ok(Rc::new(Self {
            files,
            only,
            config,
        }))
    }

    /// Whether connections without TLS are to be refused.
    pub const fn only(&self) -> bool {
        self.only
    }

    /// Finds out whether the peer speaks TLS, and if so does the handshake. Takes as long as the
    /// peer does.
    pub(super) async fn accept(&self, socket: Tcp) -> io::Result<Stream> {
        let mut first = [0];
        if socket.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first != [HANDSHAKE_RECORD] {
            return Ok(Stream::Plain(socket));
        }
        let config = Arc::clone(&self.config.borrow());
        let handshake = TlsAcceptor::from(config).accept_with(socket, |connection| {
            connection.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        });
        Ok(Stream::Tls(Box::new(handshake.await?.into())))
    }

    /// Reads the files again, and keeps what it has if they are no good.
    pub async fn reload(&self) {
        match self.read_again().await {
            Ok(config) => {
                *self.config.borrow_mut() = config;
                let path = self.files.certificate.display();
                info!("tls certificate read again certificate={path}");
            }
            Err(error) => {
                error!("tls certificate not read again, the one from before stays: {error}");
            }
        }
    }

    async fn read_again(&self) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error>> {
        let files = self.files.clone();
        Ok(aside("edgepush-tls", move || load(&files)).await??)
    }
}

fn load(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let Files { certificate, key } = files;
    let chain = certificates(certificate)?;
    let fail = |path: &Path, fault| TlsError {
        path: path.to_owned(),
        fault,
    };
    let key_der = PrivateKeyDer::from_pem_slice(&read(key).map_err(|fault| fail(key, fault))?)
        .map_err(|_| fail(key, Fault::NoKey))?;
    // Looked at before the certificate, so that a fault of one is not blamed on the other.
    default_provider()
        .key_provider
        .load_private_key(key_der.clone_key())
        .map_err(|_| fail(key, Fault::UnusableKey))?;
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "a new kind of error is shown as rustls words it"
    )]
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(DEFAULT_VERSIONS)
        .map_err(|error| fail(certificate, Fault::Rustls(error)))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .and_then(configure)
        .map(Arc::new)
        .map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                fail(key, Fault::OtherKey(certificate.clone()))
            }
            Error::InvalidCertificate(_) => fail(certificate, Fault::DamagedCertificate),
            other => fail(certificate, Fault::Rustls(other)),
        })
}

/// Every field that costs memory, work or privacy, so that a new version of rustls changes none.
fn configure(mut config: ServerConfig) -> Result<ServerConfig, Error> {
    // Whoever has the slower processor may choose: a phone knows whether it has AES in hardware.
    config.ignore_client_order = false;
    config.max_fragment_size = Some(RECORD_BYTES_MAX);
    // A user agent that comes back brings its session along in a ticket, which costs us no memory
    // and spares the signature: the most work of a handshake. After a restart or a new certificate
    // its first handshake is a whole one.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new()?;
    // One is used up by the next connection, which gets another.
    config.send_tls13_tickets = 1;
    config.max_tls13_tickets = 1;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    // Data before the handshake is over can be replayed by others.
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    // Firefox OS 2.x does not know it (RFC 7627).
    config.require_ems = false;
    config.cert_compressors = Vec::new();
    config.cert_compression_cache = Arc::new(CompressionCache::Disabled);
    config.enable_secret_extraction = false;
    Ok(config)
}

/// All certificates of a PEM file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |fault| TlsError {
        path: path.to_owned(),
        fault,
    };
    let pem = read(path).map_err(fail)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|_| fail(Fault::NoCertificate))?;
    if found.is_empty() {
        return Err(fail(Fault::NoCertificate));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Fault::Read)?;
    // One byte more, to tell one that fits from one that does not.
    let mut some = file.take(FILE_BYTES_MAX.saturating_add(1));
    some.read_to_end(&mut bytes).map_err(Fault::Read)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Fault::TooLarge);
    }
    Ok(bytes)
}

/// A certificate or key that cannot be used.
#[derive(Debug)]
pub struct TlsError {
    path: PathBuf,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    Read(io::Error),
    TooLarge,
    NoCertificate,
    DamagedCertificate,
    NoKey,
    UnusableKey,
    /// The certificate that the key does not belong to.
    OtherKey(PathBuf),
    Rustls(Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Read(error) => write!(f, "cannot read the TLS file {path}: {error}"),
            Fault::TooLarge => write!(
                f,
                "TLS file {path} is larger than {FILE_BYTES_MAX} bytes; name a PEM file with what is \
                 needed and nothing else"
            ),
            Fault::NoCertificate => write!(
                f,
                "TLS file {path} holds no whole certificate; it must be PEM, with a part that starts \
                 with -----BEGIN CERTIFICATE-----"
            ),
            Fault::DamagedCertificate => write!(
                f,
                "the first certificate in the TLS file {path} is damaged; make it again"
            ),
            Fault::NoKey => write!(
                f,
                "TLS file {path} holds no private key that can be read; it must be PEM, with a part \
                 that starts with -----BEGIN PRIVATE KEY-----, without a passphrase"
            ),
            Fault::UnusableKey => write!(
                f,
                "the private key in the TLS file {path} is of no usable kind; make one that is ECDSA \
                 P-256, or RSA of 2048 to 4096 bits"
            ),
            Fault::OtherKey(certificate) => write!(
                f,
                "the private key in the TLS file {path} does not belong to the first certificate in \
                 {}; name a pair",
                certificate.display()
            ),
            Fault::Rustls(error) => write!(f, "cannot use the TLS file {path}: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}
