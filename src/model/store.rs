//! What the engine asks of the storage thread, and what comes back.
//!
//! Operations are carried out in the order in which they were asked for, each seeing all before
//! it; replies come in the same order, after the commit that made them durable.

use std::fmt;
use std::sync::Arc;

use super::dialect::Dialect;
use super::ids::{ChannelId, DatabaseId, MessageId, Uaid};
use super::message::{PushMessage, Urgency};
use super::time::ServiceTime;
use super::upstream::{self, Kept, Name, Owner, Received};
use super::version::Version;
use super::wakeup::Wakeup;

/// One operation on what is kept.
#[derive(Clone, Debug)]
pub enum StoreOp {
    /// What a returning user agent is subscribed to. Answered by [`StoreReply::Loaded`].
    Load {
        /// Whose subscriptions.
        uaid: Uaid,
    },
    /// Makes a subscription; making it again changes nothing.
    ///
    /// Answered by [`StoreReply::Subscribed`].
    Subscribe {
        /// Whose.
        uaid: Uaid,
        /// Its name.
        channel: ChannelId,
        /// How the user agent spells that, if otherwise than in lower case with dashes.
        spelling: Option<Box<str>>,
        /// What the user agent speaks: decides what is kept while it is away.
        dialect: Dialect,
        /// Most subscriptions that the user agent may have, this one included.
        subscriptions_max: u32,
    },
    /// Ends a subscription and drops its messages, whether it existed or not.
    ///
    /// Of one that may belong to a lost database a tombstone is kept, so that an endpoint minted
    /// there does not bring it back. Answered by [`StoreReply::Done`].
    Unsubscribe {
        /// Whose.
        uaid: Uaid,
        /// Its name.
        channel: ChannelId,
    },
    /// Ends a subscription only if it was taken back from a lost database: its user agent has just
    /// said (ack code 102) that it does not know it. Answered by [`StoreReply::Done`].
    Disown {
        /// Whose.
        uaid: Uaid,
        /// Its name.
        channel: ChannelId,
    },
    /// Ends every subscription of a user agent, as [`Unsubscribe`](Self::Unsubscribe) does.
    /// Answered by [`StoreReply::Done`].
    Forget {
        /// Whose.
        uaid: Uaid,
    },
    /// Whether a push message could be kept for this subscription.
    ///
    /// Answered by [`StoreReply::Subscription`]. Never changes anything.
    Find {
        /// Whose.
        uaid: Uaid,
        /// Its name.
        channel: ChannelId,
        /// The endpoint was minted under a database that was lost: without a tombstone the
        /// subscription counts as there.
        lost: bool,
    },
    /// Keeps a push message; it replaces an older one of the same subscription and topic.
    ///
    /// A version update takes the place of a lower one of its subscription, and is kept as if it
    /// were not there behind a higher one. Of a SimplePush subscription nothing but that is kept:
    /// any other message becomes one.
    ///
    /// Answered by [`StoreReply::Enqueued`].
    Enqueue {
        /// For whom.
        uaid: Uaid,
        /// What.
        message: Arc<PushMessage>,
        /// As in [`Find`](Self::Find), with what its user agent spoke: the subscription is taken
        /// back in.
        lost: Option<Dialect>,
        /// The version of an update that names none, if its channel has had no higher one.
        version_clock: Version,
        /// Versions from here on are written down for the channel as well: with the message gone,
        /// neither the version clock nor a kill would leave anything above them.
        noted_from: Version,
        /// What the user agent's queue may hold with this message in it.
        quota: Quota,
        /// It came from the main service: if it is kept, this is remembered with it.
        received: Option<(Owner, Received)>,
    },
    /// The oldest messages of a user agent that it has not read yet and that are not expired.
    ///
    /// Answered by [`StoreReply::Page`].
    Fetch {
        /// Whose.
        uaid: Uaid,
        /// Only messages after these.
        after: Cursors,
        /// Only messages of at least this urgency.
        urgency_min: Urgency,
        /// What is expired by now is left out.
        now: ServiceTime,
        /// Most messages of the page; at least one.
        messages_max: u32,
        /// The page ends with the message that reaches this many bytes.
        bytes_max: usize,
    },
    /// Drops messages that were acknowledged or deleted. Unknown ones are no error.
    ///
    /// Answered by [`StoreReply::Done`].
    Delete(Vec<Deletion>),
    /// Drops some of the messages that are expired. Answered by [`StoreReply::Expired`].
    Expire {
        /// The time to judge by.
        now: ServiceTime,
        /// Most messages to drop in this step.
        messages_max: u32,
    },
    /// Writes down how far both clocks have come. Answered by [`StoreReply::Done`].
    SaveTime {
        /// How long the gateway has run.
        service_time: ServiceTime,
        /// What the version clock stays below, or where it stopped.
        version_clock: Version,
    },
    /// Writes down the highest versions of channels that the version clock has not passed yet.
    /// Answered by [`StoreReply::Done`].
    SaveVersions {
        /// Whose.
        uaid: Uaid,
        /// Its channels and their highest versions.
        versions: Vec<(ChannelId, Version)>,
    },
    /// Writes down how a user agent that disconnects is woken up. Answered by [`StoreReply::Done`].
    Sleep {
        /// Whose.
        uaid: Uaid,
        /// How.
        wakeup: Wakeup,
    },
    /// A user agent is back and needs no waking. Answered by [`StoreReply::Done`].
    Woken {
        /// Whose.
        uaid: Uaid,
    },
    /// Who sleeps. Answered by [`StoreReply::Sleepers`].
    Sleepers,
    /// Something about the links to the main service.
    Upstream(UpstreamOp),
}

