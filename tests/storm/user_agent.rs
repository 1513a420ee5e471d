//! A user agent that comes and goes, acks most of what it gets, and takes nothing amiss: the gateway
//! may be killed at any moment.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Error, Message, WebSocket};

use super::ledger::{Ledger, MessageName};
use super::rng::Rng;
use crate::support::{PATIENCE, channel, path_of};

/// How long it waits where the gateway is down.
const REST: Duration = Duration::from_millis(10);
/// Longest it looks for a frame before it thinks of something else.
const GLANCE: Duration = Duration::from_millis(10);
/// Longest that everything which waits may take to come.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// Subscriptions that it has at first, and at most.
const CHANNELS_FIRST: usize = 2;
const CHANNELS_MAX: usize = 5;
/// A channel that nobody has: ending it changes nothing, and is answered when all that was said before is
/// committed, because what is to be deleted goes to the storage thread before anything else does.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

pub(super) struct UserAgent {
    number: usize,
    simplepush: bool,
    push: SocketAddr,
    rng: Rng,
    ledger: Arc<Ledger>,
    uaid: Option<String>,
    /// Its channels by their names on the wire, and the ledger's names of them.
    channels: HashMap<String, usize>,
    /// How many channels it has asked for; of some it never hears, where the gateway was killed.
    names_given: u32,
}

/// One websocket.
struct Link {
    socket: WebSocket<TcpStream>,
    /// Acks sent on it since the last that was followed by a question.
    acked: Vec<MessageName>,
    /// What is done when the next questions are answered.
    asked: VecDeque<Vec<MessageName>>,
    /// Received, and to be acked later or never.
    unacked: Vec<(MessageName, Value)>,
}

/// The gateway is gone, or this websocket is.
struct Gone;

