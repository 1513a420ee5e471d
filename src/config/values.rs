//! The text of a value to the value. An error says what the value must be, without repeating it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use log::LevelFilter;

use crate::model::access::Network;
use crate::model::durability::Durability;
use crate::model::ids::Tag;
use crate::model::join_token::{JOIN_TOKEN_CHARS_MAX, JOIN_TOKEN_CHARS_MIN, JoinToken};
use crate::model::message::is_base64url;
use crate::model::public_url::PublicUrl;
use crate::model::time::ClockTrust;
use crate::model::upstream::{Endpoints, Identity, Rule, Unreachable};

use super::boards::{self, Chosen, ChosenBy};
use super::{CONSOLE_DEFAULT, Config, LISTEN_DEFAULT};

/// Takes the text of a key into the configuration.
pub(super) type SetText = fn(&mut Config, &str) -> Result<(), String>;

pub(super) fn set_listen(config: &mut Config, text: &str) -> Result<(), String> {
    config.listen = address(text, LISTEN_DEFAULT.ip())
        .ok_or("must be ADDRESS:PORT, :PORT or PORT, such as \"0.0.0.0:8090\"")?;
    Ok(())
}

pub(super) fn set_console(config: &mut Config, text: &str) -> Result<(), String> {
    config.console =
        match text {
            "off" => None,
            _ => Some(address(text, CONSOLE_DEFAULT.ip()).ok_or(
                "must be ADDRESS:PORT, :PORT, PORT or \"off\", such as \"127.0.0.1:8091\"",
            )?),
        };
    Ok(())
}

pub(super) fn set_data(config: &mut Config, text: &str) -> Result<(), String> {
    config.data = path(text).ok_or("must name a directory, such as \"/var/lib/edgepush\"")?;
    Ok(())
}

pub(super) fn set_certificate(config: &mut Config, text: &str) -> Result<(), String> {
    const SHAPE: &str = "must name a PEM file, such as \"/etc/edgepush/fullchain.pem\"";
    config.tls.certificate = Some(path(text).ok_or(SHAPE)?);
    Ok(())
}

pub(super) fn set_key(config: &mut Config, text: &str) -> Result<(), String> {
    const SHAPE: &str = "must name a PEM file, such as \"/etc/edgepush/privkey.pem\"";
    config.tls.key = Some(path(text).ok_or(SHAPE)?);
    Ok(())
}

pub(super) fn set_board(config: &mut Config, text: &str) -> Result<(), String> {
    let board = boards::find(text).ok_or(
        "must be one of those that `edgepush boards` lists, such as \"raspberry-pi-zero\"",
    )?;
    config.board = Chosen {
        board,
        by: ChosenBy::Configuration,
    };
    Ok(())
}

pub(super) fn set_public_url(config: &mut Config, text: &str) -> Result<(), String> {
    config.public_url = Some(url(text)?);
    Ok(())
}

pub(super) fn set_log(config: &mut Config, text: &str) -> Result<(), String> {
    config.log = match text {
        "off" => LevelFilter::Off,
        "error" => LevelFilter::Error,
        "warn" => LevelFilter::Warn,
        "info" => LevelFilter::Info,
        "debug" => LevelFilter::Debug,
        "trace" => LevelFilter::Trace,
        _ => return Err("must be one of off, error, warn, info, debug and trace".to_owned()),
    };
    Ok(())
}

pub(super) fn set_durability(config: &mut Config, text: &str) -> Result<(), String> {
    config.durability = match text {
        "strict" => Durability::Strict,
        "relaxed" => Durability::Relaxed,
        _ => return Err("must be \"strict\" or \"relaxed\"".to_owned()),
    };
    Ok(())
}

/// One of the numbers that its key takes.
pub(super) fn set_offline_status(config: &mut Config, number: u64) {
    config.simplepush.offline_status = if number == 200 { 200 } else { 202 };
}

pub(super) fn set_broadcasts_url(config: &mut Config, text: &str) -> Result<(), String> {
    config.broadcasts.url = Some(url(text)?);
    Ok(())
}

pub(super) fn set_broadcasts_file(config: &mut Config, text: &str) -> Result<(), String> {
    config.broadcasts.file = Some(path(text).ok_or("must name a file")?);
    Ok(())
}

/// An URL of somebody else is as limited as our own.
pub(super) fn set_udp_proxy(config: &mut Config, text: &str) -> Result<(), String> {
    config.simplepush.udp_proxy = Some(url(text)?.as_str().into());
    Ok(())
}

