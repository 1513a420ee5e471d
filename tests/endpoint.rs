//! What an application server may send to an endpoint, and how everything else is answered
//! (PROTOCOL.md part 3, 4.10 and 4.11).

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use support::signer::Signer;
use support::{Gateway, Http, UserAgent, channel, path_of};

/// A user agent that is away, and its two endpoints: open, and restricted to the first [`Signer`].
struct Away {
    gateway: Gateway,
    open: String,
    restricted: String,
}

impl Away {
    fn start() -> Self {
        // What a token says of time is a matter of tests/vapid.rs.
        let gateway = Gateway::with_config("[vapid]\nclock = \"untrusted\"\n");
        let mut agent = UserAgent::hello(&gateway, None);
        let (open, restricted) = agent.register_two();
        Self {
            gateway,
            open,
            restricted,
        }
    }

    fn http(&self) -> Http {
        Http::connect(self.gateway.push)
    }
}

#[test]
fn each_refusal_has_the_main_services_status_number_and_words() {
    let away = Away::start();
    let gcm = ("Content-Encoding", "aes128gcm");
    let ttl = ("TTL", "60");
    for (headers, status, errno, message) in [
        (vec![gcm], 400, json!(111), "Missing TTL value"),
        (
            vec![gcm, ("TTL", "abc")],
            400,
            json!(112),
            "ttl: TTL must be a whole number of seconds",
        ),
        (
            vec![gcm, ("TTL", "-1")],
            400,
            json!(114),
            "ttl: TTL must be greater than 0",
        ),
        (
            vec![ttl],
            400,
            json!(110),
            "Missing Content-Encoding header",
        ),
        (
            vec![ttl, ("Content-Encoding", "gzip")],
            400,
            json!(110),
            "Unknown Content-Encoding header",
        ),
        (
            vec![ttl, gcm, ("Topic", "a b")],
            400,
            json!(113),
            "topic: Topic must be URL and Filename safe Base64 alphabet",
        ),
        (
            vec![ttl, gcm, ("Topic", "")],
            400,
            json!(113),
            "topic: Topic must be URL and Filename safe Base64 alphabet",
        ),
        (
            vec![ttl, gcm, ("Topic", "a23456789-123456789-123456789-123")],
            400,
            json!(113),
            "topic: Topic must be no greater than 32 characters",
        ),
        (
            vec![ttl, gcm, ("Topic", "a 3456789-123456789-123456789-123")],
            400,
            json!(113),
            "topic: Topic must be no greater than 32 characters\n\
             topic: Topic must be URL and Filename safe Base64 alphabet",
        ),
        (
            vec![ttl, gcm, ("Urgency", "soon")],
            400,
            json!(null),
            "urgency: Urgency must be one of very-low, low, normal, high",
        ),
        (
            vec![ttl, gcm, ("Urgency", "low"), ("Urgency", "high")],
            400,
            json!(null),
            "urgency: Urgency must be one of very-low, low, normal, high",
        ),
        (
            vec![ttl, gcm, ("Authorization", "Basic abc")],
            401,
            json!(109),
            "Unknown auth scheme",
        ),
        (
            vec![ttl, gcm, ("Authorization", "vapid k=abc")],
            401,
            json!(109),
            "Missing VAPID token",
        ),
    ] {
        let answer = away.http().send("POST", &away.open, &headers, b"x");
        assert_eq!(answer.status, status, "{headers:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body = answer.json();
        assert_eq!(body["code"], status, "{headers:?}");
        assert_eq!(body["errno"], errno, "{headers:?}");
        assert_eq!(body["message"], message, "{headers:?}");
    }
}

/// `Content-Encoding`, `Encryption`, `Crypto-Key`, and what is said of them.
const BAD_ENCRYPTION: [(&str, Option<&str>, Option<&str>, &str); 17] = [
    ("aesgcm128", None, None, "Unknown Content-Encoding header"),
    ("AES128GCM", None, None, "Unknown Content-Encoding header"),
    ("", None, None, "Unknown Content-Encoding header"),
    ("aesgcm", None, None, "Missing Encryption header"),
    ("aesgcm", Some("salt"), None, "Invalid Encryption header"),
    (
        "aesgcm",
        Some("salt=a;b"),
        None,
        "Invalid Encryption header",
    ),
    ("aesgcm", Some("salt="), None, "Invalid Encryption header"),
    (
        "aesgcm",
        Some("keyid=a"),
        None,
        "Missing salt value in Encryption header",
    ),
    (
        "aesgcm",
        Some("salt=a+b"),
        None,
        "Invalid salt value in Encryption header",
    ),
    (
        "aesgcm",
        Some("salt=a"),
        Some("dh"),
        "Invalid Crypto-Key header",
    ),
    (
        "aesgcm",
        Some("salt=a"),
        Some("x=y"),
        "Missing dh value in Crypto-Key header",
    ),
    (
        "aesgcm",
        Some("salt=a"),
        Some("dh=a/b"),
        "Invalid dh value in Crypto-Key header",
    ),
    (
        "aes128gcm",
        Some("salt=a"),
        None,
        "Do not include 'salt' header in aes128gcm Encryption header",
    ),
    (
        "aes128gcm",
        None,
        Some("dh=a"),
        "Do not include 'dh' header in aes128gcm Crypto-Key header",
    ),
    (
        "aes128gcm",
        Some("keyid=p256dh;salt=a"),
        Some("dh=a"),
        "Do not include 'salt' header in aes128gcm Encryption header",
    ),
    (
        "aes128gcm",
        Some("x"),
        None,
        "Invalid aes128gcm Encryption header",
    ),
    (
        "aes128gcm",
        None,
        Some("x"),
        "Invalid aes128gcm Crypto-Key header",
    ),
];

#[test]
fn each_fault_of_the_encryption_headers_has_its_own_words_and_none_matters_without_a_body() {
    let away = Away::start();
    for (encoding, encryption, crypto_key, message) in BAD_ENCRYPTION {
        let mut headers = vec![("TTL", "60"), ("Content-Encoding", encoding)];
        headers.extend(encryption.map(|value| ("Encryption", value)));
        headers.extend(crypto_key.map(|value| ("Crypto-Key", value)));
        let answer = away.http().send("POST", &away.open, &headers, b"x");
        assert_eq!(answer.status, 400, "{headers:?}");
        let expected = json!({
            "code": 400, "errno": 110, "error": "Bad Request", "message": message,
            "more_info": "http://autopush.readthedocs.io/en/latest/http.html#error-codes",
        });
        assert_eq!(answer.json(), expected, "{headers:?}");
        let empty = away.http().send("POST", &away.open, &headers, b"");
        assert_eq!(empty.status, 201, "{headers:?}");
    }
}

#[test]
fn what_is_forwarded_is_the_body_and_the_headers_without_quotes_and_padding() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let endpoint = agent.register(&channel(1));
    let every_byte: Vec<u8> = (0..=255).collect();
    for (headers, body, forwarded) in [
        (
            vec![("Content-Encoding", "aes128gcm")],
            &every_byte[..],
            json!({"encoding": "aes128gcm"}),
        ),
        (
            vec![
                ("Content-Encoding", "aes128gcm"),
                ("Encryption", "rs=4096"),
                ("Crypto-Key", "p256ecdsa=\"BDd3_hVL==\""),
            ],
            b"x",
            json!({"encoding": "aes128gcm", "encryption": "rs=4096", "crypto_key": "p256ecdsa=BDd3_hVL"}),
        ),
        (
            vec![
                ("Content-Encoding", "aesgcm"),
                (
                    "Encryption",
                    "keyid=\"p256dh\"; salt=\"S82AseB7pAVBJ2143qtM3A==\"",
                ),
            ],
            b"x",
            json!({"encoding": "aesgcm", "encryption": "keyid=p256dh; salt=S82AseB7pAVBJ2143qtM3A"}),
        ),
        (
            // In one header or in two: the same.
            vec![
                ("Content-Encoding", "aesgcm"),
                ("Encryption", "salt=a"),
                ("Crypto-Key", "keyid=p256dh;dh=BDd3="),
                ("Crypto-Key", "p256ecdsa=abc"),
            ],
            b"x",
            json!({"encoding": "aesgcm", "encryption": "salt=a", "crypto_key": "keyid=p256dh;dh=BDd3, p256ecdsa=abc"}),
        ),
        (
            vec![
                ("Content-Encoding", "aesgcm"),
                ("Encryption", "salt=a"),
                ("Topic", "t"),
                ("Urgency", "low"),
            ],
            b"",
            json!(null),
        ),
    ] {
        let mut all = vec![("TTL", "0"), ("Content-Type", "text/plain")];
        all.extend_from_slice(&headers);
        let answer = Http::connect(gateway.push).send("POST", &endpoint, &all, body);
        assert_eq!(answer.status, 201, "{headers:?}");
        let version = answer
            .header("location")
            .unwrap()
            .rsplit_once('/')
            .unwrap()
            .1;
        let mut expected = json!({
            "messageType": "notification", "channelID": channel(1), "version": version,
        });
        if !body.is_empty() {
            expected["data"] = BASE64URL_NOPAD.encode(body).into();
            expected["headers"] = forwarded;
        }
        assert_eq!(agent.receive(), expected);
    }
}

