//! SimplePush user agents as they were in the wild (PROTOCOL.md part 2).

use std::net::SocketAddr;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::checker::name_of;
use crate::frames::{Ack, AckVersion, Form, Said, Spelled, Up};
use crate::rng::Rng;
use crate::user_agent::{connect, disconnect, fade, unregister};
use crate::world::{World, peer};

/// What only SimplePush user agents have.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) uses_own_path: bool,
    listens_at: Option<SocketAddr>,
    /// It was let go of, under this database.
    asleep: Option<u32>,
    /// Datagrams on their way to it since the gateway let go of it.
    shaken: u32,
    /// Does everything right.
    calm: bool,
}

impl Device {
    pub(crate) fn new(rng: &mut Rng, number: usize) -> Self {
        let port = 2442 + u16::try_from(number).expect("there are few");
        let listens_at = match rng.below(10) {
            0..=4 => Some(SocketAddr::new(peer(), port)),
            // Where somebody else is.
            5 => Some(SocketAddr::from(([192, 168, 1, 77], port))),
            _ => None,
        };
        Self {
            uses_own_path: rng.percent(40),
            listens_at,
            asleep: None,
            shaken: 0,
            calm: false,
        }
    }

    pub(crate) const fn calm_down(&mut self) {
        self.calm = true;
    }

    pub(crate) fn listens_at(&self, address: SocketAddr) -> bool {
        self.listens_at == Some(address) && address.ip() == peer()
    }

    /// The gateway lets go of it. It has not heard of that yet, and may be called before it does.
    pub(crate) const fn is_let_go(&mut self) {
        self.shaken = 0;
    }

    pub(crate) const fn fall_asleep(&mut self, generation: u32) {
        self.asleep = Some(generation);
    }

    pub(crate) const fn asleep(&self) -> Option<u32> {
        self.asleep
    }

    pub(crate) const fn shaken(&self) -> u32 {
        self.shaken
    }

    /// Returns whether that woke it.
    pub(crate) const fn shake(&mut self, arrives: bool) -> bool {
        self.shaken += 1;
        arrives && self.asleep.take().is_some()
    }

    pub(crate) const fn is_up(&mut self) {
        self.asleep = None;
    }

    pub(crate) fn hello(&self, rng: &mut Rng, uaid: Option<String>, channels: &[Spelled]) -> Value {
        let mut hello = json!({"messageType": "hello"});
        if let Some(uaid) = uaid {
            hello["uaid"] = uaid.into();
        }
        let how = if self.calm { 0 } else { rng.below(10) };
        let named: Option<Vec<&str>> = match how {
            0..=5 => Some(
                channels
                    .iter()
                    .map(|channel| channel.text.as_str())
                    .collect(),
            ),
            6 => Some(
                channels
                    .iter()
                    .skip(1)
                    .map(|channel| channel.text.as_str())
                    .collect(),
            ),
            9 if self.uses_own_path => None,
            _ => Some(vec![]),
        };
        if let Some(named) = named {
            hello["channelIDs"] = named.into();
        }
        if let Some(address) = self.listens_at {
            hello["wakeup_hostport"] = json!({"ip": address.ip(), "port": address.port()});
            hello["mobilenetwork"] = json!({"mcc": "214", "mnc": "07", "netid": ""});
        }
        hello
    }
}

/// A name in one of its spellings.
pub(crate) fn spelled(rng: &mut Rng, uuid: Uuid) -> String {
    let text = if rng.percent(50) {
        uuid.simple().to_string()
    } else {
        uuid.to_string()
    };
    if rng.percent(30) {
        text.to_uppercase()
    } else {
        text
    }
}

/// Its name before it has one, and what it says in its first hello.
pub(crate) fn invents_its_name(world: &mut World, agent: usize) {
    match world.rng.below(10) {
        0..=3 => {
            world.checker.tally.add("hello with an invented uaid");
            let uuid = world.rng.uuid();
            world.agents[agent].uaid = Some(spelled(&mut world.rng, uuid));
        }
        // Of another push service, with channels from there.
        4..=5 => {
            world.checker.tally.add("hello with a uaid from elsewhere");
            let (uuid, channel) = (world.rng.uuid(), world.rng.uuid());
            world.agents[agent].uaid = Some(spelled(&mut world.rng, uuid));
            world.agents[agent].channels = vec![Spelled::dashed(channel)];
        }
        _ => {}
    }
}

