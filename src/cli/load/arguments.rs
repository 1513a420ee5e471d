//! The arguments of `edgepush load`. Everything has a bound, so that a run ends.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use super::payload::SIZE_MIN;
use super::scripts::{self, Mix};
use crate::model::dialect::Dialect;
use crate::protocol::peer_url::PeerUrl;

/// The answer to `--help`.
pub(in crate::cli) const HELP: &str = "\
Loads a push service and checks what it does: many user agents, and the
application server that sends to them.

Usage: edgepush load [options] STRATEGY URL

URL is the push service, as edgepush listen takes it. STRATEGY is what each user
agent does until the time is over:
  idle       stays connected
  basic      receives and acks what is sent to it
  ping       asks whether the push service is there
  channels   makes a subscription, uses it, gives it up: then it must be gone
  reconnect  receives, leaves in order, comes back under its name
  data       as basic, with bodies of every size, under both encodings
  stored     is away while messages are sent, and comes back for them
  unacked    does not ack; then everything must come again
  burst      gets --backlog messages at once, each second
  churn      loses its connection all the time while messages are sent
  bad        sends what must be refused, beside what must not
  mixed      every user agent another one of these

Options:
  --agents N        user agents (default 10)
  --channels N      subscriptions of each (default 1)
  --rate N          messages a second, all together (default 0: as fast as they
                    are answered)
  --connections N   application server's connections, one message on each at a
                    time (default 8)
  --size A[-B]      bytes of a body, of a version update's data with --simplepush
                    (default 200; 0, none, with --simplepush)
  --backlog N       messages of a round: stored, unacked, burst (default 10)
  --secs N          how long (default 10)
  --messages N      send no more than this (default 1000000)
  --every SECS      between two pings of a user agent (default 60)
  --ttl SECS        TTL of a message (default 3600)
  --seed N          of sizes, bytes and names (default 1)
  --simplepush      speak SimplePush: version updates
  --pid PID         of the push service on this machine: report what it uses
  --json            print the report as one JSON object
  --ca FILE         certificates to trust, for wss:// and https://
  -h, --help        print this

A line a second on standard error says how it goes; the report follows on standard
output. The exit code is 1 if any check failed: what was accepted was received and
acked, once, by the right user agent under the right subscription, with the same
bytes; user agents kept their names; every answer had the status it should.

Example:
  edgepush load basic --agents 50 --secs 30 ws://raspberrypi:8090/
";

/// What `edgepush load` is to do.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::cli) struct Options {
    pub(super) strategies: Mix,
    pub(super) url: PeerUrl,
    pub(super) dialect: Dialect,
    pub(super) agents: u32,
    pub(super) channels: u32,
    pub(super) rate_per_sec: u32,
    pub(super) connections: u32,
    /// First and last size, in bytes.
    pub(super) sizes: (u16, u16),
    pub(super) backlog: u32,
    pub(super) time: Duration,
    pub(super) messages_max: u64,
    pub(super) ping_interval: Duration,
    pub(super) ttl_secs: u32,
    pub(super) seed: u64,
    pub(super) pid: Option<u32>,
    pub(super) json: bool,
    pub(super) ca: Option<PathBuf>,
}

/// Most user agents: more have no port left to connect from.
const AGENTS_MAX: u64 = 65_000;
/// Most subscriptions of one: more than any push service allows.
const CHANNELS_MAX: u64 = 10_000;
/// Most messages a second that can be asked for: beyond what one thread can send.
const RATE_MAX: u64 = 1_000_000;
/// Most connections of the application server.
const CONNECTIONS_MAX: u64 = 10_000;
/// Largest body, in bytes: what every push service takes (RFC 8030 section 7.2).
pub(super) const SIZE_MAX: u16 = 4096;
/// Longest run, in seconds: a day.
const SECS_MAX: u64 = 24 * 60 * 60;
/// Most messages of a run: the books of each take 64 bytes.
const MESSAGES_MAX: u64 = 100_000_000;
/// Longest TTL, in seconds: 30 days.
const TTL_MAX: u64 = 30 * 24 * 60 * 60;
/// A usual body, in bytes.
const SIZE: u16 = 200;

