//! The `edgepush` binary as a person meets it: what it prints, where, and its exit code.

use std::fs;
use std::process::{Command, Output};

fn edgepush(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgepush"));
    command
        .args(args)
        .output()
        .expect("the binary was built for this test")
}

/// Exit code, standard output, standard error.
fn spoken(args: &[&str]) -> (Option<i32>, String, String) {
    let output = edgepush(args);
    let text = |bytes| String::from_utf8(bytes).expect("the binary writes UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn refused(stderr: &str) -> (Option<i32>, String, String) {
    (Some(2), String::new(), stderr.to_owned())
}

#[test]
fn version_is_one_line() {
    let version = "edgepush 0.1.0\n".to_owned();
    assert_eq!(spoken(&["--version"]), (Some(0), version, String::new()));
}

#[test]
fn help_goes_to_standard_output() {
    let (code, stdout, stderr) = spoken(&["--help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("\nUsage: edgepush [serve] [options]\n"));
}

#[test]
fn boards_are_listed_and_one_is_explained() {
    let (code, stdout, stderr) = spoken(&["boards"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for board in ["raspberry-pi-zero ", "raspberry-pi-5 ", "generic-aarch64 "] {
        assert!(stdout.contains(board), "{stdout}");
    }
    assert!(stdout.contains("\nThis machine "), "{stdout}");

    let (code, stdout, stderr) = spoken(&["boards", "raspberry-pi-1"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("\nconnections_max = 256\n"), "{stdout}");
    let worst = "\n# With every limit reached at once it takes 92 MiB of memory, of 256 MiB.\n";
    assert!(stdout.contains(worst), "{stdout}");

    assert_eq!(
        spoken(&["boards", "raspberry-pi-9"]),
        refused("edgepush: no board of this name; see edgepush boards\n")
    );
    assert_eq!(
        spoken(&["serve", "--board", "raspberry-pi-9"]),
        refused(
            "--board: must be one of those that `edgepush boards` lists, such as \
             \"raspberry-pi-zero\"\n"
        )
    );
}

/// The long options that a help describes, each at the beginning of a line.
fn options(help: &str) -> impl Iterator<Item = &str> {
    let lines = help.lines().filter(|line| line.starts_with("  -"));
    lines.flat_map(|line| {
        line.split_whitespace()
            .filter(|word| word.starts_with("--"))
    })
}

#[test]
fn manual_page_has_every_command_and_every_option() {
    let page = include_str!("../docs/edgepush.1").replace("\\-", "-");
    let (_, help, _) = spoken(&["--help"]);
    let commands: Vec<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("       edgepush "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(commands.len() >= 8, "{commands:?}");
    let mut found = 0;
    for command in commands.iter().copied().map(Some).chain([None]) {
        let name = command.unwrap_or("serve");
        assert!(page.contains(&format!("\n.B {name}\n")), "{name}");
        let (_, help, _) = spoken(&[command.as_slice(), &["--help"]].concat());
        for option in options(&help) {
            let is_there = [" ", "\n", "\""]
                .iter()
                .any(|end| page.contains(&format!("{option}{end}")));
            assert!(is_there, "{name} {option}");
            found += 1;
        }
    }
    assert!(found > 35, "{found}");
}

#[test]
fn unknown_argument_is_named_and_help_is_pointed_to() {
    assert_eq!(
        spoken(&["--lsten", "1"]),
        refused("edgepush: invalid option '--lsten'; see edgepush --help\n")
    );
    assert_eq!(
        spoken(&["srve"]),
        refused("edgepush: unexpected argument \"srve\"; see edgepush --help\n")
    );
}

#[test]
fn wrong_flags_are_all_reported() {
    assert_eq!(
        spoken(&["serve", "--durability", "maybe", "--log", "loud"]),
        refused(
            "--durability: must be \"strict\" or \"relaxed\"\n\
             --log: must be one of off, error, warn, info, debug and trace\n"
        )
    );
}

/// Where the configuration file of one test is.
fn path(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"))
}

#[test]
fn wrong_configuration_file_is_reported_by_its_lines() {
    let path = path("wrong.toml");
    fs::write(&path, "lsten = 1\nlog = \"loud\"\n").expect("the build directory is writable");
    assert_eq!(
        spoken(&["--config", &path]),
        refused(&format!(
            "{path}:1: unknown key \"lsten\"; did you mean \"listen\"?\n\
             {path}:2: log must be one of off, error, warn, info, debug and trace\n"
        ))
    );
}

#[test]
fn configuration_file_that_cannot_be_read_is_named() {
    let missing = path("missing.toml");
    assert_eq!(
        spoken(&["--config", &missing]),
        refused(&format!(
            "edgepush: cannot read the configuration {missing}: No such file or directory (os error 2)\n"
        ))
    );
    let binary = path("binary.toml");
    fs::write(&binary, [0xff]).expect("the build directory is writable");
    assert_eq!(
        spoken(&["--config", &binary]),
        refused(&format!(
            "edgepush: cannot read the configuration {binary}: stream did not contain valid UTF-8\n"
        ))
    );
}
