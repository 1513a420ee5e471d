//! What a user agent wants for now, as it says and as it is answered.

use super::Session;
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
        let agent = self.sessions.get_mut(&id).and_then(Session::agent_mut);
        if let (Some(agent), Some(min)) = (agent, min) {
            agent.set_urgency_min(min, now, &mut self.desk);
        }
    }
}
