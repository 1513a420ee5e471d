//! The text of the configuration file to a [`Draft`]. The only place that knows TOML.
//!
//! It decides which key a line is about and whether its type is right; what a value means belongs
//! to `values` and `keys`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::Config;
use super::draft::Draft;
use super::faults::Place;
use super::keys::{self, KEYS, Key, Kind, TABLES};
use super::values;
use crate::model::access::Network;
use crate::model::join_token::{JOIN_TOKENS_MAX, JoinToken};
use crate::model::upstream::{Endpoints, Rule};

/// Reads `text` into `draft`, faults included.
pub(super) fn read(text: &str, draft: &mut Draft) {
    let (root, errors) = DeTable::parse_recoverable(text);
    draft.is_whole = errors.is_empty();
    let mut reader = Reader {
        text,
        syntax: BTreeMap::new(),
        lost_after: usize::MAX,
        draft,
    };
    for error in errors {
        reader.note_syntax(error.span().map_or(0, |span| span.start), error.message());
    }
    reader.read_table("", root.get_ref());
    for (line, what) in reader.syntax {
        draft.fault(Place::Line(line), what);
    }
}

struct Reader<'a> {
    text: &'a str,
    /// The first syntax fault of each line; what follows it there is its consequence.
    syntax: BTreeMap<usize, String>,
    /// The first line with a broken table header: nobody knows where the keys below it belong.
    lost_after: usize,
    draft: &'a mut Draft,
}

