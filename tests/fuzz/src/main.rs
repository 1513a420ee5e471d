//! The fuzzer: one target for each parser of bytes from outside, one for the whole engine and one for a
//! gateway on a socket. The environment names the target (`EDGEPUSH_FUZZ`); `run` says what else.
//!
//! Each target is a function of bytes that must not panic, and that panics where a promise of the parser
//! does not hold: what it takes is within bounds, and is the same when it is written and read again.

#![no_main]

mod application_servers;
mod client_commands;
mod configuration;
mod encryption;
mod engine;
mod fields;
mod served;
mod tokens;
mod user_agents;
mod vapid;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("webpush_message", user_agents::webpush),
    ("simplepush_message", user_agents::simplepush),
    ("push_request", application_servers::push_request),
    ("update_request", application_servers::update_request),
    ("registration", application_servers::registration),
    ("forwarded", application_servers::forwarded),
    ("matrix", application_servers::matrix),
    ("broadcast_list", application_servers::broadcast_list),
    ("vapid", vapid::vapid),
    ("tokens", tokens::tokens),
    ("configuration", configuration::configuration),
    ("gateway_message", client_commands::gateway_message),
    ("subscription", client_commands::subscription),
    ("peer_url", client_commands::peer_url),
    ("answer", client_commands::answer),
    ("vapid_key", client_commands::vapid_key),
    ("encryption", encryption::encryption),
    ("engine", engine::engine),
    ("served", served::served),
];

fn chosen() -> Target {
    let name = std::env::var("EDGEPUSH_FUZZ").unwrap_or_default();
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    match target {
        Some((_, target)) => *target,
        None => panic!("EDGEPUSH_FUZZ must be one of {}", names.join(" ")),
    }
}

fuzz_target!(|bytes: &[u8]| {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    CHOSEN.get_or_init(chosen)(bytes);
});
