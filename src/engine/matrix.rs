//! The Matrix push gateway: one notification becomes a push message to each of its devices that is
//! a subscription here. Nothing is ever fetched from, or sent to, anywhere else.

use super::agent::Post;
use super::endpoint::Posted;
use super::{Engine, RequestId};
use crate::model::access::Source;
use crate::model::limits::NOTIFY_TTL_SECS;
use crate::model::message::{Payload, Ttl};
use crate::model::time::Now;
use crate::protocol::http::Request;
use crate::protocol::matrix::{self, Notification};
use crate::protocol::problem::Problem;
use crate::protocol::push_request::Draft;

impl Engine {
    pub(super) fn notify(&mut self, now: Now, request: RequestId, head: Request) {
        let source = self.access.source(head.peer);
        let Notification {
            pushkeys,
            urgency,
            body,
        } = match matrix::read(head.body) {
            Ok(notification) => notification,
            Err(problem) => return self.refuse(request, problem),
        };
        if pushkeys.is_empty() {
            return self.respond(request, matrix::rejected(&[]));
        }
        self.desk.out.open_whole(request, pushkeys.len());
        for pushkey in pushkeys {
            let draft = Draft {
                ttl: Ttl::from_secs_lowered(NOTIFY_TTL_SECS),
                topic: None,
                urgency,
                payload: Payload::Raw(body.clone()),
            };
            self.notify_one(now, request, source, pushkey, draft);
        }
    }

    /// A subscription that is restricted to a VAPID key takes nothing from here: a homeserver has
    /// none.
    fn notify_one(
        &mut self,
        now: Now,
        whole: RequestId,
        source: Option<Source>,
        pushkey: Box<str>,
        draft: Draft,
    ) {
        let token = matrix::endpoint_token(&pushkey);
        let target =
            token.and_then(|token| self.target(token, |endpoint| endpoint.restricted_to.is_none()));
        let request = self.desk.out.open_part(whole, pushkey);
        let Some(target) = target else {
            return self.desk.out.refuse(request, Problem::BadToken);
        };
        if let Err(problem) = self.admit_sender(now, source) {
            return self.desk.out.refuse(request, problem);
        }
        let subscribed = self.is_subscribed(&target);
        if subscribed == Some(false) && target.lost.is_none() {
            return self.desk.out.refuse(request, Problem::NoSubscription);
        }
        let message = match self.accept_posted(now, &target.endpoint, Posted::Message(draft)) {
            Ok(message) => message,
            Err(problem) => return self.desk.out.refuse(request, problem),
        };
        let post = Post { request, message };
        self.route_message(now, &target, post, subscribed == Some(true));
    }
}
