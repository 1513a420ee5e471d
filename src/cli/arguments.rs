//! The arguments to a [`Command`]. What their values mean belongs to `config`.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

#[cfg(feature = "load")]
use super::load;
use super::{boards, database, listen, send, vapid};
use crate::config::Flags;

/// The answer to `--help`.
pub(super) const HELP: &str = "\
A push gateway for small boards: websockets and HTTP in, SQLite below.

Usage: edgepush [serve] [options]
       edgepush listen URL      receive: a user agent for the shell
       edgepush send ENDPOINT   send to an endpoint
       edgepush vapid [FILE]    make the key of an application server
       edgepush backup FILE     copy the database and the key file
       edgepush check [FILE]    look through the database
       edgepush restore FILE    put a backup in its place
       edgepush boards [NAME]   list the boards, or show the profile of one
       edgepush load            load and check a push service, if built in

Each of these has a --help of its own.

Options:
  --listen ADDR       where user agents and application servers connect:
                      ADDRESS:PORT, :PORT or PORT (default 0.0.0.0:8090)
  --console ADDR      where the operator's console listens, or \"off\"
                      (default 127.0.0.1:8091)
  --data DIR          the database and the key file (default edgepush-data)
  --public-url URL    what endpoint URLs start with
                      (default: the address that the user agent itself uses)
  --durability LEVEL  strict, or relaxed: answer before the message is kept
                      (default strict)
  --board NAME        whose limits to use (default: what the machine says
                      that it is; see edgepush boards)
  --log LEVEL         off, error, warn, info, debug or trace (default info)
  --config FILE       a TOML file with these and more; options win over it
                      (default: no file)
  -h, --help          print this
  -V, --version       print the version

Example:
  edgepush --data /var/lib/edgepush --public-url https://push.example.org
";

/// What a person asked for.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Print the help of another command.
    HelpOf(&'static str),
    /// Refuse the arguments of another command: its name, and why.
    Misused(&'static str, String),
    /// Be a user agent.
    Listen(Box<listen::arguments::Options>),
    /// Be an application server.
    Send(Box<send::arguments::Options>),
    /// Load a push service.
    #[cfg(feature = "load")]
    Load(Box<load::arguments::Options>),
    /// Make or show the key of an application server.
    Vapid(PathBuf),
    /// List the boards, or show the profile of one.
    Boards(Option<String>),
    /// Copy, look through or put back the database.
    Database(database::Task, database::Options),
    /// Run the gateway.
    Serve {
        /// The configuration file.
        file: Option<PathBuf>,
        /// What goes over it.
        flags: Flags,
    },
}

/// Reads the arguments; the first of them is the name of the program.
///
/// Of an option that is given twice the last one counts.
///
/// # Errors
///
/// The first argument that is not understood, by name.
pub(super) fn read(args: impl Iterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut parser = Parser::from_iter(args);
    let mut file = None;
    let mut flags = Flags::default();
    let mut command_named = false;
    if let Some(command) = other_command(&mut parser) {
        return Ok(command);
    }
    while let Some(argument) = parser.next()? {
        let flag = match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version),
            Arg::Long("listen") => &mut flags.listen,
            Arg::Long("console") => &mut flags.console,
            Arg::Long("data") => &mut flags.data,
            Arg::Long("public-url") => &mut flags.public_url,
            Arg::Long("durability") => &mut flags.durability,
            Arg::Long("board") => &mut flags.board,
            Arg::Long("log") => &mut flags.log,
            Arg::Long("config") => {
                file = Some(PathBuf::from(parser.value()?));
                continue;
            }
            Arg::Value(command) if command == "serve" && !command_named => {
                command_named = true;
                continue;
            }
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        };
        *flag = Some(parser.value()?.string()?);
    }
    Ok(Command::Serve { file, flags })
}

