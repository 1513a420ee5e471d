//! Subscriptions that are borrowed from the main service: who gets one, what comes down for it, and
//! who must be told that it is lost.

use log::warn;

use super::agent::Post;
use super::counters::Counters;
use super::endpoint::{Posted, Target};
use super::outbox::{Registering, Waiting};
use super::upstream::{Borrowing, NotMade, Outcome, Place, Wanted};
use super::{CloseReason, Engine, LinkId, RequestId, SessionId, UpEvent};
use crate::model::dialect::Dialect;
use crate::model::ids::{ChannelId, MessageId, Uaid};
use crate::model::limits::{BODY_BYTES_MAX, TTL_SECS_MAX};
use crate::model::message::{Payload, Ttl, Urgency};
use crate::model::store::{StoreOp, StoreReply, Subscription, UpstreamOp};
use crate::model::time::Now;
use crate::model::upstream::{self as model, Borrowed, Identity, Unreachable};
use crate::protocol::client_message::{AckCode, NackCode};
use crate::protocol::keyring::Endpoint;
use crate::protocol::problem::Problem;
use crate::protocol::push_request::Draft;
use crate::protocol::server_message::{self, Registered};
use crate::protocol::user_agent::{Body, Notification};

impl Engine {
    /// Something happened on a connection to the main service.
    pub(super) fn up(&mut self, now: Now, link: LinkId, event: UpEvent<'_>) {
        if let Some(upstream) = &mut self.upstream {
            upstream.event(now.monotonic, link, event, &mut self.desk.out);
        }
    }

    pub(super) fn upstream_timeout(&mut self, now: Now) {
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        upstream.timeout(now.monotonic, &mut self.desk.out);
        if upstream.telling().is_time_to_look(now.monotonic) {
            self.let_go_of_those_to_tell(now);
        }
    }

    /// What is kept of the links has been read, or could not be.
    pub(super) fn upstream_loaded(&mut self, now: Now, reply: StoreReply) {
        let kept = if let StoreReply::Upstream(kept) = reply {
            Some(*kept)
        } else {
            None
        };
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        for wanted in upstream.loaded(now.monotonic, kept, &mut self.desk.out) {
            if let Some((wanted, borrowed)) = self.borrow(now, wanted) {
                self.register_here(wanted, borrowed);
            }
        }
    }

    /// Does what has come of the links in this turn, and tells them what became of their messages.
    pub(super) fn serve_upstream(&mut self, now: Now) {
        while let Some(upstream) = &mut self.upstream {
            for judged in self.desk.out.take_judged() {
                upstream.judged(now.monotonic, judged, &mut self.desk.out);
            }
            let Some(outcome) = upstream.poll_outcome() else {
                return upstream.send_acks(now.monotonic, &mut self.desk.out);
            };
            match outcome {
                Outcome::Made {
                    wanted,
                    name,
                    endpoint,
                } => self.borrow_made(now, wanted, name, endpoint),
                Outcome::NotMade(wanted, why) => self.not_borrowed(wanted, why),
                Outcome::Message {
                    owner,
                    received,
                    subscription,
                    notification,
                } => {
                    let request = self.desk.out.open_upstream(owner, received);
                    let target = self.upstream_target(owner, subscription, &notification);
                    let taken = self.upstream_message(now, request, target, notification);
                    if let (Some(id), Some(upstream)) = (taken, &mut self.upstream) {
                        upstream.taken(owner, received, id);
                    }
                }
                Outcome::Broadcasts(versions) => self.broadcasts_read(versions),
                Outcome::Lost(_) => self.let_go_of_those_to_tell(now),
            }
        }
    }

    /// The process is about to end, and no user agent acks anything any more.
    pub(super) fn keep_acked_upstream(&mut self) {
        if let Some(upstream) = &self.upstream {
            upstream.keep_acked(&mut self.desk.out);
        }
    }

    /// The process ends.
    pub(super) fn close_upstream(&mut self, now: Now) {
        if let Some(upstream) = &mut self.upstream {
            upstream.close_all(now.monotonic, &mut self.desk.out);
        }
        self.upstream = None;
    }

    /// Whether a subscription is to be borrowed; what comes of that is answered later. Otherwise it is
    /// to be registered here, with the endpoint of one that is borrowed already if there is one.
    pub(super) fn borrow(
        &mut self,
        now: Now,
        wanted: Wanted,
    ) -> Option<(Wanted, Option<Box<str>>)> {
        let by_path = self.sessions.get(&wanted.session)?.borrows;
        let Some(upstream) = &mut self.upstream else {
            return Some((wanted, None));
        };
        let registering = model::Registering {
            uaid: wanted.uaid,
            key: wanted.key.as_deref(),
            by_path,
        };
        if !upstream.settings.endpoints.fit(&registering) {
            return Some((wanted, None));
        }
        let key = wanted.key.as_deref();
        let place = upstream.place(wanted.uaid, wanted.channel, &self.desk.keyring);
        if let Some(known) = upstream.endpoint(place, key) {
            return Some((wanted, Some(known)));
        }
        if upstream.has_come_round(place, wanted.channel) {
            warn!(
                "upstream_loop reason=\"this gateway is, by way of others or not, above itself\""
            );
            self.not_borrowed(wanted, NotMade::Cancelled);
            return None;
        }
        upstream.want(now.monotonic, place, wanted, &mut self.desk.out);
        None
    }

