//! Bodies encrypted by an independent library arrive so that the user agent can decrypt them.

#![allow(clippy::unwrap_used)] // a test may

mod support;

use data_encoding::BASE64URL_NOPAD;
use support::{Gateway, UserAgent, channel, post};
use web_push_native::p256::SecretKey;
use web_push_native::{Auth, decrypt, encrypt};

#[test]
fn user_agent_decrypts_what_the_application_server_encrypted() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let secret = SecretKey::from_slice(&[7; 32]).unwrap();
    let auth = Auth::clone_from_slice(&[8; 16]);
    let longest = "x".repeat(3993); // what fits into one record of 4096 bytes

    for text in ["", "The washing is done", "Größe: 5 €", longest.as_str()] {
        let body = encrypt(text.into(), &secret.public_key(), &auth).unwrap();
        let answer = post(&gateway, &endpoint, &[("TTL", "0")], &body);
        assert_eq!(answer.status, 201);

        let notification = agent.receive();
        assert_eq!(notification["headers"]["encoding"], "aes128gcm");
        let data = notification["data"].as_str().unwrap();
        let received = BASE64URL_NOPAD.decode(data.as_bytes()).unwrap();
        assert_eq!(received, body, "byte for byte");
        assert_eq!(decrypt(received, &secret, &auth).unwrap(), text.as_bytes());
    }
}
