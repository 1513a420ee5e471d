//! Prints how long a push message takes to a well-behaved user agent, in peace and under each attack.
//!
//! `cargo bench --bench hostile [SECONDS]`; each attack takes so many seconds, 3 if none are given. The
//! attackers take their share of the processor as well: what is printed is the worst that this machine
//! has to offer, and not the gateway's time alone.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // every number is its own
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]
#![allow(dead_code, reason = "the tests use the rest")]

#[path = "../tests/hostile/neighbour.rs"]
mod neighbour;
#[path = "../tests/hostile/network.rs"]
mod network;
#[path = "../tests/hostile/raw.rs"]
mod raw;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, sleep};
use std::time::{Duration, Instant};

use neighbour::Neighbour;
use network::{Network, connection, try_connect, within};
use raw::{HELLO, Raw, frame};
use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use support::{Gateway, Http, UserAgent, channel, handshake};

/// What an attack works with. It ends when `ended` is set, and counts what it has done.
struct Stage<'a> {
    gateway: &'a Gateway,
    network: Network,
    ended: AtomicBool,
    done: AtomicU64,
}

/// The name, what is counted, and what prepares the attack and starts its threads.
type Attack = (
    &'static str,
    &'static str,
    for<'scope> fn(&'scope Stage<'scope>, &'scope Scope<'scope, '_>),
);

const ATTACKS: &[Attack] = &[
    ("peace", "", |_, _| {}),
    ("10,000 silent connections", "connections", silent),
    ("1,000 slow heads", "bytes", slow_heads),
    ("500 slow websocket messages", "bytes", slow_frames),
    ("acks, 4 websockets", "MB", |s, t| flood(s, t, 4, &ack(1))),
    ("acks, 100 websockets", "MB", |s, t| {
        flood(s, t, 100, &ack(1))
    }),
    ("acks of 300 messages, 4 websockets", "MB", |s, t| {
        flood(s, t, 4, &ack(300))
    }),
    ("pings, 4 websockets", "MB", |s, t| {
        flood(s, t, 4, &frame(0x89, b""))
    }),
    ("empty fragments, 4 websockets", "MB", |s, t| {
        flood(s, t, 4, &frame(0x00, b""))
    }),
    ("requests whose answers nobody reads", "MB", unread),
    ("bodies without an end", "MB", bodies),
    ("connections that come and go", "connections", connections),
    ("hellos on new websockets", "websockets", hellos),
    ("registers", "registers", registers),
    ("posts to one who is away", "posts", posts),
    ("peace again", "", |_, _| {}),
];

/// The well-behaved stay below the rate of new connections of one address
/// (`limits.connection_rate_per_sec_max`, 200).
const PACE: Duration = Duration::from_millis(8);

fn main() {
    within("", |network| {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
        let secs = std::env::args().filter_map(|a| a.parse().ok()).next();
        let time = Duration::from_secs(secs.unwrap_or(3));
        println!(
            "{:38}{:^24}{:^24}",
            "", "over an open connection", "over a new connection"
        );
        println!(
            "{:38}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}  what the attackers did",
            "milliseconds from post to frame", "p50", "p99", "max", "p50", "p99", "max"
        );
        for attack in ATTACKS {
            measure(attack, network, time);
        }
    });
}

fn measure((name, unit, start): &Attack, network: Network, time: Duration) {
    let gateway = Gateway::start();
    let mut neighbour = Neighbour::new(&gateway, network);
    let stage = Stage {
        gateway: &gateway,
        network,
        ended: AtomicBool::new(false),
        done: AtomicU64::new(0),
    };
    let mut open = Vec::new();
    let mut new = Vec::new();
    let mut did = 0;
    std::thread::scope(|scope| {
        start(&stage, scope);
        sleep(Duration::from_millis(500));
        let before = stage.done.load(Ordering::Relaxed);
        let begin = Instant::now();
        while begin.elapsed() < time {
            open.push(neighbour.is_served_as_before());
            new.push(neighbour.is_served());
            sleep(PACE);
        }
        did = stage.done.load(Ordering::Relaxed) - before;
        stage.ended.store(true, Ordering::Relaxed);
    });
    let per_second = did as f64 / time.as_secs_f64();
    let per_second = if *unit == "MB" {
        per_second / 1e6
    } else {
        per_second
    };
    println!(
        "{name:38}{}{}  {per_second:.0} {unit} a second",
        row(open),
        row(new)
    );
}

/// The middle, the worst but one of a hundred, and the worst.
fn row(mut took: Vec<Duration>) -> String {
    took.sort();
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
    [at(50), at(99), at(100)]
        .map(|took| format!("{:8.2}", took.as_secs_f64() * 1e3))
        .concat()
}

impl Stage<'_> {
    fn goes_on(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    fn did(&self, count: usize) {
        self.done.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn try_connect(&self) -> Option<TcpStream> {
        let stream = try_connect(self.network.attacker, self.gateway.push).ok()?;
        stream
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        // Ends with a reset, so that no port is used up for a minute.
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        Some(stream)
    }
}

/// Holds what it gets.
fn silent<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>) {
    scope.spawn(|| {
        let mut all = Vec::new();
        while all.len() < 10_000 && stage.goes_on() {
            all.extend(stage.try_connect());
            stage.did(1);
        }
        while stage.goes_on() {
            sleep(Duration::from_millis(50));
        }
    });
}

