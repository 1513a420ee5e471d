//! What one seed does to the gateway: how large, how tight, how cruel.

use std::time::Duration;

use edgepush::model::durability::Durability;
use edgepush::model::limits::Limits;
use edgepush::model::simplepush::SimplePush;

use crate::rng::Rng;
use crate::world::WALL_SECS;

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) limits: Limits,
    pub(crate) durability: Durability,
    pub(crate) simplepush: SimplePush,
    /// What the wall clock shows at the first start.
    pub(crate) first_wall_secs: u64,
    pub(crate) user_agents: usize,
    /// Each ends with a pause in which everything that can be delivered must be.
    pub(crate) epochs: usize,
    pub(crate) steps: usize,
    /// The process is killed now and then.
    pub(crate) crashes: bool,
    /// Batches of the storage fail now and then.
    pub(crate) faults: bool,
    /// The database is deleted now and then; the key stays.
    pub(crate) losses: bool,
    /// How much happens on the network and in the storage between two other events, in percent.
    pub(crate) pace: u64,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        // What relaxed durability promises holds only while nothing goes wrong.
        let relaxed = rng.percent(10);
        let is_large = rng.percent(2);
        let mut limits = tight(rng, relaxed);
        limits.ping_interval = Duration::from_secs(rng.pick(&[20, 60, 300]));
        limits.delete_delay = Duration::from_millis(rng.pick(&[50, 500, 2000]));
        limits.redelivery_interval = Duration::from_secs(rng.pick(&[6, 60]));
        limits.udp_idle = Duration::from_secs(rng.pick(&[5, 10]));
        Self {
            limits,
            durability: if relaxed {
                Durability::Relaxed
            } else {
                Durability::Strict
            },
            simplepush: SimplePush {
                offline_status: rng.pick(&[202, 202, 202, 200]),
                udp_wakeup: rng.percent(50),
                ..SimplePush::default()
            },
            first_wall_secs: rng.pick(&[WALL_SECS, WALL_SECS, WALL_SECS, 0]),
            user_agents: if is_large {
                100 + rng.index(300)
            } else {
                2 + rng.index(9)
            },
            epochs: 1 + rng.index(3),
            steps: if is_large {
                3000 + rng.index(2000)
            } else {
                100 + rng.index(400)
            },
            crashes: !relaxed && rng.percent(70),
            faults: !relaxed && rng.percent(40),
            losses: !relaxed && rng.percent(25),
            pace: rng.pick(&[15, 40, 70, 90]),
        }
    }
}

/// Limits so small that they are reached, some of them in each run.
fn tight(rng: &mut Rng, relaxed: bool) -> Limits {
    let mut limits = Limits::default();
    if rng.percent(25) {
        limits.unacked_per_session_max = 1 + rng.index(6);
    }
    if rng.percent(35) {
        limits.unsent_bytes_max = rng.pick(&[300, 1000, 4000]);
    }
    if relaxed {
        return limits;
    }
    if rng.percent(15) {
        limits.held_bytes_max = rng.pick(&[600, 3000, 9000]);
    }
    if rng.percent(15) {
        limits.store_queue_max = rng.pick(&[2, 8, 20]);
    }
    if rng.percent(25) {
        limits.messages_per_user_agent_max = rng.pick(&[1, 3, 10]);
    }
    if rng.percent(10) {
        limits.bytes_per_user_agent_max = rng.pick(&[1000, 5000]);
    }
    if rng.percent(15) {
        limits.messages_per_subscription_max = rng.pick(&[1, 3]);
    }
    if rng.percent(15) {
        limits.subscription_burst_max = rng.pick(&[1, 5]);
    }
    if rng.percent(10) {
        limits.newcomer_burst_max = 2;
    }
    if rng.percent(10) {
        limits.subscriptions_per_user_agent_max = 2;
    }
    limits
}
