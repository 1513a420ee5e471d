//! What a user agent wants for now, as it says and as it is answered.

use crate::engine::{Engine, SessionId};
use crate::model::message::Urgency;
use crate::model::time::Now;
use crate::protocol::server_message;

impl Engine {
    /// A user agent that runs low on battery wants only what is urgent, for as long as it says so.
    pub(super) fn set_urgency(&mut self, now: Now, id: SessionId, min: Option<Urgency>) {
        self.desk
            .out
            .send(id, server_message::urgency(min.is_some()));
        if let (Some((agent, desk)), Some(min)) = (self.agent_at(id), min) {
            agent.set_urgency_min(min, now, desk);
        }
    }
}
