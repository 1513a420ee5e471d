//! One user agent of many: its connection, its subscriptions, and what it makes of what it receives.

use std::rc::Rc;
use std::time::Duration;

use smol::future::or;

use super::ledger::{AgentNumber, ConnectionNumber, Fault, Received};
use super::payload::{self, Payload};
use super::world::World;
use crate::io::agent_socket::{self, AgentSocket};
use crate::io::clock;
use crate::io::http_client::UpgradeError;
use crate::io::reactor::Timer;
use crate::model::ids::ChannelId;
use crate::protocol::client_message::AckCode;
use crate::protocol::peer_url::PeerUrl;
use crate::protocol::user_agent::{
    Body, GatewayMessage, Notification, PING, Update, Verdict, ack, ack_update, hello, parse,
    register, unregister,
};

/// How long anything that must come may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// The connection is no more; why has been noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken;

/// A subscription, as the application server knows it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) agent: AgentNumber,
    pub(super) channel: ChannelId,
    pub(super) endpoint: Rc<PeerUrl>,
}

/// A user agent.
#[derive(Debug)]
pub(super) struct Device {
    world: Rc<World>,
    number: AgentNumber,
    uaid: Option<String>,
    targets: Vec<Target>,
    socket: Option<AgentSocket>,
    connection: ConnectionNumber,
    /// Acks that are still to be written, with what they are for.
    acks: Vec<(Received, String)>,
    is_acking: bool,
}

impl Device {
    pub(super) const fn new(world: Rc<World>, number: AgentNumber) -> Self {
        Self {
            world,
            number,
            uaid: None,
            targets: Vec::new(),
            socket: None,
            connection: 0,
            acks: Vec::new(),
            is_acking: true,
        }
    }

    pub(super) const fn number(&self) -> AgentNumber {
        self.number
    }

    pub(super) const fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Its subscriptions.
    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whether it acks from here on.
    pub(super) const fn set_acking(&mut self, is_acking: bool) {
        self.is_acking = is_acking;
    }

