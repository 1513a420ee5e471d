//! Registration over HTTP: names and subscriptions of user agents that have no websocket open, or do
//! not care to use it.
//!
//! What changes here changes for an open websocket of the same user agent in the same order as for
//! the storage: with the reply.

use super::counters::Counters;
use super::outbox::Waiting;
use super::{CloseReason, Engine, RequestId};
use crate::model::dialect::Dialect;
use crate::model::ids::{ChannelId, Uaid};
use crate::model::store::{StoreOp, StoreReply};
use crate::model::time::Now;
use crate::protocol::http::{NAMES_BYTES, Request, Response};
use crate::protocol::keyring::{self, Endpoint};
use crate::protocol::problem::Problem;
use crate::protocol::registration::{self, ROUTER_TYPE, Wish};
use crate::protocol::route::Place;

/// What a request asked of the storage.
#[derive(Debug)]
pub(super) enum Step {
    /// A subscription; with its answer, if there is room for it.
    Subscribe {
        uaid: Uaid,
        channel: ChannelId,
        answer: Box<Response>,
    },
    /// What there is.
    List(Uaid),
    /// Whether there is what is to be ended.
    Find { uaid: Uaid, channel: ChannelId },
    /// The end of a subscription.
    Unsubscribe {
        uaid: Uaid,
        channel: ChannelId,
        was_there: bool,
    },
    /// The end of all of them.
    Forget(Uaid),
}

impl Engine {
    /// Who may register here is who may open a websocket. The order of the other checks is the main
    /// service's: name, secret, router type.
    pub(super) fn registration(
        &mut self,
        now: Now,
        request: RequestId,
        router_type: &str,
        place: Place<'_>,
        head: &Request,
    ) {
        if !self.access.allows(head.peer) {
            return self.refuse(request, Problem::WebsocketForbidden);
        }
        let named = match place {
            Place::Registrations => Ok(None),
            Place::UserAgent(uaid)
            | Place::Subscriptions(uaid)
            | Place::Subscription { uaid, .. } => self.authenticate(uaid, head).map(Some),
        };
        let uaid = match named {
            Ok(_) if router_type != ROUTER_TYPE => {
                return self.refuse(request, Problem::InvalidRouterType);
            }
            Ok(uaid) => uaid,
            Err(problem) => return self.refuse(request, problem),
        };
        match (uaid, place) {
            (None, _) => self.subscribe_over_http(now, request, None, registration::read, head),
            (Some(uaid), Place::Subscriptions(_)) => {
                let read = registration::read_optional;
                self.subscribe_over_http(now, request, Some(uaid), read, head);
            }
            (Some(uaid), Place::Subscription { channel, .. }) => {
                self.end_over_http(request, uaid, channel);
            }
            (Some(uaid), Place::Registrations | Place::UserAgent(_)) => {
                self.of_user_agent(now, request, uaid, head);
            }
        }
    }

    /// The user agent of this name, if the request proves to be its own.
    fn authenticate(&self, uaid: &str, head: &Request) -> Result<Uaid, Problem> {
        let uaid = keyring::parse_uaid(uaid).ok_or(Problem::NoUser)?;
        let secret = registration::secret(head.headers.authorization.as_deref())?;
        if self.desk.keyring.is_secret(uaid, secret) {
            Ok(uaid)
        } else {
            Err(Problem::LocalAuthIncorrect)
        }
    }

    fn of_user_agent(&mut self, now: Now, request: RequestId, uaid: Uaid, head: &Request) {
        match head.method.as_str() {
            // What it renews is a token of a phone vendor, of which there are none here.
            "PUT" => match registration::read(&head.body) {
                Ok(_) => self.respond(request, Response::empty(200)),
                Err(problem) => self.refuse(request, problem),
            },
            "DELETE" => {
                // What it is owed goes to flash before all of it is dropped there. It may come back,
                // and finds that it has nothing.
                if let Some(session) = self.newest.get(&uaid).copied() {
                    self.end_session(now, session, CloseReason::Deregistered);
                }
                self.woken(uaid);
                self.ask(request, StoreOp::Forget { uaid }, Step::Forget(uaid));
            }
            _ => self.ask(request, StoreOp::Load { uaid }, Step::List(uaid)),
        }
    }

