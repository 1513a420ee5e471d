//! The layers and the habits of the code, held by a test: what it cannot check, it does not demand.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

use std::fs;
use std::path::{Path, PathBuf};

/// Which layers each layer may use. A layer may always use itself. `src/lib.rs` shows the same
/// table to people.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("protocol", &["model"]),
    ("engine", &["model", "protocol"]),
    ("storage", &["model"]),
    ("config", &["model"]),
    ("io", &["model", "protocol", "engine", "storage"]),
    (
        "daemon",
        &["model", "protocol", "engine", "storage", "config", "io"],
    ),
    (
        "cli",
        &[
            "model", "protocol", "engine", "storage", "config", "io", "daemon",
        ],
    ),
];

/// Text that only the named files may contain, and what to do instead.
const HOMES: &[(&str, &[&str], &str)] = &[
    (
        "Instant::now",
        &["io/clock.rs", "io/console/"],
        "take a `Now`",
    ),
    ("SystemTime::now", &["io/clock.rs"], "take a `Now`"),
    ("new_v4", &[], "take random bytes as an argument"),
    (
        "use ring::",
        &[
            "io/entropy.rs",
            "protocol/encryption/",
            "protocol/keyring.rs",
            "protocol/vapid_key.rs",
            "protocol/vapid_token.rs",
        ],
        "ask the keyring",
    ),
    (
        "p256::",
        &["protocol/encryption/keys.rs"],
        "take a `PrivateKey` or a `PublicKey`",
    ),
    ("rusqlite", &["storage/"], "ask for a `StoreOp`"),
    ("tiny_http", &["io/console/"], "only the console uses it"),
    (
        "async_tungstenite",
        &[
            "io/framing.rs",
            "io/websocket.rs",
            "io/http.rs",
            "io/agent_socket.rs",
        ],
        "return an `Output`",
    ),
    (
        "hyper::",
        &["io/http.rs", "io/http_client.rs", "io/patience.rs"],
        "handle a `Request` in the engine",
    ),
    (
        "rustls::",
        &["io/tls.rs", "io/stream.rs", "io/connect.rs"],
        "read and write a `Stream`",
    ),
    (
        "rustls_native_certs",
        &["io/connect.rs"],
        "ask the `Connector`",
    ),
    ("toml::", &["config/document.rs"], "ask the document"),
    (
        "thread::Builder",
        &["io/console/", "io/storage_thread.rs", "io/aside.rs"],
        "everything else is on one thread",
    ),
    ("smol::spawn", &[], "spawn on the gateway's own executor"),
    ("smol::Timer", &[], "the reactor has one"),
    ("smol::Async", &[], "have the reactor watch it"),
    ("smol::net", &[], "connect and accept a `Tcp`"),
    (
        "mio::",
        &[
            "io/reactor.rs",
            "io/tcp.rs",
            "io/process.rs",
            "io/signals.rs",
        ],
        "ask the reactor",
    ),
    ("smol::unblock", &[], "nothing on the loop waits for a disk"),
    ("println!", &[], "log it, or write it and handle the error"),
    ("dbg!", &[], "remove it before it is merged"),
    ("todo!", &[], "do it"),
    ("super::super", &[], "write the path from `crate`"),
];

const FUNCTION_LINES_MAX: usize = 70; // what fits on one screen
/// Longer ones, and why that is better.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[(
    "protocol/problem.rs",
    "wire",
    "one table of all answers, without a `_`",
)];
const FILE_LINES_MAX: usize = 500; // without its tests
const COLUMNS_MAX: usize = 110; // rustfmt leaves long comments and strings alone

#[test]
fn source_keeps_to_its_layers_and_habits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&root);
    assert!(files.len() > 30, "source found under {}", root.display());

    let faults: Vec<String> = files
        .iter()
        .flat_map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
            faults(name, &fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn table_of_layers_in_the_documentation_is_this_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = fs::read_to_string(root.join("lib.rs")).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .map(|row| row.split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), LAYERS.len());
    for (row, (layer, uses)) in rows.iter().zip(LAYERS) {
        assert_eq!(row[0], format!("{layer}`"));
        let listed: Vec<&str> = row[1].split('`').skip(1).step_by(2).collect();
        match row[1] {
            "nothing" => assert!(uses.is_empty()),
            "all of the above" => assert_eq!(
                uses.len(),
                LAYERS.iter().position(|l| l.0 == *layer).unwrap()
            ),
            _ => assert_eq!(&listed, uses, "{layer}"),
        }
    }
}

