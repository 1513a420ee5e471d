//! Which request is about what. What comes of it is decided elsewhere.

use std::net::IpAddr;

use super::counters::Counters;
use super::{Engine, Output, RequestId, Stop};
use crate::model::limits::{BODY_BYTES_MAX, NOTIFY_BYTES_MAX, UPDATE_FORM_BYTES_MAX};
use crate::model::time::Now;
use crate::protocol::http::{Request, Response, Upgrade};
use crate::protocol::keyring::Endpoint;
use crate::protocol::problem::Problem;
use crate::protocol::route::Route;
use crate::protocol::{matrix, monitoring};

impl Engine {
    /// Decides on a request. The answer may come later, from the user agent or the storage.
    pub(super) fn request(&mut self, now: Now, request: RequestId, head: Request) {
        if self.stop != Stop::No {
            return self.refuse(request, Problem::ShuttingDown);
        }
        // The path borrows from the request, whose other parts are taken apart below.
        let path = head.path.clone();
        let route = self.route(&path);
        let is_get = matches!(head.method.as_str(), "GET" | "HEAD");
        if route == Route::Other {
            return self.other(now, request, &head);
        }
        if head.method == "OPTIONS" {
            return self.respond(request, Response::options(route.methods()));
        }
        if !route.takes(&head.method) {
            return self.respond(request, Response::method_not_allowed(route.methods()));
        }
        if let Route::Monitoring(asked) = route {
            let faulty = self.storage_fault.is_some();
            return self.respond(request, monitoring::answer(asked, faulty));
        }
        if route == Route::MatrixNotify && is_get {
            return self.respond(request, matrix::discovery());
        }
        if self.is_overloaded() {
            return self.refuse(request, Problem::Overloaded);
        }
        let target = match route {
            Route::OpenEndpoint(token) => self.target(token, is_open),
            Route::RestrictedEndpoint(token) => self.target(token, |endpoint| !is_open(endpoint)),
            Route::UpdateEndpoint(token) => self.target(token, |_| true),
            Route::Message(token) => return self.delete_message(now, request, token),
            Route::MatrixNotify => return self.notify(now, request, head),
            Route::Registration { router_type, place } => {
                return self.registration(now, request, router_type, place, &head);
            }
            // Both were answered above.
            Route::Monitoring(_) | Route::Other => return,
        };
        match target {
            None => self.refuse(request, Problem::BadToken),
            // UnifiedPush's question; whether there still is a subscription is not looked up for it.
            Some(_) if is_get => self.respond(request, Response::unifiedpush()),
            Some(target) => self.post(now, request, &target, head),
        }
    }

    /// Most bytes of a body that are worth reading.
    #[must_use]
    pub fn body_bytes_max(&self, method: &str, path: &str) -> usize {
        match method {
            "PUT" => UPDATE_FORM_BYTES_MAX,
            "POST" if self.route(path) == Route::MatrixNotify => NOTIFY_BYTES_MAX,
            "POST" => BODY_BYTES_MAX,
            // Others carry nothing that matters.
            _ => 0,
        }
    }

    /// What is behind a path, as far as it is switched on.
    fn route<'a>(&self, path: &'a str) -> Route<'a> {
        let route = Route::of(path);
        if route == Route::MatrixNotify && !self.desk.unifiedpush.matrix {
            return Route::Other;
        }
        route
    }

    fn is_overloaded(&self) -> bool {
        self.desk.out.waiting_len() >= self.desk.limits.store_queue_max
    }

    /// A websocket may be opened on any path that is not used otherwise.
    fn other(&mut self, now: Now, request: RequestId, head: &Request) {
        let known_url = self.desk.public_url.is_some() || head.base_url.is_some();
        let source = self.access.source(head.peer);
        match (head.upgrade, head.path.as_str()) {
            _ if self.is_overloaded() => self.refuse(request, Problem::Overloaded),
            (Upgrade::BadWebsocket, _) => self.refuse(request, Problem::BadHandshake),
            (Upgrade::Websocket, path) if !self.may_join(head.peer, path) => {
                Counters::add(&mut self.desk.out.counters.websockets_forbidden);
                self.respond(request, Problem::WebsocketForbidden.into());
            }
            (Upgrade::Websocket, _) if !known_url => self.refuse(request, Problem::BadHost),
            (Upgrade::Websocket, _) => {
                let admitted = self.admit_websocket(now, source);
                let response = admitted.map_or_else(Response::from, |()| Response::empty(101));
                self.respond(request, response);
            }
            (Upgrade::None, "/") => self.respond(request, Response::not_a_website()),
            (Upgrade::None, _) => self.refuse(request, Problem::NoSuchRoute),
        }
    }

    /// Whether a user agent may connect from there, or by this path, which starts with a slash.
    fn may_join(&self, peer: IpAddr, path: &str) -> bool {
        self.access.admits(first_segment(path)) || self.access.allows(peer)
    }

    /// Whether user agents that come in by this path borrow their subscriptions.
    #[must_use]
    pub fn borrows_by(&self, path: &str) -> bool {
        let endpoints = self.upstream.as_ref().map(|up| &up.settings.endpoints);
        endpoints.is_some_and(|endpoints| endpoints.mean_path(first_segment(path)))
    }

    pub(super) fn refuse(&mut self, request: RequestId, problem: Problem) {
        self.desk.out.respond_problem(request, problem);
    }

    pub(super) fn respond(&mut self, request: RequestId, response: Response) {
        self.desk.out.push(Output::Respond { request, response });
    }
}

/// Where a join token stands in a path, which starts with a slash.
fn first_segment(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or_default()
}

const fn is_open(endpoint: &Endpoint) -> bool {
    endpoint.restricted_to.is_none()
}
