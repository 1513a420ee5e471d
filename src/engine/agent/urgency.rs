//! What a user agent wants for now: less urgent messages wait on flash until it wants them again.
//!
//! Each urgency has a cursor of its own, so that what was held back is found behind it, and nothing
//! that was sent before is sent twice.

use std::sync::Arc;

use super::{Agent, Mode};
use crate::engine::RequestId;
use crate::engine::counters::Counters;
use crate::engine::desk::Desk;
use crate::engine::outbox::Fate;
use crate::model::dialect::Dialect;
use crate::model::message::{PushMessage, Urgency};
use crate::model::time::Now;

impl Agent {
    /// Wants only messages of at least `min`, for the rest of the session or until the next word.
    pub(in crate::engine) fn set_urgency_min(&mut self, min: Urgency, now: Now, desk: &mut Desk) {
        let before = std::mem::replace(&mut self.urgency_min, min);
        if self.mode != Mode::Live {
            // Some of what has not been fetched yet may be held back from here on. A page under way
            // is judged by both words when it comes.
            self.some_held_back |= min > before;
        } else if min < before && self.some_held_back {
            self.mode = Mode::CatchingUp { fetching: None };
            self.catch_up(now, desk);
        }
    }

    /// Whether a message is urgent enough.
    pub(super) fn wants(&self, message: &PushMessage) -> bool {
        message.urgency >= self.urgency_min
    }

    /// Whether it was sent every version update that waited for it. All of them have the usual urgency.
    pub(in crate::engine) fn has_read_updates(&self) -> bool {
        self.is_live() && Urgency::default() >= self.urgency_min
    }

    /// Sends a message to flash, where it waits until it is wanted or the session ends. Nothing else
    /// waits for it.
    ///
    /// `lost`: as in [`StoreOp::Enqueue`](crate::model::store::StoreOp::Enqueue).
    pub(super) fn hold_back(
        &mut self,
        message: Arc<PushMessage>,
        lost: Option<Dialect>,
        request: RequestId,
        desk: &mut Desk,
    ) {
        Counters::add(&mut desk.out.counters.messages_held_back);
        self.some_held_back = true;
        let fate = Fate {
            request,
            fetched_by: None,
            handed: false,
        };
        desk.keep(self.uaid, message, lost, fate);
    }

    /// The urgency that the page under way was asked for.
    pub(super) fn asked_urgency(&self) -> Urgency {
        match self.mode {
            Mode::CatchingUp {
                fetching: Some(urgency),
            } => urgency,
            Mode::CatchingUp { fetching: None } | Mode::Live => self.urgency_min,
        }
    }

