//! What a request to an endpoint comes to: a push message, a version update, a deletion, or a
//! refusal.

use std::sync::Arc;

use super::agent::Post;
use super::outbox::{Acceptance, Fate, Waiting};
use super::{Engine, RequestId};
use crate::model::dialect::Dialect;
use crate::model::ids::MessageId;
use crate::model::message::{Payload, PushMessage, Ttl, Urgency};
use crate::model::store::{Deletion, StoreOp};
use crate::model::time::Now;
use crate::model::version::{NewVersion, VersionUpdate};
use crate::protocol::http::{Request, Response};
use crate::protocol::keyring::Endpoint;
use crate::protocol::problem::Problem;
use crate::protocol::push_request::{self, Draft, Manners};
use crate::protocol::update_request::{self, UpdateDraft};

/// The subscription that a request is about, by its URL alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    /// `Some`: it was minted under a database that is gone, for a user agent of this dialect.
    pub(super) lost: Option<Dialect>,
}

/// What was sent to an endpoint.
pub(super) enum Posted {
    Message(Draft),
    Update(UpdateDraft),
}

impl Engine {
    /// The subscription behind a token, if it belongs on this kind of path.
    pub(super) fn target(
        &self,
        token: &str,
        belongs: impl FnOnce(&Endpoint) -> bool,
    ) -> Option<Target> {
        let endpoint = self.desk.keyring.open_endpoint(token).filter(belongs)?;
        let is_lost = endpoint.database != self.desk.database;
        Some(Target {
            endpoint,
            lost: is_lost.then_some(endpoint.dialect),
        })
    }

    /// The order of the checks is the main service's: token, authorization, subscription, then the
    /// message itself. Whether an absent user agent has the subscription only the storage knows,
    /// so there a fault of the message waits for that answer.
    pub(super) fn post(&mut self, now: Now, request: RequestId, target: &Target, head: Request) {
        if let Err(problem) = self.admit_sender(now, self.access.source(head.peer)) {
            return self.refuse(request, problem);
        }
        let endpoint = &target.endpoint;
        if let Err(problem) = self.authorize(now, endpoint, &head) {
            return self.refuse(request, problem);
        }
        let base_url = head.base_url.clone();
        let posted = read(head, self.manners(endpoint));
        let subscribed = self.is_subscribed(target);
        let posted = match (posted, subscribed) {
            (_, Some(false)) if target.lost.is_none() => {
                return self.refuse(request, Problem::NoSubscription);
            }
            (Err(problem), Some(true)) => return self.refuse(request, problem),
            (Err(problem), _) => return self.find(request, target, problem),
            (Ok(posted), _) => posted,
        };

        let is_update = matches!(posted, Posted::Update(_));
        let message = match self.accept_posted(now, endpoint, posted) {
            Ok(message) => message,
            Err(problem) => return self.refuse(request, problem),
        };
        let acceptance = if is_update {
            let stored_status = self.desk.simplepush.offline_status;
            Acceptance::Update { stored_status }
        } else {
            let token = self
                .desk
                .keyring
                .seal_message(self.desk.database, message.id);
            let base_url = self.desk.public_url.as_ref().or(base_url.as_ref());
            let location =
                base_url.map_or_else(|| format!("/m/{token}"), |base| base.message(&token));
            Acceptance::Message(Response::accepted(location, message.ttl.as_secs()))
        };
        self.desk.out.open_request(request, acceptance);
        let post = Post { request, message };
        self.route_message(now, target, post, subscribed == Some(true));
    }

    /// What a message to this endpoint must say of itself. Whoever restricts a subscription to a key
    /// wants to know who posts, and what is not encrypted can have been read on the way.
    fn manners(&self, endpoint: &Endpoint) -> Manners {
        if self.desk.unifiedpush.lenient && endpoint.restricted_to.is_none() {
            Manners::Lenient
        } else {
            Manners::Strict
        }
    }

    /// Whether a user agent that is here has the subscription; `None` if it is away.
    pub(super) fn is_subscribed(&self, target: &Target) -> Option<bool> {
        let endpoint = &target.endpoint;
        let agent = self.agent_of(endpoint.uaid)?;
        Some(agent.channels.contains(endpoint.channel))
    }

    /// Whether memory has room for one more message.
    fn has_room_for(&self, message: &PushMessage) -> bool {
        let held = self.desk.out.held_bytes();
        held.saturating_add(message.cost_bytes()) <= self.desk.limits.held_bytes_max
    }

