//! `edgepush load` against the real gateway, with every strategy in both dialects; and against push
//! services that lie, so that each check is seen to fail where it should.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "anything else fails the test"
)]

mod support;

#[path = "load/liar.rs"]
mod liar;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;

use liar::Lie;
use serde_json::Value;
use support::{Gateway, said};

/// Strategies, and whether they send.
const STRATEGIES: [(&str, bool); 12] = [
    ("idle", false),
    ("basic", true),
    ("ping", false),
    ("channels", true),
    ("reconnect", true),
    ("data", true),
    ("stored", true),
    ("unacked", true),
    ("burst", true),
    ("churn", true),
    ("bad", true),
    ("mixed", true),
];

/// Exit code, report, what went to standard error.
fn load(server: SocketAddr, args: &str) -> (i32, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgepush"));
    command.arg("load").args(args.split_whitespace());
    command.args(["--json", &format!("ws://{server}/")]);
    let (code, report, told) = said(command.output().unwrap());
    let report = serde_json::from_str(&report).unwrap_or(Value::Null);
    (code, report, told)
}

/// Does it for all of them at once: most of it is waiting.
fn for_each<T: Copy + Send>(
    all: impl IntoIterator<Item = T>,
    work: impl Fn(T) + Copy + Send + Sync,
) {
    thread::scope(|scope| {
        for one in all {
            scope.spawn(move || work(one));
        }
    });
}

#[test]
fn every_strategy_finds_the_gateway_in_order_in_both_dialects() {
    let gateway = Gateway::with_config("[limits]\napp_ping_interval_secs_min = 0");
    let dialects = ["", "--simplepush"];
    let all = STRATEGIES
        .iter()
        .flat_map(|one| dialects.map(|dialect| (one, dialect)));
    for_each(all, |((strategy, sends), dialect)| {
        let args =
            format!("{strategy} {dialect} --agents 11 --secs 1 --every 1 --rate 300 --size 8-300");
        let (code, report, told) = load(gateway.push, &args);
        let context = format!("{args}\n{report:#}\n{told}");
        assert_eq!(
            (code, &report["failed_checks"]),
            (0, &Value::Object(Default::default())),
            "{context}"
        );
        assert_eq!(report["strategy"], *strategy);
        let messages = &report["messages"];
        let count = |name: &str| messages[name].as_u64().unwrap();
        assert_eq!(count("posted") > 0, *sends, "{context}");
        assert_eq!(
            count("accepted"),
            count("acked") + count("superseded"),
            "{context}"
        );
        assert_eq!(count("received"), count("acked"), "{context}");
        assert_eq!(
            count("accepted") + count("refused"),
            count("posted"),
            "{context}"
        );
        assert_eq!(count("out_of_order"), 0, "{context}");
        assert!(count("refused") > 0 || *strategy != "channels", "{context}");
        let repeats = count("redelivered") > 0;
        assert!(repeats || *strategy != "unacked", "{context}");
        assert_eq!(
            report["millis"]["ping"].is_object(),
            ["ping", "mixed"].contains(strategy),
            "{context}"
        );
        assert_eq!(
            report["millis"]["post_to_frame"].is_object(),
            *sends,
            "{context}"
        );
    });
}

#[test]
fn messages_sent_are_no_more_than_asked_for_and_as_many_as_the_rate_says() {
    let gateway = Gateway::start();
    let (code, report, _) = load(gateway.push, "basic --messages 50");
    let posted = report["messages"]["posted"].as_u64().unwrap();
    // Each user agent may be about to send when the last one is sent.
    assert!(code == 0 && (50..60).contains(&posted), "{report}");

    let (code, report, told) = load(gateway.push, "basic --rate 20 --secs 3");
    let posted = report["messages"]["posted"].as_u64().unwrap();
    assert!(code == 0 && (50..=60).contains(&posted), "{report}");
    assert!(told.contains("1 s: 10 of 10 connected, "), "{told}");
    assert!(told.contains(" acked, 0 failed checks, p99 "), "{told}");
}

