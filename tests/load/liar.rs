//! A push service that lies in one way, or in none: small, in memory, for both dialects.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// What it does wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lie {
    None,
    /// Accepts a message and forgets it.
    Drops,
    /// Sends again what was acked.
    Duplicates,
    /// Turns one bit.
    Alters,
    /// Names the other encryption scheme.
    AltersTheEncoding,
    /// Sends to the user agent that came last.
    Misroutes,
    /// Names another subscription of the same user agent.
    Confuses,
    /// Sends what nobody has posted.
    Invents,
    /// Gives a user agent that comes back another name.
    Renames,
    /// Answers with 500 what it delivers.
    Refuses,
    /// Gives no subscription.
    Denies,
    /// Takes messages for subscriptions that were given up.
    Remembers,
    /// Ends a websocket after a message.
    HangsUp,
}

/// Lies about each of so many messages, so that the first ones go well.
const EACH: u64 = 7;

#[derive(Default)]
struct Service {
    agents: Vec<Sender<Value>>,
    names: HashMap<String, usize>,
    /// Agent and channel by the number in the endpoint.
    subscriptions: Vec<(usize, String, bool)>,
    posted: u64,
}

/// Starts one; it ends with the test.
pub fn start(lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let service = Arc::new(Mutex::new(Service::default()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let service = Arc::clone(&service);
            // What a peer breaks off is its own affair.
            thread::spawn(move || serve(&service, lie, address, stream.unwrap()));
        }
    });
    address
}

fn serve(service: &Mutex<Service>, lie: Lie, address: SocketAddr, stream: TcpStream) -> Option<()> {
    let mut first = [0];
    stream.peek(&mut first).ok()?;
    if first == *b"G" {
        let socket = tungstenite::accept(stream).ok()?;
        return user_agent(service, lie, address, socket);
    }
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let header = |name: &str| {
            let line = head.lines().find(|line| line.starts_with(name));
            line.map(|line| line[name.len()..].trim().to_owned())
        };
        let mut body =
            vec![0; header("content-length:").map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).ok()?;
        let number = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let status = post(service, lie, number, &head, &body);
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        stream.get_mut().write_all(answer.as_bytes()).ok()?;
    }
}

/// Delivers one message at once; the status of the answer.
fn post(service: &Mutex<Service>, lie: Lie, number: usize, head: &str, body: &[u8]) -> u16 {
    let mut service = service.lock().unwrap();
    service.posted += 1;
    let lies = service.posted.is_multiple_of(EACH);
    let Some((agent, channel, is_there)) = service.subscriptions.get(number).cloned() else {
        return 404;
    };
    if !is_there && lie != Lie::Remembers {
        return 410;
    }
    let to = if lies && lie == Lie::Misroutes {
        service.agents.len() - 1
    } else {
        agent
    };
    let mut others = service.subscriptions.iter().rev();
    let (_, other_channel, _) = others.find(|other| other.0 == agent).unwrap();
    let channel = if lies && lie == Lie::Confuses {
        other_channel.clone()
    } else {
        channel
    };
    let mut body = body.to_vec();
    if lies && lie == Lie::Alters {
        *body.last_mut().unwrap() ^= 1;
    }
    if lies && lie == Lie::Invents {
        body[..8].fill(0xff);
    }
    let message = if head.starts_with("PUT") {
        let form = String::from_utf8(body).unwrap();
        let field = |name: &str| {
            let mut fields = form.split('&').filter_map(|field| field.split_once('='));
            fields.find(|field| field.0 == name).map(|field| field.1)
        };
        let version: u64 = field("version")
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        let update = json!({"channelID": channel, "version": version, "data": field("data")});
        json!({"messageType": "notification", "updates": [update]})
    } else {
        let encoding = if lies && lie == Lie::AltersTheEncoding {
            "aesgcm"
        } else {
            "aes128gcm"
        };
        json!({"messageType": "notification", "channelID": channel, "version": "v",
            "data": BASE64URL_NOPAD.encode(&body), "headers": {"encoding": encoding}})
    };
    if !(lies && lie == Lie::Drops) {
        // It may have left.
        let _ = service.agents[to].send(message);
    }
    match lie {
        Lie::Refuses if lies => 500,
        _ => 201,
    }
}

fn user_agent(
    service: &Mutex<Service>,
    lie: Lie,
    address: SocketAddr,
    mut socket: WebSocket<TcpStream>,
) -> Option<()> {
    let mut agent = usize::MAX;
    let (sender, waiting): (_, Receiver<Value>) = channel();
    let mut sent = Vec::new();
    loop {
        let timeout = Some(Duration::from_millis(1));
        socket.get_ref().set_read_timeout(timeout).unwrap();
        match socket.read() {
            Ok(Message::Text(text)) => {
                let message: Value = serde_json::from_str(&text).ok()?;
                let mut service = service.lock().unwrap();
                let answer = match message["messageType"].as_str() {
                    Some("hello") => {
                        let name = match message["uaid"].as_str() {
                            Some(name) if lie != Lie::Renames => name.to_owned(),
                            _ => format!("agent {}", service.agents.len()),
                        };
                        agent = *service.names.get(&name).unwrap_or(&service.agents.len());
                        service.names.insert(name.clone(), agent);
                        if agent == service.agents.len() {
                            service.agents.push(sender.clone());
                        } else {
                            service.agents[agent] = sender.clone();
                        }
                        json!({"messageType": "hello", "uaid": name, "status": 200})
                    }
                    Some("register") => {
                        let channel = message["channelID"].as_str().unwrap().to_owned();
                        let number = service.subscriptions.len();
                        service.subscriptions.push((agent, channel.clone(), true));
                        let endpoint = format!("http://{address}/{number}");
                        json!({"messageType": "register", "channelID": channel, "pushEndpoint": endpoint,
                            "status": if lie == Lie::Denies { 500 } else { 200 }})
                    }
                    Some("unregister") => {
                        let given_up = message["channelID"].as_str().unwrap();
                        let mut all = service.subscriptions.iter_mut();
                        all.find(|(_, channel, _)| channel == given_up).unwrap().2 = false;
                        json!({"messageType": "unregister", "status": 200})
                    }
                    Some("ack") => {
                        // Of the newest message, which comes a second time.
                        if lie == Lie::Duplicates && service.posted.is_multiple_of(EACH) {
                            sender.send(sent.pop().unwrap_or_default()).unwrap();
                        }
                        continue;
                    }
                    _ => return None,
                };
                socket.send(Message::text(answer.to_string())).ok()?;
            }
            Ok(Message::Close(_)) => {
                let _ = socket.flush();
                return None;
            }
            Ok(_) => {}
            Err(tungstenite::Error::Io(error))
                if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        while let Ok(message) = waiting.try_recv() {
            if message.is_null() {
                continue;
            }
            sent = vec![message.clone()];
            socket.send(Message::text(message.to_string())).ok()?;
            if lie == Lie::HangsUp {
                return None;
            }
        }
    }
}