#[test]
fn topic_of_every_allowed_form_is_taken() {
    let away = Away::start();
    for topic in [
        "a",
        "ab=",
        "ab==",
        "A-_9",
        "a23456789-123456789-123456789-12",
    ] {
        let headers = [("TTL", "60"), ("Topic", topic)];
        let answer = away.http().send("POST", &away.open, &headers, b"");
        assert_eq!(answer.status, 201, "{topic}");
    }
}

#[test]
fn subscription_that_is_gone_is_410_before_anything_is_said_of_the_message() {
    let away = Away::start();
    let mut agent = UserAgent::hello(&away.gateway, None);
    let ended = agent.register(&channel(1));
    let online = away.http().send("POST", &ended, &[("TTL", "0")], b"");
    assert_eq!(online.status, 201);
    assert_eq!(agent.receive()["messageType"], "notification");
    agent.unregister(&channel(1));
    // Its user agent here, and away: the answer is the same.
    for _ in 0..2 {
        let answer = away.http().send("POST", &ended, &[], b"x");
        assert_eq!(answer.status, 410);
        assert_eq!(answer.json()["errno"], 106);
        assert_eq!(answer.header("cache-control"), Some("max-age=86400"));
        drop(std::mem::replace(
            &mut agent,
            UserAgent::hello(&away.gateway, None),
        ));
    }
}

