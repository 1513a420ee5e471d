//! The user agent's rules, without a socket: what it says to what it hears.

use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::agent::{ANSWER_TIMEOUT, Agent, Identity, Input, Output};
use super::inbox::Event;
use crate::model::ids::ChannelId;
use crate::protocol::encryption::testing::receiver;
use crate::protocol::encryption::{PrivateKey, encrypt};
use crate::protocol::user_agent::Update;

const CHANNEL: ChannelId = ChannelId::from_bytes([0xab; 16]);
const DASHED: &str = "abababab-abab-abab-abab-abababababab";
const OTHER: &str = "cdcdcdcd-cdcd-cdcd-cdcd-cdcdcdcdcdcd";
const ENDPOINT: &str = "http://h/wpush/v1/t";

/// An agent on a clock of its own.
struct Bench {
    agent: Agent,
    now: Instant,
}

impl Bench {
    fn new(uaid: Option<&str>, endpoint: Option<&str>) -> Self {
        let identity = Identity {
            uaid: uaid.map(str::to_owned),
            channel: CHANNEL,
            endpoint: endpoint.map(str::to_owned),
            keys: Some(receiver()),
            server_key: None,
        };
        Self {
            agent: Agent::new(identity),
            now: Instant::now(),
        }
    }

    /// Connected and registered.
    fn ready() -> Self {
        let mut bench = Self::new(Some("u"), Some(ENDPOINT));
        bench.input(Input::Connected);
        assert_eq!(bench.hello("u"), [Output::Subscribed]);
        bench
    }

    fn input(&mut self, input: Input<'_>) -> Vec<Output> {
        self.agent.handle(self.now, input);
        std::iter::from_fn(|| self.agent.poll_output()).collect()
    }

    fn text(&mut self, message: &Value) -> Vec<Output> {
        self.input(Input::Text(&message.to_string()))
    }

    fn hello(&mut self, uaid: &str) -> Vec<Output> {
        self.text(&json!({"messageType": "hello", "uaid": uaid, "status": 200}))
    }

    fn reconnect(&mut self) {
        self.input(Input::Lost);
        self.input(Input::Connected);
        assert_eq!(self.hello("u"), []);
    }

    fn handled(&mut self) -> Vec<Output> {
        self.input(Input::Handled { well: true })
    }

    /// What comes when the deadline is over.
    fn let_time_pass(&mut self) -> Vec<Output> {
        self.now = self.agent.next_deadline().unwrap();
        self.input(Input::TimePassed)
    }
}

fn notification(version: &str, text: &[u8]) -> Value {
    let ephemeral = PrivateKey::new(&[9; 32]).unwrap();
    let body = encrypt(text, &receiver().recipient(), &ephemeral, [5; 16]).unwrap();
    json!({
        "messageType": "notification", "channelID": DASHED, "version": version,
        "data": BASE64URL_NOPAD.encode(&body), "headers": {"encoding": "aes128gcm"},
    })
}

fn updates(versions: &[u64]) -> Value {
    let update = |version| json!({"channelID": DASHED, "version": version});
    let updates: Vec<Value> = versions.iter().map(update).collect();
    json!({"messageType": "notification", "updates": updates})
}

fn message(version: &str, text: &[u8]) -> Output {
    Output::Handle(Event::Message {
        version: version.to_owned(),
        text: text.to_vec(),
    })
}

fn update(version: u64) -> Output {
    Output::Handle(Event::Update(Update {
        channel: CHANNEL,
        version,
        data: None,
    }))
}

fn sent(message: Value) -> Output {
    Output::Send(message.to_string())
}

fn acked(version: &str, code: u16) -> Output {
    let update = json!({"channelID": DASHED, "version": version, "code": code});
    sent(json!({"messageType": "ack", "updates": [update]}))
}

fn acked_update(version: u64) -> Output {
    let update = json!({"channelID": DASHED, "version": version});
    sent(json!({"messageType": "ack", "updates": [update]}))
}

