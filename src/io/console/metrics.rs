//! The report as numbers with names, in Prometheus' text format (version 0.0.4).

use std::fmt::Write;

use super::report::{Report, State};
use crate::engine::counters::{Counters, LINK_STATES, LinkState, Snapshot};
use crate::storage::Totals;

/// What the format is called in `Content-Type`.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    /// Ends in `_total` if it only grows since the start, in its unit if it has one.
    name: &'static str,
    /// For people; also on the page.
    pub(super) help: &'static str,
    pub(super) value: u64,
}

impl Metric {
    const fn new(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, value }
    }

    fn kind(&self) -> &'static str {
        if self.name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        }
    }
}

/// The whole answer. What is not known now is left out, as the format wants it.
pub(super) fn text(report: &Report, version: &str) -> String {
    let mut metrics = process(report);
    if let Some(snapshot) = &report.snapshot {
        metrics.extend(gauges(snapshot, report.state()));
        metrics.extend(counters(&snapshot.counters));
    }
    if let Ok(totals) = &report.totals {
        metrics.extend(stored(totals));
    }
    let links = report.snapshot.as_ref().and_then(|s| s.upstream.as_deref());
    if let Some(links) = links {
        metrics.push(Metric::new(
            "edgepush_upstream_borrowed_subscriptions",
            "Subscriptions that are borrowed from the main service.",
            links.iter().map(|link| link.borrowed).sum(),
        ));
        metrics.push(Metric::new(
            "edgepush_upstream_user_agents_to_tell",
            "User agents that have lost subscriptions of the main service and do not know it yet.",
            report.snapshot.as_ref().map_or(0, |s| s.upstream_to_tell),
        ));
    }
    let mut text = format!(
        "# HELP edgepush_build_info Which edgepush this is.\n\
         # TYPE edgepush_build_info gauge\n\
         edgepush_build_info{{version=\"{version}\"}} 1\n"
    );
    for metric in metrics {
        let Metric { name, help, value } = metric;
        let kind = metric.kind();
        writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        )
        .expect("a string can be written to");
    }
    text.push_str(&links.map_or_else(String::new, states));
    text
}

/// How many links to the main service are in each state.
fn states(links: &[LinkState]) -> String {
    let mut text = "# HELP edgepush_upstream_links Links to the main service.\n\
         # TYPE edgepush_upstream_links gauge\n"
        .to_owned();
    for state in LINK_STATES {
        let count = links.iter().filter(|link| link.state == state).count();
        writeln!(text, "edgepush_upstream_links{{state=\"{state}\"}} {count}")
            .expect("a string can be written to");
    }
    text
}

/// What is known without the event loop and the database.
fn process(report: &Report) -> Vec<Metric> {
    let mut metrics = vec![
        Metric::new(
            "edgepush_event_loop_answers",
            "1 if the event loop answers in time, 0 if it is stuck.",
            u64::from(report.snapshot.is_some()),
        ),
        Metric::new(
            "edgepush_database_readable",
            "1 if the console can read the database, else 0.",
            u64::from(report.totals.is_ok()),
        ),
        Metric::new(
            "edgepush_database_damaged",
            "1 if the database has turned out to be damaged, else 0.",
            u64::from(report.is_damaged()),
        ),
        Metric::new(
            "edgepush_databases_set_aside",
            "Damaged databases that were replaced and lie in the data directory.",
            u64::try_from(report.set_aside.len()).unwrap_or(u64::MAX),
        ),
    ];
    metrics.extend(report.written_bytes.map(|bytes| {
        Metric::new(
            "edgepush_storage_written_bytes_total",
            "Bytes that the storage thread has written.",
            bytes,
        )
    }));
    metrics.extend(report.resident_bytes.map(|bytes| {
        Metric::new(
            "process_resident_memory_bytes",
            "Memory that the process takes.",
            bytes,
        )
    }));
    metrics
}

