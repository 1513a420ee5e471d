//! From the attempt to connect to the answered hello, and from the end of a connection to the next
//! attempt.

use std::time::{Duration, Instant};

use log::{debug, warn};

use super::{ANSWER_TIMEOUT, Link, Phase, SETTLE_AFTER, after, order, said};
use crate::engine::counters::Counters;
use crate::engine::upstream::{Outcome, Turn};
use crate::engine::{LinkEnd, LinkId, UpOrder};
use crate::model::dialect::Dialect;
use crate::model::ids::Uaid;
use crate::model::store::{StoreOp, UpstreamOp};
use crate::protocol::keyring::parse_uaid;
use crate::protocol::peer_url::{PeerUrl, RedirectError};
use crate::protocol::user_agent::{self, Verdict};

/// The first wait before connecting again; each further one is twice as long.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// A connection that was in use for so long was a good one: the next wait is the shortest again.
const GOOD_CONNECTION: Duration = Duration::from_secs(60);
/// Most redirects that are followed in a row: from one entrance to the machine that is meant there are
/// one or two.
const REDIRECTS_MAX: u32 = 5;
/// Longest text of an error that is kept, in characters: a line on the operator's page.
const ERROR_CHARS_MAX: usize = 200;

/// Where the main service has sent a link instead.
#[derive(Clone, Debug)]
pub(super) struct SentOn {
    pub(super) to: PeerUrl,
    /// How often it has been sent on, in a row.
    times: u32,
}

impl Link {
    /// Connects now, or when it is this link's turn.
    pub(super) fn attempt(&mut self, turn: &mut Turn<'_>) {
        let until = turn.pacer.take(turn.now);
        if until <= turn.now {
            return self.connect(turn);
        }
        self.enter(Phase::Waiting { until, paced: true }, turn.now);
    }

    pub(super) fn connect(&mut self, turn: &mut Turn<'_>) {
        let id = turn.name_link();
        self.enter(Phase::Connecting(id), turn.now);
        Counters::add(&mut turn.out.counters.upstream_connects);
        let to = self.sent_on.as_ref().map(|sent_on| sent_on.to.clone());
        order(turn.out, id, UpOrder::Connect(to.map(Box::new)));
    }

    pub(super) fn opened(&mut self, turn: &mut Turn<'_>) {
        let Phase::Connecting(id) = self.phase else {
            return;
        };
        let until = after(turn.now, ANSWER_TIMEOUT);
        self.enter(Phase::Naming { id, until }, turn.now);
        let hello = user_agent::hello(Dialect::WebPush, self.name.as_deref(), &[]);
        order(turn.out, id, UpOrder::Send(hello));
    }

    pub(super) fn named(
        &mut self,
        id: LinkId,
        name: Option<String>,
        verdict: &Verdict,
        turn: &mut Turn<'_>,
    ) {
        if !verdict.is_ok() {
            return self.close(Some(said("hello", verdict)), turn);
        }
        let Some(name) = name else {
            let why = "the answer to hello has no usable uaid";
            return self.close(Some(why.to_owned()), turn);
        };
        let is_known = self.name.as_ref().is_some_and(|own| is_same(own, &name));
        if !is_known {
            if self.name.is_some() || !self.borrowed.is_empty() {
                let user_agents = self.lose(turn);
                let tag = self.owner.0.tag();
                warn!("upstream_name_replaced link={tag} user_agents={user_agents}");
            }
            self.name = Some(name.into());
        }
        self.enter(Phase::Ready(id), turn.now);
        if !self.received.is_empty() {
            self.settle_at = Some(after(turn.now, SETTLE_AFTER));
        }
        self.ask_all(id, turn);
    }

    /// The main service does not know its name any more, or it is another one's: nothing of what was
    /// borrowed is there. Gives how many user agents lose something.
    pub(in crate::engine::upstream) fn lose(&mut self, turn: &mut Turn<'_>) -> usize {
        self.name = None;
        self.received.clear();
        self.acks.clear();
        let borrowed = std::mem::take(&mut self.borrowed);
        let borrowed = borrowed.into_values().filter(|borrowed| !borrowed.ended);
        let making = std::mem::take(&mut self.making).into_values();
        let mut uaids: Vec<Uaid> = borrowed
            .map(|borrowed| borrowed.uaid)
            .chain(making)
            .collect();
        uaids.sort_unstable();
        uaids.dedup();
        let owner = self.owner;
        let op = StoreOp::Upstream(UpstreamOp::Lost { owner });
        turn.out.store_for_nobody(op);
        let count = uaids.len();
        if count > 0 {
            Counters::add(&mut turn.out.counters.upstream_resets);
            turn.outcomes.push_back(Outcome::Lost(uaids));
        }
        count
    }

