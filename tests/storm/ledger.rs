//! Who was promised what, and what came of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use super::Rng;

/// Faults that are kept in words; the others are counted.
const FAULTS_SHOWN: usize = 20;

/// One message: its channel, and its place among that channel's, from 1. Of a version update it is the
/// version.
pub(super) type MessageName = (usize, u64);

#[derive(Default)]
pub struct Ledger {
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    channels: Vec<Channel>,
    messages: HashMap<MessageName, Message>,
    faults: Vec<String>,
    faults_more: u64,
}

struct Channel {
    agent: usize,
    simplepush: bool,
    endpoint: String,
    state: State,
    /// The newest message that was ever sent.
    newest: u64,
    /// The newest that has come.
    newest_received: u64,
    /// Version updates up to this one are acked and that is committed.
    done_to: u64,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    Open,
    /// Its user agent has asked for its end.
    Ending,
    /// And was told that it has come.
    Ended,
}

#[derive(Default)]
struct Message {
    accepted: bool,
    received: u64,
    /// Acked, and that is committed.
    done: bool,
}

/// What an application server is to do next.
pub(super) struct Job {
    pub(super) name: MessageName,
    pub(super) simplepush: bool,
    pub(super) endpoint: String,
    /// The subscription had ended before.
    pub(super) in_vain: bool,
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("nobody panics with it")
    }

    /// A promise that was not kept, and no message was lost by it.
    pub(super) fn fault(&self, what: String) {
        self.books().fault(what);
    }

    /// A user agent was handed an endpoint: from here on it is good until it is given back.
    pub(super) fn subscribed(&self, agent: usize, simplepush: bool, endpoint: String) -> usize {
        let mut books = self.books();
        books.channels.push(Channel {
            agent,
            simplepush,
            endpoint,
            state: State::Open,
            newest: 0,
            newest_received: 0,
            done_to: 0,
        });
        books.channels.len() - 1
    }

    pub(super) fn unsubscribing(&self, channel: usize) {
        self.books().channels[channel].state = State::Ending;
    }

    pub(super) fn unsubscribed(&self, channel: usize) {
        self.books().channels[channel].state = State::Ended;
    }

    /// A message for one of the channels that are this application server's: each has one, so that
    /// its messages have an order.
    pub(super) fn next_job(&self, (number, of): (usize, usize), rng: &mut Rng) -> Option<Job> {
        let mut books = self.books();
        let ended = |channel: &Channel| channel.state == State::Ended;
        let mine: Vec<usize> = (number..books.channels.len())
            .step_by(of)
            // Now and then one that has ended: nothing must come of it.
            .filter(|at| !ended(&books.channels[*at]) || rng.percent(2))
            .collect();
        let at = *mine.get(rng.index(mine.len().max(1)))?;
        let channel = &mut books.channels[at];
        channel.newest += 1;
        Some(Job {
            name: (at, channel.newest),
            simplepush: channel.simplepush,
            endpoint: channel.endpoint.clone(),
            in_vain: ended(channel),
        })
    }

    /// An application server has its answer.
    pub(super) fn answered(&self, job: &Job, status: u16) {
        let mut books = self.books();
        let open = books.channels[job.name.0].state == State::Open;
        match status {
            200..=202 if job.in_vain => {
                books.fault(format!(
                    "{:?} was taken after its subscription's end",
                    job.name
                ));
            }
            200..=202 => books.messages.entry(job.name).or_default().accepted = true,
            400..=499 if status != 429 && open => {
                books.fault(format!(
                    "{:?} answered {status}: its endpoint is good",
                    job.name
                ));
            }
            _ => {}
        }
    }

    /// A user agent has received a message.
    pub(super) fn received(&self, agent: usize, name: MessageName) {
        let mut books = self.books();
        let Some(channel) = books.channels.get(name.0) else {
            return books.fault(format!("{name:?} came and was never sent"));
        };
        let mut wrong = Vec::new();
        if channel.agent != agent {
            wrong.push(format!("{name:?} came to the wrong user agent {agent}"));
        }
        if channel.state == State::Ended {
            wrong.push(format!("{name:?} came after its subscription's end"));
        }
        if name.1 == 0 || name.1 > channel.newest {
            wrong.push(format!("{name:?} came and was never sent"));
        }
        let (simplepush, done_to) = (channel.simplepush, channel.done_to);
        let (newest_received, first) = (channel.newest_received, {
            let message = books.messages.get(&name);
            message.is_none_or(|message| message.received == 0)
        });
        if first && name.1 < newest_received {
            wrong.push(format!(
                "{name:?} came for the first time after {newest_received}"
            ));
        }
        let message = books.messages.entry(name).or_default();
        message.received += 1;
        if message.done || simplepush && name.1 <= done_to {
            wrong.push(format!("{name:?} came after its ack was committed"));
        }
        let newest = &mut books.channels[name.0].newest_received;
        *newest = name.1.max(*newest);
        for fault in wrong {
            books.fault(fault);
        }
    }

    /// These acks are committed.
    pub(super) fn done(&self, acked: &[MessageName]) {
        let mut books = self.books();
        let known = books.channels.len();
        for name in acked.iter().filter(|name| name.0 < known) {
            books.messages.entry(*name).or_default().done = true;
            let done_to = &mut books.channels[name.0].done_to;
            *done_to = name.1.max(*done_to);
        }
    }

    /// How many messages the gateway has taken.
    pub(super) fn accepted(&self) -> u64 {
        self.books().accepted()
    }

    /// What became of everything, if nothing more comes.
    pub fn account(&self) -> Account {
        let books = self.books();
        let mut account = Account {
            subscriptions: books.channels.len() as u64,
            accepted: books.accepted(),
            faults: books.faults.clone(),
            faults_more: books.faults_more,
            ..Account::default()
        };
        for channel in &books.channels {
            account.sent += channel.newest;
            account.ended += u64::from(channel.state != State::Open);
        }
        for (name, message) in &books.messages {
            let channel = &books.channels[name.0];
            account.received += u64::from(message.received > 0);
            account.twice += u64::from(message.received > 1);
            // An update is in hands with it or with a later one.
            let in_hands =
                message.received > 0 || channel.simplepush && channel.newest_received >= name.1;
            if message.accepted && !in_hands && channel.state == State::Open {
                account.lost.push(*name);
            }
        }
        account.lost.sort_unstable();
        account
    }
}

