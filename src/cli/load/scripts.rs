//! What each user agent does, by strategy: one script for one round or for the whole time.

use std::cell::Cell;
use std::slice;
use std::time::Duration;

use smol::future::zip;

use super::bad;
use super::device::{Broken, Device, Target};
use super::world::{Bodies, Expected, World};
use crate::io::clock;
use crate::io::reactor::Timer;
use crate::model::dialect::Dialect;

/// How long a user agent rests after its connection broke.
const REST: Duration = Duration::from_secs(1);
/// Between two bursts.
const BURST_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest and longest that a connection lasts, and that a user agent is away, when it churns; in
/// milliseconds.
const CHURN_MILLIS: (u64, u64) = (10, 500);

/// What a user agent does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Strategy {
    Idle,
    Basic,
    Ping,
    Channels,
    Reconnect,
    Data,
    Stored,
    Unacked,
    Burst,
    Churn,
    Bad,
}

/// What the user agents of a run do: the first one the first of these, and so on, again and again.
pub(super) type Mix = &'static [(Strategy, &'static str)];

static ALL: [(Strategy, &str); 11] = [
    (Strategy::Idle, "idle"),
    (Strategy::Basic, "basic"),
    (Strategy::Ping, "ping"),
    (Strategy::Channels, "channels"),
    (Strategy::Reconnect, "reconnect"),
    (Strategy::Data, "data"),
    (Strategy::Stored, "stored"),
    (Strategy::Unacked, "unacked"),
    (Strategy::Burst, "burst"),
    (Strategy::Churn, "churn"),
    (Strategy::Bad, "bad"),
];
const MIXED: &str = "mixed";

/// Those of this name.
pub(super) fn named(name: &str) -> Option<Mix> {
    if name == MIXED {
        return Some(&ALL);
    }
    let one = ALL.iter().find(|(_, known)| *known == name);
    one.map(slice::from_ref)
}

/// The name of those.
pub(super) const fn name_of(mix: Mix) -> &'static str {
    match mix {
        [(_, name)] => name,
        _ => MIXED,
    }
}

/// The life of one user agent, from its connection to the end of the run.
pub(super) async fn live(world: &World, device: &mut Device, ready: impl FnOnce()) {
    // One that cannot connect must not keep the others waiting.
    let opened = device.open().await;
    ready();
    let waited = match opened {
        Ok(()) => device.attend(world.started()).await,
        Err(Broken) => Err(Broken),
    };
    if waited.is_err() {
        device.cut();
        world.started().await;
    }
    let mut all = world.options.strategies.iter().cycle();
    let number = usize::try_from(device.number()).unwrap_or(usize::MAX);
    let Some((strategy, _)) = all.nth(number) else {
        return;
    };
    loop {
        let is_last = !world.is_running();
        match play(world, device, *strategy).await {
            Ok(()) => return device.close().await,
            Err(Broken) => device.cut(),
        }
        if is_last {
            return;
        }
        Timer::after(REST).await;
    }
}

/// Until the end, or until the connection breaks.
async fn play(world: &World, device: &mut Device, strategy: Strategy) -> Result<(), Broken> {
    if !device.is_open() {
        device.open().await?;
    }
    // What it is still owed from before it broke.
    device.settle().await?;
    while world.is_running() {
        match strategy {
            Strategy::Idle => device.attend(world.pause(world.options.time)).await,
            Strategy::Basic => online(world, device, Bodies::AsAsked).await,
            Strategy::Ping => ping(world, device).await,
            Strategy::Channels => channels(world, device).await,
            Strategy::Reconnect => reconnect(world, device).await,
            Strategy::Data => online(world, device, Bodies::All).await,
            Strategy::Stored => stored(world, device).await,
            Strategy::Unacked => unacked(world, device).await,
            Strategy::Burst => burst(world, device).await,
            Strategy::Churn => churn(world, device).await,
            Strategy::Bad => bad::round(world, device).await,
        }?;
    }
    Ok(())
}

