//! `edgepush backup`, `check` and `restore` with a gateway that runs, and what comes of putting back
//! what is older: no message is lost because its name was given before.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use support::{Folder, Gateway, UserAgent, channel, post, said};

const TTL: (&str, &str) = ("TTL", "600");
const QUIET: Duration = Duration::from_millis(400);

/// Exit code, standard output, standard error.
fn edgepush(command: &str, file: Option<&Path>, data: &Path) -> (i32, String, String) {
    let mut running = support::edgepush();
    running.arg(command).args(file).arg("--data").arg(data);
    said(running.output().unwrap())
}

fn succeeds(command: &str, file: Option<&Path>, data: &Path) -> String {
    let (code, said, complaint) = edgepush(command, file, data);
    assert_eq!((code, complaint.as_str()), (0, ""), "{said}");
    said
}

fn fails(command: &str, file: Option<&Path>, data: &Path) -> String {
    let (code, said, complaint) = edgepush(command, file, data);
    assert_eq!((code, said.as_str()), (1, ""), "{complaint}");
    complaint
}

/// A user agent that is away, and every version that it has ever seen, as Firefox remembers them.
struct Away {
    uaid: String,
    endpoint: String,
    seen: BTreeSet<String>,
}

impl Away {
    fn new(gateway: &Gateway, number: u32) -> Self {
        let mut agent = UserAgent::hello(gateway, None);
        let endpoint = agent.register(&channel(number));
        Self {
            endpoint,
            uaid: agent.uaid,
            seen: BTreeSet::new(),
        }
    }

    fn post(&self, gateway: &Gateway, bodies: &[&str]) {
        for body in bodies {
            let answer = post(gateway, &self.endpoint, &[TTL], body.as_bytes());
            assert_eq!(answer.status, 201, "{body}");
        }
    }

