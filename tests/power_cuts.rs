//! The real program on a memory card whose power is cut: what it has answered 2xx to was synced before,
//! so that it is in its user agents' hands in the end, whatever the card forgets of the rest.
//!
//! A kill alone does not show that: the kernel keeps what a killed process has written. Here the card is a
//! file system of this test (`memory_card/`), and what is left after a cut is what the program has synced,
//! with all, some or nothing of what it has written since.
//!
//! `EDGEPUSH_CUTS=100 cargo test --test power_cuts -- --nocapture` cuts more often and shows the account;
//! `EDGEPUSH_SEED=1` makes the same choices again. It needs root and /dev/fuse, and says so if it has not.

#![cfg(target_os = "linux")]
// A test may panic and may add.
#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "anything else fails the test"
)]

mod memory_card;
mod storm;
mod support;

use std::path::PathBuf;
use std::time::Duration;

use memory_card::{Card, CutAt, Remains};
use storm::{Account, Rng, Storm, number};
use support::{Gateway, UserAgent, channel, post, temporary_folder};

const CUTS: u64 = 8;
/// Messages that must be taken between two cuts, on average.
const ACCEPTED_MIN: u64 = 10;
/// Longest that a sync takes; of a good card half of them take less than this.
const SYNC_MICROS_MAX: u64 = 4000;
/// The database, as the card knows it.
const DATABASE: &str = "edgepush.db";
const TTL: (&str, &str) = ("TTL", "600");

/// A gateway with its data on a card, and everything else elsewhere.
struct Board {
    card: Card,
    folder: PathBuf,
    config: String,
    gateway: Option<Gateway>,
    port: u16,
}

impl Board {
    /// With an empty card; `None` where there can be none, and then it says why.
    fn new(config: &str, rng: &mut Rng) -> Option<Self> {
        match Card::new(rng) {
            Ok(card) => Some(Self {
                card,
                folder: temporary_folder(),
                config: config.to_owned(),
                gateway: None,
                port: 0,
            }),
            Err(reason) => {
                println!("skipped: {reason}");
                None
            }
        }
    }

    /// Two directories below the root of the card: both are missing at first.
    fn data(&self) -> PathBuf {
        self.card.path().join("lib/edgepush")
    }

    fn try_start(&mut self) -> Result<(), String> {
        let gateway = Gateway::try_in(&self.folder, &self.data(), &self.config, self.port)?;
        self.port = gateway.push.port();
        self.gateway = Some(gateway);
        Ok(())
    }

    fn start(&mut self) {
        if let Err(fault) = self.try_start() {
            panic!("{fault}");
        }
    }

    fn gateway(&mut self) -> &mut Gateway {
        self.gateway.as_mut().unwrap()
    }

