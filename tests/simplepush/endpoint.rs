//! What application servers of the era put to an endpoint, and how each is answered: rules R24 and
//! R25, and the tables of 1.4 and 1.5.

use crate::device::{
    Device, FORM, Online, assert_accepted, assert_is_now, assert_refused, put, unix_secs,
};
use crate::support::{Gateway, Http, channel};

const BAD_VERSION: &str =
    "version: must be a whole number from 0 to 9223372036854775807, without a sign";

/// R24, R25
#[test]
fn update_for_a_device_that_is_here_is_200_and_comes_with_its_version() {
    let mut online = Online::start();
    for (body, version) in [
        ("version=5", 5),
        ("version=0", 0),
        ("version=007", 7),
        ("version=9007199254740993", 9_007_199_254_740_993),
        ("version=9223372036854775807", (1 << 63) - 1),
        ("%76ersion=%31%32", 12),
        ("a=b&version=3&version=4&c", 3),
        ("version=&version=4", 4),
    ] {
        assert_eq!(online.put(body), version, "{body}");
    }
}

/// R25
#[test]
fn version_that_nobody_names_is_the_time_in_seconds() {
    let mut online = Online::start();
    let since = unix_secs();
    for body in ["", "version=", "version", "=", "&", "Version=5", "a=b"] {
        let version = online.put(body);
        assert_is_now(version, since);
    }
    let path = online.endpoint.clone();
    for (content_type, body) in [
        ("text/plain", "version=5"),
        ("application/json", r#"{"version":5}"#),
        ("application/json", "version=-1"),
        ("multipart/form-data; boundary=x", "version=5"),
        ("", "version=5"),
    ] {
        let headers = [("Content-Type", content_type)];
        let answer = online.send("PUT", &path, &headers, body.as_bytes());
        let version = online.accepted(&answer);
        assert_is_now(version, since);
    }
    for content_type in [
        "application/x-www-form-urlencoded",
        "APPLICATION/X-WWW-FORM-URLENCODED; charset=UTF-8",
    ] {
        let headers = [("Content-Type", content_type)];
        let answer = online.send("PUT", &path, &headers, b"version=5");
        assert_eq!(online.accepted(&answer), 5, "{content_type}");
    }
    let answer = online.send("PUT", &path, &[], b"version=6");
    assert_eq!(online.accepted(&answer), 6, "without a Content-Type");
}

/// R25
#[test]
fn version_in_the_query_is_taken_where_the_body_names_none() {
    let mut online = Online::start();
    let path = |query: &str, online: &Online| format!("{}?{query}", online.endpoint);
    for (query, body, version) in [
        ("version=7", "", 7),
        ("version=7", "version=", 7),
        ("version=7", "version=8", 8),
        ("a&version=%39", "x=y", 9),
    ] {
        let answer = online.send("PUT", &path(query, &online), &[FORM], body.as_bytes());
        assert_eq!(online.accepted(&answer), version, "{query} {body}");
    }
    let json = [("Content-Type", "application/json")];
    let answer = online.send("PUT", &path("version=7", &online), &json, b"version=8");
    assert_eq!(online.accepted(&answer), 7);
    for query in ["version=-1", "version=%2B5", "version=1.5"] {
        let answer = online.send("PUT", &path(query, &online), &[], b"");
        assert_refused(&answer, 400, None, BAD_VERSION);
    }
}

/// R24
#[test]
fn version_that_is_none_is_400_whether_the_device_is_here_or_not() {
    let mut online = Online::start();
    let bad = [
        "version=-1",
        "version=abc",
        "version=1.5",
        "version=1e3",
        "version=+5",
        "version=%2B5",
        "version=5%20",
        "version=5\n",
        "version=0x5",
        "version=\u{665}",
        "version=%ff",
        "version=%00",
        "version=\u{1F4A9}",
        "version=9223372036854775808",
        "version=-9223372036854775808",
        "version=99999999999999999999999999999999",
        &format!("version={}", "9".repeat(4000)),
    ];
    for _ in 0..2 {
        for body in bad {
            let answer = put(&online.gateway, &online.endpoint, body);
            assert_refused(&answer, 400, None, BAD_VERSION);
        }
        // The second round is for a device that is away.
        online.device.assert_quiet();
        online.device = Device::newcomer(&online.gateway);
    }
}

/// R24
#[test]
fn data_of_4096_bytes_travels_with_its_version_and_one_byte_more_is_413() {
    let mut online = Online::start();
    let with_data = |data: &str| {
        let channel = channel(1);
        let data = serde_json::to_string(data).unwrap();
        format!(
            r#"{{"messageType":"notification","updates":[{{"channelID":"{channel}","version":1,"data":{data}}}]}}"#
        )
    };
    let longest = "x".repeat(4096);
    let escaped = format!("version=1&data={}", "%41".repeat(4096));
    let capitals = "A".repeat(4096);
    for (body, data) in [
        ("version=1&data=hello", "hello"),
        ("data=a%20b+c%26%3D%25&version=1", "a b c&=%"),
        ("version=1&data=%F0%9F%92%A9%22%5C%00", "\u{1F4A9}\"\\\0"),
        ("version=1&data=100%", "100%"),
        (&format!("version=1&data={longest}"), &longest),
        (&escaped, &capitals),
    ] {
        assert_accepted(&put(&online.gateway, &online.endpoint, body), 200);
        assert_eq!(online.device.hear(), with_data(data));
        online.device.ack(&channel(1), 1);
    }
    assert_eq!(online.put("version=1&data="), 1, "no data, no field");

    let too_large = "Data exceeds max length of 4096 bytes";
    for body in [
        format!("version=1&data={longest}x"),
        format!("{escaped}A"),
        format!("version=1&data={}", "\u{e9}".repeat(2049)),
        // Beyond what any form may hold: not read to its end.
        format!("version=1&data={}", "%41".repeat(4500)),
        "x".repeat(1 << 20),
    ] {
        let answer = put(&online.gateway, &online.endpoint, &body);
        assert_refused(&answer, 413, Some(104), too_large);
    }
    let not_text = put(&online.gateway, &online.endpoint, "version=1&data=%ff%fe");
    assert_refused(&not_text, 400, None, "data: must be UTF-8 text");
    online.device.assert_quiet();
}

/// R24
#[test]
fn update_for_a_device_that_is_away_is_202_or_what_the_configuration_says() {
    for (config, status) in [
        ("", 202),
        ("[simplepush]\noffline_status = 202\n", 202),
        ("[simplepush]\noffline_status = 200\n", 200),
    ] {
        let gateway = Gateway::with_config(config);
        let mut device = Device::newcomer(&gateway);
        let endpoint = device.register(&channel(1));
        let uaid = device.uaid.clone();
        drop(device);
        gateway.wait_for_metric("edgepush_websockets_open", 0);
        assert_accepted(&put(&gateway, &endpoint, "version=5&data=x"), status);
        let mut device = Device::returning(&gateway, &uaid);
        let channel = channel(1);
        let expected = format!(
            r#"{{"messageType":"notification","updates":[{{"channelID":"{channel}","version":5,"data":"x"}}]}}"#
        );
        assert_eq!(device.hear(), expected, "data is kept with its version");
        device.ack(&channel, 5);
        device.settle();
        assert_accepted(&put(&gateway, &endpoint, "version=6"), 200);
    }
}

/// R24: DESIGN.md, promise 4.
#[test]
fn update_for_a_full_queue_is_429_unless_it_takes_the_place_of_another() {
    let gateway = Gateway::with_config("[limits]\nmessages_per_user_agent_max = 2\n");
    let mut device = Device::newcomer(&gateway);
    let endpoints: Vec<String> = (0..3).map(|n| device.register(&channel(n))).collect();
    let uaid = device.uaid.clone();
    drop(device);
    gateway.wait_for_metric("edgepush_websockets_open", 0);
    for endpoint in [&endpoints[0], &endpoints[1], &endpoints[0], &endpoints[1]] {
        assert_accepted(&put(&gateway, endpoint, "version=5"), 202);
    }
    let answer = put(&gateway, &endpoints[2], "version=5");
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("retry-after"), Some("300"));
    let mut device = Device::returning(&gateway, &uaid);
    let both = crate::device::updates(&[(&channel(0), 5), (&channel(1), 5)]);
    assert_eq!(device.hear(), both);
}

