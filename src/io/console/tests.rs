//! The console as a browser sees it, on a real socket, with a stand-in for the event loop.

use std::io::{Read, Write};
use std::sync::atomic::AtomicU32;

use smol::channel::{Receiver, bounded};

use super::*;
use crate::engine::counters::Counters;
use crate::model::ids::DatabaseId;
use crate::model::store::StoreError;
use crate::storage::{FreshDatabase, Settings, Store};

/// A console, and the folder that it looks for a database in.
struct Bench {
    console: Console,
    folder: Folder,
}

/// Goes away with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Bench {
    /// Whose event loop answers with `snapshot`.
    fn answering(snapshot: Snapshot) -> Self {
        let (bench, requests) = Self::silent();
        thread::spawn(move || {
            while let Ok(request) = requests.recv_blocking() {
                let _ = request.reply.try_send(snapshot.clone());
            }
        });
        bench
    }

    /// Whose event loop does not answer as long as the receiver is left alone.
    fn silent() -> (Self, Receiver<SnapshotRequest>) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("edgepush-console-{}-{number}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).unwrap();
        let (sender, requests) = bounded(1);
        let facts = Facts {
            data_directory: folder.0.clone(),
            version: "1.2.3",
            io_account: None,
            health: Arc::default(),
            push_address: "ws://192.168.1.5:8090/".to_owned(),
        };
        let address = "127.0.0.1:0".parse().unwrap();
        let console = Console::bind(address, sender, facts).unwrap();
        (Self { console, folder }, requests)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.console.address()).unwrap();
        // Longer than anything here may take; without it, a fault would hang the test.
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        stream
    }

    /// All that comes back for these bytes.
    fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
    }

    fn open_store(&self) -> Store {
        let fresh = FreshDatabase {
            id: DatabaseId([7; 8]),
            key_is_new: true,
        };
        Store::open(&self.folder.0, &Settings::default(), fresh)
            .unwrap()
            .0
    }
}

