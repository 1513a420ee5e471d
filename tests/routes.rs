//! Everything on the push port that is neither a websocket nor a push message: monitoring, methods,
//! cross-origin rules, and what is not there (PROTOCOL.md part 3, 4.1, 4.10, 4.13).

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

mod support;

use edgepush::storage::FILE_NAME;
use serde_json::json;
use support::{Answer, Gateway, Http, UserAgent, channel, path_of};

const VARY: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

fn send(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    Http::connect(gateway.push).send(method, path, headers, b"")
}

/// Every route, and the methods that it takes.
fn routes(gateway: &Gateway) -> Vec<(String, &'static str)> {
    let mut agent = UserAgent::hello(gateway, None);
    let open = agent.register(&channel(1));
    let token = open.rsplit_once('/').unwrap().1.to_owned();
    let registration = "/v1/webpush/app/registration";
    vec![
        (open, "GET, HEAD, POST, PUT"),
        (format!("/wpush/{token}"), "GET, HEAD, POST, PUT"),
        (format!("/wpush/v2/{token}"), "GET, HEAD, POST, PUT"),
        (format!("/update/{token}"), "POST, PUT"),
        (format!("/spush/v1/{token}"), "POST, PUT"),
        ("/m/x".to_owned(), "DELETE"),
        (registration.to_owned(), "POST"),
        (format!("{registration}/u"), "GET, HEAD, PUT, DELETE"),
        (format!("{registration}/u/subscription"), "POST"),
        (format!("{registration}/u/subscription/c"), "DELETE"),
        ("/status".to_owned(), "GET, HEAD"),
        ("/health".to_owned(), "GET, HEAD"),
        ("/__heartbeat__".to_owned(), "GET, HEAD"),
        ("/__lbheartbeat__".to_owned(), "GET, HEAD"),
        ("/__version__".to_owned(), "GET, HEAD"),
        ("/_matrix/push/v1/notify".to_owned(), "GET, HEAD, POST"),
    ]
}

#[test]
fn other_methods_are_405_with_those_that_are_allowed() {
    let gateway = Gateway::with_config("[unifiedpush]\nmatrix = true\n");
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "BREW"];
    let mut refused = 0;
    for (path, allowed) in routes(&gateway) {
        let taken: Vec<&str> = allowed.split(", ").collect();
        for method in methods.iter().filter(|method| !taken.contains(method)) {
            let answer = send(&gateway, method, &path, &[]);
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
            assert_eq!(answer.header("vary"), Some(VARY));
            assert!(answer.body.is_empty());
            refused += 1;
        }
        for method in taken {
            let answer = send(&gateway, method, &path, &[]);
            assert_ne!(answer.status, 405, "{method} {path}");
        }
    }
    assert!(refused > 60, "{refused}");
}

#[test]
fn whoever_asks_for_the_methods_gets_them_and_a_preflight_gets_what_it_asks_for() {
    let gateway = Gateway::with_config("[unifiedpush]\nmatrix = true\n");
    let origin = ("Origin", "https://example.org");
    for (path, allowed) in routes(&gateway) {
        let answer = send(&gateway, "OPTIONS", &path, &[origin]);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("allow"), Some(allowed), "{path}");
        assert_eq!(answer.header("access-control-allow-methods"), None);
        let origins = answer.header("access-control-allow-origin");
        assert_eq!(origins, Some("https://example.org"));
    }
    assert_eq!(send(&gateway, "OPTIONS", "/nothing", &[]).status, 404);

    let asked = [
        origin,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "ttl,content-encoding"),
    ];
    for path in ["/wpush/v1/x", "/m/x", "/nothing", "/"] {
        let preflight = send(&gateway, "OPTIONS", path, &asked);
        assert_eq!(preflight.status, 200);
        assert!(preflight.body.is_empty());
        for (name, value) in [
            ("access-control-allow-origin", "https://example.org"),
            ("access-control-allow-methods", "POST, DELETE, PUT, GET"),
            ("access-control-allow-headers", "ttl,content-encoding"),
            ("access-control-max-age", "3600"),
            ("vary", VARY),
        ] {
            assert_eq!(preflight.header(name), Some(value), "{path} {name}");
        }
    }
    let bare = send(&gateway, "OPTIONS", "/wpush/v1/x", &asked[1..2]);
    assert_eq!(bare.status, 200);
    assert_eq!(bare.header("access-control-allow-origin"), None);
    assert_eq!(bare.header("access-control-allow-headers"), None);
}