#[test]
fn first_connection_registers_and_says_the_endpoint() {
    let mut bench = Bench::new(None, None);
    let hello = json!({"messageType": "hello", "use_webpush": true, "broadcasts": {}});
    assert_eq!(bench.input(Input::Connected), [sent(hello)]);
    let register = json!({"messageType": "register", "channelID": DASHED});
    assert_eq!(bench.hello("u"), [sent(register)]);
    let answer = json!({
        "messageType": "register", "channelID": DASHED, "status": 200, "pushEndpoint": ENDPOINT,
    });
    assert_eq!(bench.text(&answer), [Output::Keep, Output::Subscribed]);
    assert!(bench.agent.is_ready());
    let identity = bench.agent.identity();
    assert_eq!(identity.uaid.as_deref(), Some("u"));
    assert_eq!(identity.endpoint.as_deref(), Some(ENDPOINT));
}

#[test]
fn user_agent_that_the_gateway_knows_does_not_register_again() {
    let mut bench = Bench::ready();
    bench.reconnect();
    assert!(bench.agent.is_ready());
}

#[test]
fn user_agent_that_gets_another_name_registers_again_and_says_so() {
    let mut bench = Bench::ready();
    bench.input(Input::Lost);
    bench.input(Input::Connected);
    let outputs = bench.hello("other");
    assert!(matches!(outputs[0], Output::Tell(_)), "{outputs:?}");
    let register = json!({"messageType": "register", "channelID": DASHED});
    assert_eq!(outputs[1..], [sent(register)]);
    let answer = json!({
        "messageType": "register", "channelID": DASHED, "status": 200, "pushEndpoint": "http://h/2",
    });
    assert_eq!(bench.text(&answer), [Output::Keep, Output::Subscribed]);
}

#[test]
fn refusals_say_what_the_gateway_said() {
    let mut bench = Bench::new(None, None);
    bench.input(Input::Connected);
    let busy = json!({"messageType": "hello", "status": 503, "reason": "busy"});
    let expected = Output::HangUp("hello is refused: status 503, busy".to_owned());
    assert_eq!(bench.text(&busy), [expected]);

    let expected = |text: &str| Output::HangUp(format!("register is refused: {text}"));
    for (status, output) in [
        (401, expected("status 401")),
        (503, expected("status 503")),
        (429, expected("status 429")),
        (
            400,
            Output::GiveUp("register is refused: status 400".to_owned()),
        ),
    ] {
        bench.input(Input::Lost);
        bench.input(Input::Connected);
        bench.hello("u");
        let refusal = json!({"messageType": "register", "channelID": DASHED, "status": status});
        assert_eq!(bench.text(&refusal), [output]);
    }
}

#[test]
fn answers_that_cannot_be_used_end_the_connection() {
    let mut bench = Bench::new(None, None);
    bench.input(Input::Connected);
    assert!(matches!(bench.hello("")[..], [Output::HangUp(_)]));
    for endpoint in ["", "relative", "urn:x", "http://h/\n"] {
        bench.input(Input::Lost);
        bench.input(Input::Connected);
        bench.hello("u");
        let answer =
            json!({"messageType": "register", "channelID": DASHED, "pushEndpoint": endpoint});
        assert!(
            matches!(bench.text(&answer)[..], [Output::HangUp(_)]),
            "{endpoint}"
        );
    }
}

#[test]
fn message_is_acked_when_it_has_been_handled() {
    let mut bench = Bench::ready();
    let arrived = bench.text(&notification("a", b"one"));
    assert_eq!(arrived, [message("a", b"one")]);
    assert_eq!(bench.text(&notification("b", b"two")), [], "one at a time");
    assert_eq!(bench.handled(), [acked("a", 100), message("b", b"two")]);
    assert_eq!(bench.handled(), [acked("b", 100)]);
}

#[test]
fn message_without_a_body_is_empty() {
    let mut bench = Bench::ready();
    let empty = json!({"messageType": "notification", "channelID": DASHED, "version": "a"});
    assert_eq!(bench.text(&empty), [message("a", b"")]);
}