    /// `uaid`: without one a new user agent gets its name as well.
    fn subscribe_over_http(
        &mut self,
        now: Now,
        request: RequestId,
        uaid: Option<Uaid>,
        read: fn(&crate::protocol::push_request::Body) -> Result<Wish, Problem>,
        head: &Request,
    ) {
        let wish = match read(&head.body) {
            Ok(wish) => wish,
            Err(problem) => return self.refuse(request, problem),
        };
        let Some((name, chosen)) = head.random.and_then(names) else {
            // The caller has not looked at `Route::mints_names`.
            return self.refuse(request, Problem::NoSuchRoute);
        };
        let channel = wish.channel.unwrap_or(chosen);
        if let Err(problem) = self.admit_over_http(now, head.peer, uaid, channel) {
            return self.refuse(request, problem);
        }
        let Some(base_url) = self.desk.public_url.as_ref().or(head.base_url.as_ref()) else {
            return self.refuse(request, Problem::BadHost);
        };
        let keyring = &self.desk.keyring;
        let owner = uaid.unwrap_or_else(|| keyring.mint_uaid(name));
        let token = keyring.seal_endpoint(&Endpoint {
            database: self.desk.database,
            uaid: owner,
            channel,
            restricted_to: wish.restricted_to,
            dialect: Dialect::WebPush,
        });
        let restricted = wish.restricted_to.is_some();
        let endpoint = base_url.endpoint(Dialect::WebPush, restricted, &token);
        let answer = Box::new(match uaid {
            None => registration::registered(owner, channel, &endpoint, &keyring.secret(owner)),
            Some(_) => registration::subscribed(channel, &endpoint),
        });
        let op = StoreOp::Subscribe {
            uaid: owner,
            channel,
            spelling: None,
            dialect: Dialect::WebPush,
            subscriptions_max: self.desk.limits.subscriptions_per_user_agent_max,
        };
        let step = Step::Subscribe {
            uaid: owner,
            channel,
            answer,
        };
        self.ask(request, op, step);
    }

    fn end_over_http(&mut self, request: RequestId, uaid: Uaid, channel: &str) {
        let Ok(channel) = uuid::Uuid::try_parse(channel).map(ChannelId::from_uuid) else {
            return self.refuse(request, Problem::NoSubscription);
        };
        let op = StoreOp::Find {
            uaid,
            channel,
            lost: false,
        };
        self.ask(request, op, Step::Find { uaid, channel });
    }

    fn ask(&mut self, request: RequestId, op: StoreOp, step: Step) {
        let waiting = Waiting::Registration(request, step);
        self.desk.out.store(op, waiting);
    }

    /// The storage has answered.
    pub(super) fn registration_stored(
        &mut self,
        now: Now,
        request: RequestId,
        step: Step,
        reply: &StoreReply,
    ) {
        match (step, reply) {
            (
                Step::Subscribe {
                    uaid,
                    channel,
                    answer,
                },
                StoreReply::Subscribed(true),
            ) => {
                if let Some((agent, _)) = self.agent_of_mut(uaid) {
                    agent.channels.register(channel, None);
                }
                Counters::add(&mut self.desk.out.counters.registrations);
                self.respond(request, *answer);
            }
            (Step::Subscribe { .. }, StoreReply::Subscribed(false)) => {
                Counters::add(&mut self.desk.out.counters.registrations_over_user_agent_max);
                self.refuse(request, Problem::TooManySubscriptions);
            }
            (Step::List(uaid), StoreReply::Loaded(subscriptions)) => {
                let channels = subscriptions.iter().map(|known| known.channel);
                self.respond(request, registration::subscriptions(uaid, channels));
            }
            // Also one that is not there: it may be of a lost database, whose end is remembered.
            (Step::Find { uaid, channel }, StoreReply::Subscription(was_there)) => {
                let step = Step::Unsubscribe {
                    uaid,
                    channel,
                    was_there: *was_there,
                };
                self.ask(request, StoreOp::Unsubscribe { uaid, channel }, step);
            }
            (
                Step::Unsubscribe {
                    uaid,
                    channel,
                    was_there,
                },
                StoreReply::Done,
            ) => {
                self.ended_over_http(now, uaid, channel);
                if was_there {
                    self.respond(request, Response::empty(200));
                } else {
                    self.refuse(request, Problem::NoSubscription);
                }
            }
            (Step::Forget(uaid), StoreReply::Done) => {
                self.end_all_borrowed(now, uaid);
                self.respond(request, Response::empty(200));
            }
            _ => self.refuse(request, Problem::StorageFault),
        }
    }

