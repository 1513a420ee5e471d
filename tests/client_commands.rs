//! `edgepush listen`, `send` and `vapid` as a person or a script uses them, with a real gateway; and
//! with peers that are none.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Folder, Gateway, PATIENCE, said};
use tungstenite::{Message, WebSocket};

/// Commands that run in it.
impl Folder {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = support::edgepush();
        command.current_dir(&self.0).args(args);
        command
    }

    /// Exit code, standard output, standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        said(self.command(args).output().unwrap())
    }

    /// The same with something on standard input.
    fn feed(&self, args: &[&str], input: &[u8]) -> (i32, String, String) {
        let mut command = self.command(args);
        command.stdin(Stdio::piped());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        said(child.wait_with_output().unwrap())
    }

    fn listen(&self, args: &[&str]) -> Listener {
        let mut all = vec!["listen"];
        all.extend_from_slice(args);
        let mut child = self
            .command(&all)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = lines(child.stdout.take().unwrap());
        let err = lines(child.stderr.take().unwrap());
        Listener { child, out, err }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        let meta = fs::metadata(self.0.join(name)).unwrap();
        meta.permissions().mode() & 0o777
    }
}

/// The lines of a stream, as they come.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A running `edgepush listen`. Killed when dropped.
struct Listener {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Listener {
    /// The next line of standard output.
    fn line(&self) -> String {
        self.out.recv_timeout(PATIENCE).expect("a line in time")
    }

    /// Asserts that there is no further line.
    fn no_line(&self) {
        let line = self.out.recv_timeout(Duration::from_millis(300));
        assert_eq!(line, Err(RecvTimeoutError::Timeout));
    }

    /// Reads standard error up to a line that contains `text`.
    fn told(&self, text: &str) -> String {
        let mut all = Vec::new();
        loop {
            match self.err.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => all.push(line),
                Err(_) => panic!("not told {text:?}: {all:#?}"),
            }
        }
    }

    /// The endpoint and the subscription, which come first.
    fn subscribed(&self) -> (String, String) {
        let endpoint = self.line();
        let subscription = self.line();
        (
            endpoint.strip_prefix("endpoint ").unwrap().to_owned(),
            subscription
                .strip_prefix("subscription ")
                .unwrap()
                .to_owned(),
        )
    }

    fn terminate(self) -> i32 {
        self.terminate_with_output().0
    }

