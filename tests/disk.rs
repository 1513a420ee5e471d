//! The real program on a disk that is full, read-only or failing, and on databases that are damaged.
//!
//! File systems are mounted for it, which only root may do: without root those tests say so and pass.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Answer, Gateway, Http, UserAgent, channel, post, temporary_folder, wait_until};

const TTL: (&str, &str) = ("TTL", "600");
const QUIET: Duration = Duration::from_millis(400);
const PAGE: usize = 4096;
/// Acks are in time, however busy the machine is.
const LONG_WINDOW: &str = "[limits]\nack_window_millis = 5000\n";

/// A file system of this test's own. Unmounted when dropped.
struct Mount {
    folder: PathBuf,
    /// Another one that its image is on.
    below: Option<Box<Self>>,
}

impl Mount {
    /// In memory, of so many KiB. `None` with a word about it where that cannot be.
    fn tmpfs(kib: usize) -> Option<Self> {
        let size = format!("size={kib}k");
        Self::make(&["-t", "tmpfs", "-o", &size, "tmpfs"], None)
    }

    /// As on a card: ext4 of so many KiB in a file in memory, of which `real_kib` are really there.
    fn ext4(kib: usize, real_kib: usize) -> Option<Self> {
        let below = Self::tmpfs(real_kib)?;
        let image = below.folder.join("image");
        File::create(&image)
            .unwrap()
            .set_len(kib as u64 * 1024)
            .unwrap();
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-E", "nodiscard"])
            .arg(&image)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            println!("skipped: there is no mkfs.ext4 here");
            return None;
        }
        let image = image.to_str().unwrap().to_owned();
        Self::make(&["-o", "loop", &image], Some(Box::new(below)))
    }

    fn make(args: &[&str], below: Option<Box<Self>>) -> Option<Self> {
        let folder = temporary_folder();
        let mounted = Command::new("mount")
            .args(args)
            .arg(&folder)
            .stderr(Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("skipped: nothing can be mounted here (it takes root)");
            fs::remove_dir_all(folder).unwrap();
            return None;
        }
        Some(Self { folder, below })
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Fills it to the last byte, with what is returned.
    fn fill(&self) -> PathBuf {
        let path = self.folder.join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 16, PAGE, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
        let _ = fs::remove_dir(&self.folder);
        drop(self.below.take());
    }
}

/// A user agent that is away, with a backlog, and one that is connected.
struct Cast {
    away: String,
    to_away: String,
    here: UserAgent,
    to_here: String,
}

impl Cast {
    fn new(gateway: &Gateway, backlog: usize) -> Self {
        let mut away = UserAgent::hello(gateway, None);
        let to_away = away.register(&channel(1));
        let name = away.uaid.clone();
        drop(away);
        let mut here = UserAgent::hello(gateway, None);
        let to_here = here.register(&channel(2));
        for number in 0..backlog {
            let body = format!("before {number:300}");
            assert_eq!(post(gateway, &to_away, &[TTL], body.as_bytes()).status, 201);
        }
        Self {
            away: name,
            to_away,
            here,
            to_here,
        }
    }

    /// Whoever is connected still gets everything, and its sender hears so.
    fn online_delivery_goes_on(&mut self, gateway: &Gateway) {
        for _ in 0..3 {
            let mut sender = Http::connect(gateway.push);
            let to = &self.to_here;
            let head =
                format!("POST {to} HTTP/1.1\r\nHost: h\r\nTTL: 60\r\nContent-Length: 0\r\n\r\n");
            sender.send_raw(head.as_bytes());
            let notification = self.here.receive();
            assert_eq!(notification["channelID"], channel(2));
            self.here.ack(&notification);
            assert_eq!(sender.receive().status, 201);
        }
    }

    /// Posts to who is away until it is refused; how many were taken.
    fn post_until_refused(&self, gateway: &Gateway) -> (usize, Answer) {
        for taken in 0..10_000 {
            let answer = post(gateway, &self.to_away, &[TTL], &[b'x'; 2000]);
            if answer.status != 201 {
                return (taken, answer);
            }
        }
        panic!("all was taken");
    }

