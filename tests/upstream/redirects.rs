//! A main service that sends on to another machine: followed for one connection, and never to less
//! than what was configured.

use crate::house::{House, receive_numbers, register};
use crate::main_service::{Door, MainService};
use crate::support::{Http, UserAgent};

/// A door that answers with a redirect.
fn sends_on(to: &str) -> Door {
    Door::Refused("307 Temporary Redirect", format!("Location: {to}\r\n"))
}

#[test]
fn redirect_of_the_handshake_or_of_hello_is_followed_until_the_connection_ends() {
    for by_hello in [false, true] {
        let house = House::new();
        let other = MainService::start();
        if by_hello {
            house.main.service().faults.sends_on = Some(other.url());
        } else {
            house.main.set_door(sends_on(&other.url()));
        }
        let (mut agent, endpoint) = house.newcomer();
        assert!(endpoint.starts_with(&other.service().origin), "{endpoint}");
        crate::house::post(&endpoint, &[("TTL", "600")], "1");
        assert_eq!(receive_numbers(&mut agent, 1), [1]);
        let console = Http::connect(house.gateway.console).send("GET", "/", &[], b"");
        let console = String::from_utf8(console.body).unwrap();
        let port = other.websocket.port();
        assert!(
            console.contains(&format!("sent on to http://127.0.0.1:{port}/")),
            "{console}"
        );
        let redirects = "edgepush_upstream_redirects_total";
        house.gateway.wait_for_metric(redirects, 1);

        // It asks again where it is configured.
        let asked = house.main.connections().len();
        other.cut();
        crate::support::wait_until("it asks again", || house.main.connections().len() > asked);
        house.gateway.wait_for_metric(redirects, 2);
        crate::house::post(&endpoint, &[("TTL", "600")], "2");
        assert_eq!(receive_numbers(&mut agent, 1), [2]);
    }
}

#[test]
fn services_that_send_on_to_each_other_are_left_alone_after_a_few() {
    let house = House::new();
    let other = MainService::start();
    house.main.set_door(sends_on(&other.url()));
    other.set_door(sends_on(&house.main.url()));
    let mut agent = UserAgent::hello(&house.gateway, None);
    let endpoint = register(&mut agent, 1);
    assert!(!house.is_borrowed(&endpoint));
    house.gateway.wait_for_log("not sent on");
    let asked = house.main.connections().len() + other.connections().len();
    assert_eq!(asked, 6);
}
