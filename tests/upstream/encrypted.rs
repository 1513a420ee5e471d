//! TLS to the main service: with the authority that is configured, with no other, and never without
//! being asked.

use std::process::Command;

use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::crypto::ring::default_provider;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificates::Certificates;
use crate::house::{House, receive_numbers};
use crate::main_service::{Door, MainService};
use crate::support::{Folder, Gateway};

/// A main service with a certificate of this authority.
fn secure(certificates: &Certificates) -> MainService {
    let certificate = CertificateDer::from_pem_file(certificates.path("certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.path("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    MainService::start_secure(config.unwrap())
}

fn house_of(main: MainService, authority: &Certificates) -> House {
    let config = format!(
        "[upstream]\nurl = \"{}\"\nca = {:?}\nregister_timeout_secs = 8\nendpoints = \"all\"\n",
        main.url(),
        authority.path("ca.pem")
    );
    let gateway = Gateway::with_config(&config);
    House { main, gateway }
}

#[test]
fn messages_come_down_over_tls_with_the_authority_that_is_configured() {
    let certificates = Certificates::new();
    let house = house_of(secure(&certificates), &certificates);
    let (mut agent, endpoint) = house.newcomer();
    house.post(&endpoint, "1");
    assert_eq!(receive_numbers(&mut agent, 1), [1]);
}

#[test]
fn main_service_with_a_certificate_of_somebody_else_is_told_nothing() {
    let (certificates, other) = (Certificates::new(), Certificates::new());
    let house = house_of(secure(&certificates), &other);
    let (_, endpoint) = house.newcomer();
    assert!(!house.is_borrowed(&endpoint), "{endpoint}");
    assert_eq!(house.main.service().heard.len(), 0);
    house.gateway.wait_for_log("certificate");
}

#[test]
fn encrypted_main_service_cannot_send_on_to_one_that_is_not() {
    let certificates = Certificates::new();
    let house = house_of(secure(&certificates), &certificates);
    let plain = MainService::start();
    let location = format!("Location: {}\r\n", plain.url());
    house
        .main
        .set_door(Door::Refused("301 Moved Permanently", location));
    let (_, endpoint) = house.newcomer();
    assert!(!house.is_borrowed(&endpoint), "{endpoint}");
    house.gateway.wait_for_log("its scheme is another one");
    assert_eq!(plain.connections().len(), 0);
}

#[test]
fn upstream_without_tls_is_refused_unless_it_is_asked_for() {
    let folder = Folder::new();
    let file = folder.path("edgepush.toml");
    std::fs::write(&file, "[upstream]\nurl = \"ws://127.0.0.1:1/\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_edgepush"))
        .args(["--listen", "127.0.0.1:0", "--console", "off", "--config"])
        .arg(&file)
        .arg("--data")
        .arg(folder.path("data"))
        .output()
        .unwrap();
    let (code, _, said) = crate::support::said(output);
    assert_ne!(code, 0);
    assert!(said.contains("wss://"), "{said}");
    assert!(said.contains("plain"), "{said}");
}
