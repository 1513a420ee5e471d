//! Application servers: good ones, and those that get everything wrong.

use edgepush::protocol::http::{BaseUrl, Request, Upgrade};
use edgepush::protocol::push_request::{Body, PushHeaders};

use crate::checker::{Asked, EndpointUrl, Message, body_of};
use crate::updates;
use crate::world::{HOST, World, peer};

/// An application server does something.
pub(crate) fn act(world: &mut World) {
    match world.rng.below(100) {
        0..=79 => {
            let count = if world.rng.percent(10) { 12 } else { 1 };
            let Some((agent, channel, endpoint)) = choose(world) else {
                return;
            };
            for _ in 0..count {
                send(world, agent, channel, &endpoint);
            }
        }
        80..=89 => delete(world),
        90..=94 => bad_post(world),
        95..=96 => {
            if let Some((_, _, endpoint)) = choose(world) {
                updates::bad_put(world, &endpoint);
            }
        }
        _ => garbage(world),
    }
}

fn send(world: &mut World, agent: usize, channel: uuid::Uuid, endpoint: &EndpointUrl) {
    let is_simplepush = world.agents[agent].is_simplepush();
    let puts = world.rng.percent(if is_simplepush { 80 } else { 12 });
    match (puts, is_simplepush) {
        (true, _) => updates::put(world, agent, channel, endpoint),
        (false, true) => updates::post(world, agent, channel, endpoint),
        (false, false) => post(world, agent, channel, endpoint),
    }
}

fn choose(world: &mut World) -> Option<(usize, uuid::Uuid, EndpointUrl)> {
    let all: Vec<(usize, uuid::Uuid)> = world.checker.subscriptions.keys().copied().collect();
    if all.is_empty() {
        return None;
    }
    let key = all[world.rng.index(all.len())];
    let endpoints = world.checker.subscriptions[&key].endpoints.clone();
    if endpoints.is_empty() {
        return None;
    }
    let endpoint = endpoints[world.rng.index(endpoints.len())].clone();
    Some((key.0, key.1, endpoint))
}

pub(crate) fn request(method: &str, path: String, headers: PushHeaders, body: Vec<u8>) -> Request {
    Request {
        peer: peer(),
        method: method.to_owned(),
        path,
        query: None,
        base_url: BaseUrl::of_host(HOST),
        upgrade: Upgrade::None,
        headers,
        body: Body::Whole(body),
    }
}

pub(crate) fn authorization(endpoint: &EndpointUrl) -> Option<String> {
    let right = "vapid t=a.b.c,k=_-8".to_owned();
    endpoint.restricted.then_some(right)
}

fn post(world: &mut World, agent: usize, channel: uuid::Uuid, endpoint: &EndpointUrl) {
    let ttl_secs = world.rng.pick(&[0, 1, 2, 10, 60, 3600, 86_400, 2_592_000]);
    let number = world.checker.messages.len();
    let filling = world.rng.pick(&[0, 10, 100, 100, 3000]);
    // What is not kept is told by its body alone.
    let has_body = ttl_secs == 0 || world.rng.percent(80);
    let body = has_body.then(|| body_of(number, filling));
    let topic = world
        .rng
        .percent(30)
        .then(|| world.rng.pick(&["a", "b"]).to_owned());
    if endpoint.restricted {
        world.checker.tally.add("post of a restricted endpoint");
    }
    let headers = PushHeaders {
        ttl: Some(ttl_secs.to_string()),
        topic: topic.clone(),
        content_encoding: has_body.then(|| "aes128gcm".to_owned()),
        authorization: authorization(endpoint),
        ..PushHeaders::default()
    };
    let message = Message {
        agent,
        channel,
        ttl_secs,
        topic,
        body: body.clone(),
        posted: {
            let mut posted = world.moment();
            posted.step += 1;
            posted
        },
        lost_endpoint: endpoint.generation < world.generation(),
        answered: None,
        token: None,
        deleted: false,
    };
    let number = world.checker.posted(message);
    world.note(|| format!("POST message {number} of agent {agent} {channel} ttl {ttl_secs}"));
    let request = request(
        "POST",
        endpoint.path.clone(),
        headers,
        body.unwrap_or_default(),
    );
    world.request(Asked::Post(number), request);
}

fn delete(world: &mut World) {
    let tokens = world.checker.accepted_tokens();
    if tokens.is_empty() {
        return;
    }
    let token = tokens[world.rng.index(tokens.len())].clone();
    let request = request(
        "DELETE",
        format!("/m/{token}"),
        PushHeaders::default(),
        vec![],
    );
    world.request(Asked::Delete { token }, request);
}

/// A good endpoint, a bad message.
fn bad_post(world: &mut World) {
    let Some((_, _, endpoint)) = choose(world) else {
        return;
    };
    world.checker.tally.add("bad request");
    let mut headers = PushHeaders {
        ttl: Some("60".to_owned()),
        authorization: authorization(&endpoint),
        ..PushHeaders::default()
    };
    let mut body = vec![];
    let expected: &[u16] = match world.rng.below(5) {
        0 => {
            headers.ttl = None;
            &[400, 410, 503]
        }
        1 => {
            headers.ttl = Some("soon".to_owned());
            &[400, 410, 503]
        }
        2 => {
            headers.topic = Some("not a topic".to_owned());
            &[400, 410, 503]
        }
        3 => {
            body = vec![1; 6000];
            &[413, 410, 503]
        }
        _ => {
            headers.authorization = Some("nonsense".to_owned());
            &[401, 503]
        }
    };
    let request = request("POST", endpoint.path, headers, body);
    world.request(Asked::Other { expected }, request);
}

fn garbage(world: &mut World) {
    let (method, path, expected): (_, _, &[u16]) = match world.rng.below(4) {
        0 => {
            world.checker.tally.add("post 404");
            ("POST", "/wpush/v1/garbage", &[404, 503])
        }
        1 => ("PATCH", "/wpush/v2/garbage", &[405, 503]),
        2 => ("GET", "/nothing", &[404, 503]),
        _ => ("DELETE", "/m/garbage", &[400, 404, 503]),
    };
    let request = request(method, path.to_owned(), PushHeaders::default(), vec![]);
    world.request(Asked::Other { expected }, request);
}
