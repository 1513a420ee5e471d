//! The real program and its peers, as the tests use them: a gateway on a port and a folder of its
//! own, a user agent that blocks, an HTTP client that sends exactly what it is told.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]
#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "anything else fails the test"
)]

pub mod signer;

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Message, WebSocket};

/// Longest that anything in a test may take before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The program to test: the one of this build, or the one that `EDGEPUSH_PROGRAM` names, which may be
/// for another CPU under emulation: a script that calls QEMU.
pub fn edgepush() -> Command {
    let of_this_build = env!("CARGO_BIN_EXE_edgepush");
    Command::new(std::env::var_os("EDGEPUSH_PROGRAM").unwrap_or_else(|| of_this_build.into()))
}

/// A running gateway. Killed when dropped, and its folder removed.
pub struct Gateway {
    child: Child,
    /// Its configuration and its log.
    folder: PathBuf,
    /// Whether that is there after it.
    keeps_folder: bool,
    /// What it keeps; the same folder unless a test says otherwise.
    pub data: PathBuf,
    pub push: SocketAddr,
    pub console: SocketAddr,
    config: String,
}

impl Gateway {
    /// With its defaults, on ports that the system chooses.
    pub fn start() -> Self {
        Self::with_config("")
    }

    /// With a configuration file.
    pub fn with_config(config: &str) -> Self {
        let folder = temporary_folder();
        Self::try_in(&folder, &folder, config, 0).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// With a data directory that is there before and after it.
    pub fn on(data: &Path, config: &str) -> Self {
        let gateway = Self::try_in(&temporary_folder(), data, config, 0);
        let mut gateway = gateway.unwrap_or_else(|fault| panic!("{fault}"));
        gateway.keeps_folder = false;
        gateway
    }

    /// With its data elsewhere than its configuration and its log, and on a port if it is not 0; the
    /// log if it does not start.
    pub fn try_in(folder: &Path, data: &Path, config: &str, port: u16) -> Result<Self, String> {
        let (child, push, console) = spawn(folder, data, config, port)?;
        Ok(Self {
            child,
            folder: folder.to_owned(),
            keeps_folder: data != folder,
            data: data.to_owned(),
            push,
            console,
            config: config.to_owned(),
        })
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// As a power cut does to the process: no goodbye.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("-TERM");
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "still there after SIGTERM");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A signal, as `kill` spells it.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until the log has this in it.
    pub fn wait_for_log(&self, text: &str) {
        let start = Instant::now();
        loop {
            let log = self.log();
            if log.contains(text) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "no {text:?} in:\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Starts again on the same port and folder.
    pub fn start_again(&mut self) {
        let port = self.push.port();
        let (child, push, console) = spawn(&self.folder, &self.data, &self.config, port)
            .unwrap_or_else(|fault| panic!("{fault}"));
        self.child = child;
        self.push = push;
        self.console = console;
    }

    /// Ends it and starts it with another configuration file.
    pub fn restart_with(&mut self, config: &str) {
        self.kill();
        self.config = config.to_owned();
        self.start_again();
    }

    /// One value of `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let answer = Http::connect(self.console).send("GET", "/metrics", &[], b"");
        let body = String::from_utf8(answer.body).unwrap();
        let line = body
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let value = line.unwrap_or_else(|| panic!("no metric {name} in:\n{body}"));
        value.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Gateway {
    /// Waits until a value of `/metrics`, which may be a moment old, is this one.
    pub fn wait_for_metric(&self, name: &str, expected: u64) {
        let start = Instant::now();
        loop {
            let value = self.metric(name);
            if value == expected {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{name} is {value}, not {expected}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.keeps_folder {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A folder of a test's own, which goes away with it.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        Self(temporary_folder())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a command came to: exit code, standard output, standard error.
pub fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Waits for what nobody tells of.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The handshake of a websocket, with further `headers`, each with its end.
pub fn handshake(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: pi\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// An empty folder of this test's own.
pub fn temporary_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("edgepush-test-{}-{count}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The process and its two addresses, or its log if it ends before it is ready.
fn spawn(
    folder: &Path,
    data: &Path,
    config: &str,
    port: u16,
) -> Result<(Child, SocketAddr, SocketAddr), String> {
    let file = folder.join("edgepush.toml");
    fs::write(&file, config).unwrap();
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let mut child = edgepush()
        .args([
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--console",
            "127.0.0.1:0",
        ])
        // The same limits wherever the tests run.
        .args(["--board", "generic-x86-64", "--log", "debug", "--data"])
        .arg(data)
        .arg("--config")
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = child.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    let address = |name: &str| {
        let value = line
            .split(name)
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        value.and_then(|url| url.split_once("://")?.1.parse().ok())
    };
    let (Some(push), Some(console)) = (address(" push="), address(" console=")) else {
        let _ = child.kill();
        let _ = child.wait();
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        return Err(format!("not ready: {line:?}\n{log}"));
    };
    Ok((child, push, console))
}

/// A user agent on a websocket.
pub struct UserAgent {
    socket: WebSocket<TcpStream>,
    pub uaid: String,
    /// Read while waiting for something else.
    early: VecDeque<Value>,
}

impl UserAgent {
    /// Connects without saying anything.
    pub fn connect(gateway: &Gateway) -> Self {
        Self::try_connect(gateway).expect("a websocket on the push port")
    }

    /// The same, where the gateway may be down.
    pub fn try_connect(gateway: &Gateway) -> Option<Self> {
        Self::try_connect_to(gateway.push)
    }

    /// The same with any push service.
    pub fn try_connect_to(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(stream)
    }

    /// The same over a connection that is there; `None` where no websocket is to be had.
    pub fn over(stream: TcpStream) -> Option<Self> {
        let url = format!("ws://{}/", stream.peer_addr().ok()?);
        let (socket, _) = tungstenite::client(url, stream).ok()?;
        Some(Self::on(socket))
    }

    /// Connects with the handshake of a recording; the answer in lower case.
    pub fn connect_with(gateway: &Gateway, handshake: &str) -> (Self, String) {
        let mut stream = TcpStream::connect(gateway.push).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(handshake.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        let socket = WebSocket::from_raw_socket(stream, Role::Client, None);
        (Self::on(socket), answer)
    }

    const fn on(socket: WebSocket<TcpStream>) -> Self {
        Self {
            socket,
            uaid: String::new(),
            early: VecDeque::new(),
        }
    }

    /// Connects and says hello, under a name if it has one.
    pub fn hello(gateway: &Gateway, uaid: Option<&str>) -> Self {
        Self::connect(gateway).greet(uaid)
    }

    /// Says hello, under a name if it has one.
    pub fn greet(mut self, uaid: Option<&str>) -> Self {
        assert!(self.try_greet(uaid), "no answer to a hello");
        self
    }

    /// The same where the gateway may be down; whether there was an answer.
    pub fn try_greet(&mut self, uaid: Option<&str>) -> bool {
        let mut hello = json!({"messageType": "hello", "use_webpush": true, "broadcasts": {}});
        if let Some(uaid) = uaid {
            hello["uaid"] = uaid.into();
        }
        if self.socket.send(Message::text(hello.to_string())).is_err() {
            return false;
        }
        let Ok(Message::Text(answer)) = self.socket.read() else {
            return false;
        };
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["messageType"], "hello");
        assert_eq!(answer["status"], 200);
        self.uaid = answer["uaid"].as_str().unwrap().to_owned();
        true
    }

    pub fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    pub fn send_frame(&mut self, frame: Message) {
        self.socket.send(frame).unwrap();
    }

    /// The next JSON message.
    pub fn receive(&mut self) -> Value {
        if let Some(early) = self.early.pop_front() {
            return early;
        }
        self.receive_next()
    }

    fn receive_next(&mut self) -> Value {
        loop {
            match self.socket.read().expect("a message in time") {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a message: {other:?}"),
            }
        }
    }

    /// The next frame of any kind.
    pub fn receive_frame(&mut self) -> Message {
        self.socket.read().expect("a frame in time")
    }

    /// The next message, unless none comes for so long.
    pub fn receive_within(&mut self, time: Duration) -> Option<Value> {
        self.socket.get_ref().set_read_timeout(Some(time)).unwrap();
        let message = self.socket.read();
        self.socket
            .get_ref()
            .set_read_timeout(Some(PATIENCE))
            .unwrap();
        match message {
            Ok(Message::Text(text)) => Some(serde_json::from_str(&text).unwrap()),
            Ok(other) => panic!("not a message: {other:?}"),
            Err(_) => None,
        }
    }

    /// The connection must end, in whatever way.
    pub fn expect_end(&mut self) {
        while self.socket.read().is_ok() {}
    }

    /// Acks whatever comes, until the end of the websocket.
    pub fn ack_all_until_the_end(&mut self) {
        while let Ok(frame) = self.socket.read() {
            if let Message::Text(text) = frame {
                let ack = ack_of(&serde_json::from_str(&text).unwrap()).to_string();
                // It may be over by now.
                let _ = self.socket.send(Message::text(ack));
            }
        }
    }

    /// The close frame that must come next, as code and reason.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.socket.read().expect("a close frame in time") {
                Message::Close(Some(CloseFrame { code, reason })) => {
                    return (code.into(), reason.as_str().to_owned());
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a close frame: {other:?}"),
            }
        }
    }

    /// A new subscription's endpoint, as a path.
    pub fn register(&mut self, channel: &str) -> String {
        self.register_with(&json!({"messageType": "register", "channelID": channel}))
    }

    /// Two of them: open to anybody, and restricted to the first [`Signer`](signer::Signer).
    pub fn register_two(&mut self) -> (String, String) {
        let open = self.register(&channel(1));
        let key = signer::Signer::new(1).public_key();
        let with_key = json!({"messageType": "register", "channelID": channel(2), "key": key});
        (open, self.register_with(&with_key))
    }

    pub fn register_with(&mut self, message: &Value) -> String {
        self.send(message);
        let answer = self.receive();
        assert_eq!(answer["status"], 200, "{answer}");
        assert_eq!(answer["channelID"], message["channelID"]);
        path_of(answer["pushEndpoint"].as_str().unwrap())
    }

    pub fn unregister(&mut self, channel: &str) {
        self.send(&json!({"messageType": "unregister", "channelID": channel, "code": 200}));
        let answer = self.receive();
        let expected = json!({"messageType": "unregister", "channelID": channel, "status": 200});
        assert_eq!(answer, expected);
    }

    pub fn ack(&mut self, notification: &Value) {
        self.send(&ack_of(notification));
    }

    /// Waits until everything that was said has been heard: an ack has no answer.
    ///
    /// An unregister of a subscription that is not there changes nothing and is answered after all
    /// that came before.
    pub fn settle(&mut self) {
        let channel = "00000000-0000-0000-0000-000000000000";
        self.send(&json!({"messageType": "unregister", "channelID": channel}));
        loop {
            let message = self.receive_next();
            if message["channelID"] == channel {
                return;
            }
            self.early.push_back(message);
        }
    }
}

/// Everything behind the host of a URL.
pub fn path_of(url: &str) -> String {
    let rest = url.split_once("://").unwrap().1;
    rest[rest.find('/').unwrap()..].to_owned()
}

/// An HTTP connection.
pub struct Http {
    stream: BufReader<TcpStream>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Http {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("a connection")
    }

    /// The same, where the gateway may be down.
    pub fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self::over(stream))
    }

    /// The same over a connection that is there.
    pub fn over(stream: TcpStream) -> Self {
        let stream = BufReader::new(stream);
        Self { stream }
    }

    /// Sends these very bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.try_send(method, path, headers, body)
            .expect("an answer")
    }

    /// The same, where the gateway may be killed.
    pub fn try_send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        // Without one of its own, the host that endpoints are posted to here.
        if headers.iter().all(|(name, _)| *name != "Host") {
            request.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" || method == "PUT" {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes).ok()?;
        self.try_receive(method == "HEAD")
    }

    pub fn receive(&mut self) -> Answer {
        self.try_receive(false).expect("an answer")
    }

    fn try_receive(&mut self, without_body: bool) -> Option<Answer> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let status = lines[0].split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let length = answer
            .header("content-length")
            .map_or(0, |l| l.parse().unwrap());
        if !without_body {
            answer.body = vec![0; length];
            self.stream.read_exact(&mut answer.body).ok()?;
        }
        Some(answer)
    }

    /// Whether the gateway has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }
}

/// Posts a body of no meaning, as an application server does.
pub fn post(gateway: &Gateway, endpoint: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut all = vec![("Content-Encoding", "aes128gcm")];
    all.extend_from_slice(headers);
    Http::connect(gateway.push).send("POST", endpoint, &all, body)
}

/// A channel ID that is different for each number.
pub fn channel(number: u32) -> String {
    format!("0207da37-1a37-408c-b2f7-{number:012x}")
}

/// What says that a push message has arrived.
fn ack_of(notification: &Value) -> Value {
    let (channel, version) = (&notification["channelID"], &notification["version"]);
    let update = json!({"channelID": channel, "version": version, "code": 100});
    json!({"messageType": "ack", "updates": [update]})
}
