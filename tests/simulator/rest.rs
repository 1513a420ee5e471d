//! What must hold when nothing moves any more.

use std::time::Duration;

use super::{Failing, World};

impl World {
    /// No more trouble: everything that is under way arrives, until nothing moves.
    pub(crate) fn settle(&mut self) {
        self.note(|| "SETTLE".to_owned());
        self.failing = Failing::Nothing;
        let mut quiet = 0;
        for _ in 0..5000 {
            if self.move_everything() {
                quiet = 0;
                continue;
            }
            quiet += 1;
            // Also before any time passes, in which short TTLs end.
            self.check_delivery();
            if quiet > 5 {
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
        self.checker.deletions_are_over(self.step);
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
                newer.server_open && newer.greeted && newer.log.uaid == socket.log.uaid
            });
            assert!(
                !socket.greeted || !superseded,
                "superseded socket {id} stays open"
            );
        }
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
            if newest && socket.greeted && socket.client_open && socket.server_open {
                self.checker.all_sent(&socket.log, now);
            }
        }
    }
}