    /// Connects, says hello, and makes the subscriptions that it is to have.
    pub(super) async fn open(&mut self) -> Result<(), Broken> {
        self.connect().await?;
        while self.targets.len() < self.world.channels() {
            let target = self.subscribe().await?;
            self.targets.push(target);
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Broken> {
        let world = Rc::clone(&self.world);
        let _turn = world.opening.acquire().await;
        let started = clock::monotonic();
        match AgentSocket::open(&world.options.url, &world.connector).await {
            Ok(socket) => self.socket = Some(socket),
            Err(UpgradeError::Refused(answer)) => {
                let words = || format!("websocket refused with {}", answer.status);
                return Err(self.fault(Fault::NoWebsocket, words));
            }
            Err(UpgradeError::Client(error)) => {
                return Err(self.fault(Fault::NoWebsocket, || error.to_string()));
            }
        }
        world.opened(started);
        self.connection = world.new_connection();
        self.acks.clear();
        let channels: Vec<_> = self.targets.iter().map(|target| target.channel).collect();
        let hello = hello(world.options.dialect, self.uaid.as_deref(), &channels);
        self.send(hello).await?;
        let GatewayMessage::Hello { uaid, verdict, .. } = self.answer().await? else {
            return Err(self.fault(Fault::Verdict, || "no answer to hello".to_owned()));
        };
        self.granted(&verdict)?;
        if self.uaid.is_some() && self.uaid != uaid {
            // Its subscriptions went with its name.
            self.targets.clear();
            self.fault(Fault::UaidChanged, String::new);
        }
        self.uaid = uaid;
        Ok(())
    }

    /// Makes one more subscription.
    pub(super) async fn subscribe(&mut self) -> Result<Target, Broken> {
        let channel = self.world.chance.channel();
        self.send(register(channel, None)).await?;
        let GatewayMessage::Registered {
            channel: answered,
            endpoint,
            verdict,
        } = self.answer().await?
        else {
            return Err(self.fault(Fault::Verdict, || "no answer to register".to_owned()));
        };
        self.granted(&verdict)?;
        let url = PeerUrl::endpoint(&endpoint).ok();
        match url.filter(|_| answered == channel) {
            Some(endpoint) => Ok(Target {
                agent: self.number,
                channel,
                endpoint: Rc::new(endpoint),
            }),
            None => Err(self.fault(Fault::Verdict, || "no endpoint for it".to_owned())),
        }
    }

    /// Gives a subscription up.
    pub(super) async fn unsubscribe(&mut self, channel: ChannelId) -> Result<(), Broken> {
        self.send(unregister(channel)).await?;
        let GatewayMessage::Unregistered { verdict, .. } = self.answer().await? else {
            return Err(self.fault(Fault::Verdict, || "no answer to unregister".to_owned()));
        };
        self.granted(&verdict)
    }

    /// Asks whether the push service is there.
    pub(super) async fn ping(&mut self) -> Result<(), Broken> {
        self.send(PING.to_owned()).await?;
        self.answer().await?;
        Ok(())
    }

    /// Receives while `work` is done.
    pub(super) async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Broken> {
        let receiving = async {
            loop {
                self.next().await?;
            }
        };
        or(async { Ok(work.await) }, receiving).await
    }

    /// Receives until nothing is owed; what has not come by then counts as lost in the end.
    pub(super) async fn settle(&mut self) -> Result<(), Broken> {
        let receiving = async {
            while self.world.ledger.borrow().owed_to(self.number) > 0 {
                self.next().await?;
            }
            Ok(())
        };
        within(receiving).await.unwrap_or(Ok(()))
    }

    /// Receives until it has seen everything, acked or not.
    pub(super) async fn see_all(&mut self, since: u64) -> Result<(), Broken> {
        let receiving = async {
            while self.world.ledger.borrow().unseen_by(self.number, since) > 0 {
                self.next().await?;
            }
            Ok(())
        };
        within(receiving).await.unwrap_or(Ok(()))
    }

    /// Leaves in order.
    pub(super) async fn close(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.world.closed();
            socket.close().await;
        }
    }

    /// Leaves without a word: what it said last may not arrive.
    pub(super) fn cut(&mut self) {
        if self.socket.take().is_some() {
            self.world.closed();
            self.world.ledger.borrow_mut().broke(self.connection);
        }
    }

    /// The next message that is no push message, within a while.
    async fn answer(&mut self) -> Result<GatewayMessage, Broken> {
        let answering = async {
            loop {
                if let Some(answer) = self.next().await? {
                    return Ok(answer);
                }
            }
        };
        match within(answering).await {
            Some(answer) => answer,
            None => Err(self.fault(Fault::NoWebsocket, || "no answer in time".to_owned())),
        }
    }

    /// The next message; `None` for one that has been dealt with. May be given up at any time.
    async fn next(&mut self) -> Result<Option<GatewayMessage>, Broken> {
        while let Some((came, text)) = self.acks.first().cloned() {
            self.send(text).await?;
            self.acks.remove(0);
            let mut ledger = self.world.ledger.borrow_mut();
            ledger.acked(came, self.connection);
            if ledger.owed_to(self.number) == 0 {
                // Somebody may wait for just that.
                return Ok(None);
            }
        }
        let Some(socket) = &mut self.socket else {
            return Err(Broken);
        };
        let text = match socket.receive().await {
            agent_socket::Received::Text(text) => text,
            agent_socket::Received::Alive | agent_socket::Received::Pong => return Ok(None),
            agent_socket::Received::Garbage => {
                self.fault(Fault::NotUnderstood, || "a binary message".to_owned());
                return Ok(None);
            }
            agent_socket::Received::End(why) => return Err(self.fault(Fault::Disconnected, || why)),
        };
        match parse(&text) {
            Ok(GatewayMessage::Notification(notification)) => self.notified(notification),
            Ok(GatewayMessage::Updates(updates)) => {
                for update in updates {
                    self.updated(&update);
                }
            }
            Ok(answer) => return Ok(Some(answer)),
            Err(_) => {
                self.fault(Fault::NotUnderstood, || text);
            }
        }
        Ok(None)
    }

    fn notified(&mut self, notification: Notification) {
        let Notification {
            channel,
            version,
            body,
        } = notification;
        let encrypted = match body {
            Body::Encrypted(encrypted) => encrypted,
            Body::Empty | Body::Malformed => {
                self.fault(Fault::Altered, || "a message without its body".to_owned());
                return;
            }
        };
        let Some(sequence) = payload::sequence(&encrypted.data) else {
            self.fault(Fault::Altered, || "a body cut off".to_owned());
            return;
        };
        let world = &self.world;
        let sent = world.ledger.borrow().payload(sequence);
        let intact = sent.is_some_and(|Payload { size, old }| {
            encrypted.data == payload::body(world.options.seed, sequence, size)
                && world.has_headers(encrypted.headers(), old)
        });
        self.received(channel, sequence, intact, |channel| {
            ack(channel, &version, AckCode::Delivered)
        });
    }

    fn updated(&mut self, update: &Update) {
        // Versions start at 1.
        let Some(sequence) = update.version.checked_sub(1) else {
            self.fault(Fault::Unknown, || "version 0".to_owned());
            return;
        };
        let world = &self.world;
        let sent = world.ledger.borrow().payload(sequence);
        let data = sent.map(|sent| payload::data(world.options.seed, sequence, sent.size));
        let intact = data.is_some_and(|data| update.data.as_deref().unwrap_or_default() == data);
        self.received(update.channel, sequence, intact, |channel| {
            ack_update(channel, update.version)
        });
    }

    fn received(
        &mut self,
        channel: ChannelId,
        sequence: u64,
        intact: bool,
        ack: impl FnOnce(ChannelId) -> String,
    ) {
        let came = Received {
            agent: self.number,
            channel,
            sequence,
        };
        let mut ledger = self.world.ledger.borrow_mut();
        let taken = ledger.received(came, intact, clock::monotonic());
        drop(ledger);
        if taken && self.is_acking {
            self.acks.push((came, ack(channel)));
        }
    }

    async fn send(&mut self, text: String) -> Result<(), Broken> {
        let Some(socket) = &mut self.socket else {
            return Err(Broken);
        };
        if socket.send(text).await {
            return Ok(());
        }
        Err(self.fault(Fault::Disconnected, || "cannot send".to_owned()))
    }

    fn granted(&mut self, verdict: &Verdict) -> Result<(), Broken> {
        if verdict.is_ok() {
            return Ok(());
        }
        Err(self.fault(Fault::Verdict, || {
            let reason = verdict.reason.as_deref().unwrap_or_default();
            format!("status {} {reason}", verdict.status)
        }))
    }

    /// Notes it; whoever cannot go on passes the answer on.
    fn fault(&mut self, fault: Fault, words: impl FnOnce() -> String) -> Broken {
        let number = self.number;
        let words = || format!("user agent {number}: {}", words());
        self.world.ledger.borrow_mut().fault(fault, words);
        Broken
    }
}

/// What comes of `waiting`, unless it takes longer than anything may.
pub(super) async fn within<T>(waiting: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::after(PATIENCE).await;
        None
    };
    or(async { Some(waiting.await) }, late).await
}
