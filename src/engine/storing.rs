//! What a reply of the storage thread comes to, for whoever waited for it.

use super::counters::Counters;
use super::outbox::{Fate, Waiting};
use super::{
    CloseReason, Engine, Output, RequestId, SWEEP_INTERVAL, SWEEP_MESSAGES_MAX, SessionId,
};
use crate::model::ids::Uaid;
use crate::model::store::{EnqueueOutcome, StoreReply};
use crate::model::time::Now;
use crate::protocol::problem::Problem;

impl Engine {
    pub(super) fn stored(&mut self, now: Now, replies: Vec<StoreReply>) {
        for reply in replies {
            let waiting = self.desk.out.next_waiting();
            let waiting = waiting.expect("the storage thread answers each operation once");
            self.watch_storage(&reply);
            self.reply(now, waiting, reply);
        }
    }

    fn reply(&mut self, now: Now, waiting: Waiting, reply: StoreReply) {
        match waiting {
            Waiting::Hello(session) => {
                if let StoreReply::Loaded(subscriptions) = reply {
                    self.hello_loaded(now, session, subscriptions);
                } else {
                    self.end_session(now, session, CloseReason::StorageFault);
                }
            }
            Waiting::Register(session, registering) => {
                self.registered(session, &registering, made(&reply));
            }
            Waiting::Unregister {
                session,
                uaid,
                channel,
                spelling,
            } => {
                let ended = reply == StoreReply::Done;
                if ended {
                    self.end_borrowed(now, uaid, channel);
                }
                self.unregistered(session, &spelling, ended);
            }
            Waiting::Message {
                uaid,
                fate,
                cost_bytes,
            } => {
                self.desk.out.release(cost_bytes);
                self.message_stored(now, uaid, fate, &reply);
            }
            Waiting::Find { request, problem } => self.found(request, problem, &reply),
            Waiting::Registration(request, step) => {
                self.registration_stored(now, request, step, &reply);
            }
            Waiting::Page(session) => self.page(now, session, reply),
            Waiting::Deleted { deletions, resume } => {
                if reply != StoreReply::Done {
                    // An ack must not be forgotten because the disk is full: it gathers again.
                    for deletion in deletions {
                        self.desk.out.delete(now.monotonic, deletion);
                    }
                }
                if let Some(session) = resume
                    && self.sessions.contains_key(&session)
                {
                    self.desk.out.push(Output::Resume { session });
                }
            }
            Waiting::Expired => self.swept(now, &reply),
            Waiting::SavedTime(version_clock) => {
                if reply == StoreReply::Done {
                    self.desk.version_clock.written(version_clock);
                } else {
                    self.save_time_at = now.monotonic.checked_add(SWEEP_INTERVAL);
                }
            }
            Waiting::Versions { uaid, versions } => {
                self.versions_saved(now, uaid, &versions, reply == StoreReply::Done);
            }
            Waiting::Sleepers => self.sleepers_read(now, reply),
            Waiting::Upstream => self.upstream_loaded(now, reply),
            Waiting::Borrow(borrowing) => self.borrowed(now, *borrowing, made(&reply)),
            Waiting::Sleep(session, uaid) => {
                self.may_sleep(now, session, uaid, reply == StoreReply::Done);
            }
            Waiting::Nobody => {}
        }
    }

    fn message_stored(&mut self, now: Now, uaid: Uaid, fate: Fate, reply: &StoreReply) {
        let outcome = if let StoreReply::Enqueued(outcome) = reply {
            Some(*outcome)
        } else {
            None
        };
        self.message_kept(fate, outcome);
        // What was refused is nothing to wake anybody for.
        if outcome.is_some_and(EnqueueOutcome::is_kept) {
            self.wake(now, uaid);
        }
        let fetcher = fate.fetched_by.and_then(|session| self.agent_at(session));
        if let Some((agent, desk)) = fetcher {
            agent.kept(now, desk);
        }
    }

