//! Decides what the user agent says and does: one subscription, events one after the other.
//!
//! No socket, no clock, no file: see `super` for who performs it.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::inbox::{Event, Inbox};
use crate::model::dialect::Dialect;
use crate::model::ids::ChannelId;
use crate::protocol::client_message::{AckCode, NackCode};
use crate::protocol::encryption::{DecryptError, ReceiverKeys, decrypt};
use crate::protocol::peer_url::PeerUrl;
use crate::protocol::user_agent::{
    Body, GatewayMessage, Notification, PING, Update, Verdict, ack, ack_update, hello, nack, parse,
    register,
};

/// How long an answer may take: to hello, to register, to a ping. As in Firefox.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nothing may come before the gateway is asked whether it is there.
const SILENCE_MAX: Duration = Duration::from_secs(5 * 60);

/// What the user agent is, and keeps.
#[derive(Debug)]
pub(super) struct Identity {
    /// Its name, once the gateway has given it one.
    pub(super) uaid: Option<String>,
    /// Its subscription.
    pub(super) channel: ChannelId,
    /// Where to post to, once it is registered.
    pub(super) endpoint: Option<String>,
    /// What to decrypt with; none in SimplePush.
    pub(super) keys: Option<ReceiverKeys>,
    /// The VAPID key that the subscription is restricted to.
    pub(super) server_key: Option<String>,
}

impl Identity {
    const fn dialect(&self) -> Dialect {
        match self.keys {
            Some(_) => Dialect::WebPush,
            None => Dialect::SimplePush,
        }
    }
}

/// One input.
#[derive(Debug)]
pub(super) enum Input<'a> {
    /// A websocket is open.
    Connected,
    /// A message came.
    Text(&'a str),
    /// A sign of life came.
    Alive,
    /// Something came that is none of the protocol.
    Garbage,
    /// The websocket is no more.
    Lost,
    /// The event that was handed out last has been handled: well, or not.
    Handled { well: bool },
    /// [`Agent::next_deadline`] is over, or may be.
    TimePassed,
}

/// What is to be done, in this order.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Output {
    /// Send this message.
    Send(String),
    /// Write the identity down.
    Keep,
    /// Say where to post to.
    Subscribed,
    /// Handle this; say [`Input::Handled`] when it is done.
    Handle(Event),
    /// Tell the person.
    Tell(String),
    /// Close the websocket, for this reason, and try again.
    HangUp(String),
    /// It is no use, for this reason.
    GiveUp(String),
}

