//! Databases that are damaged, foreign, half gone or copied, and what a start makes of them.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::check::{self, QuickCheck};
use super::set_aside::with_suffix;
use super::testing::{
    self, FRESH, Folder, enqueue, fetch, find, ids, message, one, subscribe, unsubscribe,
};
use super::{CopyError, FILE_NAME, FreshDatabase, OpenError, Settings, Store, copy, set_aside};
use crate::model::ids::{DatabaseId, MessageId};
use crate::model::store::{Opened, StoreError, StoreReply};

const MESSAGES: i64 = 400;
/// What a start of these tests calls the database that it makes.
const NEXT: FreshDatabase = FreshDatabase {
    id: DatabaseId([9; 8]),
    key_is_new: false,
};

fn start(folder: &Folder, suspected: bool) -> (Store, Opened) {
    Store::start(folder.path(), &Settings::default(), NEXT, suspected).unwrap()
}

fn database(folder: &Folder) -> PathBuf {
    folder.path().join(FILE_NAME)
}

/// A database with a backlog; user agents 1 to 3 have a subscription each.
fn filled(folder: &Folder) {
    let (mut store, opened) = folder.open();
    let first = MessageId::before_run(opened.run, [0; 8]).unwrap().as_i64();
    store.apply((1..=3).map(|agent| subscribe(agent, 1)).collect());
    let fill = (1..=MESSAGES).map(|n| enqueue(1, message(first + n, 1)));
    store.apply(fill.collect());
    store.close(testing::at(500)).unwrap();
}

/// Fills a page in the middle of the messages with nonsense.
fn damage_messages(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let leaves: Vec<usize> = (1..bytes.len() / 4096)
        .filter(|page| {
            let page = &bytes[page * 4096..(page + 1) * 4096];
            page[0] == 0x0d && page.windows(100).any(|part| part == [0xab; 100])
        })
        .collect();
    assert!(leaves.len() > 5, "{leaves:?}");
    let start = leaves[leaves.len() / 2] * 4096;
    bytes[start..start + 4096].fill(0xee);
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_before_and_behind_a_damaged_page_is_taken_over() {
    let folder = Folder::new();
    filled(&folder);
    damage_messages(&database(&folder));
    let damaged = fs::read(database(&folder)).unwrap();
    assert!(
        QuickCheck::open(folder.path())
            .unwrap()
            .run()
            .unwrap()
            .is_some()
    );

    let (mut store, opened) = start(&folder, true);
    let kept = ids(&mut store, 1);
    let run = MessageId::from_i64(kept[0]).run();
    assert!(kept.len() as i64 >= MESSAGES - 30, "{}", kept.len());
    assert!((kept.len() as i64) < MESSAGES);
    assert!(kept.is_sorted() && kept.last() > kept.first());
    assert_eq!(kept[0] & 0xff_ffff, 1);
    assert_eq!(kept.last().unwrap() & 0xff_ffff, MESSAGES);
    assert_eq!(
        opened.database, NEXT.id,
        "endpoints of before are of a lost database"
    );
    assert!(i64::from(opened.run) > run, "what comes now comes behind");
    assert_eq!(opened.service_time, testing::at(500));
    for agent in 1..=3 {
        assert_eq!(
            one(&mut store, find(agent, 1, false)),
            StoreReply::Subscription(true)
        );
    }
    assert_eq!(store.health().fault(), None);
    drop(store);

    let aside = folder.path().join("edgepush.db.damaged-1");
    assert_eq!(fs::read(aside).unwrap(), damaged, "as it was");
    assert_eq!(set_aside::damaged(folder.path()).len(), 1);
    assert_eq!(start(&folder, true).1.database, NEXT.id, "and only once");
    assert_eq!(set_aside::damaged(folder.path()).len(), 1);
}

#[test]
fn damage_that_is_met_while_running_is_told_and_fails_nothing_else() {
    let folder = Folder::new();
    filled(&folder);
    damage_messages(&database(&folder));
    let (mut store, _) = start(&folder, false);
    assert_eq!(store.health().fault(), None, "nobody has looked yet");
    assert_eq!(
        one(&mut store, fetch(1)),
        StoreReply::Failed(StoreError::Corrupt)
    );
    assert_eq!(store.health().fault(), Some(StoreError::Corrupt));
    assert_eq!(
        one(&mut store, subscribe(4, 1)),
        StoreReply::Subscribed(true)
    );
    assert_eq!(
        one(&mut store, find(2, 1, false)),
        StoreReply::Subscription(true)
    );
    assert_eq!(
        store.health().fault(),
        Some(StoreError::Corrupt),
        "until the next start"
    );
}

#[test]
fn suspicion_alone_moves_nothing() {
    let folder = Folder::new();
    filled(&folder);
    let (mut store, opened) = start(&folder, true);
    assert_eq!(opened.database, FRESH.id);
    assert_eq!(ids(&mut store, 1).len() as i64, MESSAGES);
    assert!(set_aside::damaged(folder.path()).is_empty());
}

#[test]
fn whatever_lies_in_the_place_of_the_database_the_gateway_starts() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 8] = [
        ("header", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[..100].fill(0);
            fs::write(path, bytes).unwrap();
        }),
        ("schema", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[100..4096].fill(0xff);
            fs::write(path, bytes).unwrap();
        }),
        ("text", |path| {
            fs::write(path, "dear diary, ".repeat(1000)).unwrap()
        }),
        ("folder", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("emptied beside its log", |path| {
            fs::write(path, "").unwrap();
            fs::write(with_suffix(path, "-wal"), [7; 5000]).unwrap();
        }),
        ("gone beside its log", |path| {
            fs::remove_file(path).unwrap();
            fs::write(with_suffix(path, "-wal"), [7; 5000]).unwrap();
        }),
        ("another program's", |path| {
            fs::remove_file(path).unwrap();
            let text = "CREATE TABLE photo (id INTEGER PRIMARY KEY); PRAGMA user_version = 99;
                PRAGMA application_id = 12345;";
            Connection::open(path).unwrap().execute_batch(text).unwrap();
        }),
        ("another program's that says nothing", |path| {
            fs::remove_file(path).unwrap();
            let text = "CREATE TABLE meta (a); PRAGMA user_version = 1;";
            Connection::open(path).unwrap().execute_batch(text).unwrap();
        }),
    ];
    for (name, spoil) in spoils {
        let folder = Folder::new();
        filled(&folder);
        spoil(&database(&folder));
        let (mut store, opened) = start(&folder, false);
        assert_eq!(opened.database, NEXT.id, "{name}");
        assert_eq!(
            one(&mut store, subscribe(1, 1)),
            StoreReply::Subscribed(true),
            "{name}"
        );
        assert_eq!(set_aside::damaged(folder.path()).len(), 1, "{name}");
        drop(store);
        assert_eq!(start(&folder, true).1.run, opened.run + 1, "{name}");
    }
}