impl Books {
    fn accepted(&self) -> u64 {
        let accepted = |message: &&Message| message.accepted;
        self.messages.values().filter(accepted).count() as u64
    }

    fn fault(&mut self, what: String) {
        if self.faults.len() < FAULTS_SHOWN {
            self.faults.push(what);
        } else {
            self.faults_more += 1;
        }
    }
}

/// What became of everything.
#[derive(Clone, Debug, Default)]
pub struct Account {
    pub subscriptions: u64,
    pub ended: u64,
    pub sent: u64,
    pub accepted: u64,
    pub received: u64,
    pub twice: u64,
    pub lost: Vec<(usize, u64)>,
    pub faults: Vec<String>,
    pub faults_more: u64,
}

impl Account {
    /// Fails unless every promise was kept, and there was something to keep.
    pub fn check(&self, accepted_min: u64) {
        assert!(self.accepted >= accepted_min, "too little to tell: {self}");
        assert!(self.faults.is_empty(), "{self}: {:#?}", self.faults);
        let shown = &self.lost[..self.lost.len().min(20)];
        assert!(self.lost.is_empty(), "{self}: {shown:?}");
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "subscriptions {} ({} ended), sent {}, accepted {}, received {}, lost {}, more than once {}, \
             other faults {}",
            self.subscriptions,
            self.ended,
            self.sent,
            self.accepted,
            self.received,
            self.lost.len(),
            self.twice,
            self.faults.len() as u64 + self.faults_more,
        )
    }
}
