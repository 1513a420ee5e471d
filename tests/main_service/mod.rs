//! A stand-in for the main service on real sockets: behaves as PROTOCOL.md part 3 says that
//! autopush-rs does, does wrong what a test asks for, and remembers all that it was told.
//!
//! The rules are in `service`, `session` and `endpoint`, which know neither sockets nor clocks: the
//! simulator uses them as they are. Here are the threads: one for each port, one for each connection.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]
#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "anything else fails the test"
)]

pub mod endpoint;
pub mod service;
pub mod session;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use futures_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameSocket};

use endpoint::{Reply, Request};
use service::{Service, SessionId};
use session::{Down, Up};

/// How long a thread waits for its peer before it looks for what else there is to do.
const TURN: Duration = Duration::from_millis(5);
/// Longest frame that is taken.
const FRAME_BYTES_MAX: usize = 65_536;
/// Longest head of a request, so that a peer that never ends it is noticed.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long a websocket that was closed may stay.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// How whoever opens a websocket is received.
#[derive(Clone, Debug)]
pub enum Door {
    Open,
    /// Nobody listens on the port.
    Closed,
    /// Connections are taken, and nothing is said.
    Silent,
    /// The upgrade is answered with this status line and these headers, each with its end.
    Refused(&'static str, String),
}

#[derive(Debug)]
struct Shared {
    service: Mutex<Service>,
    door: Mutex<Door>,
    /// Each websocket's socket, so that a test can cut it.
    sockets: Mutex<BTreeMap<SessionId, TcpStream>>,
    /// When each connection to the websocket's port was taken.
    connections: Mutex<Vec<Duration>>,
    start: Instant,
    tls: Option<Arc<ServerConfig>>,
}

/// The main service, on two ports as the real one.
#[derive(Debug)]
pub struct MainService {
    shared: Arc<Shared>,
    /// Where websockets are opened.
    pub websocket: SocketAddr,
    /// Where application servers post.
    pub endpoints: SocketAddr,
}

impl MainService {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// With TLS on its websocket's port.
    pub fn start_secure(config: ServerConfig) -> Self {
        Self::start_with(Some(Arc::new(config)))
    }

    fn start_with(tls: Option<Arc<ServerConfig>>) -> Self {
        let websocket = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoints = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut service = Service::new(u64::from(std::process::id()));
        service.origin = format!("http://{}", endpoints.local_addr().unwrap());
        let main = Self {
            websocket: websocket.local_addr().unwrap(),
            endpoints: endpoints.local_addr().unwrap(),
            shared: Arc::new(Shared {
                service: Mutex::new(service),
                door: Mutex::new(Door::Open),
                sockets: Mutex::default(),
                connections: Mutex::default(),
                start: Instant::now(),
                tls,
            }),
        };
        let (address, shared) = (main.websocket, Arc::downgrade(&main.shared));
        std::thread::spawn(move || {
            let mut listener = Some(websocket);
            while let Some(shared) = shared.upgrade() {
                shared.take_websocket(&mut listener, address);
            }
        });
        let shared = Arc::downgrade(&main.shared);
        endpoints.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            while let Some(shared) = shared.upgrade() {
                match endpoints.accept() {
                    Ok((stream, _)) => {
                        std::thread::spawn(move || shared.serve_endpoint(&stream));
                    }
                    Err(_) => std::thread::sleep(TURN),
                }
            }
        });
        main
    }

    /// Where a user agent connects to.
    pub fn url(&self) -> String {
        let (scheme, host) = match self.shared.tls {
            Some(_) => ("wss", "localhost"),
            None => ("ws", "127.0.0.1"),
        };
        format!("{scheme}://{host}:{}/", self.websocket.port())
    }

    pub fn service(&self) -> MutexGuard<'_, Service> {
        self.shared.service()
    }

    pub fn set_door(&self, door: Door) {
        *self.shared.door.lock().unwrap() = door;
    }

    /// Every websocket is no more, without a word.
    pub fn cut(&self) {
        for socket in self.shared.sockets.lock().unwrap().values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let now = self.shared.now();
        let mut service = self.service();
        let all: Vec<SessionId> = service.sessions.keys().copied().collect();
        for session in all {
            service.gone(now, session);
        }
    }

    /// Cuts every websocket and lets nobody in.
    pub fn go_away(&self) {
        self.set_door(Door::Closed);
        self.cut();
    }

    /// Ends every websocket with a close frame.
    pub fn close_all(&self, code: u16, reason: &str) {
        let now = self.shared.now();
        let mut service = self.service();
        let all: Vec<SessionId> = service.sessions.keys().copied().collect();
        for session in all {
            service.end(now, session, Some((code, reason)));
        }
    }

    /// When each connection to the websocket's port was taken, since the start.
    pub fn connections(&self) -> Vec<Duration> {
        self.shared.connections.lock().unwrap().clone()
    }
}

