//! Connections between the gateway and the main service: slow, cut at any moment, with or without
//! a word to either side.

use std::collections::VecDeque;
use std::time::Duration;

use edgepush::engine::{Input, LinkEnd, LinkId, UpEvent, UpOrder};

use crate::main_service::session::{Down, Up};
use crate::world::{Door, World};

/// What `io` waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// One connection. Which end knows of it is said by `state` and `main_open`.
#[derive(Debug)]
pub(crate) struct Wire {
    state: State,
    /// It goes to where the main service has sent on to.
    sent_on: bool,
    since: Duration,
    /// The main service's end is there.
    main_open: bool,
    /// Nothing passes any more, and at least one end does not know.
    dead: bool,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
}

/// The gateway's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Connecting,
    Open,
    /// The gateway has closed it, and waits for the end.
    Closing,
    Gone,
}

impl World {
    /// What the engine orders.
    pub(crate) fn order(&mut self, link: LinkId, order: UpOrder) {
        let id = self.wire_id(link);
        if let UpOrder::Connect(to) = &order {
            self.count_connect();
            let wire = Wire {
                state: State::Connecting,
                sent_on: to.is_some(),
                since: self.elapsed,
                main_open: false,
                dead: false,
                up: VecDeque::new(),
                down: VecDeque::new(),
            };
            assert!(self.wires.insert(id, wire).is_none(), "connected twice");
            return;
        }
        let wire = self.wires.get_mut(&id).expect("it was connected");
        match order {
            UpOrder::Connect(_) => {}
            UpOrder::Send(text) => {
                assert_eq!(wire.state, State::Open, "said on no connection: {text}");
                wire.up.push_back(Up::Text(text));
            }
            UpOrder::Ping => {
                assert_eq!(wire.state, State::Open);
                wire.up.push_back(Up::Ping(String::new()));
            }
            UpOrder::Close => {
                assert!(matches!(wire.state, State::Open | State::Connecting));
                wire.state = State::Closing;
                wire.up.push_back(Up::Close(None));
            }
        }
    }

    /// Names of links begin again with each process; those of wires do not.
    const fn wire_id(&self, link: LinkId) -> u64 {
        self.life * 1_000_000 + link.0
    }

    const fn link_id(&self, wire: u64) -> LinkId {
        LinkId(wire - self.life * 1_000_000)
    }

    /// Something moves on some connections; whether anything did.
    pub(crate) fn wires_round(&mut self, pace: u64) -> bool {
        let now = self.elapsed;
        let mut moved = false;
        let all: Vec<u64> = self.wires.keys().copied().collect();
        for id in all {
            for _ in 0..4 {
                if self.rng.percent(pace) {
                    moved |= self.gateway_end(id);
                }
                if self.rng.percent(pace) {
                    moved |= self.main_end(id);
                }
            }
        }
        self.main.tick(now);
        self.wires
            .retain(|_, wire| wire.state != State::Gone || wire.main_open);
        moved
    }

    /// The gateway hears one thing.
    fn gateway_end(&mut self, id: u64) -> bool {
        let wire = self.wires.get_mut(&id).expect("it is there");
        let waited = self.elapsed - wire.since;
        match wire.state {
            State::Gone => false,
            State::Connecting => match self.door {
                Door::Elsewhere if !wire.sent_on => {
                    self.tally.add("sent on");
                    self.gateway_is_sent_on(id)
                }
                Door::Open | Door::Elsewhere => {
                    wire.state = State::Open;
                    wire.main_open = true;
                    self.main.opened(self.elapsed, id, "");
                    self.hear(id, UpEvent::Opened);
                    true
                }
                Door::Silent if waited < CONNECT_TIMEOUT => false,
                Door::Silent => self.gateway_loses(id, "no answer", Duration::ZERO),
                Door::Closed => self.gateway_loses(id, "refused", Duration::ZERO),
                Door::Busy => self.gateway_loses(id, "busy", Duration::from_secs(120)),
            },
            State::Closing => self.gateway_loses(id, "closed", Duration::ZERO),
            State::Open if wire.dead => false,
            State::Open => {
                let Some(down) = wire.down.pop_front() else {
                    return false;
                };
                match down {
                    Down::Text(text) => self.hear(id, UpEvent::Text(&text)),
                    Down::Ping => {
                        wire.up.push_back(Up::Pong(String::new()));
                        self.hear(id, UpEvent::Alive);
                    }
                    Down::Pong(_) => self.hear(id, UpEvent::Pong),
                    Down::Close(_) => {
                        self.gateway_loses(id, "closed by the main service", Duration::ZERO);
                    }
                }
                true
            }
        }
    }