#[test]
fn log_or_index_that_is_lost_or_nonsense_costs_no_more_than_what_was_in_it() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 4] = [
        ("log removed", |path| {
            fs::remove_file(with_suffix(path, "-wal")).unwrap()
        }),
        ("log cut", |path| {
            let log = fs::read(with_suffix(path, "-wal")).unwrap();
            fs::write(with_suffix(path, "-wal"), &log[..log.len() / 2]).unwrap();
        }),
        ("log nonsense", |path| {
            fs::write(with_suffix(path, "-wal"), [7; 5000]).unwrap()
        }),
        ("index nonsense", |path| {
            fs::write(with_suffix(path, "-shm"), [7; 32768]).unwrap()
        }),
    ];
    for (name, spoil) in spoils {
        let folder = Folder::new();
        filled(&folder);
        let (mut store, _) = folder.open();
        store.apply(vec![subscribe(9, 9)]);
        let killed = Folder::new();
        for suffix in ["", "-wal"] {
            let file = with_suffix(&database(&folder), suffix);
            fs::copy(file, with_suffix(&database(&killed), suffix)).unwrap();
        }
        spoil(&database(&killed));
        let (mut store, opened) = start(&killed, false);
        assert_eq!(opened.database, FRESH.id, "{name}");
        assert_eq!(ids(&mut store, 1).len() as i64, MESSAGES, "{name}");
        assert!(set_aside::damaged(killed.path()).is_empty(), "{name}");
        drop(store);
        assert_eq!(
            check::thorough(&database(&killed)).unwrap().faults,
            [""; 0],
            "{name}"
        );
    }
}

#[test]
fn start_that_a_power_cut_ended_at_any_step_is_finished_by_the_next() {
    let unfinished = "edgepush.db.new";
    let aside = "edgepush.db.damaged-1";
    type Step = fn(&Folder, &str, &str);
    let steps: [(&str, Step); 3] = [
        ("told", |folder, unfinished, _| {
            fs::write(folder.path().join(unfinished), "").unwrap();
        }),
        ("moved", |folder, unfinished, aside| {
            fs::rename(database(folder), folder.path().join(aside)).unwrap();
            fs::write(folder.path().join(unfinished), "").unwrap();
        }),
        ("half filled", |folder, unfinished, aside| {
            fs::rename(database(folder), folder.path().join(aside)).unwrap();
            let half = folder.path().join(unfinished);
            fs::write(with_suffix(&half, "-wal"), [7; 5000]).unwrap();
            fs::write(half, [7; 5000]).unwrap();
        }),
    ];
    for (name, step) in steps {
        let folder = Folder::new();
        filled(&folder);
        damage_messages(&database(&folder));
        step(&folder, unfinished, aside);
        let (mut store, _) = start(&folder, false);
        assert!(ids(&mut store, 1).len() as i64 >= MESSAGES - 30, "{name}");
        assert_eq!(set_aside::damaged(folder.path()), [aside], "{name}");
        assert!(!folder.path().join(unfinished).exists(), "{name}");
    }
}

