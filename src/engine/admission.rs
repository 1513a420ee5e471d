//! Who goes too fast: messages, registrations and websockets, by subscription, user agent and address.
//!
//! Keeps count; the limits on what is *stored* are the storage's. Its memory has a fixed size, and the
//! wall clock is not asked.

mod buckets;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use self::buckets::{Buckets, Rate};
use super::channels::Channels;
use super::counters::Counters;
use super::{Engine, Failure, SessionId, TurnedAway};
use crate::model::access::Source;
use crate::model::ids::{ChannelId, Uaid};
use crate::model::limits::Limits;
use crate::model::time::Now;
use crate::protocol::keyring::Endpoint;
use crate::protocol::problem::Problem;

/// What was let in lately.
#[derive(Debug)]
pub(super) struct Admission {
    started: Instant,
    subscriptions: Buckets,
    user_agents: Buckets,
    addresses: Buckets,
    newcomers: Buckets,
    registrations: Buckets,
    openings: Buckets,
    /// Open websockets of each address: no more entries than there are.
    websockets: HashMap<Source, usize>,
    websockets_max: usize,
}

impl Admission {
    pub(super) fn new(now: Now, limits: &Limits) -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        const MINUTE: Duration = Duration::from_secs(60);
        let buckets = |rate, period, burst| Buckets::new(Rate::new(rate, period, burst));
        Self {
            started: now.monotonic,
            subscriptions: buckets(
                limits.subscription_rate_per_sec_max,
                SECOND,
                limits.subscription_burst_max,
            ),
            user_agents: buckets(
                limits.user_agent_rate_per_sec_max,
                SECOND,
                limits.user_agent_burst_max,
            ),
            addresses: buckets(
                limits.address_rate_per_sec_max,
                SECOND,
                limits.address_burst_max,
            ),
            newcomers: buckets(
                limits.newcomer_rate_per_min_max,
                MINUTE,
                limits.newcomer_burst_max,
            ),
            registrations: buckets(
                limits.registration_rate_per_min_max,
                MINUTE,
                limits.registration_burst_max,
            ),
            openings: buckets(
                limits.websocket_rate_per_sec_max,
                SECOND,
                limits.websocket_burst_max,
            ),
            websockets: HashMap::new(),
            websockets_max: limits.websockets_per_address_max,
        }
    }

    /// A message from `source`, if it is one that limits apply to: how long it must wait.
    fn count_sender(&mut self, now: Now, source: Source) -> Result<(), Duration> {
        let at = self.since_start(now);
        free(self.addresses.wait(&source, at))?;
        self.addresses.take(&source, at);
        Ok(())
    }

    /// A message to a subscription. One that is refused takes no token anywhere.
    fn count_message(
        &mut self,
        now: Now,
        uaid: Uaid,
        channel: ChannelId,
    ) -> Result<(), (TooFast, Duration)> {
        let at = self.since_start(now);
        let subscription = (uaid, channel);
        let wait = self.subscriptions.wait(&subscription, at);
        free(wait).map_err(|wait| (TooFast::Subscription, wait))?;
        let wait = self.user_agents.wait(&uaid, at);
        free(wait).map_err(|wait| (TooFast::UserAgent, wait))?;
        self.subscriptions.take(&subscription, at);
        self.user_agents.take(&uaid, at);
        Ok(())
    }

    /// A message of these cost nothing after all.
    fn give_back(&mut self, uaid: Uaid, channel: ChannelId) {
        self.subscriptions.give_back(&(uaid, channel));
        self.user_agents.give_back(&uaid);
    }

    /// A new subscription, and perhaps a new user agent with it. One that is refused takes no token.
    fn count_registration(
        &mut self,
        now: Now,
        source: Source,
        is_newcomer: bool,
    ) -> Result<(), (TooManyNew, Duration)> {
        let at = self.since_start(now);
        let wait = self.registrations.wait(&source, at);
        free(wait).map_err(|wait| (TooManyNew::Subscriptions, wait))?;
        if is_newcomer {
            let wait = self.newcomers.wait(&source, at);
            free(wait).map_err(|wait| (TooManyNew::UserAgents, wait))?;
            self.newcomers.take(&source, at);
        }
        self.registrations.take(&source, at);
        Ok(())
    }

    /// A new websocket. One that is refused takes no token.
    fn count_opening(&mut self, now: Now, source: Source) -> Result<(), Duration> {
        let at = self.since_start(now);
        free(self.openings.wait(&source, at))?;
        self.openings.take(&source, at);
        Ok(())
    }

    /// Whether an address may open another websocket.
    fn has_room_for_websocket(&self, source: Option<Source>) -> bool {
        let open = source.and_then(|source| self.websockets.get(&source));
        open.is_none_or(|open| *open < self.websockets_max)
    }

    pub(super) fn websocket_opened(&mut self, source: Option<Source>) {
        if let Some(source) = source {
            let open = self.websockets.entry(source).or_default();
            *open = open.saturating_add(1);
        }
    }

    pub(super) fn websocket_closed(&mut self, source: Option<Source>) {
        let Some(source) = source else { return };
        let Some(open) = self.websockets.get_mut(&source) else {
            return;
        };
        *open = open.saturating_sub(1);
        if *open == 0 {
            self.websockets.remove(&source);
        }
    }

    fn since_start(&self, now: Now) -> Duration {
        now.monotonic.saturating_duration_since(self.started)
    }
}

