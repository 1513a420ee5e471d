//! User agents as they are in the wild (PROTOCOL.md part 3): three families, all moods.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::application_server::public_key;
use crate::frames::{Ack, Frame, Said, URGENCIES, Up};
use crate::rng::Rng;
use crate::world::World;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    Firefox,
    AutopushManager,
    KUnifiedPush,
}

/// When it acks, and how well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Acking {
    AtOnce,
    Late,
    Batches,
    Never,
    /// Always with an empty version, once for each frame.
    EmptyVersion,
    Sloppy,
}

#[derive(Debug)]
pub(crate) struct UserAgent {
    family: Family,
    acking: Acking,
    /// As it was told last.
    uaid: Option<String>,
    /// The newest of its websockets.
    pub(crate) socket: Option<u64>,
    channels: Vec<Uuid>,
    to_ack: Vec<ToAck>,
}

#[derive(Debug)]
struct ToAck {
    due: Duration,
    socket: u64,
    ack: Ack,
}

impl UserAgent {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self {
            family: rng.pick(&[
                Family::Firefox,
                Family::AutopushManager,
                Family::KUnifiedPush,
            ]),
            acking: rng.pick(&[
                Acking::AtOnce,
                Acking::AtOnce,
                Acking::Late,
                Acking::Batches,
                Acking::Never,
                Acking::EmptyVersion,
                Acking::Sloppy,
            ]),
            uaid: None,
            socket: None,
            channels: Vec::new(),
            to_ack: Vec::new(),
        }
    }

    /// From here on it does everything right.
    pub(crate) fn calm_down(&mut self) {
        self.acking = Acking::AtOnce;
        self.to_ack.clear();
    }

    fn hello(&self, world_uaid: Option<String>) -> Value {
        match self.family {
            Family::Firefox => match world_uaid {
                Some(uaid) => {
                    json!({"messageType": "hello", "broadcasts": {}, "use_webpush": true, "uaid": uaid})
                }
                None => json!({"messageType": "hello", "broadcasts": {}, "use_webpush": true}),
            },
            Family::AutopushManager => json!({
                "messageType": "hello", "uaid": world_uaid.unwrap_or_default(),
                "channelIDs": self.channels, "use_webpush": true}),
            Family::KUnifiedPush => match world_uaid {
                Some(uaid) => json!({"messageType": "hello", "uaid": uaid}),
                None => json!({"messageType": "hello"}),
            },
        }
    }
}

/// Opens a websocket and says hello, as the only one or as a second one.
pub(crate) fn connect(world: &mut World, agent: usize) {
    let has_name = !world.agents[agent].channels.is_empty();
    if !has_name {
        // Its name is not worth keeping (Firefox does not either), and two at once would confuse it.
        world.agents[agent].uaid = None;
        let ids: Vec<u64> = sockets_of(world, agent);
        for id in ids {
            world.hang_up(id);
        }
    }
    let id = world.open(agent);
    world.agents[agent].socket = Some(id);
    let uaid = world.agents[agent].uaid.clone();
    let uaid = match uaid {
        Some(uaid) => {
            world.checker.tally.add("hello with a kept uaid");
            Some(uaid)
        }
        None if world.rng.percent(20) => {
            world.checker.tally.add("hello with a foreign uaid");
            Some(world.rng.uuid().simple().to_string())
        }
        None => None,
    };
    let hello = world.agents[agent].hello(uaid);
    match hello["uaid"].as_str() {
        None => world.checker.tally.add("hello without uaid"),
        Some("") => world.checker.tally.add("hello with an empty uaid"),
        Some(_) => {}
    }
    world.say(id, Said::Hello(hello));
}

fn sockets_of(world: &World, agent: usize) -> Vec<u64> {
    let sockets = world.sockets.iter();
    sockets
        .filter(|(_, socket)| socket.log.agent == agent && socket.client_open)
        .map(|(id, _)| *id)
        .collect()
}