    /// The main service has made a subscription: to flash with it, if its user agent still waits.
    fn borrow_made(&mut self, now: Now, wanted: Wanted, name: model::Name, endpoint: Box<str>) {
        let is_here = self
            .named(wanted.session)
            .is_some_and(|(session, uaid)| session.agent().is_some() && uaid == wanted.uaid);
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        let place = upstream.place(wanted.uaid, wanted.channel, &self.desk.keyring);
        if !is_here {
            return upstream.give_back(now.monotonic, place, &mut self.desk.out);
        }
        let borrowed = Borrowed {
            owner: place.owner,
            alias: place.alias,
            uaid: wanted.uaid,
            channel: wanted.channel,
            endpoint,
            key: wanted.key,
            ended: false,
        };
        let op = UpstreamOp::Borrow {
            name,
            borrowed: borrowed.clone(),
            spelling: server_message::own_spelling(wanted.channel, &wanted.spelling),
            dialect: wanted.dialect,
            subscriptions_max: self.desk.limits.subscriptions_per_user_agent_max,
        };
        let borrowing = Borrowing {
            session: wanted.session,
            spelling: wanted.spelling,
            borrowed,
        };
        let waiting = Waiting::Borrow(Box::new(borrowing));
        self.desk.out.store(StoreOp::Upstream(op), waiting);
    }

    /// The storage has answered that: `None` if it failed.
    pub(super) fn borrowed(&mut self, now: Now, borrowing: Borrowing, made: Option<bool>) {
        let Borrowing {
            session,
            spelling,
            borrowed,
        } = borrowing;
        let registering = Registering {
            channel: borrowed.channel,
            spelling,
            endpoint: borrowed.endpoint.clone().into(),
        };
        let answer = self.registration_answer(session, &registering, made);
        if let Some(upstream) = &mut self.upstream {
            let out = &mut self.desk.out;
            if made == Some(true) {
                Counters::add(&mut out.counters.upstream_registrations);
                upstream.borrowed(now.monotonic, borrowed, out);
            } else {
                upstream.give_back(now.monotonic, Place::of(&borrowed), out);
            }
        }
        if let Some(answer) = answer {
            self.desk.out.send(session, answer);
        }
    }

    /// There is no subscription at the main service.
    fn not_borrowed(&mut self, wanted: Wanted, why: NotMade) {
        let Some(upstream) = &self.upstream else {
            return;
        };
        let session = wanted.session;
        let is_here = self
            .named(session)
            .is_some_and(|(_, uaid)| uaid == wanted.uaid);
        let outcome = match (why, upstream.settings.unreachable) {
            _ if !is_here => return,
            (NotMade::Unreachable, Unreachable::Local) => return self.register_here(wanted, None),
            (NotMade::InvalidKey, _) => Registered::InvalidKey,
            (NotMade::Unreachable, Unreachable::Refuse) | (NotMade::Cancelled, _) => {
                Registered::StorageFault
            }
        };
        let answer = server_message::registered(&wanted.spelling, outcome);
        self.desk.out.send(session, answer);
    }

    /// Whose a message is, by what it is called there.
    ///
    /// A database that was put back does not know what was borrowed after it was copied, and its user
    /// agent does: it is asked, as for an endpoint of a lost database.
    fn upstream_target(
        &self,
        owner: model::Owner,
        subscription: Option<(Uaid, ChannelId)>,
        notification: &Notification,
    ) -> Option<Target> {
        let upstream = self.upstream.as_ref()?;
        let may_be_lost =
            self.desk.lost_before && upstream.settings.identity == Identity::PerUserAgent;
        let lost = (subscription.is_none() && may_be_lost).then_some(Dialect::WebPush);
        let (uaid, channel) = match (subscription, lost) {
            (Some(known), _) => known,
            (None, Some(_)) => (owner.0, notification.channel),
            (None, None) => return None,
        };
        let endpoint = Endpoint {
            database: self.desk.database,
            uaid,
            channel,
            restricted_to: None,
            dialect: Dialect::WebPush,
        };
        Some(Target { endpoint, lost })
    }

