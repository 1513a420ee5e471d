//! What the engine asks of the world, collected in the order in which it must be done.
//!
//! Owns the queue of outputs, the open requests and what waits for the storage thread; decides
//! nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::counters::Counters;
use super::parts::{Part, Wholes};
use super::registration::Step;
use super::upstream::Borrowing;
use super::{CloseReason, Output, RequestId, SessionId};
use crate::model::dialect::Dialect;
use crate::model::ids::{ChannelId, Uaid};
use crate::model::limits::Limits;
use crate::model::message::PushMessage;
use crate::model::store::{Deletion, Quota, StoreOp};
use crate::model::upstream::{Owner, Received};
use crate::model::version::Version;
use crate::protocol::client_message::AckCode;
use crate::protocol::http::Response;
use crate::protocol::problem::Problem;

/// Deletions that go to the storage thread at once, however young: bounds what gathers.
const DELETIONS_MAX: usize = 256;

/// Most deletions that wait for a failing storage to work again: 1.75 MiB.
const DELETIONS_WAITING_MAX: usize = 32_768;
const _: () = assert!(size_of::<Deletion>() <= 56);

/// Outputs and what is open behind them.
#[derive(Debug)]
pub(super) struct Outbox {
    outputs: VecDeque<Output>,
    /// What each reply of the storage thread is for: replies come in the order of the operations.
    waiting: VecDeque<Waiting>,
    /// Requests that have no answer yet, with the answer they get if all goes well.
    open_requests: HashMap<RequestId, Acceptance>,
    wholes: Wholes,
    judged: Vec<Judged>,
    /// Acked messages that are still on flash.
    deletions: Vec<Deletion>,
    deletions_due: Option<Instant>,
    held_bytes: usize,
    /// Messages of these were acked and cost no flash, since somebody looked.
    cost_nothing: Vec<(Uaid, ChannelId)>,
    quota: Quota,
    delete_delay: std::time::Duration,
    pub(super) counters: Counters,
}

/// Who is waiting for a reply of the storage thread.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A session that said hello with a known UAID.
    Hello(SessionId),
    /// A session that registers.
    Register(SessionId, Box<Registering>),
    /// A session that unregisters a channel, as its user agent spells it.
    Unregister {
        session: SessionId,
        uaid: Uaid,
        channel: ChannelId,
        spelling: Box<str>,
    },
    /// A push message on its way to flash.
    Message {
        uaid: Uaid,
        fate: Fate,
        cost_bytes: usize,
    },
    /// A request whose answer is certain if the subscription exists: the problem, or else the
    /// acceptance that it has open.
    Find {
        request: RequestId,
        problem: Option<Problem>,
    },
    /// A user agent's request about its registration.
    Registration(RequestId, Step),
    /// A session that catches up.
    Page(SessionId),
    /// Deletions, to be tried again if they fail; the session waits where it sent too many.
    Deleted {
        deletions: Vec<Deletion>,
        resume: Option<SessionId>,
    },
    /// The sweep of expired messages.
    Expired,
    /// The clocks, which are written down: the version clock up to here.
    SavedTime(Version),
    /// Versions of a user agent's channels, which are written down.
    Versions {
        uaid: Uaid,
        versions: Vec<(ChannelId, Version)>,
    },
    /// Who sleeps.
    Sleepers,
    /// A session whose user agent will be woken by a datagram.
    Sleep(SessionId, Uaid),
    /// What is kept of the links to the main service.
    Upstream,
    /// A session that registers a subscription that is borrowed.
    Borrow(Box<Borrowing>),
    /// Nobody.
    Nobody,
}

/// What a session asked for when it registered.
#[derive(Debug)]
pub(super) struct Registering {
    pub(super) channel: ChannelId,
    /// As its user agent spells it.
    pub(super) spelling: Box<str>,
    /// The URL that it will get.
    pub(super) endpoint: String,
}

