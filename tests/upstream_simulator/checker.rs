//! What must hold: nothing to the wrong user agent, nothing of what has ended, nothing twice once it
//! is acked, and in the end everything that the main service took.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use crate::main_service::service::Service;

/// As long a lost user agent may keep its name for what waits for it in the house.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(crate) struct Checker {
    messages: Vec<Message>,
    /// Which message a version of the gateway's is.
    versions: BTreeMap<String, usize>,
    channels: BTreeMap<(usize, Uuid), Channel>,
    /// Names at the main service under which subscriptions were borrowed for each user agent.
    users: BTreeMap<usize, BTreeSet<Uuid>>,
    /// Those since it was told last that its subscriptions are gone.
    users_now: BTreeMap<usize, BTreeSet<Uuid>>,
    /// Since when such a name is forgotten, where that is known for certain.
    forgotten: BTreeMap<usize, Duration>,
    /// Names that went down with a database: nobody can end anything under them.
    orphans: BTreeSet<Uuid>,
    lost_database: bool,
    /// Who has not been here since: if they were posted to in the house, since when.
    away_since_loss: BTreeMap<usize, Option<Duration>>,
    /// How often something that was sent may have been forgotten: crashes, and what the storage refused.
    lapses: u64,
}

#[derive(Debug)]
struct Message {
    agent: usize,
    channel: Uuid,
    /// `None`: posted to the gateway itself.
    user: Option<Uuid>,
    ttl_secs: u64,
    topic: Option<String>,
    posted: Duration,
    /// The gateway's version, and the lapses before it was first sent.
    version: Option<(String, u64)>,
    received: bool,
    /// The lapses before its ack was heard.
    acked: Option<u64>,
    /// It need not arrive any more: its subscription or its user agent's name is gone.
    unwanted: bool,
}

#[derive(Debug, Default)]
struct Channel {
    /// The gateway has answered that it has ended.
    ended: bool,
    /// Its user agent does not want it any more.
    unwanted: bool,
    endpoints: Vec<String>,
}

/// A message that the main service has accepted.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) agent: usize,
    pub(crate) channel: Uuid,
    /// `None`: it is not known yet whether the gateway accepts it.
    pub(crate) user: Option<Uuid>,
    pub(crate) ttl_secs: u64,
    pub(crate) topic: Option<String>,
    pub(crate) at: Duration,
}

impl Checker {
    // What user agents and application servers do.

