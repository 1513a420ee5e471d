//! Connections by the thousand, and a system that has none left.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::attacked;
use super::network::{connection, try_connect};
use super::support::{Http, UserAgent, channel, wait_until};

/// As many descriptors for the attacker as the system allows.
fn raise_own_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    limit.current.map_or(usize::MAX, |limit| limit as usize)
}

/// Whether the other side has closed it.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0; 1]);
    !matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn ten_thousand_connections_of_one_address_get_their_share_and_no_more() {
    let test = "floods::ten_thousand_connections_of_one_address_get_their_share_and_no_more";
    let config = "[limits]\nrequest_timeout_secs = 600\nconnections_max = 4096\nconnections_per_address_max = 2048\n";
    attacked(test, config, |gateway, neighbour, network| {
        let own = raise_own_limit();
        let connections = 10_000.min(own.saturating_sub(500));
        // Connections of the board itself have no limit but that of all.
        let share = if network.has_others { 2048 } else { 4096 - 1 };
        let mut open = Vec::new();
        for number in 0..connections {
            open.push(connection(network.attacker, gateway.push));
            if number % 1000 == 0 {
                neighbour.is_served();
            }
        }
        let name = if network.has_others {
            "edgepush_connections_over_address_max_total"
        } else {
            "edgepush_connections_over_max_total"
        };
        gateway.wait_for_metric(name, (connections - share) as u64);
        assert_eq!(open.iter().filter(|c| !is_closed(c)).count(), share);
        if network.has_others {
            neighbour.is_served();
        }
        drop(open);
        wait_until("there is room again", || {
            try_connect(network.attacker, gateway.push).is_ok_and(|stream| {
                let mut http = Http::over(stream);
                let answer = http.try_send("GET", "/health", &[], b"");
                answer.is_some_and(|answer| answer.status == 200)
            })
        });
    });
}

#[test]
fn connections_that_come_and_go_as_fast_as_they_can_leave_the_others_their_turns() {
    let test =
        "floods::connections_that_come_and_go_as_fast_as_they_can_leave_the_others_their_turns";
    attacked(test, "", |gateway, neighbour, network| {
        let ended = Arc::new(AtomicBool::new(false));
        let floods: Vec<_> = (0..2)
            .map(|_| {
                let (ended, push) = (Arc::clone(&ended), gateway.push);
                std::thread::spawn(move || {
                    let mut made = 0_u32;
                    while !ended.load(Ordering::Relaxed) {
                        let Ok(mut stream) = try_connect(network.attacker, push) else {
                            continue;
                        };
                        let _ = stream.write_all(b"GET / HTTP/1.1\r\n");
                        // With a reset: no port is used up for a minute.
                        let at_once = Some(std::time::Duration::ZERO);
                        set_socket_linger(&stream, at_once).unwrap();
                        made += 1;
                    }
                    made
                })
            })
            .collect();
        for _ in 0..50 {
            neighbour.is_served();
        }
        ended.store(true, Ordering::Relaxed);
        let made: u32 = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
        assert!(made > 100, "{made} connections are no flood");
    });
}

#[test]
fn gateway_without_a_descriptor_left_serves_those_who_are_there_and_all_others_later() {
    let test =
        "floods::gateway_without_a_descriptor_left_serves_those_who_are_there_and_all_others_later";
    attacked(test, "", |gateway, _, network| {
        let agent = UserAgent::over(connection(network.neighbour, gateway.push)).unwrap();
        let mut agent = agent.greet(None);
        let endpoint = agent.register(&channel(1));
        let mut sender = Http::over(connection(network.neighbour, gateway.push));
        assert_eq!(sender.send("GET", "/health", &[], b"").status, 200);
        // As if something else in the process had taken all but a few.
        let used = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid()))
            .unwrap()
            .count();
        let limit = format!("--nofile={}", used + 10);
        let lowered = Command::new("prlimit")
            .args(["--pid", &gateway.pid().to_string(), &limit])
            .status();
        if !lowered.is_ok_and(|status| status.success()) {
            return eprintln!("!!! {test}: NOT TESTED: prlimit(1) cannot be had here");
        }
        let taken: Vec<TcpStream> = (0..50)
            .map(|_| connection(network.attacker, gateway.push))
            .collect();
        // The console needs a descriptor as well, so the log is what tells.
        gateway.wait_for_log("cannot accept connections");
        let post =
            format!("POST {endpoint} HTTP/1.1\r\nHost: h\r\nTTL: 60\r\nContent-Length: 0\r\n\r\n");
        for _ in 0..5 {
            sender.send_raw(post.as_bytes());
            let notification = agent.receive();
            agent.ack(&notification);
            assert_eq!(sender.receive().status, 201);
        }
        // One that must be written to flash.
        sender.send_raw(post.as_bytes());
        agent.receive();
        assert_eq!(sender.receive().status, 201);
        drop(taken);
        wait_until("the console answers", || {
            let http = Http::try_connect(gateway.console);
            http.and_then(|mut http| http.try_send("GET", "/healthz", &[], b""))
                .is_some()
        });
        assert!(gateway.metric("edgepush_accepts_failed_total") > 0);
        assert_eq!(gateway.metric("edgepush_storage_fault"), 0);
    });
}