/// The answer that a request gets if all goes well.
#[derive(Debug)]
pub(super) enum Acceptance {
    /// Of a push message: the same, whatever became of it.
    Message(Response),
    /// Of a version update: another one where it is only stored.
    Update { stored_status: u16 },
    /// Of one of the push messages that a request comes to.
    Part(Part),
    /// Of a push message from the main service: it is acked there.
    Upstream(Owner, Received),
}

/// What became of a push message from the main service: the ack that it gets, or why it could not be
/// taken.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) owner: Owner,
    pub(super) received: Received,
    pub(super) verdict: Result<AckCode, Problem>,
}

impl Outbox {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            outputs: VecDeque::new(),
            waiting: VecDeque::new(),
            open_requests: HashMap::new(),
            wholes: Wholes::default(),
            judged: Vec::new(),
            deletions: Vec::new(),
            deletions_due: None,
            held_bytes: 0,
            cost_nothing: Vec::new(),
            quota: Quota {
                subscription_messages_max: limits.messages_per_subscription_max,
                subscription_bytes_max: limits.bytes_per_subscription_max,
                messages_max: limits.messages_per_user_agent_max,
                bytes_max: limits.bytes_per_user_agent_max,
                total_bytes_max: limits.stored_bytes_max,
            },
            delete_delay: limits.delete_delay,
            counters: Counters::default(),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn send(&mut self, session: SessionId, text: String) {
        self.push(Output::Send { session, text });
    }

    pub(super) fn close(&mut self, session: SessionId, reason: CloseReason) {
        match reason {
            CloseReason::GoingAway
            | CloseReason::Superseded
            | CloseReason::WillBeWoken
            | CloseReason::SubscriptionsLost
            | CloseReason::Deregistered => {}
            CloseReason::HelloTimeout | CloseReason::PongTimeout => {
                Counters::add(&mut self.counters.websockets_timed_out);
            }
            CloseReason::BadMessage(_)
            | CloseReason::HelloExpected
            | CloseReason::SecondHello
            | CloseReason::Refused(_)
            | CloseReason::PingTooSoon
            | CloseReason::BinaryMessage
            | CloseReason::MessageTooLong
            | CloseReason::ProtocolViolation
            | CloseReason::StorageFault => Counters::add(&mut self.counters.websockets_faulted),
        }
        self.push(Output::Close { session, reason });
    }

    /// Opens a request that gets `accepted` if nothing goes wrong from here.
    pub(super) fn open_request(&mut self, request: RequestId, acceptance: Acceptance) {
        self.open_requests.insert(request, acceptance);
    }

    /// Answers an open request with its acceptance: the user agent was sent the message, or nobody
    /// waits for it. A request that has its answer gets no second.
    pub(super) fn accept(&mut self, request: RequestId) {
        self.accept_as(request, 200);
    }

    /// The same where the message is stored and nothing more.
    pub(super) fn accept_stored(&mut self, request: RequestId) {
        let status = match self.open_requests.get(&request) {
            Some(Acceptance::Update { stored_status }) => *stored_status,
            Some(Acceptance::Message(_) | Acceptance::Part(_) | Acceptance::Upstream(..))
            | None => 201,
        };
        self.accept_as(request, status);
    }

    /// The same where the user agent has acked the message.
    pub(super) fn accept_acked(&mut self, request: RequestId, code: AckCode) {
        if let Some(Acceptance::Upstream(owner, received)) = self.open_requests.get(&request) {
            let (owner, received) = (*owner, *received);
            self.open_requests.remove(&request);
            return self.judge(owner, received, Ok(code));
        }
        self.accept(request);
    }

    /// The same where nothing is certain yet, which is not enough for the main service: it forgets
    /// what is acked.
    pub(super) fn accept_early(&mut self, request: RequestId) {
        let is_upstream = self.received_of(request).is_some();
        if !is_upstream {
            self.accept(request);
        }
    }