/// One operation on what is kept of the links to the main service.
#[derive(Clone, Debug)]
pub enum UpstreamOp {
    /// All of it. Answered by [`StoreReply::Upstream`].
    Load,
    /// Makes a subscription that is borrowed, as [`StoreOp::Subscribe`] does, and writes down what
    /// the main service calls it and the owner of its link.
    ///
    /// Answered by [`StoreReply::Subscribed`].
    Borrow {
        /// The name of the link's owner there.
        name: Name,
        /// The subscription there.
        borrowed: upstream::Borrowed,
        /// As in [`StoreOp::Subscribe`].
        spelling: Option<Box<str>>,
        /// As in [`StoreOp::Subscribe`].
        dialect: Dialect,
        /// As in [`StoreOp::Subscribe`].
        subscriptions_max: u32,
    },
    /// The main service has confirmed that a subscription has ended, or says that it has: forgets it
    /// if it has ended here. Answered by [`StoreReply::Done`].
    Returned {
        /// Of which link.
        owner: Owner,
        /// Which.
        alias: ChannelId,
    },
    /// The main service does not know a name any more: all of its subscriptions there are gone, and
    /// their user agents must be told. Answered by [`StoreReply::Done`].
    Lost {
        /// Of which link.
        owner: Owner,
    },
    /// The subscriptions of a user agent there were lost with a database, and it must be told.
    /// Answered by [`StoreReply::Done`].
    ToTell {
        /// Who.
        uaid: Uaid,
    },
    /// These messages were acked, and may come again all the same: remembers them as those that were
    /// kept. Answered by [`StoreReply::Done`].
    Acked {
        /// Of which link.
        owner: Owner,
        /// Which.
        received: Vec<Received>,
    },
    /// These messages cannot come again. Answered by [`StoreReply::Done`].
    Settled {
        /// Of which link.
        owner: Owner,
        /// Which.
        received: Vec<Received>,
    },
}

/// What to drop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deletion {
    /// One message.
    Message {
        /// Which.
        id: MessageId,
        /// Only if it belongs to this user agent; `None` for an application server, which has
        /// proved itself by the message's unguessable URL. What has become a version update stays
        /// for it: it may stand for others, which it took the place of.
        owner: Option<Uaid>,
    },
    /// The version update of a channel, unless it is a higher one or came after the ack: this may be
    /// tried again much later.
    Update {
        /// Whose.
        uaid: Uaid,
        /// Which channel.
        channel: ChannelId,
        /// The version that was acked.
        version: Version,
        /// The last message that there was then.
        until: MessageId,
    },
}

/// A subscription as it is kept.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Subscription {
    /// Its name.
    pub channel: ChannelId,
    /// How its user agent spells that, if otherwise than in lower case with dashes.
    pub spelling: Option<Box<str>>,
    /// The highest version that it had, as far as that is written down.
    pub last_version: Option<Version>,
    /// It was taken back in from a lost database, and its user agent has not registered it since.
    pub is_restored: bool,
}

/// A user agent that waits to be woken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sleeper {
    /// Who.
    pub uaid: Uaid,
    /// How it is woken.
    pub wakeup: Wakeup,
    /// Whether something waits for it.
    pub is_due: bool,
}

/// How far a queue has been read: the last message of each urgency. They differ where less urgent
/// messages were held back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cursors([MessageId; Urgency::ALL.len()]);

