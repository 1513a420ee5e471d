//! Every number the gateway is built around: its unit, its reason, its source.
//!
//! What a board or a user may change is a field of [`Limits`]; the rest are constants.

use std::time::Duration;

/// Largest push message body accepted, in bytes.
///
/// 4096 bytes of payload (RFC 8030 section 7.2) plus what the two encryption schemes in use and a
/// base64 transport add to it: the main service's `max_data_bytes`.
pub const BODY_BYTES_MAX: usize = 5630;
const _: () = assert!(BODY_BYTES_MAX >= 4096);

/// Largest body that is no encrypted one, in bytes: UnifiedPush's limit (SERV_1.2.0).
pub const RAW_BODY_BYTES_MAX: usize = 4096;
const _: () = assert!(RAW_BODY_BYTES_MAX <= BODY_BYTES_MAX);

/// Largest body of a Matrix notification, in bytes: it can hold a whole Matrix event, which is 65,536
/// at most, and names around it. Read only where `unifiedpush.matrix` is on.
pub const NOTIFY_BYTES_MAX: usize = 68 << 10;

/// Most devices of one Matrix notification. Homeservers send one at a time.
pub const NOTIFY_DEVICES_MAX: usize = 16;

/// How long a Matrix notification is kept, in seconds: as long as a homeserver goes on trying itself
/// (Synapse gives up after a day).
pub const NOTIFY_TTL_SECS: u64 = 24 * 60 * 60;

/// Longest `data` of a version update, in bytes (pushgo `max_data_len`).
pub const UPDATE_DATA_BYTES_MAX: usize = 4096;

/// Largest body of a version update, in bytes: that text with every byte escaped as `%41`, and
/// room for the names of the form around it.
pub const UPDATE_FORM_BYTES_MAX: usize = 3 * UPDATE_DATA_BYTES_MAX + 1024;

/// Longest a push message is kept, in seconds: 30 days, as on the main service.
pub const TTL_SECS_MAX: u32 = 30 * 24 * 60 * 60;

/// Longest topic, in characters (RFC 8030 section 5.4).
pub const TOPIC_CHARS_MAX: usize = 32;

/// Largest websocket message accepted from a user agent, in bytes (main service: actix's frame limit).
pub const WEBSOCKET_MESSAGE_BYTES_MAX: usize = 65_536;

/// What a push message counts for beyond its body and headers, in bytes: ids, times, its row and
/// its index entries, rounded up.
pub const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// Longest VAPID public key accepted in `register`, in characters.
///
/// A P-256 point is 88 with padding; the main service takes any length, and so do we within reason.
pub const VAPID_KEY_CHARS_MAX: usize = 1024;

/// Longest endpoint URL, in bytes. UnifiedPush allows 1,000.
pub const ENDPOINT_URL_BYTES_MAX: usize = 1000;

/// Application servers are told to come back after this long when storage fails, in seconds.
pub const STORAGE_RETRY_AFTER_SECS: u32 = 30;

/// Application servers are told to come back after this long when a queue is full, in seconds.
///
/// Room is made by the user agent's return or by expiry: minutes, not seconds.
pub const QUEUE_RETRY_AFTER_SECS: u32 = 300;

/// User agents are told to come back after this long when their address has too many websockets, in
/// seconds: another one must end first, and most have a back-off of their own.
pub const WEBSOCKETS_RETRY_AFTER_SECS: u32 = 60;

