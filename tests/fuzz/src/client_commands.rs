//! What the client commands read: a gateway's messages and answers, subscriptions, URLs, keys.

use edgepush::io::entropy;
use edgepush::protocol::answer::Answer;
use edgepush::protocol::client_message::{self, AckCode, AckVersion, ClientMessage};
use edgepush::protocol::encryption::{self, AuthSecret, PrivateKey, ReceiverKeys};
use edgepush::protocol::peer_url::PeerUrl;
use edgepush::protocol::subscription::Subscription;
use edgepush::protocol::user_agent::{self, Body, GatewayMessage};
use edgepush::protocol::vapid_key::VapidKey;

use crate::fields::Fields;

pub(crate) fn gateway_message(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match user_agent::parse(&text) {
        Ok(GatewayMessage::Hello { uaid, .. }) => {
            assert!(uaid.is_none_or(|uaid| !uaid.is_empty() && uaid.chars().count() <= 128));
        }
        Ok(GatewayMessage::Notification(notification)) => {
            let ack = user_agent::ack(
                notification.channel,
                &notification.version,
                AckCode::Delivered,
            );
            let Ok(ClientMessage::Ack(acks)) = client_message::parse(&ack) else {
                panic!("{ack}");
            };
            let version = AckVersion::Text(notification.version.as_str().into());
            assert_eq!(
                (acks[0].channel(), &acks[0].version),
                (notification.channel, &version)
            );
            if let Body::Encrypted(encrypted) = &notification.body {
                let keys = ReceiverKeys {
                    private: PrivateKey::new(&[7; 32]).expect("a good key"),
                    auth: AuthSecret([8; 16]),
                };
                let decrypted = encryption::decrypt(&encrypted.data, encrypted.headers(), &keys);
                if let Ok(text) = decrypted {
                    assert!(text.len() < encrypted.data.len());
                }
            }
        }
        Ok(
            GatewayMessage::Registered { .. }
            | GatewayMessage::Unregistered { .. }
            | GatewayMessage::Broadcasts(_)
            | GatewayMessage::Updates(_)
            | GatewayMessage::Other,
        ) => {}
        Err(_) => {}
    }
}

pub(crate) fn subscription(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(subscription) = Subscription::from_json(&text) {
        let again = subscription.to_json();
        assert!(!again.contains('\n'));
        assert_eq!(Subscription::from_json(&again), Ok(subscription));
    }
}

pub(crate) fn peer_url(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let url = PeerUrl::new(&text);
    if PeerUrl::endpoint(&text).is_ok() {
        assert!(url.is_ok());
    }
    if let Ok(url) = url {
        assert_eq!(PeerUrl::new(&url.to_string()), Ok(url.clone()));
        // It goes into a request: nothing may end a line there.
        for part in [url.target(), &url.authority()] {
            assert!(part.bytes().all(|byte| byte.is_ascii_graphic()), "{part:?}");
        }
        assert!(url.target().starts_with('/'));
    }
}

pub(crate) fn answer(bytes: &[u8]) {
    let fields = Fields::of(bytes);
    let answer = Answer {
        status: fields.first.parse().unwrap_or(200),
        location: fields.header("location"),
        retry_after: fields.header("retry-after"),
        ttl: fields.header("ttl"),
        body: fields.body.to_vec(),
    };
    assert!(
        answer
            .message()
            .is_none_or(|message| message.chars().count() <= 400)
    );
    assert!(!answer.meaning().is_empty());
    assert!(!(answer.is_success() && answer.may_pass()));
}

pub(crate) fn vapid_key(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(key) = VapidKey::from_pem(&text, &entropy::source()) {
        assert_eq!(key.public_text().len(), 87);
    }
}
