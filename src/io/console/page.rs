//! The report as one page for people: no script, nothing fetched from elsewhere.
//!
//! Puts words into [`TEMPLATE`]; everything that it puts there is text, never markup of others.

use super::Facts;
use super::metrics;
use super::report::{Report, State};
use crate::engine::counters::{LinkState, Snapshot};
use crate::storage::Totals;

/// `{{name}}` stands for a value of [`values`].
const TEMPLATE: &str = include_str!("page.html");
/// Most links that are listed: a page for people.
const LINKS_SHOWN_MAX: usize = 100;
/// In place of what is not known.
const UNKNOWN: &str = "–";

/// The page.
pub(super) fn html(report: &Report, facts: &Facts) -> String {
    fill(TEMPLATE, &values(report, facts))
}

/// The page that subscribes a browser and sends to it.
pub(super) fn try_html(facts: &Facts) -> String {
    let push_address = ("push_address", escape(&facts.push_address));
    fill(include_str!("try.html"), &[push_address])
}

/// Every value, ready for HTML.
fn values(report: &Report, facts: &Facts) -> Vec<(&'static str, String)> {
    let mut values = heading(report, facts);
    values.extend(from_snapshot(report.snapshot.as_ref()));
    values.extend(from_totals(report));
    values.extend(written(report));
    for (_, value) in &mut values {
        *value = escape(value);
    }
    values.push(("rows", rows(report.snapshot.as_ref())));
    let main_service = report.snapshot.as_ref().map(main_service);
    values.push(("links", main_service.unwrap_or_default()));
    values
}

fn heading(report: &Report, facts: &Facts) -> Vec<(&'static str, String)> {
    let state = report.state();
    let (class, word) = match state {
        State::Working => ("ok", "Working"),
        State::Stuck => ("bad", "Stuck"),
        State::StorageFault(_) => ("bad", "Storage fault"),
    };
    let memory = known(report.resident_bytes, bytes);
    vec![
        ("title", format!("edgepush: {}", word.to_lowercase())),
        ("version", facts.version.to_owned()),
        ("state_class", class.to_owned()),
        ("state", word.to_owned()),
        ("reason", state.reason().unwrap_or_default()),
        ("set_aside", set_aside(&report.set_aside)),
        ("uptime_note", format!("in {memory} of memory")),
        ("push_address", facts.push_address.clone()),
    ]
}

/// What the operator has to know of, until the files are gone.
fn set_aside(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!(
        "The database was damaged and was replaced by a new one; what could be read of it was taken \
         over. Messages that waited may be lost, subscriptions are not. It lies in the data directory \
         as {}. This note goes when it is removed.",
        names.join(", ")
    )
}

fn from_snapshot(snapshot: Option<&Snapshot>) -> Vec<(&'static str, String)> {
    let number = |of: fn(&Snapshot) -> u64| known(snapshot.map(of), count);
    let note = |of: fn(&Snapshot) -> String| snapshot.map(of).unwrap_or_default();
    let held = |s: &Snapshot| format!("and {} on their way", count(s.messages_held));
    let never_written = |s: &Snapshot| {
        let number = count(s.counters.messages_never_written);
        format!("{number} never written to flash")
    };
    let turned_away = |s: &Snapshot| {
        let number = count(s.counters.messages_turned_away);
        format!("and {number} turned away")
    };
    vec![
        ("user_agents_connected", number(|s| s.user_agents_connected)),
        ("messages_note", note(held)),
        ("acked", number(|s| s.counters.messages_acked)),
        ("acked_note", note(never_written)),
        ("refused", number(|s| s.counters.messages_refused)),
        ("refused_note", note(turned_away)),
        ("uptime", known(snapshot.map(|s| s.uptime_secs), duration)),
    ]
}

fn from_totals(report: &Report) -> Vec<(&'static str, String)> {
    let totals = report.totals.as_ref().ok();
    let number = |of: fn(&Totals) -> u64| known(totals.map(of), count);
    let fault = |fault| format!("The database cannot be read, so totals are missing: {fault}.");
    let user_agents = |t: &Totals| format!("of {} with a subscription", count(t.user_agents));
    vec![
        (
            "database_fault",
            report.totals.err().map(fault).unwrap_or_default(),
        ),
        (
            "user_agents_note",
            totals.map(user_agents).unwrap_or_default(),
        ),
        ("subscriptions", number(|t| t.subscriptions)),
        ("messages", number(|t| t.messages)),
        ("file_bytes", known(totals.map(|t| t.file_bytes), bytes)),
    ]
}