    /// Everything that is wanted has been sent.
    pub(super) fn has_caught_up(&mut self) {
        self.mode = Mode::Live;
        if self.urgency_min == Urgency::VeryLow {
            self.some_held_back = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::testing::{EMPTY_PAGE, KEPT, Out, Table, loaded, numbers, page, versions};
    use crate::model::ids::MessageId;
    use crate::model::store::{Cursors, Deletion, StoreOp, StoreReply};
    use crate::model::version::NewVersion;
    use crate::protocol::push_request::PushHeaders;

    /// Asks for `min`; what came out behind the answer.
    fn want(table: &mut Table, id: u64, min: &str) -> Vec<Out> {
        let text = format!(r#"{{"messageType":"urgency","min":"{min}"}}"#);
        let mut outs = table.say(id, &text);
        let answer = r#"{"messageType":"urgency","status":200}"#;
        assert_eq!(outs.remove(0), Out::Sent(id, answer.to_owned()));
        outs
    }

    fn post(table: &mut Table, path: &str, urgency: &str, ttl: u32) -> (u64, Vec<Out>) {
        post_topic(table, path, urgency, ttl, None)
    }

    fn post_topic(
        table: &mut Table,
        path: &str,
        urgency: &str,
        ttl: u32,
        topic: Option<&str>,
    ) -> (u64, Vec<Out>) {
        let headers = PushHeaders {
            ttl: Some(ttl.to_string()),
            urgency: Some(urgency.to_owned()),
            topic: topic.map(str::to_owned),
            ..PushHeaders::default()
        };
        table.request("POST", path, headers)
    }

    /// What the last page is asked for.
    fn asked(table: &Table) -> (Cursors, Urgency) {
        match table.asked.last() {
            Some(StoreOp::Fetch {
                after, urgency_min, ..
            }) => (*after, *urgency_min),
            other => panic!("{other:?}"),
        }
    }

    fn sent(outs: &[Out]) -> usize {
        versions(outs).len()
    }

    #[test]
    fn less_urgent_message_is_kept_for_later_and_a_more_urgent_one_does_not_wait_for_it() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        assert_eq!(want(&mut table, id, "normal"), []);
        let (low, outs) = post(&mut table, &endpoint, "low", 60);
        assert_eq!(outs, []);
        let held_back = table.asked_to_keep();
        let (_, outs) = post(&mut table, &endpoint, "normal", 60);
        assert_eq!(sent(&outs), 1);
        assert_eq!(table.stored(vec![KEPT]), [Out::Answered(low, 201)]);
        assert!(table.asked.is_empty(), "it is not fetched");
        assert_eq!(table.snapshot().counters.messages_held_back, 1);

        table.all_sent(id);
        assert_eq!(want(&mut table, id, "low"), []);
        let outs = table.stored(vec![page(vec![held_back])]);
        assert_eq!(sent(&outs), 1);
        let (_, outs) = post(&mut table, &endpoint, "low", 60);
        assert_eq!(sent(&outs), 1, "caught up");
    }

    #[test]
    fn relaxing_reads_what_was_held_back_and_nothing_that_was_sent() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let (_, first) = post(&mut table, &endpoint, "very-low", 60);
        assert_eq!(sent(&first), 1);
        want(&mut table, id, "high");
        post(&mut table, &endpoint, "low", 60);
        let low = table.asked_to_keep();
        let (_, high) = post(&mut table, &endpoint, "high", 60);
        assert_eq!(sent(&high), 1);
        table.pass(Duration::from_millis(100));
        table.stored(vec![KEPT; 3]);

        assert_eq!(want(&mut table, id, "very-low"), []);
        // Nothing was acked. The socket has not taken what it was given, so the page waits for that.
        assert!(table.asked.is_empty());
        table.all_sent(id);
        let (after, urgency_min) = asked(&table);
        assert_eq!(urgency_min, Urgency::VeryLow);
        let before_low = MessageId::from_i64(low.id.as_i64() - 1);
        assert_eq!(after.of(Urgency::VeryLow), before_low);
        assert_eq!(after.of(Urgency::Normal), before_low);
        assert_eq!(after.of(Urgency::High), low.id.next());
        assert_eq!(sent(&table.stored(vec![page(vec![low])])), 1);
        // From here on all urgencies have been read equally far.
        want(&mut table, id, "high");
        want(&mut table, id, "very-low");
        assert!(table.asked.is_empty());
    }

    #[test]
    fn less_urgent_message_with_ttl_0_is_accepted_and_dropped() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        want(&mut table, id, "normal");
        let (request, outs) = post(&mut table, &endpoint, "low", 0);
        assert_eq!(outs, [Out::Answered(request, 201)]);
        assert!(table.asked.is_empty());
        let (_, outs) = post(&mut table, &endpoint, "normal", 0);
        assert_eq!(sent(&outs), 1);
    }

    #[test]
    fn update_that_waits_until_it_is_wanted_is_numbered_where_others_may_wait() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        want(&mut table, id, "high");
        table.put(&endpoint, None);
        let version = table.asked.iter().find_map(|op| {
            let StoreOp::Enqueue { message, .. } = op else {
                return None;
            };
            Some(message.payload.update()?.version)
        });
        assert!(matches!(version, Some(NewVersion::AtLeast(_))));
        table.stored(vec![KEPT, StoreReply::Done]);

