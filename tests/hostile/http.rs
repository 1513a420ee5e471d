//! HTTP: too slow, too much, or none.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::attacked;
use super::network::connection;
use super::support::{Http, PATIENCE, UserAgent, channel, handshake};

const QUICK: &str = "[limits]\nrequest_timeout_secs = 1\n";

/// What is left to read until the gateway closes; it must.
fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        // It did not want to read what we still sent.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("neither an answer nor an end: {error}"),
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Sends a byte now and then until the gateway has had enough.
fn drip(mut stream: TcpStream, byte: u8) {
    let start = Instant::now();
    while stream.write_all(&[byte]).is_ok() {
        assert!(start.elapsed() < PATIENCE, "dripping for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn silent_connections_and_slow_heads_end_in_time() {
    let test = "http::silent_connections_and_slow_heads_end_in_time";
    attacked(test, QUICK, |gateway, neighbour, network| {
        let mut silent = connection(network.attacker, gateway.push);
        let mut slow = Vec::new();
        for _ in 0..20 {
            let mut stream = connection(network.attacker, gateway.push);
            stream.write_all(b"POST / HTTP/1.1\r\nX-Slow: ").unwrap();
            slow.push(std::thread::spawn(move || drip(stream, b'x')));
        }
        neighbour.is_served();
        for slow in slow {
            slow.join().unwrap();
        }
        assert_eq!(rest(&mut silent), "");
        gateway.wait_for_metric("edgepush_requests_timed_out_total", 21);
    });
}

#[test]
fn connection_that_is_kept_for_nothing_ends_in_time_and_is_no_fault() {
    let test = "http::connection_that_is_kept_for_nothing_ends_in_time_and_is_no_fault";
    attacked(test, QUICK, |gateway, _, network| {
        let mut http = Http::over(connection(network.attacker, gateway.push));
        assert_eq!(http.send("GET", "/health", &[], b"").status, 200);
        assert!(http.is_closed());
        assert_eq!(gateway.metric("edgepush_requests_timed_out_total"), 0);
    });
}

#[test]
fn slow_body_is_408_in_time() {
    attacked(
        "http::slow_body_is_408_in_time",
        QUICK,
        |gateway, neighbour, network| {
            let mut slow = connection(network.attacker, gateway.push);
            let endpoint = &neighbour.endpoint;
            let head =
                format!("POST {endpoint} HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n");
            slow.write_all(head.as_bytes()).unwrap();
            let dripping = slow.try_clone().unwrap();
            let dripping = std::thread::spawn(move || drip(dripping, b'x'));
            neighbour.is_served();
            let said = rest(&mut slow);
            assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
            dripping.join().unwrap();
            gateway.wait_for_metric("edgepush_requests_timed_out_total", 1);
        },
    );
}

#[test]
fn peer_that_asks_and_asks_and_reads_no_answer_is_let_go_of_with_a_bounded_number_of_answers() {
    let test = "http::peer_that_asks_and_asks_and_reads_no_answer_is_let_go_of_with_a_bounded_number_of_answers";
    let config = "[limits]\nwrite_timeout_secs = 2\n";
    attacked(test, config, |gateway, neighbour, network| {
        let mut deaf = connection(network.attacker, gateway.push);
        deaf.set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let request = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n";
        let many = request.repeat(100);
        let mut sent = 0;
        let start = Instant::now();
        // Until neither side of the connection takes any more.
        let mut full = 0;
        while full < 3 {
            assert!(start.elapsed() < PATIENCE, "it takes {sent} bytes and more");
            match deaf.write(&many) {
                Ok(written) => {
                    sent += written;
                    full = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => full += 1,
                Err(_) => break,
            }
        }
        neighbour.is_served();
        // What both systems buffer, and no more than that again in the gateway.
        assert!(sent < 8 << 20, "{sent} bytes");
        gateway.wait_for_metric("edgepush_writes_timed_out_total", 1);
    });
}

#[test]
fn peer_that_goes_on_sending_what_nobody_wants_is_cut_off() {
    let test = "http::peer_that_goes_on_sending_what_nobody_wants_is_cut_off";
    attacked(test, "", |gateway, neighbour, network| {
        let sending: Vec<_> = (0..4)
            .map(|_| {
                let mut stream = connection(network.attacker, gateway.push);
                std::thread::spawn(move || {
                    let start = Instant::now();
                    let head = b"POST /wpush/v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n";
                    stream.write_all(head).unwrap();
                    while stream.write_all(&[b'x'; 65_536]).is_ok() {
                        assert!(start.elapsed() < PATIENCE, "sending for ever");
                    }
                })
            })
            .collect();
        neighbour.is_served();
        for sending in sending {
            sending.join().unwrap();
        }
    });
}

/// Requests that two servers in a row could take apart differently, or that none should take: nothing
/// that follows in the same connection may be answered as a request of its own.
#[test]
fn requests_that_smuggle_another_end_the_connection() {
    let test = "http::requests_that_smuggle_another_end_the_connection";
    attacked(test, QUICK, |gateway, neighbour, network| {
        let chunked = "Transfer-Encoding: chunked\r\n";
        let smuggled = "GET /health HTTP/1.1\r\nHost: smuggled\r\n\r\n";
        let heads = [
            "Content-Length: 4\r\nContent-Length: 5\r\n".to_owned(),
            "Content-Length: 4, 5\r\n".to_owned(),
            "Content-Length: +4\r\n".to_owned(),
            "Content-Length: -1\r\n".to_owned(),
            "Content-Length: 0x4\r\n".to_owned(),
            "Content-Length: 4 4\r\n".to_owned(),
            "Content-Length: 99999999999999999999999\r\n".to_owned(),
            format!("Content-Length: 4\r\n{chunked}"),
            format!("{chunked}Content-Length: 4\r\n"),
            "Transfer-Encoding: chunked, identity\r\n".to_owned(),
            "Transfer-Encoding: identity\r\n".to_owned(),
            "Transfer-Encoding: xchunked\r\n".to_owned(),
            "Transfer-Encoding : chunked\r\n".to_owned(),
            "Transfer-Encoding: \x0bchunked\r\n".to_owned(),
            "Transfer-Encoding:\n chunked\r\n".to_owned(),
            "X: y\r\n Transfer-Encoding: chunked\r\n".to_owned(),
            "Bad Header: x\r\n".to_owned(),
            "X: a\rb\r\n".to_owned(),
            "X: a\0b\r\n".to_owned(),
        ];
        let mut refused = 0;
        for head in &heads {
            let mut stream = connection(network.attacker, gateway.push);
            let request =
                format!("POST /wpush/v1/x HTTP/1.1\r\nHost: h\r\n{head}\r\n0\r\n\r\n{smuggled}");
            stream.write_all(request.as_bytes()).unwrap();
            let said = rest(&mut stream);
            let answers = said.matches("HTTP/1.1 ").count();
            assert_eq!(answers, 1, "{head:?}: {said}");
            assert!(!said.contains("HTTP/1.1 200 "), "{head:?}: {said}");
            refused += u64::from(said.starts_with("HTTP/1.1 400 "));
        }
        assert!(refused > 0);
        neighbour.is_served();
        gateway.wait_for_metric("edgepush_requests_malformed_total", refused);
    });
}

#[test]
fn chunks_that_are_none_end_the_connection_with_an_answer() {
    let test = "http::chunks_that_are_none_end_the_connection_with_an_answer";
    attacked(test, QUICK, |gateway, neighbour, network| {
        let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(64 * 1024));
        let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(20_000));
        let ones = "1\r\nx\r\n".repeat(10_000);
        for (chunks, statuses) in [
            ("ffffffffffffffffff\r\n", [400, 413]),
            // A size that there is, of a chunk that does not come.
            ("ffffffffffffffff\r\n", [408, 408]),
            ("-1\r\nx\r\n", [400, 400]),
            ("1\r\nxy\r\n", [400, 400]),
            ("1 1\r\nx\r\n", [400, 400]),
            ("\r\n\r\n", [400, 400]),
            ("1\nx\n0\n\n", [400, 400]),
            (&extension, [400, 413]),
            (&trailers, [400, 413]),
            (&ones, [400, 413]),
        ] {
            let mut stream = connection(network.attacker, gateway.push);
            let endpoint = &neighbour.endpoint;
            let head = format!(
                "POST {endpoint} HTTP/1.1\r\nHost: h\r\nTTL: 0\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            // The gateway may have had enough before the end.
            let _ = stream.write_all(chunks.as_bytes());
            let said = rest(&mut stream);
            let status = said
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok());
            let begin = chunks.get(..20).unwrap_or(chunks);
            assert!(
                status.is_some_and(|status: u16| statuses.contains(&status)),
                "{begin:?}: {said}"
            );
            assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{begin:?}: {said}");
        }
        neighbour.is_served();
    });
}

#[test]
fn heads_of_any_size_and_bytes_of_any_kind_are_refused_with_little_memory() {
    let test = "http::heads_of_any_size_and_bytes_of_any_kind_are_refused_with_little_memory";
    attacked(test, QUICK, |gateway, neighbour, network| {
        let many = format!(
            "GET / HTTP/1.1\r\nHost: h\r\n{}\r\n",
            "X: y\r\n".repeat(1000)
        );
        let mut attacks: Vec<(Vec<u8>, u16)> = vec![
            (
                format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(70_000)).into_bytes(),
                431,
            ),
            (many.into_bytes(), 431),
            // Nothing that is said in HTTP/1.1 would be understood.
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 0),
            (
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
                400,
            ),
            (b"\x00\x00\x00\x00\x00\x00\x00\x00\r\n\r\n".to_vec(), 400),
            (b"GET /\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), 400),
            (
                b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\nX: \xc3\x28\r\n\r\n".to_vec(),
                426,
            ),
            (b"GET / HTTP/9.9\r\nHost: h\r\n\r\n".to_vec(), 400),
            (
                b"GET http://elsewhere/health HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
                200,
            ),
            (
                b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere\r\n\r\n".to_vec(),
                404,
            ),
        ];
        let large = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "y".repeat(1 << 20));
        attacks.push((large.into_bytes(), 431));
        for (bytes, expected) in attacks {
            let mut stream = connection(network.attacker, gateway.push);
            // Refused before its end.
            let _ = stream.write_all(&bytes);
            let said = rest(&mut stream);
            let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            let status = said.split(' ').nth(1).map_or(Ok(0), str::parse);
            assert_eq!(status, Ok(expected), "{begin:?}: {said}");
        }
        neighbour.is_served();
        // With what it had before, far from what came in.
        assert!(gateway.metric("process_resident_memory_bytes") < 64 << 20);
    });
}