impl Cursors {
    /// Before the first message.
    pub const START: Self = Self([MessageId::ZERO; Urgency::ALL.len()]);

    /// The last message of this urgency.
    pub fn of(&self, urgency: Urgency) -> MessageId {
        self.0[usize::from(urgency.as_number())]
    }

    /// Everything of at least `urgency_min` has been read up to `id`.
    pub fn advance(&mut self, urgency_min: Urgency, id: MessageId) {
        for cursor in self.0.iter_mut().skip(usize::from(urgency_min.as_number())) {
            *cursor = (*cursor).max(id);
        }
    }
}

/// Bounds on what is kept, in the state that the new message would make.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quota {
    /// Most messages of one subscription.
    pub subscription_messages_max: u32,
    /// Most bytes ([`PushMessage::cost_bytes`]) of one subscription.
    pub subscription_bytes_max: u64,
    /// Most messages of one user agent.
    pub messages_max: u32,
    /// Most bytes ([`PushMessage::cost_bytes`]) of one user agent.
    pub bytes_max: u64,
    /// Most bytes of all user agents.
    pub total_bytes_max: u64,
}

/// What came of a [`StoreOp`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StoreReply {
    /// Nothing to say beyond "it is committed".
    Done,
    /// Of [`StoreOp::Load`], in no particular order. Empty for a user agent never heard of.
    Loaded(Vec<Subscription>),
    /// Of [`StoreOp::Subscribe`]: `false` when the user agent has too many already.
    Subscribed(bool),
    /// Of [`StoreOp::Find`].
    Subscription(bool),
    /// Of [`StoreOp::Enqueue`].
    Enqueued(EnqueueOutcome),
    /// Of [`StoreOp::Fetch`], in the order of their ids.
    Page {
        /// The messages.
        messages: Vec<PushMessage>,
        /// Whether there may be others behind them.
        more: bool,
    },
    /// Of [`StoreOp::Sleepers`], in no particular order.
    Sleepers(Vec<Sleeper>),
    /// Of [`UpstreamOp::Load`].
    Upstream(Box<Kept>),
    /// Of [`StoreOp::Expire`]: how many were dropped; fewer than asked for means that none is left.
    Expired(u32),
    /// The operation did nothing, and neither did anything committed with it.
    Failed(StoreError),
}

/// What came of a push message given to the storage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EnqueueOutcome {
    /// Kept.
    Kept,
    /// Kept, and its subscription was taken back in from a lost database.
    KeptAndRestored,
    /// There is no such subscription (any more).
    NoSubscription,
    /// What waits for the subscription has reached its own limit.
    SubscriptionFull,
    /// Its user agent's queue is full.
    QueueFull,
    /// The whole store is full by its quota.
    StoreFull,
}

impl EnqueueOutcome {
    /// Whether the message is on flash.
    pub const fn is_kept(self) -> bool {
        match self {
            Self::Kept | Self::KeptAndRestored => true,
            Self::NoSubscription | Self::SubscriptionFull | Self::QueueFull | Self::StoreFull => {
                false
            }
        }
    }
}

/// Why nothing was done. Each is a state of the disk, not a fault of the operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreError {
    /// No space left on the device.
    DiskFull,
    /// The file or the file system cannot be written.
    ReadOnly,
    /// The database is not a database (any more).
    Corrupt,
    /// The device failed, or anything else.
    Io,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskFull => "no space left on the device; make room in the data directory's disk",
            Self::ReadOnly => {
                "cannot be opened or written; check the file system and its permissions"
            }
            Self::Corrupt => {
                "database is damaged; restart edgepush, which replaces it and keeps what can be read"
            }
            Self::Io => "device failed; see the kernel's log (dmesg)",
        })
    }
}

impl std::error::Error for StoreError {}

/// What the storage knows when it has been opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opened {
    /// The database's own name.
    pub database: DatabaseId,
    /// Which start of the gateway on this database it is, from 1; already durable.
    pub run: u32,
    /// How long it has run before.
    pub service_time: ServiceTime,
    /// Where its version clock goes on: above all that it has shown.
    pub version_clock: Version,
    /// There may have been another one under the same key before it.
    pub lost_before: bool,
    /// Something is kept of links to a main service.
    pub has_links: bool,
}

impl Opened {
    /// A new and empty database of this name.
    pub const fn new(database: DatabaseId) -> Self {
        Self {
            database,
            run: 1,
            service_time: ServiceTime::from_secs(0),
            version_clock: Version::from_secs(0),
            lost_before: false,
            has_links: false,
        }
    }
}
