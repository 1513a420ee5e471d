//! A whole gateway on a socket: any bytes on a connection, then one that behaves and must be served.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use edgepush::config::Config;
use log::LevelFilter;

/// How long an answer is waited for that may never come: most of these inputs are cut off.
const PATIENCE: Duration = Duration::from_millis(2);
/// How long for one that must come.
const LONG: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const WELL: &[u8] = b"GET /__lbheartbeat__ HTTP/1.1\r\nHost: pi\r\nConnection: close\r\n\r\n";

pub(crate) fn served(bytes: &[u8]) {
    static GATEWAY: OnceLock<SocketAddr> = OnceLock::new();
    let address = *GATEWAY.get_or_init(start);
    let answer = said(address, bytes, PATIENCE);
    if !answer.is_empty() && bytes.len() > 16 {
        assert!(
            answer.starts_with(b"HTTP/1."),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        let status = answer.get(9..12).unwrap_or_default();
        assert!(status.iter().all(u8::is_ascii_digit), "{status:?}");
    }
    let well = said(address, WELL, LONG);
    let text = String::from_utf8_lossy(&well);
    assert!(text.starts_with("HTTP/1.1 200 "), "{text:?}");
}

/// What comes back until the end, or until nothing comes for so long.
fn said(address: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("a socket takes options");
    stream
        .set_read_timeout(Some(patience))
        .expect("a socket takes options");
    let mut answer = Vec::new();
    // It may be closed in the middle of it.
    if stream.write_all(bytes).is_err() {
        return answer;
    }
    let mut buffer = [0; 4096];
    while answer.len() < ANSWER_BYTES_MAX {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    answer
}

/// Starts a gateway on a thread of this process, so that its code is seen by the fuzzer.
fn start() -> SocketAddr {
    let data = std::env::temp_dir().join(format!("edgepush-fuzz-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&data);
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let listen = listener.local_addr().expect("it is bound");
    drop(listener);
    let mut config = Config {
        listen,
        console: None,
        data,
        log: LevelFilter::Off,
        ..Config::default()
    };
    config.limits.connections_max = 512;
    config.limits.request_timeout = Duration::from_secs(1);
    config.unifiedpush.lenient = true;
    config.unifiedpush.matrix = true;
    std::thread::spawn(|| {
        let ended = edgepush::daemon::serve(config);
        panic!("the gateway ended: {ended:?}");
    });
    for _ in 0..1000 {
        if TcpStream::connect(listen).is_ok() {
            return listen;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the gateway never listened");
}
