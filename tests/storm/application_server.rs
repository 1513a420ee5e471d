//! An application server that posts and puts, one message after the other, whether anybody is there or
//! not.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::ledger::{Job, Ledger};
use super::rng::Rng;
use crate::support::Http;

/// How long it waits where the gateway is down, or nobody has subscribed yet.
const REST: Duration = Duration::from_millis(10);
/// Longest pause between two messages.
const PAUSE_MICROS_MAX: u64 = 4000;
/// Longest body: some need pages of their own in the database.
const BODY_BYTES_MAX: u64 = 4000;

pub(super) fn run(
    turn: (usize, usize),
    push: SocketAddr,
    mut rng: Rng,
    ledger: &Ledger,
    stop: &AtomicBool,
) {
    let mut http = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(mut connection) = http.take().or_else(|| Http::try_connect(push)) else {
            std::thread::sleep(REST);
            continue;
        };
        let Some(job) = ledger.next_job(turn, &mut rng) else {
            std::thread::sleep(REST);
            http = Some(connection);
            continue;
        };
        // No answer: it may have been taken or not.
        if let Some(status) = send(&mut connection, &job, &mut rng) {
            ledger.answered(&job, status);
            http = Some(connection);
        }
        std::thread::sleep(Duration::from_micros(rng.below(PAUSE_MICROS_MAX)));
    }
}

fn send(http: &mut Http, job: &Job, rng: &mut Rng) -> Option<u16> {
    let (channel, number) = job.name;
    let answer = if job.simplepush {
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let body = format!("version={number}");
        http.try_send("PUT", &job.endpoint, &headers, body.as_bytes())
    } else {
        let headers = [("TTL", "86400"), ("Content-Encoding", "aes128gcm")];
        let mut body = format!("{channel} {number} ").into_bytes();
        let length = body.len() as u64 + rng.below(BODY_BYTES_MAX);
        body.resize(length as usize, b'.');
        http.try_send("POST", &job.endpoint, &headers, &body)
    };
    answer.map(|answer| answer.status)
}
