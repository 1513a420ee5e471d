//! What must hold when nothing moves any more.

use std::time::Duration;

use uuid::Uuid;

use super::{Failing, World};
use crate::checker::EndpointUrl;

impl World {
    /// No more trouble: everything that is under way arrives, until nothing moves.
    pub(crate) fn settle(&mut self) {
        self.note(|| "SETTLE".to_owned());
        self.failing = Failing::Nothing;
        // Those who never ack are sent the same again and again.
        let (mut quiet, mut moments) = (0, 0);
        for _ in 0..5000 {
            if self.move_everything() {
                quiet = 0;
                continue;
            }
            quiet += 1;
            moments += 1;
            // Also before any time passes, in which short TTLs end.
            self.check_delivery();
            if quiet > 5 || moments > 15 {
                return self.check_rest();
            }
            self.advance(Duration::from_millis(600));
        }
        panic!("never comes to rest");
    }

    fn move_everything(&mut self) -> bool {
        let mut moved = false;
        let run = self.run.as_ref().expect("it runs");
        if !run.queue.is_empty() {
            self.apply(self.run.as_ref().map_or(0, |run| run.queue.len()));
            moved = true;
        }
        let replies = self.run.as_ref().map_or(0, |run| run.replies.len());
        if replies > 0 {
            self.report(replies);
            moved = true;
        }
        let ids: Vec<u64> = self.sockets.keys().copied().collect();
        for id in ids {
            moved |= self.server_writes(id);
            moved |= self.client_reads(id);
            moved |= self.server_hears(id);
        }
        self.sockets
            .retain(|_, socket| socket.server_open || socket.client_open);
        moved
    }

    fn check_rest(&mut self) {
        let delete_delay = self.plan.limits.delete_delay;
        self.checker.deletions_are_over(self.moment(), delete_delay);
        let run = self.run.as_ref().expect("it runs");
        let snapshot = run.engine.snapshot(self.now());
        assert_eq!(snapshot.store_queue, 0);
        assert_eq!(snapshot.held_bytes, 0, "bytes held at rest");
        assert_eq!(snapshot.messages_held, 0, "messages held at rest");
        assert_eq!(
            self.checker.open_requests(),
            0,
            "requests without an answer"
        );
        let open = self.sockets.values().filter(|socket| socket.server_open);
        assert_eq!(snapshot.websockets_open, open.count() as u64);
        for (id, socket) in &self.sockets {
            if !socket.server_open {
                continue;
            }
            assert!(!socket.paused, "socket {id} paused at rest");
            let superseded = self.sockets.range(id + 1..).any(|(_, newer)| {
                newer.server_open && newer.greeted && newer.log.name() == socket.log.name()
            });
            assert!(
                !socket.greeted || !superseded,
                "superseded socket {id} stays open"
            );
            assert!(
                !socket.must_close,
                "socket {id} stays open after a bad frame"
            );
            assert!(
                !socket.greeted || socket.hellos_due == 0,
                "socket {id} has said hello and was not answered"
            );
        }
    }

    /// Nothing is under way: what is put to a user agent that is there is sent to it at once.
    pub(crate) fn check_forwarding(&mut self) {
        let limits = &self.plan.limits;
        let is_roomy = limits.unacked_per_session_max >= 512 && limits.store_queue_max > 100;
        let ids: Vec<u64> = self.sockets.keys().copied().collect();
        for id in ids.into_iter().filter(|_| is_roomy) {
            let Some((channel, endpoint)) = self.has_endpoint(id) else {
                continue;
            };
            let agent = self.sockets[&id].log.agent;
            let asked = self.rng.percent(50).then(|| self.rng.below(100));
            let number = crate::updates::send(self, agent, channel, &endpoint, asked);
            let put = &self.checker.versions.puts[number];
            let is_refused = put.fate.answered.is_some() && !put.is_accepted();
            assert!(
                put.fate.handed || is_refused,
                "update {number} is not sent at once to {:?}",
                self.sockets[&id]
            );
            self.checker.tally.add("forwarded at once");
        }
        self.settle();
    }

    /// An endpoint that is certain to lead to a websocket in good health.
    fn has_endpoint(&self, id: u64) -> Option<(Uuid, EndpointUrl)> {
        let socket = self.sockets.get(&id)?;
        let is_newest = self.newest.get(&socket.log.agent) == Some(&id);
        let is_healthy = socket.client_open && socket.server_open && !socket.superseded;
        let listens = socket.greeted && socket.log.wants_updates();
        if !(is_newest && listens && is_healthy) {
            return None;
        }
        let name = socket.log.name()?;
        let mut all = self.checker.subscriptions.iter();
        let ((_, channel), subscription) = all.find(|((agent, _), subscription)| {
            *agent == socket.log.agent
                && subscription.name == name
                && subscription.is_certain(self.generation)
        })?;
        let endpoint = subscription.endpoints.last()?.clone();
        (endpoint.generation == self.generation).then_some((*channel, endpoint))
    }

    /// Nothing is on its way: what is owed to a healthy websocket has been sent on it.
    fn check_delivery(&self) {
        let now = self.moment();
        for (id, socket) in &self.sockets {
            let newest = self.newest.get(&socket.log.agent) == Some(id);
            let lingers = |at| self.elapsed < at + Duration::from_secs(1);
            if socket.named_at.is_some_and(lingers) {
                continue;
            }
            let in_use = socket.greeted && !socket.must_close;
            if newest && in_use && socket.client_open && socket.server_open {
                let is_simplepush = self.agents[socket.log.agent].is_simplepush();
                let interval = is_simplepush.then_some(self.plan.limits.redelivery_interval);
                self.checker
                    .all_sent(&socket.log, (interval, self.elapsed), now);
            }
        }
    }
}
