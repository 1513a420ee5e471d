//! What an HTTP request comes to: a push message, a deletion, a websocket, or a refusal.

use std::sync::Arc;

use super::agent::Post;
use super::outbox::{Fate, Waiting};
use super::session::Session;
use super::{Engine, Output, RequestId, Stop};
use crate::model::ids::MessageId;
use crate::model::message::PushMessage;
use crate::model::store::{Deletion, StoreOp};
use crate::model::time::Now;
use crate::protocol::http::{Request, Response, Route, Upgrade};
use crate::protocol::keyring::Endpoint;
use crate::protocol::problem::Problem;
use crate::protocol::push_request::{self, Draft};

impl Engine {
    /// Decides on a request. The answer may come later, from the user agent or the storage.
    pub(super) fn request(&mut self, now: Now, request: RequestId, head: Request) {
        if self.stop != Stop::No {
            return self.refuse(request, Problem::ShuttingDown);
        }
        if self.desk.out.waiting_len() >= self.desk.limits.store_queue_max {
            return self.refuse(request, Problem::Overloaded);
        }
        // The path borrows from the request, whose other parts are taken apart below.
        let path = head.path.clone();
        let route = Route::of(&path);
        match (route, head.method.as_str()) {
            (Route::OpenEndpoint(token), "POST") => {
                self.post(now, request, self.endpoint(token, false), head);
            }
            (Route::RestrictedEndpoint(token), "POST") => {
                self.post(now, request, self.endpoint(token, true), head);
            }
            (Route::OpenEndpoint(_) | Route::RestrictedEndpoint(_), _) => {
                self.respond(request, Response::method_not_allowed("POST"));
            }
            (Route::Message(token), "DELETE") => self.delete_message(now, request, token),
            (Route::Message(_), _) => {
                self.respond(request, Response::method_not_allowed("DELETE"));
            }
            (Route::Other, _) => self.other(request, &head),
        }
    }

    /// A websocket may be opened on any path that is not used otherwise.
    fn other(&mut self, request: RequestId, head: &Request) {
        let known_url = self.desk.public_url.is_some() || head.base_url.is_some();
        match (head.upgrade, head.path.as_str()) {
            (Upgrade::BadWebsocket, _) => self.refuse(request, Problem::BadHandshake),
            (Upgrade::Websocket, _) if !self.access.allows(head.peer) => {
                self.refuse(request, Problem::WebsocketForbidden);
            }
            (Upgrade::Websocket, _) if !known_url => self.refuse(request, Problem::BadHost),
            (Upgrade::Websocket, _) => self.respond(request, Response::empty(101)),
            (Upgrade::None, "/") => self.respond(request, Response::not_a_website()),
            (Upgrade::None, _) => self.refuse(request, Problem::NoSuchRoute),
        }
    }

    /// The endpoint behind a token, if it belongs on this kind of path.
    fn endpoint(&self, token: &str, restricted: bool) -> Option<Endpoint> {
        self.desk
            .keyring
            .open_endpoint(token)
            .filter(|endpoint| endpoint.restricted_to.is_some() == restricted)
    }

    /// The order of the checks is the main service's: token, authorization, subscription, then the
    /// message itself. Whether an absent user agent has the subscription only the storage knows,
    /// so there a fault of the message waits for that answer.
    fn post(&mut self, now: Now, request: RequestId, endpoint: Option<Endpoint>, head: Request) {
        let Some(endpoint) = endpoint else {
            return self.refuse(request, Problem::BadToken);
        };
        if let Err(problem) = self.authorize(now, &endpoint, &head) {
            return self.refuse(request, problem);
        }
        let draft = push_request::read(&head.headers, head.body);
        let lost = endpoint.database != self.desk.database;
        let subscribed = self
            .agent_of(&endpoint)
            .map(|agent| agent.is_subscribed(endpoint.channel));
        let draft = match (draft, subscribed) {
            (_, Some(false)) if !lost => return self.refuse(request, Problem::NoSubscription),
            (Err(problem), Some(true)) => return self.refuse(request, problem),
            (Err(problem), _) => return self.find(request, &endpoint, lost, Some(problem)),
            (Ok(draft), _) => draft,
        };

        let message = self.accept_draft(now, &endpoint, draft);
        let held = self.desk.out.held_bytes();
        if held.saturating_add(message.cost_bytes()) > self.desk.limits.held_bytes_max {
            return self.refuse(request, Problem::Overloaded);
        }
        let token = self
            .desk
            .keyring
            .seal_message(self.desk.database, message.id);
        let base_url = self.desk.public_url.as_ref().or(head.base_url.as_ref());
        let location = base_url.map_or_else(|| format!("/m/{token}"), |base| base.message(&token));
        let accepted = Response::accepted(location, message.ttl.as_secs());
        self.desk.out.open_request(request, accepted);

        let subscribed = subscribed == Some(true);
        self.route_message(now, &endpoint, Post { request, message }, subscribed, lost);
    }

