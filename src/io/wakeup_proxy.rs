//! The operator's proxy that sends datagrams where this board cannot (PROTOCOL.md part 2, 1.6).

use std::cell::RefCell;

use log::debug;

use super::connect::Connector;
use super::http_client::{self, Question};
use super::warned::Warned;
use crate::model::wakeup::Wakeup;
use crate::protocol::peer_url::PeerUrl;
use crate::protocol::{form, wakeup_form};

/// Who is asked.
#[derive(Debug)]
pub(super) struct WakeupProxy {
    connector: Connector,
    warned: RefCell<Warned>,
}

impl WakeupProxy {
    /// Trusts the authorities that the system trusts.
    pub(super) fn new() -> Self {
        Self {
            connector: Connector::new(None),
            warned: RefCell::default(),
        }
    }

    /// Asks once. A failure is only logged: the next attempt follows if the user agent stays away.
    pub(super) async fn ask(&self, url: &str, wakeup: &Wakeup) {
        let Ok(url) = PeerUrl::endpoint(url) else {
            return self.warn("its URL cannot be used");
        };
        let question = Question {
            method: "POST",
            url: &url,
            headers: vec![("content-type", form::CONTENT_TYPE.to_owned())],
            body: wakeup_form::write(wakeup).into_bytes(),
        };
        match http_client::ask(question, &self.connector).await {
            Ok(answer) if (200..300).contains(&answer.status) => debug!("wake-up proxy asked"),
            Ok(answer) => self.warn(&format!("answered with status {}", answer.status)),
            Err(error) => self.warn(&error.to_string()),
        }
    }

    fn warn(&self, what: &str) {
        let mut warned = self.warned.borrow_mut();
        warned.say(format_args!("wake-up proxy failed: {what}"));
    }
}
