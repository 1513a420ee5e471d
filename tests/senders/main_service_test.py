"""What the integration tests of Mozilla's push service (autopush-rs, tests/integration) ask of it, asked of edgepush.

Usage: main_service_test.py EDGEPUSH. Each behaviour has the name of the test there and is written anew here; the output
is a table of which hold. Some must not: docs/compatibility.md says why.
"""

import http.server
import json
import secrets
import sys
import tempfile
import threading
import time

import requests
from py_vapid import Vapid01
from websockets.exceptions import ConnectionClosed

from checks import end_within
from gateway import Gateway
from user_agent import UserAgent, base64url, from_base64url, public_point

RUN_SECS = 120
REQUEST_SECS = 10
POLL_SECS = 1
BROADCAST_SECS = 5
TTL_SECS = 200
LATE_SECS = 1  # a message goes at most this long after its TTL, and never before it
BATCH = 12  # more than the main service sends before it waits for acks
MESSAGES_MAX = 20  # of a user agent, in the main service's tests; 150 in earnest
BIG_BYTES = 5_624  # 4,096 bytes, encrypted and then encoded as base64
SALT = "c2FsdCBvZiAxNiBieXRlcw"
ENCRYPTION_HEADERS = {
    "Content-Encoding": "aesgcm",
    "Encryption": f'keyid="http://example.org/keys/1";salt="{SALT}=="',
    "Crypto-Key": 'keyid="a1";dh="BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQ"',
}
ENCRYPTION_DELIVERED = f"keyid=http://example.org/keys/1;salt={SALT}"

BEHAVIOURS = []


def behaviour(name, differs=None):
    """Names the main service's own test; `differs` says why edgepush must do something else, which is checked instead."""

    def add(check):
        BEHAVIOURS.append((name, check, differs))
        return check

    return add


class Megaphone(http.server.ThreadingHTTPServer):
    """Where the versions of the broadcasts come from."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), MegaphoneHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1/broadcasts"
        self.versions = {}
        self.polled = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def say(self, **versions):
        """What the versions are to be, and what the gateway has heard of them when this returns."""
        if versions == self.versions:
            return
        self.versions = versions
        with self.polled:
            # The first of them may have been answered before the change; the third proves that the second was read.
            for _ in range(3):
                assert self.polled.wait(BROADCAST_SECS), "the gateway does not ask for broadcasts"


class MegaphoneHandler(http.server.BaseHTTPRequestHandler):
    """Answers with the list."""

    def do_GET(self):
        """The list, whatever the path."""
        body = json.dumps({"broadcasts": self.server.versions}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        with self.server.polled:
            self.server.polled.notify_all()

    def log_message(self, *_):
        """Says nothing."""


class Stage:
    """The gateway, and what the behaviours are made of."""

    def __init__(self, binary, directory):
        self.megaphone = Megaphone()
        config = f'[broadcasts]\nurl = "{self.megaphone.url}"\npoll_secs = {POLL_SECS}\n'
        config += '[vapid]\nclock = "trusted"\n'
        self.gateway = Gateway(binary, directory, config)
        self.session = requests.Session()
        self.session.trust_env = False

    @property
    def url(self):
        """The gateway's address for HTTP."""
        return f"http://{self.gateway.address}"

    def new_agent(self):
        """A user agent that has not said hello."""
        return UserAgent(f"ws://{self.gateway.address}/")

    def registered(self, key=None):
        """A user agent with a subscription."""
        agent = self.new_agent()
        agent.hello()
        return agent, agent.register(key)

    def away(self):
        """A user agent with a subscription that has left."""
        agent, subscription = self.registered()
        agent.leave()
        return agent, subscription

    def post(self, subscription, data=b"", status=201, ttl=TTL_SECS, topic=None, encryption=True, vapid=None):
        """Sends a push message and compares the status of the answer, which is returned."""
        headers = {"TTL": str(ttl)}
        headers |= ENCRYPTION_HEADERS if encryption else {}
        headers |= {"Topic": topic} if topic else {}
        if vapid:
            crypto_key = ";".join(filter(None, (headers.get("Crypto-Key"), vapid["Crypto-Key"])))
            headers |= {"Authorization": vapid["Authorization"], "Crypto-Key": crypto_key}
        answer = self.session.post(subscription.endpoint, data=data, headers=headers, timeout=REQUEST_SECS)
        assert answer.status_code == status, f"answered {answer.status_code} instead of {status}: {answer.text}"
        if status == 201:
            assert answer.headers["Location"], answer.headers
            assert answer.headers["TTL"] == str(ttl), answer.headers
        return answer

    def sign(self, key, **claims):
        """The headers of a VAPID token, in the form of its first draft, as those tests send it."""
        claims = {"aud": self.url, "exp": int(time.time()) + 86_400, "sub": "mailto:admin@example.com", **claims}
        headers = key.sign(claims)
        return {**headers, "Authorization": headers["Authorization"].replace("WebPush", "Bearer")}


