//! The operator's proxy that sends datagrams where this board cannot (PROTOCOL.md part 2, 1.6).

use log::warn;

use crate::model::wakeup::Wakeup;

/// Asks once. A failure is logged: the next attempt follows if the user agent stays away.
pub(super) async fn ask(url: Box<str>, wakeup: Wakeup) {
    let _ = (url, wakeup);
    warn!("not built yet");
}
