//! Acks, in all moods.

use std::time::Duration;

use serde_json::json;

use super::{Acking, ToAck};
use crate::device;
use crate::frames::{Ack, AckVersion, Form, Said, Spelled};
use crate::world::World;

pub(super) fn acknowledge(
    world: &mut World,
    agent: usize,
    id: u64,
    channel: Spelled,
    version: AckVersion,
) {
    let is_simplepush = world.agents[agent].is_simplepush();
    let mut ack = Ack {
        channel,
        version,
        code: (!is_simplepush).then_some(100),
    };
    let now = world.elapsed();
    match world.agents[agent].acking {
        Acking::AtOnce => world.say(id, Said::Ack(Form::Plain, vec![ack])),
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
        Acking::EmptyVersion | Acking::Sloppy if is_simplepush => {
            device::sloppy_ack(world, id, ack);
        }
        Acking::EmptyVersion => {
            world.checker.tally.add("ack with empty version");
            ack.version = AckVersion::Token(String::new());
            world.say(id, Said::Ack(Form::Plain, vec![ack]));
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
            world.say(id, Said::Ack(Form::Plain, vec![ack]));
        }
        2 => {
            world.checker.tally.add("ack with code 102");
            ack.code = Some(102);
            world.say(id, Said::Ack(Form::Plain, vec![ack]));
        }
        3 => {
            world.checker.tally.add("ack repeated");
            world.say(id, Said::Ack(Form::Plain, vec![ack.clone(), ack.clone()]));
            world.say(id, Said::Ack(Form::Plain, vec![ack]));
        }
        4 => {
            world.checker.tally.add("nack");
            let text = json!({"messageType": "nack", "version": "v", "code": 301});
            ack.code = None;
            world.say(id, Said::Ack(Form::Plain, vec![ack]));
            world.say(id, Said::Other(text.to_string()));
        }
        _ => world.say(id, Said::Ack(Form::Plain, vec![ack])),
    }
}

/// Those that are due, on the websocket where the message came or on the newest.
pub(super) fn send_due_acks(world: &mut World, agent: usize) {
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
        return world.say(newest, Said::Ack(Form::Plain, acks));
    }
    for ToAck { socket, ack, .. } in due {
        let old_is_there = world.sockets.get(&socket).is_some_and(|s| s.client_open);
        let id = if old_is_there { socket } else { newest };
        world.say(id, Said::Ack(Form::Plain, vec![ack]));
    }
}

/// Must have no effect, unless it happens to be its own.
pub(super) fn ack_of_another(world: &mut World, id: u64) {
    let versions = world.checker.sent_versions();
    if versions.is_empty() {
        return;
    }
    let (channel, version) = versions[world.rng.index(versions.len())].clone();
    let channel = Spelled::dashed(channel);
    let own = world.agents[world.sockets[&id].log.agent]
        .channels
        .contains(&channel);
    if own {
        return;
    }
    let ack = Ack {
        channel,
        version: AckVersion::Token(version),
        code: None,
    };
    world.say(id, Said::Ack(Form::Plain, vec![ack]));
}
