//! What user agents say on their websockets.

use edgepush::model::dialect::Dialect;
use edgepush::protocol::client_message::{self, AckVersion, ClientMessage, RegisterKey};
use edgepush::protocol::simplepush_message::{self, Refusal, SimplePushMessage};
use edgepush::protocol::user_agent;
use serde_json::Value;

/// Bytes of the shortest update of an ack.
const ACK_BYTES_MIN: usize = 40;
/// What an answer to a refused message is longer than that, beside what writing it anew costs.
const ANSWER_MORE_BYTES: usize = 300;

pub(crate) fn webpush(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match client_message::parse(&text) {
        Ok(ClientMessage::Register { channel, key }) => {
            let again = user_agent::register(channel, None);
            let key = RegisterKey::Absent.eq(&key).then_some(key);
            match client_message::parse(&again) {
                Ok(ClientMessage::Register {
                    channel: read,
                    key: absent,
                }) => {
                    assert_eq!(read, channel);
                    assert!(key.is_none_or(|key| key == absent));
                }
                other => panic!("{other:?}"),
            }
        }
        Ok(ClientMessage::Ack(updates)) => {
            assert!(updates.len() * ACK_BYTES_MIN <= text.len());
            for update in &updates {
                if let AckVersion::Text(version) = &update.version {
                    let again = user_agent::ack(update.channel(), version, update.code());
                    let Ok(ClientMessage::Ack(read)) = client_message::parse(&again) else {
                        panic!("{again}");
                    };
                    assert_eq!(read[0].channel(), update.channel());
                    assert_eq!(read[0].version, update.version);
                    assert_eq!(read[0].code(), update.code());
                }
            }
        }
        Ok(
            ClientMessage::Hello { broadcasts, .. } | ClientMessage::BroadcastSubscribe(broadcasts),
        ) => {
            let length: usize = broadcasts
                .iter()
                .map(|(id, has)| id.len() + has.len())
                .sum();
            assert!(length <= text.len());
        }
        Ok(
            ClientMessage::Unregister { .. }
            | ClientMessage::Urgency(_)
            | ClientMessage::Nack { .. }
            | ClientMessage::Ping,
        ) => {}
        // What becomes of it is the reason of a close frame.
        Err(error) => assert!(error.as_str().len() <= 123),
    }
}

pub(crate) fn simplepush(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let dialect = simplepush_message::dialect(&text);
    let message = simplepush_message::parse(&text);
    if dialect == Some(Dialect::SimplePush) {
        let hello = matches!(message, Ok(SimplePushMessage::Hello(_)));
        assert!(hello || message == Err(Refusal::BadHello), "{message:?}");
    }
    match &message {
        Ok(SimplePushMessage::Register(channel)) => {
            assert!(channel.spelling.len() <= 36);
            let uuid = uuid::Uuid::try_parse(&channel.spelling).expect("it spells a UUID");
            assert_eq!(channel.channel.uuid(), uuid);
        }
        Ok(SimplePushMessage::Hello(hello)) => {
            assert!(hello.channels_len <= text.len());
            let spelling = hello.uaid.as_ref().map(|uaid| uaid.spelling.len());
            assert!(spelling.is_none_or(|length| length <= 36));
        }
        Ok(SimplePushMessage::Ack(acks)) => assert!(acks.len() * ACK_BYTES_MIN <= text.len()),
        Ok(
            SimplePushMessage::Unregister { .. }
            | SimplePushMessage::Ping
            | SimplePushMessage::Ignored,
        ) => {}
        Err(refusal) => {
            assert!(refusal.as_str().len() <= 123);
            let answer = refusal.answer(&text);
            assert_eq!(answer.is_none(), *refusal == Refusal::NotAnObject);
            if let Some(answer) = answer {
                let answered: Value = serde_json::from_str(&answer).expect("it is JSON");
                assert_eq!(answered["status"], refusal.status());
                // A number such as 1e9 is written in full: never much more than it was.
                let length_max = text.len() * 8 + ANSWER_MORE_BYTES;
                assert!(answer.len() <= length_max, "{}", answer.len());
            }
        }
    }
    let _ = simplepush_message::is_early_ping(&text);
}