    /// Cuts the power, unless it has gone by itself, and turns it on again.
    fn cut(&mut self, remains: Remains) {
        self.card.cut();
        // Killed, if it has not ended by itself.
        self.gateway = None;
        self.card.restart(remains).unwrap();
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.card.cut();
        self.gateway = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

const REMAINS: [Remains; 4] = [
    Remains::Nothing,
    Remains::UpToSomeMoment,
    Remains::Anything,
    Remains::Everything,
];

/// Storms in which relaxed durability must lose something. A cut finds nothing under way now and then: three
/// of them did in one storm of twenty.
const RELAXED_STORMS: u32 = 4;

/// How often the power was cut when.
#[derive(Debug, Default)]
struct Cuts {
    any_time: u64,
    in_a_checkpoint: u64,
    at_the_end: u64,
}

#[test]
fn nothing_accepted_is_lost_and_nothing_acked_comes_again_over_power_cuts_at_any_moment() {
    let cuts = number("EDGEPUSH_CUTS", CUTS);
    let mut rng = Rng::new(storm::seed());
    let Some((done, account)) = cut_in_a_storm(storm::CONFIG, cuts, Honesty::Syncs, &mut rng)
    else {
        return;
    };
    println!("power cuts {}, {done:?}, {account}", cuts + 1);
    account.check(cuts * ACCEPTED_MIN);
    if cuts >= CUTS {
        assert!(done.in_a_checkpoint > 0 && done.at_the_end > 0, "{done:?}");
    }
}

/// Without this one and the next the test above would prove nothing.
#[test]
fn what_a_card_loses_that_lies_about_its_syncs_is_found() {
    let mut rng = Rng::new(storm::seed());
    if let Some((_, account)) = cut_in_a_storm(storm::CONFIG, 3, Honesty::Lies, &mut rng) {
        println!("a card that lies, power cuts 4, {account}");
        assert!(!account.lost.is_empty(), "{account}");
    }
}

#[test]
fn what_relaxed_durability_loses_by_a_power_cut_is_found() {
    let mut rng = Rng::new(storm::seed());
    let config = format!("durability = \"relaxed\"\n{}", storm::CONFIG);
    for _ in 0..RELAXED_STORMS {
        let Some((_, account)) = cut_in_a_storm(&config, 3, Honesty::KeepsNoMore, &mut rng) else {
            return;
        };
        println!("relaxed durability, power cuts 4, {account}");
        if !account.lost.is_empty() {
            return;
        }
    }
    panic!("{RELAXED_STORMS} storms lost nothing");
}

/// What a card does with what it was told to sync, and with the rest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Honesty {
    /// It keeps the one, and any part of the other.
    Syncs,
    /// It keeps the one, and nothing of the other.
    KeepsNoMore,
    /// It keeps nothing, after a good beginning.
    Lies,
}

/// Cuts the power again and again, then lets all user agents take in what there is.
fn cut_in_a_storm(
    config: &str,
    cuts: u64,
    honesty: Honesty,
    rng: &mut Rng,
) -> Option<(Cuts, Account)> {
    let mut board = Board::new(config, rng)?;
    board.card.set_sync_time_max(SYNC_MICROS_MAX);
    board.start();
    let storm = Storm::begin(board.gateway().push, rng);
    if honesty == Honesty::Lies {
        // Not before there are subscriptions: without those nothing is accepted.
        storm.wait_for(200);
        board.card.lie();
    }
    let mut done = Cuts::default();
    for cut in 0..cuts {
        match cut % 4 {
            // The write-ahead log goes to the database: at its first page, or at a later one.
            0 => {
                board.card.cut_at(CutAt::WriteTo(DATABASE, rng.below(100)));
                let was_cut = board.card.wait_for_cut(Duration::from_secs(30));
                done.in_a_checkpoint += u64::from(was_cut);
            }
            1 => {
                std::thread::sleep(Duration::from_millis(100 + rng.below(500)));
                board.card.cut_at(CutAt::Change(rng.below(12)));
                board.gateway().signal("-TERM");
                let was_cut = board.card.wait_for_cut(Duration::from_secs(3));
                done.at_the_end += u64::from(was_cut);
            }
            _ => {
                std::thread::sleep(Duration::from_millis(rng.below(1000)));
                done.any_time += 1;
            }
        }
        let remains = match honesty {
            Honesty::Syncs => rng.pick(&REMAINS),
            Honesty::KeepsNoMore | Honesty::Lies => Remains::Nothing,
        };
        board.cut(remains);
        board.start();
    }
    let mut calm = storm.end();
    calm.drain();
    // Once more, with everything acked: nothing must come.
    board.cut(Remains::Nothing);
    board.start();
    calm.drain();
    Some((done, calm.account()))
}

/// What somebody outside was promised in a first life of the gateway.
#[derive(Default)]
struct Promised {
    uaid: Option<String>,
    endpoint: Option<String>,
    message: bool,
}

#[test]
fn first_start_cut_at_any_write_leaves_what_the_next_start_can_use_and_breaks_no_promise() {
    let mut rng = Rng::new(storm::seed());
    let mut handed_out = 0;
    let done = cut_at_every_change(&mut rng, |rng, at, remains| {
        let mut board = Board::new(storm::CONFIG, rng)?;
        board.card.cut_at(CutAt::Change(at));
        let promised = first_life(&mut board);
        if !board.card.was_cut() {
            return Some(false);
        }
        board.cut(remains);
        board.start();
        keep_promises(&mut board, &promised, at, remains);
        handed_out += u64::from(promised.endpoint.is_some());
        Some(true)
    });
    if let Some((cuts, changes)) = done {
        println!(
            "first starts cut {cuts}, at {changes} changes; endpoints handed out before {handed_out}"
        );
        assert!(cuts > 5, "{cuts}");
        assert!(handed_out > 0);
    }
}

/// Cuts something at each change that it makes, or at every few of them; how often, and how many changes
/// there are. `EDGEPUSH_EVERY=1` leaves none out, and tries all that may remain of each.
fn cut_at_every_change(
    rng: &mut Rng,
    mut cut: impl FnMut(&mut Rng, u64, Remains) -> Option<bool>,
) -> Option<(u64, u64)> {
    let every = number("EDGEPUSH_EVERY", 7);
    let (mut at, mut cuts) = (rng.below(every), 0);
    loop {
        let some = [rng.pick(&REMAINS)];
        let remains: &[Remains] = if every == 1 { &REMAINS } else { &some };
        for remains in remains {
            if !cut(rng, at, *remains)? {
                return Some((cuts, at));
            }
            cuts += 1;
        }
        at += every;
    }
}

/// Starts, subscribes and posts, as far as it comes before the power goes. What is answered after that does
/// not count.
fn first_life(board: &mut Board) -> Promised {
    let mut promised = Promised::default();
    if board.try_start().is_err() {
        return promised;
    }
    let gateway = board.gateway.as_mut().unwrap();
    let Some(mut agent) = UserAgent::try_connect(gateway) else {
        return promised;
    };
    agent.send(&serde_json::json!({"messageType": "hello", "use_webpush": true}));
    let hello = agent.receive();
    let uaid = hello["uaid"].as_str().unwrap().to_owned();
    if !board.card.is_off() {
        promised.uaid = Some(uaid);
    }
    agent.send(&serde_json::json!({"messageType": "register", "channelID": channel(1)}));
    let registered = agent.receive();
    if registered["status"] != 200 || board.card.is_off() {
        return promised;
    }
    let endpoint = support::path_of(registered["pushEndpoint"].as_str().unwrap());
    promised.endpoint = Some(endpoint.clone());
    drop(agent);
    let answer = post(gateway, &endpoint, &[TTL], b"kept");
    promised.message = answer.status == 201 && !board.card.is_off();
    promised
}

fn keep_promises(board: &mut Board, promised: &Promised, at: u64, remains: Remains) {
    let when = format!("cut before change {at}, {remains:?} left");
    let gateway = board.gateway();
    let mut agent = UserAgent::hello(gateway, promised.uaid.as_deref());
    if promised.uaid.is_some() {
        assert_eq!(Some(&agent.uaid), promised.uaid.as_ref(), "{when}");
    }
    let first = promised.message.then(|| agent.receive()["data"].clone());
    assert!(first.is_none_or(|data| data == "a2VwdA"), "{when}");
    let Some(endpoint) = &promised.endpoint else {
        return;
    };
    // A message that was not answered may be there as well.
    let answer = post(gateway, endpoint, &[TTL], b"after");
    assert_eq!(answer.status, 201, "{when}: the endpoint was handed out");
    let mut all = std::iter::from_fn(|| agent.receive_within(Duration::from_secs(5)));
    assert!(all.any(|message| message["data"] == "YWZ0ZXI"), "{when}");
}

#[test]
fn update_from_the_first_schema_cut_at_any_write_loses_nothing() {
    let mut rng = Rng::new(storm::seed());
    let done = cut_at_every_change(&mut rng, |rng, at, remains| {
        let mut board = Board::new(storm::CONFIG, rng)?;
        let promised = life_on_the_first_schema(&mut board);
        board.card.cut_at(CutAt::Change(at));
        let started = board.try_start();
        let was_cut = board.card.was_cut();
        if was_cut {
            board.cut(remains);
            board.start();
        } else {
            started.unwrap();
        }
        keep_promises(&mut board, &promised, at, remains);
        Some(was_cut)
    });
    if let Some((cuts, changes)) = done {
        println!("updates of the schema cut {cuts}, at {changes} changes");
        assert!(cuts > 1, "{cuts}");
    }
}

/// Leaves a database as an older program would have, with a message in it.
fn life_on_the_first_schema(board: &mut Board) -> Promised {
    board.start();
    let mut agent = UserAgent::hello(board.gateway(), None);
    let promised = Promised {
        uaid: Some(agent.uaid.clone()),
        endpoint: Some(agent.register(&channel(1))),
        message: true,
    };
    drop(agent);
    let endpoint = promised.endpoint.as_ref().unwrap();
    assert_eq!(post(board.gateway(), endpoint, &[TTL], b"kept").status, 201);
    assert!(board.gateway().terminate().success());
    board.gateway = None;
    go_back_to_the_first_schema(&board.data().join(DATABASE));
    board.card.sync_all();
    promised
}

/// Makes of a database one of the first schema, with the same rows.
fn go_back_to_the_first_schema(path: &std::path::Path) {
    let source = include_str!("../src/storage/schema.rs");
    let (_, schema) = source.split_once("const VERSION_1: &str = \"").unwrap();
    let (schema, _) = schema.split_once("\";").unwrap();
    let new = path.with_extension("new");
    std::fs::rename(path, &new).unwrap();
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))
        .unwrap();
    connection.execute_batch(schema).unwrap();
    connection
        .execute("ATTACH ?1 AS new", [new.to_str().unwrap()])
        .unwrap();
    for (table, columns) in [
        ("meta", "only, database, runs, service_secs, lost_before"),
        ("subscription", "uaid, channel, origin"),
        (
            "message",
            "id, uaid, channel, topic, received_at, ttl_secs, expires_at, urgency, cost_bytes, encoding, \
             encryption, crypto_key, body",
        ),
        ("tombstone", "uaid, channel"),
    ] {
        let copy = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM new.{table}");
        connection.execute(&copy, ()).unwrap();
    }
    connection.execute("DETACH new", ()).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    connection.close().unwrap();
    std::fs::remove_file(&new).unwrap();
}
