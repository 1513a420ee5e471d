//! Application servers that put versions, to user agents of both families.

use edgepush::protocol::push_request::{Body, PushHeaders};
use uuid::Uuid;

use crate::application_server::{authorization, request};
use crate::checker::{Asked, EndpointUrl};
use crate::versions::{Fate, MAX, Put};
use crate::world::World;

/// Puts a version, or asks for the next one.
pub(crate) fn put(world: &mut World, agent: usize, channel: Uuid, endpoint: &EndpointUrl) {
    let asked = choose_version(world, agent, channel);
    send(world, agent, channel, endpoint, asked);
}

/// Puts `asked`, or asks for the next version. Returns the number of the update.
pub(crate) fn send(
    world: &mut World,
    agent: usize,
    channel: Uuid,
    endpoint: &EndpointUrl,
    asked: Option<u64>,
) -> usize {
    let number = world.checker.versions.puts.len();
    let data = world.rng.percent(60).then(|| data_of(world, number));
    let form = form_of(world, asked, data.as_deref());
    let path = path_of(world, endpoint);
    let put = Put {
        agent,
        channel,
        asked,
        data,
        ttl_secs: None,
        posted: next_moment(world),
        wall_secs: world.wall_secs(),
        lost_endpoint: endpoint.generation < world.generation(),
        fate: Fate::default(),
    };
    if !world.agents[agent].is_simplepush() {
        world.checker.tally.add("put to a webpush user agent");
    }
    world.note(|| format!("PUT update {number} of agent {agent} {channel} {asked:?} {path}"));
    world.checker.versions.posted(put);
    let mut request = request("PUT", path, PushHeaders::default(), form.body);
    request.query = form.query;
    request.headers.content_type = form.content_type;
    request.headers.authorization = authorization(endpoint, number);
    world.request(Asked::Update(number), request);
    number
}

/// Posts a message to a user agent that understands versions only.
pub(crate) fn post(world: &mut World, agent: usize, channel: Uuid, endpoint: &EndpointUrl) {
    let ttl_secs = world.rng.pick(&[0, 1, 2, 10, 60, 3600, 2_592_000]);
    let has_body = world.rng.percent(50);
    let topic = world.rng.percent(30).then(|| "a".to_owned());
    let headers = PushHeaders {
        ttl: Some(ttl_secs.to_string()),
        topic,
        content_encoding: has_body.then(|| "aes128gcm".to_owned()),
        ..PushHeaders::default()
    };
    let put = Put {
        agent,
        channel,
        asked: None,
        data: None,
        ttl_secs: Some(ttl_secs),
        posted: next_moment(world),
        wall_secs: world.wall_secs(),
        lost_endpoint: endpoint.generation < world.generation(),
        fate: Fate::default(),
    };
    let number = world.checker.versions.posted(put);
    world.note(|| format!("POST update {number} of agent {agent} {channel} ttl {ttl_secs}"));
    let path = path_of(world, endpoint);
    let body = if has_body { vec![1; 50] } else { vec![] };
    let request = request("POST", path, headers, body);
    world.request(Asked::Update(number), request);
}

fn next_moment(world: &World) -> crate::checker::Moment {
    let mut posted = world.moment();
    posted.step += 1;
    posted
}

fn choose_version(world: &mut World, agent: usize, channel: Uuid) -> Option<u64> {
    let puts = world.checker.versions.puts.iter().rev();
    let of_channel = puts.filter(|put| (put.agent, put.channel) == (agent, channel));
    let last = of_channel.take(5).filter_map(|put| put.fate.version).next();
    let last = last.unwrap_or(5);
    let (kind, version) = match world.rng.below(100) {
        0..=44 => ("put without a version", None),
        45..=64 => ("put of a higher version", last.checked_add(1)),
        65..=74 => ("put of the same version", Some(last)),
        75..=84 => {
            let less = world.rng.pick(&[1, 2, 100, 1_000_000]);
            ("put of a lower version", Some(last.saturating_sub(less)))
        }
        85..=89 => ("put of a low version", Some(world.rng.below(5))),
        90..=96 => {
            let more = world.rng.below(100);
            ("put of seconds", Some(world.wall_secs() + more))
        }
        _ => {
            let huge = world.rng.pick(&[MAX, MAX - 1, 1 << 53, 1 << 53, 1 << 40]);
            ("put of a huge version", Some(huge))
        }
    };
    world.checker.tally.add(kind);
    version.map(|version| version.min(MAX))
}

/// Whatever a form can carry, and its number.
fn data_of(world: &mut World, number: usize) -> String {
    let filling = world
        .rng
        .pick(&["", "\"quoted\" & co", "100 % = ä\u{0}", "long"]);
    if filling == "long" {
        return format!("update {number} {}", "x".repeat(200));
    }
    format!("update {number} {filling}")
}

struct Form {
    content_type: Option<String>,
    query: Option<String>,
    body: Vec<u8>,
}

fn form_of(world: &mut World, asked: Option<u64>, data: Option<&str>) -> Form {
    let mut fields = Vec::new();
    if let Some(asked) = asked {
        fields.push(format!("version={asked}"));
    } else if world.rng.percent(30) {
        fields.push("version=".to_owned());
    }
    if let Some(data) = data {
        fields.push(format!("data={}", escaped(data)));
    }
    let fields = fields.join("&");
    if world.rng.percent(20) {
        world.checker.tally.add("put by a query");
        return Form {
            content_type: Some("text/plain".to_owned()),
            query: Some(fields),
            body: b"version=1".to_vec(),
        };
    }
    let content_type = "application/x-www-form-urlencoded".to_owned();
    Form {
        content_type: world.rng.percent(50).then_some(content_type),
        query: None,
        body: fields.into_bytes(),
    }
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// One of the paths that lead to an endpoint.
fn path_of(world: &mut World, endpoint: &EndpointUrl) -> String {
    if endpoint.restricted {
        return endpoint.path.clone();
    }
    let (_, token) = endpoint.path.rsplit_once('/').expect("it has a token");
    let prefix = world.rng.pick(&[
        "/update/",
        "/update/",
        "/spush/v1/",
        "/spush/",
        "/wpush/v1/",
        "/wpush/",
    ]);
    world.checker.tally.add(match prefix {
        "/update/" => "path of pushgo",
        "/spush/v1/" | "/spush/" => "path of autopush",
        _ => "path of webpush",
    });
    format!("{prefix}{token}")
}

/// A good endpoint, a bad update.
pub(crate) fn bad_put(world: &mut World, endpoint: &EndpointUrl) {
    world.checker.tally.add("bad put");
    let (form, expected): (_, &[u16]) = match world.rng.below(5) {
        0 => ("version=-1".to_owned(), &[400, 410, 503]),
        1 => ("version=abc".to_owned(), &[400, 410, 503]),
        2 => ("version=9223372036854775808".to_owned(), &[400, 410, 503]),
        3 => ("data=%ff".to_owned(), &[400, 410, 503]),
        _ => (format!("data={}", "x".repeat(4097)), &[413, 410, 503]),
    };
    let headers = PushHeaders {
        authorization: authorization(endpoint, 0),
        ..PushHeaders::default()
    };
    let mut request = request("PUT", endpoint.path.clone(), headers, vec![]);
    request.body = Body::Whole(form.into_bytes());
    world.request(Asked::Other { expected }, request);
}