#[test]
fn web_page_on_another_origin_may_read_every_answer() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    let open = agent.register(&channel(1));
    let origin = ("Origin", "https://example.org");
    let accepted = send(&gateway, "POST", &open, &[origin, ("TTL", "0")]);
    assert_eq!(accepted.status, 201);
    let location = path_of(accepted.header("location").unwrap());
    let too_large = Http::connect(gateway.push).send("POST", &open, &[origin], &[1; 5631]);
    let answers = [
        (accepted, 201),
        (send(&gateway, "POST", &open, &[origin]), 400),
        (send(&gateway, "POST", "/wpush/v1/x", &[origin]), 404),
        (too_large, 413),
        (send(&gateway, "PATCH", &open, &[origin]), 405),
        (send(&gateway, "DELETE", &location, &[origin]), 204),
        (send(&gateway, "GET", "/status", &[origin]), 200),
        (send(&gateway, "GET", "/", &[origin]), 426),
        (send(&gateway, "GET", "/nothing", &[origin]), 404),
    ];
    for (answer, status) in answers {
        assert_eq!(answer.status, status);
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://example.org"), "{status}");
        let exposed = answer.header("access-control-expose-headers");
        assert_eq!(exposed, Some("Location, TTL, Retry-After"), "{status}");
        assert_eq!(answer.header("vary"), Some(VARY), "{status}");
    }
    let without = send(&gateway, "POST", &open, &[("TTL", "0")]);
    assert_eq!(without.header("vary"), Some(VARY));
    assert_eq!(without.header("access-control-allow-origin"), None);
}

#[test]
fn monitoring_says_that_it_is_well_and_nothing_more() {
    let gateway = Gateway::start();
    let heartbeat = json!({
        "status": "OK",
        "version": "edgepush",
        "router_table": {"status": "OK"},
        "message_table": {"status": "OK"},
        "routers": {"apns": false, "fcm": false},
    });
    for (path, body) in [
        ("/status", json!({"status": "OK", "version": "edgepush"})),
        ("/health", heartbeat.clone()),
        ("/__heartbeat__", heartbeat),
        (
            "/__version__",
            json!({"build": "", "commit": "", "source": "", "version": "edgepush"}),
        ),
    ] {
        let answer = send(&gateway, "GET", path, &[]);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json(), body, "{path}");
        let length = answer.body.len().to_string();
        let head = send(&gateway, "HEAD", path, &[]);
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(head.header("content-length"), Some(length.as_str()));
    }
    let balancer = send(&gateway, "GET", "/__lbheartbeat__", &[]);
    assert_eq!((balancer.status, balancer.body.len()), (200, 0));
    let version = env!("CARGO_PKG_VERSION");
    for path in ["/status", "/health", "/__version__"] {
        let body = send(&gateway, "GET", path, &[]).body;
        assert!(!String::from_utf8(body).unwrap().contains(version));
    }
}

#[test]
fn storage_that_cannot_write_is_seen_by_whoever_monitors_until_it_can() {
    let gateway = Gateway::start();
    let mut agent = UserAgent::hello(&gateway, None);
    agent.register(&channel(1));
    let heartbeat = || {
        let answer = send(&gateway, "GET", "/__heartbeat__", &[]);
        (answer.status, answer.json()["status"].clone())
    };
    let status = || {
        let answer = send(&gateway, "GET", "/status", &[]);
        (answer.status, answer.json())
    };
    assert_eq!(heartbeat(), (200, json!("OK")));

    // Somebody else has the database to himself.
    let other = rusqlite::Connection::open(gateway.data.join(FILE_NAME)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let register = |number| json!({"messageType": "register", "channelID": channel(number)});
    agent.send(&register(2));
    assert_eq!(agent.receive()["status"], 500);
    assert_eq!(heartbeat(), (503, json!("ERROR")));
    let ill = json!({"status": "ERROR", "version": "edgepush", "error": "storage"});
    assert_eq!(status(), (200, ill));
    let balancer = send(&gateway, "GET", "/__lbheartbeat__", &[]);
    assert_eq!(balancer.status, 200, "it is there all the same");

    other.execute_batch("ROLLBACK").unwrap();
    agent.send(&register(2));
    assert_eq!(agent.receive()["status"], 200);
    assert_eq!(heartbeat(), (200, json!("OK")));
    assert_eq!(status().1["status"], "OK");
}

#[test]
fn path_where_nothing_is_served_is_404_with_a_reason() {
    let gateway = Gateway::start();
    for path in [
        "/nothing",
        "/status/",
        "/Status",
        "/__error__",
        "/v1/err",
        "/v1/err/crit",
        "/metrics",
        "/push/0207da371a37408cb2f7000000000001",
        "/notif/0207da371a37408cb2f7000000000001",
        "/wpush",
        "/wpush/v1/x/",
        "/wpush/v3/x",
        "/v1/webpush/app",
        "/_matrix/push/v1/notify",
    ] {
        for method in ["GET", "POST"] {
            let answer = send(&gateway, method, path, &[]);
            assert_eq!(answer.status, 404, "{method} {path}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let body = answer.json();
            assert_eq!((&body["code"], &body["errno"]), (&json!(404), &json!(102)));
            assert_eq!(body["message"], "Nothing is served at this path");
        }
        assert_eq!(send(&gateway, "HEAD", path, &[]).status, 404, "{path}");
    }
}

#[test]
fn browser_that_opens_the_push_port_reads_what_it_is() {
    let gateway = Gateway::start();
    let answer = send(&gateway, "GET", "/", &[]);
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    let body = String::from_utf8(answer.body).unwrap();
    assert!(body.contains("edgepush push service"));
}