#[test]
fn json_as_deep_as_it_goes_is_refused() {
    attacked(
        "http::json_as_deep_as_it_goes_is_refused",
        "",
        |gateway, _, network| {
            for body in [
                "[".repeat(5600),
                "{\"a\":".repeat(1000),
                "\"\\ud800\"".to_owned(),
            ] {
                let mut http = Http::over(connection(network.attacker, gateway.push));
                let path = "/v1/webpush/app/registration";
                assert_eq!(http.send("POST", path, &[], body.as_bytes()).status, 400);
            }
            let mut http = Http::over(connection(network.attacker, gateway.push));
            let invalid = http.send(
                "POST",
                "/v1/webpush/app/registration",
                &[],
                b"{\"token\":\"\xff\"}",
            );
            assert_eq!(invalid.status, 400);
        },
    );
}

#[test]
fn tls_handshakes_that_stall_end_in_time() {
    let folder = super::support::Folder::new();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let config = format!(
        "[tls]\ncertificate = {:?}\nkey = {:?}\n{QUICK}",
        folder.path("cert.pem"),
        folder.path("key.pem")
    );
    let test = "http::tls_handshakes_that_stall_end_in_time";
    attacked(test, &config, |gateway, neighbour, network| {
        let mut stalled: Vec<TcpStream> = [
            &b""[..],
            b"\x16",
            b"\x16\x03\x01\x40\x00\x01",
            // A record that announces a handshake message of 16 MiB.
            b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
            // Complete, and no hello.
            b"\x16\x03\x01\x00\x04\x0e\x00\x00\x00",
        ]
        .into_iter()
        .map(|bytes| {
            let mut stream = connection(network.attacker, gateway.push);
            stream.write_all(bytes).unwrap();
            stream
        })
        .collect();
        neighbour.is_served();
        for stream in &mut stalled {
            rest(stream);
        }
        gateway.wait_for_metric("edgepush_handshakes_failed_total", 5);
    });
}

