//! The configuration: a TOML file, the flags of the command line over it, the board's profile and the
//! defaults below both.
//!
//! It reads text that it is given; it opens no file and no socket.

pub mod boards;
mod document;
mod draft;
mod faults;
mod keys;
mod memory;
mod values;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use crate::model::access::Access;
use crate::model::durability::Durability;
use crate::model::limits::Limits;
use crate::model::public_url::PublicUrl;
use crate::model::simplepush::SimplePush;
use crate::model::time::ClockTrust;
use crate::model::unifiedpush::UnifiedPush;
use crate::model::upstream;

pub use self::faults::Faults;

use self::boards::{Chosen, Machine};
use self::draft::Draft;

/// Where the network side listens unless told otherwise.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8090);

/// Where the operator's console listens unless told otherwise: only this board reaches it.
pub const CONSOLE_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8091);

/// The configuration as used. `docs/configuration.md` describes each key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Where user agents and application servers connect.
    pub listen: SocketAddr,
    /// Where the operator's console listens; `None` for no console.
    pub console: Option<SocketAddr>,
    /// The directory of the database and the key file.
    pub data: PathBuf,
    /// What endpoint URLs start with; `None` for the address that each user agent uses itself.
    pub public_url: Option<PublicUrl>,
    /// The least important messages that are logged.
    pub log: LevelFilter,
    /// What stands behind a 2xx answer.
    pub durability: Durability,
    /// The board whose profile gives what nobody sets.
    pub board: Chosen,
    /// Who may open a websocket.
    pub access: Access,
    /// Where broadcasts come from.
    pub broadcasts: Broadcasts,
    /// What may be chosen about SimplePush.
    pub simplepush: SimplePush,
    /// Whether the push port takes TLS.
    pub tls: Tls,
    /// What may be chosen about UnifiedPush.
    pub unifiedpush: UnifiedPush,
    /// The main service.
    pub upstream: Upstream,
    /// When VAPID tokens are refused by their expiry.
    pub vapid_clock: ClockTrust,
    /// The numbers that may be tuned.
    pub limits: Limits,
    /// How SQLite is set up.
    pub storage: Storage,
}

/// The main service, and what is borrowed from it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Upstream {
    /// Where it is, with `http` for `ws` and `https` for `wss`; `None`: there is none.
    pub url: Option<PublicUrl>,
    /// Whether the way there may be without TLS.
    pub plain: bool,
    /// The file of the authorities that its certificate may be signed by, in PEM; `None`: those that
    /// the system trusts.
    pub ca: Option<PathBuf>,
    /// All that the engine decides by.
    pub choice: upstream::Upstream,
}

/// TLS on the push port: with both files or with none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tls {
    /// The file of the certificate and those between it and its authority, in PEM.
    pub certificate: Option<PathBuf>,
    /// The file of its private key, in PEM.
    pub key: Option<PathBuf>,
    /// Whether connections without TLS are refused.
    pub only: bool,
}

impl Config {
    /// Reads the text of the configuration file, if there is one, and then the flags, which win; what
    /// neither sets is as the board's profile says. The board is the one that they name, or else the
    /// `machine`.
    ///
    /// The path is only there to be named in the faults.
    ///
    /// # Errors
    ///
    /// [`Faults`], with all that is wrong in the file and in the flags.
    pub fn load(
        file: Option<(&Path, &str)>,
        flags: &Flags,
        machine: &Machine<'_>,
    ) -> Result<Self, Faults> {
        let mut draft = Draft::new();
        if let Some((_, text)) = file {
            document::read(text, &mut draft);
        }
        draft.read_flags(flags);
        draft.read_profile(machine);
        draft.check_pairs();
        draft.finish(file.map(|(path, _)| path))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: LISTEN_DEFAULT,
            console: Some(CONSOLE_DEFAULT),
            data: PathBuf::from("edgepush-data"),
            public_url: None,
            log: LevelFilter::Info,
            durability: Durability::default(),
            board: Chosen::default(),
            access: Access::default(),
            broadcasts: Broadcasts::default(),
            simplepush: SimplePush::default(),
            tls: Tls::default(),
            unifiedpush: UnifiedPush::default(),
            upstream: Upstream::default(),
            vapid_clock: ClockTrust::default(),
            limits: Limits::default(),
            storage: Storage::default(),
        }
    }
}