        want(&mut table, id, "normal");
        table.stored(vec![EMPTY_PAGE]);
        let (_, outs) = table.put(&endpoint, None);
        assert_eq!(numbers(&outs).len(), 1, "caught up");
    }

    #[test]
    fn page_under_way_is_judged_by_what_is_wanted_when_it_comes() {
        let mut table = Table::new();
        let (old, uaid) = table.newcomer();
        let endpoint = table.register(old, 1);
        want(&mut table, old, "high");
        let mut queue = Vec::new();
        for urgency in ["low", "normal", "low", "high"] {
            post(&mut table, &endpoint, urgency, 60);
            if urgency != "high" {
                queue.push(table.asked_to_keep());
            }
        }
        // Another session wants everything, until it says otherwise.
        let id = table.again(&uaid);
        table.stored(vec![KEPT; 3]);
        queue.push(table.asked.iter().find_map(kept).unwrap());
        table.stored(vec![KEPT, loaded(1)]);
        assert_eq!(asked(&table), (Cursors::START, Urgency::VeryLow));
        want(&mut table, id, "normal");
        let outs = table.stored(vec![page(queue.clone())]);
        assert_eq!(sent(&outs), 2, "normal and high");

        table.all_sent(id);
        want(&mut table, id, "low");
        let (after, _) = asked(&table);
        assert_eq!(after.of(Urgency::Low), MessageId::ZERO);
        assert_eq!(after.of(Urgency::Normal), queue[3].id);
        // Asked for meanwhile: not in the page under way, so another one is read.
        want(&mut table, id, "very-low");
        let low = vec![queue[0].clone(), queue[2].clone()];
        assert_eq!(sent(&table.stored(vec![page(low)])), 2);
        table.all_sent(id);
        let (after, urgency_min) = asked(&table);
        assert_eq!(urgency_min, Urgency::VeryLow);
        assert_eq!(after.of(Urgency::VeryLow), MessageId::ZERO);
        assert_eq!(after.of(Urgency::Low), queue[2].id);
        assert_eq!(table.stored(vec![EMPTY_PAGE]), []);
        assert!(table.asked.is_empty());
    }

    fn kept(op: &StoreOp) -> Option<PushMessage> {
        if let StoreOp::Enqueue { message, .. } = op {
            Some(message.as_ref().clone())
        } else {
            None
        }
    }

    #[test]
    fn newer_message_of_a_topic_replaces_one_that_is_held_back() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        want(&mut table, id, "high");
        post_topic(&mut table, &endpoint, "low", 60, Some("a"));
        table.stored(vec![KEPT]);
        // On flash, where the storage replaces the older one, and fetched from there.
        let (request, outs) = post_topic(&mut table, &endpoint, "high", 60, Some("a"));
        assert_eq!(outs, []);
        let newer = table.asked_to_keep();
        assert_eq!(table.stored(vec![KEPT]), [Out::Answered(request, 201)]);
        assert_eq!(sent(&table.stored(vec![page(vec![newer])])), 1);
    }

    #[test]
    fn urgency_that_is_none_is_refused_and_changes_nothing() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        want(&mut table, id, "normal");
        let refused = r#"{"messageType":"urgency","status":400}"#.to_owned();
        for text in [
            r#"{"messageType":"urgency"}"#,
            r#"{"messageType":"urgency","min":"low "}"#,
            r#"{"messageType":"urgency","min":1}"#,
        ] {
            assert_eq!(table.say(id, text), [Out::Sent(id, refused.clone())]);
        }
        let (_, outs) = post(&mut table, &endpoint, "low", 60);
        assert_eq!(outs, []);
    }

    #[test]
    fn version_updates_have_normal_urgency() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let put = |table: &mut Table| table.request("PUT", &endpoint, PushHeaders::default()).1;
        want(&mut table, id, "normal");
        assert!(matches!(put(&mut table).as_slice(), [Out::Sent(..)]));
        assert_eq!(table.stored(vec![StoreReply::Done]), []); // the version clock
        want(&mut table, id, "high");
        assert_eq!(put(&mut table), []);
        // Its number is the second of this second, which is written down before it is.
        let outs = table.stored(vec![StoreReply::Done, KEPT]);
        assert!(
            matches!(outs.as_slice(), [Out::Answered(_, 202)]),
            "{outs:?}"
        );
    }

    #[test]
    fn ack_of_a_version_ends_a_lower_one_that_is_held_back() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        table.put(&endpoint, Some(7));
        want(&mut table, id, "high");
        let (_, outs) = table.put(&endpoint, Some(5));
        assert_eq!(outs, []);
        table.stored(vec![StoreReply::Done, KEPT]);
        table.ack_number(id, 1, 7);
        table.pass(Duration::from_secs(1));
        let [StoreOp::Delete(deletions)] = table.asked.as_slice() else {
            panic!("{:?}", table.asked);
        };
        let is_update = |deletion: &Deletion| matches!(deletion, Deletion::Update { .. });
        assert!(deletions.iter().any(is_update), "{deletions:?}");
    }
}
