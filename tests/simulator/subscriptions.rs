//! Which subscriptions there are, as far as that can be told from outside.

use uuid::Uuid;

use super::{Checker, Moment};
use crate::frames::Spelled;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Truth {
    /// Something is under way, or ended without an answer.
    Unknown,
    Subscribed,
    Ended,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(super) truth: Truth,
    pub(super) since: u64,
    last_op: u64,
    pub(super) unregistered: Option<u64>,
    /// Under which database it was registered last.
    generation: u32,
    pub(super) disowned: Option<u64>,
    pub(crate) endpoints: Vec<EndpointUrl>,
    /// Of the user agent, when it registered.
    pub(crate) name: String,
    /// How it may be spelled, by the step in which that was said.
    spellings: Vec<(u64, String)>,
}

#[derive(Clone, Debug)]
pub(crate) struct EndpointUrl {
    pub(crate) path: String,
    pub(crate) restricted: bool,
    pub(crate) generation: u32,
}

/// Whether the gateway must know a user agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Knows {
    Yes,
    No,
    Perhaps,
}

/// One UAID in one spelling; `None` if it cannot be one.
pub(crate) fn name_of(uaid: &str) -> Option<String> {
    let uuid = Uuid::parse_str(uaid).ok()?;
    matches!(uaid.len(), 32 | 36).then(|| uuid.simple().to_string())
}

impl Subscription {
    pub(crate) fn is_certain(&self, generation: u32) -> bool {
        self.truth == Truth::Subscribed && self.generation == generation
    }
}

impl Checker {
    /// The gateway has read a register or an unregister.
    pub(crate) fn subscription_op(
        &mut self,
        agent: usize,
        name: &str,
        channel: &Spelled,
        ends: bool,
        now: Moment,
    ) {
        let key = (agent, channel.channel);
        let subscription = self.subscriptions.entry(key);
        let subscription = subscription.or_insert_with(|| Subscription {
            truth: Truth::Unknown,
            since: 0,
            last_op: 0,
            unregistered: None,
            generation: 0,
            disowned: None,
            endpoints: Vec::new(),
            name: name.to_owned(),
            spellings: Vec::new(),
        });
        subscription.truth = Truth::Unknown;
        subscription.since = now.step;
        subscription.last_op = now.step;
        if ends {
            subscription.unregistered = Some(now.step);
            self.versions.ended(key, false, now.step);
        } else {
            let spelling = (now.step, channel.text.clone());
            subscription.spellings.push(spelling);
        }
    }

    /// The gateway has answered a register or an unregister that it read at `op_step`.
    pub(crate) fn subscription_answered(
        &mut self,
        agent: usize,
        channel: Uuid,
        op_step: u64,
        outcome: Result<Option<EndpointUrl>, u64>,
        now: Moment,
    ) {
        let subscription = self.subscriptions.get_mut(&(agent, channel));
        let subscription = subscription.expect("answered what was asked");
        let truth = match outcome {
            Ok(Some(endpoint)) => {
                subscription.generation = endpoint.generation;
                let same = |known: &EndpointUrl| known.path == endpoint.path;
                if !subscription.endpoints.iter().any(same) {
                    subscription.endpoints.push(endpoint);
                }
                subscription.spellings.retain(|(step, _)| *step >= op_step);
                Truth::Subscribed
            }
            Ok(None) => {
                self.versions.ended((agent, channel), true, now.step);
                Truth::Ended
            }
            Err(_) => Truth::Unknown,
        };
        if subscription.last_op == op_step {
            subscription.truth = truth;
            subscription.since = now.step;
        }
    }

    /// A user agent has lost count of its channels: all of them end.
    pub(crate) fn forgotten(&mut self, agent: usize, name: &str, now: Moment) {
        for (key, subscription) in &mut self.subscriptions {
            if key.0 == agent && subscription.name == name {
                subscription.truth = Truth::Unknown;
                subscription.since = now.step;
                subscription.last_op = now.step;
                subscription.unregistered = Some(now.step);
                self.versions.ended(*key, false, now.step);
            }
        }
    }

    pub(crate) fn database_lost(&mut self, step: u64) {
        self.by_id.clear();
        self.versions.database_lost();
        for ((_, channel), subscription) in &mut self.subscriptions {
            subscription.disowned = None;
            // An endpoint does not say how its channel is spelled.
            subscription.spellings.push((step, channel.to_string()));
            if subscription.truth == Truth::Ended {
                subscription.truth = Truth::Unknown;
                subscription.since = step;
            }
        }
    }

    /// Whether the gateway must know a user agent that is not named by itself.
    pub(crate) fn knows(&self, agent: usize, name: &str, generation: u32) -> Knows {
        let all = self.subscriptions.iter();
        let mut knows = Knows::No;
        for (_, subscription) in all.filter(|(key, s)| key.0 == agent && s.name == name) {
            if subscription.is_certain(generation) {
                return Knows::Yes;
            }
            if subscription.truth != Truth::Ended {
                knows = Knows::Perhaps;
            }
        }
        knows
    }

    /// The highest version of a channel of the user agent that goes by `name` has been written down.
    pub(crate) fn version_saved(&mut self, name: &str, channel: Uuid, version: u64) {
        for (key, subscription) in &self.subscriptions {
            if key.1 == channel && subscription.name == name {
                self.versions.version_saved(*key, version);
            }
        }
    }

    /// Something is sent for this channel.
    pub(super) fn may_be_sent_to(&self, agent: usize, channel: Uuid, uaid: &str) {
        let subscription = self.subscriptions.get(&(agent, channel));
        let subscription = subscription.expect("sent for a channel that was never registered");
        assert_eq!(
            Some(&subscription.name),
            name_of(uaid).as_ref(),
            "sent to another user agent"
        );
        assert_ne!(
            subscription.truth,
            Truth::Ended,
            "sent after its unregister was answered"
        );
    }

    /// A channel is named to its user agent.
    pub(super) fn is_spelled_right(&self, agent: usize, channel: Uuid, text: &str) {
        let spellings = &self.subscriptions[&(agent, channel)].spellings;
        assert!(
            spellings.iter().any(|(_, spelling)| spelling == text),
            "{text} is none of {spellings:?}"
        );
    }
}