impl Reader<'_> {
    fn note_syntax(&mut self, at: usize, message: &str) {
        let line = self.line(at);
        let start = self.text.lines().nth(line.saturating_sub(1));
        if start.is_some_and(|text| text.trim_start().starts_with('[')) {
            self.lost_after = self.lost_after.min(line);
        }
        let what = || format!("not valid TOML: {message}");
        self.syntax.entry(line).or_insert_with(what);
    }

    /// The line that the byte `at` is in; the first is 1.
    fn line(&self, at: usize) -> usize {
        let before = self.text.bytes().take(at);
        before
            .filter(|byte| *byte == b'\n')
            .count()
            .saturating_add(1)
    }

    /// Whether what was read in `line` is what was written there.
    fn is_sound(&self, line: usize) -> bool {
        line < self.lost_after && !self.syntax.contains_key(&line)
    }

    fn read_table(&mut self, table: &str, content: &DeTable<'_>) {
        for (name, value) in content {
            let line = self.line(name.span().start);
            let name: &str = name.get_ref();
            let is_table = table.is_empty() && TABLES.contains(&name);
            if let Some(key) = keys::find(table, name) {
                self.read_key(key, value);
            } else if !is_table {
                self.fault(line, unknown_key(table, name));
            } else if let Some(inner) = value.get_ref().as_table() {
                self.read_table(name, inner);
            } else {
                self.fault(
                    line,
                    format!("{name} must be a table: [{name}] and its keys below"),
                );
            }
        }
    }

    fn read_key(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>) {
        let line = self.line(value.span().start);
        match key.kind {
            Kind::Text(set) => match value.get_ref().as_str() {
                Some(text) => {
                    let result = set(&mut self.draft.config, text);
                    self.note(key, line, result);
                }
                None => self.wrong_type(key, line, "must be text in quotes"),
            },
            Kind::Switch(set) => match value.get_ref().as_bool() {
                Some(on) => {
                    set(&mut self.draft.config, on);
                    self.note(key, line, Ok(()));
                }
                None => self.wrong_type(key, line, "must be true or false, without quotes"),
            },
            Kind::Networks { may_be_empty, set } => match value.get_ref().as_array() {
                Some(list) => self.read_networks(key, line, list, may_be_empty, set),
                None => self.wrong_type(key, line, "must be a list such as [\"private\"]"),
            },
            Kind::Endpoints(set) => self.read_endpoints(key, line, value.get_ref(), set),
            Kind::JoinTokens(set) => match value.get_ref().as_array() {
                Some(list) => self.read_join_tokens(key, line, list, set),
                None => self.wrong_type(key, line, "must be a list of texts in quotes"),
            },
            Kind::OneOf { numbers, set } => {
                let shape = numbers
                    .iter()
                    .map(u64::to_string)
                    .collect::<Vec<_>>()
                    .join(" or ");
                let fits = |number: u64| numbers.contains(&number);
                self.read_number(key, value, &format!("must be {shape}"), fits, set);
            }
            Kind::Whole { min, max, set } => {
                self.read_whole(key, value, min..=max, set);
            }
            Kind::Number { min, max, set } => {
                let set = |config: &mut Config, number| set(&mut config.limits, number);
                self.read_whole(key, value, min..=max, set);
            }
        }
    }

    fn read_whole(
        &mut self,
        key: &'static Key,
        value: &Spanned<DeValue<'_>>,
        range: RangeInclusive<u64>,
        set: impl FnOnce(&mut Config, u64),
    ) {
        let (min, max) = (range.start(), range.end());
        let shape = format!("must be a whole number from {min} to {max}");
        let fits = |number: u64| range.contains(&number);
        self.read_number(key, value, &shape, fits, set);
    }

    fn read_number(
        &mut self,
        key: &'static Key,
        value: &Spanned<DeValue<'_>>,
        shape: &str,
        fits: impl FnOnce(u64) -> bool,
        set: impl FnOnce(&mut Config, u64),
    ) {
        let line = self.line(value.span().start);
        let Some(integer) = value.get_ref().as_integer() else {
            return self.wrong_type(key, line, shape);
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let result = match number.filter(|number| fits(*number)) {
            Some(number) => {
                set(&mut self.draft.config, number);
                Ok(())
            }
            None => Err(format!("{shape}, not {integer}")),
        };
        self.note(key, line, result);
    }

    /// The entries of a list if each of them is right.
    fn read_list<T>(
        &mut self,
        key: &'static Key,
        list: &DeArray<'_>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let mut found = Vec::new();
        for entry in list.iter() {
            let line = self.line(entry.span().start);
            let text = entry.get_ref().as_str();
            match text.map_or_else(|| Err("must be text in quotes".to_owned()), &read) {
                Ok(value) => found.push(value),
                Err(what) => self.note(key, line, Err(format!("entry {what}"))),
            }
        }
        (found.len() == list.len()).then_some(found)
    }

    fn read_networks(
        &mut self,
        key: &'static Key,
        line: usize,
        list: &DeArray<'_>,
        may_be_empty: bool,
        set: fn(&mut Config, Vec<Network>),
    ) {
        if list.is_empty() && !may_be_empty {
            let what = "must name a network; [\"any\"] lets every user agent in";
            return self.note(key, line, Err(what.to_owned()));
        }
        if let Some(networks) = self.read_list(key, list, values::networks) {
            set(&mut self.draft.config, networks.concat());
            self.note(key, line, Ok(()));
        }
    }

    fn read_endpoints(
        &mut self,
        key: &'static Key,
        line: usize,
        value: &DeValue<'_>,
        set: fn(&mut Config, Endpoints),
    ) {
        let endpoints = if let Some(text) = value.as_str() {
            values::endpoints(text)
        } else if let Some(list) = value.as_array() {
            let rules = list.iter().map(|entry| read_rule(entry.get_ref()));
            let rules: Result<Vec<Rule>, String> = rules.collect();
            rules
                .map(Endpoints::Rules)
                .map_err(|what| format!("rule {what}"))
        } else {
            return self.wrong_type(key, line, values::ENDPOINTS_SHAPE);
        };
        let result = endpoints.map(|endpoints| set(&mut self.draft.config, endpoints));
        self.note(key, line, result);
    }

    fn read_join_tokens(
        &mut self,
        key: &'static Key,
        line: usize,
        list: &DeArray<'_>,
        set: fn(&mut Config, Vec<JoinToken>),
    ) {
        if list.len() > JOIN_TOKENS_MAX {
            let what = format!("must have at most {JOIN_TOKENS_MAX} entries");
            return self.note(key, line, Err(what));
        }
        if let Some(tokens) = self.read_list(key, list, values::join_token) {
            set(&mut self.draft.config, tokens);
            self.note(key, line, Ok(()));
        }
    }

    /// Records what came of a value of the right type.
    fn note(&mut self, key: &'static Key, line: usize, result: Result<(), String>) {
        let place = Place::Line(line);
        match result {
            Ok(()) => self.draft.set((key.table, key.name), place),
            Err(what) if self.is_sound(line) => {
                self.draft
                    .refuse((key.table, key.name), place, format!("{} {what}", key.name));
            }
            // The syntax fault of this line, or of the header above, is reported instead.
            Err(_) => {}
        }
    }

    /// Records a value of the wrong type. That says more than the syntax fault that it often
    /// comes with, for one: an address without quotes is "an invalid float".
    fn wrong_type(&mut self, key: &'static Key, line: usize, shape: &str) {
        if line < self.lost_after {
            self.syntax.remove(&line);
        }
        self.note(key, line, Err(shape.to_owned()));
    }

    fn fault(&mut self, line: usize, what: String) {
        if self.is_sound(line) {
            self.draft.fault(Place::Line(line), what);
        }
    }
}