    /// Closes its connection, for this reason or because there is nothing to do.
    pub(in crate::engine::upstream) fn close(&mut self, why: Option<String>, turn: &mut Turn<'_>) {
        match (&self.phase, self.connection()) {
            (Phase::Closing { .. }, _) | (_, None) => {}
            (_, Some(id)) => {
                self.note_use(turn.now);
                self.enter(Phase::Closing { id, why }, turn.now);
                order(turn.out, id, UpOrder::Close);
            }
        }
    }

    /// Its connection is no more, or could not be made.
    pub(super) fn ended(&mut self, end: LinkEnd, turn: &mut Turn<'_>) {
        self.note_use(turn.now);
        self.ping = None;
        self.settle_at = None;
        self.acks.clear();
        // What comes after this begins where it is configured again.
        let sent_on = self.sent_on.take();
        let redirect = self
            .redirect
            .take()
            .or_else(|| end.redirect.as_deref().map(str::to_owned));
        let was_connecting = matches!(self.phase, Phase::Connecting(_) | Phase::Naming { .. });
        let why = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Closing { why: None, .. } => None,
            Phase::Closing { why, .. } => why,
            Phase::Idle
            | Phase::Waiting { .. }
            | Phase::Connecting(_)
            | Phase::Naming { .. }
            | Phase::Ready(_) => Some(end.why.clone()),
        };
        self.since = turn.now;
        let Some(mut why) = why else {
            return;
        };
        if let Some(redirect) = redirect {
            match follow(sent_on.as_ref(), &redirect, turn) {
                Ok(sent_on) => {
                    self.sent_on = Some(sent_on);
                    return self.attempt(turn);
                }
                Err(error) => why = format!("not sent on to {redirect}: {error}"),
            }
        }
        let why: String = why.chars().take(ERROR_CHARS_MAX).collect();
        let wait = self.wait(&end, turn.settings.reconnect_max);
        self.log_end(&why, wait);
        self.last_error = Some(why);
        let until = after(turn.now, wait);
        self.enter(
            Phase::Waiting {
                until,
                paced: false,
            },
            turn.now,
        );
        if was_connecting || end.is_lasting {
            self.give_up_all(turn);
        }
    }

    /// The wait after one more failure: doubled each time, and up to a half of it less, by chance, so
    /// that links which fell together do not come back together.
    fn wait(&mut self, end: &LinkEnd, longest: Duration) -> Duration {
        let doubled = WAIT_MIN.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let whole = if end.is_lasting {
            longest
        } else {
            doubled.min(longest)
        };
        self.failures = self.failures.saturating_add(1);
        let share = f64::from(u16::from_be_bytes(end.random)) / f64::from(u16::MAX);
        let wait = whole.mul_f64(share.mul_add(-0.5, 1.0));
        wait.max(end.retry_after)
    }

    /// What goes on is not logged again and again.
    fn log_end(&self, why: &str, wait: Duration) {
        let tag = self.owner.0.tag();
        let secs = wait.as_secs();
        if self.last_error.as_deref() == Some(why) {
            debug!("upstream_ended link={tag} again_in_secs={secs} reason={why:?}");
        } else {
            warn!("upstream_ended link={tag} again_in_secs={secs} reason={why:?}");
        }
    }

    /// A connection that was in use for long lets the failures before it be forgotten.
    fn note_use(&mut self, now: Instant) {
        let used = now.saturating_duration_since(self.since);
        if matches!(self.phase, Phase::Ready(_)) && used >= GOOD_CONNECTION {
            self.failures = 0;
            self.last_error = None;
        }
    }
}

/// Where a redirect leads, or why it is not followed.
fn follow(from: Option<&SentOn>, redirect: &str, turn: &mut Turn<'_>) -> Result<SentOn, String> {
    let times = from.map_or(0, |from| from.times).saturating_add(1);
    if times > REDIRECTS_MAX {
        return Err(format!("that was the {times}th time in a row"));
    }
    let to = match from {
        Some(from) => from.to.redirected(redirect),
        None => PeerUrl::new(&turn.settings.service)
            .map_err(RedirectError::Url)
            .and_then(|service| service.redirected(redirect)),
    };
    let to = to.map_err(|error| error.to_string())?;
    Counters::add(&mut turn.out.counters.upstream_redirects);
    Ok(SentOn { to, times })
}

/// Whether two spellings of a name are one.
fn is_same(one: &str, other: &str) -> bool {
    match (parse_uaid(one), parse_uaid(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}
