//! What is asked of the links for others, and what comes of it.

use std::collections::BTreeMap;

use crate::engine::SessionId;
use crate::model::dialect::Dialect;
use crate::model::ids::{ChannelId, Uaid};
use crate::model::upstream::{Borrowed, Name, Owner, Received};
use crate::protocol::keyring::KeyDigest;
use crate::protocol::user_agent::Notification;

/// A register that waits for the main service.
#[derive(Debug)]
pub(in crate::engine) struct Wanted {
    pub(in crate::engine) session: SessionId,
    pub(in crate::engine) uaid: Uaid,
    pub(in crate::engine) channel: ChannelId,
    pub(in crate::engine) dialect: Dialect,
    /// As its user agent spells the channel.
    pub(in crate::engine) spelling: Box<str>,
    pub(in crate::engine) restricted_to: Option<KeyDigest>,
    /// The key of that, as it was sent.
    pub(in crate::engine) key: Option<Box<str>>,
}

/// A subscription that the main service has made, on its way to flash.
#[derive(Debug)]
pub(in crate::engine) struct Borrowing {
    pub(in crate::engine) session: SessionId,
    pub(in crate::engine) spelling: Box<str>,
    pub(in crate::engine) borrowed: Borrowed,
}

/// What comes of the links for others.
#[derive(Debug)]
pub(in crate::engine) enum Outcome {
    /// The main service has made a subscription. It is to be written down, or to be given back with
    /// [`Upstream::give_back`](super::Upstream::give_back).
    Made {
        wanted: Wanted,
        name: Name,
        endpoint: Box<str>,
    },
    /// There is no subscription there.
    NotMade(Wanted, NotMade),
    /// A push message, to be judged.
    Message {
        owner: Owner,
        received: Received,
        /// Whose, if the subscription is known.
        subscription: Option<(Uaid, ChannelId)>,
        notification: Notification,
    },
    /// These user agents must subscribe again.
    Lost(Vec<Uaid>),
    /// Versions of broadcasts.
    Broadcasts(BTreeMap<String, String>),
}

/// Why there is no subscription.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::engine) enum NotMade {
    /// The main service cannot be reached, or did not answer in time, or has a fault.
    Unreachable,
    /// It does not take the key.
    InvalidKey,
    /// The user agent has changed its mind.
    Cancelled,
}