    /// What is remembered of the message that a request is about, if it came from the main service.
    fn received_of(&self, request: RequestId) -> Option<(Owner, Received)> {
        match self.open_requests.get(&request) {
            Some(Acceptance::Upstream(owner, received)) => Some((*owner, *received)),
            Some(Acceptance::Message(_) | Acceptance::Update { .. } | Acceptance::Part(_))
            | None => None,
        }
    }

    fn judge(&mut self, owner: Owner, received: Received, verdict: Result<AckCode, Problem>) {
        self.judged.push(Judged {
            owner,
            received,
            verdict,
        });
    }

    /// What became of push messages from the main service since the last call.
    pub(super) fn take_judged(&mut self) -> Vec<Judged> {
        std::mem::take(&mut self.judged)
    }

    /// Opens a push message from the main service under a name of its own.
    pub(super) fn open_upstream(&mut self, owner: Owner, received: Received) -> RequestId {
        let name = self.wholes.name_part();
        self.open_request(name, Acceptance::Upstream(owner, received));
        name
    }

    fn accept_as(&mut self, request: RequestId, update_status: u16) {
        let Some(acceptance) = self.open_requests.remove(&request) else {
            return;
        };
        let response = match acceptance {
            Acceptance::Message(response) => response,
            Acceptance::Update { .. } => Response::updated(update_status),
            Acceptance::Part(part) => {
                Counters::add(&mut self.counters.messages_accepted);
                return self.end_part(part, None);
            }
            Acceptance::Upstream(owner, received) => {
                return self.judge(owner, received, Ok(AckCode::Delivered));
            }
        };
        Counters::add(&mut self.counters.messages_accepted);
        self.push(Output::Respond { request, response });
    }

    /// Opens a request that comes to `parts` push messages, at least one; see
    /// [`open_part`](Self::open_part).
    pub(super) fn open_whole(&mut self, request: RequestId, parts: usize) {
        self.wholes.open(request, parts);
    }

    /// Opens one of them under a name of its own; it is answered as any other request is, and the
    /// last answer of all makes that of the whole.
    pub(super) fn open_part(&mut self, whole: RequestId, pushkey: Box<str>) -> RequestId {
        let name = self.wholes.name_part();
        let part = Part { whole, pushkey };
        self.open_request(name, Acceptance::Part(part));
        name
    }

    fn end_part(&mut self, part: Part, problem: Option<Problem>) {
        if let Some((request, response)) = self.wholes.end(part, problem) {
            self.push(Output::Respond { request, response });
        }
    }

    /// Answers an open request with a problem. One that has its answer gets no second.
    pub(super) fn refuse(&mut self, request: RequestId, problem: Problem) {
        match self.open_requests.remove(&request) {
            None => {}
            Some(Acceptance::Part(part)) => {
                self.count_problem(problem);
                self.end_part(part, Some(problem));
            }
            Some(Acceptance::Upstream(owner, received)) => {
                self.judge(owner, received, Err(problem));
            }
            Some(Acceptance::Message(_) | Acceptance::Update { .. }) => {
                self.respond_problem(request, problem);
            }
        }
    }

    /// Answers a request that was never opened with a problem.
    pub(super) fn respond_problem(&mut self, request: RequestId, problem: Problem) {
        self.count_problem(problem);
        let response = problem.into();
        self.push(Output::Respond { request, response });
    }

    fn count_problem(&mut self, problem: Problem) {
        match problem.wire().status {
            429 | 503 => Counters::add(&mut self.counters.messages_turned_away),
            _ => Counters::add(&mut self.counters.messages_refused),
        }
    }

    /// Asks the storage thread for `op`. Deletions that have gathered go before it.
    pub(super) fn store(&mut self, op: StoreOp, waiting: Waiting) {
        self.flush_deletions(None);
        self.push_store(op, waiting);
    }

    /// The same where nobody waits for the reply.
    pub(super) fn store_for_nobody(&mut self, op: StoreOp) {
        self.store(op, Waiting::Nobody);
    }

    fn push_store(&mut self, op: StoreOp, waiting: Waiting) {
        self.waiting.push_back(waiting);
        self.push(Output::Store(op));
    }

