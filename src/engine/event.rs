//! What can happen to the engine, and what it asks for: the whole of its language with `io`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::model::limits::WEBSOCKET_MESSAGE_BYTES_MAX;
use crate::model::store::{StoreOp, StoreReply};
use crate::model::wakeup::Wakeup;
use crate::protocol::client_message::MessageError;
use crate::protocol::http::{BaseUrl, Request, Response};
use crate::protocol::peer_url::PeerUrl;
use crate::protocol::simplepush_message::Refusal;

/// Names one websocket for as long as it is open.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionId(pub u64);

/// Names one HTTP request until it is answered.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId(pub u64);

/// What can happen.
#[derive(Debug)]
pub enum Input<'a> {
    /// A websocket has opened.
    Opened(Opening),
    /// A user agent sent a text message. Never between [`Output::Pause`] and [`Output::Resume`].
    Text {
        /// Which.
        session: SessionId,
        /// The whole message.
        text: &'a str,
    },
    /// A user agent sent a binary message. Never between [`Output::Pause`] and [`Output::Resume`].
    Binary {
        /// Which.
        session: SessionId,
        /// The whole message.
        bytes: &'a [u8],
    },
    /// A user agent sent a websocket ping or pong: it is there.
    Alive {
        /// Which.
        session: SessionId,
    },
    /// A user agent sent what no websocket message of this protocol is.
    Violation {
        /// Which.
        session: SessionId,
        /// How.
        violation: Violation,
    },
    /// The socket has taken every frame that it was given.
    AllSent {
        /// Which.
        session: SessionId,
    },
    /// A websocket is no more. Harmless when repeated, or after a close of ours.
    Gone {
        /// Which.
        session: SessionId,
    },
    /// An HTTP request. Answered by exactly one [`Output::Respond`].
    Request {
        /// Its name from here on.
        request: RequestId,
        /// What it asks.
        head: Box<Request>,
    },
    /// A connection was turned away before it could say anything. It is only counted.
    TurnedAway(TurnedAway),
    /// A connection has come to nothing. It is only counted.
    Failed(Failure),
    /// The source of broadcasts has been read: each with its version.
    Broadcasts(BTreeMap<String, String>),
    /// Something happened on a connection to the main service. Harmless after its end.
    Up {
        /// Which.
        link: LinkId,
        /// What.
        event: UpEvent<'a>,
    },
    /// Replies of the storage thread, in the order of their operations.
    Stored(Vec<StoreReply>),
    /// [`Engine::next_deadline`](super::Engine::next_deadline) has passed. Harmless when early or repeated.
    Timeout,
    /// The process is asked to end. [`Output::Stopped`] follows.
    Stop,
}

/// Names one connection to the main service, from the attempt to its end.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkId(pub u64);

/// What can happen on a connection to the main service.
#[derive(Debug)]
pub enum UpEvent<'a> {
    /// The websocket is open.
    Opened,
    /// A text message came.
    Text(&'a str),
    /// A websocket ping came: the service is there.
    Alive,
    /// A websocket pong came: it has read all that was sent before the ping.
    Pong,
    /// Something came that is none of the protocol.
    Garbage,
    /// There is no connection, or none any more. Nothing follows.
    Ended(LinkEnd),
}

/// How a connection to the main service came to its end, or not to its beginning.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkEnd {
    /// In words, for the operator.
    pub why: String,
    /// Trying again soon is no use: somebody must change something.
    pub is_lasting: bool,
    /// What the service asked for before the next attempt.
    pub retry_after: Duration,
    /// Where the service has sent on to instead of opening a websocket, as it said it.
    pub redirect: Option<Box<str>>,
    /// Fresh random bytes, for the wait before the next attempt.
    pub random: [u8; 2],
}

/// What is to be done with a connection to the main service.
#[derive(Debug, Eq, PartialEq)]
pub enum UpOrder {
    /// Open it, to where the service is configured or else here. Answered by [`UpEvent::Opened`] or
    /// [`UpEvent::Ended`].
    Connect(Option<Box<PeerUrl>>),
    /// Send a text message.
    Send(String),
    /// Send a websocket ping.
    Ping,
    /// Close it. [`UpEvent::Ended`] follows.
    Close,
}

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TurnedAway {
    /// Too many are open.
    TooMany,
    /// Too many are open from its address.
    TooManyOfAddress,
    /// Too many have come from its address lately.
    TooFast,
}

/// What a connection has come to nothing by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The system had none to give: no descriptor is left.
    Accept,
    /// No end of the TLS handshake, or not in time.
    Handshake,
    /// What came is no HTTP, or more of it than is taken.
    Malformed,
    /// A request began, or should have, and did not arrive in time.
    SlowRequest,
    /// The peer did not read in time what it was sent.
    Unread,
}

/// A websocket that has opened.
#[derive(Debug)]
pub struct Opening {
    /// Its name from here on.
    pub session: SessionId,
    /// Where the user agent is.
    pub peer: IpAddr,
    /// How the user agent reached us.
    pub base_url: Option<BaseUrl>,
    /// It came on SimplePush's own path.
    pub simplepush_path: bool,
    /// Its path is one whose user agents borrow their subscriptions.
    pub borrows: bool,
    /// Fresh random bytes, for the name that it may need.
    pub random: [u8; 8],
}

