//! What every part of the engine works with: the limits, the keys, the clocks of its own, and the
//! outbox.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::outbox::{Fate, Keeping, Outbox};
use super::unsaved_versions::UnsavedVersions;
use super::version_clock::VersionClock;
use super::{SessionId, Settings};
use crate::model::dialect::Dialect;
use crate::model::durability::Durability;
use crate::model::ids::{DatabaseId, MessageId, Uaid};
use crate::model::limits::Limits;
use crate::model::message::PushMessage;
use crate::model::simplepush::SimplePush;
use crate::model::time::{Now, ServiceTime};
use crate::model::unifiedpush::UnifiedPush;
use crate::protocol::http::BaseUrl;
use crate::protocol::keyring::Keyring;
use crate::protocol::server_message;

/// Shared by sessions, agents and requests; owned by the engine.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) limits: Limits,
    pub(super) durability: Durability,
    pub(super) simplepush: SimplePush,
    pub(super) unifiedpush: UnifiedPush,
    pub(super) public_url: Option<BaseUrl>,
    pub(super) keyring: Keyring,
    pub(super) database: DatabaseId,
    /// There may have been another database before it.
    pub(super) lost_before: bool,
    pub(super) started: Instant,
    pub(super) out: Outbox,
    pub(super) version_clock: VersionClock,
    pub(super) unsaved_versions: UnsavedVersions,
    /// When to look for updates that were not acked. All intervals are equally long, so it is in
    /// order. A session that has ended is passed over.
    pub(super) redeliveries: VecDeque<(Instant, SessionId)>,
    /// Service time at `started`.
    served_before: ServiceTime,
    last_id: MessageId,
}

impl Desk {
    pub(super) fn new(now: Now, settings: Settings) -> Option<Self> {
        let Settings {
            limits,
            durability,
            simplepush,
            unifiedpush,
            public_url,
            access: _,
            upstream: _,
            keyring,
            opened,
            random,
        } = settings;
        Some(Self {
            out: Outbox::new(&limits),
            version_clock: VersionClock::new(now, opened.version_clock),
            unsaved_versions: UnsavedVersions::default(),
            redeliveries: VecDeque::new(),
            limits,
            durability,
            simplepush,
            unifiedpush,
            public_url,
            keyring,
            database: opened.database,
            lost_before: opened.lost_before,
            started: now.monotonic,
            served_before: opened.service_time,
            last_id: MessageId::before_run(opened.run, random)?,
        })
    }

    /// The time that messages expire by.
    pub(super) fn service_time(&self, now: Now) -> ServiceTime {
        let running = now.monotonic.saturating_duration_since(self.started);
        self.served_before.advanced(running)
    }

    /// The id of the newest push message.
    pub(super) const fn last_message_id(&self) -> MessageId {
        self.last_id
    }

    /// The id of the next push message.
    pub(super) const fn next_message_id(&mut self) -> MessageId {
        self.last_id = self.last_id.next();
        self.last_id
    }

    /// Sends a push message to flash.
    pub(super) fn keep(
        &mut self,
        uaid: Uaid,
        message: Arc<PushMessage>,
        lost: Option<Dialect>,
        fate: Fate,
    ) {
        self.out.keep(Keeping {
            uaid,
            lost,
            version_clock: self.least_version(uaid, message.channel),
            noted_from: self.version_clock.settled(),
            message,
            fate,
        });
    }

    /// The frame that carries `message`, under its token.
    pub(super) fn notification(&self, message: &PushMessage) -> String {
        let version = self.keyring.seal_message(self.database, message.id);
        server_message::notification(message, &version)
    }
}