    /// Hands an accepted message to its user agent, to the storage, or to nobody.
    fn route_message(
        &mut self,
        now: Now,
        endpoint: &Endpoint,
        post: Post,
        subscribed: bool,
        lost: bool,
    ) {
        if post.message.ttl.is_zero() {
            // Now or never: nothing is kept, so nothing is held either.
            match self.agent_of_mut(endpoint) {
                Some((agent, desk)) if subscribed => agent.deliver_now_or_never(&post, desk),
                Some(_) | None => self.find_opened(post.request, endpoint, lost, None),
            }
            return;
        }
        self.desk.out.hold(post.message.cost_bytes());
        let ends = now.monotonic.checked_add(self.desk.limits.ack_window);
        let id = post.message.id;
        let session = self.newest.get(&endpoint.uaid).copied();
        match (self.agent_of_mut(endpoint), session, ends) {
            (Some((agent, desk)), Some(session), Some(ends)) if subscribed => {
                if agent.deliver(post, desk) {
                    self.windows.push_back((ends, session, id));
                }
            }
            (Some((agent, desk)), _, _) => {
                agent.keep_and_fetch(post.message, lost, post.request, &mut desk.out);
            }
            (None, _, _) => {
                let fate = Fate {
                    request: post.request,
                    fetched_by: None,
                };
                self.desk.out.keep(endpoint.uaid, post.message, lost, fate);
            }
        }
    }

    fn accept_draft(&mut self, now: Now, endpoint: &Endpoint, draft: Draft) -> Arc<PushMessage> {
        let Draft {
            ttl,
            topic,
            urgency,
            content,
        } = draft;
        Arc::new(PushMessage {
            id: self.desk.next_message_id(),
            channel: endpoint.channel,
            received_at: self.desk.service_time(now),
            ttl,
            topic,
            urgency,
            content,
        })
    }

    /// An application server takes back a message of its own. One that is already gone is no error.
    fn delete_message(&mut self, now: Now, request: RequestId, token: &str) {
        let id = self.desk.keyring.open_message(self.desk.database, token);
        let Some(id) = id else {
            return self.refuse(request, Problem::InvalidMessageId);
        };
        self.drop_held(id);
        self.desk
            .out
            .delete(now.monotonic, Deletion { id, owner: None });
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
        let session = session.and_then(|session| self.sessions.get_mut(&session));
        if let Some(agent) = session.and_then(Session::agent_mut) {
            agent.drop_held(id, &mut self.desk.out);
        }
    }

    /// Refuses with `problem` if the subscription exists, and with 410 otherwise.
    fn find(
        &mut self,
        request: RequestId,
        endpoint: &Endpoint,
        lost: bool,
        problem: Option<Problem>,
    ) {
        // Never used as it is: the problem takes its place.
        self.desk.out.open_request(request, Response::empty(201));
        self.find_opened(request, endpoint, lost, problem);
    }

    fn find_opened(
        &mut self,
        request: RequestId,
        endpoint: &Endpoint,
        lost: bool,
        problem: Option<Problem>,
    ) {
        let op = StoreOp::Find {
            uaid: endpoint.uaid,
            channel: endpoint.channel,
            lost,
        };
        self.desk.out.store(op, Waiting::Find { request, problem });
    }

    fn agent_of(&self, endpoint: &Endpoint) -> Option<&super::agent::Agent> {
        let session = self.newest.get(&endpoint.uaid)?;
        self.sessions.get(session).and_then(Session::agent)
    }

    fn agent_of_mut(
        &mut self,
        endpoint: &Endpoint,
    ) -> Option<(&mut super::agent::Agent, &mut super::desk::Desk)> {
        let session = self.newest.get(&endpoint.uaid)?;
        let agent = self.sessions.get_mut(session)?.agent_mut()?;
        Some((agent, &mut self.desk))
    }

    fn refuse(&mut self, request: RequestId, problem: Problem) {
        self.desk.out.respond_problem(request, problem);
    }

    fn respond(&mut self, request: RequestId, response: Response) {
        self.desk.out.push(Output::Respond { request, response });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{DATABASE, Out, Table, keyring};
    use super::*;
    use crate::model::durability::Durability;
    use crate::model::limits::Limits;
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
        let first = MessageId::before_run(1).unwrap().next();
        let path = format!("/m/{}", keyring().seal_message(DATABASE, first));
        let (request, outs) = table.request("DELETE", &path, PushHeaders::default());
        assert_eq!(outs, [Out::Answered(request, 204)]);
        table.pass(Duration::from_secs(1));
        assert!(matches!(table.asked.as_slice(), [StoreOp::Delete(_)]));
    }
}
