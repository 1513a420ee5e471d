//! What application servers, homeservers and user agents without a websocket send over HTTP.

use std::net::IpAddr;

use edgepush::model::limits::{
    NOTIFY_DEVICES_MAX, RAW_BODY_BYTES_MAX, TOPIC_CHARS_MAX, TTL_SECS_MAX, UPDATE_DATA_BYTES_MAX,
};
use edgepush::model::message::Payload;
use edgepush::protocol::http::Response;
use edgepush::protocol::keyring::{KEY_BYTES, Keyring};
use edgepush::protocol::problem::Problem;
use edgepush::protocol::push_request::{self, Body, Manners, PushHeaders};
use edgepush::protocol::route::Route;
use edgepush::protocol::{broadcast_list, forwarded, matrix, registration, update_request};

use crate::fields::Fields;

fn check_problem(problem: Problem) {
    let response = Response::from(problem);
    assert!((400..600).contains(&response.status));
    assert!(response.body.len() < 1000);
}

pub(crate) fn push_request(bytes: &[u8]) {
    let fields = Fields::of(bytes);
    let headers = fields.push_headers();
    let body = || Body::Whole(fields.body.to_vec());
    for manners in [Manners::Strict, Manners::Lenient] {
        match push_request::read(&headers, body(), manners) {
            Err(problem) => check_problem(problem),
            Ok(draft) => {
                assert!(draft.ttl.as_secs() <= TTL_SECS_MAX);
                let topic = draft.topic.as_ref().map_or("", |topic| topic.as_str());
                assert!(topic.len() <= TOPIC_CHARS_MAX);
                check_payload(&draft.payload, &fields, &headers, manners);
            }
        }
    }
}

fn check_payload(payload: &Payload, fields: &Fields<'_>, headers: &PushHeaders, manners: Manners) {
    let content = match payload {
        Payload::Empty => return assert!(fields.body.is_empty()),
        Payload::Raw(body) => {
            assert!(manners == Manners::Lenient && **body == *fields.body);
            return assert!(body.len() <= RAW_BODY_BYTES_MAX);
        }
        Payload::Update(_) => panic!("a message that was posted is no update"),
        Payload::Encrypted(content) => content,
    };
    assert!(*content.body == *fields.body);
    let cleaned = [&content.encryption, &content.crypto_key];
    for header in cleaned.into_iter().flatten() {
        let allowed = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"';
        assert!(header.bytes().all(allowed), "{header:?}");
    }
    // What is forwarded would be taken again, and forwarded as it is.
    let again = PushHeaders {
        encryption: content.encryption.as_deref().map(str::to_owned),
        crypto_key: content.crypto_key.as_deref().map(str::to_owned),
        ..headers.clone()
    };
    let again = push_request::read(&again, Body::Whole(fields.body.to_vec()), manners);
    assert!(again.is_ok_and(|draft| draft.payload == *payload));
}

pub(crate) fn update_request(bytes: &[u8]) {
    let fields = Fields::of(bytes);
    let query = fields.first.split_once('?').map(|(_, query)| query);
    let body = Body::Whole(fields.body.to_vec());
    match update_request::read(&fields.push_headers(), query, body) {
        Err(problem) => check_problem(problem),
        Ok(draft) => {
            let data = draft.data.as_deref().unwrap_or_default();
            assert!(data.len() <= UPDATE_DATA_BYTES_MAX);
            let escaped: String = data.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let version = draft
                .version
                .map_or(String::new(), |version| version.to_string());
            let form = format!("data={escaped}&version={version}");
            let again = update_request::read(
                &PushHeaders::default(),
                None,
                Body::Whole(form.into_bytes()),
            );
            assert!(again.is_ok_and(|again| again == draft));
        }
    }
}

pub(crate) fn registration(bytes: &[u8]) {
    let fields = Fields::of(bytes);
    let path = fields.first.split('?').next().unwrap_or_default();
    let route = Route::of(path);
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        if route.takes(method) {
            assert!(route.methods().contains(method));
        }
    }
    assert!(route.methods().is_empty() || route != Route::Other);
    let body = Body::Whole(fields.body.to_vec());
    let strict = registration::read(&body);
    match (strict, registration::read_optional(&body)) {
        (Ok(wish), optional) => assert_eq!(optional, Ok(wish)),
        (Err(problem), _) => check_problem(problem),
    }
    let authorization = fields.header("authorization");
    if let Ok(secret) = registration::secret(authorization.as_deref()) {
        let keyring = Keyring::new(&[[1; KEY_BYTES]]).expect("one key");
        let uaid = keyring.mint_uaid([1; 8]);
        // Whoever guesses it has broken HMAC.
        assert!(!keyring.is_secret(uaid, secret));
    }
}

/// `X-Forwarded-For` of a trusted proxy, and of one that is not.
pub(crate) fn forwarded(bytes: &[u8]) {
    let list = String::from_utf8_lossy(bytes);
    let connected = IpAddr::from([10, 0, 0, 1]);
    let nobody = |_| false;
    assert_eq!(forwarded::peer(connected, Some(&list), nobody), connected);
    let proxies = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
    let peer = forwarded::peer(connected, Some(&list), proxies);
    // What stands to the left of somebody who is not trusted is not believed.
    let lie = format!("192.0.2.1, {list}");
    assert!(proxies(peer) || forwarded::peer(connected, Some(&lie), proxies) == peer);
}

pub(crate) fn matrix(bytes: &[u8]) {
    match matrix::read(Body::Whole(bytes.to_vec())) {
        Err(problem) => check_problem(problem),
        Ok(notification) => {
            assert!(notification.pushkeys.len() <= NOTIFY_DEVICES_MAX);
            assert!(notification.body.len() <= RAW_BODY_BYTES_MAX);
            for pushkey in &notification.pushkeys {
                if let Some(token) = matrix::endpoint_token(pushkey) {
                    assert!(!token.contains('/'));
                }
            }
        }
    }
}

pub(crate) fn broadcast_list(bytes: &[u8]) {
    if let Ok(list) = broadcast_list::parse(bytes) {
        let again = serde_json::json!({ "broadcasts": list }).to_string();
        if again.len() <= broadcast_list::LIST_BYTES_MAX {
            assert_eq!(broadcast_list::parse(again.as_bytes()), Ok(list));
        }
    }
}
