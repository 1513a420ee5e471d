//! What must be refused: requests and websocket messages that no push service may take, and behind
//! them one that it must.

use super::device::{Broken, Device, Target, within};
use super::ledger::Fault;
use super::world::{Bodies, Expected, World, update};
use crate::io::agent_socket::{AgentSocket, Received};
use crate::io::http_client::{ClientError, Question};
use crate::model::dialect::Dialect;
use crate::protocol::peer_url::PeerUrl;
use crate::protocol::user_agent::{GatewayMessage, hello, parse};

/// More than any push service takes, in bytes.
const TOO_LARGE_BYTES: usize = 100_000;

/// Messages that are none, before and after hello.
const NO_MESSAGES: [&str; 4] = [
    "no JSON",
    "[]",
    r#"{"messageType":"register","channelID":"no UUID"}"#,
    r#"{"messageType":"no such type"}"#,
];

/// One round: each of them once.
pub(super) async fn round(world: &World, device: &mut Device) -> Result<(), Broken> {
    let Some(target) = device.targets().first().cloned() else {
        return Ok(());
    };
    let work = async {
        requests(world, &target).await;
        for text in NO_MESSAGES {
            refused_message(world, text, false).await;
            refused_message(world, text, true).await;
        }
        let good = world.post_now(&target, Bodies::AsAsked, Expected::Accepted);
        good.await;
    };
    device.attend(work).await?;
    device.settle().await
}

async fn requests(world: &World, target: &Target) {
    let url = &*target.endpoint;
    let Some(invented) = invented(url) else {
        return;
    };
    let post = |url, headers, bytes| Question {
        method: "POST",
        url,
        headers,
        body: vec![b'x'; bytes],
    };
    let ttl = || ("ttl", "60".to_owned());
    let encoding = |name: &str| ("content-encoding", name.to_owned());
    let all = match world.options.dialect {
        Dialect::WebPush => vec![
            (post(url, vec![encoding("aes128gcm")], 100), &[400][..]),
            (post(url, vec![ttl()], 100), &[400, 415]),
            (post(url, vec![ttl(), encoding("rot13")], 100), &[400, 415]),
            (
                post(url, vec![ttl(), encoding("aes128gcm")], TOO_LARGE_BYTES),
                &[413],
            ),
            (
                post(&invented, vec![ttl(), encoding("aes128gcm")], 100),
                &[400, 404, 410],
            ),
        ],
        Dialect::SimplePush => vec![
            (update(url, "version=one".to_owned()), &[400][..]),
            (
                update(
                    url,
                    format!("version=1&data={}", "x".repeat(TOO_LARGE_BYTES)),
                ),
                &[413],
            ),
            (update(&invented, "version=1".to_owned()), &[400, 404, 410]),
        ],
    };
    for (question, statuses) in all {
        match world.ask(question).await {
            Ok(status) if statuses.contains(&status) => {}
            Ok(status) => {
                let mut ledger = world.ledger.borrow_mut();
                ledger.fault(Fault::Status, || {
                    format!("{status}, not one of {statuses:?}")
                });
            }
            Err(ClientError::Http(_)) if statuses == [413] => {
                // A body that is not read to its end may end the connection before its answer is read.
            }
            Err(error) => world.unanswered(&error),
        }
    }
}

/// The same endpoint with another token of the same length.
fn invented(url: &PeerUrl) -> Option<PeerUrl> {
    let text = url.to_string();
    let (before, token) = text.rsplit_once('/')?;
    let turned: String = token.chars().rev().collect();
    PeerUrl::endpoint(&format!("{before}/{turned}")).ok()
}

/// A connection of its own, on which something is said that is none of the protocol: it is ended, or
/// refused in words.
async fn refused_message(world: &World, text: &str, is_named: bool) {
    let Ok(mut socket) = AgentSocket::open(&world.options.url, &world.connector).await else {
        let mut ledger = world.ledger.borrow_mut();
        return ledger.fault(Fault::NoWebsocket, || {
            "for a message that is none".to_owned()
        });
    };
    let saying = async {
        if is_named && socket.send(hello(world.options.dialect, None, &[])).await {
            socket.receive().await;
        }
        socket.send(text.to_owned()).await;
        loop {
            match socket.receive().await {
                Received::Text(answer) => return !is_granted(&answer),
                Received::Alive | Received::Pong | Received::Garbage => {}
                Received::End(_) => return true,
            }
        }
    };
    if within(saying).await != Some(true) {
        let mut ledger = world.ledger.borrow_mut();
        ledger.fault(Fault::Verdict, || format!("not refused: {text}"));
    }
    socket.close().await;
}

fn is_granted(answer: &str) -> bool {
    match parse(answer) {
        Ok(
            GatewayMessage::Hello { verdict, .. }
            | GatewayMessage::Registered { verdict, .. }
            | GatewayMessage::Unregistered { verdict, .. },
        ) => verdict.is_ok(),
        Ok(
            GatewayMessage::Notification(_)
            | GatewayMessage::Updates(_)
            | GatewayMessage::Broadcasts(_)
            | GatewayMessage::Other,
        )
        | Err(_) => false,
    }
}
