//! `edgepush load`: many user agents and an application server, to load a push service and to check
//! what it does. Works against any that speaks one of the two dialects.

pub(super) mod arguments;
mod bad;
mod device;
mod histogram;
mod ledger;
mod payload;
mod report;
mod scripts;
mod server;
mod world;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::LocalExecutor;
use smol::channel::bounded;
use smol::future::or;

use self::arguments::Options;
use self::device::Device;
use self::report::Used;
use self::server::Usage;
use self::world::{World, ended};
use super::{fail, print, refuse};
use crate::io::reactor::{self, Timer};
use crate::io::signals::StopSignals;
use crate::io::{clock, descriptors};

/// Runs to its end, which Ctrl-C brings nearer.
pub(super) fn run(options: Options) -> ExitCode {
    let wanted = options.agents.saturating_add(options.connections);
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let room = descriptors::make_room_for(wanted);
    if room < wanted {
        return refuse(format_args!(
            "edgepush: {wanted} connections need more open files than are allowed, which are {room}; \
             raise ulimit -n, or lower --agents"
        ));
    }
    let stop = match StopSignals::catch() {
        Ok(stop) => stop,
        Err(error) => return fail(format_args!("cannot catch signals: {error}")),
    };
    let before = match options.pid.map(|pid| Usage::of(pid).ok_or(pid)) {
        None => None,
        Some(Ok(usage)) => Some(usage),
        Some(Err(pid)) => return refuse(format_args!("edgepush: no process {pid} to look at")),
    };
    let world = World::new(options);
    let executor = LocalExecutor::new();
    let running = run_all(&executor, &world, stop, before);
    let (took, used) = reactor::block_on(executor.run(running));
    world.ledger.borrow_mut().close();
    let printed = print(&report::report(&world, took, used));
    match world.ledger.borrow().faults().next() {
        Some(_) => ExitCode::FAILURE,
        None => printed,
    }
}

/// How long it took, and what the push service used.
async fn run_all(
    executor: &LocalExecutor<'static>,
    world: &Rc<World>,
    mut stop: StopSignals,
    before: Option<Usage>,
) -> (Duration, Option<Used>) {
    let (ready, all_ready) = bounded::<()>(1);
    let (living, all_over) = bounded::<()>(1);
    for number in 0..world.options.agents {
        let world = Rc::clone(world);
        let (ready, living) = (ready.clone(), living.clone());
        let life = async move {
            let mut device = Device::new(Rc::clone(&world), number);
            scripts::live(&world, &mut device, || drop(ready)).await;
            drop(living);
        };
        executor.spawn(life).detach();
    }
    drop((ready, living));
    let _telling = executor.spawn(tell(Rc::clone(world), clock::monotonic()));

    let mut stopped = async || {
        stop.next().await;
        world.stop();
    };
    or(ended(&all_ready), stopped()).await;
    let usage = || world.options.pid.and_then(Usage::of);
    let (started, connected) = (clock::monotonic(), usage());
    world.start();
    or(ended(&all_over), stopped()).await;
    // Asked once, what is owed may still come; asked again, it need not.
    or(ended(&all_over), stopped()).await;

    let took = clock::monotonic().saturating_duration_since(started);
    let used = before.zip(connected).zip(usage());
    let used = used.map(|((before, connected), end)| Used {
        before,
        connected,
        end,
    });
    (took, used)
}

/// Says once a second how it goes. Never ends.
async fn tell(world: Rc<World>, since: Instant) {
    // On a terminal each line takes the place of the one before.
    let (begin, end) = if io::stderr().is_terminal() {
        ("\r\x1b[K", "")
    } else {
        ("", "\n")
    };
    loop {
        Timer::after(Duration::from_secs(1)).await;
        let secs = clock::monotonic()
            .saturating_duration_since(since)
            .as_secs();
        let line = report::progress(&world, secs);
        // If standard error is closed there is nobody left to tell.
        let _ = write!(io::stderr(), "{begin}{line}{end}");
    }
}