/// Taken apart in full, so that what the engine will count one day is not forgotten here.
fn gauges(snapshot: &Snapshot, state: State) -> [Metric; 10] {
    let Snapshot {
        counters: _,
        user_agents_connected,
        websockets_open,
        user_agents_asleep,
        messages_held,
        messages_unacked,
        held_bytes,
        store_queue,
        uptime_secs,
        storage_fault: _,
        wall_clock_trusted,
        upstream: _,
        upstream_to_tell: _,
    } = snapshot;
    [
        Metric::new(
            "edgepush_user_agents_connected",
            "User agents connected.",
            *user_agents_connected,
        ),
        Metric::new(
            "edgepush_websockets_open",
            "Open websockets, those without a hello included.",
            *websockets_open,
        ),
        Metric::new(
            "edgepush_user_agents_asleep",
            "SimplePush user agents that wait for a wake-up datagram.",
            *user_agents_asleep,
        ),
        Metric::new(
            "edgepush_messages_held",
            "Push messages sent, not acked and not written.",
            *messages_held,
        ),
        Metric::new(
            "edgepush_messages_unacked",
            "Push messages sent and not acked, held or stored.",
            *messages_unacked,
        ),
        Metric::new(
            "edgepush_held_bytes",
            "Bytes of the push messages held and of those waiting for the storage.",
            *held_bytes,
        ),
        Metric::new(
            "edgepush_storage_queue_operations",
            "Operations waiting for the storage thread.",
            *store_queue,
        ),
        Metric::new(
            "edgepush_uptime_seconds",
            "Time since the start.",
            *uptime_secs,
        ),
        Metric::new(
            "edgepush_storage_fault",
            "1 if the last write failed, the disk is full or the database damaged, else 0.",
            u64::from(matches!(state, State::StorageFault(_))),
        ),
        Metric::new(
            "edgepush_wall_clock_trusted",
            "1 if VAPID tokens are refused by their expiry, 0 if the wall clock is not known to be right.",
            u64::from(*wall_clock_trusted),
        ),
    ]
}

/// Taken apart in full, as in [`gauges`].
fn stored(totals: &Totals) -> [Metric; 4] {
    let Totals {
        subscriptions,
        user_agents,
        messages,
        file_bytes,
    } = *totals;
    [
        Metric::new(
            "edgepush_stored_subscriptions",
            "Subscriptions.",
            subscriptions,
        ),
        Metric::new(
            "edgepush_stored_user_agents",
            "User agents that have a subscription.",
            user_agents,
        ),
        Metric::new(
            "edgepush_stored_messages",
            "Push messages waiting in the storage, some expired ones included.",
            messages,
        ),
        Metric::new(
            "edgepush_storage_file_bytes",
            "Size of the database and its write-ahead log.",
            file_bytes,
        ),
    ]
}

macro_rules! counters {
    ($($field:ident: $help:literal,)*) => {
        /// Sums since the start. Taken apart in full, as in [`gauges`].
        pub(super) fn counters(counters: &Counters) -> Vec<Metric> {
            let Counters { $($field),* } = *counters;
            vec![$(Metric::new(
                concat!("edgepush_", stringify!($field), "_total"),
                $help,
                $field,
            )),*]
        }
    };
}