NOT_EARLY = f"a message goes up to {LATE_SECS} s after its TTL, where the main service lets it go as long before"


def new_data():
    """A body that there is no other of."""
    return secrets.token_bytes(24)


def new_key():
    """An application server's key."""
    key = Vapid01()
    key.generate_keys()
    return key


def expect_data(notifications, *expected):
    """Compares what was delivered, in this order, with its headers."""
    seen = [from_base64url(notification["data"]) for notification in notifications]
    assert seen == list(expected), f"{seen} instead of {list(expected)}"
    for notification in notifications:
        assert notification["messageType"] == "notification", notification
        assert notification["headers"]["encryption"] == ENCRYPTION_DELIVERED, notification


def expect_empty(notifications, count=1):
    """Compares what was delivered with messages without a body, and without anything about one."""
    assert len(notifications) == count, notifications
    assert all("data" not in message and "headers" not in message for message in notifications), notifications


@behaviour("test_hello_echo")
def hello_echo(stage):
    answer = stage.new_agent().hello()
    assert answer["use_webpush"] is True and answer["broadcasts"] == {}, answer


@behaviour("test_hello_with_bad_prior_uaid")
def hello_with_bad_prior_uaid(stage):
    agent = stage.new_agent()
    agent.uaid = unknown = secrets.token_hex(16)
    assert agent.hello()["uaid"] != unknown and "-" not in agent.uaid


@behaviour("test_basic_delivery")
def basic_delivery(stage):
    agent, subscription = stage.registered()
    data = new_data()
    stage.post(subscription, data)
    expect_data(agent.arrived(), data)


@behaviour("test_topic_basic_delivery")
def topic_basic_delivery(stage):
    agent, subscription = stage.registered()
    data = new_data()
    stage.post(subscription, data, topic="Inbox")
    expect_data(agent.arrived(), data)


@behaviour("test_topic_replacement_delivery")
def topic_replacement_delivery(stage):
    agent, subscription = stage.away()
    stage.post(subscription, new_data(), topic="Inbox")
    latest = new_data()
    stage.post(subscription, latest, topic="Inbox")
    agent.hello()
    expect_data(agent.arrived(), latest)


@behaviour("test_topic_no_delivery_on_reconnect")
def topic_no_delivery_on_reconnect(stage):
    agent, subscription = stage.away()
    data = new_data()
    stage.post(subscription, data, topic="Inbox")
    agent.hello()
    arrived = agent.arrived()
    expect_data(arrived, data)
    agent.ack(*arrived)
    for _ in range(2):
        agent.leave()
        agent.hello()
        assert agent.arrived() == []


@behaviour("test_basic_delivery_with_vapid")
def basic_delivery_with_vapid(stage):
    agent, subscription = stage.registered()
    data = new_data()
    stage.post(subscription, data, vapid=stage.sign(new_key()))
    expect_data(agent.arrived(), data)


def expect_vapid_refused(stage, vapid):
    """On a subscription that is open to anybody, what is wrong is refused all the same."""
    agent, subscription = stage.registered()
    stage.post(subscription, new_data(), status=401, vapid=vapid)
    assert agent.arrived() == []


@behaviour("test_basic_delivery_with_invalid_vapid")
def basic_delivery_with_invalid_vapid(stage):
    expect_vapid_refused(stage, {**stage.sign(new_key()), "Crypto-Key": 'p256ecdsa="invalid"'})