/// The command, if it is not to serve: its name is then the first argument.
fn other_command(parser: &mut Parser) -> Option<Command> {
    let mut args = parser.try_raw_args()?;
    let mut is_next = |name: &str| args.next_if(|arg| arg == name).is_some();
    if is_next("listen") {
        let options = listen::arguments::read(parser);
        let command = |options| Command::Listen(Box::new(options));
        return Some(of("listen", options, command, listen::arguments::HELP));
    }
    if is_next("send") {
        let options = send::arguments::read(parser);
        let command = |options| Command::Send(Box::new(options));
        return Some(of("send", options, command, send::arguments::HELP));
    }
    #[cfg(feature = "load")]
    if is_next("load") {
        let options = load::arguments::read(parser);
        let command = |options| Command::Load(Box::new(options));
        return Some(of("load", options, command, load::arguments::HELP));
    }
    if is_next("vapid") {
        let path = vapid::arguments(parser);
        return Some(of("vapid", path, Command::Vapid, vapid::HELP));
    }
    if is_next("boards") {
        let name = boards::arguments(parser);
        return Some(of("boards", name, Command::Boards, boards::HELP));
    }
    if let Some(task) = database::Task::ALL
        .into_iter()
        .find(|task| is_next(task.name()))
    {
        let options = database::arguments(task, parser);
        let command = |options| Command::Database(task, options);
        return Some(of(task.name(), options, command, task.help()));
    }
    None
}

/// What came of reading the arguments of the command `name`.
fn of<T>(
    name: &'static str,
    read: Result<Option<T>, lexopt::Error>,
    command: impl FnOnce(T) -> Command,
    help: &'static str,
) -> Command {
    match read {
        Ok(Some(options)) => command(options),
        Ok(None) => Command::HelpOf(help),
        Err(error) => Command::Misused(name, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Result<Command, String> {
        let args = line.split_whitespace().map(OsString::from);
        read(args).map_err(|error| error.to_string())
    }

    #[test]
    fn gateway_serves_with_or_without_being_told() {
        for line in ["edgepush", "edgepush serve", ""] {
            let serve = Command::Serve {
                file: None,
                flags: Flags::default(),
            };
            assert_eq!(command(line), Ok(serve), "{line}");
        }
    }

    #[test]
    fn every_option_reaches_its_flag() {
        let given = |text: &str| Some(text.to_owned());
        let serve = Command::Serve {
            file: Some(PathBuf::from("f.toml")),
            flags: Flags {
                listen: given("1"),
                console: given("off"),
                data: given("d"),
                public_url: given("http://u"),
                log: given("debug"),
                durability: given("relaxed"),
                board: given("b"),
            },
        };
        let options = "--listen 1 --console=off --data d --public-url http://u --log debug \
                       --durability relaxed --board b --config f.toml";
        assert_eq!(
            command(&format!("edgepush serve {options}")).as_ref(),
            Ok(&serve)
        );
        assert_eq!(
            command(&format!("edgepush --listen 0 {options} serve")),
            Ok(serve)
        );
    }

    #[test]
    fn help_and_version_need_nothing_else() {
        for line in [
            "edgepush -h",
            "edgepush serve --help",
            "edgepush --data d --help x",
        ] {
            assert_eq!(command(line), Ok(Command::Help), "{line}");
        }
        for line in ["edgepush -V", "edgepush --version"] {
            assert_eq!(command(line), Ok(Command::Version), "{line}");
        }
    }

    #[test]
    fn argument_that_is_not_understood_is_named() {
        let refusals = [
            ("edgepush --lsten 1", "invalid option '--lsten'"),
            ("edgepush -x", "invalid option '-x'"),
            ("edgepush srve", "unexpected argument \"srve\""),
            ("edgepush serve serve", "unexpected argument \"serve\""),
            (
                "edgepush --listen",
                "missing argument for option '--listen'",
            ),
            (
                "edgepush --config",
                "missing argument for option '--config'",
            ),
        ];
        for (line, error) in refusals {
            assert_eq!(command(line), Err(error.to_owned()), "{line}");
        }
    }

    #[test]
    fn help_names_every_option_and_its_real_default() {
        let config = crate::config::Config::default();
        let console = config.console.unwrap();
        let log = config.log.as_str().to_lowercase();
        let options = [
            ("--listen ADDR", format!("(default {})", config.listen)),
            ("--console ADDR", format!("(default {console})")),
            ("--data DIR", format!("(default {})", config.data.display())),
            (
                "--public-url URL",
                "(default: the address that the user agent itself uses)".to_owned(),
            ),
            (
                "--board NAME",
                "(default: what the machine says\n                      that it is; see edgepush boards)".to_owned(),
            ),
            ("--durability LEVEL", "(default strict)".to_owned()),
            ("--log LEVEL", format!("(default {log})")),
            ("--config FILE", "(default: no file)".to_owned()),
        ];
        for (option, default) in options {
            // What stands behind the option, up to the next one.
            let (_, behind) = HELP.split_once(&format!("\n  {option} ")).expect(option);
            let own = behind.split("\n  -").next().unwrap_or(behind);
            assert!(own.contains(&default), "{option}");
        }
    }
}
