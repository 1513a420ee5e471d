//! A user agent and an application server that behave well.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::network::{Network, patiently};
use super::support::{Gateway, Http, UserAgent, channel};

pub struct Neighbour {
    network: Network,
    push: SocketAddr,
    agent: UserAgent,
    /// Where its push messages are posted to.
    pub endpoint: String,
    post: String,
}

impl Neighbour {
    /// The user agent is connected.
    pub fn new(gateway: &Gateway, network: Network) -> Self {
        let connection = patiently(network.neighbour, gateway.push);
        let agent = UserAgent::over(connection).expect("a websocket");
        let mut agent = agent.greet(None);
        let endpoint = agent.register(&channel(1));
        let post =
            format!("POST {endpoint} HTTP/1.1\r\nHost: h\r\nTTL: 60\r\nContent-Length: 0\r\n\r\n");
        Self {
            network,
            push: gateway.push,
            agent,
            endpoint,
            post,
        }
    }

    /// A push message goes all the way over a connection of its own, and so does its ack. How long the
    /// message took to the user agent.
    pub fn is_served(&mut self) -> Duration {
        let start = Instant::now();
        let mut sender = Http::over(patiently(self.network.neighbour, self.push));
        sender.send_raw(self.post.as_bytes());
        let notification = self.agent.receive();
        let took = start.elapsed();
        self.agent.ack(&notification);
        assert_eq!(sender.receive().status, 201);
        took
    }
}