/// A byte to each now and then, for ever.
fn drip<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>, mut streams: Vec<TcpStream>) {
    scope.spawn(move || {
        while stage.goes_on() {
            for stream in &mut streams {
                stage.did(stream.write(b" ").unwrap_or(0));
            }
            sleep(Duration::from_millis(100));
        }
    });
}

fn slow_heads<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>) {
    let slow = (0..1000).map(|_| {
        let mut stream = connection(stage.network.attacker, stage.gateway.push);
        stream.write_all(b"POST / HTTP/1.1\r\nX: ").unwrap();
        stream
    });
    drip(stage, scope, slow.collect());
}

fn slow_frames<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>) {
    let mut head = frame(0x81, &[b' '; 60_000]);
    head.truncate(20);
    let slow = (0..500).map(|_| {
        let mut raw = Raw::named(stage.gateway, stage.network);
        raw.0.write_all(&head).unwrap();
        raw.0
    });
    drip(stage, scope, slow.collect());
}

/// An ack of so many messages that there never were.
fn ack(updates: usize) -> Vec<u8> {
    let update = json!({"channelID": channel(9), "version": "x".repeat(60), "code": 100});
    let ack = json!({"messageType": "ack", "updates": vec![update; updates]});
    frame(0x81, ack.to_string().as_bytes())
}

/// The same again and again, as fast as it is taken, over so many websockets with a name.
fn flood<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>, websockets: usize, bytes: &[u8]) {
    let many = bytes.repeat(16_384 / bytes.len() + 1);
    let mut streams: Vec<TcpStream> = (0..websockets)
        .map(|_| {
            let mut stream = Raw::named(stage.gateway, stage.network).0;
            if bytes[0] == 0 {
                stream.write_all(&frame(0x01, b"{")).unwrap();
            }
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    // One thread for all, or the attackers would have all of the processor.
    scope.spawn(move || {
        let mut unsent = vec![0; streams.len()];
        while stage.goes_on() {
            let mut idle = true;
            for (stream, unsent) in streams.iter_mut().zip(&mut unsent) {
                let mut answers = [0; 4096];
                let _ = stream.read(&mut answers);
                if let Ok(sent) = stream.write(&many[*unsent..]) {
                    *unsent = (*unsent + sent) % many.len();
                    stage.did(sent);
                    idle = false;
                }
            }
            if idle {
                sleep(Duration::from_micros(200));
            }
        }
    });
}

/// The same bytes after `head` until the gateway has had enough, then again.
fn pour<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>, head: String, bytes: Vec<u8>) {
    for _ in 0..2 {
        let (head, bytes) = (head.clone(), bytes.clone());
        scope.spawn(move || {
            while stage.goes_on() {
                let Some(mut stream) = stage.try_connect() else {
                    continue;
                };
                let _ = stream.write_all(head.as_bytes());
                while let Ok(sent @ 1..) = stream.write(&bytes) {
                    stage.did(sent);
                    if !stage.goes_on() {
                        break;
                    }
                }
            }
        });
    }
}

fn unread<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>) {
    let request = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";
    pour(
        stage,
        scope,
        String::new(),
        request.repeat(500).into_bytes(),
    );
}

fn bodies<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>) {
    let head = "POST /wpush/v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n";
    pour(stage, scope, head.to_owned(), vec![b'x'; 65_536]);
}

fn connections<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>) {
    for _ in 0..2 {
        scope.spawn(|| {
            while stage.goes_on() {
                if let Some(mut stream) = stage.try_connect() {
                    let _ = stream.write_all(b"GET / HTTP/1.1\r\n");
                    stage.did(1);
                }
            }
        });
    }
}

fn hellos<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>) {
    for _ in 0..2 {
        scope.spawn(|| {
            let mut bytes = handshake("/", "").into_bytes();
            bytes.extend(frame(0x81, HELLO.as_bytes()));
            while stage.goes_on() {
                if let Some(mut stream) = stage.try_connect() {
                    let _ = stream.write_all(&bytes);
                    let _ = stream.read(&mut [0; 1024]);
                    stage.did(1);
                }
            }
        });
    }
}

fn registers<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>) {
    for thread in 0..4 {
        scope.spawn(move || {
            let stream = connection(stage.network.attacker, stage.gateway.push);
            let mut agent = UserAgent::over(stream).unwrap().greet(None);
            let mut number = thread * 1_000_000;
            while stage.goes_on() {
                number += 1;
                agent.send(&json!({"messageType": "register", "channelID": channel(number)}));
                agent.receive();
                stage.did(1);
            }
        });
    }
}

fn posts<'s>(stage: &'s Stage<'s>, scope: &'s Scope<'s, '_>) {
    let stream = connection(stage.network.attacker, stage.gateway.push);
    let mut agent = UserAgent::over(stream).unwrap().greet(None);
    let endpoint = agent.register(&channel(1));
    drop(agent);
    for _ in 0..4 {
        let endpoint = endpoint.clone();
        scope.spawn(move || {
            let headers = [("TTL", "600"), ("Content-Encoding", "aes128gcm")];
            let mut http = Http::over(connection(stage.network.attacker, stage.gateway.push));
            while stage.goes_on() {
                if http
                    .try_send("POST", &endpoint, &headers, &[7; 4096])
                    .is_none()
                {
                    http = Http::over(connection(stage.network.attacker, stage.gateway.push));
                }
                stage.did(1);
            }
        });
    }
}