    /// A push message from the main service; its id here, if it is taken. How it is to be kept it does
    /// not say: as long as any, and no older one is replaced.
    fn upstream_message(
        &mut self,
        now: Now,
        request: RequestId,
        target: Option<Target>,
        notification: Notification,
    ) -> Option<MessageId> {
        let payload = match notification.body {
            Body::Empty => Some(Payload::Empty),
            Body::Encrypted(body) if body.data.len() > BODY_BYTES_MAX => None,
            Body::Encrypted(body) => body.into_payload(),
            Body::Malformed => None,
        };
        let Some(payload) = payload else {
            // No user agent could read it either.
            let undecryptable = AckCode::DecryptionError;
            self.desk.out.accept_acked(request, undecryptable);
            return None;
        };
        let subscribed = target.as_ref().map(|target| self.is_subscribed(target));
        let target = match (target, subscribed) {
            (Some(target), Some(known)) if known != Some(false) || target.lost.is_some() => target,
            _ => {
                self.desk.out.refuse(request, Problem::NoSubscription);
                return None;
            }
        };
        let draft = Draft {
            ttl: Ttl::from_secs_lowered(TTL_SECS_MAX.into()),
            topic: None,
            urgency: Urgency::default(),
            payload,
        };
        match self.take_posted(now, &target.endpoint, Posted::Message(draft)) {
            Ok(message) => {
                let id = message.id;
                let post = Post { request, message };
                self.route_message(now, &target, post, subscribed == Some(Some(true)));
                Some(id)
            }
            Err(problem) => {
                self.desk.out.refuse(request, problem);
                None
            }
        }
    }

    /// A user agent has said that a message was of no use to it: the main service is told, if the
    /// message came from there.
    pub(super) fn nack_borrowed(&mut self, now: Now, id: SessionId, version: &str, code: NackCode) {
        let message = self.desk.keyring.open_message(self.desk.database, version);
        let uaid = self.named(id).map(|(_, uaid)| uaid);
        if let (Some(message), Some(uaid), Some(upstream)) = (message, uaid, &mut self.upstream) {
            upstream.nack(now.monotonic, uaid, message, code, &mut self.desk.out);
        }
    }

    /// A user agent ends a subscription, or does not wait for it any more.
    pub(super) fn cancel_borrowing(&mut self, now: Now, uaid: Uaid, channel: ChannelId) {
        if let Some(upstream) = &mut self.upstream {
            let place = upstream.place(uaid, channel, &self.desk.keyring);
            upstream.cancel(now.monotonic, place, &mut self.desk.out);
        }
    }

    /// A subscription has ended.
    pub(super) fn end_borrowed(&mut self, now: Now, uaid: Uaid, channel: ChannelId) {
        if let Some(upstream) = &mut self.upstream {
            let place = upstream.place(uaid, channel, &self.desk.keyring);
            upstream.end(now.monotonic, place, &mut self.desk.out);
        }
    }

    /// All subscriptions of a user agent have ended, or are about to.
    pub(super) fn end_all_borrowed(&mut self, now: Now, uaid: Uaid) {
        if let Some(upstream) = &mut self.upstream {
            upstream.end_all(now.monotonic, uaid, &mut self.desk.out);
        }
    }

    /// Ends the sessions of those whose subscriptions at the main service are lost, each once it has
    /// got what waits for it here: it comes back and is told.
    fn let_go_of_those_to_tell(&mut self, now: Now) {
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        for uaid in upstream.telling().uaids() {
            let Some(session) = self.newest.get(&uaid).copied() else {
                continue;
            };
            let Some(has_everything) = self
                .sessions
                .get(&session)
                .and_then(|session| session.has_everything())
            else {
                continue;
            };
            let Some(upstream) = &mut self.upstream else {
                return;
            };
            let telling = upstream.telling();
            if telling.lets_go(now.monotonic, uaid, has_everything) {
                self.end_session(now, session, CloseReason::SubscriptionsLost);
            }
        }
    }

    /// Whether a user agent that returns must get a new name, because its subscriptions at the main
    /// service are lost and nothing else makes it subscribe again.
    ///
    /// Where a database was lost and it has registered nothing since, only the configuration tells
    /// whether it may have had some. What was posted to it since arrives first.
    pub(super) fn must_subscribe_again(
        &mut self,
        now: Now,
        uaid: Uaid,
        by_path: bool,
        subscriptions: &[Subscription],
    ) -> bool {
        let Some(upstream) = &mut self.upstream else {
            return false;
        };
        let registering = model::Registering {
            uaid,
            key: None,
            by_path,
        };
        let has_registered = subscriptions.iter().any(|own| !own.is_restored);
        let may_have_borrowed = upstream.settings.endpoints.fit(&registering);
        if self.desk.lost_before && !has_registered && may_have_borrowed {
            if subscriptions.is_empty() {
                return true;
            }
            upstream.lost_with_a_database(uaid, &mut self.desk.out);
        }
        upstream.telling().tells_at_hello(now.monotonic, uaid)
    }
}