fn written(report: &Report) -> [(&'static str, String); 2] {
    let stored = report.snapshot.as_ref().map(|s| s.counters.messages_stored);
    let each = report
        .written_bytes
        .zip(stored)
        .and_then(|(written, stored)| written.checked_div(stored))
        .map(|each| format!("{} for each stored message", bytes(each)));
    [
        ("written", known(report.written_bytes, bytes)),
        ("written_note", each.unwrap_or_default()),
    ]
}

fn known(number: Option<u64>, write: fn(u64) -> String) -> String {
    number.map_or_else(|| UNKNOWN.to_owned(), write)
}

/// What there is of the main service; nothing where there never was one.
fn main_service(snapshot: &Snapshot) -> String {
    let Some(links) = snapshot.upstream.as_deref() else {
        return String::new();
    };
    let to_tell = match snapshot.upstream_to_tell {
        0 => String::new(),
        number => format!(
            "<p>User agents that have lost their subscriptions there, and are told as soon as they \
             are here and nothing waits for them: {}</p>\n",
            count(number)
        ),
    };
    format!("<h2>Main service</h2>\n{to_tell}{}", self::links(links))
}

/// The links to the main service as a table.
fn links(links: &[LinkState]) -> String {
    let row = |link: &LinkState| {
        let owner = link
            .owner
            .map_or_else(|| "all".to_owned(), |tag| tag.to_string());
        let cells = [
            owner,
            place(link),
            count(link.borrowed),
            count(link.messages),
            count(link.acks),
            link.last_error.clone().unwrap_or_default(),
        ];
        let cells = cells.map(|cell| format!("<td>{}</td>", escape(&cell)));
        format!("<tr>{}</tr>\n", cells.concat())
    };
    let rows: String = links.iter().take(LINKS_SHOWN_MAX).map(row).collect();
    let left = links.len().saturating_sub(LINKS_SHOWN_MAX);
    let more = if left > 0 {
        format!(
            "<p>and {} more</p>",
            count(u64::try_from(left).unwrap_or(u64::MAX))
        )
    } else {
        String::new()
    };
    let head = "<tr><th>user agent</th><th>link</th><th>borrowed</th><th>messages</th><th>acks</th>\
                <th>last error</th></tr>";
    format!("<table>{head}\n{rows}</table>{more}")
}

/// The state of a link, and where it is if not where it is configured.
fn place(link: &LinkState) -> String {
    let state = format!("{} for {}", link.state, duration(link.since_secs));
    match &link.at {
        Some(at) => format!("{state}, sent on to {at}"),
        None => state,
    }
}

/// The counters as rows of a table.
fn rows(snapshot: Option<&Snapshot>) -> String {
    let counters = snapshot.map_or(Vec::new(), |s| metrics::counters(&s.counters));
    counters
        .iter()
        .map(|metric| {
            let name = escape(metric.help.trim_end_matches('.'));
            format!("<tr><td>{name}</td><td>{}</td></tr>\n", count(metric.value))
        })
        .collect()
}

/// Puts the values where their names are. A value is not searched for names again.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut pieces = template.split("{{");
    let mut page = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once("}}").unwrap_or((piece, ""));
        let value = values.iter().find(|(of, _)| *of == name);
        page.push_str(value.map_or("", |(_, value)| value));
        page.push_str(rest);
    }
    page
}