    /// Who was away comes back and acks all that it gets; how much that was.
    fn collect(&self, gateway: &Gateway) -> usize {
        let mut agent = UserAgent::hello(gateway, Some(&self.away));
        assert_eq!(agent.uaid, self.away);
        let mut count = 0;
        while let Some(notification) = agent.receive_within(QUIET) {
            agent.ack(&notification);
            count += 1;
        }
        agent.settle();
        count
    }
}

fn health(gateway: &Gateway) -> (u16, Value) {
    let answer = Http::connect(gateway.console).send("GET", "/healthz", &[], b"");
    (answer.status, answer.json())
}

fn page(gateway: &Gateway) -> String {
    let answer = Http::connect(gateway.console).send("GET", "/", &[], b"");
    String::from_utf8(answer.body).unwrap()
}

/// It says so in red, in these words, to people and to programs.
fn console_is_red(gateway: &Gateway, words: &str) {
    wait_until("the console is red", || health(gateway).0 == 503);
    let reason = health(gateway).1["reason"].to_string();
    assert!(reason.contains(words), "{reason}");
    let page = page(gateway);
    assert!(page.contains("class=\"state bad\"") && page.contains(words));
    gateway.wait_for_metric("edgepush_storage_fault", 1);
}

fn console_is_green(gateway: &Gateway) {
    wait_until("the console is green", || health(gateway).0 == 200);
    gateway.wait_for_metric("edgepush_storage_fault", 0);
}

fn refused_for_now(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("30"));
}

fn full_disk_story(disk: &Mount) {
    let mut gateway = Gateway::on(&disk.data(), LONG_WINDOW);
    let mut cast = Cast::new(&gateway, 40);
    let filler = disk.fill();

    let (taken, refused) = cast.post_until_refused(&gateway);
    refused_for_now(&refused);
    println!("on a full disk {taken} messages still fitted into the database");
    console_is_red(&gateway, "no space left on the device");
    cast.online_delivery_goes_on(&gateway);

    // The acks of a whole backlog are written down, and a kill does not bring it back.
    assert_eq!(cast.collect(&gateway), 40 + taken);
    gateway.wait_for_metric("edgepush_stored_messages", 0);
    gateway.kill();
    gateway.start_again();
    cast.here = UserAgent::hello(&gateway, Some(&cast.here.uaid));
    assert_eq!(cast.collect(&gateway), 0);
    cast.online_delivery_goes_on(&gateway);

    // Still not a byte more than there is.
    let (taken, refused) = cast.post_until_refused(&gateway);
    refused_for_now(&refused);
    fs::remove_file(filler).unwrap();
    assert_eq!(post(&gateway, &cast.to_away, &[TTL], b"after").status, 201);
    console_is_green(&gateway);
    assert!(gateway.log().contains("storage_works_again"));
    assert_eq!(cast.collect(&gateway), taken + 1);
    assert_eq!(gateway.terminate().code(), Some(0));
}

#[test]
fn full_disk_refuses_messages_to_those_away_loses_no_ack_and_recovers_by_itself() {
    if let Some(disk) = Mount::tmpfs(16 << 10) {
        full_disk_story(&disk);
    }
    if let Some(disk) = Mount::ext4(24 << 10, 40 << 10) {
        full_disk_story(&disk);
    }
}

#[test]
fn small_disk_that_the_backlog_itself_fills_is_emptied_by_acks() {
    let Some(disk) = Mount::tmpfs(2 << 10) else {
        return;
    };
    let gateway = Gateway::on(&disk.data(), LONG_WINDOW);
    let mut cast = Cast::new(&gateway, 0);
    for round in 0..3 {
        let (taken, refused) = cast.post_until_refused(&gateway);
        refused_for_now(&refused);
        assert!(taken > 50, "round {round}: {taken}");
        cast.online_delivery_goes_on(&gateway);
        assert_eq!(cast.collect(&gateway), taken, "round {round}");
        gateway.wait_for_metric("edgepush_stored_messages", 0);
    }
}

