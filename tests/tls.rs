//! TLS on the push port as its peers meet it: user agents and application servers of both versions,
//! plain ones on the same port, files that are no good, a certificate that is renewed.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "anything else fails the test"
)]

#[path = "support/certificates.rs"]
mod certificates;
mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use certificates::Certificates;
use edgepush::io::connect::Connector;
use edgepush::io::reactor::block_on;
use futures_rustls::rustls::client::Resumption;
use futures_rustls::rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::version::{TLS12, TLS13};
use futures_rustls::rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use rcgen::KeyPair;
use serde_json::{Value, json};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use support::{Gateway, Http, PATIENCE, UserAgent, channel, path_of, post, wait_until};
use tungstenite::{Message, WebSocket};

/// Made for this test and used nowhere else; ring cannot make one.
const RSA_KEY: &str = include_str!("fixtures/rsa-key.pem");

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Another program's TLS.
struct Client(ClientConfig);

impl Client {
    /// One that trusts the authority.
    fn of(certificates: &Certificates) -> Self {
        Self::new(certificates, ALL_VERSIONS, &[])
    }

    /// Of these versions and cipher suites; without any, all suites.
    fn new(
        certificates: &Certificates,
        versions: &[&'static SupportedProtocolVersion],
        suites: &[SupportedCipherSuite],
    ) -> Self {
        let mut provider = default_provider();
        if !suites.is_empty() {
            provider.cipher_suites = suites.to_vec();
            provider.kx_groups = vec![kx_group::SECP256R1];
        }
        let mut roots = RootCertStore::empty();
        roots
            .add(certificates.authority.as_ref().der().clone())
            .unwrap();
        Self(
            ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth(),
        )
    }

    fn connect(&self, address: SocketAddr) -> TlsStream {
        self.try_connect(address).expect("a TLS connection")
    }

    fn try_connect(&self, address: SocketAddr) -> std::io::Result<TlsStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::new(self.0.clone()), name).unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }

    fn user_agent(&self, address: SocketAddr) -> SecureAgent {
        let url = format!("ws://localhost:{}/", address.port());
        let (socket, _) = tungstenite::client(url, self.connect(address)).unwrap();
        SecureAgent(socket)
    }

    /// One request, and the whole answer.
    fn ask(&self, address: SocketAddr, head: &str, body: &[u8]) -> String {
        let mut stream = self.connect(address);
        let length = body.len();
        let head = format!(
            "{head}Host: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        // Fails on an end without `close_notify`.
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// A user agent on `wss://`.
struct SecureAgent(WebSocket<TlsStream>);

impl SecureAgent {
    fn hello(&mut self, uaid: &str) -> String {
        self.send(&json!({"messageType": "hello", "use_webpush": true, "uaid": uaid}));
        let answer = self.receive();
        assert_eq!(answer["status"], 200, "{answer}");
        answer["uaid"].as_str().unwrap().to_owned()
    }

    /// The endpoint of a new subscription.
    fn register(&mut self, number: u32) -> String {
        self.send(&json!({"messageType": "register", "channelID": channel(number)}));
        let answer = self.receive();
        assert_eq!(answer["status"], 200, "{answer}");
        answer["pushEndpoint"].as_str().unwrap().to_owned()
    }

    fn ack(&mut self, notification: &Value) {
        let (channel, version) = (&notification["channelID"], &notification["version"]);
        let update = json!({"channelID": channel, "version": version, "code": 100});
        self.send(&json!({"messageType": "ack", "updates": [update]}));
    }

    fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    fn receive(&mut self) -> Value {
        match self.0.read().expect("a message in time") {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("not a message: {other:?}"),
        }
    }
}

/// Hello, register, and a push message that is acknowledged while it is sent.
fn push_reaches_user_agent(gateway: &Gateway, client: &Client) {
    let mut agent = client.user_agent(gateway.push);
    agent.hello("");
    let endpoint = agent.register(1);
    let start = format!("https://localhost:{}/wpush/v1/", gateway.push.port());
    assert!(endpoint.starts_with(&start), "{endpoint}");

    let head = format!(
        "POST {} HTTP/1.1\r\nTTL: 60\r\nContent-Encoding: aes128gcm\r\n",
        path_of(&endpoint)
    );
    let answer = std::thread::scope(|scope| {
        let sending = scope.spawn(|| client.ask(gateway.push, &head, b"ciphertext"));
        let notification = agent.receive();
        assert_eq!(notification["data"], "Y2lwaGVydGV4dA");
        agent.ack(&notification);
        sending.join().unwrap()
    });
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(
        answer.contains("\r\nlocation: https://localhost/m/"),
        "{answer}"
    );
}

#[test]
fn push_message_reaches_a_user_agent_over_either_version_of_tls() {
    let certificates = Certificates::new();
    let gateway = Gateway::with_config(&certificates.config());
    for version in [&TLS12, &TLS13] {
        let client = Client::new(&certificates, &[version], &[]);
        let connection = client.connect(gateway.push).conn;
        assert_eq!(connection.protocol_version(), Some(version.version));
        push_reaches_user_agent(&gateway, &client);
    }
}

#[test]
fn firefox_os_is_served_with_the_cipher_suites_that_it_has() {
    let certificates = Certificates::new();
    let gateway = Gateway::with_config(&certificates.config());
    let suite = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    push_reaches_user_agent(&gateway, &Client::new(&certificates, &[&TLS12], &[suite]));

    certificates.issue_for(&KeyPair::from_pem(RSA_KEY).unwrap());
    let gateway = Gateway::with_config(&certificates.config());
    let suite = cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
    push_reaches_user_agent(&gateway, &Client::new(&certificates, &[&TLS12], &[suite]));
}

#[test]
fn plain_peers_are_served_on_the_same_port() {
    let certificates = Certificates::new();
    let gateway = Gateway::with_config(&certificates.config());
    let mut plain = UserAgent::hello(&gateway, None);
    plain.send(&json!({"messageType": "register", "channelID": channel(1)}));
    let endpoint = plain.receive()["pushEndpoint"].as_str().unwrap().to_owned();
    let start = format!("http://{}/wpush/v1/", gateway.push);
    assert!(endpoint.starts_with(&start), "{endpoint}");

    // An application server that was given the other's endpoint reaches it too.
    let head = format!("POST {} HTTP/1.1\r\nTTL: 60\r\n", path_of(&endpoint));
    let answer = Client::of(&certificates).ask(gateway.push, &head, b"");
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(plain.receive()["messageType"], "notification");
}

#[test]
fn plain_peers_are_told_to_use_tls_where_nothing_else_is_taken() {
    let certificates = Certificates::new();
    let gateway = Gateway::with_config(&format!("{}only = true\n", certificates.config()));
    let websocket = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    for (method, headers) in [("GET", &websocket[..]), ("POST", &[]), ("OPTIONS", &[])] {
        let mut http = Http::connect(gateway.push);
        let answer = http.send(method, "/wpush/v1/abc", headers, b"body");
        assert_eq!(answer.status, 400, "{method}");
        assert_eq!(
            answer.json()["message"],
            "Only TLS is taken here: use https:// or wss:// instead of http:// or ws://"
        );
        assert!(http.is_closed());
    }
    push_reaches_user_agent(&gateway, &Client::of(&certificates));
}

#[test]
fn console_shows_the_address_with_tls_in_it() {
    let certificates = Certificates::new();
    let gateway = Gateway::with_config(&certificates.config());
    let page = Http::connect(gateway.console).send("GET", "/try", &[], b"");
    let page = String::from_utf8(page.body).unwrap();
    assert!(page.contains(&format!("wss://{}/", gateway.push)), "{page}");
}

#[test]
fn only_http_1_1_is_spoken_inside() {
    let certificates = Certificates::new();
    let gateway = Gateway::with_config(&certificates.config());
    let mut client = Client::of(&certificates);
    client.0.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connection = client.connect(gateway.push).conn;
    assert_eq!(connection.alpn_protocol(), Some(&b"http/1.1"[..]));

    client.0.alpn_protocols = vec![b"h2".to_vec()];
    let error = client.try_connect(gateway.push).unwrap_err();
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );
}

#[test]
fn session_is_taken_up_again_without_a_signature() {
    let certificates = Certificates::new();
    let gateway = Gateway::with_config(&certificates.config());
    for version in [&TLS12, &TLS13] {
        let mut client = Client::new(&certificates, &[version], &[]);
        client.0.resumption = Resumption::in_memory_sessions(2);
        for kind in [
            HandshakeKind::Full,
            HandshakeKind::Resumed,
            HandshakeKind::Resumed,
        ] {
            let mut agent = client.user_agent(gateway.push);
            agent.hello("");
            assert_eq!(agent.0.get_ref().conn.handshake_kind(), Some(kind));
        }
    }
}

#[test]
fn stored_messages_of_any_size_come_in_order() {
    let certificates = Certificates::new();
    let gateway = Gateway::with_config(&certificates.config());
    let client = Client::of(&certificates);
    let mut agent = client.user_agent(gateway.push);
    let uaid = agent.hello("");
    let endpoint = path_of(&agent.register(1));
    agent.0.close(None).unwrap();
    while agent.0.read().is_ok() {}

    let sizes = [0, 1, 4096, 5000, 1000, 4090, 3000, 5630, 2, 2048];
    for size in sizes {
        let body = vec![7; size];
        let answer = post(&gateway, &endpoint, &[("TTL", "60")], &body);
        assert_eq!(answer.status, 201);
    }
    let mut agent = client.user_agent(gateway.push);
    assert_eq!(agent.hello(&uaid), uaid);
    for size in sizes {
        let notification = agent.receive();
        let length = notification["data"].as_str().map_or(0, str::len);
        assert_eq!(length, (size * 4).div_ceil(3));
        agent.ack(&notification);
    }
}

#[test]
fn stopping_says_goodbye_and_ends_tls_in_order() {
    let certificates = Certificates::new();
    let mut gateway = Gateway::with_config(&certificates.config());
    let client = Client::of(&certificates);
    // Accepted before the others, which are served by then.
    let silent = TcpStream::connect(gateway.push).unwrap();
    let mut idle = client.connect(gateway.push);
    let mut agent = client.user_agent(gateway.push);
    agent.hello("");
    let start = Instant::now();
    assert!(gateway.terminate().success());
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "waited for a peer"
    );

    assert!(matches!(agent.0.read(), Ok(Message::Close(Some(_)))));
    // Zero bytes are an end with `close_notify`; one without it is an error.
    assert_eq!(agent.0.get_mut().read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(idle.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!((&silent).read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn peer_that_does_not_go_on_is_closed_in_time_and_holds_up_nobody() {
    let certificates = Certificates::new();
    let limits = "[limits]\nrequest_timeout_secs = 2\n";
    let gateway = Gateway::with_config(&format!("{}{limits}", certificates.config()));
    let start = Instant::now();
    let begun = [
        &b""[..],
        b"\x16",
        // A record with the first half of a ClientHello.
        b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03",
    ];
    let mut peers: Vec<TcpStream> = begun
        .iter()
        .map(|bytes| {
            let mut peer = TcpStream::connect(gateway.push).unwrap();
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            peer.write_all(bytes).unwrap();
            peer
        })
        .collect();
    // Through with the handshake, and silent then.
    let mut silent = Client::of(&certificates).connect(gateway.push);
    push_reaches_user_agent(&gateway, &Client::of(&certificates));
    UserAgent::hello(&gateway, None);
    for peer in &mut peers {
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        assert!(start.elapsed() >= Duration::from_secs(2));
    }
    assert_eq!(silent.read(&mut [0; 8]).unwrap(), 0);

    // What is no ClientHello at all is not waited for.
    let start = Instant::now();
    let mut peer = TcpStream::connect(gateway.push).unwrap();
    peer.write_all(b"\x16\x03\x01\x00\x05nopes").unwrap();
    let mut answer = Vec::new();
    if let Err(error) = peer.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert!(start.elapsed() < Duration::from_secs(2));
}

/// What the program says, that must not start with this configuration.
fn refused(certificates: &Certificates) -> String {
    let file = certificates.path("edgepush.toml");
    fs::write(&file, certificates.config()).unwrap();
    let output = support::edgepush()
        .args([
            "--listen",
            "127.0.0.1:0",
            "--console",
            "off",
            "--log",
            "warn",
        ])
        .arg("--data")
        .arg(certificates.path("data"))
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn files_that_are_no_good_are_named_at_the_start() {
    let certificates = Certificates::new();
    let good = |name: &str| fs::read_to_string(certificates.path(name)).unwrap();
    let (certificate, key) = (good("certificate.pem"), good("key.pem"));
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    let damaged = pem("CERTIFICATE", "MAAA");
    let strange = pem("PRIVATE KEY", "MAAA");
    let locked = pem("ENCRYPTED PRIVATE KEY", "MAAA");
    let large = "\n".repeat(256 * 1024 + 1);
    let no_certificate = "holds no whole certificate; it must be PEM, with a part that starts with \
                          -----BEGIN CERTIFICATE-----";
    let no_key = "holds no private key that can be read; it must be PEM, with a part that starts \
                  with -----BEGIN PRIVATE KEY-----, without a passphrase";
    let too_large =
        "is larger than 262144 bytes; name a PEM file with what is needed and nothing else";
    for (name, content, before, after) in [
        ("certificate.pem", "", "TLS file", no_certificate),
        (
            "certificate.pem",
            &certificate[..200],
            "TLS file",
            no_certificate,
        ),
        ("certificate.pem", &key, "TLS file", no_certificate),
        ("certificate.pem", &large, "TLS file", too_large),
        (
            "certificate.pem",
            &damaged,
            "the first certificate in the TLS file",
            "is damaged; make it again",
        ),
        ("key.pem", "", "TLS file", no_key),
        ("key.pem", &certificate, "TLS file", no_key),
        ("key.pem", &locked, "TLS file", no_key),
        (
            "key.pem",
            &strange,
            "the private key in the TLS file",
            "is of no usable kind; make one that is ECDSA P-256, or RSA of 2048 to 4096 bits",
        ),
        (
            "key.pem",
            &other_key,
            "the private key in the TLS file",
            &format!(
                "does not belong to the first certificate in {}; name a pair",
                certificates.path("certificate.pem").display()
            ),
        ),
    ] {
        certificates.write(name, content);
        let path = certificates.path(name);
        let expected = format!("edgepush: {before} {} {after}\n", path.display());
        assert_eq!(refused(&certificates), expected);
        certificates.write("certificate.pem", &certificate);
        certificates.write("key.pem", &key);
    }
    for name in ["certificate.pem", "key.pem"] {
        let path = certificates.path(name);
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let fault = "No such file or directory (os error 2)";
        let expected = format!(
            "edgepush: cannot read the TLS file {}: {fault}\n",
            path.display()
        );
        assert_eq!(refused(&certificates), expected);
        fs::write(&path, content).unwrap();
    }
}

fn pem(kind: &str, content: &str) -> String {
    format!("-----BEGIN {kind}-----\n{content}\n-----END {kind}-----\n")
}

fn first_certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

#[test]
fn hangup_takes_a_new_certificate_and_keeps_the_old_one_if_the_new_is_no_good() {
    let certificates = Certificates::new();
    let path = certificates.path("certificate.pem");
    let gateway = Gateway::with_config(&certificates.config());
    let client = Client::of(&certificates);
    let shown = || {
        client
            .connect(gateway.push)
            .conn
            .peer_certificates()
            .unwrap()[0]
            .clone()
    };
    let old = first_certificate(&path);
    assert_eq!(shown(), old);
    let mut agent = client.user_agent(gateway.push);
    agent.hello("");

    certificates.write("key.pem", "half of a ke");
    gateway.signal("-HUP");
    gateway.wait_for_log("tls certificate not read again, the one from before stays: TLS file ");
    assert_eq!(shown(), old);

    certificates.issue();
    let new = first_certificate(&path);
    assert_ne!(new, old);
    assert_eq!(shown(), old, "not before it is asked to");
    gateway.signal("-HUP");
    gateway.wait_for_log("tls certificate read again certificate=");
    assert_eq!(shown(), new);
    agent.register(1);
}

#[test]
fn our_own_client_says_why_it_does_not_connect() {
    let certificates = Certificates::new();
    let key = KeyPair::generate().unwrap();
    certificates.issue_with(&key, vec!["localhost".to_owned()]);
    let gateway = Gateway::with_config(&certificates.config());
    let port = gateway.push.port();
    let fault = |ca: Option<PathBuf>, host: &str, port| {
        let connector = Connector::new(ca);
        let error = block_on(connector.connect(host, port, true)).unwrap_err();
        error.to_string()
    };
    let ca = || Some(certificates.path("ca.pem"));
    let others = Certificates::new();
    let unknown = fault(Some(others.path("ca.pem")), "localhost", port);
    assert!(
        unknown.starts_with("the certificate is signed by no"),
        "{unknown}"
    );
    let other_name = fault(ca(), "127.0.0.1", port);
    assert!(
        other_name.starts_with("the certificate is for another name"),
        "{other_name}"
    );
    let no_file = fault(Some(others.path("none.pem")), "localhost", port);
    assert!(
        no_file.starts_with("cannot read the TLS file "),
        "{no_file}"
    );
    let no_ca = fault(Some(others.path("key.pem")), "localhost", port);
    assert!(no_ca.contains("holds no whole certificate"), "{no_ca}");
    assert_eq!(
        fault(ca(), "a b", port),
        "TLS needs a host name or an address"
    );
    let plain = Gateway::start();
    let no_tls = fault(ca(), "localhost", plain.push.port());
    assert!(no_tls.starts_with("no TLS with this peer: "), "{no_tls}");
    let nobody = fault(ca(), "localhost", 1);
    assert!(nobody.starts_with("cannot connect: "), "{nobody}");
}

#[test]
fn our_own_client_connects_with_tls_and_without() {
    let certificates = Certificates::new();
    let gateway = Gateway::with_config(&certificates.config());
    let connector = Connector::new(Some(certificates.path("ca.pem")));
    for (host, tls) in [
        ("localhost", true),
        ("127.0.0.1", true),
        ("localhost", false),
    ] {
        let answer = block_on(async {
            let mut stream = connector.connect(host, gateway.push.port(), tls).await?;
            let request = b"GET / HTTP/1.1\r\nHost: pi\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            stream.flush().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            Ok::<_, edgepush::io::connect::ConnectError>(answer)
        });
        assert!(answer.unwrap().starts_with("HTTP/1.1 426 "), "{host} {tls}");
    }
}

#[test]
fn commands_speak_tls_to_a_gateway_whose_authority_they_are_given() {
    let certificates = Certificates::new();
    let gateway = Gateway::with_config(&certificates.config());
    let ca = certificates.path("ca.pem");
    let run = |args: &[&str]| {
        let mut command = support::edgepush();
        command.current_dir(&certificates.directory).args(args);
        command
    };
    let url = format!("wss://localhost:{}/", gateway.push.port());
    let listener = run(&["listen", &url, "--once", "--ca"])
        .arg(&ca)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    gateway.wait_for_metric("edgepush_registrations_total", 1);
    // The state file is there once the endpoint is.
    let state = certificates.path("edgepush-listen.json");
    wait_until("a state file", || state.exists());
    let send = ["send", "--to", "edgepush-listen.json", "over TLS"];
    let refused = run(&send).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("authority"), "{why}");
    let sent = run(&send).arg("--ca").arg(&ca).output().unwrap();
    let why = String::from_utf8(sent.stderr).unwrap();
    assert_eq!(sent.status.code(), Some(0), "{why}");
    let heard = listener.wait_with_output().unwrap();
    let heard = String::from_utf8(heard.stdout).unwrap();
    assert!(heard.starts_with("endpoint https://localhost:"), "{heard}");
    assert!(heard.ends_with("message over TLS\n"), "{heard}");
}
