//! The README's commands, run as they stand there.

#![allow(clippy::unwrap_used)] // a test may

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use support::{Gateway, UserAgent, channel};

const README: &str = include_str!("../README.md");

/// The shell commands of the README, block by block.
fn commands() -> Vec<&'static str> {
    let blocks: Vec<&str> = README
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().trim())
        .collect();
    assert!(blocks.len() >= 4, "{blocks:?}");
    blocks
}

#[test]
fn the_two_commands_are_the_ones_promised() {
    assert_eq!(commands()[..2], ["cargo run --release", "cargo test"]);
}

#[test]
fn curl_line_reaches_the_user_agent() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = format!("http://{}{}", gateway.push, agent.register(&channel(1)));
    let said = run(command("curl -i -X POST"), &endpoint);
    assert!(said.starts_with("HTTP/1.1 201 Created"), "{said}");
    assert_eq!(agent.receive()["channelID"], channel(1));
}

/// The command that starts like this.
fn command(start: &str) -> &'static str {
    let mut all = commands().into_iter();
    all.find(|command| command.starts_with(start)).unwrap()
}

/// What a command prints, with an endpoint in its environment.
fn run(command: &str, endpoint: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", command])
        .env("ENDPOINT", endpoint)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The README's listener, with a gateway and a program of the tests. Killed when dropped.
struct Listener {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Listener {
    fn start(gateway: &Gateway) -> Self {
        let command = command("target/release/edgepush listen")
            .replace("target/release/edgepush", env!("CARGO_BIN_EXE_edgepush"))
            .replace("127.0.0.1:8090", &gateway.push.to_string());
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .current_dir(&gateway.data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Its endpoint; the line behind it is for senders of messages.
    fn endpoint(&mut self) -> String {
        let endpoint = self.line().strip_prefix("endpoint ").unwrap().to_owned();
        assert!(self.line().starts_with("subscription {"));
        endpoint
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_minutes_without_a_browser_are_as_it_says() {
    let gateway = Gateway::start();
    let mut listener = Listener::start(&gateway);
    let endpoint = listener.endpoint();
    let put = command("curl -i -X PUT");
    let said = run(put, &endpoint);
    assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
    assert_eq!(listener.line(), "update version=1 data=hello");
    drop(listener);
    gateway.wait_for_metric("edgepush_user_agents_connected", 0);

    let said = run(&put.replace("version=1", "version=2"), &endpoint);
    assert!(said.starts_with("HTTP/1.1 202 Accepted"), "{said}");
    let mut listener = Listener::start(&gateway);
    assert_eq!(listener.endpoint(), endpoint);
    assert_eq!(listener.line(), "update version=2 data=hello");
}

#[test]
fn doorbell_rings_for_each_press_of_the_button() {
    let gateway = Gateway::start();
    let mut listener = Listener::start(&gateway);
    let endpoint = listener.endpoint();
    // A button that is pressed twice, then taken out.
    let tools = gateway.data.join("tools");
    fs::create_dir(&tools).unwrap();
    let gpiomon = "#!/bin/sh\n\
        [ \"$1\" = --version ] && { echo 'gpiomon (libgpiod) v2.1'; exit; }\n\
        echo \"$@\" >> \"$(dirname \"$0\")/presses\"\n\
        [ $(wc -l < \"$(dirname \"$0\")/presses\") -le 2 ]\n";
    write_program(&tools.join("gpiomon"), gpiomon);
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("docs/examples/doorbell"))
        .args([&endpoint, "27"])
        .env("PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "rang: 200\nrang: 200\n");
    let version = |line: String| -> u64 {
        let number = line.strip_prefix("update version=").unwrap().to_owned();
        number.parse().unwrap()
    };
    let (first, second) = (version(listener.line()), version(listener.line()));
    assert!(first < second, "each ring is a new one");
    let presses = fs::read_to_string(tools.join("presses")).unwrap();
    let expected = "--num-events=1 --edges=falling --bias=pull-up --chip=gpiochip0 27";
    assert_eq!(presses.lines().next(), Some(expected));
}

fn write_program(path: &PathBuf, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn files_that_it_points_to_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let links: Vec<&str> = README
        .split("](")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap())
        .filter(|link| !link.starts_with("http"))
        .collect();
    assert!(links.len() >= 4, "{links:?}");
    for link in links {
        assert!(root.join(link).is_file(), "{link}");
    }
}