enum TooFast {
    Subscription,
    UserAgent,
}

enum TooManyNew {
    Subscriptions,
    UserAgents,
}

impl Engine {
    /// Anybody who knows an endpoint can send garbage to it, so this costs its sender alone.
    pub(super) fn admit_sender(&mut self, now: Now, source: Option<Source>) -> Result<(), Problem> {
        let Some(source) = source else { return Ok(()) };
        self.admission.count_sender(now, source).map_err(|wait| {
            Counters::add(&mut self.desk.out.counters.messages_over_address_rate);
            Problem::AddressTooFast(whole_secs(wait))
        })
    }

    /// A message that its sender may send and that is in order. One that its user agent acks before it
    /// is written gives its token back: it is flash that must be spared.
    pub(super) fn admit_message(&mut self, now: Now, endpoint: &Endpoint) -> Result<(), Problem> {
        let Endpoint { uaid, channel, .. } = *endpoint;
        let admitted = self.admission.count_message(now, uaid, channel);
        admitted.map_err(|(too_fast, wait)| {
            let counters = &mut self.desk.out.counters;
            match too_fast {
                TooFast::Subscription => {
                    Counters::add(&mut counters.messages_over_subscription_rate);
                    Problem::SubscriptionTooFast(whole_secs(wait))
                }
                TooFast::UserAgent => {
                    Counters::add(&mut counters.messages_over_user_agent_rate);
                    Problem::UserAgentTooFast(whole_secs(wait))
                }
            }
        })
    }

    pub(super) fn give_tokens_back(&mut self) {
        for (uaid, channel) in self.desk.out.take_cost_nothing() {
            self.admission.give_back(uaid, channel);
        }
    }

    /// Whether a user agent may make a subscription now. One that it has is made again for nothing; with
    /// its first it becomes one that must be remembered.
    pub(super) fn admit_registration(
        &mut self,
        now: Now,
        id: SessionId,
        channel: ChannelId,
    ) -> bool {
        let Some(session) = self.sessions.get(&id) else {
            return true;
        };
        let channels = session.agent().map(|agent| &agent.channels);
        let is_known = channels.is_some_and(|channels| channels.contains(channel));
        let is_newcomer = channels.is_none_or(Channels::is_empty);
        let peer = session.peer;
        is_known || self.count_new(now, peer, is_newcomer).is_ok()
    }

    /// The same for a request; `uaid`: without one it makes a new user agent.
    pub(super) fn admit_over_http(
        &mut self,
        now: Now,
        peer: IpAddr,
        uaid: Option<Uaid>,
        channel: ChannelId,
    ) -> Result<(), Problem> {
        let agent = uaid.and_then(|uaid| self.agent_of(uaid));
        if agent.is_some_and(|agent| agent.channels.contains(channel)) {
            return Ok(());
        }
        let counted = self.count_new(now, peer, uaid.is_none());
        counted.map_err(|wait| Problem::RegistrationsTooFast(whole_secs(wait)))
    }

    fn count_new(&mut self, now: Now, peer: IpAddr, is_newcomer: bool) -> Result<(), Duration> {
        let Some(source) = self.access.source(peer) else {
            return Ok(());
        };
        let counted = self.admission.count_registration(now, source, is_newcomer);
        counted.map_err(|(too_many, wait)| {
            let counters = &mut self.desk.out.counters;
            Counters::add(match too_many {
                TooManyNew::Subscriptions => &mut counters.registrations_over_address_rate,
                TooManyNew::UserAgents => &mut counters.newcomers_over_address_rate,
            });
            wait
        })
    }