/// R24
#[test]
fn token_that_is_not_ours_is_404_and_a_channel_that_has_ended_410() {
    let mut online = Online::start();
    let endpoint = online.endpoint.clone();
    let (head, last) = endpoint.split_at(endpoint.len() - 1);
    let changed = format!("{head}{}", if last == "A" { "B" } else { "A" });
    let bad_token = "Invalid endpoint: its token was not made by this push service";
    let shorter = head.to_owned();
    for path in [
        changed,
        shorter,
        "/update/".to_owned(),
        "/update/x".to_owned(),
        "/update/0207da37-1a37-408c-b2f7-d2b9be76bcdc.x".to_owned(),
        format!("/update/{}", "x".repeat(2000)),
        format!("{endpoint}%3D"),
        "/update/%00%ff".to_owned(),
    ] {
        let answer = online.send("PUT", &path, &[FORM], b"version=5");
        assert_refused(&answer, 404, Some(102), bad_token);
    }
    for path in ["/update", "/update/x/y", "/spush/v2/x", "/"] {
        let answer = online.send("PUT", path, &[FORM], b"version=5");
        let expected = if path == "/" { 426 } else { 404 };
        assert_eq!(answer.status, expected, "{path}");
    }

    let gone = online.device.register(&channel(2));
    online.device.say(&crate::device::unregister(&channel(2)));
    online.device.hear();
    for body in ["version=5", "version=-1", ""] {
        let answer = put(&online.gateway, &gone, body);
        assert_refused(&answer, 410, Some(106), "No such subscription");
        assert_eq!(answer.header("cache-control"), Some("max-age=86400"));
    }
    drop(online.device);
    online
        .gateway
        .wait_for_metric("edgepush_websockets_open", 0);
    for body in ["version=5", "version=-1", ""] {
        let answer = put(&online.gateway, &gone, body);
        assert_refused(&answer, 410, Some(106), "No such subscription");
    }
    assert_accepted(&put(&online.gateway, &endpoint, "version=5"), 202);
}

