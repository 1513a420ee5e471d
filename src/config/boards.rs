//! The boards: how each is recognised, and its profile, which gives values to the keys that nobody set.
//!
//! A profile is read line by line, when it is used: the parser of the configuration file would stay in
//! memory for it. The tests read all of them with that parser.

use std::fmt;

/// A board, or a kind of boards.
pub struct Board {
    /// What it is called in the configuration.
    pub name: &'static str,
    /// How the names begin that such boards have for themselves (`/proc/device-tree/model`).
    models: &'static [&'static str],
    /// Facts at the top, then keys of the configuration, each below a comment that says why.
    pub profile: &'static str,
}

/// The machine that this is: what it says, and what the program was compiled for.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The name that the board has for itself, if it has one.
    pub model: Option<&'a str>,
    /// The target triple.
    pub target: &'a str,
}

/// The board whose profile is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chosen {
    /// Which it is.
    pub board: &'static Board,
    /// Why it is that one.
    pub by: ChosenBy,
}

/// Why a board was chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChosenBy {
    /// The configuration names it.
    Configuration,
    /// The machine says that it is one.
    Model,
    /// The machine is none that is known: a generic one of the target.
    Target,
}

macro_rules! board {
    ($name:literal, $models:expr) => {
        Board {
            name: $name,
            models: &$models,
            profile: include_str!(concat!("../../boards/", $name, ".toml")),
        }
    };
}

/// Every board. Where the beginnings of several fit, the longest is meant.
pub static BOARDS: [Board; 11] = [
    board!("raspberry-pi-zero", ["Raspberry Pi Zero"]),
    board!(
        "raspberry-pi-zero-2",
        ["Raspberry Pi Zero 2", "Raspberry Pi 3 Model A"]
    ),
    board!(
        "raspberry-pi-1",
        ["Raspberry Pi Model", "Raspberry Pi Compute Module Rev"]
    ),
    board!("raspberry-pi-2", ["Raspberry Pi 2"]),
    board!(
        "raspberry-pi-3",
        ["Raspberry Pi 3", "Raspberry Pi Compute Module 3"]
    ),
    board!(
        "raspberry-pi-4",
        ["Raspberry Pi 4", "Raspberry Pi Compute Module 4"]
    ),
    board!(
        "raspberry-pi-5",
        ["Raspberry Pi 5", "Raspberry Pi Compute Module 5"]
    ),
    board!("generic-armv6", []),
    board!("generic-armv7", []),
    board!("generic-aarch64", []),
    board!("generic-x86-64", []),
];

/// The board of this name.
pub fn find(name: &str) -> Option<&'static Board> {
    BOARDS.iter().find(|board| board.name == name)
}

impl Machine<'_> {
    /// The board that it is.
    pub fn board(&self) -> Chosen {
        let of_model = |model: &str| {
            let known = BOARDS
                .iter()
                .flat_map(|board| board.models.iter().map(move |start| (start, board)));
            known
                .filter(|(start, _)| model.starts_with(**start))
                .max_by_key(|(start, _)| start.len())
        };
        match self.model.and_then(of_model) {
            Some((_, board)) => Chosen {
                board,
                by: ChosenBy::Model,
            },
            None => Chosen {
                board: generic(self.target),
                by: ChosenBy::Target,
            },
        }
    }
}

/// The generic board of a target; for one that is none of ours, the smallest.
fn generic(target: &str) -> &'static Board {
    let architecture = target.split('-').next().unwrap_or_default();
    let name = match architecture {
        "x86_64" => "generic-x86-64",
        "aarch64" => "generic-aarch64",
        _ if architecture.starts_with("armv7") || architecture.starts_with("thumbv7") => {
            "generic-armv7"
        }
        _ => "generic-armv6",
    };
    find(name).expect("each of these is in the list")
}

impl Board {
    /// A fact about it: `target`, `cpu`, `memory_mib` or `flash`; empty if its profile has none of this
    /// name.
    pub fn fact(&self, name: &str) -> &'static str {
        let fact = lines(self.profile).find(|line| line.table.is_empty() && line.name == name);
        fact.map_or("", |line| line.value.trim_matches('"'))
    }

    /// Memory on the board, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let mib: u64 = self.fact("memory_mib").parse().unwrap_or(0);
        mib << 20
    }

    /// What it gives to keys of the configuration: table, name and number.
    pub(super) fn values(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
        lines(self.profile).filter_map(|line| {
            let number = line.value.replace('_', "").parse().ok()?;
            (!line.table.is_empty()).then_some((line.table, line.name, number))
        })
    }
}

struct Line<'a> {
    table: &'a str,
    name: &'a str,
    value: &'a str,
}

