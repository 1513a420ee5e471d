//! The links on the table of `testing`: a user agent on one side, the main service on the other.

use std::time::Duration;

use super::super::testing::{
    EMPTY_PAGE, KEPT, Out, Table, channel_id, loaded, page, restored, versions,
};
use super::super::{CloseReason, Input, LinkEnd, LinkId, UpEvent, UpOrder};
use crate::model::ids::{ChannelId, Uaid};
use crate::model::message::PushMessage;
use crate::model::store::{EnqueueOutcome, StoreError, StoreOp, StoreReply, UpstreamOp};
use crate::model::upstream::{
    Borrowed, Endpoints, Identity, Kept, Name, Owner, Rule, Unreachable, Upstream,
};
use crate::protocol::keyring::{self, Keyring};
use crate::protocol::peer_url::PeerUrl;

const NAME: &str = "00000000000040008000000000000001";
const ENDPOINT: &str = "https://push.example/wpush/v1/abc";
const SERVICE: &str = "https://push.example";

fn all() -> Upstream {
    Upstream {
        service: SERVICE.into(),
        endpoints: Endpoints::All,
        ..Upstream::default()
    }
}

/// A table whose engine has read that nothing is borrowed.
fn table(settings: Upstream) -> Table {
    with_kept(settings, Kept::default())
}

fn with_kept(settings: Upstream, kept: Kept) -> Table {
    let mut table = Table::with_upstream(settings);
    assert!(matches!(
        table.asked.as_slice(),
        [StoreOp::Upstream(UpstreamOp::Load)]
    ));
    table.stored(vec![StoreReply::Upstream(Box::new(kept))]);
    table
}

fn up(table: &mut Table, link: u64, event: UpEvent<'_>) -> Vec<Out> {
    let link = LinkId(link);
    table.input(Input::Up { link, event })
}

fn ended(table: &mut Table, link: u64, why: &str) -> Vec<Out> {
    let end = LinkEnd {
        why: why.to_owned(),
        is_lasting: false,
        retry_after: Duration::ZERO,
        redirect: None,
        random: [0; 2],
    };
    up(table, link, UpEvent::Ended(end))
}

fn dashed(channel: u8) -> String {
    channel_id(channel).uuid().hyphenated().to_string()
}

fn register_text(channel: u8) -> String {
    format!(
        r#"{{"messageType":"register","channelID":"{}"}}"#,
        dashed(channel)
    )
}