    fn ended_over_http(&mut self, now: Now, uaid: Uaid, channel: ChannelId) {
        self.end_borrowed(now, uaid, channel);
        Counters::add(&mut self.desk.out.counters.unregistrations);
        if let Some((agent, desk)) = self.agent_of_mut(uaid) {
            agent.drop_channel(channel, &mut desk.out);
        }
    }
}

/// The random parts of a UAID and of a channel ID.
fn names(random: [u8; NAMES_BYTES]) -> Option<([u8; 8], ChannelId)> {
    let (name, channel) = random.split_first_chunk()?;
    let channel = uuid::Builder::from_random_bytes(channel.try_into().ok()?);
    Some((*name, ChannelId::from_uuid(channel.into_uuid())))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        DATABASE, EMPTY_PAGE, KEPT, Out, Table, channel_id, keyring, loaded,
    };
    use super::*;
    use crate::model::limits::Limits;
    use crate::model::store::StoreError;
    use crate::protocol::push_request::PushHeaders;
    use crate::protocol::server_message;

    /// Sends a request of this user agent; `behind` its own path.
    fn send(table: &mut Table, uaid: &str, method: &str, behind: &str) -> (u64, Vec<Out>) {
        let secret = keyring().secret(keyring::parse_uaid(uaid).unwrap());
        let headers = PushHeaders {
            authorization: Some(format!("Bearer {secret}")),
            ..PushHeaders::default()
        };
        let path = format!("/v1/webpush/app/registration/{uaid}{behind}");
        table.request(method, &path, headers)
    }

    fn end(table: &mut Table, uaid: &str, channel: u8) -> (u64, Vec<Out>) {
        let channel = server_message::dashed(channel_id(channel));
        send(table, uaid, "DELETE", &format!("/subscription/{channel}"))
    }

    /// An endpoint that the storage may know or not.
    fn endpoint(uaid: &str, channel: u8) -> String {
        let token = keyring().seal_endpoint(&Endpoint {
            database: DATABASE,
            uaid: keyring::parse_uaid(uaid).unwrap(),
            channel: channel_id(channel),
            restricted_to: None,
            dialect: Dialect::WebPush,
        });
        format!("/wpush/v1/{token}")
    }

    const FOUND: StoreReply = StoreReply::Subscription(true);

    #[test]
    fn subscription_that_ends_while_a_hello_is_answered_is_not_there_afterwards() {
        let mut table = Table::new();
        let (first, uaid) = table.newcomer();
        table.register(first, 1);
        let second = table.again(&uaid);
        let (request, _) = end(&mut table, &uaid, 1);
        // The hello has read the subscription before its end.
        let outs = table.stored(vec![loaded(1), FOUND]);
        assert!(outs.contains(&Out::Resumed(second)));
        table.stored(vec![EMPTY_PAGE]);
        let outs = table.stored(vec![StoreReply::Done]);
        assert_eq!(outs, [Out::Answered(request, 200)]);
        let (post, outs) = table.post(&endpoint(&uaid, 1), 60, None);
        assert_eq!(outs, [Out::Answered(post, 410)]);
    }

    #[test]
    fn registrations_of_both_ways_count_in_the_order_of_the_storage() {
        let mut table = Table::new();
        let (session, uaid) = table.newcomer();
        // The websocket registers, then HTTP ends it before that is answered.
        let text = format!(
            r#"{{"messageType":"register","channelID":"{}"}}"#,
            server_message::dashed(channel_id(1))
        );
        table.say(session, &text);
        let (request, _) = end(&mut table, &uaid, 1);
        table.stored(vec![StoreReply::Subscribed(true), FOUND]);
        let outs = table.stored(vec![StoreReply::Done]);
        assert_eq!(outs, [Out::Answered(request, 200)]);
        let (post, outs) = table.post(&endpoint(&uaid, 1), 60, None);
        assert_eq!(outs, [Out::Answered(post, 410)]);

        // HTTP registers: the websocket gets its messages from the answer on.
        let (request, _) = send(&mut table, &uaid, "POST", "/subscription");
        let StoreOp::Subscribe { channel, .. } = table.asked[0] else {
            panic!("{:?}", table.asked);
        };
        let outs = table.stored(vec![StoreReply::Subscribed(true)]);
        assert_eq!(outs, [Out::Answered(request, 200)]);
        assert_eq!(channel.uuid().get_version_num(), 4);
        let token = keyring().seal_endpoint(&Endpoint {
            database: DATABASE,
            uaid: keyring::parse_uaid(&uaid).unwrap(),
            channel,
            restricted_to: None,
            dialect: Dialect::WebPush,
        });
        let (_, outs) = table.post(&format!("/wpush/v1/{token}"), 60, None);
        assert!(matches!(outs.as_slice(), [Out::Sent(..)]), "{outs:?}");
    }

    #[test]
    fn what_is_held_goes_to_flash_before_a_registration_ends_there() {
        let mut table = Table::new();
        let (session, uaid) = table.newcomer();
        let endpoint = table.register(session, 1);
        let (post, _) = table.post(&endpoint, 60, None);
        table.pass(std::time::Duration::from_millis(50));
        let (request, outs) = send(&mut table, &uaid, "DELETE", "");
        // It lingers: its name is new.
        assert_eq!(outs, []);
        assert!(matches!(
            table.asked.as_slice(),
            [StoreOp::Enqueue { .. }, StoreOp::Forget { .. }]
        ));
        let outs = table.stored(vec![KEPT, StoreReply::Done]);
        assert_eq!(
            outs,
            [Out::Answered(post, 201), Out::Answered(request, 200)]
        );
        let closed = [Out::Closed(session, CloseReason::Deregistered)];
        assert_eq!(table.pass(std::time::Duration::from_secs(1)), closed);
    }

    #[test]
    fn storage_that_fails_is_503_for_every_request() {
        let failed = || vec![StoreReply::Failed(StoreError::DiskFull)];
        let mut table = Table::new();
        let (_, uaid) = table.newcomer();
        for (method, behind) in [("GET", ""), ("DELETE", ""), ("POST", "/subscription")] {
            let (request, _) = send(&mut table, &uaid, method, behind);
            let outs = table.stored(failed());
            assert!(outs.contains(&Out::Answered(request, 503)), "{method}");
        }
        let (request, _) = end(&mut table, &uaid, 1);
        assert_eq!(table.stored(failed()), [Out::Answered(request, 503)]);
        let (request, _) = end(&mut table, &uaid, 1);
        assert_eq!(table.stored(vec![FOUND]), []);
        assert_eq!(table.stored(failed()), [Out::Answered(request, 503)]);
    }

    #[test]
    fn request_behind_a_full_queue_of_the_storage_is_503_and_monitoring_is_answered() {
        let limits = Limits {
            store_queue_max: 1,
            ..Limits::default()
        };
        let mut table = Table::with(limits, Default::default());
        let (_, uaid) = table.newcomer();
        let (first, outs) = send(&mut table, &uaid, "GET", "");
        assert_eq!(outs, []);
        let (second, outs) = send(&mut table, &uaid, "GET", "");
        assert_eq!(outs, [Out::Answered(second, 503)]);
        let (status, outs) = table.request("GET", "/__lbheartbeat__", PushHeaders::default());
        assert_eq!(outs, [Out::Answered(status, 200)]);
        let outs = table.stored(vec![StoreReply::Loaded(vec![])]);
        assert_eq!(outs, [Out::Answered(first, 200)]);
    }
}