    /// Hands an accepted message to its user agent, to the storage, or to nobody.
    pub(super) fn route_message(
        &mut self,
        now: Now,
        target: &Target,
        post: Post,
        subscribed: bool,
    ) {
        let Target { endpoint, lost } = target;
        if post.message.ttl.is_zero() {
            // Now or never: nothing is kept, so nothing is held either.
            match self.agent_of_mut(endpoint.uaid) {
                Some((agent, desk)) if subscribed => agent.deliver_now_or_never(now, &post, desk),
                Some(_) | None => self.find_opened(post.request, target, None),
            }
            return;
        }
        self.desk.out.hold(post.message.cost_bytes());
        let ends = now.monotonic.checked_add(self.desk.limits.ack_window);
        let id = post.message.id;
        let session = self.newest.get(&endpoint.uaid).copied();
        match (self.agent_of_mut(endpoint.uaid), session, ends) {
            (Some((agent, desk)), Some(session), Some(ends)) if subscribed => {
                if agent.deliver(now, post, desk) {
                    self.windows.push_back((ends, session, id));
                }
            }
            (Some((agent, desk)), _, _) => {
                agent.keep_and_fetch(post.message, *lost, post.request, desk);
            }
            (None, _, _) => {
                let fate = Fate {
                    request: post.request,
                    fetched_by: None,
                    handed: false,
                };
                self.desk.keep(endpoint.uaid, post.message, *lost, fate);
            }
        }
    }

    /// The push message that something posted comes to, if the limits and the memory allow it.
    pub(super) fn accept_posted(
        &mut self,
        now: Now,
        endpoint: &Endpoint,
        posted: Posted,
    ) -> Result<Arc<PushMessage>, Problem> {
        self.admit_message(now, endpoint)?;
        self.take_posted(now, endpoint, posted)
    }

    /// The same of what has been admitted.
    pub(super) fn take_posted(
        &mut self,
        now: Now,
        endpoint: &Endpoint,
        posted: Posted,
    ) -> Result<Arc<PushMessage>, Problem> {
        let message = self.message_of(now, endpoint, posted);
        if !self.has_room_for(&message) {
            return Err(Problem::Overloaded);
        }
        if let Some(upstream) = &mut self.upstream {
            upstream.telling().owes(endpoint.uaid);
        }
        if let Some(update) = message.payload.update()
            && let Some((agent, _)) = self.agent_of_mut(endpoint.uaid)
        {
            let version = update.version.version();
            agent.channels.note_version(endpoint.channel, version);
        }
        Ok(Arc::new(message))
    }

    fn message_of(&mut self, now: Now, endpoint: &Endpoint, posted: Posted) -> PushMessage {
        let (ttl, topic, urgency, payload) = match posted {
            Posted::Message(draft) => (draft.ttl, draft.topic, draft.urgency, draft.payload),
            Posted::Update(UpdateDraft { version, data }) => {
                let version = match version {
                    Some(version) => NewVersion::Exact(version),
                    None => self.next_version(endpoint),
                };
                let update = VersionUpdate { version, data };
                (
                    Ttl::UNBOUNDED,
                    None,
                    Urgency::default(),
                    Payload::Update(update),
                )
            }
        };
        // What a SimplePush user agent cannot read becomes "there is something new".
        let agent = self.agent_of(endpoint.uaid);
        let speaks_simplepush = agent.is_some_and(|agent| agent.dialect() == Dialect::SimplePush);
        let (topic, urgency, payload) = match payload {
            Payload::Empty | Payload::Encrypted(_) | Payload::Raw(_) if speaks_simplepush => {
                let update = VersionUpdate::bare(self.next_version(endpoint));
                (None, Urgency::default(), Payload::Update(update))
            }
            payload @ (Payload::Empty
            | Payload::Encrypted(_)
            | Payload::Raw(_)
            | Payload::Update(_)) => (topic, urgency, payload),
        };
        if payload.update().is_some() {
            // What it has passed by now is not written down for the channel.
            self.desk.version_clock.version();
        }
        PushMessage {
            id: self.desk.next_message_id(),
            channel: endpoint.channel,
            received_at: self.desk.service_time(now),
            ttl,
            topic,
            urgency,
            payload,
        }
    }

    /// The version of an update that names none (R26). Of a user agent that is here and has read
    /// all that waited for it, all versions are known; of others only the storage knows them: of one
    /// that wants no updates for now it has numbered some that were not read. And of a subscription
    /// that is yet to be taken back in: nothing can be written down for it.
    fn next_version(&mut self, endpoint: &Endpoint) -> NewVersion {
        let clock = self.desk.version_clock.version();
        let Endpoint { uaid, channel, .. } = *endpoint;
        match self.agent_of_mut(uaid) {
            None => NewVersion::AtLeast(self.desk.least_version(uaid, channel)),
            Some((agent, desk)) if agent.has_read_updates() && agent.channels.contains(channel) => {
                NewVersion::Exact(agent.next_version(channel, desk))
            }
            Some((agent, _)) => NewVersion::AtLeast(agent.channels.next_version(channel, clock)),
        }
    }

    /// An application server takes back a message of its own. One that is already gone is no error.
    pub(super) fn delete_message(&mut self, now: Now, request: RequestId, token: &str) {
        let id = self.desk.keyring.open_message(self.desk.database, token);
        let Some(id) = id else {
            return self.refuse(request, Problem::InvalidMessageId);
        };
        self.drop_held(id);
        self.desk
            .out
            .delete(now.monotonic, Deletion::Message { id, owner: None });
        if self.desk.out.too_many_deletions() {
            self.desk.out.flush_deletions(None);
        }
        self.respond(request, Response::empty(204));
    }

