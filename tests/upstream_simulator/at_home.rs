//! What is posted to the gateway itself: it arrives whatever the main service does.

use edgepush::engine::{Input, RequestId};
use edgepush::protocol::http::{BaseUrl, Request, Scheme, Upgrade};
use edgepush::protocol::push_request::{Body, PushHeaders};

use crate::checker::Posted;
use crate::user_agent::{HOST, Subscription};
use crate::world::World;

/// Longer than a run, so that nothing but an ack can end it.
const TTL_SECS: u64 = 2_592_000;

impl World {
    /// An application server posts to an endpoint of the gateway itself.
    pub(crate) fn post_at_home(&mut self, agent: usize, subscription: &Subscription) {
        let number = self.checker.next_number();
        self.checker.posted(Posted {
            agent,
            channel: subscription.channel,
            user: None,
            ttl_secs: TTL_SECS,
            topic: None,
            at: self.elapsed,
        });
        let path = subscription
            .endpoint
            .split_once(HOST)
            .expect("it is ours")
            .1;
        let head = Request {
            peer: [192, 168, 1, 7].into(),
            method: "POST".to_owned(),
            path: path.to_owned(),
            query: None,
            base_url: BaseUrl::of_host(Scheme::Http, HOST),
            upgrade: Upgrade::None,
            headers: PushHeaders {
                ttl: Some(TTL_SECS.to_string()),
                content_encoding: Some("aes128gcm".to_owned()),
                ..PushHeaders::default()
            },
            body: Body::Whole(number.to_string().into_bytes()),
            random: None,
        };
        self.input(Input::Request {
            request: RequestId(u64::try_from(number).expect("few")),
            head: Box::new(head),
        });
    }

    /// The gateway answers to a message that was posted to it.
    pub(crate) fn answered(&mut self, request: RequestId, status: u16) {
        match status {
            201 => {
                self.tally.add("posted at home");
                let number = usize::try_from(request.0).expect("one of ours");
                self.checker.accepted_at_home(number);
            }
            410 | 429 | 503 => {}
            _ => panic!("answered {status}"),
        }
    }
}