    /// SIGTERM; the exit code, and what was not read yet.
    fn terminate_with_output(mut self) -> (i32, Vec<String>) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        (self.ended(), self.out.iter().collect())
    }

    fn ended(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn url(gateway: &Gateway) -> String {
    format!("ws://{}/", gateway.push)
}

const STATE: &str = "edgepush-listen.json";

#[test]
fn message_that_is_sent_arrives_decrypted() {
    let (gateway, folder) = (Gateway::start(), Folder::new());
    let listener = folder.listen(&[&url(&gateway)]);
    let (endpoint, subscription) = listener.subscribed();
    assert_eq!(folder.mode(STATE), 0o600);

    let (code, out, err) = folder.run(&["send", "--to", STATE, "The washing is done"]);
    assert_eq!((code, &*err), (0, ""));
    let (first, second) = out.split_once('\n').unwrap();
    assert_eq!(first, "201 Created: the user agent has it, or it is kept");
    assert!(second.starts_with("Location: http://"), "{second}");
    assert_eq!(listener.line(), "message The washing is done");

    // The same with the keys by hand, the subscription in a file, text on standard input.
    let keys: Value = serde_json::from_str(&subscription).unwrap();
    let key = |name: &str| keys["keys"][name].as_str().unwrap().to_owned();
    let (p256dh, auth) = (key("p256dh"), key("auth"));
    let by_hand = [
        "send", &endpoint, "--p256dh", &p256dh, "--auth", &auth, "by hand",
    ];
    assert_eq!(folder.run(&by_hand).0, 0);
    assert_eq!(listener.line(), "message by hand");
    fs::write(folder.0.join("subscription.json"), &subscription).unwrap();
    let from_file = [
        "send",
        "--to",
        "subscription.json",
        "--urgency",
        "high",
        "-",
    ];
    assert_eq!(folder.feed(&from_file, b"two\nlines\xff").0, 0);
    assert_eq!(listener.line(), "message two\\nlines\\xff");
    assert_eq!(folder.run(&["send", "--to", STATE, "--empty"]).0, 0);
    assert_eq!(listener.line(), "message ");

    gateway.wait_for_metric("edgepush_stored_messages", 0);
    assert_eq!(listener.terminate(), 0);
}

#[test]
fn longest_message_arrives_and_a_longer_one_is_not_sent() {
    let (gateway, folder) = (Gateway::start(), Folder::new());
    let listener = folder.listen(&[&url(&gateway)]);
    listener.subscribed();
    let longest = "x".repeat(3993);
    assert_eq!(
        folder
            .feed(&["send", "--to", STATE, "-"], longest.as_bytes())
            .0,
        0
    );
    assert_eq!(listener.line(), format!("message {longest}"));
    let refused =
        "edgepush: MESSAGE is longer than the 3993 bytes that fit into an encrypted push message\n";
    let longer = format!("{longest}x");
    for (args, input) in [
        (["send", "--to", STATE, "-"], longer.as_bytes()),
        (["send", "--to", STATE, &longer], b""),
    ] {
        assert_eq!(
            folder.feed(&args, input),
            (2, String::new(), refused.to_owned())
        );
    }
    listener.no_line();
}

#[test]
fn json_is_one_object_a_line() {
    let (gateway, folder) = (Gateway::start(), Folder::new());
    let listener = folder.listen(&["--json", &url(&gateway)]);
    let line = |listener: &Listener| serde_json::from_str::<Value>(&listener.line()).unwrap();
    let endpoint = line(&listener);
    assert_eq!(endpoint["kind"], "endpoint");
    let subscription = line(&listener);
    assert_eq!(subscription["kind"], "subscription");
    assert_eq!(
        subscription["subscription"]["endpoint"],
        endpoint["endpoint"]
    );
    folder.run(&["send", "--to", STATE, "a \"b\"\n"]);
    assert_eq!(
        line(&listener),
        json!({"kind": "message", "text": "a \"b\"\n"})
    );
}

#[test]
fn command_is_run_for_each_message_and_then_it_is_acked() {
    let (gateway, folder) = (Gateway::start(), Folder::new());
    let command = "test -e go || exit 3; \
                   printf '%s|%s|%s|' \"$EDGEPUSH_KIND\" \"$EDGEPUSH_DATA\" \"$EDGEPUSH_ENDPOINT\"; \
                   cat; echo; test -n \"$EDGEPUSH_VERSION\"";
    let listener = folder.listen(&["--exec", command, &url(&gateway)]);
    let (endpoint, _) = listener.subscribed();
    folder.run(&["send", "--to", STATE, "too early"]);
    assert_eq!(listener.line(), "message too early");
    listener.told("the command has failed: exit status: 3");

    fs::write(folder.0.join("go"), "").unwrap();
    folder.run(&["send", "--to", STATE, "one"]);
    folder.run(&["send", "--to", STATE, "two"]);
    for text in ["one", "two"] {
        assert_eq!(listener.line(), format!("message {text}"));
        assert_eq!(listener.line(), format!("message|{text}|{endpoint}|{text}"));
    }
    gateway.wait_for_metric("edgepush_stored_messages", 0);
    assert_eq!(listener.terminate(), 0);
}

#[test]
fn message_whose_command_is_interrupted_comes_again() {
    let (gateway, folder) = (Gateway::start(), Folder::new());
    let stuck = folder.listen(&["--exec", "sleep 3", &url(&gateway)]);
    stuck.subscribed();
    folder.run(&["send", "--to", STATE, "again"]);
    assert_eq!(stuck.line(), "message again");
    drop(stuck);
    let listener = folder.listen(&["--once", &url(&gateway)]);
    listener.subscribed();
    assert_eq!(listener.line(), "message again");
}

#[test]
fn command_that_runs_at_the_end_is_waited_for_and_acked() {
    let (gateway, folder) = (Gateway::start(), Folder::new());
    let listener = folder.listen(&["--exec", "sleep 0.5; echo done", &url(&gateway)]);
    listener.subscribed();
    folder.run(&["send", "--to", STATE, "last"]);
    assert_eq!(listener.line(), "message last");
    let out = listener.terminate_with_output();
    assert_eq!(out, (0, vec!["done".to_owned()]));
    gateway.wait_for_metric("edgepush_stored_messages", 0);
}

#[test]
fn user_agent_comes_back_with_its_state_and_gets_what_it_missed_once() {
    let (gateway, folder) = (Gateway::start(), Folder::new());
    let listener = folder.listen(&[&url(&gateway)]);
    let first = listener.subscribed();
    assert_eq!(listener.terminate(), 0);
    let state = folder.read(STATE);

    assert_eq!(folder.run(&["send", "--to", STATE, "while away"]).0, 0);
    // Another spelling of the same URL.
    let listener = folder.listen(&[&gateway.push.to_string()]);
    assert_eq!(listener.subscribed(), first);
    assert_eq!(listener.line(), "message while away");
    listener.no_line();
    assert_eq!(listener.terminate(), 0);
    assert_eq!(folder.read(STATE), state, "not written again");

    let listener = folder.listen(&[&url(&gateway)]);
    assert_eq!(listener.subscribed(), first);
    listener.no_line();
}

#[test]
fn once_ends_after_the_first_message_which_is_acked() {
    let (gateway, folder) = (Gateway::start(), Folder::new());
    let mut listener = folder.listen(&["--once", &url(&gateway)]);
    listener.subscribed();
    folder.run(&["send", "--to", STATE, "first"]);
    assert_eq!(listener.line(), "message first");
    assert_eq!(listener.ended(), 0);
    folder.run(&["send", "--to", STATE, "second"]);
    folder.run(&["send", "--to", STATE, "third"]);
    let mut listener = folder.listen(&["--once", "--exec", "sleep 0.1", &url(&gateway)]);
    listener.subscribed();
    assert_eq!(listener.line(), "message second");
    assert_eq!(listener.ended(), 0);
    gateway.wait_for_metric("edgepush_stored_messages", 1);
}

#[test]
fn user_agent_reconnects_to_a_gateway_that_was_restarted() {
    let (mut gateway, folder) = (Gateway::start(), Folder::new());
    let listener = folder.listen(&[&url(&gateway)]);
    listener.subscribed();
    gateway.kill();
    listener.told("lost: ");
    gateway.start_again();
    listener.told("connected to ");
    folder.run(&["send", "--to", STATE, "back again"]);
    assert_eq!(listener.line(), "message back again", "no new endpoint");
}

#[test]
fn user_agent_that_the_gateway_does_not_know_registers_again() {
    let (gateway, other) = (Gateway::start(), Gateway::start());
    let folder = Folder::new();
    let listener = folder.listen(&[&url(&gateway)]);
    let (first, _) = listener.subscribed();
    assert_eq!(listener.terminate(), 0);
    // As if the key file had been lost.
    let state = folder
        .read(STATE)
        .replace(&gateway.push.to_string(), &other.push.to_string());
    fs::write(folder.0.join(STATE), state).unwrap();
    let listener = folder.listen(&[&url(&other)]);
    let (second, _) = listener.subscribed();
    assert_ne!(first, second);
    folder.run(&["send", "--to", STATE, "again"]);
    assert_eq!(listener.line(), "message again");
    assert_eq!(folder.mode(STATE), 0o600);
}

#[test]
fn state_file_that_does_not_fit_is_refused_and_left_alone() {
    let (gateway, folder) = (Gateway::start(), Folder::new());
    let address = gateway.push.to_string();
    let listener = folder.listen(&[&address]);
    listener.subscribed();
    let in_use = format!(
        "edgepush: another edgepush listen is using the state file {STATE}; stop it, or give another \
         --state\n"
    );
    assert_eq!(
        folder.run(&["listen", &address]),
        (1, String::new(), in_use)
    );
    assert_eq!(listener.terminate(), 0);
    let state = folder.read(STATE);

    let refused = |args: &[&str], code: i32, error: &str| {
        let mut all = vec!["listen"];
        all.extend_from_slice(args);
        let error = format!("edgepush: {error}\n");
        assert_eq!(folder.run(&all), (code, String::new(), error), "{args:?}");
    };
    let other = format!(
        "state file {STATE} is for the gateway http://{address}/, not for http://localhost:1/; give \
         another --state"
    );
    refused(&["localhost:1"], 2, &other);
    let simplepush = format!(
        "state file {STATE} is not for --simplepush; leave that out, or give another --state"
    );
    refused(&["--simplepush", &address], 2, &simplepush);
    let key = folder.run(&["vapid"]).1;
    let other_key = format!("state file {STATE} is for another --key; give another --state");
    refused(&["--key", key.trim(), &address], 2, &other_key);
    assert_eq!(folder.read(STATE), state);

    let damaged = format!(
        "state file {STATE} is damaged, or is none; restore it, or give another --state (which makes a \
         new user agent with a new endpoint)"
    );
    for text in ["", "{}", &state[..state.len() / 2]] {
        fs::write(folder.0.join(STATE), text).unwrap();
        refused(&[&address], 1, &damaged);
        assert_eq!(folder.read(STATE), text);
    }
}

#[test]
fn endpoint_of_a_key_takes_only_what_is_signed_with_it() {
    let (gateway, folder) = (Gateway::start(), Folder::new());
    let key = folder.run(&["vapid"]).1;
    let listener = folder.listen(&["--key", key.trim(), &url(&gateway)]);
    let (endpoint, _) = listener.subscribed();
    assert!(endpoint.contains("/wpush/v2/"), "{endpoint}");

    let (code, out, err) = folder.run(&["send", "--to", STATE, "unsigned"]);
    assert_eq!((code, &*out), (1, ""));
    assert!(err.starts_with("edgepush: 401 Unauthorized: "), "{err}");
    assert!(err.contains("\nthe push service says: "), "{err}");
    let signed = [
        "send",
        "--to",
        STATE,
        "--vapid",
        "vapid.pem",
        "--subject",
        "mailto:a@b.c",
        "signed",
    ];
    assert_eq!(folder.run(&signed).0, 0);
    assert_eq!(listener.line(), "message signed");
}

#[test]
fn refused_websocket_is_told_and_ends_it() {
    let gateway = Gateway::with_config("[access]\nwebsocket_from = [\"192.0.2.1\"]\n");
    let folder = Folder::new();
    let (code, out, err) = folder.run(&["listen", &url(&gateway)]);
    assert_eq!((code, &*out), (1, ""));
    assert_eq!(
        err,
        "edgepush: the gateway refuses the websocket with 403: User agents may not connect from this \
         address without a join token; see access.websocket_from and access.join_tokens in the configuration\n"
    );
    assert!(!folder.0.join(STATE).exists());
}

#[test]
fn refusals_of_a_push_message_have_their_words_and_exit_code() {
    let (gateway, folder) = (Gateway::start(), Folder::new());
    let listener = folder.listen(&[&url(&gateway)]);
    let (endpoint, _) = listener.subscribed();
    let unknown = format!("http://{}/wpush/v1/nonsense", gateway.push);
    let (code, _, err) = folder.run(&["send", "--empty", &unknown]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with("edgepush: 404 Not Found: no such endpoint\n"),
        "{err}"
    );
    assert!(err.contains("\nthe push service says: "), "{err}");

    // Ended by its user agent, which is the one of the state file.
    assert_eq!(listener.terminate(), 0);
    let state: Value = serde_json::from_str(&folder.read(STATE)).unwrap();
    let mut agent = support::UserAgent::hello(&gateway, state["uaid"].as_str());
    agent.unregister(state["channelID"].as_str().unwrap());
    let (code, _, err) = folder.run(&["send", "--to", STATE, "late"]);
    assert_eq!(code, 1);
    let gone = "edgepush: 410 Gone: the subscription has ended, forget its endpoint\n";
    assert!(err.starts_with(gone), "{err}");
    drop(endpoint);
}

#[test]
fn answers_of_other_push_services_are_told_in_words() {
    let folder = Folder::new();
    for (answer, code, out, err) in [
        (
            "400 Bad Request\r\nContent-Length: 21\r\n\r\n{\"message\":\"Bad TTL\"}\n",
            1,
            "",
            "edgepush: 400 Bad Request: the push service does not take it like this\n\
             the push service says: Bad TTL\n",
        ),
        (
            "503 Busy\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n",
            1,
            "",
            "edgepush: 503 Service Unavailable: the push service cannot take it now\nRetry-After: 30 s\n",
        ),
        (
            "202 Accepted\r\nContent-Length: 2\r\n\r\n{}",
            0,
            "202 Accepted: it is kept for the user agent\n",
            "",
        ),
        (
            "200 OK\r\n\r\n",
            0,
            "200 OK: the user agent has been told\n",
            "",
        ),
    ] {
        let (address, request) = serve_once(&format!("HTTP/1.1 {answer}"));
        let endpoint = format!("http://{address}/update/t?a=b");
        let args = ["send", &endpoint, "--version", "7", "--data", "ding dong"];
        assert_eq!(folder.run(&args), (code, out.to_owned(), err.to_owned()));
        let request = request.recv_timeout(PATIENCE).unwrap();
        let request = request.to_lowercase();
        assert!(
            request.starts_with("put /update/t?a=b http/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains(&format!("\r\nhost: {address}\r\n")),
            "{request}"
        );
        let form = "\r\ncontent-type: application/x-www-form-urlencoded\r\n";
        assert!(request.contains(form), "{request}");
        assert!(
            request.ends_with("\r\n\r\nversion=7&data=ding%20dong"),
            "{request}"
        );
    }
}

/// A server that reads one request and gives one answer.
fn serve_once(answer: &str) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = channel();
    let answer = answer.to_owned();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = String::new();
        let mut buffer = [0; 4096];
        while !request.ends_with("dong") {
            let length = stream.read(&mut buffer).unwrap();
            request.push_str(str::from_utf8(&buffer[..length]).unwrap());
        }
        stream.write_all(answer.as_bytes()).unwrap();
        sender.send(request).unwrap();
    });
    (address, receiver)
}

