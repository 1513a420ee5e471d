//! What is behind each path of the push port, and which methods it takes.

/// What is behind a path of the push port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route<'a> {
    /// `/wpush/v1/TOKEN` and `/wpush/TOKEN`: anybody may post.
    OpenEndpoint(&'a str),
    /// `/wpush/v2/TOKEN`: only the owner of a VAPID key may post.
    RestrictedEndpoint(&'a str),
    /// `/update/TOKEN`, `/spush/v1/TOKEN`, `/spush/TOKEN`: of a SimplePush user agent.
    UpdateEndpoint(&'a str),
    /// `/m/TOKEN`: a push message that was accepted.
    Message(&'a str),
    /// `/v1/TYPE/APP/registration…`: user agents without a websocket.
    Registration {
        /// What brings messages to the user agent; only `webpush` is here.
        router_type: &'a str,
        /// Whose registration.
        place: Place<'a>,
    },
    /// `/status` and the like.
    Monitoring(Monitoring),
    /// `/_matrix/push/v1/notify`: of a Matrix push gateway.
    MatrixNotify,
    /// Anything else.
    Other,
}

/// What stands behind `/v1/TYPE/APP/registration`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place<'a> {
    /// Nothing: a user agent that has no name yet.
    Registrations,
    /// `/UAID`
    UserAgent(&'a str),
    /// `/UAID/subscription`
    Subscriptions(&'a str),
    /// `/UAID/subscription/CHANNEL`
    Subscription {
        /// Whose.
        uaid: &'a str,
        /// Which.
        channel: &'a str,
    },
}

/// How the main service's operators look after it (Dockerflow).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Monitoring {
    /// `/status`
    Status,
    /// `/health` and `/__heartbeat__`
    Heartbeat,
    /// `/__lbheartbeat__`
    LoadBalancer,
    /// `/__version__`
    Version,
}

/// Parts of the longest path that is served, and one more.
const PARTS_MAX: usize = 9;

impl<'a> Route<'a> {
    /// What is behind `path`.
    pub fn of(path: &'a str) -> Self {
        let mut parts = [""; PARTS_MAX];
        let mut len = 0_usize;
        for (place, part) in parts.iter_mut().zip(path.split('/')) {
            *place = part;
            len = len.saturating_add(1);
        }
        // A path starts with a slash, so the first part is empty.
        let Some(["", parts @ ..]) = parts.get(..len) else {
            return Self::Other;
        };
        match *parts {
            ["wpush", "v1", token] | ["wpush", token] => Self::OpenEndpoint(token),
            ["wpush", "v2", token] => Self::RestrictedEndpoint(token),
            ["spush", "v1", token] | ["spush" | "update", token] => Self::UpdateEndpoint(token),
            ["m", token] => Self::Message(token),
            ["status"] => Self::Monitoring(Monitoring::Status),
            ["health" | "__heartbeat__"] => Self::Monitoring(Monitoring::Heartbeat),
            ["__lbheartbeat__"] => Self::Monitoring(Monitoring::LoadBalancer),
            ["__version__"] => Self::Monitoring(Monitoring::Version),
            ["_matrix", "push", "v1", "notify"] => Self::MatrixNotify,
            ["v1", router_type, _app, "registration", ref behind @ ..] => {
                let place = match *behind {
                    [] => Place::Registrations,
                    [uaid] => Place::UserAgent(uaid),
                    [uaid, "subscription"] => Place::Subscriptions(uaid),
                    [uaid, "subscription", channel] => Place::Subscription { uaid, channel },
                    _ => return Self::Other,
                };
                Self::Registration { router_type, place }
            }
            _ => Self::Other,
        }
    }

    /// The methods that it takes, as `Allow` lists them; empty where nothing is served.
    pub const fn methods(&self) -> &'static str {
        match self {
            Self::OpenEndpoint(_) | Self::RestrictedEndpoint(_) => "GET, HEAD, POST, PUT",
            Self::UpdateEndpoint(_) => "POST, PUT",
            Self::Message(_) => "DELETE",
            Self::Registration { place, .. } => match place {
                Place::Registrations | Place::Subscriptions(_) => "POST",
                Place::UserAgent(_) => "GET, HEAD, PUT, DELETE",
                Place::Subscription { .. } => "DELETE",
            },
            Self::Monitoring(_) => "GET, HEAD",
            Self::MatrixNotify => "GET, HEAD, POST",
            Self::Other => "",
        }
    }

    /// Whether it takes `method`.
    pub fn takes(&self, method: &str) -> bool {
        self.methods().split(", ").any(|taken| taken == method)
    }

    /// Whether a request to it may be given new names.
    pub const fn mints_names(&self) -> bool {
        matches!(self, Self::Registration { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_told_apart() {
        for (path, route) in [
            ("/wpush/v1/abc", Route::OpenEndpoint("abc")),
            ("/wpush/abc", Route::OpenEndpoint("abc")),
            ("/wpush/v2/abc", Route::RestrictedEndpoint("abc")),
            ("/update/abc", Route::UpdateEndpoint("abc")),
            ("/spush/v1/abc", Route::UpdateEndpoint("abc")),
            ("/spush/abc", Route::UpdateEndpoint("abc")),
            ("/m/abc", Route::Message("abc")),
            ("/status", Route::Monitoring(Monitoring::Status)),
            ("/health", Route::Monitoring(Monitoring::Heartbeat)),
            ("/__heartbeat__", Route::Monitoring(Monitoring::Heartbeat)),
            (
                "/__lbheartbeat__",
                Route::Monitoring(Monitoring::LoadBalancer),
            ),
            ("/__version__", Route::Monitoring(Monitoring::Version)),
            ("/_matrix/push/v1/notify", Route::MatrixNotify),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
        for (path, place) in [
            ("", Place::Registrations),
            ("/u", Place::UserAgent("u")),
            ("/", Place::UserAgent("")),
            ("/u/subscription", Place::Subscriptions("u")),
            (
                "/u/subscription/c",
                Place::Subscription {
                    uaid: "u",
                    channel: "c",
                },
            ),
        ] {
            let path = format!("/v1/webpush/app/registration{path}");
            let router_type = "webpush";
            let expected = Route::Registration { router_type, place };
            assert_eq!(Route::of(&path), expected, "{path}");
        }
    }

    #[test]
    fn path_that_is_more_or_less_than_one_of_these_is_served_nothing() {
        for path in [
            "/",
            "",
            "*",
            "wpush/v1/abc",
            "/wpush/v3/abc",
            "/wpush/v1/abc/",
            "/wpush",
            "/update",
            "/update/v1/abc",
            "/m/abc/d",
            "/status/",
            "/Status",
            "/__error__",
            "/v1/err",
            "/v1/webpush/registration",
            "/v2/webpush/app/registration",
            "/v1/webpush/app/registration/u/",
            "/v1/webpush/app/registration/u/subscription/c/",
            "/v1/webpush/app/registration/u/subscription/c/d/e/f",
            "/_matrix/push/v1/notify/",
        ] {
            assert_eq!(Route::of(path), Route::Other, "{path}");
            assert!(!Route::of(path).takes("GET"), "{path}");
        }
    }

    #[test]
    fn method_is_taken_as_a_whole_word() {
        let endpoint = Route::OpenEndpoint("abc");
        for method in ["GET", "HEAD", "POST", "PUT"] {
            assert!(endpoint.takes(method), "{method}");
        }
        for method in ["", "get", "GET,", "PATCH", "DELETE", "OPTIONS", "GET, HEAD"] {
            assert!(!endpoint.takes(method), "{method}");
        }
    }
}
