//! What the engine has counted, for the operator's console.

use crate::model::ids::Tag;
use crate::model::store::StoreError;

/// Sums since the start, and the state of this moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// Sums since the start.
    pub counters: Counters,
    /// User agents whose hello has been answered and who are still here.
    pub user_agents_connected: u64,
    /// Open websockets, those without a hello included.
    pub websockets_open: u64,
    /// SimplePush user agents that wait for a datagram.
    pub user_agents_asleep: u64,
    /// Push messages on their way: sent and not acked, not written either.
    pub messages_held: u64,
    /// Push messages sent and not acked, as far as they are listed, the held ones among them.
    pub messages_unacked: u64,
    /// The bytes of those that are held, and those that wait for the storage thread.
    pub held_bytes: u64,
    /// Operations that wait for the storage thread.
    pub store_queue: u64,
    /// Seconds since the start.
    pub uptime_secs: u64,
    /// What is wrong with the storage, if its last write failed.
    pub storage_fault: Option<StoreError>,
    /// Whether VAPID tokens are refused by their expiry.
    pub wall_clock_trusted: bool,
    /// The links to the main service, if there is one.
    pub upstream: Option<Vec<LinkState>>,
    /// User agents whose subscriptions there are lost, and who do not know it yet.
    pub upstream_to_tell: u64,
}

/// One link to the main service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkState {
    /// Whose it is; `None`: it is that of all.
    pub owner: Option<Tag>,
    /// Its state.
    pub state: &'static str,
    /// Where the main service has sent it instead of where it is configured.
    pub at: Option<String>,
    /// Since when that is so, in seconds.
    pub since_secs: u64,
    /// Subscriptions that it has there.
    pub borrowed: u64,
    /// Push messages that came down since the start.
    pub messages: u64,
    /// Acks sent up since the start.
    pub acks: u64,
    /// What went wrong last, in words, if anything did lately.
    pub last_error: Option<String>,
}

/// The states that a link can be in.
pub const LINK_STATES: [&str; 6] = [
    "idle",
    "waiting",
    "connecting",
    "naming",
    "ready",
    "closing",
];

/// Sums since the start. Each only grows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Push messages and version updates that were accepted (200, 201, 202).
    pub messages_accepted: u64,
    /// Push messages refused for what they are or where they went (4xx).
    pub messages_refused: u64,
    /// Push messages refused for the gateway's own state (429, 503).
    pub messages_turned_away: u64,
    /// Of those, because they came too fast for the subscription.
    pub messages_over_subscription_rate: u64,
    /// Of those, because they came too fast for the user agent.
    pub messages_over_user_agent_rate: u64,
    /// Of those, because they came too fast from one address.
    pub messages_over_address_rate: u64,
    /// Of those, because as much as may waited for the subscription already.
    pub messages_over_subscription_quota: u64,
    /// Of those, because as much as may waited for the user agent already.
    pub messages_over_user_agent_quota: u64,
    /// VAPID tokens whose signature was checked and which were right in all else.
    pub vapid_verified: u64,
    /// VAPID tokens that had been verified before: no signature was checked.
    pub vapid_remembered: u64,
    /// `Authorization` headers that were refused, those with the wrong key for an endpoint included.
    pub vapid_refused: u64,
    /// Notifications sent to user agents, repeated ones included.
    pub notifications_sent: u64,
    /// Push messages that a user agent acked.
    pub messages_acked: u64,
    /// Acked in time: never written to flash.
    pub messages_never_written: u64,
    /// Push messages that went to flash only because their user agent, which was there, wanted none
    /// of so low an urgency.
    pub messages_held_back: u64,
    /// Push messages written to flash.
    pub messages_stored: u64,
    /// Acks with code 101: the application server encrypts wrongly.
    pub acks_undecryptable: u64,
    /// Acks with code 102: seen before, or of an unknown subscription.
    pub acks_not_delivered: u64,
    /// Nacks: the application failed.
    pub nacks: u64,
    /// Push messages that expired in the storage.
    pub messages_expired: u64,
    /// Subscriptions made.
    pub registrations: u64,
    /// Registrations refused because the user agent has as many subscriptions as it may.
    pub registrations_over_user_agent_max: u64,
    /// Registrations refused because too many came from one address.
    pub registrations_over_address_rate: u64,
    /// Registrations of new user agents refused because too many of them came from one address.
    pub newcomers_over_address_rate: u64,
    /// Subscriptions ended.
    pub unregistrations: u64,
    /// Websockets refused because of where the user agent is.
    pub websockets_forbidden: u64,
    /// Websockets refused because too many are open from one address.
    pub websockets_over_address_max: u64,
    /// Websockets refused because they came too fast from one address.
    pub websockets_over_address_rate: u64,
    /// Connections turned away because too many are open.
    pub connections_over_max: u64,
    /// Connections turned away because too many are open from one address.
    pub connections_over_address_max: u64,
    /// Connections turned away because they came too fast from one address.
    pub connections_over_address_rate: u64,
    /// Connections that the system could not give us.
    pub accepts_failed: u64,
    /// Connections that ended before the TLS handshake did.
    pub handshakes_failed: u64,
    /// Requests that are no HTTP, or too large a head of one.
    pub requests_malformed: u64,
    /// Requests that did not arrive in time.
    pub requests_timed_out: u64,
    /// Connections ended because the peer did not read in time what it was sent.
    pub writes_timed_out: u64,
    /// Websockets closed for a fault of the user agent.
    pub websockets_faulted: u64,
    /// Websockets closed because they fell silent.
    pub websockets_timed_out: u64,
    /// Wake-up datagrams sent to user agents that sleep, by ourselves or by the operator's proxy.
    pub wakeups_sent: u64,
    /// Writes that the storage refused.
    pub storage_faults: u64,
    /// Attempts to connect to the main service.
    pub upstream_connects: u64,
    /// Redirects of the main service that were followed.
    pub upstream_redirects: u64,
    /// Subscriptions that were borrowed.
    pub upstream_registrations: u64,
    /// Registers that the main service refused, or did not answer in time.
    pub upstream_registrations_failed: u64,
    /// Unregistrations that it confirmed.
    pub upstream_unregistrations: u64,
    /// Push messages that came down, repeated ones included.
    pub upstream_messages: u64,
    /// Of those, how many were known already.
    pub upstream_duplicates: u64,
    /// Acks sent up.
    pub upstream_acks: u64,
    /// Names that the main service has replaced, with subscriptions behind them.
    pub upstream_resets: u64,
}

impl Counters {
    /// One more. Stops at the end of the numbers.
    pub(super) const fn add(counter: &mut u64) {
        *counter = counter.saturating_add(1);
    }
}