#[test]
fn push_service_that_is_not_there_is_told() {
    let folder = Folder::new();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{nobody}/");
    let (code, out, err) = folder.run(&["send", &endpoint]);
    assert_eq!((code, &*out), (1, ""));
    assert!(err.starts_with("edgepush: cannot connect: "), "{err}");
    // What is no HTTP.
    let (address, _request) = serve_once("SSH-2.0-OpenSSH\r\n");
    let endpoint = format!("http://{address}/");
    let (code, _, err) = folder.run(&["send", &endpoint, "--data", "dong"]);
    assert_eq!(code, 1);
    assert!(err.starts_with("edgepush: no HTTP answer: "), "{err}");
}

#[test]
fn wrong_usage_is_named_and_ends_with_2() {
    let folder = Folder::new();
    let no_scheme = "URL must be ws://HOST:PORT/, wss://…, http://…, https://… or HOST:PORT";
    for (args, command, error) in [
        (
            &["listen"][..],
            "listen",
            "the URL of the gateway is missing",
        ),
        (&["listen", "pi"], "listen", no_scheme),
        (
            &["listen", "a:1", "b:2"],
            "listen",
            "unexpected argument \"b:2\"",
        ),
        (
            &["listen", "--jsn", "a:1"],
            "listen",
            "invalid option '--jsn'",
        ),
        (
            &["listen", "--key", "abc", "a:1"],
            "listen",
            "--key must be the base64url of a P-256 public key of 65 bytes",
        ),
        (&["send"], "send", "ENDPOINT or --to is missing"),
        (
            &["send", "a:1"],
            "send",
            "ENDPOINT must start with http:// or https://",
        ),
        (
            &["send", "http://h/", "text"],
            "send",
            "MESSAGE needs --p256dh and --auth, or --to",
        ),
        (
            &["send", "http://h/", "--p256dh", "x"],
            "send",
            "--p256dh and --auth go together",
        ),
        (
            &["send", "http://h/", "--p256dh", "x", "--auth", "y", "text"],
            "send",
            "--p256dh must be the base64url of a P-256 public key of 65 bytes",
        ),
        (
            &["send", "http://h/", "--version", "-1"],
            "send",
            "--version must be a number",
        ),
        (
            &["send", "http://h/", "--ttl", "60"],
            "send",
            "--ttl, --topic and --urgency are for a message: give MESSAGE or --empty",
        ),
        (
            &["send", "--to", "f", "--data", "d", "text"],
            "send",
            "--version and --data are for a version update, without MESSAGE",
        ),
        (
            &["send", "--empty", "--urgency", "bad", "http://h/"],
            "send",
            "--urgency must be one of very-low, low, normal and high",
        ),
        (&["vapid", "a", "b"], "vapid", "unexpected argument \"b\""),
    ] {
        let error = format!("edgepush: {error}; see edgepush {command} --help\n");
        assert_eq!(folder.run(args), (2, String::new(), error), "{args:?}");
    }
    let missing = "edgepush: cannot read f: No such file or directory (os error 2)\n";
    let refused = (2, String::new(), missing.to_owned());
    assert_eq!(folder.run(&["send", "--to", "f", "text"]), refused);
    for command in ["listen", "send", "vapid"] {
        let (code, out, err) = folder.run(&[command, "--help"]);
        assert_eq!((code, &*err), (0, ""));
        assert!(
            out.contains(&format!("\nUsage: edgepush {command} ")),
            "{out}"
        );
        assert!(out.lines().all(|line| line.len() <= 80), "{command}");
    }
}

