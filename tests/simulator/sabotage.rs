//! Gateways that break their promises on purpose: each must be found out, or the worlds prove nothing.
//!
//! Draws nothing by chance, so that a world without sabotage stays what it is.

use edgepush::engine::Output;
use edgepush::model::store::{EnqueueOutcome, StoreOp, StoreReply};

/// What is wrong with the gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sabotage {
    Nothing,
    /// Says that a message is kept, and keeps every third one only.
    ForgetsMessages,
    /// Says that acked messages are gone, and keeps them.
    KeepsTheAcked,
    /// Says that a subscription has ended, and keeps it.
    KeepsTheUnregistered,
    /// Says that it has written down the versions, and has not.
    ForgetsVersions,
    /// Says that it has written down who sleeps, and has not.
    ForgetsSleepers,
    /// What it has committed is gone with a kill.
    LosesCommits,
    /// Finds nothing on flash, now and then.
    OverlooksMessages,
    /// Begins the time that messages expire by anew at each start.
    ForgetsTime,
    /// Passes over what a user agent wants at least.
    IgnoresUrgency,
    /// Passes over an ack now and then.
    SkipsAcks,
    /// Believes that it has sent what it has not, now and then.
    SkipsNotifications,
    SendsTwice,
    SendsToAnother,
    SendsOutOfOrder,
    /// Leaves a request without an answer, now and then.
    SkipsAnswers,
    /// Asks for no datagram.
    SkipsDatagrams,
    /// Forgets to let a paused websocket go on.
    SkipsResumes,
}

/// All of them.
pub(crate) const ALL: &[Sabotage] = &[
    Sabotage::ForgetsMessages,
    Sabotage::KeepsTheAcked,
    Sabotage::KeepsTheUnregistered,
    Sabotage::ForgetsVersions,
    Sabotage::ForgetsSleepers,
    Sabotage::LosesCommits,
    Sabotage::OverlooksMessages,
    Sabotage::ForgetsTime,
    Sabotage::IgnoresUrgency,
    Sabotage::SkipsAcks,
    Sabotage::SkipsNotifications,
    Sabotage::SendsTwice,
    Sabotage::SendsToAnother,
    Sabotage::SendsOutOfOrder,
    Sabotage::SkipsAnswers,
    Sabotage::SkipsDatagrams,
    Sabotage::SkipsResumes,
];

/// What becomes of one output of the engine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Once,
    Never,
    Twice,
    /// To another session.
    Astray,
    /// Behind the next one.
    Later,
}

/// One gateway's, with how often there was an occasion.
#[derive(Debug)]
pub(crate) struct Saboteur {
    kind: Sabotage,
    occasions: u64,
}

impl Saboteur {
    pub(crate) const fn new(kind: Sabotage) -> Self {
        Self { kind, occasions: 0 }
    }

    pub(crate) fn is(&self, kind: Sabotage) -> bool {
        self.kind == kind
    }

    /// Every third time.
    const fn strikes(&mut self) -> bool {
        self.occasions += 1;
        self.occasions.is_multiple_of(3)
    }

    /// What is said of an operation that is not carried out.
    pub(crate) fn store(&mut self, op: &StoreOp) -> Option<StoreReply> {
        match (self.kind, op) {
            (Sabotage::ForgetsMessages, StoreOp::Enqueue { .. }) if !self.strikes() => {
                Some(StoreReply::Enqueued(EnqueueOutcome::Kept))
            }
            (Sabotage::KeepsTheAcked, StoreOp::Delete(_))
            | (Sabotage::KeepsTheUnregistered, StoreOp::Unsubscribe { .. })
            | (
                Sabotage::ForgetsVersions,
                StoreOp::SaveVersions { .. } | StoreOp::SaveTime { .. },
            )
            | (Sabotage::ForgetsSleepers, StoreOp::Sleep { .. }) => Some(StoreReply::Done),
            (Sabotage::OverlooksMessages, StoreOp::Fetch { .. }) if self.strikes() => {
                Some(StoreReply::Page {
                    messages: Vec::new(),
                    more: false,
                })
            }
            _ => None,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whoever is not named here does it right"
    )]
    pub(crate) fn output(&mut self, output: &Output) -> Way {
        let is_news = |output: &Output| matches!(output, Output::Send { text, .. } if text.contains(r#""notification""#));
        let (applies, way) = match self.kind {
            Sabotage::SkipsNotifications => (is_news(output), Way::Never),
            Sabotage::SendsTwice => (is_news(output), Way::Twice),
            Sabotage::SendsToAnother => (is_news(output), Way::Astray),
            Sabotage::SendsOutOfOrder => (is_news(output), Way::Later),
            Sabotage::SkipsAnswers => (matches!(output, Output::Respond { .. }), Way::Never),
            Sabotage::SkipsResumes => (matches!(output, Output::Resume { .. }), Way::Never),
            Sabotage::SkipsDatagrams if matches!(output, Output::Datagram { .. }) => {
                return Way::Never;
            }
            _ => (false, Way::Once),
        };
        if applies && self.strikes() {
            way
        } else {
            Way::Once
        }
    }

    /// Whether the engine does not hear a frame that has arrived.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whoever is not named here does it right"
    )]
    pub(crate) fn swallows(&mut self, text: &str) -> bool {
        match self.kind {
            Sabotage::SkipsAcks => text.contains(r#""ack""#) && self.strikes(),
            Sabotage::IgnoresUrgency => text.contains(r#""urgency""#),
            _ => false,
        }
    }
}