    fn sleepers_read(&mut self, now: Now, reply: StoreReply) {
        if let StoreReply::Sleepers(sleepers) = reply {
            self.sleepers_loaded(now, sleepers);
        } else {
            // They would sleep on, whatever comes for them.
            self.sleepers_at = now.monotonic.checked_add(SWEEP_INTERVAL);
        }
    }

    fn found(&mut self, request: RequestId, problem: Option<Problem>, reply: &StoreReply) {
        let problem = match (reply, problem) {
            (StoreReply::Subscription(true), problem) => problem,
            (StoreReply::Subscription(false), _) => Some(Problem::NoSubscription),
            _ => Some(Problem::StorageFault),
        };
        match problem {
            None => self.desk.out.accept(request),
            Some(problem) => self.desk.out.refuse(request, problem),
        }
    }

    fn message_kept(&mut self, fate: Fate, outcome: Option<EnqueueOutcome>) {
        let request = fate.request;
        let out = &mut self.desk.out;
        match outcome {
            Some(EnqueueOutcome::Kept | EnqueueOutcome::KeptAndRestored) => {
                Counters::add(&mut out.counters.messages_stored);
                if fate.handed {
                    out.accept(request);
                } else {
                    out.accept_stored(request);
                }
            }
            Some(EnqueueOutcome::NoSubscription) => out.refuse(request, Problem::NoSubscription),
            Some(EnqueueOutcome::SubscriptionFull) => {
                Counters::add(&mut out.counters.messages_over_subscription_quota);
                out.refuse(request, Problem::SubscriptionFull);
            }
            Some(EnqueueOutcome::QueueFull) => {
                Counters::add(&mut out.counters.messages_over_user_agent_quota);
                out.refuse(request, Problem::QueueFull);
            }
            Some(EnqueueOutcome::StoreFull) => out.refuse(request, Problem::StoreFull),
            None => out.refuse(request, Problem::StorageFault),
        }
    }

    fn page(&mut self, now: Now, session: SessionId, reply: StoreReply) {
        let Some((agent, desk)) = self.agent_at(session) else {
            return;
        };
        if let StoreReply::Page { messages, more } = reply {
            agent.page(messages, more, now, desk);
        } else {
            // As at hello: coming back is its next try, and without one what waits would stay.
            self.end_session(now, session, CloseReason::StorageFault);
        }
    }

    /// A full step means that more is expired; anything else waits for the next interval.
    fn swept(&mut self, now: Now, reply: &StoreReply) {
        let StoreReply::Expired(count) = *reply else {
            self.sweep_at = now.monotonic.checked_add(SWEEP_INTERVAL);
            return;
        };
        let expired = &mut self.desk.out.counters.messages_expired;
        *expired = expired.saturating_add(u64::from(count));
        if count >= SWEEP_MESSAGES_MAX {
            self.sweep(now);
        } else {
            self.sweep_at = now.monotonic.checked_add(SWEEP_INTERVAL);
        }
    }

    /// Remembers for the operator whether the storage works; the log is the storage's own. Only
    /// writes tell: a full disk can still be read.
    fn watch_storage(&mut self, reply: &StoreReply) {
        let fault = match reply {
            StoreReply::Failed(fault) => Some(*fault),
            StoreReply::Enqueued(_) | StoreReply::Subscribed(_) | StoreReply::Done => None,
            StoreReply::Loaded(_)
            | StoreReply::Subscription(_)
            | StoreReply::Page { .. }
            | StoreReply::Sleepers(_)
            | StoreReply::Upstream(_)
            | StoreReply::Expired(_) => return,
        };
        if fault.is_some() {
            Counters::add(&mut self.desk.out.counters.storage_faults);
        }
        self.storage_fault = fault;
    }
}

/// Whether a subscription was made; `None` if the storage failed.
fn made(reply: &StoreReply) -> Option<bool> {
    if let StoreReply::Subscribed(made) = reply {
        Some(*made)
    } else {
        None
    }
}