counters! {
    messages_accepted: "Push messages and version updates accepted (200, 201, 202).",
    messages_refused: "Push messages refused for what they are or where they went (4xx).",
    messages_turned_away: "Push messages turned away: the gateway was full or faulty (429, 503).",
    messages_over_subscription_rate: "Push messages refused (429): too fast for one subscription.",
    messages_over_user_agent_rate: "Push messages refused (429): too fast for one user agent.",
    messages_over_address_rate: "Push messages refused (429): too fast from one address.",
    messages_over_subscription_quota: "Push messages refused (429): too many wait for the subscription.",
    messages_over_user_agent_quota: "Push messages refused (429): too many wait for the user agent.",
    vapid_verified: "VAPID tokens whose signature was checked and good.",
    vapid_remembered: "VAPID tokens that had been verified before.",
    vapid_refused: "Authorization headers that were refused.",
    notifications_sent: "Notifications sent to user agents, repeated ones included.",
    messages_acked: "Push messages that a user agent acked.",
    messages_never_written: "Push messages acked in time, never written to flash.",
    messages_held_back: "Push messages less urgent than their connected user agent wants for now.",
    messages_stored: "Push messages written to flash.",
    acks_undecryptable: "Acks that say: cannot be decrypted; the application server is at fault.",
    acks_not_delivered: "Acks that say: seen before, or of an unknown subscription.",
    nacks: "Nacks: the application failed.",
    messages_expired: "Push messages that expired in the storage.",
    registrations: "Subscriptions made.",
    registrations_over_user_agent_max: "Registrations refused: the user agent has too many.",
    registrations_over_address_rate: "Registrations refused: too fast from one address.",
    newcomers_over_address_rate: "Registrations of new user agents refused: too fast from one address.",
    unregistrations: "Subscriptions ended.",
    websockets_forbidden: "Websockets refused (403) for where the user agent is.",
    websockets_over_address_max: "Websockets refused (429): too many from one address.",
    websockets_over_address_rate: "Websockets refused (429): too fast from one address.",
    connections_over_max: "Connections turned away: too many are open.",
    connections_over_address_max: "Connections turned away: too many are open from one address.",
    connections_over_address_rate: "Connections turned away: too fast from one address.",
    accepts_failed: "Connections that the system could not give: no descriptor is left.",
    handshakes_failed: "Connections that ended before their TLS handshake did.",
    requests_malformed: "Requests that are no HTTP, or with too large a head (400, 414, 431).",
    requests_timed_out: "Requests that did not arrive in time.",
    writes_timed_out: "Connections ended: the peer did not read in time what it was sent.",
    websockets_faulted: "Websockets closed for a fault of the user agent.",
    websockets_timed_out: "Websockets closed because they fell silent.",
    wakeups_sent: "Wake-up datagrams sent to SimplePush user agents that sleep.",
    storage_faults: "Writes that the storage refused.",
    upstream_connects: "Attempts to connect to the main service.",
    upstream_redirects: "Redirects of the main service that were followed.",
    upstream_registrations: "Subscriptions borrowed from the main service.",
    upstream_registrations_failed: "Registers that the main service refused or did not answer in time.",
    upstream_unregistrations: "Unregistrations that the main service confirmed.",
    upstream_messages: "Push messages from the main service, repeated ones included.",
    upstream_duplicates: "Push messages from the main service that were known already.",
    upstream_acks: "Acks sent to the main service.",
    upstream_resets: "Names that the main service has replaced, with subscriptions behind them.",
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::store::StoreError;

    fn full_report() -> Report {
        Report {
            snapshot: Some(Snapshot {
                counters: Counters {
                    messages_acked: 17,
                    ..Counters::default()
                },
                uptime_secs: 90,
                ..Snapshot::default()
            }),
            totals: Ok(Totals {
                subscriptions: 3,
                user_agents: 2,
                messages: u64::MAX,
                file_bytes: 4096,
            }),
            watched_fault: None,
            set_aside: Vec::new(),
            written_bytes: Some(8192),
            resident_bytes: Some(1 << 20),
        }
    }

    /// Name to kind and value; panics on anything that the format does not allow.
    fn parse(text: &str) -> BTreeMap<&str, (&str, u64)> {
        assert!(text.ends_with('\n'));
        let mut metrics = BTreeMap::new();
        let mut lines = text.lines();
        while let Some(help) = lines.next() {
            let (name, help) = help
                .strip_prefix("# HELP ")
                .unwrap()
                .split_once(' ')
                .unwrap();
            assert!(!help.is_empty() && !help.contains('\\'), "{name}");
            let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
            let kind = kind.strip_prefix(name).unwrap().trim_start();
            assert!(["counter", "gauge"].contains(&kind), "{name} {kind}");
            let (series, value) = lines.next().unwrap().rsplit_once(' ').unwrap();
            assert_eq!(series.split('{').next(), Some(name));
            let twice = metrics.insert(name, (kind, value.parse().unwrap()));
            assert_eq!(twice, None, "{name}");
        }
        metrics
    }

    #[test]
    fn every_metric_has_help_and_type_once_and_a_value() {
        let text = text(&full_report(), "1.2.3");
        let metrics = parse(&text);
        let counters = counters(&Counters::default()).len();
        let rest = [
            "build info",
            "loop",
            "database",
            "damaged",
            "aside",
            "written",
            "memory",
        ]
        .len()
            + 10
            + 4;
        assert_eq!(metrics.len(), counters + rest);
        assert_eq!(
            metrics["edgepush_messages_acked_total"],
            ("counter", 17),
            "{text}"
        );
        assert_eq!(metrics["edgepush_uptime_seconds"], ("gauge", 90));
        assert_eq!(metrics["edgepush_stored_messages"], ("gauge", u64::MAX));
        assert!(text.contains("\nedgepush_build_info{version=\"1.2.3\"} 1\n"));
    }

    #[test]
    fn what_is_not_known_is_left_out_instead_of_zero() {
        let text = text(
            &Report {
                snapshot: None,
                totals: Err(StoreError::Io),
                watched_fault: Some(StoreError::Corrupt),
                set_aside: vec![String::new(); 2],
                written_bytes: None,
                resident_bytes: None,
            },
            "1.2.3",
        );
        let names: Vec<_> = parse(&text).into_iter().collect();
        let expected = [
            ("edgepush_build_info", ("gauge", 1)),
            ("edgepush_database_damaged", ("gauge", 1)),
            ("edgepush_database_readable", ("gauge", 0)),
            ("edgepush_databases_set_aside", ("gauge", 2)),
            ("edgepush_event_loop_answers", ("gauge", 0)),
        ];
        assert_eq!(names, expected);
    }
}