/// The lines `name = value` of a profile. They hold whole numbers and text without escapes, nothing else.
fn lines(profile: &str) -> impl Iterator<Item = Line<'_>> {
    let mut table = "";
    profile.lines().filter_map(move |line| {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_end_matches(']');
        }
        let (name, value) = line.split_once(" = ")?;
        let is_comment = name.starts_with('#');
        (!is_comment).then_some(Line { table, name, value })
    })
}

impl Default for Chosen {
    /// That of the defaults.
    fn default() -> Self {
        Self {
            board: generic("x86_64"),
            by: ChosenBy::Target,
        }
    }
}

impl PartialEq for Board {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Board {}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Board").field(&self.name).finish()
    }
}

#[cfg(test)]
impl Machine<'static> {
    /// What the tests run on, wherever that is.
    pub(super) const PC: Self = Self {
        model: None,
        target: "x86_64-unknown-linux-gnu",
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::super::{Config, Flags};
    use super::*;

    fn board_of(model: &str) -> (&'static str, ChosenBy) {
        let machine = Machine {
            model: Some(model),
            ..Machine::PC
        };
        let Chosen { board, by } = machine.board();
        (board.name, by)
    }

    fn config_of(board: &Board) -> Config {
        let flags = Flags {
            board: Some(board.name.to_owned()),
            ..Flags::default()
        };
        Config::load(None, &flags, &Machine::PC).unwrap()
    }

    #[test]
    fn board_is_recognised_by_the_name_that_it_has_for_itself() {
        // As the firmware of the boards writes them, and as mainline Linux does where it differs.
        let models = [
            ("Raspberry Pi Zero Rev 1.3", "raspberry-pi-zero"),
            ("Raspberry Pi Zero W Rev 1.1", "raspberry-pi-zero"),
            ("Raspberry Pi Zero 2 W Rev 1.0", "raspberry-pi-zero-2"),
            ("Raspberry Pi Model B Rev 2", "raspberry-pi-1"),
            ("Raspberry Pi Model B Plus Rev 1.2", "raspberry-pi-1"),
            ("Raspberry Pi Model A+", "raspberry-pi-1"),
            ("Raspberry Pi Compute Module Rev 1.0", "raspberry-pi-1"),
            ("Raspberry Pi 2 Model B Rev 1.1", "raspberry-pi-2"),
            ("Raspberry Pi 3 Model B Plus Rev 1.3", "raspberry-pi-3"),
            ("Raspberry Pi 3 Model A Plus Rev 1.0", "raspberry-pi-zero-2"),
            (
                "Raspberry Pi Compute Module 3 Plus Rev 1.0",
                "raspberry-pi-3",
            ),
            ("Raspberry Pi 4 Model B Rev 1.5", "raspberry-pi-4"),
            ("Raspberry Pi 400 Rev 1.0", "raspberry-pi-4"),
            ("Raspberry Pi Compute Module 4 Rev 1.1", "raspberry-pi-4"),
            ("Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi-5"),
            ("Raspberry Pi 500 Rev 1.0", "raspberry-pi-5"),
        ];
        for (model, name) in models {
            assert_eq!(board_of(model), (name, ChosenBy::Model), "{model}");
        }
    }

    #[test]
    fn unknown_board_is_the_generic_one_of_the_target() {
        for model in ["", "linux,dummy-virt", "Raspberry Pi 9", "Banana Pi M2"] {
            assert_eq!(board_of(model), ("generic-x86-64", ChosenBy::Target));
        }
        let targets = [
            ("x86_64-unknown-linux-gnu", "generic-x86-64"),
            ("aarch64-unknown-linux-musl", "generic-aarch64"),
            ("armv7-unknown-linux-musleabihf", "generic-armv7"),
            ("thumbv7neon-unknown-linux-musleabihf", "generic-armv7"),
            ("arm-unknown-linux-musleabihf", "generic-armv6"),
            ("riscv64gc-unknown-linux-musl", "generic-armv6"),
        ];
        for (target, name) in targets {
            let machine = Machine {
                target,
                ..Machine::PC
            };
            assert_eq!(machine.board().board.name, name, "{target}");
        }
        // And a generic board is of the target that it is taken for.
        for board in BOARDS.iter().filter(|board| board.models.is_empty()) {
            assert_eq!(generic(board.fact("target")), board);
        }
    }

    #[test]
    fn every_profile_in_the_folder_is_a_board() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards");
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(folder).unwrap() {
            files.insert(entry.unwrap().file_name().into_string().unwrap());
        }
        let known: BTreeSet<String> = BOARDS
            .iter()
            .map(|board| format!("{}.toml", board.name))
            .collect();
        assert_eq!(files, known);
        assert_eq!(known.len(), 11);
    }

    #[test]
    fn every_profile_is_what_the_parser_of_the_configuration_reads_in_it() {
        for board in &BOARDS {
            let name = board.name;
            // Its tables stand as they are in a configuration file, where they win over any board.
            let (_, tables) = board.profile.split_once("\n[").unwrap();
            let tables = format!("[{tables}");
            for other in ["generic-x86-64", "raspberry-pi-1"] {
                let flags = Flags {
                    board: Some(other.to_owned()),
                    ..Flags::default()
                };
                let file = Some((Path::new(name), tables.as_str()));
                let by_file = Config::load(file, &flags, &Machine::PC).unwrap();
                let by_board = config_of(board);
                assert_eq!(by_file.limits, by_board.limits, "{name}");
                assert_eq!(by_file.storage, by_board.storage, "{name}");
            }
        }
    }

    #[test]
    fn every_profile_gives_the_same_keys_and_a_reason_for_each() {
        let keys = |board: &Board| -> Vec<_> {
            let values = board.values();
            values.map(|(table, name, _)| (table, name)).collect()
        };
        let expected = keys(&BOARDS[0]);
        assert_eq!(expected.len(), 15);
        for board in &BOARDS {
            assert_eq!(keys(board), expected, "{}", board.name);
            for fact in ["target", "cpu", "memory_mib", "flash"] {
                assert!(!board.fact(fact).is_empty(), "{}: {fact}", board.name);
            }
            let mut lines = board.profile.lines();
            let mut before = lines.next().unwrap();
            for line in lines {
                // The processor is a fact of its own.
                if line.contains(" = ") && !line.starts_with(['#', 'c']) {
                    assert!(before.starts_with("# "), "{}: {line}", board.name);
                }
                before = line;
            }
        }
    }

    #[test]
    fn limits_of_every_board_fit_each_other() {
        for board in &BOARDS {
            let Config {
                limits, storage, ..
            } = config_of(board);
            let name = board.name;
            let connections = limits.connections_max;
            assert_eq!(
                limits.connections_per_address_max,
                connections / 2,
                "{name}"
            );
            assert!(
                limits.websockets_per_address_max <= connections / 2,
                "{name}"
            );
            // Neither the memory nor the card is one user agent's, and the queue holds a commit.
            let unsent = u64::try_from(limits.unsent_bytes_max).unwrap();
            let held = u64::try_from(limits.held_bytes_max).unwrap();
            assert!(unsent * 16 <= held, "{name}");
            assert!(
                limits.bytes_per_user_agent_max * 16 <= limits.stored_bytes_max,
                "{name}"
            );
            assert!(limits.store_queue_max >= 1024, "{name}");
            assert!(
                limits.unacked_per_session_max * 4 <= limits.store_queue_max,
                "{name}"
            );
            assert!(limits.ack_window < limits.pong_timeout, "{name}");
            assert!(limits.delete_delay < limits.pong_timeout, "{name}");
            assert!(limits.pong_timeout < limits.ping_interval, "{name}");
            // A log of as many pages as are copied at a time, each with a header of 24 bytes.
            let log = storage.checkpoint_pages * (storage.page_bytes + 24) + 32;
            assert!(
                (log..2 * log).contains(&storage.journal_bytes_max),
                "{name}"
            );
            // Less does not hold the upper pages of the indexes.
            assert!(storage.cache_bytes >= 64 * storage.page_bytes, "{name}");
        }
    }

    #[test]
    fn table_in_the_documentation_is_what_the_profiles_hold() {
        let text = include_str!("../../docs/boards.md");
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        let size = |bytes: u32| match bytes >> 20 {
            0 => format!("{} KiB", bytes >> 10),
            whole => format!("{whole} MiB"),
        };
        for board in &BOARDS {
            let config = config_of(board);
            let (limits, storage) = (&config.limits, &config.storage);
            let cells = [
                format!("`{}`", board.name),
                mib(board.memory_bytes()),
                limits.connections_max.to_string(),
                mib(u64::try_from(limits.held_bytes_max).unwrap()),
                mib(limits.stored_bytes_max),
                format!(
                    "{} / {}",
                    size(storage.cache_bytes),
                    size(storage.journal_bytes_max)
                ),
                format!("{} ms", limits.ack_window.as_millis()),
                mib(config.memory_bytes_max()),
            ];
            let row = format!("| {} |\n", cells.join(" | "));
            assert!(text.contains(&row), "docs/boards.md has not: {row}");
        }
    }

    #[test]
    fn worst_case_of_every_board_is_forty_percent_of_its_memory() {
        for board in &BOARDS {
            let worst = config_of(board).memory_bytes_max();
            let share = board.memory_bytes() / 100 * 40;
            assert!(board.memory_bytes() >= 256 << 20, "{}", board.name);
            assert!(worst <= share, "{}: {worst} bytes of {share}", board.name);
            // And not so little that a board is left unused.
            assert!(
                worst * 2 > share,
                "{}: {worst} bytes of {share}",
                board.name
            );
        }
    }
}
