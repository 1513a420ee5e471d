//! Who may post: VAPID in both generations, against the table of PROTOCOL.md part 3, 4.10.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use support::signer::{HEADER, Signer};
use support::{Answer, Gateway, Http, UserAgent};

/// The origin of every endpoint here: [`Http`] says so in `Host`.
const ORIGIN: &str = "http://localhost";
const DAY_SECS: u64 = 86_400;

/// What a request with a certain `Authorization` and `Crypto-Key` is told.
type Refusal = (String, Option<String>, u16, u16, &'static str);

/// A user agent and its two endpoints: open, and restricted to the first [`Signer`].
struct Stage {
    gateway: Gateway,
    open: String,
    restricted: String,
}

impl Stage {
    fn with_clock(clock: &str) -> Self {
        Self::with_config(&format!("[vapid]\nclock = \"{clock}\"\n"))
    }

    fn with_config(config: &str) -> Self {
        let gateway = Gateway::with_config(config);
        let mut agent = UserAgent::hello(&gateway, None);
        let (open, restricted) = agent.register_two();
        Self {
            gateway,
            open,
            restricted,
        }
    }

    fn post(&self, endpoint: &str, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![("TTL", "0")];
        all.extend_from_slice(headers);
        Http::connect(self.gateway.push).send("POST", endpoint, &all, b"")
    }

    /// Status, and the message if it is refused.
    fn authorize(&self, endpoint: &str, authorization: &str) -> (u16, String) {
        told(&self.post(endpoint, &[("Authorization", authorization)]))
    }
}

fn told(answer: &Answer) -> (u16, String) {
    if answer.body.is_empty() {
        return (answer.status, String::new());
    }
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    (answer.status, message)
}

fn owner() -> Signer {
    Signer::new(1)
}

fn now_secs() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs()
}

fn accepted() -> (u16, String) {
    (201, String::new())
}