#[test]
fn registrations_over_http_and_websockets_of_one_address_are_429_while_others_are_served() {
    let test = "http::registrations_over_http_and_websockets_of_one_address_are_429_while_others_are_served";
    let config = "[limits]\nwebsocket_rate_per_sec_max = 1\nwebsocket_burst_max = 5\n\
                  newcomer_rate_per_min_max = 1\nnewcomer_burst_max = 3\n";
    attacked(test, config, |gateway, neighbour, network| {
        if !network.has_others {
            return;
        }
        let mut refused = 0;
        for number in 0..40 {
            let mut http = Http::over(connection(network.attacker, gateway.push));
            http.send_raw(handshake("/", "").as_bytes());
            let answer = http.receive();
            if answer.status == 429 {
                let message = answer.json()["message"].as_str().unwrap().to_owned();
                assert!(
                    message.contains("websockets from this address"),
                    "{message}"
                );
                assert_eq!(answer.header("retry-after"), Some("1"));
                refused += 1;
            } else {
                assert_eq!((answer.status, refused > 0 || number < 5), (101, true));
            }
        }
        assert!(refused > 0);
        gateway.wait_for_metric("edgepush_websockets_over_address_rate_total", refused);
        let registered = |_| {
            let mut http = Http::over(connection(network.attacker, gateway.push));
            http.send("POST", "/v1/webpush/app/registration", &[], b"{}")
                .status
        };
        let statuses: Vec<u16> = (0..10).map(registered).collect();
        assert_eq!(statuses[..3], [200; 3]);
        assert!(statuses[3..].contains(&429), "{statuses:?}");
        neighbour.is_served();
        // Another address opens websockets meanwhile.
        assert!(UserAgent::over(connection(network.neighbour, gateway.push)).is_some());
    });
}