    /// What comes, all of it acked. None under a name that was there before.
    fn collect(&mut self, gateway: &Gateway) -> Vec<String> {
        let mut agent = UserAgent::hello(gateway, Some(&self.uaid));
        assert_eq!(agent.uaid, self.uaid);
        let mut bodies = Vec::new();
        while let Some(notification) = agent.receive_within(QUIET) {
            let version = notification["version"].as_str().unwrap().to_owned();
            assert!(
                self.seen.insert(version),
                "it would be dropped as seen before"
            );
            let data = notification["data"].as_str().unwrap();
            let body = data_encoding::BASE64URL_NOPAD
                .decode(data.as_bytes())
                .unwrap();
            bodies.push(String::from_utf8(body).unwrap());
            agent.ack(&notification);
        }
        agent.settle();
        bodies
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn backup_of_a_running_gateway_is_put_back_with_all_that_was_in_it() {
    let folder = Folder::new();
    let backup = folder.path("backup");
    let mut gateway = Gateway::start();
    let mut old = Away::new(&gateway, 1);
    old.post(&gateway, &["1", "2", "3"]);
    let said = succeeds("backup", Some(&backup), &gateway.data);
    assert!(
        said.contains("backup: 1 subscription, 3 messages, looked through\n"),
        "{said}"
    );
    assert!(
        said.contains("backup.key: the key; keep it secret\n"),
        "{said}"
    );
    assert_eq!(
        (mode(&backup), mode(&folder.path("backup.key"))),
        (0o600, 0o600)
    );
    assert_eq!(folder.0.read_dir().unwrap().count(), 2, "nothing left over");
    assert!(succeeds("check", Some(&backup), &gateway.data).contains("all is well"));
    assert!(succeeds("check", None, &gateway.data).contains("1 subscription, 3 messages"));

    // Life goes on: all of them are delivered, others come, somebody subscribes.
    assert_eq!(old.collect(&gateway), ["1", "2", "3"]);
    old.post(&gateway, &["4"]);
    let mut new = Away::new(&gateway, 2);
    new.post(&gateway, &["5"]);
    let refused = fails("restore", Some(&backup), &gateway.data);
    assert!(refused.contains("another edgepush is using"), "{refused}");

    assert_eq!(gateway.terminate().code(), Some(0));
    let said = succeeds("restore", Some(&backup), &gateway.data);
    assert!(
        said.contains("edgepush.db: 1 subscription, 3 messages\n"),
        "{said}"
    );
    assert!(
        said.contains("edgepush.db.replaced-1: what was there before\n"),
        "{said}"
    );
    gateway.start_again();
    assert_eq!(
        old.collect(&gateway),
        ["1", "2", "3"],
        "again, under new names"
    );
    assert_eq!(new.collect(&gateway), [""; 0]);
    // Endpoints are good whether they were handed out before or after.
    old.post(&gateway, &["6"]);
    new.post(&gateway, &["7"]);
    assert_eq!(old.collect(&gateway), ["6"]);
    assert_eq!(new.collect(&gateway), ["7"]);
    assert_eq!(
        gateway.metric("edgepush_databases_set_aside"),
        0,
        "it was no damage"
    );
}

#[test]
fn backup_goes_to_another_machine_with_its_key() {
    let folder = Folder::new();
    let (backup, key) = (folder.path("backup"), folder.path("backup.key"));
    let mut first = Gateway::start();
    let mut away = Away::new(&first, 1);
    away.post(&first, &["1"]);
    succeeds("backup", Some(&backup), &first.data);
    first.kill();

    // Where a gateway has run and has a key of its own, whose names stay good as well.
    let mut second = Gateway::start();
    let mut other = Away::new(&second, 2);
    assert_eq!(second.terminate().code(), Some(0));
    succeeds("restore", Some(&backup), &second.data);
    second.start_again();
    assert_eq!(away.collect(&second), ["1"]);
    away.post(&second, &["2"]);
    other.post(&second, &["3"]);
    assert_eq!(
        (away.collect(&second), other.collect(&second)),
        (vec!["2".into()], vec!["3".into()])
    );

    // Where there was nothing.
    let empty = Folder::new();
    fs::rename(&key, folder.path("elsewhere")).unwrap();
    let refused = fails("restore", Some(&backup), &empty.path("data"));
    assert!(
        refused.contains("without the key no endpoint is good"),
        "{refused}"
    );
    fs::rename(folder.path("elsewhere"), &key).unwrap();
    succeeds("restore", Some(&backup), &empty.path("data"));
    let third = Gateway::on(&empty.path("data"), "");
    away.seen.clear();
    assert_eq!(away.collect(&third), ["1"]);
}

#[test]
fn backup_that_is_put_back_by_hand_is_known_as_one() {
    let folder = Folder::new();
    let mut gateway = Gateway::start();
    let mut away = Away::new(&gateway, 1);
    away.post(&gateway, &["1"]);
    succeeds("backup", Some(&folder.path("backup")), &gateway.data);
    assert_eq!(away.collect(&gateway), ["1"]);
    let mut later = Away::new(&gateway, 2);
    // Its log stays behind, and would be mixed into whatever takes the database's place.
    gateway.kill();
    assert!(
        gateway
            .data
            .join("edgepush.db-wal")
            .metadata()
            .unwrap()
            .len()
            > 0
    );
    fs::copy(folder.path("backup"), gateway.data.join("edgepush.db")).unwrap();
    gateway.start_again();
    assert_eq!(away.collect(&gateway), ["1"]);
    later.post(&gateway, &["2"]);
    assert_eq!(later.collect(&gateway), ["2"]);
    assert!(gateway.data.join("edgepush.db.replaced-1-wal").exists());

    // Its own log is its own.
    away.post(&gateway, &["3"]);
    gateway.kill();
    gateway.start_again();
    assert_eq!(away.collect(&gateway), ["3"]);
}

#[test]
fn whole_folder_put_back_as_it_was_gives_no_name_twice() {
    const FILES: [&str; 2] = ["edgepush.db", "edgepush.db-wal"];
    let folder = Folder::new();
    let mut gateway = Gateway::start();
    let mut away = Away::new(&gateway, 1);
    gateway.kill();
    for file in FILES {
        fs::copy(gateway.data.join(file), folder.path(file)).unwrap();
    }
    // As with the image of a card that is written back. Each time the same run, for all that the
    // database knows.
    for round in 0..4 {
        for file in FILES {
            fs::copy(folder.path(file), gateway.data.join(file)).unwrap();
        }
        gateway.start_again();
        let bodies = ["a", "b", "c"].map(|letter| format!("{round}{letter}"));
        away.post(&gateway, &bodies.each_ref().map(String::as_str));
        assert_eq!(away.collect(&gateway), bodies);
        gateway.kill();
    }
    assert_eq!(away.seen.len(), 12);
}

#[test]
fn nothing_is_overwritten_and_nothing_half_done_is_left() {
    let folder = Folder::new();
    let gateway = Gateway::start();
    let backup = folder.path("backup");
    let said = |command, file: &Path, data: &Path| fails(command, Some(file), data);

    fs::write(folder.path("backup.key"), "precious").unwrap();
    assert!(said("backup", &backup, &gateway.data).contains("backup.key is there already"));
    fs::rename(folder.path("backup.key"), &backup).unwrap();
    assert!(said("backup", &backup, &gateway.data).contains("backup is there already"));
    assert_eq!(fs::read_to_string(&backup).unwrap(), "precious");
    let none = folder.path("none");
    assert!(said("backup", &folder.path("other"), &none).contains("cannot copy"));
    assert!(said("restore", &backup, &folder.path("new")).contains("without the key"));
    fs::copy(gateway.data.join("edgepush.key"), folder.path("backup.key")).unwrap();
    let refused = said("restore", &backup, &folder.path("new"));
    assert!(refused.contains("not a database of edgepush"), "{refused}");
    let left = folder.path("new").read_dir().unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["edgepush.lock"]);
    assert_eq!(folder.0.read_dir().unwrap().count(), 3);

    let without = folder.path("without");
    let output = support::edgepush()
        .args(["backup", "--without-key", "--data"])
        .arg(&gateway.data)
        .arg(&without)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(without.exists() && !folder.path("without.key").exists());
}

#[test]
fn check_names_what_is_wrong_and_changes_nothing() {
    let mut gateway = Gateway::start();
    let away = Away::new(&gateway, 1);
    away.post(&gateway, &["1"]);
    gateway.terminate();
    let path = gateway.data.join("edgepush.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute("DELETE FROM subscription", ()).unwrap();
    drop(database);
    let before = fs::read(&path).unwrap();
    let (code, said, _) = edgepush("check", None, &gateway.data);
    assert_eq!(code, 1);
    assert!(
        said.ends_with("edgepush.db: 1 messages have no subscription\n"),
        "{said}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(fails("check", None, &gateway.data.join("none")).contains("cannot check"));
}
