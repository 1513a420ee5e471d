//! Connections to the main service: one task for each, from the attempt to its end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use smol::future::or;

use super::agent_socket::{AgentSocket, Received};
use super::connect::Connector;
use super::entropy;
use super::gateway::Gateway;
use super::http_client::{ClientError, UpgradeError};
use super::mailbox::Mailbox;
use crate::engine::{Input, LinkEnd, LinkId, UpEvent, UpOrder};
use crate::protocol::peer_url::PeerUrl;

/// The way to the main service, and the connections there.
#[derive(Debug)]
pub struct UpstreamLinks {
    url: PeerUrl,
    connector: Connector,
}

impl UpstreamLinks {
    /// Connects to `url` with `connector`.
    pub const fn new(url: PeerUrl, connector: Connector) -> Self {
        Self { url, connector }
    }

    /// Carries out what the engine orders. Never ends.
    pub async fn run(self, gateway: Rc<Gateway>) {
        let this = Rc::new(self);
        let open = Rc::new(RefCell::new(HashMap::<LinkId, Rc<Mailbox<UpOrder>>>::new()));
        loop {
            let (link, order) = gateway.next_up_order().await;
            let UpOrder::Connect(to) = order else {
                // It may have ended by itself.
                if let Some(orders) = open.borrow().get(&link) {
                    orders.put(order);
                }
                continue;
            };
            let orders = Rc::new(Mailbox::new());
            open.borrow_mut().insert(link, Rc::clone(&orders));
            let (this, open, here) = (Rc::clone(&this), Rc::clone(&open), Rc::clone(&gateway));
            gateway.spawn(async move {
                let (socket, end) = this.serve(&here, link, to.as_deref(), &orders).await;
                open.borrow_mut().remove(&link);
                // Before the closing handshake, which may take a while.
                tell(&here, link, UpEvent::Ended(end));
                if let Some(socket) = socket {
                    socket.close().await;
                }
            });
        }
    }

    /// One connection; what is left of it to close, and how it ended.
    async fn serve(
        &self,
        gateway: &Gateway,
        link: LinkId,
        to: Option<&PeerUrl>,
        orders: &Mailbox<UpOrder>,
    ) -> (Option<AgentSocket>, LinkEnd) {
        let url = to.unwrap_or(&self.url);
        let opening = async { Some(AgentSocket::open(url, &self.connector).await) };
        let closing = async {
            // Nothing else is ordered before it is open.
            orders.ready().await;
            None
        };
        let mut socket = match or(opening, closing).await {
            None => return (None, end("closed".to_owned())),
            Some(Err(error)) => return (None, refusal(error)),
            Some(Ok(socket)) => socket,
        };
        tell(gateway, link, UpEvent::Opened);
        let why = exchange(gateway, link, orders, &mut socket).await;
        (Some(socket), end(why))
    }
}

/// Passes on what comes and what is ordered, until the end; why that is.
async fn exchange(
    gateway: &Gateway,
    link: LinkId,
    orders: &Mailbox<UpOrder>,
    socket: &mut AgentSocket,
) -> String {
    loop {
        while let Some(order) = orders.try_take() {
            let written = match order {
                UpOrder::Connect(_) => true,
                UpOrder::Send(text) => socket.send(text).await,
                UpOrder::Ping => socket.ping().await,
                UpOrder::Close => return "closed".to_owned(),
            };
            if !written {
                return "the main service does not read what is sent".to_owned();
            }
        }
        let ordered = async {
            orders.ready().await;
            None
        };
        let received = async { Some(socket.receive().await) };
        let event = match or(ordered, received).await {
            None => continue,
            Some(Received::End(why)) => return why,
            Some(Received::Text(text)) => {
                tell(gateway, link, UpEvent::Text(&text));
                continue;
            }
            Some(Received::Alive) => UpEvent::Alive,
            Some(Received::Pong) => UpEvent::Pong,
            Some(Received::Garbage) => UpEvent::Garbage,
        };
        tell(gateway, link, event);
    }
}

fn tell(gateway: &Gateway, link: LinkId, event: UpEvent<'_>) {
    gateway.turn(Input::Up { link, event });
}

fn end(why: String) -> LinkEnd {
    LinkEnd {
        why,
        is_lasting: false,
        retry_after: Duration::ZERO,
        redirect: None,
        random: entropy::random(),
    }
}

fn refusal(error: UpgradeError) -> LinkEnd {
    match error {
        UpgradeError::Refused(answer) => LinkEnd {
            is_lasting: !answer.may_pass(),
            retry_after: answer.asked_for(),
            redirect: answer.redirect().map(Box::from),
            ..end(answer.refusal("the main service"))
        },
        UpgradeError::Client(ClientError::Connect(error)) => LinkEnd {
            is_lasting: error.is_lasting(),
            ..end(error.to_string())
        },
        UpgradeError::Client(error) => end(error.to_string()),
    }
}
