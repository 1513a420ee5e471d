//! A configuration in the making: what was set where, and what was wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use super::boards::{ChosenBy, Machine};
use super::faults::{Fault, Faults, Place};
use super::keys::{self, Kind};
use super::values::{self, SetText};
use super::{Config, Flags};
use crate::model::upstream::Endpoints;

/// The table of a key, and its name within that.
type KeyName = (&'static str, &'static str);

pub(super) struct Draft {
    pub config: Config,
    /// Whether all of the file was understood: what was not may have set anything.
    pub is_whole: bool,
    /// Where each key was set last.
    places: BTreeMap<KeyName, Place>,
    /// Keys that were set to something wrong anywhere.
    faulty: BTreeSet<KeyName>,
    faults: Vec<Fault>,
}

impl Draft {
    /// The defaults.
    pub(super) fn new() -> Self {
        Self {
            config: Config::default(),
            is_whole: true,
            places: BTreeMap::new(),
            faulty: BTreeSet::new(),
            faults: Vec::new(),
        }
    }

    /// Notes that `key` was set at `place`.
    pub(super) fn set(&mut self, key: KeyName, place: Place) {
        self.places.insert(key, place);
    }

    /// Notes that `key` was to be set at `place` and was not: `what` is wrong.
    pub(super) fn refuse(&mut self, key: KeyName, place: Place, what: String) {
        self.faulty.insert(key);
        self.fault(place, what);
    }

    /// Notes a fault that belongs to no key.
    pub(super) fn fault(&mut self, place: Place, what: String) {
        self.faults.push(Fault { place, what });
    }

    /// Takes over what the command line says.
    pub(super) fn read_flags(&mut self, flags: &Flags) {
        let given: [(_, _, _, SetText); 7] = [
            ("listen", "--listen", &flags.listen, values::set_listen),
            ("console", "--console", &flags.console, values::set_console),
            ("data", "--data", &flags.data, values::set_data),
            (
                "public_url",
                "--public-url",
                &flags.public_url,
                values::set_public_url,
            ),
            ("log", "--log", &flags.log, values::set_log),
            (
                "durability",
                "--durability",
                &flags.durability,
                values::set_durability,
            ),
            ("board", "--board", &flags.board, values::set_board),
        ];
        for (key, flag, text, set) in given {
            let place = Place::Flag(flag);
            match text.as_ref().map(|text| set(&mut self.config, text)) {
                None => {}
                Some(Ok(())) => self.set(("", key), place),
                Some(Err(what)) => self.refuse(("", key), place, what),
            }
        }
    }

    /// Gives the keys that nobody has set what the profile of the board says: of the one that was
    /// asked for, or else of the `machine`.
    pub(super) fn read_profile(&mut self, machine: &Machine<'_>) {
        if self.config.board.by != ChosenBy::Configuration {
            self.config.board = machine.board();
        }
        for (table, name, number) in self.config.board.board.values() {
            let key = keys::find(table, name);
            let Some(key) = key.filter(|key| !self.places.contains_key(&(key.table, key.name)))
            else {
                continue;
            };
            match key.kind {
                Kind::Number { set, .. } => set(&mut self.config.limits, number),
                Kind::Whole { set, .. } | Kind::OneOf { set, .. } => set(&mut self.config, number),
                // The tests compare what is read here with what the parser makes of it.
                Kind::Text(_)
                | Kind::Switch(_)
                | Kind::Networks { .. }
                | Kind::Endpoints(_)
                | Kind::JoinTokens(_) => {}
            }
        }
    }

    /// Finds what is right by itself and wrong together.
    pub(super) fn check_pairs(&mut self) {
        let limits = &self.config.limits;
        let (ping, pong) = (
            limits.ping_interval.as_secs(),
            limits.pong_timeout.as_secs(),
        );
        let (each, all) = (limits.bytes_per_user_agent_max, limits.stored_bytes_max);
        if pong >= ping {
            self.refuse_pair(
                "limits",
                ["pong_timeout_secs", "ping_interval_secs"],
                format!(
                    "pong_timeout_secs is {pong}; it must be less than ping_interval_secs, \
                     which is {ping}"
                ),
            );
        }
        if each > all {
            self.refuse_pair(
                "limits",
                ["bytes_per_user_agent_max", "stored_bytes_max"],
                format!(
                    "bytes_per_user_agent_max is {each}; it must be at most stored_bytes_max, \
                     which is {all}"
                ),
            );
        }
        let listen = self.config.listen;
        let console = self.config.console;
        if console.is_some_and(|console| overlap(listen, console)) {
            self.refuse_pair(
                "",
                ["console", "listen"],
                "console and listen take the same port; change one of them".to_owned(),
            );
        }
        let broadcasts = &self.config.broadcasts;
        if broadcasts.url.is_some() && broadcasts.file.is_some() {
            self.refuse_pair(
                "broadcasts",
                ["file", "url"],
                "url and file are both set; broadcasts come from one of them".to_owned(),
            );
        }
        self.check_tls();
        self.check_upstream();
    }

    fn check_upstream(&mut self) {
        let upstream = &self.config.upstream;
        let url = upstream.url.as_ref().map(|url| url.as_str());
        let is_plain = url.is_some_and(|url| url.starts_with("http:"));
        if url.is_none() && upstream.choice.endpoints != Endpoints::None {
            self.refuse_pair(
                "upstream",
                ["endpoints", "url"],
                "endpoints is set and url is not; set both or neither".to_owned(),
            );
        }
        if is_plain && !self.config.upstream.plain {
            self.refuse_pair(
                "upstream",
                ["url", "plain"],
                "url has no TLS; use wss://, or set plain to true and read what that means"
                    .to_owned(),
            );
        }
    }

    fn check_tls(&mut self) {
        let tls = &self.config.tls;
        match (&tls.certificate, &tls.key) {
            (Some(_), None) => self.refuse_pair(
                "tls",
                ["certificate", "key"],
                "certificate is set and key is not; set both or neither".to_owned(),
            ),
            (None, Some(_)) => self.refuse_pair(
                "tls",
                ["certificate", "key"],
                "key is set and certificate is not; set both or neither".to_owned(),
            ),
            (None, None) if tls.only => self.refuse_pair(
                "tls",
                ["only", "certificate"],
                "only is true; it needs certificate and key, or nobody can connect".to_owned(),
            ),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Reports what is wrong with two keys together, at the first of them that was set.
    ///
    /// If either may have been meant to be something else, nothing is said.
    fn refuse_pair(&mut self, table: &'static str, names: [&'static str; 2], what: String) {
        let keys = names.map(|name| (table, name));
        if !self.is_whole || keys.iter().any(|key| self.faulty.contains(key)) {
            return;
        }
        let place = keys.iter().find_map(|key| self.places.get(key));
        let place = *place.expect("the defaults fit together, so one of the two was set");
        self.fault(place, what);
    }

    /// The configuration, if nothing was wrong with it.
    pub(super) fn finish(self, file: Option<&Path>) -> Result<Config, Faults> {
        if self.faults.is_empty() {
            Ok(self.config)
        } else {
            Err(Faults::new(file, self.faults))
        }
    }
}

/// Whether two listeners would want the same port. One at an unspecified address wants it at every
/// address; port 0 is a free one each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (everywhere || one.ip() == other.ip())
}