/// Opens a link that is being connected; what it says behind its hello.
fn open(table: &mut Table, link: u64, name: &str) -> Vec<String> {
    let outs = up(table, link, UpEvent::Opened);
    let [Out::Up(at, UpOrder::Send(hello))] = outs.as_slice() else {
        panic!("{outs:?}");
    };
    assert_eq!(*at, link);
    assert!(hello.contains(r#""use_webpush":true"#), "{hello}");
    let answer = format!(r#"{{"messageType":"hello","uaid":"{name}","status":200}}"#);
    said(up(table, link, UpEvent::Text(&answer)))
}

/// What is sent to the main service.
fn said(outs: Vec<Out>) -> Vec<String> {
    let text = |out| {
        if let Out::Up(_, UpOrder::Send(text)) = out {
            return Some(text);
        }
        None
    };
    outs.into_iter().filter_map(text).collect()
}

/// Answers a register.
fn made(table: &mut Table, link: u64, channel: u8, status: u16) -> Vec<Out> {
    let text = format!(
        r#"{{"messageType":"register","channelID":"{}","status":{status},"pushEndpoint":"{ENDPOINT}"}}"#,
        dashed(channel)
    );
    up(table, link, UpEvent::Text(&text))
}

/// A user agent with a borrowed subscription, channel 1, on link 1.
fn borrower(table: &mut Table) -> (u64, String) {
    let (id, uaid) = table.newcomer();
    assert_eq!(
        table.say(id, &register_text(1)),
        [Out::Up(1, UpOrder::Connect(None))]
    );
    assert_eq!(open(table, 1, NAME).len(), 1);
    assert_eq!(made(table, 1, 1, 200), []);
    let outs = table.stored(vec![StoreReply::Subscribed(true)]);
    assert!(
        matches!(outs.as_slice(), [Out::Sent(_, text)] if text.contains(ENDPOINT)),
        "{outs:?}"
    );
    (id, uaid)
}

/// The name of a user agent of an earlier run, which is none of those that a table mints first.
fn earlier() -> String {
    let mut first = table(all());
    for _ in 0..9 {
        first.open();
    }
    first.newcomer().1
}

/// A message of channel 2 that was posted to the gateway itself, for somebody who is away.
fn waiting() -> PushMessage {
    let mut table = Table::new();
    let (id, _) = table.newcomer();
    let local = table.register(id, 2);
    let session = super::super::SessionId(id);
    table.input(Input::Gone { session });
    table.post(&local, 60, None);
    table.asked_to_keep()
}

fn message(channel: u8, version: &str) -> String {
    format!(
        r#"{{"messageType":"notification","channelID":"{}","version":"{version}","data":"AAAA","headers":{{"encoding":"aes128gcm"}}}}"#,
        dashed(channel)
    )
}

fn ack(channel: u8, version: &str, code: u16) -> Out {
    let text = format!(
        r#"{{"messageType":"ack","updates":[{{"channelID":"{}","code":{code},"version":"{version}"}}]}}"#,
        dashed(channel)
    );
    Out::Up(1, UpOrder::Send(text))
}

fn unregister(link: u64, channel: u8) -> Out {
    let text = format!(
        r#"{{"channelID":"{}","code":200,"messageType":"unregister"}}"#,
        dashed(channel)
    );
    Out::Up(link, UpOrder::Send(text))
}

fn uaid_of(uaid: &str) -> Uaid {
    keyring::parse_uaid(uaid).unwrap()
}

fn kept_of(uaid: &str, ended: bool) -> Kept {
    let uaid = uaid_of(uaid);
    Kept {
        names: vec![Name {
            owner: Owner(uaid),
            name: NAME.into(),
            service: SERVICE.into(),
        }],
        borrowed: vec![Borrowed {
            owner: Owner(uaid),
            alias: channel_id(1),
            uaid,
            channel: channel_id(1),
            endpoint: ENDPOINT.into(),
            key: None,
            ended,
        }],
        ..Kept::default()
    }
}

#[test]
fn without_a_borrowed_subscription_nothing_leaves_the_house() {
    let settings = Upstream {
        endpoints: Endpoints::None,
        ..all()
    };
    let mut table = table(settings);
    let (id, _) = table.newcomer();
    table.register(id, 1);
    assert_eq!(table.pass(Duration::from_secs(3600)).len(), 1);
}

#[test]
fn register_is_forwarded_with_its_key_and_other_requests_do_not_wait_for_it() {
    let mut table = table(all());
    let (id, _) = table.newcomer();
    let key = "BKey";
    let text = format!(
        r#"{{"messageType":"register","channelID":"{}","key":"{key}"}}"#,
        dashed(1)
    );
    assert_eq!(table.say(id, &text), [Out::Up(1, UpOrder::Connect(None))]);
    assert_eq!(table.say(id, "{}"), [Out::Sent(id, "{}".to_owned())]);
    let asked = open(&mut table, 1, NAME);
    assert_eq!(
        asked,
        [format!(
            r#"{{"channelID":"{}","key":"{key}","messageType":"register"}}"#,
            dashed(1)
        )]
    );
    made(&mut table, 1, 1, 200);
    match table.asked.as_slice() {
        [StoreOp::Upstream(UpstreamOp::Borrow { name, borrowed, .. })] => {
            assert_eq!(&*name.name, NAME);
            assert_eq!(borrowed.key.as_deref(), Some(key));
        }
        other => panic!("{other:?}"),
    }
    // Again: it has its endpoint, and the main service is not asked.
    table.stored(vec![StoreReply::Subscribed(true)]);
    assert_eq!(table.say(id, &text), [Out::Paused(id)]);
    let outs = table.stored(vec![StoreReply::Subscribed(true)]);
    assert!(
        matches!(outs.as_slice(), [Out::Sent(_, text), Out::Resumed(_)] if text.contains(ENDPOINT)),
        "{outs:?}"
    );
}

#[test]
fn unreachable_service_is_an_endpoint_here_or_an_error_within_the_time_that_is_allowed() {
    for (unreachable, is_local) in [(Unreachable::Local, true), (Unreachable::Refuse, false)] {
        let mut table = table(Upstream {
            unreachable,
            ..all()
        });
        let (id, _) = table.newcomer();
        table.say(id, &register_text(1));
        assert_eq!(table.pass(Duration::from_millis(2999)), []);
        let outs = table.pass(Duration::from_millis(1));
        assert_answered(&mut table, id, outs, is_local);
        // Known to be down, it costs no time at all.
        ended(&mut table, 1, "refused");
        let outs = table.say(id, &register_text(2));
        if is_local {
            assert_eq!(outs[0], Out::Up(2, UpOrder::Connect(None)));
        }
    }
}

fn assert_answered(table: &mut Table, id: u64, outs: Vec<Out>, is_local: bool) {
    if is_local {
        assert_eq!(outs, [Out::Paused(id)]);
        let outs = table.stored(vec![StoreReply::Subscribed(true)]);
        assert!(
            matches!(outs.as_slice(), [Out::Sent(_, text), Out::Resumed(_)] if text.contains("http://pi")),
            "{outs:?}"
        );
    } else {
        assert!(
            matches!(outs.as_slice(), [Out::Sent(_, text)] if text.contains(r#""status":500"#)),
            "{outs:?}"
        );
    }
}

#[test]
fn subscription_that_is_made_too_late_is_given_back() {
    let mut table = table(all());
    let (id, _) = table.newcomer();
    table.say(id, &register_text(1));
    open(&mut table, 1, NAME);
    table.pass(Duration::from_secs(3));
    table.stored(vec![StoreReply::Subscribed(true)]);
    assert_eq!(made(&mut table, 1, 1, 200), []);
}

#[test]
fn subscription_that_was_asked_for_twice_stays() {
    let mut table = table(all());
    let (id, _) = borrower(&mut table);
    table.say(id, &register_text(2));
    let outs = table.say(id, &register_text(2));
    assert!(
        matches!(outs.as_slice(), [Out::Up(1, UpOrder::Send(_)), Out::Sent(_, text)] if text.contains("500")),
        "{outs:?}"
    );
    assert_eq!(made(&mut table, 1, 2, 200), []);
    assert_eq!(made(&mut table, 1, 2, 200), []);
    table.stored(vec![StoreReply::Subscribed(true)]);
    let outs = up(&mut table, 1, UpEvent::Text(&message(2, "v1")));
    assert_eq!(versions(&outs).len(), 1);
}

#[test]
fn message_is_acked_there_when_its_user_agent_has_acked_it() {
    let mut table = table(all());
    let (id, _) = borrower(&mut table);
    let outs = up(&mut table, 1, UpEvent::Text(&message(1, "v1")));
    let version = versions(&outs).remove(0);
    assert_eq!(outs.len(), 1);
    assert_eq!(table.ack(id, 1, &version, 101), [ack(1, "v1", 101)]);
    assert!(table.asked.is_empty(), "{:?}", table.asked);
    // Its ack was lost: it comes again, and only the ack is repeated.
    let outs = up(&mut table, 1, UpEvent::Text(&message(1, "v1")));
    assert_eq!(outs, [ack(1, "v1", 101)]);
}

#[test]
fn nack_is_handed_up_once_with_its_code_and_only_of_what_came_from_there() {
    let mut table = table(by_key());
    let (id, _, local) = half_borrower(&mut table);
    let nack = |version: &str, code: u16| {
        format!(r#"{{"code":{code},"messageType":"nack","version":"{version}"}}"#)
    };
    let outs = up(&mut table, 1, UpEvent::Text(&message(1, "v1")));
    let version = versions(&outs).remove(0);
    // As Firefox: it has arrived, and then its handler fails.
    table.ack(id, 1, &version, 100);
    assert_eq!(table.say(id, &nack(&version, 300)), []);
    let told = Out::Up(1, UpOrder::Send(nack("v1", 302)));
    assert_eq!(table.say(id, &nack(&version, 302)), [told]);
    assert_eq!(table.say(id, &nack(&version, 302)), []);
    let (_, outs) = table.post(&local, 60, None);
    let version = versions(&outs).remove(0);
    assert_eq!(table.say(id, &nack(&version, 302)), []);
    assert_eq!(table.snapshot().counters.nacks, 4);
}

#[test]
fn message_for_a_user_agent_that_is_away_is_acked_there_when_it_is_on_flash() {
    let mut table = table(all());
    let (id, _) = borrower(&mut table);
    let session = super::super::SessionId(id);
    table.input(Input::Gone { session });
    assert_eq!(up(&mut table, 1, UpEvent::Text(&message(1, "v1"))), []);
    assert!(matches!(
        table.asked.as_slice(),
        [StoreOp::Enqueue {
            received: Some(_),
            ..
        }]
    ));
    // On its way it is known already, and not acked either.
    assert_eq!(up(&mut table, 1, UpEvent::Text(&message(1, "v1"))), []);
    assert_eq!(table.stored(vec![KEPT]), [ack(1, "v1", 100)]);
}

#[test]
fn message_that_cannot_be_kept_is_not_acked_and_comes_again_with_the_next_connection() {
    let mut table = table(all());
    let (id, _) = borrower(&mut table);
    let session = super::super::SessionId(id);
    table.input(Input::Gone { session });
    for reply in [
        StoreReply::Enqueued(EnqueueOutcome::QueueFull),
        StoreReply::Failed(StoreError::DiskFull),
    ] {
        let link = table.newest_link;
        up(&mut table, link, UpEvent::Text(&message(1, "v1")));
        assert_eq!(table.stored(vec![reply]), [Out::Up(link, UpOrder::Close)]);
        assert_eq!(ended(&mut table, link, "closed"), []);
        let outs = table.pass(Duration::from_secs(2));
        assert_eq!(outs, [Out::Up(link + 1, UpOrder::Connect(None))]);
        open(&mut table, link + 1, NAME);
    }
}

#[test]
fn message_that_was_kept_before_a_restart_is_acked_and_not_taken_again() {
    let uaid = earlier();
    let received = keyring::received("v1");
    let kept = Kept {
        received: vec![(Owner(uaid_of(&uaid)), received)],
        ..kept_of(&uaid, false)
    };
    let mut table = with_kept(all(), kept);
    assert_eq!(open(&mut table, 1, NAME), Vec::<String>::new());
    let outs = up(&mut table, 1, UpEvent::Text(&message(1, "v1")));
    assert_eq!(outs, [ack(1, "v1", 100)]);
    // A minute later the main service says that it has read that, and it is forgotten.
    assert_eq!(
        table.pass(Duration::from_secs(60)),
        [Out::Up(1, UpOrder::Ping)]
    );
    assert_eq!(up(&mut table, 1, UpEvent::Pong), []);
    assert!(matches!(
        table.asked.last(),
        Some(StoreOp::Upstream(UpstreamOp::Settled { received: all, .. })) if *all == [received]
    ));
}

#[test]
fn message_that_was_acked_from_memory_is_known_to_the_process_after_a_stop() {
    let mut table = table(all());
    let (id, uaid) = borrower(&mut table);
    let outs = up(&mut table, 1, UpEvent::Text(&message(1, "v1")));
    table.ack(id, 1, &versions(&outs)[0], 100);
    // This one goes to flash, and is remembered with that.
    up(&mut table, 1, UpEvent::Text(&message(1, "v2")));
    table.input(Input::Stop);
    let acked = table.asked.iter().filter_map(|op| {
        if let StoreOp::Upstream(UpstreamOp::Acked { owner, received }) = op {
            return Some((*owner, received.clone()));
        }
        None
    });
    let acked: Vec<_> = acked.collect();
    let expected = (Owner(uaid_of(&uaid)), vec![keyring::received("v1")]);
    assert_eq!(acked, [expected]);
}

#[test]
fn nothing_is_settled_as_long_as_any_message_is_not_acked() {
    let mut table = table(all());
    let (id, _) = borrower(&mut table);
    let outs = up(&mut table, 1, UpEvent::Text(&message(1, "v1")));
    let version = versions(&outs).remove(0);
    table.ack(id, 1, &version, 100);
    up(&mut table, 1, UpEvent::Text(&message(1, "v2")));
    let outs = table.pass(Duration::from_secs(60));
    assert!(outs.contains(&Out::Up(1, UpOrder::Ping)), "{outs:?}");
    up(&mut table, 1, UpEvent::Pong);
    let outs = up(&mut table, 1, UpEvent::Text(&message(1, "v1")));
    assert_eq!(outs, [ack(1, "v1", 100)]);
}

#[test]
fn message_that_comes_while_a_ping_is_out_leaves_what_was_acked_before_it_known() {
    for meanwhile in ["v1", "v2"] {
        let mut table = table(all());
        let (id, _) = borrower(&mut table);
        let outs = up(&mut table, 1, UpEvent::Text(&message(1, "v1")));
        table.ack(id, 1, &versions(&outs)[0], 100);
        let outs = table.pass(Duration::from_secs(60));
        assert_eq!(outs, [Out::Up(1, UpOrder::Ping)]);
        let outs = up(&mut table, 1, UpEvent::Text(&message(1, meanwhile)));
        if let Some(version) = versions(&outs).first() {
            table.ack(id, 1, version, 100);
        }
        assert_eq!(up(&mut table, 1, UpEvent::Pong), []);
        // The later ack was lost with the connection: all of it comes again, and to nobody.
        ended(&mut table, 1, "gone");
        table.pass(Duration::from_secs(1));
        open(&mut table, 2, NAME);
        for version in ["v1", meanwhile] {
            let outs = up(&mut table, 2, UpEvent::Text(&message(1, version)));
            assert_eq!(versions(&outs), Vec::<String>::new());
            assert_eq!(outs.len(), 1, "{outs:?}");
        }
    }
}

#[test]
fn link_that_is_too_busy_for_anything_to_be_settled_forgets_what_it_acked_first() {
    let mut table = table(all());
    borrower(&mut table);
    for number in 0..5000 {
        let outs = up(
            &mut table,
            1,
            UpEvent::Text(&message(9, &number.to_string())),
        );
        assert!(!outs.contains(&Out::Up(1, UpOrder::Close)), "{number}");
    }
    let settled = table.asked.iter().find_map(|op| {
        if let StoreOp::Upstream(UpstreamOp::Settled { received, .. }) = op {
            return Some(received);
        }
        None
    });
    let settled = settled.unwrap();
    assert!(settled.contains(&keyring::received("0")));
    assert!(!settled.contains(&keyring::received("4095")));
}

#[test]
fn message_of_an_unknown_subscription_has_it_ended_there() {
    let mut table = table(all());
    borrower(&mut table);
    let outs = up(&mut table, 1, UpEvent::Text(&message(9, "v1")));
    assert_eq!(outs, [unregister(1, 9), ack(9, "v1", 102)]);
}

#[test]
fn subscription_that_ends_while_the_link_is_down_is_ended_there_later() {
    let mut table = table(all());
    let (id, uaid) = borrower(&mut table);
    ended(&mut table, 1, "gone");
    table.unregister(id, 1);
    table.stored(vec![StoreReply::Done]);
    table.pass(Duration::from_secs(1));
    let outs = up(&mut table, 2, UpEvent::Opened);
    assert_eq!(outs.len(), 1);
    let answer = format!(r#"{{"messageType":"hello","uaid":"{NAME}","status":200}}"#);
    assert_eq!(
        up(&mut table, 2, UpEvent::Text(&answer)),
        [unregister(2, 1)]
    );

    // The same after a restart.
    let mut table = with_kept(all(), kept_of(&uaid, true));
    let asked = open(&mut table, 1, NAME);
    assert_eq!(asked.len(), 1);
    let done = format!(
        r#"{{"messageType":"unregister","channelID":"{}","status":200}}"#,
        dashed(1)
    );
    let outs = up(&mut table, 1, UpEvent::Text(&done));
    // Nothing is left to do: the link is closed.
    assert_eq!(outs, [Out::Up(1, UpOrder::Close)]);
    assert!(matches!(
        table.asked.as_slice(),
        [StoreOp::Upstream(UpstreamOp::Returned { .. })]
    ));
    ended(&mut table, 1, "closed");
    assert_eq!(table.pass(Duration::from_secs(7200)), []);
}

#[test]
fn replaced_name_gives_exactly_that_user_agent_a_new_one() {
    let uaid = earlier();
    let mut table = with_kept(all(), kept_of(&uaid, false));
    let (other, _) = table.newcomer();
    let id = table.again(&uaid);
    table.stored(vec![loaded(1)]);
    table.stored(vec![EMPTY_PAGE]);
    let outs = up(&mut table, 1, UpEvent::Opened);
    assert!(said(outs)[0].contains(NAME));
    let answer =
        r#"{"messageType":"hello","uaid":"0000000000004000800000000000000f","status":200}"#;
    let outs = up(&mut table, 1, UpEvent::Text(answer));
    assert_eq!(
        outs,
        [
            Out::Up(1, UpOrder::Close),
            Out::Closed(id, CloseReason::SubscriptionsLost)
        ]
    );
    assert!(matches!(
        table.asked.as_slice(),
        [StoreOp::Upstream(UpstreamOp::Lost { .. })]
    ));
    table.stored(vec![StoreReply::Done]);
    // It comes back and is told, once.
    let id = table.again(&uaid);
    let outs = table.stored(vec![loaded(1)]);
    let [Out::Sent(_, hello), Out::Resumed(_)] = outs.as_slice() else {
        panic!("{outs:?}");
    };
    assert!(!hello.contains(&uaid), "{hello}");
    assert!(matches!(table.asked.as_slice(), [StoreOp::Forget { .. }]));
    table.stored(vec![StoreReply::Done]);
    // The others keep their names and their sockets.
    assert_eq!(table.say(other, "{}").len(), 1);
    assert_eq!(table.say(id, "{}").len(), 1);
}

/// A user agent with a borrowed subscription and one of the gateway's own: its session, its name, and
/// the path of the latter.
fn half_borrower(table: &mut Table) -> (u64, String, String) {
    let (id, uaid) = table.newcomer();
    let text = register_text(1).replace('}', r#","key":"BKey"}"#);
    table.say(id, &text);
    open(table, 1, NAME);
    made(table, 1, 1, 200);
    table.stored(vec![StoreReply::Subscribed(true)]);
    let local = table.register(id, 2);
    (id, uaid, local)
}

/// Only what is restricted to a certain key.
fn by_key() -> Upstream {
    Upstream {
        endpoints: Endpoints::Rules(vec![Rule::Vapid("BKey".into())]),
        ..all()
    }
}

/// The main service has forgotten who has link 1, and says so on link 2.
fn replace_name(table: &mut Table) -> Vec<Out> {
    ended(table, 1, "gone");
    table.pass(Duration::from_secs(1));
    up(table, 2, UpEvent::Opened);
    let answer =
        r#"{"messageType":"hello","uaid":"0000000000004000800000000000000f","status":200}"#;
    up(table, 2, UpEvent::Text(answer))
}

fn let_go(id: u64) -> Out {
    Out::Closed(id, CloseReason::SubscriptionsLost)
}

/// The storage answers all that it is asked, with `waiting` as what waits there.
fn store_all(table: &mut Table, waiting: &[PushMessage]) -> Vec<Out> {
    let mut outs = Vec::new();
    while !table.asked.is_empty() {
        let reply = |op: &StoreOp| {
            if matches!(op, StoreOp::Enqueue { .. }) {
                return KEPT;
            }
            if matches!(op, StoreOp::Load { .. }) {
                return loaded(2);
            }
            if matches!(op, StoreOp::Fetch { .. }) {
                return page(waiting.to_vec());
            }
            StoreReply::Done
        };
        let replies = table.asked.iter().map(reply).collect();
        outs.extend(table.stored(replies));
    }
    outs
}

/// It comes back; whether it keeps its name, and the session.
fn keeps_its_name(table: &mut Table, uaid: &str, waiting: &[PushMessage]) -> (bool, u64, Vec<Out>) {
    let id = table.again(uaid);
    let outs = store_all(table, waiting);
    let greetings = outs.iter().filter(
        |out| matches!(out, Out::Sent(to, text) if *to == id && text.contains(r#""hello""#)),
    );
    let greetings: Vec<&Out> = greetings.collect();
    let [Out::Sent(_, greeting)] = greetings.as_slice() else {
        panic!("{outs:?}");
    };
    (greeting.contains(uaid), id, outs)
}

/// It comes back with nothing to wait for, is let go, and gets another name on the session that follows.
fn is_told(table: &mut Table, uaid: &str) -> u64 {
    let (keeps, id, _) = keeps_its_name(table, uaid, &[]);
    assert!(keeps);
    table.all_sent(id);
    assert_eq!(table.pass(Duration::from_secs(1)), [let_go(id)]);
    let (keeps, id, _) = keeps_its_name(table, uaid, &[]);
    assert!(!keeps);
    id
}

#[test]
fn subscription_that_is_lost_on_its_way_to_flash_is_told_as_any_other() {
    let mut table = table(all());
    let (id, uaid) = table.newcomer();
    table.pass(Duration::from_secs(1));
    table.say(id, &register_text(1));
    open(&mut table, 1, NAME);
    made(&mut table, 1, 1, 200);
    // The storage is slow, and the main service forgets who has just subscribed.
    replace_name(&mut table);
    let outs = table.stored(vec![StoreReply::Subscribed(true)]);
    assert!(
        outs.is_empty() || matches!(outs.as_slice(), [Out::Sent(..)]),
        "{outs:?}"
    );
    table.all_sent(id);
    table.pass(Duration::from_secs(1));
    store_all(&mut table, &[]);
    let (keeps, _, _) = keeps_its_name(&mut table, &uaid, &[]);
    assert!(!keeps);
}

#[test]
fn name_is_not_taken_before_what_waits_here_has_arrived() {
    let mut table = table(by_key());
    let (id, uaid, local) = half_borrower(&mut table);
    let (_, outs) = table.post(&local, 60, None);
    let version = versions(&outs).remove(0);
    let outs = replace_name(&mut table);
    assert!(!outs.contains(&let_go(id)), "{outs:?}");
    table.all_sent(id);
    table.ack(id, 2, &version, 100);
    let outs = table.pass(Duration::from_secs(1));
    assert!(outs.contains(&let_go(id)), "{outs:?}");
    store_all(&mut table, &[]);

    // One that comes before it is back is not lost either.
    table.post(&local, 60, None);
    let kept = table.asked_to_keep();
    let (keeps, id, outs) = keeps_its_name(&mut table, &uaid, &[kept]);
    assert!(keeps);
    let version = versions(&outs).remove(0);
    let outs = table.pass(Duration::from_secs(60));
    assert!(!outs.contains(&let_go(id)), "{outs:?}");
    table.all_sent(id);
    store_all(&mut table, &[]);
    table.ack(id, 2, &version, 100);
    let outs = table.pass(Duration::from_secs(1));
    assert!(outs.contains(&let_go(id)), "{outs:?}");
    store_all(&mut table, &[]);
    assert!(!keeps_its_name(&mut table, &uaid, &[]).0);
}

#[test]
fn user_agent_that_was_away_is_let_go_at_once_if_nothing_waits_here() {
    let uaid = earlier();
    let kept = Kept {
        to_tell: vec![uaid_of(&uaid)],
        ..Kept::default()
    };
    let mut table = with_kept(all(), kept);
    is_told(&mut table, &uaid);
}

#[test]
fn user_agent_that_came_before_it_was_known_that_it_must_be_told_is_let_go() {
    let mut table = Table::with_upstream(all());
    table.stored(vec![StoreReply::Failed(StoreError::Io)]);
    let (id, uaid) = table.newcomer();
    // Read again later.
    table.pass(Duration::from_secs(60));
    table.all_sent(id);
    let kept = Kept {
        to_tell: vec![uaid_of(&uaid)],
        ..Kept::default()
    };
    table.stored(vec![StoreReply::Upstream(Box::new(kept))]);
    assert_eq!(table.pass(Duration::from_secs(1)), [let_go(id)]);
}

#[test]
fn user_agent_that_never_acks_is_told_nevertheless() {
    let mut table = table(by_key());
    let (id, uaid, local) = half_borrower(&mut table);
    table.post(&local, 600, None);
    replace_name(&mut table);
    for _ in 0..298 {
        let outs = table.pass(Duration::from_secs(1));
        assert!(!outs.contains(&let_go(id)), "{outs:?}");
        let session = super::super::SessionId(id);
        table.input(Input::Alive { session });
        store_all(&mut table, &[]);
    }
    let outs = table.pass(Duration::from_secs(3));
    assert!(outs.contains(&let_go(id)), "{outs:?}");
    store_all(&mut table, &[]);
    assert!(!keeps_its_name(&mut table, &uaid, &[]).0);
}

#[test]
fn name_of_another_service_is_as_good_as_lost() {
    let uaid = earlier();
    let mut kept = kept_of(&uaid, false);
    kept.names[0].service = "https://elsewhere.example".into();
    let mut table = with_kept(all(), kept);
    assert!(matches!(
        table.asked.as_slice(),
        [StoreOp::Upstream(UpstreamOp::Lost { .. })]
    ));
    // Nothing waits here, and it is told as soon as that is known.
    is_told(&mut table, &uaid);
}

#[test]
fn main_service_that_is_taken_away_is_as_good_as_another_and_nobody_connects() {
    let uaid = earlier();
    let mut table = with_kept(Upstream::taken_away(), kept_of(&uaid, false));
    assert!(matches!(
        table.asked.as_slice(),
        [StoreOp::Upstream(UpstreamOp::Lost { .. })]
    ));
    store_all(&mut table, &[]);
    assert_eq!(table.snapshot().upstream_to_tell, 1);
    let id = is_told(&mut table, &uaid);
    assert_eq!(table.snapshot().upstream_to_tell, 0);
    table.register(id, 1);
    store_all(&mut table, &[]);
    assert_eq!(table.newest_link, 0);
}

fn sent_on(to: &str) -> UpOrder {
    UpOrder::Connect(Some(Box::new(PeerUrl::new(to).unwrap())))
}

/// The handshake is answered with a redirect.
fn redirected(table: &mut Table, link: u64, to: &str) -> Vec<Out> {
    let end = LinkEnd {
        why: "refused with 307".to_owned(),
        is_lasting: true,
        retry_after: Duration::ZERO,
        redirect: Some(to.into()),
        random: [0; 2],
    };
    up(table, link, UpEvent::Ended(end))
}

#[test]
fn redirect_is_followed_for_one_connection_and_the_register_does_not_fail() {
    let mut table = table(all());
    let (id, _) = table.newcomer();
    table.say(id, &register_text(1));
    let outs = redirected(&mut table, 1, "wss://b.example/c");
    assert_eq!(outs, [Out::Up(2, sent_on("wss://b.example/c"))]);
    // The machine that is meant may be one further, and hello may say so.
    up(&mut table, 2, UpEvent::Opened);
    let answer = r#"{"messageType":"hello","status":307,"redirect":"wss://d.example/"}"#;
    let outs = up(&mut table, 2, UpEvent::Text(answer));
    assert_eq!(outs, [Out::Up(2, UpOrder::Close)]);
    let outs = ended(&mut table, 2, "closed");
    assert_eq!(outs, [Out::Up(3, sent_on("wss://d.example/"))]);
    assert_eq!(open(&mut table, 3, NAME).len(), 1);
    let link = table.snapshot().upstream.unwrap().remove(0);
    assert_eq!(link.at.as_deref(), Some("https://d.example/"));
    assert_eq!(table.snapshot().counters.upstream_redirects, 2);
    made(&mut table, 3, 1, 200);
    table.stored(vec![StoreReply::Subscribed(true)]);
    // The next one begins where it is configured.
    ended(&mut table, 3, "gone");
    let outs = table.pass(Duration::from_secs(1));
    assert_eq!(outs, [Out::Up(4, UpOrder::Connect(None))]);
}

#[test]
fn redirect_to_another_scheme_is_not_followed_and_said_to_the_operator() {
    let mut table = table(all());
    borrower(&mut table);
    ended(&mut table, 1, "gone");
    table.pass(Duration::from_secs(1));
    assert_eq!(redirected(&mut table, 2, "ws://b.example/"), []);
    let link = table.snapshot().upstream.unwrap().remove(0);
    let error = link.last_error.unwrap();
    assert!(error.contains("ws://b.example/"), "{error}");
    assert!(error.contains("scheme"), "{error}");
}

#[test]
fn redirects_in_a_ring_end_and_the_next_attempt_waits() {
    let mut table = table(all());
    let (id, _) = table.newcomer();
    table.say(id, &register_text(1));
    for link in 1..=5 {
        let outs = redirected(&mut table, link, "/again");
        assert_eq!(
            outs,
            [Out::Up(link + 1, sent_on("https://push.example/again"))]
        );
    }
    assert_eq!(redirected(&mut table, 6, "/again"), [Out::Paused(id)]);
    table.stored(vec![StoreReply::Subscribed(true)]);
    assert_eq!(table.pass(Duration::from_secs(299)), []);
}

#[test]
fn waits_between_attempts_double_up_to_their_bound() {
    let mut table = table(all());
    let (id, _) = borrower(&mut table);
    let _ = id;
    let mut waits = Vec::new();
    for link in 1..=12 {
        assert_eq!(ended(&mut table, link, "down"), []);
        let mut waited = 0;
        while table.pass(Duration::from_secs(1)) != [Out::Up(link + 1, UpOrder::Connect(None))] {
            waited += 1;
            assert!(waited < 400);
        }
        waits.push(waited + 1);
    }
    assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 64, 128]);
    assert!(waits[9..].iter().all(|wait| *wait == 300), "{waits:?}");
}

#[test]
fn silent_service_is_pinged_once_and_left_without_an_answer() {
    let mut table = table(all());
    let (id, _) = borrower(&mut table);
    let session = super::super::SessionId(id);
    table.input(Input::Gone { session });
    assert_eq!(table.pass(Duration::from_secs(329)), []);
    assert_eq!(
        table.pass(Duration::from_secs(1)),
        [Out::Up(1, UpOrder::Ping)]
    );
    assert_eq!(up(&mut table, 1, UpEvent::Pong), []);
    assert_eq!(
        table.pass(Duration::from_secs(330)),
        [Out::Up(1, UpOrder::Ping)]
    );
    assert_eq!(
        table.pass(Duration::from_secs(10)),
        [Out::Up(1, UpOrder::Close)]
    );
    assert_eq!(ended(&mut table, 1, "closed"), []);
    assert_eq!(
        table.pass(Duration::from_secs(1)),
        [Out::Up(2, UpOrder::Connect(None))]
    );
}

#[test]
fn message_for_a_simplepush_user_agent_is_a_new_version() {
    let mut table = table(all());
    let (id, _) = table.device();
    assert_eq!(
        table.say(id, &register_text(1)),
        [Out::Up(1, UpOrder::Connect(None))]
    );
    open(&mut table, 1, NAME);
    made(&mut table, 1, 1, 200);
    table.stored(vec![StoreReply::Subscribed(true)]);
    let outs = up(&mut table, 1, UpEvent::Text(&message(1, "v1")));
    let numbers = super::super::testing::numbers(&outs);
    assert_eq!(numbers.len(), 1, "{outs:?}");
    let outs = table.ack_number(id, 1, numbers[0]);
    assert_eq!(outs, [ack(1, "v1", 100)]);
}

#[test]
fn shared_name_does_not_let_one_user_agent_take_the_channel_of_another() {
    let settings = Upstream {
        identity: Identity::Shared,
        ..all()
    };
    let mut table = table(settings);
    let mut aliases = Vec::new();
    for place in 0..2 {
        let (id, _) = table.newcomer();
        let outs = table.say(id, &register_text(1));
        let asked = if place == 0 {
            open(&mut table, 1, NAME)
        } else {
            said(outs)
        };
        let asked: serde_json::Value = serde_json::from_str(&asked[0]).unwrap();
        let alias = asked["channelID"].as_str().unwrap().to_owned();
        let text = format!(
            r#"{{"messageType":"register","channelID":"{alias}","status":200,"pushEndpoint":"{ENDPOINT}"}}"#
        );
        up(&mut table, 1, UpEvent::Text(&text));
        table.stored(vec![StoreReply::Subscribed(true)]);
        let notification = format!(
            r#"{{"messageType":"notification","channelID":"{alias}","version":"v{place}"}}"#
        );
        let outs = up(&mut table, 1, UpEvent::Text(&notification));
        assert!(
            matches!(outs.as_slice(), [Out::Sent(to, text)] if *to == id && text.contains(&dashed(1))),
            "{outs:?}"
        );
        aliases.push(alias);
    }
    assert_ne!(aliases[0], aliases[1]);
    let own = ChannelId::from_uuid(uuid::Uuid::try_parse(&aliases[0]).unwrap());
    assert_ne!(own, channel_id(1));
}

#[test]
fn database_that_was_put_back_asks_the_user_agent_whose_channel_it_is() {
    let uaid = earlier();
    let mut table = Table::with_upstream_after_a_loss(all());
    let kept = kept_of(&uaid, false);
    table.stored(vec![StoreReply::Upstream(Box::new(kept))]);
    open(&mut table, 1, NAME);
    let id = table.again(&uaid);
    table.stored(vec![loaded(1)]);
    table.stored(vec![EMPTY_PAGE]);
    up(&mut table, 1, UpEvent::Text(&message(2, "v1")));
    let kept = table.asked_to_keep();
    table.stored(vec![StoreReply::Enqueued(EnqueueOutcome::KeptAndRestored)]);
    let outs = table.stored(vec![page(vec![kept])]);
    assert!(
        matches!(outs.as_slice(), [Out::Sent(to, _)] if *to == id),
        "{outs:?}"
    );
}

#[test]
fn user_agent_known_only_by_what_was_posted_since_a_loss_gets_that_and_is_told() {
    let kept = waiting();
    let uaid = earlier();
    let mut table = Table::with_upstream_after_a_loss(all());
    table.stored(vec![StoreReply::Upstream(Box::default())]);
    let id = table.again(&uaid);
    let outs = table.stored(vec![restored(2)]);
    assert!(
        matches!(outs.as_slice(), [Out::Sent(_, hello), Out::Resumed(_)] if hello.contains(&uaid)),
        "{outs:?}"
    );
    // Written down: with what it registers until it is told, it would be known after a restart.
    assert!(matches!(
        table.asked.as_slice(),
        [
            StoreOp::Upstream(UpstreamOp::ToTell { uaid: told }),
            StoreOp::Fetch { .. }
        ] if *told == uaid_of(&uaid)
    ));
    let outs = table.stored(vec![StoreReply::Done, page(vec![kept])]);
    let version = versions(&outs).remove(0);
    table.all_sent(id);
    assert_eq!(table.pass(Duration::from_secs(1)), []);
    table.ack(id, 2, &version, 100);
    assert_eq!(table.pass(Duration::from_secs(1)), [let_go(id)]);
    store_all(&mut table, &[]);
    table.again(&uaid);
    let outs = table.stored(vec![restored(2)]);
    assert!(
        matches!(outs.as_slice(), [Out::Sent(_, hello), Out::Resumed(_)] if !hello.contains(&uaid)),
        "{outs:?}"
    );
}

#[test]
fn user_agent_that_has_registered_since_a_loss_keeps_its_name() {
    let uaid = earlier();
    let mut table = Table::with_upstream_after_a_loss(all());
    table.stored(vec![StoreReply::Upstream(Box::default())]);
    let (keeps, id, _) = keeps_its_name(&mut table, &uaid, &[]);
    assert!(keeps);
    table.all_sent(id);
    assert_eq!(table.pass(Duration::from_secs(2)), []);
}

#[test]
fn register_that_comes_before_it_is_known_what_is_kept_waits_for_that() {
    let mut table = Table::with_upstream(all());
    let (id, _) = table.newcomer();
    assert_eq!(table.say(id, &register_text(1)), []);
    let outs = table.stored(vec![StoreReply::Upstream(Box::default())]);
    assert_eq!(outs, [Out::Up(1, UpOrder::Connect(None))]);
}

#[test]
fn register_that_comes_before_it_is_known_to_be_borrowed_gets_its_endpoint_and_asks_for_nothing() {
    let mut table = Table::with_upstream(all());
    let (id, uaid) = table.newcomer();
    assert_eq!(table.say(id, &register_text(1)), []);
    let kept = kept_of(&uaid, false);
    let outs = table.stored(vec![StoreReply::Upstream(Box::new(kept))]);
    assert_eq!(outs, [Out::Up(1, UpOrder::Connect(None)), Out::Paused(id)]);
    let outs = table.stored(vec![StoreReply::Subscribed(true)]);
    assert!(
        matches!(&outs[0], Out::Sent(_, text) if text.contains(ENDPOINT)),
        "{outs:?}"
    );
    assert_eq!(open(&mut table, 1, NAME), Vec::<String>::new());
}

#[test]
fn subscription_that_has_come_round_under_other_names_is_not_asked_for_once_more() {
    for identity in [Identity::PerUserAgent, Identity::Shared] {
        let mut table = table(Upstream { identity, ..all() });
        let register = |channel: ChannelId| {
            format!(
                r#"{{"messageType":"register","channelID":"{}"}}"#,
                channel.uuid().hyphenated()
            )
        };
        // As another gateway below asks for it, and one above that has passed it on.
        let (below, above) = ([1; 32], [2; 32]);
        let (below, above) = (
            Keyring::new(&[below]).unwrap(),
            Keyring::new(&[above]).unwrap(),
        );
        let asked = below.alias(Uaid::from_bytes([1; 16]), channel_id(1));
        let passed_on = above.alias(Uaid::from_bytes([2; 16]), asked);
        assert_ne!(asked, passed_on);
        let (first, _) = table.newcomer();
        let (round, _) = table.newcomer();
        let outs = table.say(first, &register(asked));
        assert_eq!(outs, [Out::Up(1, UpOrder::Connect(None))]);
        let outs = table.say(round, &register(passed_on));
        let [Out::Sent(to, answer)] = outs.as_slice() else {
            panic!("{outs:?}");
        };
        assert_eq!(*to, round);
        assert!(answer.contains(r#""status":500"#), "{answer}");
        // Another subscription of that gateway has not, and neither has the same one again.
        let other = below.alias(Uaid::from_bytes([1; 16]), channel_id(2));
        for (session, channel) in [(round, other), (first, asked)] {
            let outs = table.say(session, &register(channel));
            let refused = outs
                .iter()
                .any(|out| matches!(out, Out::Sent(to, _) if *to == round));
            assert!(!refused, "{outs:?}");
        }
    }
}

#[test]
fn subscription_that_has_come_round_is_not_asked_for_once_more() {
    let mut table = table(all());
    let (first, _) = table.newcomer();
    let (round, _) = table.newcomer();
    let outs = table.say(first, &register_text(1));
    assert_eq!(outs, [Out::Up(1, UpOrder::Connect(None))]);
    let outs = table.say(round, &register_text(1));
    let [Out::Sent(to, answer)] = outs.as_slice() else {
        panic!("{outs:?}");
    };
    assert_eq!(*to, round);
    assert!(answer.contains(r#""status":500"#), "{answer}");
}