#[test]
fn message_whose_handler_fails_is_acked_and_nacked() {
    let mut bench = Bench::ready();
    bench.text(&notification("a", b"one"));
    let nack = sent(json!({"messageType": "nack", "version": "a", "code": 301}));
    let failed = bench.input(Input::Handled { well: false });
    assert_eq!(failed, [acked("a", 100), nack]);
    bench.text(&updates(&[5]));
    let failed = bench.input(Input::Handled { well: false });
    assert_eq!(failed, [acked_update(5)]);
}

#[test]
fn message_that_cannot_be_decrypted_is_acked_with_101() {
    let mut bench = Bench::ready();
    let mut malformed = notification("a", b"text");
    malformed["data"] = "a+b".into();
    let mut unknown = notification("b", b"text");
    unknown["headers"]["encoding"] = "rot13".into();
    let mut truncated = notification("c", b"text");
    truncated["data"] = "AAAA".into();
    for (notification, version) in [(malformed, "a"), (unknown, "b"), (truncated, "c")] {
        let outputs = bench.text(&notification);
        assert!(matches!(outputs[0], Output::Tell(_)), "{outputs:?}");
        assert_eq!(outputs[1..], [acked(version, 101)]);
        assert_eq!(
            bench.text(&notification),
            [acked(version, 101)],
            "told once"
        );
    }
}

#[test]
fn message_that_comes_again_is_acked_and_not_handled_again() {
    let mut bench = Bench::ready();
    bench.text(&notification("a", b"one"));
    assert_eq!(bench.text(&notification("a", b"one")), [], "being handled");
    // Its ack is lost with the connection.
    bench.input(Input::Lost);
    assert_eq!(bench.handled(), []);
    bench.input(Input::Connected);
    bench.hello("u");
    assert_eq!(bench.text(&notification("a", b"one")), [acked("a", 100)]);
}

#[test]
fn messages_that_wait_when_the_connection_is_lost_are_handled_once_and_in_order() {
    let mut bench = Bench::ready();
    for version in ["a", "b", "c"] {
        bench.text(&notification(version, b"text"));
    }
    bench.reconnect();
    for version in ["a", "b", "c"] {
        assert_eq!(bench.text(&notification(version, b"text")), []);
    }
    assert_eq!(bench.handled(), [acked("a", 100), message("b", b"text")]);
    assert_eq!(bench.handled(), [acked("b", 100), message("c", b"text")]);
    assert_eq!(bench.handled(), [acked("c", 100)]);
}

#[test]
fn message_for_another_subscription_is_acked_with_102() {
    let mut bench = Bench::ready();
    let mut foreign = notification("a", b"one");
    foreign["channelID"] = OTHER.into();
    let update = json!({"channelID": OTHER, "version": "a", "code": 102});
    let ack = sent(json!({"messageType": "ack", "updates": [update]}));
    assert_eq!(bench.text(&foreign), [ack]);
}

#[test]
fn updates_are_handled_one_after_the_other() {
    let mut bench = Bench::ready();
    assert_eq!(bench.text(&updates(&[5, 6])), [update(5)]);
    assert_eq!(bench.handled(), [acked_update(5), update(6)]);
    assert_eq!(bench.handled(), [acked_update(6)]);
    let with_data = json!({"messageType": "notification", "updates": [
        {"channelID": DASHED, "version": 7, "data": "d"},
    ]});
    let outputs = bench.text(&with_data);
    assert!(
        matches!(&outputs[..], [Output::Handle(Event::Update(update))] if update.data.as_deref() == Some("d"))
    );
}

#[test]
fn version_sent_twice_counts_twice_but_a_repetition_after_a_lost_ack_does_not() {
    let mut bench = Bench::ready();
    bench.text(&updates(&[5]));
    assert_eq!(bench.text(&updates(&[5])), [], "being handled");
    bench.handled();
    assert_eq!(bench.text(&updates(&[5])), [update(5)]);
    bench.handled();
    bench.reconnect();
    assert_eq!(bench.text(&updates(&[5])), [acked_update(5)]);
    assert_eq!(bench.text(&updates(&[4])), [update(4)]);
}