/// What may be tuned: by the board profile, by the configuration file, by a test.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Longest from the opened websocket to `hello`.
    ///
    /// 5 s, as on the main service; SimplePush's own path has
    /// [`simplepush_hello_timeout`](Self::simplepush_hello_timeout).
    pub hello_timeout: Duration,
    /// The same for devices on the SimplePush path: old phones on bad links (pushgo: 30 s).
    pub simplepush_hello_timeout: Duration,
    /// A version update that a SimplePush user agent has not acked for this long is sent again on the
    /// same websocket (AeroGear `ack-interval`: 60 s).
    pub redelivery_interval: Duration,
    /// A SimplePush user agent that can be woken by a datagram is let go of after this long without a
    /// frame from it (Telefonica's server: 10 s).
    pub udp_idle: Duration,
    /// A websocket ping is sent after this long without a frame from the user agent (main service: 300 s).
    pub ping_interval: Duration,
    /// Longest from that ping to any frame; 4 s on the main service.
    pub pong_timeout: Duration,
    /// An application ping sooner than this after the last one closes the websocket.
    ///
    /// The main service wants 45 s; mobile networks need 45 to 60 s, push-tester sends every 20 s.
    pub app_ping_interval_min: Duration,
    /// How long a push message waits for its ack before it is written to flash.
    ///
    /// 100 ms: most user agents on a local network ack within 20 ms, and an application server
    /// waits at most this longer for its 201.
    pub ack_window: Duration,
    /// How long deletions of acknowledged messages gather before they are committed.
    ///
    /// A crash within this time delivers them again, which is allowed; flash is spared.
    pub delete_delay: Duration,
    /// How long a superseded websocket of the same user agent stays open (KUnifiedPush opens two
    /// within 25 ms and drops both if one is closed at once).
    pub superseded_linger: Duration,
    /// Most open connections, websockets and HTTP together. Beyond it new ones are turned away.
    pub connections_max: usize,
    /// Most open connections of one address; never more than half of `connections_max`, so that no one
    /// address can take them all.
    pub connections_per_address_max: usize,
    /// Most open websockets of one address. Beyond it: 429.
    ///
    /// Everybody in a house, an office or behind a mobile network may be one address.
    pub websockets_per_address_max: usize,
    /// New websockets of one address, each second for long. Beyond it: 429.
    ///
    /// Each hello of a known user agent reads the database; nobody needs a new websocket so often.
    pub websocket_rate_per_sec_max: u32,
    /// The same at once, after a pause: all that may be open come again when the gateway was away.
    pub websocket_burst_max: u32,
    /// New user agents of one address, each minute for long: those that register for the first time.
    /// Beyond it the register is answered with status 429.
    pub newcomer_rate_per_min_max: u32,
    /// The same at once, after a pause: a whole school that is set up in one afternoon.
    pub newcomer_burst_max: u32,
    /// New subscriptions of one address, each minute for long. Beyond it: status 429.
    pub registration_rate_per_min_max: u32,
    /// The same at once, after a pause: one user agent with as many as it may have.
    pub registration_burst_max: u32,
    /// Most subscriptions of one user agent.
    pub subscriptions_per_user_agent_max: u32,
    /// Push messages to one subscription, each second for long; those that are acked before they are
    /// written do not count.
    ///
    /// An application that has more to say fills a screen with notifications, and a memory card: one
    /// gone wild that replaces its own by topic writes 50 pages a second and not thousands.
    pub subscription_rate_per_sec_max: u32,
    /// The same at once, after a pause: twice what may be stored, so that whoever fills a queue hears of
    /// that and not of this.
    pub subscription_burst_max: u32,
    /// Push messages to one user agent, each second for long: four subscriptions' worth.
    pub user_agent_rate_per_sec_max: u32,
    /// The same at once, after a pause.
    pub user_agent_burst_max: u32,
    /// Push messages from one address, each second for long.
    ///
    /// A Matrix server or a relay is one address for many people, so this only keeps one sender
    /// from taking the whole board, which does about as much.
    pub address_rate_per_sec_max: u32,
    /// The same at once, after a pause.
    pub address_burst_max: u32,
    /// Most stored push messages of one subscription. Beyond it: 429.
    ///
    /// Half of what its user agent may have: one noisy application must not keep the others' out.
    pub messages_per_subscription_max: u32,
    /// Most stored bytes of one subscription. Beyond it: 429.
    pub bytes_per_subscription_max: u64,
    /// Most stored push messages of one user agent. Beyond it: 429.
    pub messages_per_user_agent_max: u32,
    /// Most stored bytes of one user agent. Beyond it: 429.
    pub bytes_per_user_agent_max: u64,
    /// Most stored bytes in all. Beyond it: 503.
    pub stored_bytes_max: u64,
    /// Most bytes of push messages held in memory: waiting for acks or for the storage thread.
    /// Beyond it: 503.
    pub held_bytes_max: usize,
    /// Most operations queued for the storage thread. Beyond it push messages get 503.
    pub store_queue_max: usize,
    /// Most push messages that may be un-acked on one websocket before newer ones wait in storage.
    pub unacked_per_session_max: usize,
    /// A user agent that reads so slowly that this many bytes wait for its socket gets newer ones
    /// from storage, when it has caught up.
    pub unsent_bytes_max: usize,
    /// Longest an outgoing frame, or an answer, may take before the peer counts as gone.
    pub write_timeout: Duration,
    /// How often the whole database is looked through for damage.
    ///
    /// Once a day: reading 100 MB takes a memory card some seconds.
    pub database_check_interval: Duration,
    /// Longest until the head of the next request has arrived, idle time included, and the same
    /// again for its body.
    pub request_timeout: Duration,
}

impl Limits {
    /// Most open connections of one address, whatever else is configured.
    pub fn connections_of_one_address_max(&self) -> usize {
        let half = self.connections_max.checked_div(2).unwrap_or(0).max(1);
        self.connections_per_address_max.min(half)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(5),
            simplepush_hello_timeout: Duration::from_secs(30),
            redelivery_interval: Duration::from_secs(60),
            udp_idle: Duration::from_secs(10),
            ping_interval: Duration::from_secs(300),
            pong_timeout: Duration::from_secs(4),
            app_ping_interval_min: Duration::from_secs(10),
            ack_window: Duration::from_millis(100),
            delete_delay: Duration::from_millis(500),
            superseded_linger: Duration::from_secs(2),
            connections_max: 4096,
            connections_per_address_max: 2048,
            websockets_per_address_max: 1024,
            websocket_rate_per_sec_max: 20,
            websocket_burst_max: 1024,
            newcomer_rate_per_min_max: 10,
            newcomer_burst_max: 200,
            registration_rate_per_min_max: 60,
            registration_burst_max: 1000,
            subscriptions_per_user_agent_max: 1000,
            subscription_rate_per_sec_max: 50,
            subscription_burst_max: 2000,
            user_agent_rate_per_sec_max: 200,
            user_agent_burst_max: 10_000,
            address_rate_per_sec_max: 2000,
            address_burst_max: 20_000,
            messages_per_subscription_max: 1000,
            bytes_per_subscription_max: 4 << 20,
            messages_per_user_agent_max: 2000,
            bytes_per_user_agent_max: 8 << 20,
            stored_bytes_max: 1 << 30,
            held_bytes_max: 16 << 20,
            store_queue_max: 4096,
            unacked_per_session_max: 512,
            unsent_bytes_max: 64 << 10,
            write_timeout: Duration::from_secs(30),
            database_check_interval: Duration::from_secs(24 * 60 * 60),
            request_timeout: Duration::from_secs(15),
        }
    }
}