pub(super) fn set_vapid_clock(config: &mut Config, text: &str) -> Result<(), String> {
    config.vapid_clock = match text {
        "auto" => ClockTrust::Auto,
        "trusted" => ClockTrust::Always,
        "untrusted" => ClockTrust::Never,
        _ => return Err("must be \"auto\", \"trusted\" or \"untrusted\"".to_owned()),
    };
    Ok(())
}

/// The networks behind one entry of a list: `"private"`, `"any"`, an address or a CIDR block.
pub(super) fn networks(text: &str) -> Result<Vec<Network>, String> {
    match text {
        "private" => return Ok(Network::PRIVATE.to_vec()),
        "any" => return Ok(Network::ANY.to_vec()),
        _ => {}
    }
    const SHAPE: &str =
        "must be \"private\", \"any\", an address or a block such as \"192.168.1.0/24\"";
    let (first, prefix_bits) = match text.split_once('/') {
        Some((first, bits)) => (first, Some(decimal(bits).ok_or(SHAPE)?)),
        None => (text, None),
    };
    let first: IpAddr = first.parse().map_err(|_| SHAPE)?;
    let network = match prefix_bits {
        Some(bits) => Network::new(first, bits.into()),
        None => Network::single(first),
    };
    network
        .map(|network| vec![network])
        .map_err(|error| error.to_string())
}

/// One entry of a list of secrets.
pub(super) fn join_token(text: &str) -> Result<JoinToken, String> {
    JoinToken::new(text).ok_or_else(|| {
        format!(
            "must have {JOIN_TOKEN_CHARS_MIN} to {JOIN_TOKEN_CHARS_MAX} characters of A-Z, a-z, 0-9, - and _"
        )
    })
}

/// The main service's URL. Its other spellings lead to the same service.
pub(super) fn set_upstream_url(config: &mut Config, text: &str) -> Result<(), String> {
    let (scheme, rest) = match text.split_once("://") {
        Some(("wss", rest)) => ("https", rest),
        Some(("ws", rest)) => ("http", rest),
        _ => return Err("must start with wss://, or with ws:// if plain is true".to_owned()),
    };
    let url = url(&format!("{scheme}://{rest}"))?;
    config.upstream.choice.service = url.as_str().into();
    config.upstream.url = Some(url);
    Ok(())
}

pub(super) fn set_upstream_ca(config: &mut Config, text: &str) -> Result<(), String> {
    const SHAPE: &str = "must name a PEM file, such as \"/etc/edgepush/ca.pem\"";
    config.upstream.ca = Some(path(text).ok_or(SHAPE)?);
    Ok(())
}

pub(super) fn set_upstream_identity(config: &mut Config, text: &str) -> Result<(), String> {
    config.upstream.choice.identity = match text {
        "per-user-agent" => Identity::PerUserAgent,
        "shared" => Identity::Shared,
        _ => return Err("must be \"per-user-agent\" or \"shared\"".to_owned()),
    };
    Ok(())
}

pub(super) fn set_upstream_unreachable(config: &mut Config, text: &str) -> Result<(), String> {
    config.upstream.choice.unreachable = match text {
        "local" => Unreachable::Local,
        "refuse" => Unreachable::Refuse,
        _ => return Err("must be \"local\" or \"refuse\"".to_owned()),
    };
    Ok(())
}

/// All endpoints or none, where there is no list of rules.
pub(super) fn endpoints(text: &str) -> Result<Endpoints, String> {
    match text {
        "none" => Ok(Endpoints::None),
        "all" => Ok(Endpoints::All),
        _ => Err(ENDPOINTS_SHAPE.to_owned()),
    }
}

/// What `upstream.endpoints` takes.
pub(super) const ENDPOINTS_SHAPE: &str =
    "must be \"none\", \"all\" or a list of rules such as [{ user_agent = \"1f2e3d4c\" }]";

/// A rule of one key and its value.
pub(super) fn endpoint_rule(name: &str, value: &str) -> Result<Rule, String> {
    match name {
        "vapid" => {
            let key = value.trim_end_matches('=');
            // 65 bytes, of which the first says that the point is not compressed.
            let is_key = key.len() == 87 && key.starts_with('B') && is_base64url(key);
            let shape = "vapid must be a public key of 87 characters that starts with B";
            is_key
                .then(|| Rule::Vapid(key.into()))
                .ok_or_else(|| shape.to_owned())
        }
        "user_agent" => Tag::new(value)
            .map(Rule::UserAgent)
            .ok_or_else(|| "user_agent must be the first 8 hex digits of a UAID".to_owned()),
        "join_token" => join_token(value)
            .map(Rule::JoinToken)
            .map_err(|what| format!("join_token {what}")),
        _ => Err("must have vapid, user_agent or join_token".to_owned()),
    }
}