/// It does something, or nothing, on its newest websocket.
pub(crate) fn act(world: &mut World, agent: usize, id: u64) {
    match world.rng.below(100) {
        0..=17 => register(world, agent, id),
        18..=20 => unregister(world, agent, id),
        21..=23 => disconnect(world, id),
        24..=25 => fade(world, id),
        26..=28 if world.agents[agent].uaid.is_some() => {
            world.checker.tally.add("two websockets at once");
            connect(world, agent);
        }
        29..=31 => {
            world.checker.tally.add("application ping");
            let text = r#"{"messageType":"PING"}"#;
            let text = world.rng.pick(&["{}", text, r#"{"a":1}"#]);
            world.say(id, Said::Other(text.to_owned()));
        }
        32..=35 => hello_again(world, agent, id),
        36 => wrong_frame(world, id),
        37 => {
            let text = r#"{"messageType":"unregister","channelID":"foo"}"#;
            world.say(id, Said::Other(text.to_owned()));
        }
        38 => {
            let text = r#"{"messageType":"purge"}"#;
            world.say(id, Said::Other(text.to_owned()));
        }
        39 => {
            let ping = Said::Other("{}".to_owned());
            if let Some(socket) = world.sockets.get_mut(&id) {
                socket.up.push_back(Up::Binary(ping));
            }
        }
        _ => {}
    }
}

pub(crate) fn register(world: &mut World, agent: usize, id: u64) {
    let known = world.agents[agent].channels.len();
    if known < 4 && (known == 0 || world.rng.percent(50)) {
        return register_another(world, agent, id);
    }
    let channel = {
        let index = world.rng.index(known);
        let mut channel = world.agents[agent].channels[index].clone();
        if world.rng.percent(10) {
            channel.text = spelled(&mut world.rng, channel.channel);
            world.agents[agent].channels[index] = channel.clone();
        }
        channel
    };
    world.checker.tally.add("simplepush register");
    world.say(id, Said::Register { channel, key: None });
}

pub(crate) fn register_another(world: &mut World, agent: usize, id: u64) {
    let channel = world.rng.uuid();
    let text = spelled(&mut world.rng, channel);
    let channel = Spelled { channel, text };
    world.agents[agent].channels.push(channel.clone());
    world.checker.tally.add("simplepush register");
    world.say(id, Said::Register { channel, key: None });
}

fn hello_again(world: &mut World, agent: usize, id: u64) {
    let own = world.agents[agent].uaid.clone();
    let uaid = match world.rng.below(8) {
        0 => Some(world.rng.uuid().to_string()),
        1..=2 => None,
        3 => {
            let own = own.as_deref().and_then(|own| Uuid::parse_str(own).ok());
            own.map(|own| spelled(&mut world.rng, own))
        }
        _ => own,
    };
    let hello = world.hello(agent, uaid);
    world.say(id, Said::Hello(hello));
}

fn wrong_frame(world: &mut World, id: u64) {
    world.checker.tally.add("wrong frame of simplepush");
    let (text, answer) = world.rng.pick(&[
        ("hello", None),
        ("[1]", None),
        (r#"{"messageType":"register"}"#, Some(401)),
        (r#"{"messageType":"register","channelID":"foo"}"#, Some(401)),
        (r#"{"messageType":"register","channelID":5}"#, Some(401)),
        (r#"{"messageType":"unregister"}"#, Some(401)),
        (r#"{"messageType":"x"}"#, Some(401)),
        (r#"{"messageType":5}"#, Some(401)),
        (r#"{"messageType":"hello","uaid":5}"#, Some(401)),
        (r#"{"messageType":"hello","channelIDs":5}"#, Some(401)),
    ]);
    let text = text.to_owned();
    world.say(id, Said::Wrong { text, answer });
}

/// A user agent is told its name.
pub(crate) fn is_told_its_name(world: &mut World, agent: usize, id: u64, uaid: String) {
    if world.agents[agent].socket != Some(id) {
        return;
    }
    let own = world.agents[agent].uaid.as_deref().and_then(name_of);
    if own.is_some() && own != name_of(&uaid) {
        // What it had is gone: its applications must register again.
        world.checker.tally.add("simplepush uaid replaced");
        world.agents[agent].channels.clear();
    }
    world.agents[agent].uaid = Some(uaid);
}

/// Acks that somebody has sent once.
pub(crate) fn sloppy_ack(world: &mut World, id: u64, mut ack: Ack) {
    let AckVersion::Number(version) = ack.version else {
        unreachable!("an update has a number");
    };
    let mut form = Form::Plain;
    match world.rng.below(8) {
        0 => return,
        1 => {
            world.checker.tally.add("ack of a lower version");
            ack.version = AckVersion::Number(version.saturating_sub(1));
        }
        2 => {
            world.checker.tally.add("ack of a higher version");
            let more = world.rng.pick(&[1, 1000, 1 << 40]);
            let version = (version + more).min(crate::versions::MAX);
            ack.version = AckVersion::Number(version);
        }
        3 => {
            world.checker.tally.add("ack in quotes");
            ack.version = AckVersion::Quoted(version);
        }
        4 => {
            world.checker.tally.add("ack without a type");
            form = Form::Bare;
        }
        5 => {
            world.checker.tally.add("ack that echoes all");
            form = Form::Echo;
        }
        6 => {
            world.checker.tally.add("ack of a version repeated");
            world.say(id, Said::Ack(Form::Plain, vec![ack.clone()]));
        }
        _ => {}
    }
    world.say(id, Said::Ack(form, vec![ack]));
}
