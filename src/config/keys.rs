//! Every key of the file: its table, its name, what it takes and where that goes.

use std::time::Duration;

use crate::model::access::Network;
use crate::model::join_token::JoinToken;
use crate::model::limits::{BODY_BYTES_MAX, Limits, MESSAGE_OVERHEAD_BYTES};
use crate::model::upstream::Endpoints;

use super::Config;
use super::values::{self, SetText};

/// One key of the configuration file.
pub(super) struct Key {
    /// The table that it stands in; empty for the top of the file.
    pub table: &'static str,
    /// Its name within the table.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
}

/// What a key takes.
pub(super) enum Kind {
    /// Text in quotes.
    Text(SetText),
    /// `true` or `false`.
    Switch(fn(&mut Config, bool)),
    /// One of these whole numbers.
    OneOf {
        numbers: &'static [u64],
        set: fn(&mut Config, u64),
    },
    /// A whole number within bounds, both included, that is no limit.
    Whole {
        min: u64,
        max: u64,
        set: fn(&mut Config, u64),
    },
    /// A list of networks.
    Networks {
        may_be_empty: bool,
        set: fn(&mut Config, Vec<Network>),
    },
    /// Which endpoints are borrowed.
    Endpoints(fn(&mut Config, Endpoints)),
    /// A list of secrets.
    JoinTokens(fn(&mut Config, Vec<JoinToken>)),
    /// A whole number within bounds, both included.
    Number {
        min: u64,
        max: u64,
        set: fn(&mut Limits, u64),
    },
}

/// The tables of the file.
pub(super) const TABLES: [&str; 9] = [
    "access",
    "broadcasts",
    "limits",
    "simplepush",
    "storage",
    "tls",
    "unifiedpush",
    "upstream",
    "vapid",
];

/// The key of this name in this table.
pub(super) fn find(table: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.table == table && key.name == name)
}

/// Least that a limit in bytes may be: room for a large push message with its headers, twice.
const BYTES_MIN: u64 = 16 << 10;
const _: () = assert!(BYTES_MIN as usize >= 2 * (BODY_BYTES_MAX + MESSAGE_OVERHEAD_BYTES));