#[test]
fn newer_database_is_no_damage() {
    let folder = Folder::new();
    filled(&folder);
    let connection = Connection::open(database(&folder)).unwrap();
    connection
        .pragma_update(None, "user_version", 1000)
        .unwrap();
    drop(connection);
    let refused = Store::start(folder.path(), &Settings::default(), NEXT, true).unwrap_err();
    assert!(matches!(
        refused,
        OpenError::NewerSchema { found: 1000, .. }
    ));
    assert!(set_aside::damaged(folder.path()).is_empty());
}

fn copied(folder: &Folder) -> (PathBuf, Result<super::Totals, CopyError>) {
    let path = folder.path().join("backup");
    fs::write(&path, "").unwrap();
    let totals = copy(&database(folder), &path);
    (path, totals)
}

#[test]
fn copy_of_a_database_in_use_becomes_one_of_its_own() {
    let folder = Folder::new();
    filled(&folder);
    let (mut store, opened) = folder.open();
    store.apply(vec![unsubscribe(3, 1)]);
    let (path, totals) = copied(&folder);
    let totals = totals.unwrap();
    assert_eq!(
        (totals.messages as i64, totals.subscriptions),
        (MESSAGES, 2)
    );
    store.apply(vec![subscribe(8, 1), unsubscribe(1, 1)]);

    let elsewhere = Folder::new();
    fs::copy(&path, database(&elsewhere)).unwrap();
    let (mut restored, again) = start(&elsewhere, false);
    assert_eq!(ids(&mut restored, 1).len() as i64, MESSAGES);
    assert_eq!(
        again.database, NEXT.id,
        "no name of a message is given twice"
    );
    assert_eq!(again.run, opened.run + 1);
    // Subscribed after the copy was made; its endpoint names the other database.
    assert_eq!(
        one(&mut restored, find(8, 1, true)),
        StoreReply::Subscription(true)
    );
    // What ends here stays ended, also for those endpoints.
    restored.apply(vec![unsubscribe(2, 1)]);
    assert_eq!(
        one(&mut restored, find(2, 1, true)),
        StoreReply::Subscription(false)
    );
    drop(restored);
    assert_eq!(start(&elsewhere, false).1.database, NEXT.id, "once");
}

#[test]
fn what_is_damaged_or_foreign_is_not_copied() {
    let folder = Folder::new();
    filled(&folder);
    damage_messages(&database(&folder));
    assert!(matches!(copied(&folder).1, Err(CopyError::Damaged(_))));
    fs::write(database(&folder), "dear diary, ".repeat(1000)).unwrap();
    assert_eq!(copied(&folder).1, Err(CopyError::Open(OpenError::Corrupt)));
    fs::write(database(&folder), "").unwrap();
    assert_eq!(copied(&folder).1, Err(CopyError::Open(OpenError::Corrupt)));
}

#[test]
fn each_broken_rule_is_found() {
    let breaks = [
        (
            "DELETE FROM subscription WHERE uaid = x'01010101010101010101010101010101'",
            "no subscription",
        ),
        (
            "INSERT INTO tombstone SELECT uaid, channel FROM subscription LIMIT 1",
            "said to have ended",
        ),
        (
            "UPDATE message SET expires_at = 1",
            "impossible size or time",
        ),
        ("UPDATE meta SET runs = 0", "a start that has not been"),
        ("DELETE FROM meta", "databases name themselves"),
        (
            "PRAGMA ignore_check_constraints = ON; UPDATE message SET urgency = 9 WHERE id % 3 = 0",
            "cannot be understood",
        ),
    ];
    for (text, fault) in breaks {
        let folder = Folder::new();
        filled(&folder);
        assert_eq!(check::thorough(&database(&folder)).unwrap().faults, [""; 0]);
        let connection = Connection::open(database(&folder)).unwrap();
        connection.execute_batch(text).unwrap();
        drop(connection);
        let faults = check::thorough(&database(&folder)).unwrap().faults;
        assert!(
            faults.iter().any(|found| found.contains(fault)),
            "{text}: {faults:?}"
        );
    }
}

#[test]
fn quick_check_of_a_database_in_use_finds_nothing_and_can_be_ended() {
    let folder = Folder::new();
    filled(&folder);
    let (_store, _) = folder.open();
    let quick = QuickCheck::open(folder.path()).unwrap();
    assert_eq!(quick.run(), Ok(None));
    drop(quick.interrupter());
    assert_eq!(quick.run(), Ok(None), "an end that comes too early is none");
}