    /// Whether an address may open another websocket now.
    pub(super) fn admit_websocket(
        &mut self,
        now: Now,
        source: Option<Source>,
    ) -> Result<(), Problem> {
        if !self.admission.has_room_for_websocket(source) {
            Counters::add(&mut self.desk.out.counters.websockets_over_address_max);
            return Err(Problem::TooManyWebsockets);
        }
        let Some(source) = source else { return Ok(()) };
        self.admission.count_opening(now, source).map_err(|wait| {
            Counters::add(&mut self.desk.out.counters.websockets_over_address_rate);
            Problem::WebsocketsTooFast(whole_secs(wait))
        })
    }

    pub(super) const fn failed(&mut self, failure: Failure) {
        let counters = &mut self.desk.out.counters;
        Counters::add(match failure {
            Failure::Accept => &mut counters.accepts_failed,
            Failure::Handshake => &mut counters.handshakes_failed,
            Failure::Malformed => &mut counters.requests_malformed,
            Failure::SlowRequest => &mut counters.requests_timed_out,
            Failure::Unread => &mut counters.writes_timed_out,
        });
    }

    pub(super) const fn turned_away(&mut self, why: TurnedAway) {
        let counters = &mut self.desk.out.counters;
        match why {
            TurnedAway::TooMany => Counters::add(&mut counters.connections_over_max),
            TurnedAway::TooManyOfAddress => {
                Counters::add(&mut counters.connections_over_address_max);
            }
        }
    }
}

const fn free(wait: Duration) -> Result<(), Duration> {
    if wait.is_zero() { Ok(()) } else { Err(wait) }
}