fn working() -> Snapshot {
    Snapshot {
        counters: Counters {
            messages_acked: 1234,
            ..Counters::default()
        },
        user_agents_connected: 5,
        ..Snapshot::default()
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn page_is_one_html_document_with_the_numbers_and_strict_headers() {
    let bench = Bench::answering(working());
    let _store = bench.open_store();
    let answer = bench.get("/");
    assert_eq!(status(&answer), "200");
    for header in [
        "Content-Type: text/html; charset=utf-8\r\n",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; base-uri",
        "X-Content-Type-Options: nosniff\r\n",
        "Cache-Control: no-store\r\n",
    ] {
        assert!(answer.contains(header), "{answer}");
    }
    assert!(!answer.contains("Access-Control"));
    assert!(body(&answer).contains("<b>1,234</b>") && !answer.contains("cannot be read"));
    assert!(body(&answer).trim_end().ends_with("</html>"));
}

#[test]
fn page_without_a_database_comes_and_says_so() {
    let bench = Bench::answering(working());
    let answer = bench.get("/?refresh=1");
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("The database cannot be read") && answer.contains("<b>1,234</b>"));
}

#[test]
fn metrics_come_in_the_format_of_prometheus() {
    let bench = Bench::answering(working());
    let _store = bench.open_store();
    let answer = bench.get("/metrics");
    assert!(answer.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(body(&answer).contains("\nedgepush_user_agents_connected 5\n"));
    assert!(body(&answer).contains("\nedgepush_stored_messages 0\n"));
}

#[test]
fn health_is_ok_when_the_event_loop_answers() {
    let bench = Bench::answering(working());
    let answer = bench.get("/healthz");
    assert_eq!(status(&answer), "200");
    assert_eq!(body(&answer), "{\"status\":\"ok\"}\n");
}

#[test]
fn health_is_503_with_the_storage_s_own_words() {
    let bench = Bench::answering(Snapshot {
        storage_fault: Some(StoreError::DiskFull),
        ..Snapshot::default()
    });
    let answer = bench.get("/healthz");
    assert_eq!(status(&answer), "503");
    let body: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(body["status"], "storage fault");
    let reason = body["reason"].as_str().unwrap();
    assert!(
        reason.contains(&StoreError::DiskFull.to_string()),
        "{reason}"
    );
}

#[test]
fn health_is_503_and_the_page_red_when_the_event_loop_never_answers() {
    let (bench, _requests) = Bench::silent();
    let answer = bench.get("/healthz");
    assert_eq!(status(&answer), "503");
    assert!(body(&answer).starts_with("{\"reason\":") && answer.contains("\"stuck\""));
    // The request before still fills the channel: the page must not wait for room.
    let answer = bench.get("/");
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("class=\"state bad\""));
    assert!(
        bench
            .get("/metrics")
            .contains("\nedgepush_event_loop_answers 0\n")
    );
}

#[test]
fn other_methods_are_told_which_are_allowed() {
    let bench = Bench::answering(working());
    // The body never comes; tiny_http's own server would allocate it.
    for rest in [
        "Content-Length: 900000000000000000",
        "Transfer-Encoding: chunked",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n\r\n");
        let answer = bench.exchange(&request);
        assert_eq!(status(&answer), "405");
        assert!(answer.contains("Allow: GET, HEAD\r\n"));
    }
    let answer = bench.exchange("BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status(&answer), "405");
}

#[test]
fn page_to_try_it_with_may_run_its_own_scripts_and_no_other_page_may() {
    let bench = Bench::answering(working());
    let answer = bench.get("/try");
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("script-src 'self';"));
    assert!(answer.contains("ws://192.168.1.5:8090/") && !answer.contains("{{"));
    for script in ["/try.js", "/try-worker.js"] {
        let answer = bench.get(script);
        assert_eq!(status(&answer), "200");
        assert!(answer.contains("Content-Type: text/javascript; charset=utf-8\r\n"));
    }
    assert!(!bench.get("/").contains("script-src"));
}

#[test]
fn unknown_path_is_404() {
    let bench = Bench::answering(working());
    assert_eq!(status(&bench.get("/favicon.ico")), "404");
    assert_eq!(status(&bench.get("//")), "404");
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let bench = Bench::answering(working());
    let answer = bench.exchange("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status(&answer), "200");
    assert_eq!(body(&answer), "");
    assert!(answer.contains("Content-Length: 16\r\n"), "{answer}");
}

#[test]
fn name_from_elsewhere_is_403_on_every_path() {
    let bench = Bench::answering(working());
    for path in ["/", "/metrics", "/healthz", "/nothing"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        let answer = bench.exchange(&request);
        assert_eq!(status(&answer), "403");
        assert!(!answer.contains("1,234"));
    }
    let answer = bench.exchange("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(status(&answer), "403");
}

#[test]
fn request_that_is_none_is_400_and_one_too_long_431() {
    let bench = Bench::answering(working());
    assert_eq!(status(&bench.exchange("EHLO\r\n\r\n")), "400");
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
    assert_eq!(status(&bench.exchange(&long)), "431");
}

#[test]
fn silent_and_half_requests_hold_up_nobody() {
    let bench = Bench::answering(working());
    let mut stuck: Vec<_> = (0..CONNECTIONS_MAX - 1).map(|_| bench.connect()).collect();
    for stream in stuck.iter_mut().skip(5) {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    }
    assert_eq!(status(&bench.get("/healthz")), "200");
}

#[test]
fn connection_past_the_limit_is_503_and_no_other() {
    let bench = Bench::answering(working());
    let mut open: Vec<_> = (0..CONNECTIONS_MAX).map(|_| bench.connect()).collect();
    let mut answer = String::new();
    bench.connect().read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), "503");
    let last = open.last_mut().unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), "200");
}

#[test]
fn reset_connections_end_nothing() {
    let bench = Bench::answering(working());
    for _ in 0..CONNECTIONS_MAX - 1 {
        // To close with the answer unread is a reset.
        let mut stream = bench.connect();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
    }
    assert_eq!(status(&bench.get("/healthz")), "200");
}

#[test]
fn stopped_console_is_gone_though_a_browser_and_the_event_loop_are_stuck() {
    let (bench, _requests) = Bench::silent();
    let address = bench.console.address();
    let _silent = bench.connect();
    let mut waiting = bench.connect();
    waiting
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    bench.console.stop();
    assert!(TcpStream::connect(address).is_err());
}