impl UserAgent {
    pub(super) fn new(
        number: usize,
        simplepush: bool,
        push: SocketAddr,
        rng: Rng,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            number,
            simplepush,
            push,
            rng,
            ledger,
            uaid: None,
            channels: HashMap::new(),
            names_given: 0,
        }
    }

    /// Until told to stop.
    pub(super) fn live(mut self, stop: &AtomicBool) -> Self {
        while !stop.load(Ordering::Relaxed) {
            match self.connect() {
                Ok(mut link) => {
                    let until = Instant::now() + Duration::from_millis(50 + self.rng.below(1500));
                    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                        if self.attend(&mut link).is_err() {
                            break;
                        }
                    }
                    if self.rng.percent(60) {
                        let away = self.rng.below(500);
                        drop(link);
                        std::thread::sleep(Duration::from_millis(away));
                    }
                }
                Err(Gone) => std::thread::sleep(REST),
            }
        }
        self
    }

    /// Takes in and acks all that there is, which is when nothing has come for so long, and waits until
    /// that is committed.
    pub(super) fn drain(&mut self, quiet: Duration) {
        let fault = "the gateway is there";
        let mut link = self.connect().unwrap_or_else(|Gone| panic!("{fault}"));
        let start = Instant::now();
        let mut last = start;
        while last.elapsed() < quiet {
            assert!(start.elapsed() < DRAIN_MAX, "it never ends");
            if let Some(message) = link.read().unwrap_or_else(|Gone| panic!("{fault}")) {
                self.take(&mut link, &message);
                let _ = Self::ack_all(&mut link);
                last = Instant::now();
            }
        }
        let _ = link.ask();
        let start = Instant::now();
        while !link.asked.is_empty() {
            assert!(start.elapsed() < PATIENCE, "an answer never came");
            if let Some(message) = link.read().unwrap_or_else(|Gone| panic!("{fault}")) {
                self.take(&mut link, &message);
            }
        }
    }

    fn connect(&mut self) -> Result<Link, Gone> {
        let stream = TcpStream::connect(self.push).map_err(|_| Gone)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|_| Gone)?;
        let url = format!("ws://{}/", self.push);
        let (socket, _) = tungstenite::client(url, stream).map_err(|_| Gone)?;
        let mut link = Link {
            socket,
            acked: Vec::new(),
            asked: VecDeque::new(),
            unacked: Vec::new(),
        };
        let mut hello = if self.simplepush {
            let channels: Vec<&String> = self.channels.keys().collect();
            json!({"messageType": "hello", "channelIDs": channels})
        } else {
            json!({"messageType": "hello", "use_webpush": true})
        };
        if let Some(uaid) = &self.uaid {
            hello["uaid"] = uaid.as_str().into();
        }
        link.send(&hello)?;
        let answer = link.read()?.ok_or(Gone)?;
        let given = answer["uaid"].as_str().map(str::to_owned);
        if answer["status"] != 200 {
            return Err(Gone);
        }
        if self.uaid.is_some() && self.uaid != given {
            let number = self.number;
            self.ledger
                .fault(format!("user agent {number} got another name"));
        }
        self.uaid = given;
        let stream = link.socket.get_ref();
        stream.set_read_timeout(Some(GLANCE)).map_err(|_| Gone)?;
        Ok(link)
    }

    /// A moment of its life.
    fn attend(&mut self, link: &mut Link) -> Result<(), Gone> {
        if let Some(message) = link.read()? {
            self.take(link, &message);
            match self.rng.below(10) {
                0..=6 => Self::ack_all(link)?,
                // Later, together, and not at all if the websocket ends before.
                7..=8 => {}
                _ => link.unacked.clear(),
            }
        }
        match self.rng.below(1000) {
            0..=49 => link.ask()?,
            50..=99 => Self::ack_all(link)?,
            100..=104 if self.channels.len() < CHANNELS_MAX => self.register(link)?,
            105 if self.channels.len() > CHANNELS_FIRST => self.unregister(link)?,
            _ if self.channels.len() < CHANNELS_FIRST => self.register(link)?,
            _ => {}
        }
        Ok(())
    }

    fn register(&mut self, link: &mut Link) -> Result<(), Gone> {
        self.names_given += 1;
        let name = channel(((self.number as u32) << 16) | self.names_given);
        link.send(&json!({"messageType": "register", "channelID": name}))
    }

    fn unregister(&mut self, link: &mut Link) -> Result<(), Gone> {
        let at = self.rng.index(self.channels.len());
        let Some((name, known)) = self.channels.iter().nth(at) else {
            return Ok(());
        };
        self.ledger.unsubscribing(*known);
        link.send(&json!({"messageType": "unregister", "channelID": name}))
    }

    /// Whatever the gateway says.
    fn take(&mut self, link: &mut Link, message: &Value) {
        let name = message["channelID"].as_str().unwrap_or_default();
        let is_ok = message["status"] == 200;
        match message["messageType"].as_str() {
            Some("register") if is_ok => {
                let endpoint = message["pushEndpoint"].as_str().unwrap_or_default();
                let simplepush = self.simplepush;
                let known = self
                    .ledger
                    .subscribed(self.number, simplepush, path_of(endpoint));
                self.channels.insert(name.to_owned(), known);
            }
            Some("unregister") if name == NOBODY => {
                let done = link.asked.pop_front().unwrap_or_default();
                if is_ok {
                    self.ledger.done(&done);
                }
            }
            Some("unregister") if is_ok => {
                if let Some(known) = self.channels.remove(name) {
                    self.ledger.unsubscribed(known);
                }
            }
            Some("notification") => self.notified(link, message),
            _ => {}
        }
    }

    fn notified(&mut self, link: &mut Link, message: &Value) {
        let updates = match message["updates"].as_array() {
            Some(updates) => updates.as_slice(),
            None => std::slice::from_ref(message),
        };
        for update in updates {
            let name = self.name_of(update);
            self.ledger.received(self.number, name);
            link.unacked.push((name, update.clone()));
        }
    }

    /// The ledger's name of what came.
    fn name_of(&self, update: &Value) -> MessageName {
        let nobodys = (usize::MAX, 0);
        if let Some(data) = update["data"].as_str() {
            let body = data_encoding::BASE64URL_NOPAD.decode(data.as_bytes());
            let body = body.ok().and_then(|body| String::from_utf8(body).ok());
            let body = body.unwrap_or_default();
            let mut words = body.split(' ');
            let mut number = || words.next()?.parse::<u64>().ok();
            return match (number(), number()) {
                (Some(channel), Some(number)) => (channel as usize, number),
                _ => nobodys,
            };
        }
        let channel = update["channelID"].as_str().unwrap_or_default();
        match (self.channels.get(channel), update["version"].as_u64()) {
            (Some(known), Some(version)) => (*known, version),
            _ => nobodys,
        }
    }

    fn ack_all(link: &mut Link) -> Result<(), Gone> {
        if link.unacked.is_empty() {
            return Ok(());
        }
        let received = std::mem::take(&mut link.unacked);
        let (names, received): (Vec<_>, Vec<_>) = received.into_iter().unzip();
        let ack = |update: &Value| json!({"channelID": update["channelID"], "version": update["version"]});
        let updates: Vec<Value> = received.iter().map(ack).collect();
        link.send(&json!({"messageType": "ack", "updates": updates}))?;
        link.acked.extend(names);
        Ok(())
    }
}

impl Link {
    fn send(&mut self, message: &Value) -> Result<(), Gone> {
        let message = Message::text(message.to_string());
        self.socket.send(message).map_err(|_| Gone)
    }

    /// Asks something whose answer means that all acks before it are committed.
    fn ask(&mut self) -> Result<(), Gone> {
        self.asked.push_back(std::mem::take(&mut self.acked));
        self.send(&json!({"messageType": "unregister", "channelID": NOBODY}))
    }

    /// The next message, if one is there.
    fn read(&mut self) -> Result<Option<Value>, Gone> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    return Ok(Some(serde_json::from_str(&text).map_err(|_| Gone)?));
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(_) => return Err(Gone),
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(_) => return Err(Gone),
            }
        }
    }
}
