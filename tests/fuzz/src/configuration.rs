//! The configuration file and the flags.

use std::path::Path;

use edgepush::config::boards::Machine;
use edgepush::config::{Config, Flags};

use crate::fields::Fields;

pub(crate) fn configuration(bytes: &[u8]) {
    // The text alone, and behind flags that look like headers.
    check(&String::from_utf8_lossy(bytes), &Flags::default());
    let fields = Fields::of(bytes);
    let flags = Flags {
        listen: fields.header("listen"),
        console: fields.header("console"),
        data: fields.header("data"),
        public_url: fields.header("public-url"),
        log: fields.header("log"),
        durability: fields.header("durability"),
        board: fields.header("board"),
    };
    check(&String::from_utf8_lossy(fields.body), &flags);
}

fn check(text: &str, flags: &Flags) {
    let machine = Machine {
        model: None,
        target: "x86_64-unknown-linux-gnu",
    };
    match Config::load(Some((Path::new("edgepush.toml"), text)), flags, &machine) {
        Ok(config) => {
            let limits = &config.limits;
            assert!(limits.pong_timeout < limits.ping_interval);
            assert!(limits.bytes_per_user_agent_max <= limits.stored_bytes_max);
            assert!(
                config.console.is_none()
                    || config.console != Some(config.listen)
                    || config.listen.port() == 0
            );
        }
        Err(faults) => {
            let faults = faults.to_string();
            assert!(!faults.is_empty());
            for fault in faults.lines() {
                assert!(
                    fault.starts_with("edgepush.toml") || fault.starts_with("--"),
                    "{fault}"
                );
            }
        }
    }
}