@behaviour("test_basic_delivery_with_invalid_vapid_exp")
def basic_delivery_with_invalid_vapid_exp(stage):
    expect_vapid_refused(stage, stage.sign(new_key(), exp="@"))


@behaviour("test_basic_delivery_with_invalid_vapid_auth")
def basic_delivery_with_invalid_vapid_auth(stage):
    expect_vapid_refused(stage, {**stage.sign(new_key()), "Authorization": "Bearer"})


@behaviour("test_basic_delivery_with_invalid_signature")
def basic_delivery_with_invalid_signature(stage):
    vapid = stage.sign(new_key())
    expect_vapid_refused(stage, {**vapid, "Authorization": vapid["Authorization"][:-3] + "bad"})


@behaviour("test_basic_delivery_with_invalid_vapid_ckey")
def basic_delivery_with_invalid_vapid_ckey(stage):
    expect_vapid_refused(stage, {**stage.sign(new_key()), "Crypto-Key": 'p256ecdsa="invalid|"'})


@behaviour("test_delivery_repeat_without_ack")
def delivery_repeat_without_ack(stage):
    agent, subscription = stage.away()
    data = new_data()
    stage.post(subscription, data)
    for _ in range(2):
        agent.hello()
        expect_data(agent.arrived(), data)
        agent.leave()


@behaviour("test_repeat_delivery_with_disconnect_without_ack")
def repeat_delivery_with_disconnect_without_ack(stage):
    agent, subscription = stage.registered()
    data = new_data()
    stage.post(subscription, data)
    expect_data(agent.arrived(), data)
    agent.leave()
    agent.hello()
    expect_data(agent.arrived(), data)


@behaviour("test_multiple_delivery_repeat_without_ack")
def multiple_delivery_repeat_without_ack(stage):
    agent, subscription = stage.away()
    sent = [new_data(), new_data()]
    for data in sent:
        stage.post(subscription, data)
    for _ in range(2):
        agent.hello()
        expect_data(agent.arrived(), *sent)
        agent.leave()


@behaviour("test_multiple_delivery_with_single_ack", differs="an acked message does not come again")
def multiple_delivery_with_single_ack(stage):
    agent, subscription = stage.away()
    sent = [new_data(), new_data()]
    for data in sent:
        stage.post(subscription, data)
    agent.hello()
    arrived = agent.arrived()
    expect_data(arrived, *sent)
    agent.ack(arrived[0])
    agent.leave()
    agent.hello()
    arrived = agent.arrived()
    expect_data(arrived, sent[1])  # both, there
    agent.ack(*arrived)
    agent.leave()
    agent.hello()
    assert agent.arrived() == []


@behaviour("test_multiple_delivery_with_multiple_ack")
def multiple_delivery_with_multiple_ack(stage):
    agent, subscription = stage.away()
    sent = [new_data(), new_data()]
    for data in sent:
        stage.post(subscription, data)
    agent.hello()
    arrived = agent.arrived()
    expect_data(arrived, *sent)
    for notification in reversed(arrived):
        agent.ack(notification)
    agent.leave()
    agent.hello()
    assert agent.arrived() == []


@behaviour("test_no_delivery_to_unregistered")
def no_delivery_to_unregistered(stage):
    agent, subscription = stage.registered()
    data = new_data()
    stage.post(subscription, data)
    arrived = agent.arrived()
    expect_data(arrived, data)
    agent.ack(*arrived)
    agent.unregister(subscription)
    answer = stage.post(subscription, new_data(), status=410)
    assert answer.headers["Cache-Control"] == "max-age=86400", answer.headers
    assert agent.arrived() == []


@behaviour("test_ttl_0_connected")
def ttl_0_connected(stage):
    agent, subscription = stage.registered()
    data = new_data()
    stage.post(subscription, data, ttl=0)
    expect_data(agent.arrived(), data)


@behaviour("test_ttl_0_not_connected")
def ttl_0_not_connected(stage):
    agent, subscription = stage.away()
    stage.post(subscription, new_data(), ttl=0)
    agent.hello()
    assert agent.arrived() == []


@behaviour("test_ttl_expired", differs=NOT_EARLY)
def ttl_expired(stage):
    agent, subscription = stage.away()
    stage.post(subscription, new_data(), ttl=1)
    time.sleep(1 + LATE_SECS)
    agent.hello()
    assert agent.arrived() == []