#[test]
fn endpoint_that_is_not_ours_is_404_with_a_reason() {
    let away = Away::start();
    let swapped = away.open.replace("/v1/", "/v2/");
    let (head, last) = away.open.split_at(away.open.len() - 1);
    let changed = format!("{head}{}", if last == "A" { "B" } else { "A" });
    let garbage = "/wpush/v1/garbage".to_owned();
    for path in [
        swapped,
        changed,
        garbage,
        format!("{}/", away.open),
        "/wpush/v3/x".to_owned(),
    ] {
        let answer = away.http().send("POST", &path, &[("TTL", "0")], b"");
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["errno"], 102, "{path}");
    }
    let short = away.open.replace("/wpush/v1/", "/wpush/");
    assert_eq!(
        away.http()
            .send("POST", &short, &[("TTL", "0")], b"")
            .status,
        201
    );
}

#[test]
fn restricted_subscription_takes_messages_of_its_own_key_only() {
    let away = Away::start();
    let with = |authorization: String| {
        let headers = [("TTL", "0"), ("Authorization", authorization.as_str())];
        let answer = away.http().send("POST", &away.restricted, &headers, b"");
        (answer.status, answer.body)
    };
    let (owner, other) = (Signer::new(1), Signer::new(2));
    assert_eq!(with(owner.authorization("http://localhost", 0)).0, 201);
    let (status, body) = with(other.authorization("http://localhost", 0));
    assert_eq!(status, 401);
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("VAPID public key mismatch")
    );

    let answer = away
        .http()
        .send("POST", &away.restricted, &[("TTL", "0")], b"");
    assert_eq!(answer.status, 401);
    assert_eq!(answer.json()["message"], "Missing VAPID public key");

    let draft = [
        ("TTL", "0"),
        (
            "Authorization",
            &format!("WebPush {}", owner.token("http://localhost", 0)),
        ),
        ("Crypto-Key", &format!("p256ecdsa={}", owner.public_key())),
    ];
    assert_eq!(
        away.http()
            .send("POST", &away.restricted, &draft, b"")
            .status,
        201
    );
}

