//! What may be chosen about the link to the main service, and what is kept of it.

use std::time::Duration;

use super::ids::{ChannelId, Tag, Uaid};
use super::join_token::JoinToken;

/// What may be chosen about the link to the main service, beside how to get there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    /// Which service it is, in one spelling: names that it gave belong to this. Empty: there is none.
    pub service: Box<str>,
    /// Which subscriptions are borrowed.
    pub endpoints: Endpoints,
    /// Who the gateway is there.
    pub identity: Identity,
    /// What a user agent gets while the service cannot be reached.
    pub unreachable: Unreachable,
    /// How long the service has to answer a register.
    pub register_timeout: Duration,
    /// Silence after which it is asked whether it is there.
    pub ping_after: Duration,
    /// Longest wait between two attempts to connect.
    pub reconnect_max: Duration,
    /// Most attempts in a minute, all links together.
    pub connects_per_min_max: u32,
    /// Whether broadcasts are asked for there.
    pub broadcasts: bool,
}

impl Upstream {
    /// What is left where there was a main service, and none is configured any more.
    pub fn taken_away() -> Self {
        Self {
            broadcasts: false,
            ..Self::default()
        }
    }

    /// Whether there is a main service.
    pub const fn is_there(&self) -> bool {
        !self.service.is_empty()
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            service: "".into(),
            endpoints: Endpoints::None,
            identity: Identity::PerUserAgent,
            unreachable: Unreachable::Local,
            register_timeout: Duration::from_secs(3),
            ping_after: Duration::from_secs(330),
            reconnect_max: Duration::from_secs(300),
            connects_per_min_max: 30,
            broadcasts: true,
        }
    }
}

/// Which subscriptions are borrowed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoints {
    /// None.
    None,
    /// Each.
    All,
    /// Those that one of these fits.
    Rules(Vec<Rule>),
}

impl Endpoints {
    /// Whether a subscription that is registered like this is borrowed.
    pub fn fit(&self, registering: &Registering<'_>) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Rules(rules) => rules.iter().any(|rule| rule.fits(registering)),
        }
    }

    /// Whether user agents that come in by this first segment of a path are meant by a rule.
    pub fn mean_path(&self, segment: &str) -> bool {
        let Self::Rules(rules) = self else {
            return false;
        };
        // All of them are looked at, so that the time tells nothing.
        rules.iter().fold(false, |found, rule| match rule {
            Rule::JoinToken(token) => found | token.is(segment),
            Rule::Vapid(_) | Rule::UserAgent(_) => found,
        })
    }
}

/// What a subscription must be like to be borrowed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rule {
    /// Restricted to this VAPID key: base64url without padding.
    Vapid(Box<str>),
    /// Of the user agent whose name begins like this.
    UserAgent(Tag),
    /// Of a user agent that came in with this token.
    JoinToken(JoinToken),
}

impl Rule {
    fn fits(&self, registering: &Registering<'_>) -> bool {
        match self {
            Self::Vapid(key) => registering
                .key
                .is_some_and(|own| own.trim_end_matches('=') == &**key),
            Self::UserAgent(tag) => registering.uaid.tag() == *tag,
            Self::JoinToken(_) => registering.by_path,
        }
    }
}

/// A subscription that is being registered.
#[derive(Clone, Copy, Debug)]
pub struct Registering<'a> {
    /// By whom.
    pub uaid: Uaid,
    /// The VAPID key that it is to be restricted to, as it was sent.
    pub key: Option<&'a str>,
    /// Its user agent came in by a path that [`Endpoints::mean_path`].
    pub by_path: bool,
}

/// Who the gateway is at the main service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Identity {
    /// A name for each user agent: what happens to one there happens to no other.
    PerUserAgent,
    /// One name for all: the service sees one user agent.
    Shared,
}

/// What a user agent gets that registers while the main service cannot be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unreachable {
    /// An endpoint of the gateway itself.
    Local,
    /// An error: it will try again.
    Refuse,
}

/// Whose link it is: a user agent's, or that of all.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Owner(pub Uaid);

impl Owner {
    /// Of the link that all share.
    pub const ALL: Self = Self(Uaid::from_bytes([0; 16]));
}

/// What is remembered of a message's name at the main service: enough to know it again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Received(pub [u8; 16]);

/// A subscription that is borrowed, as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Borrowed {
    /// By whose link.
    pub owner: Owner,
    /// What the main service knows it by.
    pub alias: ChannelId,
    /// Whose it is.
    pub uaid: Uaid,
    /// What its user agent knows it by.
    pub channel: ChannelId,
    /// The main service's endpoint.
    pub endpoint: Box<str>,
    /// The VAPID key that it is restricted to, as its user agent sent it.
    pub key: Option<Box<str>>,
    /// It has ended here, and the main service has not confirmed that.
    pub ended: bool,
}

/// The name that the main service has given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name {
    /// To whose link.
    pub owner: Owner,
    /// The name.
    pub name: Box<str>,
    /// Which service it was.
    pub service: Box<str>,
}

/// All that is kept of the links.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Kept {
    /// The names there.
    pub names: Vec<Name>,
    /// The subscriptions there.
    pub borrowed: Vec<Borrowed>,
    /// Messages that were taken and may come again.
    pub received: Vec<(Owner, Received)>,
    /// User agents whose subscriptions there are lost, and who do not know it.
    pub to_tell: Vec<Uaid>,
}