    /// With relaxed durability an application server can name a message whose window has not ended: it
    /// must not go to flash behind its deletion.
    fn drop_held(&mut self, id: MessageId) {
        // Messages enter in the order of their ids.
        let Ok(place) = self.windows.binary_search_by_key(&id, |(.., id)| *id) else {
            return;
        };
        let session = self.windows.get(place).map(|(_, session, _)| *session);
        if let Some((agent, desk)) = session.and_then(|session| self.agent_at(session)) {
            agent.drop_held(id, &mut desk.out);
        }
    }

    /// Refuses with `problem` if the subscription exists, and with 410 otherwise.
    fn find(&mut self, request: RequestId, target: &Target, problem: Problem) {
        // Never used as it is: the problem takes its place.
        let never = Acceptance::Message(Response::empty(201));
        self.desk.out.open_request(request, never);
        self.find_opened(request, target, Some(problem));
    }

    fn find_opened(&mut self, request: RequestId, target: &Target, problem: Option<Problem>) {
        let op = StoreOp::Find {
            uaid: target.endpoint.uaid,
            channel: target.endpoint.channel,
            lost: target.lost.is_some(),
        };
        self.desk.out.store(op, Waiting::Find { request, problem });
    }
}

/// What a POST or a PUT to an endpoint says.
fn read(head: Request, manners: Manners) -> Result<Posted, Problem> {
    if head.method == "PUT" {
        let update = update_request::read(&head.headers, head.query.as_deref(), head.body)?;
        return Ok(Posted::Update(update));
    }
    push_request::read(&head.headers, head.body, manners).map(Posted::Message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{DATABASE, Out, Table, channel_id, keyring};
    use super::super::{Input, SessionId};
    use super::*;
    use crate::model::durability::Durability;
    use crate::model::ids::DatabaseId;
    use crate::model::limits::Limits;
    use crate::protocol::keyring::parse_uaid;
    use crate::protocol::push_request::PushHeaders;

    #[test]
    fn subscription_that_an_online_user_agent_has_ended_is_410_without_asking_the_storage() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let (held, _) = table.post(&endpoint, 60, None);
        let outs = table.unregister(id, 1);
        assert_eq!(outs, [Out::Answered(held, 410), Out::Paused(id)]);
        let (request, outs) = table.post(&endpoint, 60, None);
        assert_eq!(outs, [Out::Answered(request, 410)]);
        assert_eq!(table.asked.len(), 1);
    }

    #[test]
    fn message_past_the_held_bytes_is_503_and_the_one_before_it_is_not() {
        let limits = Limits {
            held_bytes_max: 2 * 256,
            ..Limits::default()
        };
        let mut table = Table::with(limits, Durability::Strict);
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        for _ in 0..2 {
            let (_, outs) = table.post(&endpoint, 60, None);
            assert!(matches!(outs.as_slice(), [Out::Sent(..)]));
        }
        let (request, outs) = table.post(&endpoint, 60, None);
        assert_eq!(outs, [Out::Answered(request, 503)]);
    }

    #[test]
    fn request_behind_a_full_queue_of_the_storage_is_503() {
        let limits = Limits {
            store_queue_max: 1,
            ..Limits::default()
        };
        let mut table = Table::with(limits, Durability::Strict);
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        table.unregister(id, 2);
        let (request, outs) = table.post(&endpoint, 60, None);
        assert_eq!(outs, [Out::Answered(request, 503)]);
    }

    #[test]
    fn message_deleted_while_it_is_held_never_goes_to_flash() {
        let mut table = Table::with(Limits::default(), Durability::Relaxed);
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let (request, outs) = table.post(&endpoint, 60, None);
        assert_eq!(outs[1..], [Out::Answered(request, 201)]);
        let first = MessageId::before_run(1, [0; 8]).unwrap().next();
        let path = format!("/m/{}", keyring().seal_message(DATABASE, first));
        let (request, outs) = table.request("DELETE", &path, PushHeaders::default());
        assert_eq!(outs, [Out::Answered(request, 204)]);
        table.pass(Duration::from_secs(1));
        assert!(matches!(table.asked.as_slice(), [StoreOp::Delete(_)]));
    }

    #[test]
    fn endpoint_of_a_lost_database_is_taken_back_in_as_what_it_was_on_any_path() {
        let mut table = Table::new();
        let (id, uaid) = table.newcomer();
        let session = SessionId(id);
        table.input(Input::Gone { session });
        for dialect in [Dialect::WebPush, Dialect::SimplePush] {
            let token = keyring().seal_endpoint(&Endpoint {
                database: DatabaseId([9; 8]),
                uaid: parse_uaid(&uaid).unwrap(),
                channel: channel_id(1),
                restricted_to: None,
                dialect,
            });
            for path in ["update", "wpush/v1"] {
                table.asked.clear();
                table.put(&format!("/{path}/{token}"), Some(1));
                let Some(StoreOp::Enqueue { lost, .. }) = table.asked.first() else {
                    panic!("{:?}", table.asked);
                };
                assert_eq!(*lost, Some(dialect), "{path}");
            }
        }
    }
}