/// A table such as `{ user_agent = "1f2e3d4c" }`.
fn read_rule(rule: &DeValue<'_>) -> Result<Rule, String> {
    const SHAPE: &str = "must be a table of one key, such as { user_agent = \"1f2e3d4c\" }";
    let table = rule.as_table().filter(|table| table.len() == 1);
    let (name, value) = table.and_then(|table| table.iter().next()).ok_or(SHAPE)?;
    let value = value.get_ref().as_str().ok_or(SHAPE)?;
    values::endpoint_rule(name.get_ref(), value)
}

/// What to say about a key that there is not, with the key that was probably meant.
fn unknown_key(table: &str, name: &str) -> String {
    let place = match table {
        "" => String::new(),
        _ => format!(" in [{table}]"),
    };
    let tables = TABLES.into_iter().filter(|_| table.is_empty());
    let siblings = KEYS.iter().filter(|key| key.table == table);
    let similar = siblings
        .map(|key| key.name)
        .chain(tables)
        .find(|known| is_near(name, known));
    let hint = match (KEYS.iter().find(|key| key.name == name), similar) {
        (Some(Key { table: "", .. }), _) => "; it belongs above the first table".to_owned(),
        (Some(Key { table, .. }), _) => format!("; it belongs below [{table}]"),
        (None, Some(similar)) => format!("; did you mean {similar:?}?"),
        (None, None) => String::new(),
    };
    format!("unknown key {name:?}{place}{hint}")
}