#[test]
fn posts_to_one_offline_user_agent_are_429_and_its_neighbours_are_served() {
    let test = "http::posts_to_one_offline_user_agent_are_429_and_its_neighbours_are_served";
    let config = "[limits]\nmessages_per_subscription_max = 50\nmessages_per_user_agent_max = 60\n";
    attacked(test, config, |gateway, neighbour, network| {
        let agent = UserAgent::over(connection(network.attacker, gateway.push)).unwrap();
        let mut agent = agent.greet(None);
        let endpoints = [agent.register(&channel(1)), agent.register(&channel(2))];
        drop(agent);
        gateway.wait_for_metric("edgepush_websockets_open", 1);
        let mut counts = Vec::new();
        for endpoint in &endpoints {
            let mut http = Http::over(connection(network.attacker, gateway.push));
            let mut taken = 0;
            for _ in 0..100 {
                let headers = [("TTL", "600"), ("Content-Encoding", "aes128gcm")];
                let answer = http.send("POST", endpoint, &headers, &[7; 4096]);
                match answer.status {
                    201 => taken += 1,
                    429 => assert_eq!(answer.header("retry-after"), Some("300")),
                    other => panic!("{other}"),
                }
            }
            counts.push(taken);
            neighbour.is_served();
        }
        assert_eq!(counts, [50, 10]);
        gateway.wait_for_metric("edgepush_messages_over_subscription_quota_total", 50);
        gateway.wait_for_metric("edgepush_messages_over_user_agent_quota_total", 90);
    });
}