fn url(text: &str) -> Result<PublicUrl, String> {
    PublicUrl::new(text).map_err(|error| error.to_string())
}

/// A path; whether anything is there is seen when it is used.
fn path(text: &str) -> Option<PathBuf> {
    let usable = !text.is_empty() && !text.contains('\0');
    usable.then(|| text.into())
}

/// `ADDRESS:PORT`, or `:PORT` or `PORT` at `ip`.
fn address(text: &str, ip: IpAddr) -> Option<SocketAddr> {
    let port = text.strip_prefix(':').unwrap_or(text);
    match decimal(port) {
        Some(port) => Some(SocketAddr::new(ip, port)),
        None => text.parse().ok(),
    }
}

/// A number of digits alone: the standard library would take a sign as well.
fn decimal(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_takes_an_address_and_a_port_or_a_port_alone() {
        let readings = [
            ("192.168.1.2:80", "192.168.1.2:80"),
            ("[::]:8090", "[::]:8090"),
            (":9000", "0.0.0.0:9000"),
            ("9000", "0.0.0.0:9000"),
            ("0", "0.0.0.0:0"),
        ];
        for (text, address) in readings {
            let mut config = Config::default();
            assert_eq!(set_listen(&mut config, text), Ok(()), "{text}");
            assert_eq!(config.listen.to_string(), address);
        }
        for text in [
            "",
            ":",
            "+80",
            "65536",
            "localhost:80",
            "0.0.0.0",
            "::1:80",
            "80:",
            "off",
        ] {
            let mut config = Config::default();
            let error = set_listen(&mut config, text).unwrap_err();
            assert_eq!(
                error, "must be ADDRESS:PORT, :PORT or PORT, such as \"0.0.0.0:8090\"",
                "{text}"
            );
        }
    }

    #[test]
    fn console_without_an_address_stays_on_this_board() {
        for text in [":9000", "9000"] {
            let mut config = Config::default();
            assert_eq!(set_console(&mut config, text), Ok(()));
            assert_eq!(config.console, "127.0.0.1:9000".parse().ok());
        }
    }

    #[test]
    fn console_can_be_off() {
        let mut config = Config::default();
        assert_eq!(set_console(&mut config, "off"), Ok(()));
        assert_eq!(config.console, None);
    }

    #[test]
    fn clock_of_vapid_is_one_word_of_three() {
        let mut config = Config::default();
        for (text, trust) in [
            ("untrusted", ClockTrust::Never),
            ("trusted", ClockTrust::Always),
            ("auto", ClockTrust::Auto),
        ] {
            assert_eq!(set_vapid_clock(&mut config, text), Ok(()));
            assert_eq!(config.vapid_clock, trust);
        }
        let refused = set_vapid_clock(&mut config, "Auto").unwrap_err();
        assert_eq!(refused, "must be \"auto\", \"trusted\" or \"untrusted\"");
    }

    #[test]
    fn networks_are_named_or_written_as_blocks() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert_eq!(networks("private"), Ok(Network::PRIVATE.to_vec()));
        assert_eq!(networks("any"), Ok(Network::ANY.to_vec()));
        let block = Network::new(ip("10.2.0.0"), 16).unwrap();
        assert_eq!(networks("10.2.0.0/16"), Ok(vec![block]));
        let single = Network::new(ip("2001:db8::7"), 128).unwrap();
        assert_eq!(networks("2001:db8::7"), Ok(vec![single]));
    }

    #[test]
    fn text_that_is_no_network_is_refused_with_what_it_must_be() {
        let shape =
            "must be \"private\", \"any\", an address or a block such as \"192.168.1.0/24\"";
        let refusals = [
            ("", shape),
            ("Private", shape),
            ("10.2.0.0/", shape),
            ("10.2.0.0/+8", shape),
            ("10.2.0.0/8/8", shape),
            ("10.2/16", shape),
            ("router.local", shape),
            (
                "10.2.0.0/33",
                "must have at most /32 behind an IPv4 and /128 behind an IPv6 address",
            ),
            (
                "10.2.0.1/16",
                "must start with its first address, such as 192.168.1.0/24",
            ),
            (
                "::ffff:10.2.0.0/112",
                "must be written as IPv4, without the leading ::ffff:",
            ),
        ];
        for (text, error) in refusals {
            assert_eq!(networks(text), Err(error.to_owned()), "{text}");
        }
    }
}