#[test]
fn vapid_key_is_made_once_and_shown_ever_after() {
    let folder = Folder::new();
    let (code, public, err) = folder.run(&["vapid"]);
    let told = "edgepush: made the key vapid.pem; keep it secret\n";
    assert_eq!((code, &*err), (0, told));
    assert_eq!(public.len(), 88, "87 characters and a newline");
    assert_eq!(folder.mode("vapid.pem"), 0o600);
    let pem = folder.read("vapid.pem");
    assert_eq!(folder.run(&["vapid"]), (0, public.clone(), String::new()));
    assert_eq!(folder.read("vapid.pem"), pem);

    let (code, other, _) = folder.run(&["vapid", "other.pem"]);
    assert_eq!(code, 0);
    assert_ne!(other, public);

    fs::write(folder.0.join("vapid.pem"), "mine").unwrap();
    let (code, out, err) = folder.run(&["vapid"]);
    assert_eq!((code, &*out), (1, ""));
    assert!(
        err.starts_with("edgepush: cannot use the key vapid.pem: it must hold "),
        "{err}"
    );
    assert_eq!(folder.read("vapid.pem"), "mine");
}

/// A gateway that says what the test wants.
struct Fake {
    listener: TcpListener,
}

impl Fake {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { listener }
    }

    fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    fn accept(&self) -> WebSocket<TcpStream> {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        tungstenite::accept(stream).unwrap()
    }

    /// Up to the endpoint; the hello and the channel that came.
    fn accept_and_register(&self) -> (WebSocket<TcpStream>, Value, String) {
        let mut socket = self.accept();
        let hello = receive(&mut socket);
        send(
            &mut socket,
            &json!({"messageType": "hello", "uaid": "any-Name", "status": 200}),
        );
        let register = receive(&mut socket);
        assert_eq!(register["messageType"], "register");
        let channel = register["channelID"].as_str().unwrap().to_owned();
        send(
            &mut socket,
            &json!({
                "messageType": "register", "channelID": channel, "status": 200,
                "pushEndpoint": "http://127.0.0.1:1/update/t",
            }),
        );
        (socket, hello, channel)
    }
}

