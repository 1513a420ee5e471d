//! Gateways above gateways: a club house over several sites, and rings, which must not turn.

use std::time::Duration;

use crate::house::{QUIET, config, post, receive_numbers, register};
use crate::support::{Gateway, UserAgent, channel, wait_until};

const ALL: &str = "endpoints = \"all\"\n";

fn url(gateway: &Gateway) -> String {
    format!("ws://{}/", gateway.push)
}

fn origin(gateway: &Gateway) -> String {
    format!("http://{}", gateway.push)
}

#[test]
fn message_comes_down_through_two_gateways() {
    let top = Gateway::start();
    let middle = Gateway::with_config(&config(&url(&top), ALL));
    let bottom = Gateway::with_config(&config(&url(&middle), ALL));
    let mut agent = UserAgent::hello(&bottom, None);
    let endpoint = register(&mut agent, 1);
    assert!(endpoint.starts_with(&origin(&top)), "{endpoint}");
    for number in 0..3 {
        assert_eq!(
            post(&endpoint, &[("TTL", "600")], &number.to_string()).status,
            201
        );
        assert_eq!(receive_numbers(&mut agent, 1), [number]);
    }
    agent.unregister(&channel(1));
    wait_until("it has ended at the top", || {
        post(&endpoint, &[("TTL", "600")], "x").status == 410
    });
}

#[test]
fn site_that_was_cut_off_gets_everything_from_the_club_house_once() {
    let club = Gateway::start();
    let mut site = Gateway::with_config(&config(&url(&club), ALL));
    let mut agent = UserAgent::hello(&site, None);
    let endpoint = register(&mut agent, 1);
    let uaid = agent.uaid.clone();
    // More than autopush-rs would keep for it.
    site.kill();
    for number in 0..200 {
        let answer = post(&endpoint, &[("TTL", "600")], &number.to_string());
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    site.start_again();
    let mut agent = UserAgent::hello(&site, Some(&uaid));
    let arrived = receive_numbers(&mut agent, 200);
    assert_eq!(arrived, (0..200).collect::<Vec<_>>());
    assert_eq!(agent.receive_within(QUIET), None);
}

#[test]
fn ring_of_gateways_is_noticed_and_does_not_turn() {
    // Of itself alone, of two, and of three that give each subscription another name.
    let shared = format!("{ALL}identity = \"shared\"\n");
    for (length, settings) in [(1, ALL), (2, ALL), (1, &shared), (3, &shared)] {
        let mut gateways: Vec<Gateway> = (0..length).map(|_| Gateway::start()).collect();
        let urls: Vec<String> = gateways.iter().map(url).collect();
        for (number, gateway) in gateways.iter_mut().enumerate() {
            let above = &urls[(number + 1) % length];
            gateway.restart_with(&config(above, settings));
        }
        let mut agent = UserAgent::hello(&gateways[0], None);
        let endpoint = register(&mut agent, 1);
        assert_eq!(post(&endpoint, &[("TTL", "600")], "1").status, 201);
        assert_eq!(receive_numbers(&mut agent, 1), [1], "{length}");
        let told = |gateway: &Gateway| gateway.log().to_lowercase().contains("loop");
        wait_until("one of them has noticed", || gateways.iter().any(told));
        let connects = || -> u64 {
            let name = "edgepush_upstream_connects_total";
            gateways.iter().map(|gateway| gateway.metric(name)).sum()
        };
        std::thread::sleep(Duration::from_secs(5));
        assert!(connects() <= 10, "{} connections", connects());
    }
}