#[test]
fn accepted_message_has_a_location_and_the_ttl_that_it_gets() {
    let away = Away::start();
    for (asked, given) in [
        ("0", "0"),
        ("60", "60"),
        ("+5", "5"),
        ("9999999", "2592000"),
    ] {
        let answer = away.http().send("POST", &away.open, &[("TTL", asked)], b"");
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("ttl"), Some(given));
        assert!(answer.body.is_empty());
        let location = answer.header("location").unwrap();
        assert!(location.starts_with("http://localhost/m/"), "{location}");
        let deleted = away.http().send("DELETE", &path_of(location), &[], b"");
        assert_eq!(deleted.status, 204);
    }
    let garbage = away.http().send("DELETE", "/m/garbage", &[], b"");
    assert_eq!(garbage.status, 400);
    assert_eq!(garbage.json()["errno"], json!(null));
    assert_eq!(garbage.json()["message"], "Invalid message ID");
}

#[test]
fn body_is_taken_to_its_limit_in_one_piece_or_in_chunks() {
    let away = Away::start();
    let headers = [("TTL", "60"), ("Content-Encoding", "aes128gcm")];
    let at_limit = away.http().send("POST", &away.open, &headers, &[1; 5630]);
    assert_eq!(at_limit.status, 201);
    for length in [5631, 1 << 20] {
        let past = away
            .http()
            .send("POST", &away.open, &headers, &vec![1; length]);
        assert_eq!(past.status, 413);
        assert_eq!(past.json()["errno"], 104);
        assert_eq!(past.header("connection"), Some("close"));
    }

    let chunked = |chunks: &str| {
        let mut http = away.http();
        let open = &away.open;
        http.send_raw(format!("POST {open} HTTP/1.1\r\nHost: h\r\nTTL: 60\r\nContent-Encoding: aes128gcm\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}").as_bytes());
        http.receive().status
    };
    assert_eq!(chunked("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), 201);
    let too_long = format!("15ff\r\n{}\r\n0\r\n\r\n", "x".repeat(0x15ff));
    assert_eq!(chunked(&too_long), 413);
}

#[test]
fn connection_is_kept_for_the_next_request_and_body_asked_for() {
    let away = Away::start();
    let mut http = away.http();
    for _ in 0..3 {
        assert_eq!(
            http.send("POST", &away.open, &[("TTL", "0")], b"").status,
            201
        );
    }
    let open = &away.open;
    let expect = format!(
        "POST {open} HTTP/1.1\r\nHost: h\r\nTTL: 60\r\nContent-Encoding: aes128gcm\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    );
    http.send_raw(expect.as_bytes());
    assert_eq!(http.receive().status, 100);
    http.send_raw(b"x");
    assert_eq!(http.receive().status, 201);
}

#[test]
fn request_that_two_servers_could_read_differently_is_refused_or_ends_the_connection() {
    let away = Away::start();
    for (head, statuses) in [
        ("Content-Length: 4\r\nContent-Length: 5\r\n", vec![400]),
        ("Content-Length: +4\r\n", vec![400]),
        ("Transfer-Encoding: chunked, identity\r\n", vec![400]),
        (
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            vec![400, 404],
        ),
        ("Bad Header: x\r\n", vec![400]),
    ] {
        let mut http = away.http();
        let request = format!(
            "POST /wpush/v1/x HTTP/1.1\r\nHost: h\r\n{head}\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"
        );
        http.send_raw(request.as_bytes());
        assert!(statuses.contains(&http.receive().status), "{head}");
        assert!(
            http.is_closed(),
            "nothing after it is read as a request: {head}"
        );
    }
}

#[test]
fn half_a_request_ends_in_time_and_holds_up_nobody() {
    let away = {
        let mut away = Away::start();
        away.gateway
            .restart_with("[limits]\nrequest_timeout_secs = 1\n");
        away
    };
    let mut half_head = away.http();
    half_head.send_raw(b"POST /wpush/v1/x HTTP/1.1\r\nHo");
    let mut half_body = away.http();
    let open = &away.open;
    half_body.send_raw(
        format!("POST {open} HTTP/1.1\r\nHost: h\r\nTTL: 60\r\nContent-Length: 10\r\n\r\nabc")
            .as_bytes(),
    );

    assert_eq!(
        away.http().send("POST", open, &[("TTL", "0")], b"").status,
        201
    );
    let answer = half_body.receive();
    assert_eq!(answer.status, 408);
    assert!(half_body.is_closed());
    assert!(half_head.is_closed());
}