/// Every refusal of a token, presented in the way of RFC 8292.
fn refused_tokens() -> Vec<(String, &'static str)> {
    let exp = now_secs() + 60;
    let claims = |claims: &str| owner().sign(HEADER, claims);
    let header = |alg: &str| {
        let claims = format!(r#"{{"aud":"{ORIGIN}","exp":{exp}}}"#);
        owner().sign(&format!(r#"{{"typ":"JWT","alg":"{alg}"}}"#), &claims)
    };
    let good = owner().token(ORIGIN, exp);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (_, other) = Signer::new(2)
        .token(ORIGIN, exp)
        .rsplit_once('.')
        .map(owned)
        .unwrap();
    let bad_claims = "Invalid VAPID token: A value in the vapid claims is either missing or \
                      incorrectly specified (e.g. \"exp\":\"12345\" or \"sub\":null). Please correct \
                      and retry.";
    let not_base64 = "Base64 error: each part of a VAPID token is base64url without padding";
    vec![
        ("abc".to_owned(), "InvalidToken"),
        ("a.b".to_owned(), "InvalidToken"),
        ("x".repeat(2049), "InvalidToken"),
        ("a.b.c".to_owned(), not_base64),
        (format!("{good}=="), not_base64),
        (format!("{good}.{signature}"), not_base64),
        (
            "AAAA.AAAA.AAAA".to_owned(),
            "Invalid VAPID token: its header and its claims must be JSON",
        ),
        (
            claims("not JSON"),
            "Invalid VAPID token: its header and its claims must be JSON",
        ),
        (header("none"), bad_claims),
        (header("HS256"), "InvalidAlgorithm"),
        (header("ES384"), "InvalidAlgorithm"),
        (format!("{message}.{other}"), "InvalidSignature"),
        (format!("{message}."), "InvalidSignature"),
        (format!("{message}.{}", &signature[4..]), "InvalidSignature"),
        (claims(&format!(r#"{{"aud":"{ORIGIN}"}}"#)), bad_claims),
        (
            claims(&format!(r#"{{"aud":"{ORIGIN}","exp":"{exp}"}}"#)),
            bad_claims,
        ),
        (
            claims(&format!(r#"{{"aud":"{ORIGIN}","exp":{exp}.5}}"#)),
            bad_claims,
        ),
        (
            claims(&format!(r#"{{"aud":"{ORIGIN}","exp":{exp},"sub":7}}"#)),
            bad_claims,
        ),
        (
            claims(&format!(r#"{{"aud":["{ORIGIN}"],"exp":{exp}}}"#)),
            bad_claims,
        ),
        (owner().token(ORIGIN, now_secs() - 70), "ExpiredSignature"),
        (
            owner().token(ORIGIN, now_secs() + DAY_SECS + 70),
            "The VAPID token expiration is too long",
        ),
        (
            claims(&format!(r#"{{"exp":{exp}}}"#)),
            "Invalid VAPID token: Missing required aud",
        ),
        (
            owner().token("http://localhost/", exp),
            "Invalid VAPID audience",
        ),
        (
            owner().token("http://elsewhere", exp),
            "Invalid VAPID audience",
        ),
        (owner().token("localhost", exp), "Invalid VAPID audience"),
    ]
}

fn owned((message, signature): (&str, &str)) -> (String, String) {
    (message.to_owned(), signature.to_owned())
}

/// Every refusal of the headers around a token.
fn refused_headers() -> Vec<Refusal> {
    let token = owner().token(ORIGIN, now_secs() + 60);
    let vapid = |text: String, message| (text, None, 401, 109, message);
    let draft = |crypto_key: Option<&str>, message| {
        let crypto_key = crypto_key.map(str::to_owned);
        (format!("WebPush {token}"), crypto_key, 400, 110, message)
    };
    vec![
        vapid("Basic dXNlcg==".to_owned(), "Unknown auth scheme"),
        vapid("Basic".to_owned(), "Missing VAPID token"),
        vapid("vapid".to_owned(), "Missing VAPID token"),
        vapid("webpush".to_owned(), "Missing VAPID token"),
        vapid(
            format!("vapid k={}", owner().public_key()),
            "Missing VAPID token",
        ),
        vapid(format!("vapid t={token}"), "Missing VAPID public key"),
        vapid("vapid x".to_owned(), "Missing VAPID public key"),
        vapid(
            format!("vapid t={token},k=!"),
            "Invalid VAPID public key: not base64url",
        ),
        // Keys that are decoded, and are none or another one.
        vapid(format!("vapid t={token},k=AAAA"), "InvalidSignature"),
        vapid(Signer::new(2).present(&token), "InvalidSignature"),
        draft(None, "Missing Crypto-Key header"),
        draft(Some("nonsense"), "Invalid Crypto-Key header"),
        draft(Some("dh=abc"), "Missing p256ecdsa in Crypto-Key header"),
    ]
}

#[test]
fn each_refusal_has_the_main_services_status_number_and_words_on_both_kinds_of_endpoint() {
    let stage = Stage::with_clock("trusted");
    let by_token = refused_tokens().into_iter().flat_map(|(token, message)| {
        let key = format!("p256ecdsa={}", owner().public_key());
        [
            (owner().present(&token), None, 401, 109, message),
            (format!("Bearer {token}"), Some(key), 401, 109, message),
        ]
    });
    let mut refused = 0;
    for (authorization, crypto_key, status, errno, message) in
        refused_headers().into_iter().chain(by_token)
    {
        for endpoint in [&stage.open, &stage.restricted] {
            let mut headers = vec![("Authorization", authorization.as_str())];
            headers.extend(crypto_key.as_deref().map(|key| ("Crypto-Key", key)));
            let answer = stage.post(endpoint, &headers);
            let body = answer.json();
            assert_eq!(body["message"], message, "{authorization}");
            assert_eq!(answer.status, status, "{authorization}");
            assert_eq!(body["code"], status, "{authorization}");
            assert_eq!(body["errno"], errno, "{authorization}");
            refused += 1;
        }
    }
    stage
        .gateway
        .wait_for_metric("edgepush_vapid_refused_total", refused);
    assert_eq!(stage.gateway.metric("edgepush_vapid_verified_total"), 0);
    assert_eq!(stage.gateway.metric("edgepush_wall_clock_trusted"), 1);
}

#[test]
fn token_is_looked_at_before_the_key_of_the_endpoint_and_that_before_the_message() {
    let stage = Stage::with_clock("trusted");
    let stranger = Signer::new(2);
    let expired = stranger.authorization(ORIGIN, 0);
    let fresh = stranger.authorization(ORIGIN, now_secs() + 60);
    let refusal = |message: &str| (401, message.to_owned());
    assert_eq!(
        stage.authorize(&stage.restricted, &expired),
        refusal("ExpiredSignature")
    );
    let without_ttl = [("Authorization", fresh.as_str())];
    let answer =
        Http::connect(stage.gateway.push).send("POST", &stage.restricted, &without_ttl, b"");
    assert_eq!(told(&answer), refusal("VAPID public key mismatch"));
    assert_eq!(
        told(&stage.post(&stage.restricted, &[])),
        refusal("Missing VAPID public key")
    );
    assert_eq!(stage.authorize(&stage.open, &fresh), accepted());
    assert_eq!(told(&stage.post(&stage.open, &[])), accepted());
    // A token of the endpoint that is no good comes before everything.
    let answer = stage.post("/wpush/v2/garbage", &[("Authorization", &expired)]);
    assert_eq!(answer.status, 404);
}

#[test]
fn good_token_is_accepted_in_both_generations_and_with_every_spelling_of_the_key() {
    let stage = Stage::with_clock("trusted");
    let token = owner().token(ORIGIN, now_secs() + 60);
    let key = owner().public_key();
    let standard = key.replace('-', "+").replace('_', "/");
    assert_ne!(standard, key, "a key whose spellings differ");
    let mut accepted = 0;
    for key in [
        key.clone(),
        format!("{key}="),
        format!("{key}=="),
        format!("\"{key}\""),
        standard.clone(),
        format!("{standard}="),
    ] {
        let crypto_key = format!("dh=abc;p256ecdsa={key}");
        for (authorization, crypto_key) in [
            (format!("vapid t={token},k={key}"), ""),
            (format!("VAPID k={key}, t={token}"), ""),
            (format!("WebPush {token}"), crypto_key.as_str()),
            (format!("bearer {token}"), crypto_key.as_str()),
        ] {
            let headers = [
                ("Authorization", authorization.as_str()),
                ("Crypto-Key", crypto_key),
            ];
            let headers = if crypto_key.is_empty() {
                &headers[..1]
            } else {
                &headers[..]
            };
            let answer = stage.post(&stage.restricted, headers);
            assert_eq!(told(&answer), self::accepted(), "{authorization}");
            accepted += 1;
        }
    }
    // All of them are one token under one key.
    stage
        .gateway
        .wait_for_metric("edgepush_vapid_remembered_total", accepted - 1);
    assert_eq!(stage.gateway.metric("edgepush_vapid_verified_total"), 1);
    assert_eq!(stage.gateway.metric("edgepush_vapid_refused_total"), 0);
}

#[test]
fn claims_that_nobody_needs_are_taken_as_they_are() {
    let stage = Stage::with_clock("trusted");
    let exp = now_secs() + DAY_SECS - 60;
    for more in [
        "",
        r#","sub":null"#,
        r#","sub":"""#,
        r#","sub":"foo""#,
        r#","nbf":99999999999"#,
        r#","iat":"yesterday","jti":{"a":[1]}"#,
    ] {
        let claims = format!(r#"{{"aud":"{ORIGIN}","exp":{exp}{more}}}"#);
        let token = owner().sign(HEADER, &claims);
        let answer = stage.authorize(&stage.restricted, &owner().present(&token));
        assert_eq!(answer, accepted(), "{claims}");
    }
}

#[test]
fn time_of_a_token_counts_only_where_the_clock_is_trusted() {
    let times = [0, now_secs() - 70, now_secs() + DAY_SECS + 70, u64::MAX];
    let (trusting, doubting) = (Stage::with_clock("trusted"), Stage::with_clock("untrusted"));
    for exp in times {
        let authorization = owner().authorization(ORIGIN, exp);
        assert_eq!(trusting.authorize(&trusting.open, &authorization).0, 401);
        let answer = doubting.authorize(&doubting.restricted, &authorization);
        assert_eq!(answer, accepted(), "{exp}");
    }
    for exp in [now_secs() - 30, now_secs(), now_secs() + DAY_SECS - 10] {
        let authorization = owner().authorization(ORIGIN, exp);
        assert_eq!(
            trusting.authorize(&trusting.open, &authorization),
            accepted()
        );
    }
    assert_eq!(doubting.gateway.metric("edgepush_wall_clock_trusted"), 0);
}

#[test]
fn all_but_the_time_is_verified_where_the_clock_is_not_trusted() {
    let stage = Stage::with_clock("untrusted");
    let mut refused = 0;
    for (token, message) in refused_tokens() {
        if message == "ExpiredSignature" || message.ends_with("too long") {
            continue;
        }
        let answer = stage.authorize(&stage.open, &owner().present(&token));
        assert_eq!(answer, (401, message.to_owned()), "{token}");
        refused += 1;
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn token_is_made_out_for_the_host_of_the_request_by_either_scheme_or_for_the_public_url() {
    let local = Stage::with_clock("untrusted");
    let public = Stage::with_config(
        "public_url = \"https://Push.Example.org:443/pi\"\n[vapid]\nclock = \"untrusted\"\n",
    );
    for (stage, host, aud, status) in [
        (&local, "pi.local:8090", "http://pi.local:8090", 201),
        (&local, "pi.local:8090", "https://pi.local:8090", 201),
        (&local, "Pi.Local:8090", "http://pi.local:8090", 201),
        (&local, "pi.local:8090", "HTTP://PI.LOCAL:8090", 201),
        (&local, "pi.local", "http://pi.local:80", 201),
        (&local, "pi.local:443", "https://pi.local", 201),
        (&local, "[FD00::0:1]:8090", "http://[fd00::1]:8090", 201),
        (&local, "pi.local:8090", "http://pi.local", 401),
        (&local, "pi.local", "http://pi.local:443", 401),
        (&local, "pi.local", "https://push.example.org", 401),
        (&local, "pi.local:8090", "http://pi.local:8090/", 401),
        (&local, "a/b", "http://a", 401),
        (&public, "pi.local:8090", "https://push.example.org", 201),
        (
            &public,
            "pi.local:8090",
            "https://push.example.org:443",
            201,
        ),
        (&public, "pi.local:8090", "http://pi.local:8090", 201),
        (&public, "push.example.org", "https://push.example.org", 201),
        (&public, "pi.local:8090", "http://push.example.org", 401),
        (&public, "pi.local:8090", "https://push.example.org/pi", 401),
        (&public, "pi.local:8090", "https://example.org", 401),
    ] {
        let authorization = owner().authorization(aud, 0);
        let headers = [("Authorization", authorization.as_str()), ("Host", host)];
        // `register_with` has cut the host off; what is before `/wpush` is the proxy's.
        let endpoint = stage.restricted.trim_start_matches("/pi");
        let answer = stage.post(endpoint, &headers);
        assert_eq!(answer.status, status, "{host} {aud}");
        if status == 401 {
            assert_eq!(answer.json()["message"], "Invalid VAPID audience");
        }
    }
}
