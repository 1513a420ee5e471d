//! What came and is not handled yet, and what must not be handled twice.

use std::collections::VecDeque;
use std::fmt;

use crate::protocol::client_message::AckCode;
use crate::protocol::user_agent::Update;

/// Events that wait for their handler; with so many nothing more is read.
const QUEUE_MAX: usize = 64;
/// Versions that are remembered, so that a message that comes again is not handled again. More
/// than can wait, since those are the ones that come again.
const SEEN_MAX: usize = 128;
const _: () = assert!(SEEN_MAX > QUEUE_MAX);

/// What came for the person or the script.
#[derive(Clone, Eq, PartialEq)]
pub(super) enum Event {
    /// A new version.
    Update(Update),
    /// A push message, decrypted; empty if it had no body.
    Message {
        /// Its name.
        version: String,
        /// What it says.
        text: Vec<u8>,
    },
}

/// What a message says is nobody's business.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Update(update) => write!(f, "Update({})", update.version),
            Self::Message { text, .. } => write!(f, "Message({} bytes)", text.len()),
        }
    }
}

impl Event {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Update(a), Self::Update(b)) => a.version == b.version,
            (Self::Message { version: a, .. }, Self::Message { version: b, .. }) => a == b,
            (Self::Update(_), Self::Message { .. }) | (Self::Message { .. }, Self::Update(_)) => {
                false
            }
        }
    }
}

/// Events in their order, one of them with its handler.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Handed out.
    current: Option<Event>,
    waiting: VecDeque<Event>,
    seen: VecDeque<(String, AckCode)>,
    last_update: Option<LastUpdate>,
}

/// The version that was handled last. The same one again is a repetition if its ack went with an
/// earlier connection, if at all; otherwise somebody sent it twice.
#[derive(Debug)]
struct LastUpdate {
    version: u64,
    acked_here: bool,
}

impl Inbox {
    /// Whether nothing more should be read: see [`QUEUE_MAX`].
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= QUEUE_MAX
    }

    /// Takes an event in, unless it is there already: sent again because the handler takes its time.
    /// One ack will be for both.
    pub(super) fn put(&mut self, event: Event) {
        let mut all = self.current.iter().chain(&self.waiting);
        if !all.any(|other| other.is_same(&event)) {
            self.waiting.push_back(event);
        }
    }

    /// The next event to hand out, if the one before has been handled.
    pub(super) fn next(&mut self) -> Option<Event> {
        if self.current.is_none() {
            self.current = self.waiting.pop_front();
            return self.current.clone();
        }
        None
    }

    /// The event that was handed out has been handled.
    pub(super) const fn handled(&mut self) -> Option<Event> {
        self.current.take()
    }

    /// The connection is lost. What waits has no ack and comes again.
    pub(super) fn lost(&mut self) {
        self.waiting.clear();
        if let Some(last) = &mut self.last_update {
            last.acked_here = false;
        }
    }

    /// A push message is done with; with this ack, also if it comes again.
    pub(super) fn remember(&mut self, version: String, code: AckCode) {
        if self.seen.len() >= SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back((version, code));
    }

    /// The ack of a push message that has been done with before.
    pub(super) fn seen(&self, version: &str) -> Option<AckCode> {
        let mut seen = self.seen.iter();
        seen.find(|(other, _)| other == version)
            .map(|(_, code)| *code)
    }

    /// A version update is done with; whether its ack went with this connection.
    pub(super) const fn update_handled(&mut self, version: u64, acked_here: bool) {
        self.last_update = Some(LastUpdate {
            version,
            acked_here,
        });
    }

    /// Whether this is the update that was handled last, once more.
    pub(super) fn is_repeated(&self, update: &Update) -> bool {
        self.last_update
            .as_ref()
            .is_some_and(|last| last.version == update.version && !last.acked_here)
    }
}
