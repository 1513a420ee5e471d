//! User agents as they are in the wild (PROTOCOL.md part 3): three families, all moods.

#[path = "acking.rs"]
mod acking;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use acking::{ack_of_another, acknowledge, send_due_acks};

use crate::application_server::public_key;
use crate::device::{self, Device};
use crate::frames::{Ack, AckVersion, Frame, Said, Spelled, URGENCIES, Up, Update};
use crate::rng::Rng;
use crate::world::World;

#[derive(Debug)]
enum Family {
    Firefox,
    AutopushManager,
    KUnifiedPush,
    SimplePush(Device),
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
    pub(crate) uaid: Option<String>,
    /// The newest of its websockets.
    pub(crate) socket: Option<u64>,
    pub(crate) channels: Vec<Spelled>,
    to_ack: Vec<ToAck>,
}

#[derive(Debug)]
struct ToAck {
    due: Duration,
    socket: u64,
    ack: Ack,
}

impl UserAgent {
    pub(crate) fn new(rng: &mut Rng, number: usize) -> Self {
        Self {
            family: match rng.below(5) {
                0 => Family::Firefox,
                1 => Family::AutopushManager,
                2 => Family::KUnifiedPush,
                _ => Family::SimplePush(Device::new(rng, number)),
            },
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
        if let Some(device) = self.device_mut() {
            device.calm_down();
        }
    }

    pub(crate) const fn device(&self) -> Option<&Device> {
        match &self.family {
            Family::SimplePush(device) => Some(device),
            Family::Firefox | Family::AutopushManager | Family::KUnifiedPush => None,
        }
    }

    pub(crate) const fn device_mut(&mut self) -> Option<&mut Device> {
        match &mut self.family {
            Family::SimplePush(device) => Some(device),
            Family::Firefox | Family::AutopushManager | Family::KUnifiedPush => None,
        }
    }

    pub(crate) const fn is_simplepush(&self) -> bool {
        self.device().is_some()
    }

    pub(crate) fn uses_simplepush_path(&self) -> bool {
        self.device().is_some_and(|device| device.uses_own_path)
    }

    pub(crate) fn listens_at(&self, address: SocketAddr) -> bool {
        self.device()
            .is_some_and(|device| device.listens_at(address))
    }

    fn hello(&self, rng: &mut Rng, uaid: Option<String>) -> Value {
        match &self.family {
            Family::Firefox => match uaid {
                Some(uaid) => {
                    json!({"messageType": "hello", "broadcasts": {}, "use_webpush": true, "uaid": uaid})
                }
                None => json!({"messageType": "hello", "broadcasts": {}, "use_webpush": true}),
            },
            Family::AutopushManager => {
                let channels: Vec<&String> = self.channels.iter().map(|c| &c.text).collect();
                json!({
                    "messageType": "hello", "uaid": uaid.unwrap_or_default(),
                    "channelIDs": channels, "use_webpush": true})
            }
            Family::KUnifiedPush => match uaid {
                Some(uaid) => json!({"messageType": "hello", "uaid": uaid}),
                None => json!({"messageType": "hello"}),
            },
            Family::SimplePush(device) => device.hello(rng, uaid, &self.channels),
        }
    }
}

impl World {
    pub(crate) fn hello(&mut self, agent: usize, uaid: Option<String>) -> Value {
        self.agents[agent].hello(&mut self.rng, uaid)
    }
}

/// Opens a websocket and says hello, as the only one or as a second one.
pub(crate) fn connect(world: &mut World, agent: usize) {
    let is_simplepush = world.agents[agent].is_simplepush();
    let keeps_name = is_simplepush || !world.agents[agent].channels.is_empty();
    if !keeps_name {
        // Its name is not worth keeping: Firefox does not keep it either.
        world.agents[agent].uaid = None;
    }
    if world.agents[agent].uaid.is_none() {
        // What it has asked for under a name that it never heard is not its own.
        world.agents[agent].channels.clear();
        // Two at once would confuse it.
        let ids: Vec<u64> = sockets_of(world, agent);
        for id in ids {
            world.hang_up(id);
        }
    }
    if let Some(device) = world.agents[agent].device_mut() {
        device.is_up();
    }
    let id = world.open(agent);
    world.agents[agent].socket = Some(id);
    let uaid = name_to_say(world, agent);
    let hello = world.hello(agent, uaid);
    match hello["uaid"].as_str() {
        None => world.checker.tally.add("hello without uaid"),
        Some("") => world.checker.tally.add("hello with an empty uaid"),
        Some(_) => {}
    }
    world.say(id, Said::Hello(hello));
    if is_simplepush && world.rng.percent(10) {
        // The AeroGear Java client does not wait for the answer.
        device::register_another(world, agent, id);
    }
}

fn name_to_say(world: &mut World, agent: usize) -> Option<String> {
    let is_simplepush = world.agents[agent].is_simplepush();
    if let Some(uaid) = world.agents[agent].uaid.clone() {
        world.checker.tally.add("hello with a kept uaid");
        if is_simplepush && world.rng.percent(10) {
            let uuid = Uuid::parse_str(&uaid).expect("a UAID is a UUID");
            return Some(device::spelled(&mut world.rng, uuid));
        }
        return Some(uaid);
    }
    if is_simplepush {
        device::invents_its_name(world, agent);
        return world.agents[agent].uaid.clone();
    }
    if world.rng.percent(20) {
        world.checker.tally.add("hello with a foreign uaid");
        return Some(world.rng.uuid().simple().to_string());
    }
    None
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
    if world.agents[agent].is_simplepush() {
        return device::act(world, agent, id);
    }
    match world.rng.below(100) {
        0..=17 => register(world, agent, id),
        18..=20 => unregister(world, agent, id),
        21..=24 => disconnect(world, id),
        25..=26 => fade(world, id),
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
            let hello = world.hello(agent, None);
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
            let ping = Said::Other("{}".to_owned());
            if let Some(socket) = world.sockets.get_mut(&id) {
                socket.up.push_back(Up::Binary(ping));
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

pub(crate) fn disconnect(world: &mut World, id: u64) {
    world.checker.tally.add("disconnect");
    world.hang_up(id);
}

/// It goes away and nobody hears of it.
pub(crate) fn fade(world: &mut World, id: u64) {
    world.checker.tally.add("half-open connection");
    if let Some(socket) = world.sockets.get_mut(&id) {
        socket.client_open = false;
        socket.up.clear();
        // The kernel on the way takes some frames, or none.
        socket.slow = true;
    }
}

fn arrive(world: &mut World, agent: usize) {
    let device = world.agents[agent].device();
    if device.is_some_and(|device| device.asleep().is_some()) {
        // It comes back by itself only where its network changes.
        if world.rng.percent(3) {
            world.checker.tally.add("back without a datagram");
            connect(world, agent);
        }
        return;
    }
    match world.rng.below(20) {
        0 => {
            // Opens and says nothing.
            world.agents[agent].socket = Some(world.open(agent));
        }
        1 => {
            let id = world.open(agent);
            world.agents[agent].socket = Some(id);
            world.say(id, Said::Other("{}".to_owned()));
            let text = r#"{"messageType":"nack","version":"a"}"#.to_owned();
            if world.agents[agent].uses_simplepush_path() {
                let answer = Some(401);
                world.say(id, Said::Wrong { text, answer });
            } else {
                world.say(id, Said::Other(text));
            }
        }
        2..=11 => {
            connect(world, agent);
            let kde = matches!(world.agents[agent].family, Family::KUnifiedPush);
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
        let channel = Spelled::dashed(world.rng.uuid());
        world.agents[agent].channels.push(channel.clone());
        channel
    } else if known > 0 {
        let index = world.rng.index(known);
        world.agents[agent].channels[index].clone()
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

pub(crate) fn unregister(world: &mut World, agent: usize, id: u64) {
    let known = world.agents[agent].channels.len();
    if known == 0 {
        return;
    }
    world.checker.tally.add("unregister");
    let index = world.rng.index(known);
    let channel = world.agents[agent].channels[index].clone();
    let to_ack = &mut world.agents[agent].to_ack;
    to_ack.retain(|to_ack| to_ack.ack.channel.channel != channel.channel);
    world.say(id, Said::Unregister { channel });
}

/// A user agent reads a frame.
pub(crate) fn reads(world: &mut World, id: u64, frame: Frame) {
    let agent = world.sockets[&id].log.agent;
    match frame {
        Frame::Hello { uaid, .. } => {
            if world.agents[agent].is_simplepush() {
                device::is_told_its_name(world, agent, id, uaid);
            } else {
                world.agents[agent].uaid = Some(uaid);
            }
            if let Some(socket) = world.sockets.get_mut(&id) {
                socket.ready = true;
            }
        }
        Frame::Registered { .. }
        | Frame::Unregistered { .. }
        | Frame::Refused { .. }
        | Frame::UrgencyTaken
        | Frame::NoBroadcast
        | Frame::Pong => {}
        Frame::Notification {
            channel, version, ..
        } => {
            world.checker.received(&version);
            let channel = Spelled::dashed(channel);
            acknowledge(world, agent, id, channel, AckVersion::Token(version));
        }
        Frame::Updates { step, updates } => {
            for update in updates {
                reads_update(world, id, step, update);
            }
        }
    }
}

fn reads_update(world: &mut World, id: u64, step: u64, update: Update) {
    let agent = world.sockets[&id].log.agent;
    let uuid = Uuid::parse_str(&update.channel).expect("a channel is a UUID");
    world.checker.update_received(agent, uuid, &update, step);
    if !world.agents[agent].is_simplepush() {
        world.checker.tally.add("update to a webpush user agent");
    }
    let channel = Spelled {
        channel: uuid,
        text: update.channel,
    };
    acknowledge(
        world,
        agent,
        id,
        channel,
        AckVersion::Number(update.version),
    );
}
