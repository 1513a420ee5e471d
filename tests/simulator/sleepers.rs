//! User agents that were let go of: something new wakes them, also behind a crash.

use std::time::Duration;

use crate::checker::name_of;
use crate::updates;
use crate::user_agent::UserAgent;
use crate::world::World;

/// Longer than the longest wait between two datagrams.
const WAITS: Duration = Duration::from_secs(40);

/// Longer than the wait before a gateway that could not read who sleeps reads it again.
const READS_AGAIN: Duration = Duration::from_secs(61);

/// So long that whoever may be let go of is; then, now and then, a crash, which they do not notice.
pub(crate) fn fall_asleep(world: &mut World) {
    if world.plan.simplepush.udp_wakeup {
        world.advance(world.plan.limits.udp_idle + Duration::from_secs(1));
        world.settle();
    }
    if world.plan.crashes && world.rng.percent(50) {
        world.crash();
        world.settle();
    }
    // Where the disk failed behind a start, the gateway can call nobody until it has read who sleeps:
    // that is still under way. It must come to an end, or they would sleep on whatever comes.
    if !world.knows_sleepers() {
        world.advance(READS_AGAIN);
        world.settle();
        assert!(world.knows_sleepers(), "who sleeps is not read again");
    }
}

/// Nothing is under way any more, and no datagram gets lost: whoever is let go of and has something
/// waiting was called, and a new update wakes him.
pub(crate) fn everybody_can_be_woken(world: &mut World) {
    world.loses_datagrams = false;
    for agent in 0..world.agents.len() {
        let Some(uaid) = sleeper(world, agent) else {
            continue;
        };
        let shaken = shaken(&world.agents[agent]);
        let now = world.moment();
        assert!(
            shaken > 0 || !world.checker.has_waiting(agent, &uaid, now),
            "agent {agent} sleeps, has something waiting, and was never called"
        );
        call(world, agent, &uaid);
    }
    world.loses_datagrams = true;
}

fn call(world: &mut World, agent: usize, uaid: &str) {
    let name = name_of(uaid).expect("it has a name");
    let generation = world.generation();
    let mut all = world.checker.subscriptions.iter();
    let its_own = all.find(|((of, _), subscription)| {
        *of == agent && subscription.name == name && subscription.is_certain(generation)
    });
    let Some(((_, channel), subscription)) = its_own else {
        return;
    };
    let (channel, endpoints) = (*channel, subscription.endpoints.clone());
    let of_this = endpoints.iter().find(|url| url.generation == generation);
    let Some(endpoint) = of_this else { return };
    let number = updates::send(world, agent, channel, endpoint, None);
    world.settle();
    world.advance(WAITS);
    if world.checker.versions.puts[number].is_accepted() {
        world.checker.tally.add("sleeper called");
        assert!(
            sleeper(world, agent).is_none(),
            "agent {agent} is left asleep"
        );
    }
}

/// Its name, if it sleeps and the gateway can know that.
fn sleeper(world: &World, agent: usize) -> Option<String> {
    let user_agent = &world.agents[agent];
    let asleep = user_agent.device()?.asleep()?;
    // Who slept is lost with the database.
    (asleep == world.generation()).then(|| user_agent.uaid.clone())?
}

fn shaken(user_agent: &UserAgent) -> u32 {
    user_agent.device().map_or(0, |device| device.shaken())
}