/// Messages to one's subscriptions in turn, as long as the run lasts.
async fn sending(world: &World, targets: &[Target], bodies: Bodies) {
    for target in targets.iter().cycle() {
        if !world.is_running() {
            return;
        }
        world.post(target, bodies, Expected::Accepted).await;
    }
}

/// So many messages, to one's subscriptions in turn.
async fn send(world: &World, targets: &[Target], count: u32) {
    for (target, _) in targets.iter().cycle().zip(0..count) {
        world
            .post(target, Bodies::AsAsked, Expected::Accepted)
            .await;
    }
}

async fn online(world: &World, device: &mut Device, bodies: Bodies) -> Result<(), Broken> {
    let targets = device.targets().to_vec();
    device.attend(sending(world, &targets, bodies)).await?;
    device.settle().await
}

async fn ping(world: &World, device: &mut Device) -> Result<(), Broken> {
    // Spread over the interval, as those of devices that were not switched on together.
    let interval = world.options.ping_interval;
    let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let first = Duration::from_millis(world.chance.between(1, millis));
    device.attend(world.pause(first)).await?;
    while world.is_running() {
        let asked = clock::monotonic();
        device.ping().await?;
        world.ping_time.borrow_mut().add(asked, clock::monotonic());
        device.attend(world.pause(interval)).await?;
    }
    Ok(())
}

async fn channels(world: &World, device: &mut Device) -> Result<(), Broken> {
    let target = device.subscribe().await?;
    let used = world.post(&target, Bodies::AsAsked, Expected::Accepted);
    device.attend(used).await?;
    device.settle().await?;
    device.unsubscribe(target.channel).await?;
    // Belongs to the round, whatever the time is.
    let refused = world.post_now(&target, Bodies::AsAsked, Expected::Gone);
    device.attend(refused).await
}

async fn reconnect(world: &World, device: &mut Device) -> Result<(), Broken> {
    let targets = device.targets().to_vec();
    device.attend(send(world, &targets, 1)).await?;
    device.settle().await?;
    device.close().await;
    device.open().await
}

async fn stored(world: &World, device: &mut Device) -> Result<(), Broken> {
    let targets = device.targets().to_vec();
    device.close().await;
    send(world, &targets, world.options.backlog).await;
    let back = clock::monotonic();
    device.open().await?;
    device.settle().await?;
    world.drain_time.borrow_mut().add(back, clock::monotonic());
    Ok(())
}

async fn unacked(world: &World, device: &mut Device) -> Result<(), Broken> {
    let targets = device.targets().to_vec();
    let count = match world.options.dialect {
        Dialect::WebPush => world.options.backlog,
        // Of a second one the first would be superseded.
        Dialect::SimplePush => world.options.channels,
    };
    let since = world.ledger.borrow().next();
    device.set_acking(false);
    let seen = async {
        device.attend(send(world, &targets, count)).await?;
        device.see_all(since).await
    };
    let seen = seen.await;
    device.set_acking(true);
    seen?;
    device.close().await;
    device.open().await?;
    device.settle().await
}

async fn burst(world: &World, device: &mut Device) -> Result<(), Broken> {
    let targets = device.targets().to_vec();
    let started = clock::monotonic();
    device
        .attend(send(world, &targets, world.options.backlog))
        .await?;
    device.settle().await?;
    let took = clock::monotonic().saturating_duration_since(started);
    let rest = BURST_INTERVAL.saturating_sub(took);
    device.attend(world.pause(rest)).await
}

async fn churn(world: &World, device: &mut Device) -> Result<(), Broken> {
    let targets = device.targets().to_vec();
    let over = Cell::new(false);
    let sending = async {
        sending(world, &targets, Bodies::AsAsked).await;
        over.set(true);
    };
    let (shortest, longest) = CHURN_MILLIS;
    let a_while = || {
        Timer::after(Duration::from_millis(
            world.chance.between(shortest, longest),
        ))
    };
    let coming_and_going = async {
        while !over.get() {
            device.attend(a_while()).await?;
            device.cut();
            a_while().await;
            device.open().await?;
        }
        device.settle().await
    };
    // A device that breaks down leaves what is being sent to its end: it is owed that as well.
    zip(sending, coming_and_going).await.1
}
