//! Versions that everybody may hear of (PROTOCOL.md part 3, 4.7): which there are, and who listens.

use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, SessionId};
use crate::protocol::server_message::{self, BroadcastAnswer};

/// Most broadcasts, those included that somebody listens to and that do not exist (yet). The main
/// service has a dozen.
const BROADCASTS_MAX: usize = 1024;
/// Most of them that one websocket listens to: Firefox has one.
const BROADCASTS_PER_SESSION_MAX: usize = 64;

/// What is broadcast, and to whom.
#[derive(Debug, Default)]
pub(super) struct Broadcasts {
    all: BTreeMap<Box<str>, Broadcast>,
    /// Those that are not known are asked for at the main service.
    asks: bool,
}

#[derive(Debug, Default)]
struct Broadcast {
    /// `None`: nobody has said that it exists, but it may come.
    version: Option<Box<str>>,
    listeners: BTreeSet<SessionId>,
    /// What the listeners have, as long as nobody knows whether that is the version.
    unsure: Vec<(SessionId, Box<str>)>,
}

impl Broadcasts {
    pub(super) fn new(asks: bool) -> Self {
        Self {
            asks,
            ..Self::default()
        }
    }

    /// Those that somebody listens to.
    fn wanted(&self) -> impl Iterator<Item = &str> {
        let all = self.all.iter();
        all.filter(|(_, broadcast)| !broadcast.listeners.is_empty())
            .map(|(id, _)| &**id)
    }

    /// Lets a session listen to what it names, each with the version that it has, and tells it what
    /// differs. What does not exist is told as well, and remembered: the source may be late.
    pub(super) fn subscribe<'a>(
        &mut self,
        session: SessionId,
        wanted: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> BroadcastAnswer {
        let mut answer = BroadcastAnswer::default();
        for (place, (id, has)) in wanted.into_iter().enumerate() {
            let is_known = self.all.contains_key(id);
            let has_room = is_known || self.all.len() < BROADCASTS_MAX;
            if place >= BROADCASTS_PER_SESSION_MAX || !has_room {
                answer.not_found(id);
                continue;
            }
            let broadcast = self.all.entry(id.into()).or_default();
            broadcast.listeners.insert(session);
            match &broadcast.version {
                Some(version) if **version == *has => {}
                Some(version) => answer.differs(id, version),
                None if self.asks => broadcast.unsure.push((session, has.into())),
                None => answer.not_found(id),
            }
        }
        answer
    }

    /// The websocket is no more.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.all.retain(|_, broadcast| {
            broadcast.listeners.remove(&session);
            broadcast
                .unsure
                .retain(|(listener, _)| *listener != session);
            broadcast.version.is_some() || !broadcast.listeners.is_empty()
        });
    }

    /// Takes versions from the source: broadcasts are added and changed, never removed. What each
    /// session that listens has to hear.
    fn update(
        &mut self,
        versions: BTreeMap<String, String>,
    ) -> BTreeMap<SessionId, BroadcastAnswer> {
        let mut news: BTreeMap<SessionId, BroadcastAnswer> = BTreeMap::new();
        for (id, version) in versions {
            if !self.all.contains_key(id.as_str()) && self.all.len() >= BROADCASTS_MAX {
                continue;
            }
            let broadcast = self.all.entry(id.as_str().into()).or_default();
            if broadcast.version.as_deref() == Some(&version) {
                continue;
            }
            let unsure = std::mem::take(&mut broadcast.unsure);
            let has_it = |session| unsure.contains(&(session, version.as_str().into()));
            for session in broadcast
                .listeners
                .iter()
                .filter(|session| !has_it(**session))
            {
                news.entry(*session).or_default().differs(&id, &version);
            }
            broadcast.version = Some(version.into());
        }
        news
    }
}

impl Engine {
    /// The source has been read.
    pub(super) fn broadcasts_read(&mut self, versions: BTreeMap<String, String>) {
        for (session, news) in self.broadcasts.update(versions) {
            let text = server_message::broadcast(&news);
            self.desk.out.send(session, text);
        }
    }

    /// Asks the main service for what it was not asked for before.
    pub(super) fn ask_for_broadcasts(&mut self) {
        if let Some(upstream) = &mut self.upstream
            && upstream.settings.broadcasts
        {
            upstream.listen(self.broadcasts.wanted(), &mut self.desk.out);
        }
    }