/// Most bytes that a limit on memory may be: a 32-bit board has no more to give to one thing.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// Why each bound is where it is: `docs/configuration.md`, which the tests below compare with this.
pub(super) static KEYS: [Key; 76] = [
    text("listen", values::set_listen),
    text("console", values::set_console),
    text("data", values::set_data),
    text("public_url", values::set_public_url),
    text("log", values::set_log),
    text("durability", values::set_durability),
    text("board", values::set_board),
    key(
        "access",
        "websocket_from",
        Kind::Networks {
            may_be_empty: false,
            set: |c, networks| c.access.websocket_from = networks,
        },
    ),
    key(
        "access",
        "join_tokens",
        Kind::JoinTokens(|c, tokens| c.access.join_tokens = tokens),
    ),
    key(
        "access",
        "trusted_proxies",
        Kind::Networks {
            may_be_empty: true,
            set: |c, networks| c.access.trusted_proxies = networks,
        },
    ),
    key("broadcasts", "url", Kind::Text(values::set_broadcasts_url)),
    key(
        "broadcasts",
        "file",
        Kind::Text(values::set_broadcasts_file),
    ),
    key(
        "broadcasts",
        "poll_secs",
        Kind::Whole {
            min: 1,
            max: 86_400,
            set: |c, n| c.broadcasts.poll = secs(n),
        },
    ),
    key(
        "simplepush",
        "offline_status",
        Kind::OneOf {
            numbers: &[200, 202],
            set: values::set_offline_status,
        },
    ),
    key(
        "simplepush",
        "udp_wakeup",
        Kind::Switch(|c, on| c.simplepush.udp_wakeup = on),
    ),
    key(
        "simplepush",
        "udp_from",
        Kind::Networks {
            may_be_empty: false,
            set: |c, networks| c.simplepush.udp_from = networks,
        },
    ),
    key("simplepush", "udp_proxy", Kind::Text(values::set_udp_proxy)),
    key("tls", "certificate", Kind::Text(values::set_certificate)),
    key("tls", "key", Kind::Text(values::set_key)),
    key(
        "tls",
        "only",
        Kind::Switch(|config, on| config.tls.only = on),
    ),
    key(
        "unifiedpush",
        "lenient",
        Kind::Switch(|config, on| config.unifiedpush.lenient = on),
    ),
    key(
        "unifiedpush",
        "matrix",
        Kind::Switch(|config, on| config.unifiedpush.matrix = on),
    ),
    upstream("url", Kind::Text(values::set_upstream_url)),
    upstream("plain", Kind::Switch(|c, on| c.upstream.plain = on)),
    upstream("ca", Kind::Text(values::set_upstream_ca)),
    upstream(
        "endpoints",
        Kind::Endpoints(|c, endpoints| c.upstream.choice.endpoints = endpoints),
    ),
    upstream("identity", Kind::Text(values::set_upstream_identity)),
    upstream("unreachable", Kind::Text(values::set_upstream_unreachable)),
    upstream(
        "register_timeout_secs",
        Kind::Whole {
            min: 1,
            max: 8,
            set: |c, n| c.upstream.choice.register_timeout = secs(n),
        },
    ),
    upstream(
        "ping_after_secs",
        Kind::Whole {
            min: 60,
            max: 1800,
            set: |c, n| c.upstream.choice.ping_after = secs(n),
        },
    ),
    upstream(
        "reconnect_secs_max",
        Kind::Whole {
            min: 10,
            max: 3600,
            set: |c, n| c.upstream.choice.reconnect_max = secs(n),
        },
    ),
    upstream(
        "connects_per_min_max",
        Kind::Whole {
            min: 2,
            max: 600,
            set: |c, n| c.upstream.choice.connects_per_min_max = count(n),
        },
    ),
    upstream(
        "broadcasts",
        Kind::Switch(|c, on| c.upstream.choice.broadcasts = on),
    ),
    key("vapid", "clock", Kind::Text(values::set_vapid_clock)),
    number("hello_timeout_secs", 1, 300, |l, n| {
        l.hello_timeout = secs(n)
    }),
    number("simplepush_hello_timeout_secs", 1, 300, |l, n| {
        l.simplepush_hello_timeout = secs(n)
    }),
    number("redelivery_interval_secs", 1, 86_400, |l, n| {
        l.redelivery_interval = secs(n)
    }),
    number("udp_idle_secs", 1, 3600, |l, n| l.udp_idle = secs(n)),
    number("ping_interval_secs", 2, 86_400, |l, n| {
        l.ping_interval = secs(n)
    }),
    number("pong_timeout_secs", 1, 300, |l, n| l.pong_timeout = secs(n)),
    number("app_ping_interval_secs_min", 0, 45, |l, n| {
        l.app_ping_interval_min = secs(n)
    }),
    number("ack_window_millis", 0, 10_000, |l, n| {
        l.ack_window = millis(n)
    }),
    number("delete_delay_millis", 0, 60_000, |l, n| {
        l.delete_delay = millis(n)
    }),
    number("superseded_linger_secs", 1, 60, |l, n| {
        l.superseded_linger = secs(n)
    }),
    number("connections_max", 2, 1_000_000, |l, n| {
        l.connections_max = size(n)
    }),
    number("connections_per_address_max", 1, 1_000_000, |l, n| {
        l.connections_per_address_max = size(n);
    }),
    number("websockets_per_address_max", 1, 1_000_000, |l, n| {
        l.websockets_per_address_max = size(n);
    }),
    number("websocket_rate_per_sec_max", 1, 1_000_000, |l, n| {
        l.websocket_rate_per_sec_max = count(n);
    }),
    number("websocket_burst_max", 1, 1_000_000, |l, n| {
        l.websocket_burst_max = count(n);
    }),
    number("newcomer_rate_per_min_max", 1, 1_000_000, |l, n| {
        l.newcomer_rate_per_min_max = count(n);
    }),
    number("newcomer_burst_max", 1, 1_000_000, |l, n| {
        l.newcomer_burst_max = count(n);
    }),
    number("registration_rate_per_min_max", 1, 1_000_000, |l, n| {
        l.registration_rate_per_min_max = count(n);
    }),
    number("registration_burst_max", 1, 1_000_000, |l, n| {
        l.registration_burst_max = count(n);
    }),
    number("subscriptions_per_user_agent_max", 1, 100_000, |l, n| {
        l.subscriptions_per_user_agent_max = count(n);
    }),
    number("subscription_rate_per_sec_max", 1, 1_000_000, |l, n| {
        l.subscription_rate_per_sec_max = count(n);
    }),
    number("subscription_burst_max", 1, 1_000_000, |l, n| {
        l.subscription_burst_max = count(n);
    }),
    number("user_agent_rate_per_sec_max", 1, 1_000_000, |l, n| {
        l.user_agent_rate_per_sec_max = count(n);
    }),
    number("user_agent_burst_max", 1, 1_000_000, |l, n| {
        l.user_agent_burst_max = count(n);
    }),
    number("address_rate_per_sec_max", 1, 1_000_000, |l, n| {
        l.address_rate_per_sec_max = count(n);
    }),
    number("address_burst_max", 1, 1_000_000, |l, n| {
        l.address_burst_max = count(n);
    }),
    number("messages_per_subscription_max", 1, 1_000_000, |l, n| {
        l.messages_per_subscription_max = count(n);
    }),
    number("bytes_per_subscription_max", BYTES_MIN, 1 << 40, |l, n| {
        l.bytes_per_subscription_max = n;
    }),
    number("messages_per_user_agent_max", 1, 1_000_000, |l, n| {
        l.messages_per_user_agent_max = count(n);
    }),
    number("bytes_per_user_agent_max", BYTES_MIN, 1 << 40, |l, n| {
        l.bytes_per_user_agent_max = n
    }),
    number("stored_bytes_max", BYTES_MIN, 1 << 40, |l, n| {
        l.stored_bytes_max = n
    }),
    number("held_bytes_max", BYTES_MIN, MEMORY_BYTES_MAX, |l, n| {
        l.held_bytes_max = size(n)
    }),
    number("store_queue_max", 1, 1_000_000, |l, n| {
        l.store_queue_max = size(n)
    }),
    number("unacked_per_session_max", 1, 100_000, |l, n| {
        l.unacked_per_session_max = size(n)
    }),
    number("unsent_bytes_max", BYTES_MIN, 16 << 20, |l, n| {
        l.unsent_bytes_max = size(n)
    }),
    number("write_timeout_secs", 1, 600, |l, n| {
        l.write_timeout = secs(n)
    }),
    number("database_check_interval_secs", 1, 31_536_000, |l, n| {
        l.database_check_interval = secs(n)
    }),
    number("request_timeout_secs", 1, 600, |l, n| {
        l.request_timeout = secs(n)
    }),
    key(
        "storage",
        "page_bytes",
        Kind::OneOf {
            numbers: &[4096, 8192, 16_384, 32_768, 65_536],
            set: |c, n| c.storage.page_bytes = count(n),
        },
    ),
    storage("cache_bytes", BYTES_MIN, MEMORY_BYTES_MAX, |c, n| {
        c.storage.cache_bytes = count(n);
    }),
    storage("checkpoint_pages", 10, 100_000, |c, n| {
        c.storage.checkpoint_pages = count(n);
    }),
    storage("journal_bytes_max", BYTES_MIN, MEMORY_BYTES_MAX, |c, n| {
        c.storage.journal_bytes_max = count(n);
    }),
];