#[test]
fn run_that_only_waits_ends_when_it_is_interrupted() {
    let gateway = Gateway::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgepush"));
    command.args(["load", "idle", "--agents", "2", "--secs", "3600", "--json"]);
    command.arg(format!("ws://{}/", gateway.push));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let told = BufReader::new(running.stderr.take().unwrap());
    let mut lines = told.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("2 of 2 connected")));
    let pid = running.id().to_string();
    let interrupted = Command::new("kill").args(["-INT", &pid]).status();
    assert!(interrupted.unwrap().success());
    let (code, report, _) = said(running.wait_with_output().unwrap());
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((code, &report["agents"]), (0, &Value::from(2)));
}

#[test]
fn process_of_the_server_is_accounted_for() {
    let gateway = Gateway::start();
    let args = format!("basic --secs 1 --pid {}", gateway.pid());
    let (code, report, _) = load(gateway.push, &args);
    let server = &report["server"];
    let value = |name: &str| server[name].as_f64().unwrap_or_else(|| panic!("{report}"));
    assert_eq!(code, 0);
    assert!(value("resident_bytes") > 1e6 && value("anonymous_bytes") > 1e5);
    assert!(value("cpu_micros_for_each_acked") > 1.0 && value("wakeups_per_sec") > 1.0);
    assert!(value("written_bytes") > 0.0);
}

#[test]
fn honest_push_service_passes_and_every_lie_is_found_out() {
    let lies = [
        (Lie::None, "basic", ""),
        (Lie::None, "basic --simplepush", ""),
        (Lie::None, "channels", ""),
        (Lie::None, "reconnect", ""),
        (Lie::Drops, "basic", "lost"),
        (Lie::Duplicates, "basic", "duplicate_after_ack"),
        (Lie::Duplicates, "basic --simplepush", "duplicate_after_ack"),
        (Lie::Alters, "basic", "altered"),
        (Lie::Alters, "basic --simplepush", "altered"),
        (Lie::AltersTheEncoding, "basic", "altered"),
        (Lie::Misroutes, "basic", "wrong_user_agent"),
        (Lie::Misroutes, "basic --simplepush", "wrong_user_agent"),
        (Lie::Confuses, "basic", "wrong_channel"),
        (Lie::Confuses, "basic --simplepush", "wrong_channel"),
        (Lie::Invents, "basic", "never_sent"),
        (Lie::Renames, "reconnect", "uaid_changed"),
        (Lie::Refuses, "basic", "status"),
        (Lie::Refuses, "basic --simplepush", "status"),
        (Lie::Remembers, "channels", "status"),
        (Lie::HangsUp, "basic", "disconnected"),
        (Lie::Denies, "basic", "verdict"),
        (Lie::None, "bad", "status"),
    ];
    for_each(lies, |(lie, strategy, fault)| {
        let server = liar::start(lie);
        let args = format!("{strategy} --agents 3 --channels 2 --secs 1 --rate 50 --size 20");
        let (code, report, told) = load(server, &args);
        let context = format!("{lie:?} {args}\n{report:#}\n{told}");
        assert_eq!(code, i32::from(!fault.is_empty()), "{context}");
        let found = report["failed_checks"].as_object().unwrap();
        assert_eq!(found.is_empty(), fault.is_empty(), "{context}");
        if !fault.is_empty() {
            assert!(found.contains_key(fault), "{context}");
        }
    });
}

#[test]
fn nobody_there_is_a_failed_check_and_the_run_ends() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let (code, report, _) = load(nobody, "basic --agents 2 --secs 1");
    assert_eq!(code, 1);
    let found = &report["failed_checks"]["no_websocket"];
    assert!(found["count"].as_u64() >= Some(2), "{report}");
    // Which of the two is refused first is the system's.
    let words = found["first"].as_str().unwrap();
    let starts = ["user agent 0", "user agent 1"].map(|who| format!("{who}: cannot connect: "));
    assert!(
        starts.iter().any(|start| words.starts_with(start)),
        "{words}"
    );
}