/// What no websocket message of this protocol is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Violation {
    /// A message above [`WEBSOCKET_MESSAGE_BYTES_MAX`].
    TooLong,
    /// Anything against RFC 6455.
    Protocol,
}

/// What the engine asks of its caller, in the order in which it must be done.
#[derive(Debug)]
pub enum Output {
    /// Send a text frame.
    Send {
        /// To whom.
        session: SessionId,
        /// The message.
        text: String,
    },
    /// Send a websocket ping.
    Ping {
        /// To whom.
        session: SessionId,
    },
    /// Read no further messages of this user agent until [`Output::Resume`]: an answer is on its
    /// way, and answers keep the order of their questions.
    Pause {
        /// Whose.
        session: SessionId,
    },
    /// Read again.
    Resume {
        /// Whose.
        session: SessionId,
    },
    /// Close the websocket. Nothing follows for this session.
    Close {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// Answer a request. Nothing follows for it.
    Respond {
        /// Which.
        request: RequestId,
        /// 101 opens the websocket that was asked for.
        response: Response,
    },
    /// Send a datagram to a user agent that sleeps.
    Datagram {
        /// Where it listens.
        to: SocketAddr,
    },
    /// Ask the operator's proxy for the datagram.
    AskProxy {
        /// Who is asked.
        url: Box<str>,
        /// Where the user agent listens.
        wakeup: Wakeup,
    },
    /// Do something with a connection to the main service.
    Up {
        /// Which.
        link: LinkId,
        /// What.
        order: UpOrder,
    },
    /// Give the operation to the storage thread.
    Store(StoreOp),
    /// Everything is in order to end the process.
    Stopped,
}

/// Why the gateway ended a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseReason {
    /// The process ends.
    GoingAway,
    /// The user agent has opened another websocket.
    Superseded,
    /// No `hello` in time.
    HelloTimeout,
    /// No answer to a websocket ping in time.
    PongTimeout,
    /// A message that is not one.
    BadMessage(MessageError),
    /// Another message before `hello`.
    HelloExpected,
    /// A `hello` from a user agent that had already said it.
    SecondHello,
    /// A SimplePush message that was refused; the answer to it went before.
    Refused(Refusal),
    /// A SimplePush user agent that will be woken by a datagram.
    WillBeWoken,
    /// The user agent has ended its registration over HTTP.
    Deregistered,
    /// Its subscriptions at the main service are lost: its next hello gets it a new name.
    SubscriptionsLost,
    /// Application pings in too quick a succession.
    PingTooSoon,
    /// A binary message.
    BinaryMessage,
    /// A message above the limit.
    MessageTooLong,
    /// Anything against RFC 6455.
    ProtocolViolation,
    /// The storage failed at what the user agent has subscribed to, or is owed.
    StorageFault,
}

impl CloseReason {
    /// The close code (RFC 6455 section 7.4; which one for what: PROTOCOL.md part 3, 4.2).
    pub const fn code(self) -> u16 {
        match self {
            Self::Deregistered => 1000,
            Self::GoingAway => 1001,
            Self::MessageTooLong | Self::ProtocolViolation => 1002,
            Self::BinaryMessage => 1003,
            Self::WillBeWoken => 4774,
            Self::Superseded
            | Self::SubscriptionsLost
            | Self::HelloTimeout
            | Self::PongTimeout
            | Self::BadMessage(_)
            | Self::HelloExpected
            | Self::SecondHello
            | Self::Refused(_)
            | Self::PingTooSoon
            | Self::StorageFault => 1011,
        }
    }

    /// The reason in words, at most 123 bytes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GoingAway => "push service is stopping or restarting; connect again",
            Self::Superseded => "this user agent has opened another websocket",
            Self::HelloTimeout => "no hello in time",
            Self::PongTimeout => "no pong in time",
            Self::BadMessage(error) => error.as_str(),
            Self::HelloExpected => "the first message must be hello",
            Self::SecondHello => "only one hello per websocket",
            Self::Refused(refusal) => refusal.as_str(),
            Self::WillBeWoken => "UDP Wakeup",
            Self::Deregistered => "this user agent has ended its registration",
            Self::SubscriptionsLost => {
                "the main push service has lost subscriptions; connect again"
            }
            Self::PingTooSoon => "pings come too quickly",
            Self::BinaryMessage => "messages must be text frames",
            Self::MessageTooLong => {
                const { assert!(WEBSOCKET_MESSAGE_BYTES_MAX == 65_536) };
                "message is longer than 65536 bytes"
            }
            Self::ProtocolViolation => "not a valid websocket frame",
            Self::StorageFault => "storage failed; connect again later",
        }
    }
}

impl From<Violation> for CloseReason {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::TooLong => Self::MessageTooLong,
            Violation::Protocol => Self::ProtocolViolation,
        }
    }
}