#[test]
fn nobody_posting_the_console_turns_green_with_the_next_sweep() {
    let Some(disk) = Mount::tmpfs(16 << 10) else {
        return;
    };
    let gateway = Gateway::on(&disk.data(), LONG_WINDOW);
    let cast = Cast::new(&gateway, 1);
    let filler = disk.fill();
    cast.post_until_refused(&gateway);
    console_is_red(&gateway, "no space left on the device");
    fs::remove_file(filler).unwrap();
    // Any write will do; left alone, the sweep of expired messages is one a minute.
    cast.collect(&gateway);
    gateway.wait_for_metric("edgepush_storage_fault", 0);
}

#[test]
fn first_start_on_a_full_disk_says_what_to_do() {
    let Some(disk) = Mount::tmpfs(1 << 10) else {
        return;
    };
    fs::create_dir(disk.data()).unwrap();
    disk.fill();
    let said = fails_to_start(&disk.data());
    assert!(said.contains("No space left on device"), "{said}");
}

#[test]
fn disk_that_turns_read_only_refuses_messages_to_those_away_and_says_so() {
    let Some(disk) = Mount::ext4(24 << 10, 40 << 10) else {
        return;
    };
    let mut gateway = Gateway::on(&disk.data(), LONG_WINDOW);
    let mut cast = Cast::new(&gateway, 5);
    // As the kernel does it when a card fails.
    let remounted = Command::new("mount")
        .args(["-o", "remount,abort"])
        .arg(&disk.folder)
        .status();
    assert!(remounted.unwrap().success());

    let (taken, refused) = cast.post_until_refused(&gateway);
    assert_eq!(taken, 0);
    refused_for_now(&refused);
    wait_until("the console is red", || health(&gateway).0 == 503);
    gateway.wait_for_metric("edgepush_storage_fault", 1);
    cast.online_delivery_goes_on(&gateway);
    assert_eq!(cast.collect(&gateway), 5, "it can be read");
    assert!(gateway.is_running());

    gateway.kill();
    let said = fails_to_start(&disk.data());
    assert!(
        said.contains("cannot write in the data directory"),
        "{said}"
    );
    assert!(said.contains("Read-only file system"), "{said}");
}

#[test]
fn disk_that_fails_at_the_flush_refuses_messages_to_those_away() {
    // ext4 believes in 64 MiB; the writes fail when it flushes more than there is below it.
    let Some(disk) = Mount::ext4(64 << 10, 8 << 10) else {
        return;
    };
    let mut gateway = Gateway::on(&disk.data(), LONG_WINDOW);
    let mut cast = Cast::new(&gateway, 5);
    disk.below.as_ref().unwrap().fill();
    let (_, refused) = cast.post_until_refused(&gateway);
    refused_for_now(&refused);
    wait_until("the console is red", || health(&gateway).0 == 503);
    cast.online_delivery_goes_on(&gateway);
    assert!(gateway.is_running());
}

/// What the program says when it does not start.
fn fails_to_start(data: &Path) -> String {
    let output = support::edgepush()
        .args(["--listen", "127.0.0.1:0", "--console", "off", "--data"])
        .arg(data)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// Fills a page in the middle of the messages with nonsense; which must be in the file by now.
fn damage(gateway: &Gateway) {
    let path = gateway.data.join("edgepush.db");
    let bytes = fs::read(&path).unwrap();
    let leaves: Vec<usize> = (1..bytes.len() / PAGE)
        .filter(|page| {
            let page = &bytes[page * PAGE..(page + 1) * PAGE];
            page[0] == 0x0d && page.windows(7).any(|part| part == b"before ")
        })
        .collect();
    assert!(leaves.len() > 4, "{leaves:?}");
    let start = leaves[leaves.len() / 2] * PAGE;
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0xee; PAGE], start as u64).unwrap();
}