    /// Sends a push message to flash. Its bytes are held until the reply: see
    /// [`release`](Self::release).
    pub(super) fn keep(&mut self, keeping: Keeping) {
        let Keeping {
            uaid,
            message,
            lost,
            version_clock,
            noted_from,
            fate,
        } = keeping;
        let waiting = Waiting::Message {
            uaid,
            fate,
            cost_bytes: message.cost_bytes(),
        };
        let op = StoreOp::Enqueue {
            uaid,
            message,
            lost,
            version_clock,
            noted_from,
            quota: self.quota,
            received: self.received_of(fate.request),
        };
        self.store(op, waiting);
    }

    /// Who the next reply is for.
    pub(super) fn next_waiting(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }

    /// Operations whose replies are outstanding.
    pub(super) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Lets `deletion` gather with others; nobody waits for it.
    ///
    /// When the storage fails for long they stop gathering: those messages are delivered again.
    pub(super) fn delete(&mut self, now: Instant, deletion: Deletion) {
        if self.deletions.len() >= DELETIONS_WAITING_MAX {
            return;
        }
        self.deletions.push(deletion);
        if self.deletions_due.is_none() {
            self.deletions_due = now.checked_add(self.delete_delay);
        }
    }

    /// Whether so many deletions have gathered that whoever sends more should wait.
    pub(super) fn too_many_deletions(&self) -> bool {
        self.deletions.len() >= DELETIONS_MAX
    }

    /// Sends off what has gathered; `resume` is a session that waits for that.
    pub(super) fn flush_deletions(&mut self, resume: Option<SessionId>) {
        self.deletions_due = None;
        if self.deletions.is_empty() {
            return;
        }
        let deletions = std::mem::take(&mut self.deletions);
        let op = StoreOp::Delete(deletions.clone());
        self.push_store(op, Waiting::Deleted { deletions, resume });
    }

    pub(super) const fn deletions_due(&self) -> Option<Instant> {
        self.deletions_due
    }

    /// A held message needs no writing any more.
    pub(super) fn never_write(&mut self, uaid: Uaid, message: &PushMessage) {
        Counters::add(&mut self.counters.messages_never_written);
        self.release(message.cost_bytes());
        self.cost_nothing(uaid, message.channel);
    }

    /// A message was acked and cost no flash.
    pub(super) fn cost_nothing(&mut self, uaid: Uaid, channel: ChannelId) {
        self.cost_nothing.push((uaid, channel));
    }

    /// Whose messages cost nothing since the last call.
    pub(super) fn take_cost_nothing(&mut self) -> Vec<(Uaid, ChannelId)> {
        std::mem::take(&mut self.cost_nothing)
    }

    /// Counts a push message as held in memory.
    pub(super) fn hold(&mut self, cost_bytes: usize) {
        self.held_bytes = self.held_bytes.saturating_add(cost_bytes);
    }

    /// Counts it as gone from memory: acked, or on flash.
    pub(super) fn release(&mut self, cost_bytes: usize) {
        self.held_bytes = self.held_bytes.saturating_sub(cost_bytes);
    }

    pub(super) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

/// A push message that goes to flash.
#[derive(Debug)]
pub(super) struct Keeping {
    /// For whom.
    pub(super) uaid: Uaid,
    /// What.
    pub(super) message: Arc<PushMessage>,
    /// As in [`StoreOp::Enqueue`].
    pub(super) lost: Option<Dialect>,
    /// As in [`StoreOp::Enqueue`].
    pub(super) version_clock: Version,
    /// As there.
    pub(super) noted_from: Version,
    /// Who hears of it.
    pub(super) fate: Fate,
}

/// Who hears of a push message that goes to flash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    /// The application server's request.
    pub(super) request: RequestId,
    /// The session that will fetch it, if its user agent is here and was not sent it.
    pub(super) fetched_by: Option<SessionId>,
    /// Whether its user agent was sent it and is still here.
    pub(super) handed: bool,
}