#[test]
fn silent_gateway_is_asked_and_then_left() {
    let mut bench = Bench::ready();
    assert_eq!(bench.let_time_pass(), [Output::Send("{}".to_owned())]);
    bench.text(&json!({}));
    let start = bench.now;
    assert_eq!(bench.let_time_pass(), [Output::Send("{}".to_owned())]);
    assert_eq!(bench.now - start, Duration::from_secs(300));
    let left = Output::HangUp("no answer to a ping within 10 s".to_owned());
    assert_eq!(bench.let_time_pass(), [left]);
    assert_eq!(bench.agent.next_deadline(), None);
}

#[test]
fn gateway_that_does_not_answer_is_left_however_much_else_it_says() {
    let mut bench = Bench::new(None, None);
    bench.input(Input::Connected);
    bench.now += ANSWER_TIMEOUT / 2;
    assert_eq!(bench.text(&json!({"messageType": "broadcast"})), []);
    assert_eq!(
        bench.input(Input::TimePassed),
        [],
        "too early changes nothing"
    );
    let left = Output::HangUp("no answer to hello within 10 s".to_owned());
    assert_eq!(bench.let_time_pass(), [left]);

    bench.input(Input::Lost);
    bench.input(Input::Connected);
    bench.hello("u");
    let left = Output::HangUp("no answer to register within 10 s".to_owned());
    assert_eq!(bench.let_time_pass(), [left]);
}

#[test]
fn garbage_is_told_once_for_each_connection_and_ignored() {
    let mut bench = Bench::ready();
    let told = bench.input(Input::Text("{"));
    assert!(matches!(told[..], [Output::Tell(_)]));
    assert_eq!(bench.input(Input::Text("[]")), []);
    assert_eq!(bench.input(Input::Garbage), []);
    assert_eq!(bench.hello("u"), [], "a hello that nobody asked for");
    bench.reconnect();
    assert!(matches!(bench.input(Input::Garbage)[..], [Output::Tell(_)]));
}

#[test]
fn nothing_is_handled_before_the_name_is_agreed_on() {
    let mut bench = Bench::new(Some("u"), Some(ENDPOINT));
    bench.input(Input::Connected);
    let early = bench.text(&notification("a", b"one"));
    assert!(matches!(early[..], [Output::Tell(_)]));
    bench.hello("u");
    assert_eq!(
        bench.text(&notification("a", b"one")),
        [message("a", b"one")]
    );
}

#[test]
fn reading_stops_while_too_many_wait_for_their_handler() {
    let mut bench = Bench::ready();
    for version in 0..64 {
        bench.text(&updates(&[version]));
        assert!(!bench.agent.is_full(), "{version}");
    }
    bench.text(&updates(&[64]));
    assert!(bench.agent.is_full());
    bench.handled();
    assert!(!bench.agent.is_full());
}

/// Random bytes and random JSON, on one agent: it must stay alive and bounded.
#[test]
fn random_gateway_never_breaks_the_user_agent() {
    let seed = u64::from(std::process::id());
    let mut random = seed | 1;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut bench = Bench::new(None, None);
    let words = [
        "hello",
        "register",
        "notification",
        "ack",
        DASHED,
        OTHER,
        ENDPOINT,
        "u",
        "",
        "aes128gcm",
    ];
    let fields = [
        "messageType",
        "uaid",
        "status",
        "channelID",
        "version",
        "data",
        "headers",
        "updates",
        "pushEndpoint",
    ];
    for step in 0..20_000 {
        match next(8) {
            0 => bench.input(Input::Connected),
            1 => bench.input(Input::Lost),
            2 => bench.handled(),
            3 => {
                let bytes: Vec<u8> = (0..next(20)).map(|_| next(128) as u8).collect();
                bench.input(Input::Text(&String::from_utf8(bytes).unwrap()))
            }
            4 if bench.agent.next_deadline().is_some() => bench.let_time_pass(),
            _ => {
                let mut object = json!({});
                for _ in 0..next(6) {
                    let field = fields[next(fields.len() as u64) as usize];
                    object[field] = match next(4) {
                        0 => next(600).into(),
                        1 => json!([{"channelID": DASHED, "version": next(5)}]),
                        _ => words[next(words.len() as u64) as usize].into(),
                    };
                }
                bench.text(&object)
            }
        };
        assert!(!bench.agent.is_full(), "seed {seed}, step {step}");
    }
}