/// The user agent.
#[derive(Debug)]
pub(super) struct Agent {
    identity: Identity,
    phase: Phase,
    /// The endpoint has been said since the start, or since it changed.
    introduced: bool,
    /// Something of this connection was not understood, and the person knows.
    complained: bool,
    inbox: Inbox,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Phase {
    Away,
    /// hello is sent.
    Naming {
        until: Instant,
    },
    /// register is sent.
    Registering {
        until: Instant,
    },
    Ready {
        /// If nothing comes until then, something must be done.
        until: Instant,
        pinged: bool,
    },
}

impl Agent {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            phase: Phase::Away,
            introduced: false,
            complained: false,
            inbox: Inbox::default(),
            outputs: VecDeque::new(),
        }
    }

    pub(super) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether nothing more should be read.
    pub(super) fn is_full(&self) -> bool {
        self.inbox.is_full()
    }

    /// Whether it is connected and registered.
    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    /// When to come back with [`Input::TimePassed`].
    pub(super) const fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Away => None,
            Phase::Naming { until } | Phase::Registering { until } | Phase::Ready { until, .. } => {
                Some(until)
            }
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Connected => self.connected(now),
            Input::Lost => self.lost(),
            Input::Handled { well } => self.handled(well),
            Input::TimePassed => self.time_passed(now),
            Input::Alive => self.alive(now),
            Input::Garbage => self.not_understood(),
            Input::Text(text) => {
                self.alive(now);
                match parse(text) {
                    Ok(message) => self.message(now, message),
                    Err(_) => self.not_understood(),
                }
            }
        }
    }

    fn connected(&mut self, now: Instant) {
        let until = after(now, ANSWER_TIMEOUT);
        self.phase = Phase::Naming { until };
        self.complained = false;
        let identity = &self.identity;
        let channels = match identity.endpoint {
            Some(_) => &[identity.channel][..],
            None => &[],
        };
        let hello = hello(identity.dialect(), identity.uaid.as_deref(), channels);
        self.output(Output::Send(hello));
    }

    fn lost(&mut self) {
        self.phase = Phase::Away;
        self.inbox.lost();
        // What was to be sent has nobody to go to; the rest is still to be done.
        self.outputs
            .retain(|output| !matches!(output, Output::Send(_) | Output::HangUp(_)));
    }

    fn alive(&mut self, now: Instant) {
        if self.is_ready() {
            self.phase = Phase::Ready {
                until: after(now, SILENCE_MAX),
                pinged: false,
            };
        }
    }

    fn time_passed(&mut self, now: Instant) {
        let what = match self.phase {
            Phase::Naming { until } if now >= until => "to hello",
            Phase::Registering { until } if now >= until => "to register",
            Phase::Ready { until, pinged } if now >= until => {
                if !pinged {
                    self.phase = Phase::Ready {
                        until: after(now, ANSWER_TIMEOUT),
                        pinged: true,
                    };
                    return self.output(Output::Send(PING.to_owned()));
                }
                "to a ping"
            }
            Phase::Away
            | Phase::Naming { .. }
            | Phase::Registering { .. }
            | Phase::Ready { .. } => {
                return;
            }
        };
        let secs = ANSWER_TIMEOUT.as_secs();
        self.hang_up(format!("no answer {what} within {secs} s"));
    }

    fn message(&mut self, now: Instant, message: GatewayMessage) {
        match message {
            GatewayMessage::Hello { uaid, verdict, .. } => self.named(now, uaid, &verdict),
            GatewayMessage::Registered {
                channel,
                endpoint,
                verdict,
            } => self.registered(now, channel, endpoint, &verdict),
            // Nothing comes before the name is agreed on, except from a gateway that is broken.
            GatewayMessage::Notification(_) | GatewayMessage::Updates(_)
                if matches!(self.phase, Phase::Away | Phase::Naming { .. }) =>
            {
                self.not_understood();
            }
            GatewayMessage::Notification(notification) => self.notification(notification),
            GatewayMessage::Updates(updates) => {
                for update in updates {
                    self.update(update);
                }
            }
            GatewayMessage::Unregistered { .. }
            | GatewayMessage::Broadcasts(_)
            | GatewayMessage::Other => {}
        }
    }

    fn named(&mut self, now: Instant, uaid: Option<String>, verdict: &Verdict) {
        if !matches!(self.phase, Phase::Naming { .. }) {
            return self.not_understood();
        }
        if !verdict.is_ok() {
            return self.hang_up(format!("hello is refused: {}", Said(verdict)));
        }
        let Some(uaid) = uaid else {
            return self.hang_up("the answer to hello has no usable uaid".to_owned());
        };
        let known = self.identity.uaid.as_ref() == Some(&uaid);
        if known && self.identity.endpoint.is_some() {
            return self.ready(now);
        }
        if self.identity.endpoint.take().is_some() {
            let text = "the gateway does not know this user agent any more: registering again";
            self.output(Output::Tell(text.to_owned()));
            self.introduced = false;
        }
        self.identity.uaid = Some(uaid);
        let until = after(now, ANSWER_TIMEOUT);
        self.phase = Phase::Registering { until };
        let key = self.identity.server_key.as_deref();
        let register = register(self.identity.channel, key);
        self.output(Output::Send(register));
    }

    fn registered(
        &mut self,
        now: Instant,
        channel: ChannelId,
        endpoint: String,
        verdict: &Verdict,
    ) {
        let expected = matches!(self.phase, Phase::Registering { .. });
        if !expected || channel != self.identity.channel {
            return self.not_understood();
        }
        if !verdict.is_ok() {
            let text = format!("register is refused: {}", Said(verdict));
            // The main service answers 400 to a key that is none, and will again.
            return match verdict.status {
                400 => self.output(Output::GiveUp(text)),
                _ => self.hang_up(text),
            };
        }
        if PeerUrl::endpoint(&endpoint).is_err() {
            return self.hang_up("the answer to register has no usable endpoint".to_owned());
        }
        self.identity.endpoint = Some(endpoint);
        self.output(Output::Keep);
        self.ready(now);
    }

    fn ready(&mut self, now: Instant) {
        self.phase = Phase::Ready {
            until: after(now, SILENCE_MAX),
            pinged: false,
        };
        if !self.introduced {
            self.introduced = true;
            self.output(Output::Subscribed);
        }
    }

    fn notification(&mut self, notification: Notification) {
        let Notification {
            channel,
            version,
            body,
        } = notification;
        if channel != self.identity.channel {
            let ack = ack(channel, &version, AckCode::NotDelivered);
            return self.output(Output::Send(ack));
        }
        if let Some(code) = self.inbox.seen(&version) {
            let ack = ack(channel, &version, code);
            return self.output(Output::Send(ack));
        }
        match self.open(body) {
            Ok(text) => self.arrived(Event::Message { version, text }),
            Err(error) => {
                let text = format!("a message cannot be decrypted: {error}");
                self.output(Output::Tell(text));
                self.ack(version, AckCode::DecryptionError);
            }
        }
    }

    fn open(&self, body: Body) -> Result<Vec<u8>, DecryptError> {
        match (body, &self.identity.keys) {
            (Body::Empty, _) => Ok(Vec::new()),
            (Body::Malformed, _) => Err(DecryptError::Encoding),
            (Body::Encrypted(_), None) => Err(DecryptError::Keys),
            (Body::Encrypted(body), Some(keys)) => decrypt(&body.data, body.headers(), keys),
        }
    }

    fn update(&mut self, update: Update) {
        if update.channel != self.identity.channel || self.inbox.is_repeated(&update) {
            let ack = ack_update(update.channel, update.version);
            return self.output(Output::Send(ack));
        }
        self.arrived(Event::Update(update));
    }

    fn arrived(&mut self, event: Event) {
        self.inbox.put(event);
        self.hand_out();
    }

    fn hand_out(&mut self) {
        if let Some(event) = self.inbox.next() {
            self.output(Output::Handle(event));
        }
    }

    fn handled(&mut self, well: bool) {
        match self.inbox.handled() {
            Some(Event::Message { version, .. }) => {
                let nack = (!well).then(|| nack(&version, NackCode::HANDLER_FAILED));
                self.ack(version, AckCode::Delivered);
                // As Firefox: it has arrived, and then it was of no use.
                if let Some(nack) = nack
                    && self.is_ready()
                {
                    self.output(Output::Send(nack));
                }
            }
            Some(Event::Update(update)) => {
                let acked_here = self.is_ready();
                if acked_here {
                    let ack = ack_update(update.channel, update.version);
                    self.output(Output::Send(ack));
                }
                self.inbox.update_handled(update.version, acked_here);
            }
            None => {}
        }
        self.hand_out();
    }

    /// Acks now, or when the message comes again.
    fn ack(&mut self, version: String, code: AckCode) {
        if self.is_ready() {
            let ack = ack(self.identity.channel, &version, code);
            self.output(Output::Send(ack));
        }
        self.inbox.remember(version, code);
    }

    /// Once for each connection: a gateway that is broken must not fill a log.
    fn not_understood(&mut self) {
        if !self.complained {
            self.complained = true;
            let text = "the gateway says something that is not understood; it is ignored";
            self.output(Output::Tell(text.to_owned()));
        }
    }

    fn hang_up(&mut self, why: String) {
        self.phase = Phase::Away;
        self.output(Output::HangUp(why));
    }

    fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }
}

/// What the gateway said, for people.
struct Said<'a>(&'a Verdict);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { status, reason } = self.0;
        match reason {
            Some(reason) => write!(f, "status {status}, {reason:.200}"),
            None => write!(f, "status {status}"),
        }
    }
}

fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}