/// Reads what stands behind `load`; `None` if help is asked for.
///
/// # Errors
///
/// The first argument that is not understood, by name.
pub(in crate::cli) fn read(parser: &mut Parser) -> Result<Option<Options>, lexopt::Error> {
    let (mut strategies, mut url, mut sizes, mut ca, mut pid) = (None, None, None, None, None);
    let (mut agents, mut channels, mut rate, mut connections) = (10, 1, 0, 8);
    let (mut backlog, mut secs, mut messages) = (10, 10, 1_000_000);
    let (mut every_secs, mut ttl_secs, mut seed) = (60, 3600, 1);
    let (mut simplepush, mut json) = (false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("agents") => agents = number(parser, "--agents", 1, AGENTS_MAX)?,
            Arg::Long("channels") => channels = number(parser, "--channels", 1, CHANNELS_MAX)?,
            Arg::Long("rate") => rate = number(parser, "--rate", 0, RATE_MAX)?,
            Arg::Long("connections") => {
                connections = number(parser, "--connections", 1, CONNECTIONS_MAX)?;
            }
            Arg::Long("size") => sizes = Some(range(&parser.value()?.string()?)?),
            Arg::Long("backlog") => backlog = number(parser, "--backlog", 1, MESSAGES_MAX)?,
            Arg::Long("secs") => secs = number(parser, "--secs", 1, SECS_MAX)?,
            Arg::Long("messages") => messages = number(parser, "--messages", 1, MESSAGES_MAX)?,
            Arg::Long("every") => every_secs = number(parser, "--every", 1, SECS_MAX)?,
            Arg::Long("ttl") => ttl_secs = number(parser, "--ttl", 1, TTL_MAX)?,
            Arg::Long("seed") => seed = number(parser, "--seed", 0, u64::MAX)?,
            Arg::Long("pid") => pid = Some(number(parser, "--pid", 1, u32::MAX.into())?),
            Arg::Long("simplepush") => simplepush = true,
            Arg::Long("json") => json = true,
            Arg::Long("ca") => ca = Some(PathBuf::from(parser.value()?)),
            Arg::Value(text) if strategies.is_none() => {
                let text = text.string()?;
                strategies = Some(scripts::named(&text).ok_or("STRATEGY is none of those")?);
            }
            Arg::Value(text) if url.is_none() => {
                let text = text.string()?;
                url = Some(PeerUrl::new(&text).map_err(|error| format!("URL {error}"))?);
            }
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        }
    }
    let (dialect, least, usual) = if simplepush {
        (Dialect::SimplePush, 0, 0)
    } else {
        (Dialect::WebPush, SIZE_MIN, SIZE)
    };
    let sizes = sizes.unwrap_or((usual, usual));
    if sizes.0 < least {
        return Err(format!("--size must be at least {least}: a body names its message").into());
    }
    Ok(Some(Options {
        strategies: strategies.ok_or("STRATEGY is missing")?,
        url: url.ok_or("the URL of the push service is missing")?,
        dialect,
        agents: small(agents),
        channels: small(channels),
        rate_per_sec: small(rate),
        connections: small(connections),
        sizes,
        backlog: small(backlog),
        time: Duration::from_secs(secs),
        messages_max: messages,
        ping_interval: Duration::from_secs(every_secs),
        ttl_secs: small(ttl_secs),
        seed,
        pid: pid.map(small),
        json,
        ca,
    }))
}

/// The number of an option, within bounds that are both included.
fn number(parser: &mut Parser, name: &str, min: u64, max: u64) -> Result<u64, lexopt::Error> {
    let text = parser.value()?.string()?;
    let number = text.parse().ok().filter(|n| (min..=max).contains(n));
    number.ok_or_else(|| format!("{name} must be a whole number from {min} to {max}").into())
}

/// What has been found to be within bounds.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// One size or the first and the last.
fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let size = |text: &str| text.parse().ok().filter(|size| *size <= SIZE_MAX);
    match (size(first), size(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(format!(
            "--size must be a number of bytes up to {SIZE_MAX}, or two with - between them"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        let mut parser = Parser::from_args(line.split_whitespace());
        match read(&mut parser) {
            Ok(Some(options)) => Ok(options),
            Ok(None) => Err("help".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_run_is_bounded() {
        let all = options("basic pi:8090").unwrap();
        assert_eq!((all.agents, all.channels, all.connections), (10, 1, 8));
        assert_eq!(all.time, Duration::from_secs(10));
        assert_eq!(all.messages_max, 1_000_000);
        assert_eq!((all.sizes, all.dialect), ((200, 200), Dialect::WebPush));
        let simplepush = options("--simplepush basic pi:8090").unwrap();
        assert_eq!(simplepush.sizes, (0, 0));
    }

    #[test]
    fn number_out_of_bounds_is_refused_with_them() {
        for (line, error) in [
            (
                "--agents 0",
                "--agents must be a whole number from 1 to 65000",
            ),
            (
                "--agents 65001",
                "--agents must be a whole number from 1 to 65000",
            ),
            ("--secs x", "--secs must be a whole number from 1 to 86400"),
            (
                "--size 7",
                "--size must be at least 8: a body names its message",
            ),
            (
                "--size 9-8",
                "--size must be a number of bytes up to 4096, or two with - between them",
            ),
            (
                "--size 8-4097",
                "--size must be a number of bytes up to 4096, or two with - between them",
            ),
            ("--what", "invalid option '--what'"),
        ] {
            assert_eq!(
                options(&format!("basic pi:1 {line}")),
                Err(error.to_owned())
            );
        }
        assert!(options("basic pi:1 --agents 65000 --size 8-4096").is_ok());
    }

    #[test]
    fn strategy_and_url_are_needed() {
        let error = |line| options(line).unwrap_err();
        assert_eq!(error(""), "STRATEGY is missing");
        assert_eq!(error("basic"), "the URL of the push service is missing");
        assert_eq!(error("fast pi:1"), "STRATEGY is none of those");
        assert_eq!(error("basic pi:1 more"), "unexpected argument \"more\"");
        assert_eq!(error("--help"), "help");
    }
}