    /// A user agent listens to more; it is answered only if something differs.
    pub(super) fn broadcast_subscribe<'a>(
        &mut self,
        session: SessionId,
        wanted: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let answer = self.broadcasts.subscribe(session, wanted);
        self.ask_for_broadcasts();
        if !answer.is_empty() {
            let text = server_message::broadcast(&answer);
            self.desk.out.send(session, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Input;
    use crate::engine::testing::{Out, Table};

    fn read(table: &mut Table, versions: &[(&str, &str)]) -> Vec<Out> {
        let versions = versions.iter();
        let versions = versions.map(|(id, version)| ((*id).to_owned(), (*version).to_owned()));
        table.input(Input::Broadcasts(versions.collect()))
    }

    fn listen(table: &mut Table, session: u64, broadcasts: &str) -> Vec<Out> {
        let text =
            format!(r#"{{"messageType":"broadcast_subscribe","broadcasts":{{{broadcasts}}}}}"#);
        table.say(session, &text)
    }

    fn sent(session: u64, broadcasts: &str) -> Out {
        let text = format!(r#"{{"messageType":"broadcast","broadcasts":{{{broadcasts}}}}}"#);
        Out::Sent(session, text)
    }

    #[test]
    fn listener_hears_at_once_what_differs_and_what_changes() {
        let mut table = Table::new();
        assert_eq!(read(&mut table, &[("a", "1"), ("b", "1")]), []);
        let (one, _) = table.newcomer();
        let (other, _) = table.newcomer();
        assert_eq!(listen(&mut table, one, r#""a":"1""#), []);
        let differs = listen(&mut table, other, r#""a":"0","b":"0""#);
        assert_eq!(differs, [sent(other, r#""a":"1","b":"1""#)]);
        let changed = read(&mut table, &[("a", "2"), ("b", "1")]);
        assert_eq!(
            changed,
            [sent(one, r#""a":"2""#), sent(other, r#""a":"2""#)]
        );
        assert_eq!(read(&mut table, &[("a", "2")]), []);
    }

    #[test]
    fn hello_names_what_differs_and_what_does_not_exist() {
        let mut table = Table::new();
        read(&mut table, &[("a", "1"), ("b", "1")]);
        let id = table.open();
        let outs = table.say(
            id,
            r#"{"messageType":"hello","use_webpush":true,"broadcasts":{"a":"1","b":"0","c":"0"}}"#,
        );
        let [Out::Sent(_, hello)] = outs.as_slice() else {
            panic!("{outs:?}");
        };
        let expected = r#""broadcasts":{"b":"1","errors":{"c":"Broadcast not found"}}}"#;
        assert!(hello.ends_with(expected), "{hello}");
        // It did not exist yet.
        assert_eq!(read(&mut table, &[("c", "5")]), [sent(id, r#""c":"5""#)]);
    }

    #[test]
    fn hello_of_a_user_agent_that_returns_listens_as_well() {
        let mut table = Table::new();
        let (_, uaid) = table.newcomer();
        let id = table.open();
        let text = format!(
            r#"{{"messageType":"hello","use_webpush":true,"uaid":"{uaid}","broadcasts":{{"a":"0"}}}}"#
        );
        table.say(id, &text);
        read(&mut table, &[("a", "1")]);
        let outs = table.stored(vec![crate::model::store::StoreReply::Loaded(vec![])]);
        let Out::Sent(_, hello) = &outs[0] else {
            panic!("{outs:?}");
        };
        assert!(hello.ends_with(r#""broadcasts":{"a":"1"}}"#), "{hello}");
        assert_eq!(read(&mut table, &[("a", "2")]), [sent(id, r#""a":"2""#)]);
    }

    #[test]
    fn nobody_is_remembered_behind_a_closed_websocket() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        listen(&mut table, id, r#""a":"0""#);
        assert_eq!(table.engine.broadcasts.all.len(), 1);
        let session = SessionId(id);
        table.input(Input::Gone { session });
        assert_eq!(table.engine.broadcasts.all.len(), 0);
        assert_eq!(read(&mut table, &[("a", "1")]), []);
    }

    #[test]
    fn listening_is_bounded_for_each_websocket_and_in_all() {
        let mut broadcasts = Broadcasts::default();
        let ids: Vec<String> = (0..BROADCASTS_MAX + 1).map(|n| n.to_string()).collect();
        let wanted = |from: usize, count: usize| {
            let ids = ids.iter().skip(from).take(count);
            ids.map(|id| (id.as_str(), "0")).collect::<Vec<_>>()
        };
        let all = wanted(0, BROADCASTS_PER_SESSION_MAX + 1);
        broadcasts.subscribe(SessionId(0), all);
        assert_eq!(broadcasts.all.len(), BROADCASTS_PER_SESSION_MAX);
        for session in 1..40 {
            let from = session * BROADCASTS_PER_SESSION_MAX;
            let some = wanted(from, BROADCASTS_PER_SESSION_MAX);
            broadcasts.subscribe(SessionId(session as u64), some);
        }
        assert_eq!(broadcasts.all.len(), BROADCASTS_MAX);
    }
}