/// Text as it must be written in HTML, in attributes too.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// Such as `1,234,567`.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digits.len().saturating_sub(index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Such as `512 B` or `1.2 MiB`.
fn bytes(number: u64) -> String {
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = "KiB";
    for larger in ["MiB", "GiB", "TiB"] {
        // From here on, one digit behind the point would round it up to 1024.0.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// The two largest units, such as `3 d 4 h`.
fn duration(secs: u64) -> String {
    let (minutes, hours, days) = (secs / 60, secs / 3600, secs / 86_400);
    if days > 0 {
        format!("{days} d {} h", hours % 24)
    } else if hours > 0 {
        format!("{hours} h {} min", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes} min {} s", secs % 60)
    } else {
        format!("{secs} s")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::engine::counters::Counters;
    use crate::model::store::StoreError;

    fn facts() -> Facts {
        Facts {
            data_directory: PathBuf::new(),
            version: "1.2.3",
            io_account: None,
            health: Arc::default(),
            push_address: "ws://<pi>:8090/".to_owned(),
        }
    }

    fn report() -> Report {
        Report {
            snapshot: Some(Snapshot {
                counters: Counters {
                    messages_acked: 1_234_567,
                    messages_stored: 10,
                    ..Counters::default()
                },
                uptime_secs: 90,
                ..Snapshot::default()
            }),
            totals: Ok(Totals {
                subscriptions: 3,
                user_agents: 2,
                messages: 1,
                file_bytes: 4096,
            }),
            watched_fault: None,
            set_aside: Vec::new(),
            written_bytes: Some(81_920),
            resident_bytes: None,
        }
    }

    #[test]
    fn names_in_the_template_are_the_names_of_the_values() {
        let values = values(&report(), &facts());
        let given: BTreeSet<_> = values.iter().map(|(name, _)| *name).collect();
        let wanted: BTreeSet<_> = TEMPLATE
            .split("{{")
            .skip(1)
            .map(|piece| piece.split_once("}}").unwrap().0)
            .collect();
        assert_eq!(given, wanted);
        assert_eq!(given.len(), values.len());
    }

    #[test]
    fn page_shows_the_numbers_and_escapes_the_text() {
        let page = html(&report(), &facts());
        for text in [
            "<b>Working</b>",
            "class=\"state ok\"",
            "<b>1,234,567</b>",
            "<b>1 min 30 s</b>",
            "8.0 KiB for each stored message",
            "ws://&lt;pi&gt;:8090/",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("<pi>") && !page.contains("{{"));
    }

    #[test]
    fn page_is_red_with_the_storage_s_own_words() {
        let mut report = report();
        if let Some(snapshot) = &mut report.snapshot {
            snapshot.storage_fault = Some(StoreError::ReadOnly);
        }
        let page = html(&report, &facts());
        assert!(page.contains("class=\"state bad\""));
        assert!(page.contains(&StoreError::ReadOnly.to_string()));
    }

    #[test]
    fn page_names_a_database_that_was_set_aside_as_long_as_it_lies_there() {
        let mut report = report();
        assert!(!html(&report, &facts()).contains("was damaged"));
        report.set_aside = vec!["edgepush.db.damaged-1".to_owned()];
        let page = html(&report, &facts());
        assert!(page.contains("<p class=\"fault\">The database was damaged"));
        assert!(page.contains("as edgepush.db.damaged-1."));
        assert!(page.contains("class=\"state ok\""), "it works");
    }

    #[test]
    fn page_of_a_stuck_loop_and_an_unreadable_database_still_says_the_rest() {
        let report = Report {
            snapshot: None,
            totals: Err(StoreError::Corrupt),
            ..report()
        };
        let page = html(&report, &facts());
        assert!(page.contains("class=\"state bad\"") && page.contains("<b>Stuck</b>"));
        assert!(page.contains(&format!(
            "The database cannot be read, so totals are missing: {}",
            StoreError::Corrupt
        )));
        assert!(page.contains("<b>80.0 KiB</b>") && page.contains("1.2.3"));
    }

    #[test]
    fn quantities_are_written_for_people() {
        let counts = [0, 999, 1000, 12_345, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "12,345", "1,234,567"]);
        let sizes = [0, 1023, 1024, 1_258_291, (1 << 20) - 1, 1 << 40, u64::MAX].map(bytes);
        assert_eq!(
            sizes,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.2 MiB",
                "1.0 MiB",
                "1.0 TiB",
                "16777216.0 TiB"
            ]
        );
        let times = [0, 59, 60, 3599, 3600, 86_399, 86_400, 273_600].map(duration);
        assert_eq!(
            times,
            [
                "0 s",
                "59 s",
                "1 min 0 s",
                "59 min 59 s",
                "1 h 0 min",
                "23 h 59 min",
                "1 d 0 h",
                "3 d 4 h"
            ]
        );
    }

    #[test]
    fn value_that_looks_like_a_name_is_left_alone() {
        let values = [("a", "{{b}}".to_owned()), ("b", "no".to_owned())];
        assert_eq!(fill("x{{a}}y", &values), "x{{b}}y");
    }
}
