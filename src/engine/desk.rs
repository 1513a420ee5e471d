//! What every part of the engine works with: the limits, the keys, the clock of service, and the
//! outbox.

use std::time::Instant;

use super::outbox::Outbox;
use crate::model::durability::Durability;
use crate::model::ids::{DatabaseId, MessageId};
use crate::model::limits::Limits;
use crate::model::message::PushMessage;
use crate::model::store::Opened;
use crate::model::time::{Now, ServiceTime};
use crate::protocol::http::BaseUrl;
use crate::protocol::keyring::Keyring;
use crate::protocol::server_message;

/// Shared by sessions, agents and requests; owned by the engine.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) limits: Limits,
    pub(super) durability: Durability,
    pub(super) public_url: Option<BaseUrl>,
    pub(super) keyring: Keyring,
    pub(super) database: DatabaseId,
    pub(super) started: Instant,
    pub(super) out: Outbox,
    /// Service time at `started`.
    served_before: ServiceTime,
    last_id: MessageId,
}

impl Desk {
    pub(super) fn new(
        now: Now,
        limits: Limits,
        durability: Durability,
        public_url: Option<BaseUrl>,
        keyring: Keyring,
        opened: Opened,
    ) -> Option<Self> {
        Some(Self {
            out: Outbox::new(&limits),
            limits,
            durability,
            public_url,
            keyring,
            database: opened.database,
            started: now.monotonic,
            served_before: opened.service_time,
            last_id: MessageId::before_run(opened.run)?,
        })
    }

    /// The time that messages expire by.
    pub(super) fn service_time(&self, now: Now) -> ServiceTime {
        let running = now.monotonic.saturating_duration_since(self.started);
        self.served_before.advanced(running)
    }

    /// The id of the next push message.
    pub(super) const fn next_message_id(&mut self) -> MessageId {
        self.last_id = self.last_id.next();
        self.last_id
    }

    /// The frame that carries `message`, under its token.
    pub(super) fn notification(&self, message: &PushMessage) -> String {
        let version = self.keyring.seal_message(self.database, message.id);
        server_message::notification(message, &version)
    }
}