fn send(socket: &mut WebSocket<TcpStream>, message: &Value) {
    socket.send(Message::text(message.to_string())).unwrap();
}

fn receive(socket: &mut WebSocket<TcpStream>) -> Value {
    let message = socket.read().expect("a message in time");
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

fn updates(channel: &str, versions: &[(u64, Option<&str>)]) -> Value {
    let updates: Vec<Value> = versions
        .iter()
        .map(|(version, data)| {
            let mut update = json!({"channelID": channel, "version": version});
            if let Some(data) = data {
                update["data"] = (*data).into();
            }
            update
        })
        .collect();
    json!({"messageType": "notification", "updates": updates})
}

#[test]
fn simplepush_user_agent_prints_versions_and_acks_them_as_numbers() {
    let (fake, folder) = (Fake::start(), Folder::new());
    let listener = folder.listen(&["--simplepush", &fake.address()]);
    let (mut socket, hello, channel) = fake.accept_and_register();
    assert_eq!(hello, json!({"messageType": "hello", "channelIDs": []}));
    assert_eq!(listener.line(), "endpoint http://127.0.0.1:1/update/t");
    send(
        &mut socket,
        &updates(&channel, &[(5, None), (6, Some("ding\ndong"))]),
    );
    assert_eq!(listener.line(), "update version=5");
    assert_eq!(listener.line(), "update version=6 data=ding\\ndong");
    for version in [5, 6] {
        let update = json!({"channelID": channel, "version": version});
        let ack = json!({"messageType": "ack", "updates": [update]});
        assert_eq!(receive(&mut socket), ack);
    }
    assert_eq!(listener.terminate(), 0);

    let listener = folder.listen(&["--simplepush", "--once", &fake.address()]);
    let mut socket = fake.accept();
    let known = json!({"messageType": "hello", "uaid": "any-Name", "channelIDs": [channel]});
    assert_eq!(receive(&mut socket), known);
    send(
        &mut socket,
        &json!({"messageType": "hello", "uaid": "any-Name"}),
    );
    assert_eq!(listener.line(), "endpoint http://127.0.0.1:1/update/t");
}

#[test]
fn version_updates_reach_a_webpush_user_agent_and_its_command() {
    let (fake, folder) = (Fake::start(), Folder::new());
    let command = "echo \"$EDGEPUSH_KIND $EDGEPUSH_VERSION $(cat)\"";
    let listener = folder.listen(&["--exec", command, &fake.address()]);
    let (mut socket, hello, channel) = fake.accept_and_register();
    let expected = json!({"messageType": "hello", "use_webpush": true, "broadcasts": {}});
    assert_eq!(hello, expected);
    listener.subscribed();
    send(&mut socket, &updates(&channel, &[(5, Some("bell"))]));
    assert_eq!(listener.line(), "update version=5 data=bell");
    assert_eq!(listener.line(), "update 5 bell");
    assert_eq!(receive(&mut socket)["updates"][0]["version"], 5);
}

#[test]
fn gateway_that_talks_garbage_changes_nothing() {
    let (fake, folder) = (Fake::start(), Folder::new());
    let listener = folder.listen(&[&fake.address()]);
    let (mut socket, _, channel) = fake.accept_and_register();
    listener.subscribed();
    let deep = "[".repeat(60_000);
    for text in [
        "",
        "\0",
        "null",
        "[]",
        "{",
        &deep,
        "{\"messageType\":{}}",
        "\u{1b}[2J",
    ] {
        socket.send(Message::text(text)).unwrap();
    }
    socket.send(Message::binary(vec![0xff; 1000])).unwrap();
    let undecryptable = json!({
        "messageType": "notification", "channelID": channel, "version": "\u{1b}", "data": "AAAA",
        "headers": {"encoding": "aes128gcm"},
    });
    send(&mut socket, &undecryptable);
    listener.told("not understood");
    listener.told("cannot be decrypted");
    let ack = receive(&mut socket);
    assert_eq!(ack["updates"][0]["code"], 101);
    send(&mut socket, &updates(&channel, &[(1, None)]));
    assert_eq!(listener.line(), "update version=1");

    // A message that is too long ends the connection, not the user agent.
    let too_long = Message::text("x".repeat(70_000));
    let _ = socket.send(too_long);
    listener.told("retrying in");
    let mut socket = fake.accept();
    assert_eq!(receive(&mut socket)["uaid"], "any-Name");
    assert_eq!(listener.terminate(), 0);
}

#[test]
fn gateway_that_is_not_ready_is_asked_again() {
    let (fake, folder) = (Fake::start(), Folder::new());
    let listener = folder.listen(&[&fake.address()]);
    let (mut stream, _) = fake.listener.accept().unwrap();
    let mut request = [0; 4096];
    assert!(stream.read(&mut request).unwrap() > 0);
    let body = r#"{"message":"restarting\u001b"}"#;
    let length = body.len();
    let answer = format!("HTTP/1.1 503 Busy\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(answer.as_bytes()).unwrap();
    // The body may come later than the head.
    thread::sleep(Duration::from_millis(50));
    stream.write_all(body.as_bytes()).unwrap();
    listener.told("refuses the websocket with 503: restarting\\u{1b}; retrying in ");

    let mut socket = fake.accept();
    receive(&mut socket);
    send(
        &mut socket,
        &json!({"messageType": "hello", "status": 503, "reason": "full"}),
    );
    listener.told("hello is refused: status 503, full; retrying in ");
    fake.accept_and_register();
    listener.subscribed();
}