    /// The main service hears and says one thing each.
    fn main_end(&mut self, id: u64) -> bool {
        let now = self.elapsed;
        let wire = self.wires.get_mut(&id).expect("it is there");
        if !wire.main_open {
            return false;
        }
        let mut moved = false;
        if !wire.dead
            && let Some(up) = wire.up.pop_front()
        {
            self.main.received(now, id, up);
            self.main.tick(now);
            moved = true;
        }
        if let Some(down) = self.main.poll(id) {
            moved = true;
            if matches!(down, Down::Close(_)) {
                wire.main_open = false;
                self.main.gone(now, id);
            }
            wire.down.push_back(down);
        } else if wire.state == State::Gone {
            let session = self.main.sessions.get(&id);
            if session.is_none_or(|session| session.over) {
                // The gateway's close was taken, and nothing is said to that.
                self.main_loses(id);
            }
        }
        moved
    }

    fn hear(&mut self, id: u64, event: UpEvent<'_>) {
        let link = self.link_id(id);
        self.input(Input::Up { link, event });
    }

    fn gateway_is_sent_on(&mut self, id: u64) -> bool {
        let end = LinkEnd {
            redirect: Some("wss://elsewhere.example/".into()),
            ..self.end("sent on", Duration::ZERO)
        };
        self.gateway_hears_the_end(id, end)
    }

    fn gateway_loses(&mut self, id: u64, why: &str, retry_after: Duration) -> bool {
        let end = self.end(why, retry_after);
        self.gateway_hears_the_end(id, end)
    }

    fn end(&mut self, why: &str, retry_after: Duration) -> LinkEnd {
        let random = self.rng.bytes8();
        LinkEnd {
            why: why.to_owned(),
            is_lasting: false,
            retry_after,
            redirect: None,
            random: [random[0], random[1]],
        }
    }

    fn gateway_hears_the_end(&mut self, id: u64, end: LinkEnd) -> bool {
        let wire = self.wires.get_mut(&id).expect("it is there");
        wire.state = State::Gone;
        wire.dead = true;
        // What was said last may still arrive, or not.
        if self.rng.percent(50) {
            self.main_loses(id);
        }
        self.hear(id, UpEvent::Ended(end));
        true
    }

    fn main_loses(&mut self, id: u64) {
        let now = self.elapsed;
        let wire = self.wires.get_mut(&id).expect("it is there");
        if std::mem::replace(&mut wire.main_open, false) {
            self.main.gone(now, id);
        }
    }

    /// A connection ends in some way.
    pub(crate) fn drop_wire(&mut self) {
        let open = |wire: &Wire| wire.state == State::Open && !wire.dead;
        let open = self.wires.iter().filter(|(_, wire)| open(wire));
        let open: Vec<u64> = open.map(|(id, _)| *id).collect();
        if open.is_empty() {
            return;
        }
        let id = self.rng.pick(&open);
        match self.rng.below(4) {
            0 => {
                self.tally.add("both ends lose a connection");
                self.main_loses(id);
                self.gateway_loses(id, "reset", Duration::ZERO);
            }
            1 => {
                self.tally.add("the gateway loses a connection");
                self.gateway_loses(id, "reset", Duration::ZERO);
            }
            2 => {
                self.tally.add("the main service loses a connection");
                self.wires.get_mut(&id).expect("it is there").dead = true;
                self.main_loses(id);
            }
            _ => {
                self.tally.add("the main service closes a connection");
                let now = self.elapsed;
                let code = self.rng.pick(&[1000, 1001, 1011, 4774]);
                self.main.end(now, id, Some((code, "SM")));
            }
        }
    }

    /// The process is no more: what it had sent may still arrive.
    pub(crate) fn lose_all_wires(&mut self) {
        let all: Vec<u64> = self.wires.keys().copied().collect();
        for id in all {
            for _ in 0..self.rng.index(4) {
                self.main_end(id);
            }
            let wire = self.wires.get_mut(&id).expect("it is there");
            wire.state = State::Gone;
            wire.dead = true;
            if self.rng.percent(70) {
                self.main_loses(id);
            }
        }
    }
}
