//! What one seed does to the gateway, its user agents and the main service.

use std::time::Duration;

use edgepush::model::limits::Limits;
use edgepush::model::upstream::{Endpoints, Identity, Unreachable, Upstream};

use crate::main_service::service::Faults;
use crate::rng::Rng;

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) limits: Limits,
    pub(crate) upstream: Upstream,
    pub(crate) user_agents: usize,
    pub(crate) steps: usize,
    /// The process is killed now and then.
    pub(crate) crashes: bool,
    /// Batches of the storage fail now and then.
    pub(crate) storage_faults: bool,
    /// The database is lost now and then; the key stays.
    pub(crate) losses: bool,
    /// The main service forgets somebody, or everybody, now and then.
    pub(crate) resets: bool,
    /// Connections end now and then, with or without a word to either side.
    pub(crate) drops: bool,
    /// The main service is away now and then: for seconds, or for days.
    pub(crate) absences: bool,
    /// It does now and then what it should not do.
    pub(crate) faults: bool,
    /// How much moves between two events, in percent.
    pub(crate) pace: u64,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mut limits = Limits::default();
        if rng.percent(25) {
            limits.unacked_per_session_max = 1 + rng.index(6);
        }
        if rng.percent(15) {
            limits.store_queue_max = rng.pick(&[4, 8, 20]);
        }
        if rng.percent(15) {
            limits.messages_per_user_agent_max = rng.pick(&[3, 10]);
        }
        let upstream = Upstream {
            service: "wss://push.example/".into(),
            endpoints: Endpoints::All,
            identity: if rng.percent(25) {
                Identity::Shared
            } else {
                Identity::PerUserAgent
            },
            unreachable: rng.pick(&[Unreachable::Local, Unreachable::Refuse]),
            connects_per_min_max: rng.pick(&[2, 6, 30]),
            reconnect_max: Duration::from_secs(rng.pick(&[10, 300])),
            ..Upstream::default()
        };
        Self {
            limits,
            upstream,
            user_agents: 1 + rng.index(4),
            steps: 100 + rng.index(500),
            crashes: rng.percent(50),
            storage_faults: rng.percent(20),
            losses: rng.percent(15),
            resets: rng.percent(35),
            drops: rng.percent(70),
            absences: rng.percent(50),
            faults: rng.percent(50),
            pace: rng.pick(&[20, 50, 80, 95]),
        }
    }
}

/// Some of what the main service can do wrong.
pub(crate) fn faults(rng: &mut Rng) -> Faults {
    let mut faults = Faults::default();
    match rng.below(8) {
        0 => faults.refuses_registers = Some(500),
        1 => faults.slow = Duration::from_millis(rng.below(20_000)),
        2 => {
            let unheard = rng.pick(&["hello", "register", "unregister"]);
            faults.ignores.insert(unheard);
        }
        3 | 4 => faults.duplicates = true,
        5 => faults.reorders = Some(Duration::from_millis(rng.below(3000))),
        _ => {}
    }
    faults
}