#[test]
fn cross_build_has_the_target_of_every_board() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("cross/targets")).unwrap();
    let targets: Vec<&str> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let boards: Vec<PathBuf> = fs::read_dir(root.join("boards"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(boards.len() >= 11, "{boards:?}");
    for board in boards {
        let text = fs::read_to_string(&board).unwrap();
        let target = text
            .lines()
            .find_map(|line| line.strip_prefix("target = "))
            .map(|target| target.trim_matches('"'));
        assert!(targets.contains(&target.unwrap()), "{}", board.display());
    }
}

#[test]
fn each_rule_catches_a_file_that_breaks_it() {
    let long_function = format!("fn f() {{\n{}}}", "    g();\n".repeat(FUNCTION_LINES_MAX));
    let long_file = "g();\n".repeat(FILE_LINES_MAX);
    let long_line = format!("// {}", "x".repeat(COLUMNS_MAX));
    for (name, code, fault) in [
        (
            "model/a.rs",
            "use crate::storage::Store;",
            "model must not use storage",
        ),
        (
            "storage/a.rs",
            "use crate::engine::Engine;",
            "storage must not use engine",
        ),
        (
            "daemon.rs",
            "use crate::cli::serve;",
            "daemon must not use cli",
        ),
        ("io/a.rs", "g(); // FIXME: later", "leftover FIXME"),
        ("io/a.rs", &long_function, "f has 72 lines"),
        ("io/a.rs", &long_file, "more than 500 lines"),
        ("io/a.rs", &long_line, "more than 110 columns"),
    ] {
        assert_one_fault(name, &format!("//! Doc.\n{code}\n"), fault);
    }
    for (text, _, instead) in HOMES {
        assert_one_fault("engine/a.rs", &format!("//! Doc.\n{text}();\n"), instead);
    }
    assert_one_fault("io/a.rs", "use std::io;\n", "no module doc");
}

fn assert_one_fault(name: &str, text: &str, fault: &str) {
    let found = faults(name, text);
    assert_eq!(found.len(), 1, "{fault}: {found:?}");
    assert!(found[0].contains(fault), "{fault}: {found:?}");
}

/// Every fault of one file, as `file:line: what to change`.
fn faults(name: &str, text: &str) -> Vec<String> {
    // Files that are tests as a whole are named in a `#[cfg(test)] mod` of their parent.
    let all_tests =
        name.ends_with("tests.rs") || name.contains("_test") || name.contains("testing");
    let code = if all_tests {
        ""
    } else {
        text.split("#[cfg(test)]\nmod tests {").next().unwrap()
    };
    let mut faults = Vec::new();

    if !text.starts_with("//!") {
        faults.push(format!("{name}:1: no module doc"));
    }
    if code.lines().count() > FILE_LINES_MAX {
        faults.push(format!("{name}:1: more than {FILE_LINES_MAX} lines"));
    }
    for (index, line) in code.lines().enumerate() {
        let at = format!("{name}:{}", index + 1);
        faults.extend(layer_fault(name, line).map(|fault| format!("{at}: {fault}")));
        faults.extend(home_fault(name, line).map(|fault| format!("{at}: {fault}")));
        if line.contains("FIXME") {
            faults.push(format!("{at}: leftover FIXME; fix it before it is merged"));
        }
        let table = line.starts_with("//! |");
        if line.chars().count() > COLUMNS_MAX && !table {
            faults.push(format!("{at}: more than {COLUMNS_MAX} columns"));
        }
    }
    faults.extend(function_faults(name, code));
    faults
}

fn layer_fault(name: &str, line: &str) -> Option<String> {
    let layer = name.split(['/', '.']).next()?;
    let (_, may_use) = LAYERS.iter().find(|(known, _)| *known == layer)?;
    LAYERS
        .iter()
        .map(|(other, _)| *other)
        .filter(|other| *other != layer && !may_use.contains(other))
        .find(|other| line.contains(&format!("crate::{other}")))
        .map(|other| format!("{layer} must not use {other}"))
}

fn home_fault(name: &str, line: &str) -> Option<String> {
    let code = line.split("//").next()?;
    HOMES
        .iter()
        .filter(|(_, homes, _)| !homes.iter().any(|home| name.starts_with(home)))
        .find(|(text, ..)| code.contains(text))
        .map(|(text, _, instead)| format!("{text}: {instead}"))
}

/// Functions longer than [`FUNCTION_LINES_MAX`], found by the indentation rustfmt gives them.
fn function_faults(name: &str, code: &str) -> Vec<String> {
    let lines: Vec<&str> = code.lines().collect();
    let mut faults = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some((_, rest)) = line
            .split_once("fn ")
            .filter(|(before, _)| is_qualifier(before))
        else {
            continue;
        };
        let close = format!("{}}}", " ".repeat(indent));
        let length = lines[start..]
            .iter()
            .position(|line| *line == close)
            .map_or(1, |end| end + 1);
        let function = rest.split(['(', '<']).next().unwrap_or(rest);
        let excepted =
            |(file, excepted, _): &(&str, &str, &str)| *file == name && *excepted == function;
        if length > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.iter().any(excepted) {
            faults.push(format!(
                "{name}:{}: {function} has {length} lines",
                start + 1
            ));
        }
    }
    faults
}

/// Whether `before` can stand before `fn` in a definition: `pub(crate) const `.
fn is_qualifier(before: &str) -> bool {
    before
        .split_whitespace()
        .all(|word| word.starts_with("pub") || ["const", "async", "unsafe"].contains(&word))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
