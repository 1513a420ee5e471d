//! Prints what a VAPID token costs the event loop: one that is verified, and one that is remembered.
//!
//! `cargo bench --bench vapid`

#![allow(clippy::arithmetic_side_effects)] // every number is its own

#[path = "../tests/support/signer.rs"]
mod signer;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use edgepush::engine::{Engine, Input, Output, RequestId, Settings};
use edgepush::model::dialect::Dialect;
use edgepush::model::ids::{ChannelId, DatabaseId, Uaid};
use edgepush::model::store::Opened;
use edgepush::model::time::{Now, UnixTime};
use edgepush::protocol::http::{BaseUrl, Request, Scheme, Upgrade};
use edgepush::protocol::keyring::{Endpoint, KeyDigest, Keyring};
use edgepush::protocol::push_request::{Body, PushHeaders};
use signer::Signer;

/// As many as the engine remembers.
const TOKENS: usize = 256;
const ROUNDS: usize = 40;

fn main() {
    // The endpoint is another's: a request ends with the comparison of the keys, right behind what
    // is measured.
    let endpoint = Endpoint {
        database: DatabaseId([1; 8]),
        uaid: Uaid::from_bytes([2; 16]),
        channel: ChannelId::from_bytes([3; 16]),
        restricted_to: Some(KeyDigest::of(b"another")),
        dialect: Dialect::WebPush,
    };
    let path = format!("/wpush/v2/{}", keyring().seal_endpoint(&endpoint));
    let sign = |exp| Some(Signer::new(1).authorization("http://pi", exp));
    let tokens: Vec<_> = (0..TOKENS as u64).map(sign).collect();

    let mut verified = Duration::ZERO;
    let mut remembered = Duration::ZERO;
    let mut without = Duration::ZERO;
    for _ in 0..ROUNDS {
        let mut engine = engine();
        verified += post_each(&mut engine, &path, &tokens);
        remembered += post_each(&mut engine, &path, &tokens);
        without += post_each(&mut engine, &path, &vec![None; TOKENS]);
        let counters = engine.snapshot(now()).counters;
        let counted = (counters.vapid_verified, counters.vapid_remembered);
        assert_eq!(counted, (TOKENS as u64, TOKENS as u64));
    }
    println!("request    microseconds");
    for (name, time) in [
        ("verified", verified),
        ("remembered", remembered),
        ("no token", without),
    ] {
        let each = time.as_secs_f64() / (TOKENS * ROUNDS) as f64;
        println!("{name:10} {:12.2}", each * 1e6);
    }
}

/// One request with each of `tokens`, and how long the engine took over them.
fn post_each(engine: &mut Engine, path: &str, tokens: &[Option<String>]) -> Duration {
    let inputs: Vec<_> = tokens.iter().map(|token| request(path, token)).collect();
    let started = Instant::now();
    for input in inputs {
        engine.handle(now(), input);
        let answer = engine.poll_output();
        assert!(matches!(answer, Some(Output::Respond { response, .. }) if response.status == 401));
    }
    started.elapsed()
}

fn request(path: &str, authorization: &Option<String>) -> Input<'static> {
    let headers = PushHeaders {
        authorization: authorization.clone(),
        ..PushHeaders::default()
    };
    Input::Request {
        request: RequestId(1),
        head: Box::new(Request {
            peer: IpAddr::from([127, 0, 0, 1]),
            method: "POST".to_owned(),
            query: None,
            path: path.to_owned(),
            base_url: BaseUrl::of_host(Scheme::Http, "pi"),
            upgrade: Upgrade::None,
            headers,
            body: Body::Whole(Vec::new()),
            random: None,
        }),
    }
}

fn now() -> Now {
    Now {
        monotonic: Instant::now(),
        wall: UnixTime::from_secs(0),
        wall_is_trusted: true,
    }
}

fn keyring() -> Keyring {
    Keyring::new(&[[7; 32]]).expect("one key is enough")
}

fn engine() -> Engine {
    let opened = Opened::new(DatabaseId([1; 8]));
    let settings = Settings::new(keyring(), opened, [0; 8]);
    Engine::new(now(), settings).expect("the first run can be numbered")
}
