//! `--exec`: the command that is run for each event, one at a time.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::future::pending;
use std::pin::Pin;

use super::inbox::Event;
use super::tell;
use crate::io::process::run_shell;

/// A command that may be running.
#[derive(Default)]
pub(super) struct Handler(Option<Pin<Box<dyn Future<Output = bool>>>>);

impl Handler {
    /// Starts the command for one event; the one before has ended.
    pub(super) fn start(&mut self, command: &OsStr, event: Event, endpoint: Option<&str>) {
        let command: OsString = command.to_owned();
        let environment = environment(&event, endpoint.unwrap_or_default());
        let input = payload(event);
        self.0 = Some(Box::pin(async move {
            match run_shell(&command, environment, &input).await {
                Ok(status) if status.success() => true,
                Ok(status) => {
                    tell(&format!("the command has failed: {status}"));
                    false
                }
                Err(error) => {
                    tell(&format!("the command cannot be started: {error}"));
                    false
                }
            }
        }));
    }

    pub(super) const fn is_running(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for its end, and says whether it ended well. Waits for ever if there is none; nothing is
    /// lost if the wait is given up.
    pub(super) async fn end(&mut self) -> bool {
        let Some(running) = &mut self.0 else {
            return pending().await;
        };
        let well = running.await;
        self.0 = None;
        well
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handler({})", self.is_running())
    }
}

/// What the command finds in its environment. What has a NUL in it fits into none.
fn environment(event: &Event, endpoint: &str) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let (kind, version, data) = match event {
        Event::Update(update) => {
            let data = update.data.clone().unwrap_or_default();
            ("update", update.version.to_string(), data.into_bytes())
        }
        Event::Message { version, text } => ("message", version.clone(), text.clone()),
    };
    [
        ("EDGEPUSH_KIND", kind.as_bytes().to_vec()),
        ("EDGEPUSH_VERSION", version.into_bytes()),
        ("EDGEPUSH_DATA", data),
        ("EDGEPUSH_ENDPOINT", endpoint.as_bytes().to_vec()),
    ]
    .into_iter()
    .map(|(name, value)| (name, (!value.contains(&0)).then_some(value)))
    .collect()
}

/// What the command finds on its standard input.
fn payload(event: Event) -> Vec<u8> {
    match event {
        Event::Update(update) => update.data.unwrap_or_default().into_bytes(),
        Event::Message { text, .. } => text,
    }
}