impl Drop for MainService {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.cut();
        }
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The service, with the time of day.
    fn service(&self) -> MutexGuard<'_, Service> {
        let mut service = self.service.lock().unwrap();
        let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        service.wall_secs = wall.as_secs();
        service
    }

    /// One turn of the websocket's port, which is there unless the door is closed.
    fn take_websocket(self: Arc<Self>, listener: &mut Option<TcpListener>, address: SocketAddr) {
        let door = self.door.lock().unwrap().clone();
        if matches!(door, Door::Closed) {
            *listener = None;
            std::thread::sleep(TURN);
            return;
        }
        let listener = listener.get_or_insert_with(|| TcpListener::bind(address).unwrap());
        listener.set_nonblocking(true).unwrap();
        let Ok((socket, _)) = listener.accept() else {
            std::thread::sleep(TURN);
            return;
        };
        let now = self.now();
        let id = {
            let mut connections = self.connections.lock().unwrap();
            connections.push(now);
            connections.len() as SessionId
        };
        let clone = socket.try_clone().unwrap();
        self.sockets.lock().unwrap().insert(id, clone);
        std::thread::spawn(move || {
            self.serve_websocket(id, socket, &door);
            self.sockets.lock().unwrap().remove(&id);
        });
    }

    fn serve_websocket(&self, id: SessionId, socket: TcpStream, door: &Door) {
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(TURN)).unwrap();
        match &self.tls {
            None => self.speak(id, socket, door),
            Some(config) => {
                let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                self.speak(id, StreamOwned::new(connection, socket), door);
            }
        }
    }

    fn speak(&self, id: SessionId, mut stream: impl Read + Write, door: &Door) {
        if matches!(door, Door::Silent) {
            let _ = read_until(&mut stream, |_| false);
            return;
        }
        let Some(head) = read_head(&mut stream) else {
            return;
        };
        let request = Request::read(&head);
        let answer = match (door, request.headers.get("sec-websocket-key")) {
            (Door::Refused(status, headers), _) => {
                format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n\r\n")
            }
            (_, None) => "HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n".to_owned(),
            _ if request.path != "/" => "HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n".to_owned(),
            (_, Some(key)) => format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                derive_accept_key(key.as_bytes())
            ),
        };
        let is_open = answer.starts_with("HTTP/1.1 101");
        if is_open {
            self.service().opened(self.now(), id, &head);
        }
        let _ = stream.write_all(answer.as_bytes());
        if is_open {
            let _ = self.converse(id, FrameSocket::new(stream));
            self.service().gone(self.now(), id);
        }
    }

    /// Until the connection ends: what there is to say, then what there is to hear.
    fn converse(
        &self,
        id: SessionId,
        mut socket: FrameSocket<impl Read + Write>,
    ) -> Result<(), tungstenite::Error> {
        loop {
            let mut service = self.service();
            service.tick(self.now());
            // Ended by the test, which has cut the connection.
            if !service.sessions.contains_key(&id) {
                return Ok(());
            }
            while let Some(down) = service.poll(id) {
                let is_last = matches!(down, Down::Close(_));
                socket.send(frame(down))?;
                if is_last {
                    drop(service);
                    return linger(socket);
                }
            }
            drop(service);
            let up = match socket.read(Some(FRAME_BYTES_MAX)) {
                Ok(Some(frame)) => heard(frame),
                Ok(None) => return Ok(()),
                Err(tungstenite::Error::Io(fault)) if is_timeout(&fault) => continue,
                Err(tungstenite::Error::Io(fault)) => return Err(fault.into()),
                Err(_) => Up::Malformed,
            };
            self.service().received(self.now(), id, up);
        }
    }

    fn serve_endpoint(&self, mut stream: &TcpStream) {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(TURN)).unwrap();
        while let Some(head) = read_head(&mut stream) {
            let mut request = Request::read(&head);
            let length = request.headers.get("content-length");
            let length = length.map_or(0, |length| length.parse().unwrap());
            let body = read_until(&mut stream, |body| body.len() == length);
            let Some(body) = body else {
                return;
            };
            request.body = body;
            let reply = self.service().answer(self.now(), &request);
            if stream.write_all(&bytes_of(&reply)).is_err() {
                return;
            }
        }
    }
}

