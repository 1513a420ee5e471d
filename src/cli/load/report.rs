//! What a run came to, for people and as JSON.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::arguments::Options;
use super::histogram::Histogram;
use super::ledger::Counts;
use super::scripts;
use super::server::Usage;
use super::world::World;
use crate::cli::text::one_line;
use crate::model::dialect::Dialect;

/// The percentiles that are shown: name, and how many of a thousand.
const PERCENTILES: [(&str, u64); 4] = [("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999)];

/// What the push service used, as it was read three times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    /// Before anybody connected.
    pub(super) before: Usage,
    /// When all were connected.
    pub(super) connected: Usage,
    /// When all was over.
    pub(super) end: Usage,
}

/// The report, ready to be printed.
pub(super) fn report(world: &World, took: Duration, used: Option<Used>) -> String {
    let json = as_json(world, took, used);
    if world.options.json {
        return format!("{json}\n");
    }
    let mut text = String::new();
    lines(&json, &mut text);
    text
}

/// The line that says how it goes.
pub(super) fn progress(world: &World, secs: u64) -> String {
    let ledger = world.ledger.borrow();
    let Counts { posted, acked, .. } = ledger.counts;
    let failed: u64 = ledger.faults().map(|(_, count, _)| count).sum();
    let p99 = ledger.to_frame.per_mille_micros(990) as f64 / 1e3;
    let (open, agents) = (world.open.get(), world.options.agents);
    format!(
        "{secs} s: {open} of {agents} connected, {posted} sent, {acked} acked, {failed} failed checks, \
         p99 {p99:.1} ms"
    )
}

fn as_json(world: &World, took: Duration, used: Option<Used>) -> Value {
    let ledger = world.ledger.borrow();
    let Options {
        strategies,
        dialect,
        agents,
        ..
    } = &world.options;
    let dialect = match dialect {
        Dialect::WebPush => "webpush",
        Dialect::SimplePush => "simplepush",
    };
    let secs = took.as_secs_f64();
    // Without a message nothing is divided by nothing.
    let answering_secs = ledger.to_answer.span().as_secs_f64().max(f64::MIN_POSITIVE);
    let counts = &ledger.counts;
    let faults = ledger.faults().map(|(fault, count, words)| {
        let told = json!({"count": count, "first": one_line(words)});
        (fault.name().to_owned(), told)
    });
    let faults: Map<_, _> = faults.collect();
    let statuses = counts.statuses.iter();
    let statuses: Map<_, _> = statuses
        .map(|(status, count)| (status.to_string(), json!(count)))
        .collect();
    let mut report = json!({
        "strategy": scripts::name_of(strategies),
        "dialect": dialect,
        "agents": agents,
        "secs": rounded(secs),
        "messages": {
            "posted": counts.posted,
            "accepted": counts.accepted,
            "refused": counts.refused,
            "received": counts.received,
            "acked": counts.acked,
            "superseded": counts.superseded,
            "redelivered": counts.redelivered,
            "out_of_order": counts.out_of_order,
            "bytes": counts.bytes,
            "acked_per_sec": rounded(counts.acked as f64 / secs),
            "answered_per_sec": rounded(ledger.to_answer.count() as f64 / answering_secs),
        },
        "statuses": statuses,
        "millis": {
            "post_to_frame": times(&ledger.to_frame),
            "post_to_answer": times(&ledger.to_answer),
            "connect": times(&world.connect_time.borrow()),
            "ping": times(&world.ping_time.borrow()),
            "drain": times(&world.drain_time.borrow()),
        },
        "failed_checks": faults,
    });
    if let Some(used) = used
        && let Some(object) = report.as_object_mut()
    {
        let acked = counts.acked.saturating_add(counts.superseded);
        object.insert("server".to_owned(), server(used, *agents, acked, secs));
    }
    report
}

/// `null` where nothing was measured.
fn times(histogram: &Histogram) -> Value {
    if histogram.count() == 0 {
        return Value::Null;
    }
    let millis = |micros: u64| json!(micros as f64 / 1e3);
    let percentiles = PERCENTILES.map(|(name, per_mille)| {
        let time = histogram.per_mille_micros(per_mille);
        (name.to_owned(), millis(time))
    });
    let mut all: Map<_, _> = percentiles.into_iter().collect();
    all.insert("max".to_owned(), millis(histogram.max_micros()));
    all.insert("count".to_owned(), json!(histogram.count()));
    let span = histogram.span().as_secs_f64();
    all.insert("span".to_owned(), json!(rounded(span * 1e3)));
    Value::Object(all)
}

/// From the moment that all were connected to the end; memory for each user agent, before that.
fn server(used: Used, agents: u32, acked: u64, secs: f64) -> Value {
    let Used {
        before,
        connected,
        end,
    } = used;
    let grown = connected
        .anonymous_bytes
        .saturating_sub(before.anonymous_bytes);
    let cpu = end.cpu.saturating_sub(connected.cpu);
    let wakeups = end.wakeups.saturating_sub(connected.wakeups);
    let each = |amount: f64| match acked {
        0 => Value::Null,
        count => json!(rounded(amount / count as f64)),
    };
    let since = |of: fn(Usage) -> u64| of(end).saturating_sub(of(connected)) as f64;
    json!({
        "resident_bytes": end.resident_bytes,
        "anonymous_bytes": end.anonymous_bytes,
        "anonymous_bytes_for_each_user_agent": rounded(grown as f64 / f64::from(agents)),
        "cpu_secs": rounded(cpu.as_secs_f64()),
        "cpu_micros_for_each_acked": each(cpu.as_secs_f64() * 1e6),
        "wakeups_per_sec": rounded(wakeups as f64 / secs),
        "system_calls_for_each_acked": each(since(|usage| usage.system_calls)),
        "written_bytes": since(|usage| usage.written_bytes),
        "stored_bytes": since(|usage| usage.stored_bytes),
        "stored_bytes_for_each_acked": each(since(|usage| usage.stored_bytes)),
    })
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// The same for people: one line for each table, its values behind it.
fn lines(report: &Value, text: &mut String) {
    let Some(object) = report.as_object() else {
        return;
    };
    let single = object.iter().filter(|(_, value)| !value.is_object());
    write_line("run", single, text);
    for (name, value) in object {
        match value {
            Value::Object(table) if table.values().any(Value::is_object) => {
                for (inner, value) in table {
                    if let Value::Object(values) = value {
                        write_line(&format!("{name}.{inner}"), values.iter(), text);
                    }
                }
            }
            Value::Object(table) => write_line(name, table.iter(), text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {}
        }
    }
}

fn write_line<'a>(
    name: &str,
    values: impl Iterator<Item = (&'a String, &'a Value)>,
    text: &mut String,
) {
    let shown = values.filter(|(_, value)| !value.is_null());
    let words: Vec<String> = shown
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let words = if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(" ")
    };
    // A string can be written to.
    let _ = writeln!(text, "{name}: {words}");
}