/// R24
#[test]
fn other_methods_are_405_and_a_web_page_is_told_what_it_may_do() {
    let online = Online::start();
    for method in ["GET", "HEAD", "DELETE", "PATCH", "TRACE", "FOO"] {
        for path in [&online.endpoint, "/update/x"] {
            let answer = online.send(method, path, &[], b"");
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), Some("POST, PUT"));
            assert_eq!(answer.body, b"");
        }
    }
    let origin = ("Origin", "https://example.org");
    let asked = [origin, ("Access-Control-Request-Method", "PUT")];
    let answer = online.send("OPTIONS", &online.endpoint, &asked, b"");
    assert_eq!(answer.status, 200);
    let allowed = answer.header("access-control-allow-methods").unwrap();
    assert!(allowed.split(", ").any(|method| method == "PUT"));
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://example.org"));
    let answer = online.send("PUT", &online.endpoint, &[origin], b"version=1");
    assert_accepted(&answer, 200);
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://example.org"));
}

/// 1.4
#[test]
fn endpoint_answers_under_autopushs_path_as_well_and_needs_no_padding() {
    let mut online = Online::start();
    let token = online.endpoint.rsplit('/').next().unwrap().to_owned();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    assert!(token.bytes().all(plain), "{token}");
    for (version, path) in [
        format!("/spush/v1/{token}"),
        format!("/spush/{token}"),
        format!("/wpush/v1/{token}"),
        format!("/update/{token}="),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!("version={version}");
        let answer = online.send("PUT", &path, &[FORM], body.as_bytes());
        assert_eq!(online.accepted(&answer), version as u64, "{path}");
    }
}

/// R24, R25: in one piece, in chunks, over HTTP/1.0, and without any length.
#[test]
fn body_may_come_in_chunks_and_over_http_1_0() {
    let mut online = Online::start();
    let path = online.endpoint.clone();
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (request, version) in [
        (
            format!(
                "PUT {path} HTTP/1.1\r\nHost: h\r\n{form}Transfer-Encoding: chunked\r\n\r\n\
                 4\r\nvers\r\n6\r\nion=41\r\n0\r\n\r\n"
            ),
            41,
        ),
        (
            format!("PUT {path} HTTP/1.0\r\n{form}Content-Length: 10\r\n\r\nversion=42"),
            42,
        ),
        (format!("PUT {path}?version=43 HTTP/1.0\r\n\r\n"), 43),
        (
            format!("PUT {path}?version=44 HTTP/1.1\r\nHost: h\r\n\r\n"),
            44,
        ),
    ] {
        let mut http = Http::connect(online.gateway.push);
        http.send_raw(request.as_bytes());
        let answer = http.receive();
        assert_eq!(online.accepted(&answer), version);
    }
}