/// Lets the peer read the close frame: a socket that is dropped with something unread takes it back.
fn linger(mut socket: FrameSocket<impl Read + Write>) -> Result<(), tungstenite::Error> {
    let start = Instant::now();
    while start.elapsed() < LINGER_MAX {
        match socket.read(None) {
            Ok(None) => break,
            Err(tungstenite::Error::Io(fault)) if !is_timeout(&fault) => break,
            _ => {}
        }
    }
    Ok(())
}

/// A frame of the user agent, whose payload is still masked.
fn heard(frame: Frame) -> Up {
    let header = frame.header().clone();
    let Some(mask) = header.mask else {
        return Up::Malformed;
    };
    let payload = frame.into_payload();
    let payload = payload.iter().zip(mask.iter().cycle());
    let payload: Vec<u8> = payload.map(|(byte, mask)| byte ^ mask).collect();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match header.opcode {
        OpCode::Control(Control::Ping) => Up::Ping(text(&payload)),
        OpCode::Control(Control::Pong) => Up::Pong(text(&payload)),
        OpCode::Control(Control::Close) => {
            let close = payload.split_at_checked(2);
            Up::Close(
                close.map(|(code, reason)| (u16::from_be_bytes([code[0], code[1]]), text(reason))),
            )
        }
        OpCode::Data(Data::Text) if header.is_final => Up::Text(text(&payload)),
        OpCode::Data(Data::Text | Data::Continue) => Up::Fragment(text(&payload)),
        OpCode::Data(Data::Binary) => Up::Binary,
        _ => Up::Malformed,
    }
}

fn frame(down: Down) -> Frame {
    match down {
        Down::Text(text) => Frame::message(text, OpCode::Data(Data::Text), true),
        Down::Ping => Frame::ping(Vec::new()),
        Down::Pong(payload) => Frame::pong(payload.into_bytes()),
        Down::Close(None) => Frame::close(None),
        Down::Close(Some((code, reason))) => {
            let (code, reason) = (code.into(), reason.into());
            Frame::close(Some(CloseFrame { code, reason }))
        }
    }
}

impl Request {
    /// The head of a request.
    fn read(head: &str) -> Self {
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or("").split(' ').map(str::to_owned);
        let headers = lines.filter_map(|line| line.split_once(':'));
        Self {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
                .collect(),
            body: Vec::new(),
        }
    }
}

fn bytes_of(reply: &Reply) -> Vec<u8> {
    let (status, length) = (reply.status, reply.body.len());
    let mut text = format!("HTTP/1.1 {status} \r\nContent-Length: {length}\r\n");
    for (name, value) in &reply.headers {
        text += &format!("{name}: {value}\r\n");
    }
    (text + "\r\n" + &reply.body).into_bytes()
}

fn read_head(stream: &mut impl Read) -> Option<String> {
    let head = read_until(stream, |head| {
        head.ends_with(b"\r\n\r\n") || head.len() == HEAD_BYTES_MAX
    })?;
    String::from_utf8(head).ok()
}

/// Byte by byte, so that nothing of what follows is lost; `None` when the peer has gone.
fn read_until(stream: &mut impl Read, is_done: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while !is_done(&bytes) {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => return None,
            Ok(_) => bytes.push(byte[0]),
            Err(fault) if is_timeout(&fault) => {}
            Err(_) => return None,
        }
    }
    Some(bytes)
}

fn is_timeout(fault: &std::io::Error) -> bool {
    matches!(
        fault.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