const fn text(name: &'static str, set: SetText) -> Key {
    key("", name, Kind::Text(set))
}

const fn number(name: &'static str, min: u64, max: u64, set: fn(&mut Limits, u64)) -> Key {
    key("limits", name, Kind::Number { min, max, set })
}

const fn upstream(name: &'static str, kind: Kind) -> Key {
    key("upstream", name, kind)
}

const fn storage(name: &'static str, min: u64, max: u64, set: fn(&mut Config, u64)) -> Key {
    key("storage", name, Kind::Whole { min, max, set })
}

const fn key(table: &'static str, name: &'static str, kind: Kind) -> Key {
    Key { table, name, kind }
}

const fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

const fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// The bounds of every key that is a size fit a `usize` of 32 bits.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The bounds of every key that is a count fit.
fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::Flags;
    use super::super::boards::{ChosenBy, Machine};
    use super::*;

    /// A row of a table of `docs/configuration.md`: table, name, default, bounds.
    type Row = (&'static str, &'static str, &'static str, &'static str);

    fn documented() -> Vec<Row> {
        let mut rows = Vec::new();
        for line in include_str!("../../docs/configuration.md").lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            if let ["", key, default, bounds, _why, ""] = cells[..]
                && let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'))
            {
                let (table, name) = key.split_once('.').unwrap_or(("", key));
                rows.push((table, name, default.trim_matches('`'), bounds));
            }
        }
        assert!(!rows.is_empty(), "no row of the documentation was read");
        rows
    }

    fn load(text: &str) -> Result<Config, String> {
        let file = Some((Path::new("f"), text));
        Config::load(file, &Flags::default(), &Machine::PC).map_err(|f| f.to_string())
    }

    fn file_with(table: &str, name: &str, value: &str) -> String {
        let header = if table.is_empty() {
            String::new()
        } else {
            format!("[{table}]")
        };
        format!("{header}\n{name} = {value}\n")
    }

    #[test]
    fn every_key_is_documented_and_every_documented_key_is_one() {
        let documented: Vec<_> = documented().iter().map(|row| (row.0, row.1)).collect();
        let known: Vec<_> = KEYS.iter().map(|key| (key.table, key.name)).collect();
        assert_eq!(documented, known);
    }

    #[test]
    fn documented_defaults_are_the_real_ones() {
        let mut compared = 0;
        for (table, name, default, _) in documented() {
            if default == "none" {
                let config = Config::default();
                let unset = match name {
                    "public_url" => config.public_url.is_none(),
                    "url" => config.broadcasts.url.is_none() && config.upstream.url.is_none(),
                    "ca" => config.upstream.ca.is_none(),
                    "file" => config.broadcasts.file.is_none(),
                    "udp_proxy" => config.simplepush.udp_proxy.is_none(),
                    "certificate" => config.tls.certificate.is_none(),
                    "key" => config.tls.key.is_none(),
                    "board" => config.board.by == ChosenBy::Target,
                    _ => false,
                };
                assert!(unset, "{name}");
            } else {
                let config = load(&file_with(table, name, default));
                assert_eq!(config, Ok(Config::default()), "{name}");
            }
            compared += 1;
        }
        assert_eq!(compared, KEYS.len());
    }

    #[test]
    fn documented_bounds_are_the_real_ones() {
        let mut compared = 0;
        for (table, name, _, bounds) in documented() {
            if let Some(Key {
                kind: Kind::Number { min, max, .. },
                ..
            }) = find(table, name)
            {
                assert_eq!(bounds, format!("{min} to {max}"), "{name}");
                compared += 1;
            }
        }
        assert_eq!(compared, 38);
    }

    #[test]
    fn every_number_is_taken_at_its_bounds_and_refused_past_them() {
        let numbers = KEYS.iter().filter_map(|key| match key.kind {
            Kind::Number { min, max, .. } => Some((key.name, min, max)),
            Kind::Text(_)
            | Kind::Switch(_)
            | Kind::OneOf { .. }
            | Kind::Whole { .. }
            | Kind::Networks { .. }
            | Kind::Endpoints(_)
            | Kind::JoinTokens(_) => None,
        });
        let (mut lowest, mut highest) = ("[limits]\n".to_owned(), "[limits]\n".to_owned());
        let mut past = 0;
        for (name, min, max) in numbers {
            lowest.push_str(&format!("{name} = {min}\n"));
            highest.push_str(&format!("{name} = {max}\n"));
            for number in [i128::from(min) - 1, i128::from(max) + 1] {
                let fault =
                    format!("f:2: {name} must be a whole number from {min} to {max}, not {number}");
                assert_eq!(
                    load(&file_with("limits", name, &number.to_string())),
                    Err(fault)
                );
                past += 1;
            }
        }
        assert_eq!(past, 76);
        assert!(load(&lowest).is_ok());
        assert!(load(&highest).is_ok());
    }

    #[test]
    fn every_limit_has_its_key_and_every_key_sets_the_limit_of_its_name() {
        // The lines of the pretty debug form between the braces: one for each field.
        let fields = |limits: &Limits| -> Vec<String> {
            format!("{limits:#?}")
                .lines()
                .filter(|line| line.starts_with("    "))
                .map(str::to_owned)
                .collect()
        };
        let before = fields(&Limits::default());
        let mut keyed = BTreeSet::new();
        for key in &KEYS {
            let Kind::Number { max, set, .. } = key.kind else {
                continue;
            };
            let mut limits = Limits::default();
            set(&mut limits, max);
            let after = fields(&limits);
            let changed: Vec<_> = before
                .iter()
                .zip(&after)
                .filter(|(old, new)| old != new)
                .collect();
            let name = key.name.replace("_secs", "").replace("_millis", "");
            assert_eq!(changed.len(), 1, "{name}");
            assert!(changed[0].0.starts_with(&format!("    {name}: ")), "{name}");
            keyed.insert(name);
        }
        assert_eq!(keyed.len(), before.len());
    }
}
