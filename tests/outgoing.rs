//! What the gateway itself asks of others: its list of broadcasts, and an operator's wake-up proxy.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel as queue};

use serde_json::{Value, json};
use support::{Gateway, Http, UserAgent, channel};

/// An HTTP server that answers each request with what it is told; a request as it came.
struct Server {
    url: String,
    answers: Sender<String>,
    requests: Receiver<String>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (answers, to_give) = queue::<String>();
        let (seen, requests) = queue();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_request(&mut stream);
                // The test has ended when nobody is there any more.
                let Ok(answer) = to_give.recv() else { return };
                stream.write_all(answer.as_bytes()).unwrap();
                if seen.send(request).is_err() {
                    return;
                }
            }
        });
        Self {
            url,
            answers,
            requests,
        }
    }

    fn answer(&self, status: &str, body: &str) {
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        self.answers.send(answer).unwrap();
    }
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap() == 0 {
            break;
        }
    }
    let length = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn listening(gateway: &Gateway, broadcasts: &Value) -> (UserAgent, Value) {
    let mut agent = UserAgent::connect(gateway);
    agent.send(&json!({"messageType": "hello", "use_webpush": true, "broadcasts": broadcasts}));
    let hello = agent.receive();
    (agent, hello["broadcasts"].clone())
}

#[test]
fn broadcast_of_a_server_reaches_those_who_listen_as_soon_as_it_changes() {
    let server = Server::start();
    let config = format!(
        "[broadcasts]\nurl = \"{}/v1/broadcasts\"\npoll_secs = 1\n",
        server.url
    );
    let gateway = Gateway::with_config(&config);
    let (mut agent, told) = listening(&gateway, &json!({"a/b": "\"0\""}));
    assert_eq!(told, json!({"errors": {"a/b": "Broadcast not found"}}));

    server.answer("200 OK", r#"{"broadcasts":{"a/b":"\"1\"","c/d":"5"}}"#);
    let news = json!({"messageType": "broadcast", "broadcasts": {"a/b": "\"1\""}});
    assert_eq!(agent.receive(), news);
    let request = server.requests.recv().unwrap();
    assert!(
        request.starts_with("GET /v1/broadcasts HTTP/1.1\r\n"),
        "{request}"
    );

    let (_, told) = listening(&gateway, &json!({"a/b": "\"1\"", "c/d": "4", "e/f": "4"}));
    let expected = json!({"c/d": "5", "errors": {"e/f": "Broadcast not found"}});
    assert_eq!(told, expected);

    // What fails changes nothing, and is looked at again.
    server.answer("500 Internal Server Error", "");
    server.answer("200 OK", "nonsense");
    server.answer("200 OK", r#"{"broadcasts":{"a/b":"\"2\""}}"#);
    assert_eq!(agent.receive()["broadcasts"], json!({"a/b": "\"2\""}));
    gateway.wait_for_log("broadcasts can be read again");
    let log = gateway.log();
    assert_eq!(log.matches("broadcasts cannot be read").count(), 1, "{log}");
}

#[test]
fn broadcasts_come_from_a_file_as_well() {
    let file = std::env::temp_dir().join(format!("edgepush-broadcasts-{}", std::process::id()));
    fs::write(&file, r#"{"broadcasts":{"a":"1"}}"#).unwrap();
    let config = format!(
        "[broadcasts]\nfile = \"{}\"\npoll_secs = 1\n",
        file.display()
    );
    let gateway = Gateway::with_config(&config);
    let mut agent = UserAgent::hello(&gateway, None);
    agent.send(&json!({"messageType": "broadcast_subscribe", "broadcasts": {"a": "0"}}));
    let mut told = agent.receive();
    if told["broadcasts"]["errors"].is_object() {
        // It was quicker than the file.
        told = agent.receive();
    }
    assert_eq!(
        told,
        json!({"messageType": "broadcast", "broadcasts": {"a": "1"}})
    );
    fs::write(&file, r#"{"broadcasts":{"a":"2"}}"#).unwrap();
    assert_eq!(agent.receive()["broadcasts"], json!({"a": "2"}));
    fs::remove_file(&file).unwrap();
}

#[test]
fn operators_proxy_is_asked_to_wake_a_device_in_place_of_a_datagram() {
    let server = Server::start();
    let gateway = Gateway::with_config(&format!(
        "[simplepush]\nudp_wakeup = true\nudp_proxy = \"{}/wakeup\"\n[limits]\nudp_idle_secs = 1\n",
        server.url
    ));
    let mut device = UserAgent::connect(&gateway);
    device.send(&json!({
        "messageType": "hello", "channelIDs": [],
        "wakeup_hostport": {"ip": "127.0.0.1", "port": 2442},
        "mobilenetwork": {"mcc": "214", "mnc": "07", "netid": "a&b"}}));
    assert_eq!(device.receive()["status"], 200);
    let endpoint = device.register(&channel(1));
    assert_eq!(device.closed().0, 4774);

    let put = Http::connect(gateway.push).send("PUT", &endpoint, &[], b"version=1");
    assert_eq!(put.status, 202);
    server.answer("200 OK", "");
    let request = server.requests.recv().unwrap();
    assert!(
        request.starts_with("POST /wakeup HTTP/1.1\r\n"),
        "{request}"
    );
    let form = "ip=127.0.0.1&port=2442&protocol=udp&mcc=214&mnc=07&netid=a%26b";
    assert!(request.ends_with(&format!("\r\n\r\n{form}")), "{request}");
    // A second later again; a failure is told.
    server.answer("502 Bad Gateway", "");
    server.requests.recv().unwrap();
    gateway.wait_for_log("wake-up proxy failed: answered with status 502");
}