@behaviour("test_topic_expired")
def topic_expired(stage):
    agent, subscription = stage.away()
    stage.post(subscription, new_data(), ttl=1, topic="test")
    time.sleep(1 + LATE_SECS)
    agent.hello()
    assert agent.arrived() == []
    data = new_data()
    stage.post(subscription, data, topic="test")
    expect_data(agent.arrived(), data)


@behaviour("test_ttl_batch_expired_and_good_one", differs=NOT_EARLY)
def ttl_batch_expired_and_good_one(stage):
    agent, subscription = stage.away()
    for _ in range(BATCH):
        stage.post(subscription, new_data(), ttl=1)
    good = new_data()
    stage.post(subscription, good)
    time.sleep(1 + LATE_SECS)
    agent.hello()
    expect_data(agent.arrived(), good)


@behaviour("test_ttl_batch_partly_expired_and_good_one", differs=NOT_EARLY)
def ttl_batch_partly_expired_and_good_one(stage):
    agent, subscription = stage.away()
    good = [new_data() for _ in range(BATCH // 2)]
    for data in good:
        stage.post(subscription, data)
    for _ in range(BATCH // 2):
        stage.post(subscription, new_data(), ttl=1)
    last = new_data()
    stage.post(subscription, last)
    time.sleep(1 + LATE_SECS)
    agent.hello()
    expect_data(agent.arrived(), *good, last)


@behaviour("test_message_without_crypto_headers")
def message_without_crypto_headers(stage):
    agent, subscription = stage.registered()
    stage.post(subscription, new_data(), status=400, encryption=False)
    assert agent.arrived() == []


@behaviour("test_empty_message_without_crypto_headers")
def empty_message_without_crypto_headers(stage):
    expect_empty_messages(stage, encryption=False)


@behaviour("test_empty_message_with_crypto_headers")
def empty_message_with_crypto_headers(stage):
    expect_empty_messages(stage, encryption=True)


def expect_empty_messages(stage, encryption):
    """Twice to a user agent that is there, once to one that is not."""
    agent, subscription = stage.registered()
    for _ in range(2):
        stage.post(subscription, encryption=encryption)
    arrived = agent.arrived()
    expect_empty(arrived, 2)
    agent.ack(*arrived)
    agent.leave()
    stage.post(subscription, encryption=encryption)
    agent.hello()
    expect_empty(agent.arrived())


@behaviour("test_big_message")
def big_message(stage):
    agent, subscription = stage.registered()
    data = base64url(secrets.token_bytes(BIG_BYTES * 3 // 4)).encode()
    assert len(data) == BIG_BYTES
    stage.post(subscription, data)
    expect_data(agent.arrived(), data)


@behaviour("test_delete_saved_notification")
def delete_saved_notification(stage):
    agent, subscription = stage.away()
    location = stage.post(subscription).headers["Location"]
    assert stage.session.delete(location, timeout=REQUEST_SECS).status_code == 204
    agent.hello()
    assert agent.arrived() == []


@behaviour("test_with_key")
def with_key(stage):
    key = new_key()
    agent, subscription = stage.registered(base64url(public_point(key.public_key)))
    data = new_data()
    stage.post(subscription, data, vapid=stage.sign(key))
    expect_data(agent.arrived(), data)
    stage.post(subscription, new_data(), status=401, vapid=stage.sign(new_key()))
    assert agent.arrived() == []


@behaviour("test_with_bad_key")
def with_bad_key(stage):
    agent = stage.new_agent()
    agent.hello()
    answer = agent.try_register("af1883%&!@#*(")
    assert answer["status"] == 400, answer
    agent.register()


@behaviour("test_msg_limit", differs="a user agent is never deleted for its stored messages")
def msg_limit(stage):
    agent, subscription = stage.away()
    uaid = agent.uaid
    for _ in range(MESSAGES_MAX + 1):
        stage.post(subscription)
    agent.hello()
    arrived = agent.arrived()
    expect_empty(arrived, MESSAGES_MAX + 1)
    agent.ack(*arrived)
    agent.leave()
    assert agent.hello()["uaid"] == uaid  # another one, there
    stage.post(subscription)
    expect_empty(agent.arrived())


@behaviour("test_can_moz_ping")
def can_moz_ping(stage):
    agent, _ = stage.registered()
    agent.send({})
    assert agent.receive() == {}
    agent.send({})  # too soon
    try:
        agent.receive()
    except ConnectionClosed as closed:
        assert closed.rcvd.code == 1011, closed
    else:
        raise AssertionError("a second ping at once is answered")


@behaviour("test_ws_ping")
def ws_ping(stage):
    agent, _ = stage.registered()
    agent.ping()
    assert agent.arrived() == []


@behaviour("test_internal_endpoints")
def internal_endpoints(stage):
    agent, _ = stage.registered()
    for path in ("notif", "push"):
        answer = stage.session.put(f"{stage.url}/{path}/{agent.uaid}", timeout=REQUEST_SECS)
        assert answer.status_code == 404, answer.status_code
    assert agent.arrived() == []


@behaviour("test_broadcast_no_changes")
def broadcast_no_changes(stage):
    stage.megaphone.say(one="ver1")
    assert stage.new_agent().hello(broadcasts={"one": "ver1"})["broadcasts"] == {}


@behaviour("test_broadcast_update_on_connect_with_errors")
def broadcast_update_on_connect_with_errors(stage):
    stage.megaphone.say(one="ver1")
    answer = stage.new_agent().hello(broadcasts={"one": "ver0", "other": "ver1"})
    expected = {"one": "ver1", "errors": {"other": "Broadcast not found"}}
    assert answer["broadcasts"] == expected, answer


@behaviour("test_broadcast_subscribe_with_errors")
def broadcast_subscribe_with_errors(stage):
    stage.megaphone.say(one="ver1")
    agent = stage.new_agent()
    agent.hello()
    agent.send({"messageType": "broadcast_subscribe", "broadcasts": {"one": "ver0", "other": "ver1"}})
    expected = {"one": "ver1", "errors": {"other": "Broadcast not found"}}
    assert agent.answer("broadcast")["broadcasts"] == expected


@behaviour("test_broadcast_update_on_connect")
def broadcast_update_on_connect(stage):
    stage.megaphone.say(one="ver1")
    agent = stage.new_agent()
    assert agent.hello(broadcasts={"one": "ver0"})["broadcasts"] == {"one": "ver1"}
    stage.megaphone.versions = {"one": "ver2"}
    assert agent.answer("broadcast")["broadcasts"] == {"one": "ver2"}


@behaviour("test_broadcast_subscribe")
def broadcast_subscribe(stage):
    stage.megaphone.say(one="ver1")
    agent = stage.new_agent()
    assert agent.hello()["broadcasts"] == {}
    agent.send({"messageType": "broadcast_subscribe", "broadcasts": {"one": "ver0"}})
    assert agent.answer("broadcast")["broadcasts"] == {"one": "ver1"}
    stage.megaphone.versions = {"one": "ver2"}
    assert agent.answer("broadcast")["broadcasts"] == {"one": "ver2"}


def tell(stage):
    """Asks for every behaviour, prints the table, and returns how many are not as they should be."""
    failed = 0
    width = max(len(name) for name, *_ in BEHAVIOURS)
    print("# the main service's own tests (those of its reports to Sentry have nothing to ask here)")
    for name, check, differs in BEHAVIOURS:
        try:
            check(stage)
            result = f"differs on purpose: {differs}" if differs else "holds"
        except Exception as error:
            failed += 1
            result = f"FAILS: {type(error).__name__}: {error}"
        print(f"{name:{width}}  {result}", flush=True)
    return failed


def main(binary):
    """Tells of all behaviours and returns the exit status."""
    end_within(RUN_SECS)
    with tempfile.TemporaryDirectory(prefix="edgepush-main-service-", ignore_cleanup_errors=True) as directory:
        stage = Stage(binary, directory)
        failed = len(BEHAVIOURS)
        try:
            stage.gateway.start()
            failed = tell(stage)
        finally:
            stage.gateway.kill()
            if failed:
                stage.gateway.print_log()
    print(f"{len(BEHAVIOURS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