/// A user agent does something, or nothing.
pub(crate) fn act(world: &mut World, agent: usize) {
    send_due_acks(world, agent);
    let socket = world.agents[agent].socket;
    let socket = socket.filter(|id| world.sockets.get(id).is_some_and(|s| s.client_open));
    let Some(id) = socket else {
        return arrive(world, agent);
    };
    if !world.sockets[&id].ready {
        return;
    }
    match world.rng.below(100) {
        0..=17 => register(world, agent, id),
        18..=20 => unregister(world, agent, id),
        21..=24 => {
            world.checker.tally.add("disconnect");
            world.hang_up(id);
        }
        25..=26 => {
            world.checker.tally.add("half-open connection");
            if let Some(socket) = world.sockets.get_mut(&id) {
                socket.client_open = false;
                socket.up.clear();
                // The kernel on the way takes some frames, or none.
                socket.slow = true;
            }
        }
        27..=30 if !world.agents[agent].channels.is_empty() => {
            world.checker.tally.add("two websockets at once");
            connect(world, agent);
        }
        31..=34 => {
            world.checker.tally.add("application ping");
            let text = world.rng.pick(&["{}", r#"{"messageType":"ping"}"#]);
            world.say(id, Said::Other(text.to_owned()));
        }
        35 => {
            let hello = world.agents[agent].hello(None);
            world.say(id, Said::Hello(hello));
        }
        36 => {
            world.checker.tally.add("bad frame");
            let text = world
                .rng
                .pick(&["", "hello", "{\"a\":1}", r#"{"messageType":"x"}"#]);
            world.say(id, Said::Other(text.to_owned()));
        }
        37 => {
            if let Some(socket) = world.sockets.get_mut(&id) {
                socket.up.push_back(Up::Binary);
            }
        }
        38..=40 => {
            let text = r#"{"messageType":"broadcast_subscribe","broadcasts":{"a/b":"\"0\""}}"#;
            world.say(id, Said::Other(text.to_owned()));
        }
        41..=44 => ack_of_another(world, id),
        45..=59 => {
            world.checker.tally.add("urgency asked for");
            let min = world.rng.index(URGENCIES.len());
            world.say(id, Said::Urgency(min));
        }
        _ => {}
    }
}

fn arrive(world: &mut World, agent: usize) {
    match world.rng.below(20) {
        0 => {
            // Opens and says nothing.
            world.agents[agent].socket = Some(world.open(agent));
        }
        1 => {
            let id = world.open(agent);
            world.agents[agent].socket = Some(id);
            world.say(id, Said::Other("{}".to_owned()));
            world.say(
                id,
                Said::Other(r#"{"messageType":"nack","version":"a"}"#.to_owned()),
            );
        }
        2..=11 => {
            connect(world, agent);
            let kde = world.agents[agent].family == Family::KUnifiedPush;
            if kde && !world.agents[agent].channels.is_empty() && world.rng.percent(50) {
                world.checker.tally.add("two websockets at once");
                connect(world, agent);
            }
        }
        _ => {}
    }
}

fn register(world: &mut World, agent: usize, id: u64) {
    let known = world.agents[agent].channels.len();
    let channel = if known < 4 && world.rng.percent(60) {
        let channel = world.rng.uuid();
        world.agents[agent].channels.push(channel);
        channel
    } else if known > 0 {
        let index = world.rng.index(known);
        world.agents[agent].channels[index]
    } else {
        return;
    };
    let key = world.rng.percent(20).then(public_key);
    world.checker.tally.add(match key {
        None => "register",
        Some(_) => "register with key",
    });
    world.say(id, Said::Register { channel, key });
}

fn unregister(world: &mut World, agent: usize, id: u64) {
    let known = world.agents[agent].channels.len();
    if known == 0 {
        return;
    }
    world.checker.tally.add("unregister");
    let index = world.rng.index(known);
    let channel = world.agents[agent].channels[index];
    let to_ack = &mut world.agents[agent].to_ack;
    to_ack.retain(|to_ack| to_ack.ack.channel != channel);
    world.say(id, Said::Unregister { channel });
}

/// Must have no effect, unless it happens to be its own.
fn ack_of_another(world: &mut World, id: u64) {
    let versions = world.checker.sent_versions();
    if versions.is_empty() {
        return;
    }
    let (channel, version) = versions[world.rng.index(versions.len())].clone();
    let own = world.agents[world.sockets[&id].log.agent]
        .channels
        .contains(&channel);
    if own {
        return;
    }
    let ack = Ack {
        channel,
        version,
        code: None,
    };
    world.say(id, Said::Ack(vec![ack]));
}

/// A user agent reads a frame.
pub(crate) fn reads(world: &mut World, id: u64, frame: Frame) {
    let agent = world.sockets[&id].log.agent;
    match frame {
        Frame::Hello { uaid } => {
            world.agents[agent].uaid = Some(uaid);
            if let Some(socket) = world.sockets.get_mut(&id) {
                socket.ready = true;
            }
        }
        Frame::Registered { .. }
        | Frame::Unregistered { .. }
        | Frame::UrgencyTaken
        | Frame::NoBroadcast
        | Frame::Pong => {}
        Frame::Notification {
            channel, version, ..
        } => {
            world.checker.received(&version);
            acknowledge(world, agent, id, channel, version);
        }
    }
}

fn acknowledge(world: &mut World, agent: usize, id: u64, channel: Uuid, version: String) {
    let mut ack = Ack {
        channel,
        version,
        code: Some(100),
    };
    let now = world.elapsed();
    match world.agents[agent].acking {
        Acking::AtOnce => world.say(id, Said::Ack(vec![ack])),
        Acking::Late | Acking::Batches => {
            let after = Duration::from_millis(world.rng.pick(&[10, 90, 150, 1000, 5000]));
            let due = now + after;
            world.agents[agent].to_ack.push(ToAck {
                due,
                socket: id,
                ack,
            });
        }
        Acking::Never => {}
        Acking::EmptyVersion => {
            world.checker.tally.add("ack with empty version");
            ack.version = String::new();
            world.say(id, Said::Ack(vec![ack]));
        }
        Acking::Sloppy => sloppy_ack(world, id, ack),
    }
}

fn sloppy_ack(world: &mut World, id: u64, mut ack: Ack) {
    match world.rng.below(6) {
        0 => {}
        1 => {
            world.checker.tally.add("ack with code 101");
            ack.code = Some(101);
            world.say(id, Said::Ack(vec![ack]));
        }
        2 => {
            world.checker.tally.add("ack with code 102");
            ack.code = Some(102);
            world.say(id, Said::Ack(vec![ack]));
        }
        3 => {
            world.checker.tally.add("ack repeated");
            world.say(id, Said::Ack(vec![ack.clone(), ack.clone()]));
            world.say(id, Said::Ack(vec![ack]));
        }
        4 => {
            world.checker.tally.add("nack");
            let text = json!({"messageType": "nack", "version": ack.version, "code": 301});
            ack.code = None;
            world.say(id, Said::Ack(vec![ack]));
            world.say(id, Said::Other(text.to_string()));
        }
        _ => world.say(id, Said::Ack(vec![ack])),
    }
}

/// Those that are due, on the websocket where the message came or on the newest.
fn send_due_acks(world: &mut World, agent: usize) {
    let now = world.elapsed();
    let user_agent = &mut world.agents[agent];
    let (due, later): (Vec<ToAck>, Vec<ToAck>) = std::mem::take(&mut user_agent.to_ack)
        .into_iter()
        .partition(|to_ack| to_ack.due <= now);
    user_agent.to_ack = later;
    let Some(newest) = user_agent
        .socket
        .filter(|id| world.sockets.contains_key(id))
    else {
        return;
    };
    if due.is_empty() || !world.sockets[&newest].ready {
        return;
    }
    if world.agents[agent].acking == Acking::Batches {
        world.checker.tally.add("acks in one frame");
        let acks = due.into_iter().map(|due| due.ack).collect();
        return world.say(newest, Said::Ack(acks));
    }
    for ToAck { socket, ack, .. } in due {
        let old_is_there = world.sockets.get(&socket).is_some_and(|s| s.client_open);
        let id = if old_is_there { socket } else { newest };
        world.say(id, Said::Ack(vec![ack]));
    }
}
