//! A stream of messages that goes on whatever happens to the gateway: user agents of both dialects
//! that come and go, application servers that never stop, and a ledger of who was promised what.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]

mod application_server;
mod ledger;
#[path = "../simulator/rng.rs"]
mod rng;
mod user_agent;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub use ledger::{Account, Ledger};
pub(crate) use rng::Rng;
use user_agent::UserAgent;

const WEBPUSH_AGENTS: usize = 4;
const SIMPLEPUSH_AGENTS: usize = 2;
const APPLICATION_SERVERS: usize = 3;
/// How long nothing must come from a gateway on this machine before a user agent believes that there is
/// nothing.
const QUIET: Duration = Duration::from_millis(500);

/// What a gateway under a storm is started with: queues that are never full, senders that are never too
/// quick, and a window that is short, because many acks here never come.
pub const CONFIG: &str = "[limits]
ack_window_millis = 20
messages_per_user_agent_max = 1000000
messages_per_subscription_max = 1000000
bytes_per_user_agent_max = 200000000
bytes_per_subscription_max = 200000000
subscription_rate_per_sec_max = 1000000
user_agent_rate_per_sec_max = 1000000
address_rate_per_sec_max = 1000000
registration_rate_per_min_max = 1000000
newcomer_rate_per_min_max = 1000000
";

/// The seed of this run, from the environment or from the clock. It is printed, so that a failed test
/// shows it; the machine's own timing is not in it.
pub fn seed() -> u64 {
    let given = std::env::var("EDGEPUSH_SEED");
    let seed = given.ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::from(now.expect("this is after 1970").subsec_nanos())
    });
    println!("EDGEPUSH_SEED={seed}");
    seed
}

/// A number from the environment: how much of something a long run does.
pub fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A storm around the gateway at one address, through all of its lives.
pub struct Storm {
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    agents: Vec<JoinHandle<UserAgent>>,
    servers: Vec<JoinHandle<()>>,
}

impl Storm {
    /// Begins.
    pub(crate) fn begin(push: SocketAddr, rng: &mut Rng) -> Self {
        let ledger = Arc::new(Ledger::default());
        let stop = Arc::new(AtomicBool::new(false));
        let agents = (0..WEBPUSH_AGENTS + SIMPLEPUSH_AGENTS).map(|number| {
            let simplepush = number >= WEBPUSH_AGENTS;
            let rng = Rng::new(rng.next());
            let agent = UserAgent::new(number, simplepush, push, rng, Arc::clone(&ledger));
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || agent.live(&stop))
        });
        let agents = agents.collect();
        let servers = (0..APPLICATION_SERVERS).map(|number| {
            let (ledger, stop) = (Arc::clone(&ledger), Arc::clone(&stop));
            let rng = Rng::new(rng.next());
            let turn = (number, APPLICATION_SERVERS);
            std::thread::spawn(move || application_server::run(turn, push, rng, &ledger, &stop))
        });
        let servers = servers.collect();
        Self {
            ledger,
            stop,
            agents,
            servers,
        }
    }

    /// How many messages the gateway has taken so far.
    pub fn accepted(&self) -> u64 {
        self.ledger.accepted()
    }

    /// Waits until the gateway has taken so many messages more, as long as it takes any.
    pub fn wait_for(&self, more: u64) {
        let enough = self.accepted() + more;
        for _ in 0..6000 {
            if self.accepted() >= enough {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the gateway takes no messages; {}", self.ledger.account());
    }

    /// Ends it. The gateway must be there now, and may be put through one more end between the two
    /// steps of what follows.
    pub fn end(self) -> Calm {
        self.stop.store(true, Ordering::Relaxed);
        for server in self.servers {
            server.join().expect("an application server");
        }
        let agents = self.agents.into_iter();
        let agents = agents
            .map(|agent| agent.join().expect("a user agent"))
            .collect();
        Calm {
            ledger: self.ledger,
            agents,
        }
    }
}

/// After the storm: nobody posts any more.
pub struct Calm {
    ledger: Arc<Ledger>,
    agents: Vec<UserAgent>,
}

impl Calm {
    /// Lets every user agent take in and ack what waits for it, until all of it is committed.
    pub fn drain(&mut self) {
        self.drain_until_quiet_for(QUIET);
    }

    /// The same, from a gateway that may take longer between two messages.
    pub fn drain_until_quiet_for(&mut self, quiet: Duration) {
        std::thread::scope(|scope| {
            for agent in &mut self.agents {
                scope.spawn(move || agent.drain(quiet));
            }
        });
    }

    /// What became of everything.
    pub fn account(&self) -> Account {
        self.ledger.account()
    }
}
