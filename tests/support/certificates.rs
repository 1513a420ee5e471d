//! A certificate authority of a test's own, and certificates of it.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]
#![allow(clippy::unwrap_used)] // a test may do it

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// A folder with a certificate authority, and a certificate of it for this machine.
pub struct Certificates {
    pub directory: PathBuf,
    pub authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("tls-{}-{count}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
        let all = Self {
            directory,
            authority,
        };
        all.issue();
        all
    }

    /// A new certificate, in place of the one before.
    pub fn issue(&self) {
        self.issue_for(&KeyPair::generate().unwrap());
    }

    pub fn issue_for(&self, key: &KeyPair) {
        self.issue_with(key, vec!["localhost".to_owned(), "127.0.0.1".to_owned()]);
    }

    pub fn issue_with(&self, key: &KeyPair, names: Vec<String>) {
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(key, &self.authority).unwrap();
        self.write("certificate.pem", &certificate.pem());
        self.write("key.pem", &key.serialize_pem());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn config(&self) -> String {
        format!(
            "[tls]\ncertificate = {:?}\nkey = {:?}\n",
            self.path("certificate.pem"),
            self.path("key.pem")
        )
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