/// A gateway with a backlog of 200 that is all in the database file.
fn with_backlog(config: &str) -> (Gateway, Cast) {
    let mut gateway = Gateway::with_config(config);
    let mut cast = Cast::new(&gateway, 200);
    assert_eq!(gateway.terminate().code(), Some(0));
    gateway.start_again();
    cast.here = UserAgent::hello(&gateway, Some(&cast.here.uaid));
    (gateway, cast)
}

/// What holds once a damaged database was replaced.
fn was_replaced(gateway: &mut Gateway, cast: &mut Cast) {
    gateway.wait_for_log("database_salvaged");
    assert!(gateway.data.join("edgepush.db.damaged-1").exists());
    wait_until("it listens again", || {
        UserAgent::try_connect(gateway).is_some()
    });
    assert!(gateway.is_running(), "the same process");
    cast.here = UserAgent::hello(gateway, Some(&cast.here.uaid));
    cast.online_delivery_goes_on(gateway);
    assert_eq!(post(gateway, &cast.to_away, &[TTL], b"after").status, 201);
    let count = cast.collect(gateway);
    println!("of 200 messages and one that came later {count} are there");
    assert!((170..=201).contains(&count), "{count}");

    assert_eq!(health(gateway).0, 200);
    let note = "It lies in the data directory as edgepush.db.damaged-1";
    assert!(page(gateway).contains(note));
    gateway.wait_for_metric("edgepush_databases_set_aside", 1);
    gateway.wait_for_metric("edgepush_database_damaged", 0);
    fs::remove_file(gateway.data.join("edgepush.db.damaged-1")).unwrap();
    assert!(!page(gateway).contains(note));
}

#[test]
fn damage_that_a_user_agent_meets_has_the_database_replaced_in_the_running_process() {
    let (mut gateway, mut cast) = with_backlog(LONG_WINDOW);
    damage(&gateway);
    let mut away = UserAgent::hello(&gateway, Some(&cast.away));
    let code = loop {
        let frame = away.receive_frame();
        if let tungstenite::Message::Close(Some(frame)) = frame {
            break u16::from(frame.code);
        }
        assert!(frame.is_text(), "{frame:?}");
    };
    assert!([1011, 1001].contains(&code), "{code}");
    was_replaced(&mut gateway, &mut cast);
}

#[test]
fn damage_that_nobody_meets_is_found_by_the_daily_check() {
    let config = format!("{LONG_WINDOW}database_check_interval_secs = 1\n");
    let (mut gateway, mut cast) = with_backlog(&config);
    damage(&gateway);
    let (code, reason) = cast.here.closed();
    assert_eq!(code, 1001);
    assert!(reason.contains("connect again"), "{reason}");
    was_replaced(&mut gateway, &mut cast);
}

#[test]
fn database_that_is_none_is_set_aside_and_endpoints_stay_good() {
    let (mut gateway, mut cast) = with_backlog(LONG_WINDOW);
    for number in 1..=2 {
        gateway.kill();
        fs::write(gateway.data.join("edgepush.db"), "dear diary, ".repeat(999)).unwrap();
        gateway.start_again();
        let aside = format!("edgepush.db.damaged-{number}");
        assert!(gateway.log().contains(&aside) && page(&gateway).contains(&aside));
        assert_eq!(post(&gateway, &cast.to_away, &[TTL], b"x").status, 201);
        cast.here = UserAgent::hello(&gateway, Some(&cast.here.uaid));
        cast.online_delivery_goes_on(&gateway);
        assert_eq!(cast.collect(&gateway), 1);
    }
}

#[test]
fn newer_database_is_still_refused() {
    let (mut gateway, _) = with_backlog(LONG_WINDOW);
    gateway.kill();
    let database = rusqlite::Connection::open(gateway.data.join("edgepush.db")).unwrap();
    database.pragma_update(None, "user_version", 999).unwrap();
    drop(database);
    let said = fails_to_start(&gateway.data);
    assert!(said.contains("written by a newer edgepush"), "{said}");
    assert!(!gateway.data.join("edgepush.db.damaged-1").exists());
}
