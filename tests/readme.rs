//! The README's commands, run as they stand there.

#![allow(clippy::unwrap_used)] // a test may

mod support;

use std::process::Command;

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
    let line = commands()
        .into_iter()
        .find(|command| command.starts_with("curl"))
        .unwrap();
    let output = Command::new("sh")
        .args(["-c", line])
        .env("ENDPOINT", endpoint)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("HTTP/1.1 201 Created"), "{said}");
    assert_eq!(agent.receive()["channelID"], channel(1));
}

#[test]
fn files_that_it_points_to_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
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
