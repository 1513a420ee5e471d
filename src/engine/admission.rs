//! Who goes too fast: messages, registrations and websockets, by subscription, user agent and address.
//!
//! Keeps count; the limits on what is *stored* are the storage's. Its memory has a fixed size, and the
//! wall clock is not asked.

mod buckets;

use std::time::{Duration, Instant};

use self::buckets::{Buckets, Rate};
use super::Engine;
use super::counters::Counters;
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
}

impl Admission {
    pub(super) fn new(now: Now, limits: &Limits) -> Self {
        const SECOND: Duration = Duration::from_secs(1);
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

    fn since_start(&self, now: Now) -> Duration {
        now.monotonic.saturating_duration_since(self.started)
    }
}

enum TooFast {
    Subscription,
    UserAgent,
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

    /// A message that its sender may send and that is in order.
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
    use std::net::IpAddr;

    use super::*;
    use crate::engine::testing::{Out, Table};

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

    #[test]
    fn wait_is_rounded_up_to_whole_seconds() {
        assert_eq!(whole_secs(Duration::from_nanos(1)), 1);
        assert_eq!(whole_secs(Duration::from_millis(1000)), 1);
        assert_eq!(whole_secs(Duration::from_millis(1001)), 2);
        assert_eq!(whole_secs(Duration::MAX), u32::MAX);
    }
}