/// For `Retry-After`: rounded up, because at the end of it there must be a token.
fn whole_secs(wait: Duration) -> u32 {
    let part = u64::from(wait.subsec_nanos() > 0);
    u32::try_from(wait.as_secs().saturating_add(part)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Input;
    use crate::engine::testing::{Out, Table, versions};
    use crate::model::store::StoreReply;

    /// Four a second and three at once for a subscription, with room above.
    fn limits() -> Limits {
        Limits {
            subscription_rate_per_sec_max: 4,
            subscription_burst_max: 3,
            ..Limits::default()
        }
    }

    fn table(limits: Limits) -> Table {
        Table::with(limits, Default::default())
    }

    /// Posts with TTL 0; the status and, where it is refused, the seconds and the text.
    fn post(table: &mut Table, path: &str) -> (u16, Option<(u32, String)>) {
        let (request, outs) = table.post(path, 0, None);
        let response = &table.responses[&request];
        let retry = response.headers.iter().find(|h| h.0 == "Retry-After");
        let refused = retry.map(|(_, secs)| {
            assert_eq!(outs, [Out::Answered(request, response.status)]);
            let body: serde_json::Value = serde_json::from_str(&response.body).unwrap();
            let message = body["message"].as_str().unwrap().to_owned();
            (secs.parse().unwrap(), message)
        });
        (response.status, refused)
    }

    fn refused(secs: u32, message: &str) -> (u16, Option<(u32, String)>) {
        (429, Some((secs, message.to_owned())))
    }

    const ACCEPTED: (u16, Option<(u32, String)>) = (201, None);
    const SUBSCRIPTION: &str = "Too many messages to this subscription; send more slowly";
    const USER_AGENT: &str =
        "Too many messages to the user agent of this subscription; send more slowly";
    const ADDRESS: &str = "Too many messages from this address; send more slowly";

    #[test]
    fn message_that_is_acked_and_never_written_costs_no_token() {
        let mut table = table(limits());
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        for ttl in [60, 0].into_iter().cycle().take(100) {
            let (_, outs) = table.post(&endpoint, ttl, None);
            table.ack(id, 1, &versions(&outs)[0], 100);
            table.all_sent(id);
        }
        for _ in 0..3 {
            assert_eq!(post(&mut table, &endpoint), ACCEPTED);
        }
        assert_eq!(post(&mut table, &endpoint), refused(1, SUBSCRIPTION));
    }

    #[test]
    fn subscription_takes_its_burst_and_then_its_rate_and_others_are_not_touched() {
        let mut table = table(limits());
        let (id, _) = table.newcomer();
        let noisy = table.register(id, 1);
        let quiet = table.register(id, 2);
        for _ in 0..3 {
            assert_eq!(post(&mut table, &noisy), ACCEPTED);
        }
        for _ in 0..100 {
            assert_eq!(post(&mut table, &noisy), refused(1, SUBSCRIPTION));
        }
        assert_eq!(post(&mut table, &quiet), ACCEPTED);
        let counters = table.snapshot().counters;
        assert_eq!(counters.messages_over_subscription_rate, 100);
        assert_eq!(counters.messages_turned_away, 100);

        table.pass(Duration::from_millis(249));
        assert_eq!(post(&mut table, &noisy), refused(1, SUBSCRIPTION));
        table.pass(Duration::from_millis(1));
        assert_eq!(post(&mut table, &noisy), ACCEPTED);
        assert_eq!(post(&mut table, &noisy), refused(1, SUBSCRIPTION));
    }

    #[test]
    fn retry_after_is_when_there_is_room_in_whole_seconds() {
        let limits = Limits {
            subscription_rate_per_sec_max: 1,
            user_agent_rate_per_sec_max: 1,
            user_agent_burst_max: 3,
            ..limits()
        };
        let mut table = table(limits);
        let (id, _) = table.newcomer();
        let (one, other) = (table.register(id, 1), table.register(id, 2));
        for path in [&one, &one, &other] {
            assert_eq!(post(&mut table, path), ACCEPTED);
        }
        // Nothing of the subscription's is used up by what is refused for its user agent.
        for _ in 0..9 {
            assert_eq!(post(&mut table, &other), refused(1, USER_AGENT));
        }
        assert_eq!(table.snapshot().counters.messages_over_user_agent_rate, 9);
        table.pass(Duration::from_millis(2000));
        assert_eq!(post(&mut table, &other), ACCEPTED);
        assert_eq!(post(&mut table, &other), ACCEPTED);
        let (elsewhere, _) = table.newcomer();
        let elsewhere = table.register(elsewhere, 1);
        assert_eq!(post(&mut table, &elsewhere), ACCEPTED);
    }

    #[test]
    fn address_is_limited_over_all_subscriptions_and_other_addresses_are_not() {
        let limits = Limits {
            address_rate_per_sec_max: 1,
            address_burst_max: 2,
            ..Limits::default()
        };
        let mut table = table(limits);
        let (id, _) = table.newcomer();
        let (one, other) = (table.register(id, 1), table.register(id, 2));
        assert_eq!(post(&mut table, &one), ACCEPTED);
        assert_eq!(post(&mut table, &other), ACCEPTED);
        assert_eq!(post(&mut table, &other), refused(1, ADDRESS));
        assert_eq!(table.snapshot().counters.messages_over_address_rate, 1);
        // What no endpoint is costs nothing, and is told so.
        assert_eq!(post(&mut table, "/wpush/v1/garbage").0, 404);
        // The operator's own programs, or a proxy with everybody behind it.
        table.peer = IpAddr::from([127, 0, 0, 1]);
        for _ in 0..9 {
            assert_eq!(post(&mut table, &one), ACCEPTED);
        }
        let host = |last| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        for last in [1, 2] {
            table.peer = host(last);
            assert_eq!(post(&mut table, &one), ACCEPTED);
        }
        table.peer = host(3);
        assert_eq!(post(&mut table, &one), refused(1, ADDRESS), "the same /64");
        table.pass(Duration::from_millis(1000));
        assert_eq!(post(&mut table, &one), ACCEPTED);
    }

    #[test]
    fn message_that_its_sender_may_not_send_costs_the_subscription_nothing() {
        let mut table = table(limits());
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        for _ in 0..9 {
            let headers = crate::protocol::push_request::PushHeaders {
                ttl: Some("0".to_owned()),
                authorization: Some("vapid nonsense".to_owned()),
                ..Default::default()
            };
            let (request, outs) = table.request("POST", &endpoint, headers);
            assert_eq!(outs, [Out::Answered(request, 401)]);
        }
        for _ in 0..3 {
            assert_eq!(post(&mut table, &endpoint), ACCEPTED);
        }
        assert_eq!(post(&mut table, &endpoint), refused(1, SUBSCRIPTION));
    }

    /// Registers; the status, and the endpoint that must be there with 200.
    fn register(table: &mut Table, session: u64, channel: u8) -> u64 {
        let id = crate::engine::testing::channel_id(channel).uuid();
        let text = format!(r#"{{"messageType":"register","channelID":"{id}"}}"#);
        let outs = match table.say(session, &text).as_slice() {
            [Out::Paused(_)] => table.stored(vec![StoreReply::Subscribed(true)]),
            [Out::Sent(to, answer)] => vec![Out::Sent(*to, answer.clone())],
            other => panic!("{other:?}"),
        };
        let Some(Out::Sent(_, answer)) = outs.first() else {
            panic!("{outs:?}");
        };
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        let status = answer["status"].as_u64().unwrap();
        let has_endpoint = !answer["pushEndpoint"].as_str().unwrap().is_empty();
        assert_eq!(has_endpoint, status == 200);
        assert_eq!(answer["channelID"], id.to_string());
        status
    }

    #[test]
    fn address_takes_its_burst_of_registrations_and_then_its_rate() {
        let limits = Limits {
            registration_rate_per_min_max: 2,
            registration_burst_max: 3,
            ..Limits::default()
        };
        let mut table = table(limits);
        let (one, _) = table.newcomer();
        let (other, _) = table.newcomer();
        assert_eq!(register(&mut table, one, 1), 200);
        assert_eq!(register(&mut table, other, 1), 200);
        assert_eq!(register(&mut table, one, 2), 200);
        assert_eq!(register(&mut table, one, 3), 429);
        assert_eq!(register(&mut table, one, 1), 200, "it is there");
        assert_eq!(table.snapshot().counters.registrations_over_address_rate, 1);
        table.pass(Duration::from_millis(29_999));
        assert_eq!(register(&mut table, one, 3), 429);
        table.pass(Duration::from_millis(1));
        assert_eq!(register(&mut table, one, 3), 200);
        // Elsewhere nobody has registered.
        table.peer = IpAddr::from([192, 168, 1, 6]);
        let (elsewhere, _) = table.newcomer();
        assert_eq!(register(&mut table, elsewhere, 1), 200);
    }

    #[test]
    fn address_takes_its_burst_of_new_user_agents_and_those_that_are_known_go_on() {
        let limits = Limits {
            newcomer_rate_per_min_max: 1,
            newcomer_burst_max: 2,
            ..Limits::default()
        };
        let mut table = table(limits);
        let sessions = [(); 3].map(|()| table.newcomer().0);
        assert_eq!(register(&mut table, sessions[0], 1), 200);
        assert_eq!(register(&mut table, sessions[1], 1), 200);
        for _ in 0..9 {
            assert_eq!(register(&mut table, sessions[2], 1), 429);
        }
        assert_eq!(table.snapshot().counters.newcomers_over_address_rate, 9);
        assert_eq!(register(&mut table, sessions[0], 2), 200);
        table.pass(Duration::from_secs(60));
        table.stored(vec![StoreReply::Expired(0)]);
        assert_eq!(register(&mut table, sessions[2], 1), 200);
        // The board itself has no such limit.
        table.peer = IpAddr::from([127, 0, 0, 1]);
        for _ in 0..9 {
            let (session, _) = table.newcomer();
            assert_eq!(register(&mut table, session, 1), 200);
        }
    }

    #[test]
    fn address_has_as_many_websockets_as_it_may_and_one_more_when_one_ends() {
        let limits = Limits {
            websockets_per_address_max: 2,
            ..Limits::default()
        };
        let mut table = table(limits);
        let first = table.open();
        assert_eq!(table.handshake("/").status, 101);
        let (second, _) = table.newcomer();
        let refused = table.handshake("/");
        assert_eq!(refused.status, 429);
        let retry = ("Retry-After", "60".to_owned());
        assert!(refused.headers.contains(&retry), "{refused:?}");
        assert!(
            refused
                .body
                .contains("Too many websockets are open from this address")
        );
        assert_eq!(table.snapshot().counters.websockets_over_address_max, 1);
        table.peer = IpAddr::from([192, 168, 1, 6]);
        assert_eq!(table.handshake("/").status, 101);

        table.peer = crate::engine::testing::PEER;
        let session = SessionId(first);
        table.input(Input::Gone { session });
        table.input(Input::Gone { session });
        assert_eq!(table.handshake("/").status, 101);
        table.open();
        assert_eq!(table.handshake("/").status, 429);
        let session = SessionId(second);
        table.input(Input::Gone { session });
        assert_eq!(table.handshake("/").status, 101);
        // Closed by us: it is free as well, and nothing is remembered of an address without any.
        table.pass(Duration::from_secs(60));
        assert!(table.engine.admission.websockets.is_empty());
    }

    #[test]
    fn connection_that_was_turned_away_is_counted() {
        let mut table = Table::new();
        table.input(Input::TurnedAway(TurnedAway::TooMany));
        table.input(Input::TurnedAway(TurnedAway::TooManyOfAddress));
        table.input(Input::TurnedAway(TurnedAway::TooManyOfAddress));
        let counters = table.snapshot().counters;
        assert_eq!(counters.connections_over_max, 1);
        assert_eq!(counters.connections_over_address_max, 2);
    }

    #[test]
    fn wait_is_rounded_up_to_whole_seconds() {
        assert_eq!(whole_secs(Duration::from_nanos(1)), 1);
        assert_eq!(whole_secs(Duration::from_millis(1000)), 1);
        assert_eq!(whole_secs(Duration::from_millis(1001)), 2);
        assert_eq!(whole_secs(Duration::MAX), u32::MAX);
    }
}
