//! Application servers: good ones, and those that get everything wrong.

use std::sync::LazyLock;

use edgepush::protocol::http::{BaseUrl, Request, Scheme, Upgrade};
use edgepush::protocol::push_request::{Body, PushHeaders};

use crate::checker::{Asked, EndpointUrl, Message, URGENCY_NORMAL, body_of};
use crate::frames::URGENCIES;
use crate::signer::{HEADER, Signer};
use crate::updates;
use crate::world::{HOST, World, peer};

/// The key that user agents restrict subscriptions to, and tokens under it. They are few, so that they
/// are signed once for all worlds, and made out for any time: the clock of a world is not trusted.
struct Keys {
    public_key: String,
    good: Vec<String>,
    forged: String,
    of_another_key: String,
    for_another_service: String,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let (owner, other) = (Signer::new(1), Signer::new(2));
    let ours = format!("http://{HOST}");
    let token = owner.token(&ours, 0);
    let (message, _) = token.rsplit_once('.').expect("a token has dots");
    Keys {
        public_key: owner.public_key(),
        good: [0, 1_780_000_000, u64::MAX]
            .map(|exp| owner.authorization(&ours, exp))
            .to_vec(),
        forged: owner.present(&format!("{message}.{}", "A".repeat(86))),
        of_another_key: other.authorization(&ours, 0),
        for_another_service: owner.present(&owner.sign(HEADER, r#"{"aud":"http://x","exp":0}"#)),
    }
});

/// What a user agent registers with.
pub(crate) fn public_key() -> &'static str {
    &KEYS.public_key
}

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
        base_url: BaseUrl::of_host(Scheme::Http, HOST),
        upgrade: Upgrade::None,
        headers,
        body: Body::Whole(body),
        random: None,
    }
}

/// A good token, another one for each `turn`.
pub(crate) fn authorization(endpoint: &EndpointUrl, turn: usize) -> Option<String> {
    let good = &KEYS.good;
    endpoint.restricted.then(|| good[turn % good.len()].clone())
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
    // What has no body cannot be told apart when it is sent, and has the usual one.
    let urgency = if has_body && world.rng.percent(50) {
        world.rng.index(URGENCIES.len())
    } else {
        URGENCY_NORMAL
    };
    if endpoint.restricted {
        world.checker.tally.add("post of a restricted endpoint");
    }
    let headers = PushHeaders {
        ttl: Some(ttl_secs.to_string()),
        topic: topic.clone(),
        urgency: has_body.then(|| URGENCIES[urgency].to_owned()),
        content_encoding: has_body.then(|| "aes128gcm".to_owned()),
        authorization: authorization(endpoint, number),
        ..PushHeaders::default()
    };
    let message = Message {
        agent,
        channel,
        ttl_secs,
        topic,
        urgency,
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
        authorization: authorization(&endpoint, 0),
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
            let wrong = match world.rng.below(4) {
                0 => "nonsense",
                1 => &KEYS.forged,
                2 => &KEYS.for_another_service,
                // Anybody may post to an endpoint that is not restricted, under any key.
                _ if endpoint.restricted => &KEYS.of_another_key,
                _ => "vapid t=a.b.c,k=_-8",
            };
            headers.authorization = Some(wrong.to_owned());
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