/// How SQLite is set up; `storage::Settings` says what each is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Storage {
    /// Size of a page of a new database.
    pub page_bytes: u32,
    /// Most memory for cached pages.
    pub cache_bytes: u32,
    /// Pages of the write-ahead log at which it is copied into the database.
    pub checkpoint_pages: u32,
    /// What a write-ahead log that had to grow is cut back to.
    pub journal_bytes_max: u32,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            page_bytes: 4096,
            cache_bytes: 512 << 10,
            checkpoint_pages: 1000,
            journal_bytes_max: 4 << 20,
        }
    }
}

/// Where broadcasts come from: one of the two, or nowhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broadcasts {
    /// A server that has them in the megaphone's form.
    pub url: Option<PublicUrl>,
    /// A file that has them in the same form.
    pub file: Option<PathBuf>,
    /// How often that is looked at.
    pub poll: Duration,
}

impl Default for Broadcasts {
    fn default() -> Self {
        Self {
            url: None,
            file: None,
            poll: Duration::from_secs(30),
        }
    }
}

/// What the command line says over the file, as typed. Each is written as the key of its name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--console`
    pub console: Option<String>,
    /// `--data`
    pub data: Option<String>,
    /// `--public-url`
    pub public_url: Option<String>,
    /// `--log`
    pub log: Option<String>,
    /// `--durability`
    pub durability: Option<String>,
    /// `--board`
    pub board: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::boards::ChosenBy;
    use crate::model::access::Network;
    use crate::model::join_token::JoinToken;

    use super::*;

    fn load(text: &str, flags: &Flags) -> Result<Config, String> {
        let file = Some((Path::new("/etc/edgepush.toml"), text));
        Config::load(file, flags, &Machine::PC).map_err(|faults| faults.to_string())
    }

    #[test]
    fn nothing_given_is_the_defaults() {
        let nothing = Config::load(None, &Flags::default(), &Machine::PC);
        assert_eq!(nothing, Ok(Config::default()));
        assert_eq!(load("", &Flags::default()), Ok(Config::default()));
    }

    #[test]
    fn every_key_of_the_file_is_taken() {
        let text = r#"
            listen = "192.168.1.2:80"
            console = "off"
            data = "/var/lib/edgepush"
            public_url = "https://push.example.org/"
            log = "debug"
            durability = "relaxed"
            board = "raspberry-pi-2"
            [access]
            websocket_from = ["private", "203.0.113.0/24"]
            join_tokens = ["0123456789abcdef"]
            trusted_proxies = ["127.0.0.1"]
            [broadcasts]
            file = "broadcasts.json"
            poll_secs = 5
            [simplepush]
            offline_status = 200
            udp_wakeup = true
            udp_from = ["10.0.0.0/8"]
            udp_proxy = "http://operator.example/wakeup"
            [tls]
            certificate = "/etc/edgepush/fullchain.pem"
            key = "privkey.pem"
            only = true
            [unifiedpush]
            lenient = true
            matrix = true
            [vapid]
            clock = "trusted"
            [limits]
            ack_window_millis = 20
            [storage]
            page_bytes = 8192
            cache_bytes = 65536
            checkpoint_pages = 100
            journal_bytes_max = 1000000
        "#;
        let board = boards::find("raspberry-pi-2").unwrap();
        let mut expected = Config {
            listen: "192.168.1.2:80".parse().unwrap(),
            console: None,
            data: PathBuf::from("/var/lib/edgepush"),
            public_url: PublicUrl::new("https://push.example.org").ok(),
            log: LevelFilter::Debug,
            durability: Durability::Relaxed,
            tls: Tls {
                certificate: Some(PathBuf::from("/etc/edgepush/fullchain.pem")),
                key: Some(PathBuf::from("privkey.pem")),
                only: true,
            },
            unifiedpush: UnifiedPush {
                lenient: true,
                matrix: true,
            },
            vapid_clock: ClockTrust::Always,
            board: Chosen {
                board,
                by: ChosenBy::Configuration,
            },
            storage: Storage {
                page_bytes: 8192,
                cache_bytes: 65_536,
                checkpoint_pages: 100,
                journal_bytes_max: 1_000_000,
            },
            ..Config::default()
        };
        expected.limits.connections_max = 1280;
        expected.limits.connections_per_address_max = 640;
        expected.limits.websockets_per_address_max = 320;
        let block = Network::new("203.0.113.0".parse().unwrap(), 24).unwrap();
        expected.access.websocket_from.push(block);
        expected.access.join_tokens = vec![JoinToken::new("0123456789abcdef").unwrap()];
        let proxy = Network::single("127.0.0.1".parse().unwrap()).unwrap();
        expected.access.trusted_proxies = vec![proxy];
        expected.broadcasts = Broadcasts {
            url: None,
            file: Some(PathBuf::from("broadcasts.json")),
            poll: Duration::from_secs(5),
        };
        expected.simplepush = SimplePush {
            offline_status: 200,
            udp_wakeup: true,
            udp_from: vec![Network::new("10.0.0.0".parse().unwrap(), 8).unwrap()],
            udp_proxy: Some("http://operator.example/wakeup".into()),
        };
        expected.limits.ack_window = Duration::from_millis(20);
        assert_eq!(load(text, &Flags::default()), Ok(expected));
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = Flags {
            listen: Some(":9000".to_owned()),
            console: Some("off".to_owned()),
            data: Some("elsewhere".to_owned()),
            public_url: Some("http://gateway".to_owned()),
            log: Some("warn".to_owned()),
            durability: Some("relaxed".to_owned()),
            board: Some("generic-x86-64".to_owned()),
        };
        let text = r#"
            listen = ":1"
            console = ":2"
            data = "here"
            public_url = "http://other"
            log = "info"
            durability = "strict"
            board = "raspberry-pi-1"
        "#;
        let expected = Config {
            listen: "0.0.0.0:9000".parse().unwrap(),
            console: None,
            data: PathBuf::from("elsewhere"),
            public_url: PublicUrl::new("http://gateway").ok(),
            log: LevelFilter::Warn,
            durability: Durability::Relaxed,
            board: Chosen {
                by: ChosenBy::Configuration,
                ..Chosen::default()
            },
            ..Config::default()
        };
        assert_eq!(load(text, &flags), Ok(expected));
    }

    #[test]
    fn file_wins_over_the_profile_of_the_board_key_by_key() {
        let pi = Machine {
            model: Some("Raspberry Pi Zero W Rev 1.1"),
            target: "arm-unknown-linux-musleabihf",
        };
        let text = "[limits]\nconnections_max = 10\n[storage]\ncache_bytes = 1_000_000";
        let file = Some((Path::new("f"), text));
        let config = Config::load(file, &Flags::default(), &pi).unwrap();
        assert_eq!(config.board.board.name, "raspberry-pi-zero");
        assert_eq!(config.board.by, ChosenBy::Model);
        assert_eq!(config.limits.connections_max, 10);
        assert_eq!(config.limits.connections_per_address_max, 320);
        assert_eq!(config.limits.ack_window, Duration::from_millis(150));
        assert_eq!(config.storage.cache_bytes, 1_000_000);
        assert_eq!(config.storage.journal_bytes_max, 4 << 20);
        // What no profile is about is the default.
        assert_eq!(config.limits.hello_timeout, Duration::from_secs(5));
    }

    #[test]
    fn all_faults_of_file_and_flags_are_reported_at_once() {
        let text =
            "[limits]\nhello_timeout_secs = 0\nlsten = 1\n[access]\nwebsocket_from = [\"x\"]\n";
        let wrong = || Some(String::new());
        let flags = Flags {
            listen: wrong(),
            console: wrong(),
            data: wrong(),
            public_url: wrong(),
            log: wrong(),
            durability: wrong(),
            board: wrong(),
        };
        let expected = [
            "/etc/edgepush.toml:2: hello_timeout_secs must be a whole number from 1 to 300, not 0",
            "/etc/edgepush.toml:3: unknown key \"lsten\" in [limits]",
            "/etc/edgepush.toml:5: websocket_from entry must be \"private\", \"any\", an address or a block such as \"192.168.1.0/24\"",
            "--board: must be one of those that `edgepush boards` lists, such as \"raspberry-pi-zero\"",
            "--console: must be ADDRESS:PORT, :PORT, PORT or \"off\", such as \"127.0.0.1:8091\"",
            "--data: must name a directory, such as \"/var/lib/edgepush\"",
            "--durability: must be \"strict\" or \"relaxed\"",
            "--listen: must be ADDRESS:PORT, :PORT or PORT, such as \"0.0.0.0:8090\"",
            "--log: must be one of off, error, warn, info, debug and trace",
            "--public-url: must start with http:// or https://",
        ];
        assert_eq!(load(text, &flags), Err(expected.join("\n")));
    }

    #[test]
    fn values_that_do_not_fit_together_are_refused_where_they_were_set() {
        let refusals = [
            (
                "[limits]\nping_interval_secs = 4",
                "/etc/edgepush.toml:2: pong_timeout_secs is 4; it must be less than ping_interval_secs, which is 4",
            ),
            (
                "[limits]\nping_interval_secs = 9\npong_timeout_secs = 10",
                "/etc/edgepush.toml:3: pong_timeout_secs is 10; it must be less than ping_interval_secs, which is 9",
            ),
            (
                "[limits]\nbytes_per_user_agent_max = 20_001\nstored_bytes_max = 20_000",
                "/etc/edgepush.toml:2: bytes_per_user_agent_max is 20001; it must be at most stored_bytes_max, which is 20000",
            ),
            (
                "[broadcasts]\nurl = \"http://h/b\"\nfile = \"b.json\"",
                "/etc/edgepush.toml:3: url and file are both set; broadcasts come from one of them",
            ),
            (
                "console = \":8090\"",
                "/etc/edgepush.toml:1: console and listen take the same port; change one of them",
            ),
            (
                "listen = \"127.0.0.1:8091\"",
                "/etc/edgepush.toml:1: console and listen take the same port; change one of them",
            ),
            (
                "[tls]\ncertificate = \"c\"",
                "/etc/edgepush.toml:2: certificate is set and key is not; set both or neither",
            ),
            (
                "[tls]\nkey = \"k\"\nonly = true",
                "/etc/edgepush.toml:2: key is set and certificate is not; set both or neither",
            ),
            (
                "[tls]\nonly = true",
                "/etc/edgepush.toml:2: only is true; it needs certificate and key, or nobody can connect",
            ),
        ];
        for (text, fault) in refusals {
            assert_eq!(load(text, &Flags::default()), Err(fault.to_owned()));
        }
        let flags = Flags {
            listen: Some("8091".to_owned()),
            ..Flags::default()
        };
        let fault = "--listen: console and listen take the same port; change one of them";
        assert_eq!(load("", &flags), Err(fault.to_owned()));
    }

    #[test]
    fn values_that_just_fit_together_are_taken() {
        let fitting = [
            "[limits]\nping_interval_secs = 5\npong_timeout_secs = 4",
            "[limits]\nbytes_per_user_agent_max = 20_000\nstored_bytes_max = 20_000",
            "[tls]\ncertificate = \"c\"\nkey = \"k\"\nonly = true",
            "[tls]\nonly = false",
            "listen = \"0\"\nconsole = \"0\"",
            "listen = \"127.0.0.1:80\"\nconsole = \"127.0.0.2:80\"",
        ];
        for text in fitting {
            assert!(load(text, &Flags::default()).is_ok(), "{text}");
        }
    }

    #[test]
    fn key_that_was_refused_is_not_compared_with_another() {
        let text = "[limits]\nping_interval_secs = 3\npong_timeout_secs = 0";
        let fault =
            "/etc/edgepush.toml:3: pong_timeout_secs must be a whole number from 1 to 300, not 0";
        assert_eq!(load(text, &Flags::default()), Err(fault.to_owned()));
        let text = "[tls]\ncertificate = \"\"\nkey = \"k\"\nonly = true";
        let fault = "/etc/edgepush.toml:2: certificate must name a PEM file, such as \"/etc/edgepush/fullchain.pem\"";
        assert_eq!(load(text, &Flags::default()), Err(fault.to_owned()));
    }

    #[test]
    fn faults_do_not_repeat_a_value_that_may_hold_a_secret() {
        let text = "public_url = \"https://user:hunter2@push.example.org\"\ndata = hunter2\n";
        let faults = load(text, &Flags::default()).unwrap_err();
        assert!(!faults.contains("hunter2"), "{faults}");
    }
}