    /// The number of the next message, for its body.
    pub(crate) const fn next_number(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn posted(&mut self, posted: Posted) {
        let channel = self.channels.get(&(posted.agent, posted.channel));
        self.messages.push(Message {
            agent: posted.agent,
            channel: posted.channel,
            user: posted.user,
            ttl_secs: posted.ttl_secs,
            topic: posted.topic,
            posted: posted.at,
            version: None,
            received: false,
            acked: None,
            unwanted: posted.user.is_none() || channel.is_none_or(|channel| channel.unwanted),
        });
    }

    /// The gateway has accepted a message that was posted to it.
    pub(crate) fn accepted_at_home(&mut self, number: usize) {
        let message = &mut self.messages[number];
        if let Some(since) = self.away_since_loss.get_mut(&message.agent) {
            since.get_or_insert(message.posted);
        }
        let channel = self.channels.get(&(message.agent, message.channel));
        message.unwanted = channel.is_none_or(|channel| channel.unwanted);
    }

    /// A user agent says hello. One that nothing is known of is told at once.
    pub(crate) fn returns(&mut self, agent: usize) {
        if self.away_since_loss.get(&agent) == Some(&None) {
            self.away_since_loss.remove(&agent);
        }
    }

    /// The main service is about to forget somebody.
    pub(crate) fn forgets(&mut self, main: &Service, user: Uuid, now: Duration) {
        for (agent, users) in &self.users_now {
            let all_live = users.iter().all(|user| main.users.contains_key(user));
            if all_live && users.contains(&user) {
                self.forgotten.entry(*agent).or_insert(now);
            }
        }
    }

    /// The gateway writes down a subscription that it has borrowed for this user agent.
    pub(crate) fn borrows(&mut self, agent: usize, user: Uuid) {
        self.users.entry(agent).or_default().insert(user);
        self.users_now.entry(agent).or_default().insert(user);
    }

    /// The user agent has been given an endpoint.
    pub(crate) fn has_endpoint(
        &mut self,
        agent: usize,
        channel: Uuid,
        endpoint: &str,
        user: Option<Uuid>,
    ) {
        let known = self.channels.entry((agent, channel)).or_default();
        known.unwanted = false;
        if user.is_some() {
            known.endpoints.push(endpoint.to_owned());
        }
    }

    pub(crate) fn unregisters(&mut self, agent: usize, channel: Uuid) {
        self.channels.entry((agent, channel)).or_default().unwanted = true;
        self.forget(|message| (message.agent, message.channel) == (agent, channel));
    }

    pub(crate) fn renamed(&mut self, agent: usize, now: Duration) {
        self.users_now.remove(&agent);
        let posted = self.away_since_loss.remove(&agent).flatten();
        let forgotten = self.forgotten.remove(&agent);
        let since = posted.or_else(|| forgotten.filter(|_| !self.lost_database));
        if since.is_some_and(|at| now < at + PATIENCE) {
            let mut own = self.messages.iter().filter(|own| own.agent == agent);
            let lost = own.find(|own| own.user.is_none() && !own.received && !own.unwanted);
            assert!(lost.is_none(), "lost with a name: {lost:?}");
        }
        for ((of, _), channel) in &mut self.channels {
            channel.unwanted |= *of == agent;
        }
        self.forget(|message| message.agent == agent);
    }

    fn forget(&mut self, is_meant: impl Fn(&Message) -> bool) {
        for message in self.messages.iter_mut().filter(|message| is_meant(message)) {
            message.unwanted = true;
        }
    }

    // What the gateway does.

    /// The gateway has answered a register.
    pub(crate) fn is_there(&mut self, agent: usize, channel: Uuid) {
        self.channels.entry((agent, channel)).or_default().ended = false;
    }

    /// The gateway has answered an unregister.
    pub(crate) fn has_ended(&mut self, agent: usize, channel: Uuid) {
        self.channels.entry((agent, channel)).or_default().ended = true;
    }

    /// The gateway sends a notification.
    pub(crate) fn sent(&mut self, agent: usize, channel: Uuid, version: &str, body: Option<&[u8]>) {
        let number = number_in(body.expect("every message has a body"));
        let known = &self.channels[&(agent, channel)];
        assert!(
            !known.ended,
            "message {number} sent after its unregister was answered"
        );
        let lapses = self.lapses;
        let message = &mut self.messages[number];
        assert_eq!(
            (message.agent, message.channel),
            (agent, channel),
            "to the wrong place"
        );
        assert_ne!(
            message.acked,
            Some(lapses),
            "message {number} sent again after its ack"
        );
        match &message.version {
            Some((before, then)) if *then == lapses => {
                assert_eq!(before, version, "message {number} was kept twice");
            }
            _ => {
                message.version = Some((version.to_owned(), lapses));
                self.versions.insert(version.to_owned(), number);
            }
        }
    }

    /// The gateway hears an ack.
    pub(crate) fn acked(&mut self, agent: usize, version: &str) {
        let number = self.versions[version];
        let message = &mut self.messages[number];
        assert_eq!(message.agent, agent);
        let (newest, then) = message.version.as_ref().expect("it was sent");
        // Of an older version of it, nothing follows.
        if newest == version && *then == self.lapses {
            message.acked = Some(self.lapses);
        }
    }

    /// A user agent reads a notification.
    pub(crate) fn received(&mut self, body: Option<&[u8]>) {
        let number = number_in(body.expect("every message has a body"));
        self.messages[number].received = true;
    }

    /// Something that was sent may be forgotten, or its ack: it may come again as another one.
    pub(crate) const fn lapsed(&mut self) {
        self.lapses += 1;
    }

    pub(crate) fn database_lost(&mut self, main: &Service) {
        self.orphans.extend(main.users.keys());
        self.lost_database = true;
        self.forget(|_| true);
        for channel in self.channels.values_mut() {
            channel.ended = false;
        }
        let agents = self.channels.keys().map(|(agent, _)| (*agent, None));
        self.away_since_loss = agents.collect();
    }

    // In the end.

    /// Everybody is here, nothing is wrong, nothing moves.
    pub(crate) fn all_received(&self, main: &Service, now: Duration) {
        for (number, message) in self.messages.iter().enumerate() {
            let is_expired = now >= message.posted + Duration::from_secs(message.ttl_secs);
            let is_lost_above = message
                .user
                .is_some_and(|user| !main.users.contains_key(&user));
            let is_excused =
                message.unwanted || is_expired || is_lost_above || self.is_replaced(number);
            assert!(
                message.received || is_excused,
                "message {number} is lost: {message:?}"
            );
        }
    }

    fn is_replaced(&self, number: usize) -> bool {
        let old = &self.messages[number];
        let newer = &self.messages[number + 1..];
        old.topic.is_some()
            && newer.iter().any(|newer| {
                newer.topic == old.topic && (newer.agent, newer.channel) == (old.agent, old.channel)
            })
    }

    /// Endpoints that the main service must not know any more.
    pub(crate) fn dead_endpoints(&self, main: &Service) -> Vec<&str> {
        let ended = self.channels.values().filter(|channel| channel.ended);
        let all = ended.flat_map(|channel| &channel.endpoints);
        let all = all.map(String::as_str);
        all.filter(|endpoint| {
            let user = user_of(main, endpoint);
            user.is_some_and(|user| !self.orphans.contains(&user))
        })
        .collect()
    }

    /// Whether somebody at the main service that this user agent depended on was lost, or a database:
    /// then the gateway cannot know.
    pub(crate) fn had_reason_to_be_renamed(&self, agent: usize, main: &Service) -> bool {
        let own = self.users.get(&agent);
        let mut own = own.into_iter().flatten();
        self.lost_database || own.any(|user| !main.users.contains_key(user))
    }
}

/// Whose an endpoint is at the main service.
pub(crate) fn user_of(main: &Service, endpoint: &str) -> Option<Uuid> {
    let token = endpoint.rsplit('/').next()?;
    main.endpoints.get(token).map(|endpoint| endpoint.uaid)
}

fn number_in(body: &[u8]) -> usize {
    let text = std::str::from_utf8(body).expect("a body of ours");
    text.parse().expect("a number")
}