/// Whether one becomes the other by at most two characters that are changed, added or left out
/// (Levenshtein distance), a third of its length at most.
fn is_near(name: &str, known: &str) -> bool {
    // How far the characters of `name` so far are from each beginning of `known`.
    let mut distances: Vec<usize> = (0..=known.len()).collect();
    for typed in name.bytes() {
        let mut next = vec![distances[0].saturating_add(1)];
        for (expected, pair) in known.bytes().zip(distances.windows(2)) {
            let changed = pair[0].saturating_add(usize::from(typed != expected));
            let added = pair[1].saturating_add(1);
            let left_out = next[next.len().saturating_sub(1)].saturating_add(1);
            next.push(changed.min(added).min(left_out));
        }
        distances = next;
    }
    distances
        .last()
        .is_some_and(|distance| *distance <= 2.min(known.len() / 3))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use toml::de::DeTable;

    use super::super::boards::Machine;
    use super::super::{Config, Flags};

    fn faults(text: &str) -> String {
        let file = Some((Path::new("f"), text));
        Config::load(file, &Flags::default(), &Machine::PC)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn unknown_keys_are_named_with_their_lines() {
        let text = "colour = \"red\"\n[broadcasts]\npoll = 3\n[downstream]\n\
                    [access]\njoin_codes = []\n[limits]\nspeed = 1\n";
        assert_eq!(
            faults(text),
            "f:1: unknown key \"colour\"\n\
             f:3: unknown key \"poll\" in [broadcasts]\n\
             f:4: unknown key \"downstream\"\n\
             f:6: unknown key \"join_codes\" in [access]\n\
             f:8: unknown key \"speed\" in [limits]"
        );
    }

    #[test]
    fn unknown_key_comes_with_the_one_that_was_meant() {
        let refusals = [
            (
                "lsten = 1",
                "f:1: unknown key \"lsten\"; did you mean \"listen\"?",
            ),
            (
                "[limit]",
                "f:1: unknown key \"limit\"; did you mean \"limits\"?",
            ),
            (
                "ack_window_millis = 1",
                "f:1: unknown key \"ack_window_millis\"; it belongs below [limits]",
            ),
            (
                "[access]\nlisten = 1",
                "f:2: unknown key \"listen\" in [access]; it belongs above the first table",
            ),
            (
                "[limits]\nack_window_milis = 1",
                "f:2: unknown key \"ack_window_milis\" in [limits]; did you mean \"ack_window_millis\"?",
            ),
            (
                "[limits]\nack_window_secs = 1",
                "f:2: unknown key \"ack_window_secs\" in [limits]",
            ),
            ("\"\" = 1", "f:1: unknown key \"\""),
            ("\"a\\nb\" = 1", "f:1: unknown key \"a\\nb\""),
        ];
        for (text, fault) in refusals {
            assert_eq!(faults(text), fault);
        }
    }

    #[test]
    fn value_of_the_wrong_type_is_told_the_right_one() {
        let refusals = [
            ("listen = 8090", "f:1: listen must be text in quotes"),
            (
                "listen = 0.0.0.0:8090",
                "f:1: listen must be text in quotes",
            ),
            ("log = info", "f:1: log must be text in quotes"),
            ("[data]", "f:1: data must be text in quotes"),
            ("tls.key = 1", "f:1: key must be text in quotes"),
            (
                "tls.only = \"true\"",
                "f:1: only must be true or false, without quotes",
            ),
            (
                "tls.only = yes",
                "f:1: only must be true or false, without quotes",
            ),
            (
                "limits = 3",
                "f:1: limits must be a table: [limits] and its keys below",
            ),
            (
                "[[access]]",
                "f:1: access must be a table: [access] and its keys below",
            ),
            (
                "access.websocket_from = \"any\"",
                "f:1: websocket_from must be a list such as [\"private\"]",
            ),
            (
                "limits.store_queue_max = \"9\"",
                "f:1: store_queue_max must be a whole number from 1 to 1000000",
            ),
            (
                "simplepush.udp_wakeup = 1",
                "f:1: udp_wakeup must be true or false, without quotes",
            ),
            (
                "simplepush.offline_status = \"200\"",
                "f:1: offline_status must be 200 or 202",
            ),
            (
                "simplepush.offline_status = 204",
                "f:1: offline_status must be 200 or 202, not 204",
            ),
            (
                "simplepush.udp_proxy = \"ftp://h\"",
                "f:1: udp_proxy must start with http:// or https://",
            ),
            (
                "limits.store_queue_max = 9.0",
                "f:1: store_queue_max must be a whole number from 1 to 1000000",
            ),
        ];
        for (text, fault) in refusals {
            assert_eq!(faults(text), fault);
        }
    }

    #[test]
    fn number_is_read_in_every_base_and_never_wraps() {
        let load = |number: &str| {
            let text = format!("limits.store_queue_max = {number}");
            let file = Some((Path::new("f"), text.as_str()));
            let config = Config::load(file, &Flags::default(), &Machine::PC)
                .map_err(|faults| faults.to_string());
            config.map(|config| config.limits.store_queue_max)
        };
        let refusal = |number: &str| {
            Err(format!(
                "f:1: store_queue_max must be a whole number from 1 to 1000000, not {number}"
            ))
        };
        assert_eq!(load("+1_000"), Ok(1000));
        assert_eq!(load("0x10"), Ok(16));
        assert_eq!(load("-1"), refusal("-1"));
        assert_eq!(load("0xffffffff"), refusal("0xffffffff"));
        assert_eq!(
            load("18446744073709551617"),
            refusal("18446744073709551617")
        );
    }

    #[test]
    fn syntax_fault_is_reported_once_and_beside_the_others() {
        let text = "listen = \"8090\nconsole = \"nowhere\"\nlog =\nlog = \"loud\"\nx y z\n";
        assert_eq!(
            faults(text),
            "f:1: not valid TOML: invalid basic string, expected `\"`\n\
             f:2: console must be ADDRESS:PORT, :PORT, PORT or \"off\", such as \"127.0.0.1:8091\"\n\
             f:3: not valid TOML: string values must be quoted, expected literal string\n\
             f:4: not valid TOML: duplicate key\n\
             f:5: not valid TOML: key with no value, expected `=`"
        );
    }

    #[test]
    fn keys_below_a_broken_table_header_are_not_blamed() {
        let text = "lsten = 1\n[limits\nack_window_millis = 100\n";
        assert_eq!(
            faults(text),
            "f:1: unknown key \"lsten\"; did you mean \"listen\"?\n\
             f:2: not valid TOML: unclosed table, expected `]`"
        );
        // The parser hands out `log` as a table in the first line.
        assert_eq!(
            faults("[access\nlog = 1\n"),
            "f:1: not valid TOML: unclosed table, expected `]`"
        );
    }

    #[test]
    fn broken_file_is_never_taken_and_never_compared() {
        let whole = "listen = \":1\"\n[access]\nwebsocket_from = [ \"any\", ]\n\
                     [limits]\nstored_bytes_max = 20_000\nbytes_per_user_agent_max = 20_000\n";
        let mut broken = 0;
        for (at, _) in whole.char_indices() {
            for put in ["", "[", "]", "=", "\"", "\n", ".", " ", "x", "\0"] {
                let text = format!("{}{put}{}", &whole[..at], &whole[at + 1..]);
                if !DeTable::parse_recoverable(&text).1.is_empty() {
                    let faults = faults(&text);
                    assert!(!faults.is_empty() && !faults.contains("at most"), "{text}");
                    broken += 1;
                }
            }
        }
        assert!(broken > 100, "{broken}");
    }

    #[test]
    fn wrong_join_token_is_reported_in_its_line_and_not_repeated() {
        let shape = "join_tokens entry must have 16 to 128 characters of A-Z, a-z, 0-9, - and _";
        let text = "[access]\njoin_tokens = [\n  \"0123456789abcdef\",\n  \"hunter2\",\n  \"0123456789abcde/\",\n  7,\n]\n";
        assert_eq!(
            faults(text),
            format!("f:4: {shape}\nf:5: {shape}\nf:6: join_tokens entry must be text in quotes")
        );
        assert_eq!(
            faults("access.join_tokens = \"0123456789abcdef\""),
            "f:1: join_tokens must be a list of texts in quotes"
        );
        let list = |count: usize| "\"0123456789abcdef\",".repeat(count);
        assert_eq!(
            faults(&format!("access.join_tokens = [{}]", list(101))),
            "f:1: join_tokens must have at most 100 entries"
        );
        let file = format!("access.join_tokens = [{}]", list(100));
        let config = Config::load(
            Some((Path::new("f"), &file)),
            &Flags::default(),
            &Machine::PC,
        )
        .unwrap();
        assert_eq!(config.access.join_tokens.len(), 100);
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn each_wrong_network_is_reported_in_its_line() {
        let text = "[access]\nwebsocket_from = [\n  \"private\",\n  \"10.0.0.1/8\",\n  7,\n]\n";
        assert_eq!(
            faults(text),
            "f:4: websocket_from entry must start with its first address, such as 192.168.1.0/24\n\
             f:5: websocket_from entry must be text in quotes"
        );
        assert_eq!(
            faults("access.websocket_from = []"),
            "f:1: websocket_from must name a network; [\"any\"] lets every user agent in"
        );
    }
}
