"""Real Firefox against the real gateway: subscribes, is sent push messages by pywebpush, and tells what it decrypted.

Usage: push_test.py EDGEPUSH FIREFOX. Prints a line for each check; `run` beside this file installs what is needed.
"""

import base64
import contextlib
import http.server
import json
import pathlib
import signal
import sys
import threading
import time
import urllib.parse
from collections import Counter

import requests
from cryptography.hazmat.primitives import serialization
from py_vapid import Vapid01, Vapid02
from pywebpush import WebPushException, webpush

from checks import expect_refusal, run_within
from firefox import Firefox
from gateway import Gateway

HERE = pathlib.Path(__file__).parent
DELIVERY_SECS = 20
RUN_SECS = 300
POST_SECS = 10
# Firefox handles push messages side by side and now and then swaps some that came in order, so a wrong order is tried
# again. A gateway that always mixes up this many messages is found; one that swaps two once in a while is not.
ORDERED_MESSAGES = 6
ORDER_ATTEMPTS = 6

# Expired tokens are refused only where the clock is known to be right.
CONFIG = """\
[broadcasts]
file = {broadcasts}
poll_secs = 1
[vapid]
clock = "trusted"
"""
# Firefox asks for this one about 20 s after it first starts, and looks for its remote settings at each new version.
BROADCAST = "remote-settings/monitor_changes"
BROADCAST_SECS = 60
REMOTE_SETTINGS = "/remote-settings"
NO_REMOTE_SETTINGS = {"metadata": {}, "timestamp": 1, "changes": []}
WEBSOCKET_GONE = "websocket gone"

PLAIN = "/plain/"
KEYED = "/keyed/"


def broadcast_list(version):
    """What the gateway reads: versions of remote settings are ETags, quotes included."""
    return json.dumps({"broadcasts": {BROADCAST: f'"{version}"'}})


class Site(http.server.ThreadingHTTPServer):
    """The web site that subscribes; its service worker posts each event that it gets to `/event`."""

    files = {"/": ("page.html", "text/html"), "/worker.js": ("worker.js", "text/javascript")}
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), SiteHandler)
        self.origin = f"http://127.0.0.1:{self.server_port}"
        self.changed = threading.Condition()
        self.payloads = {PLAIN: [], KEYED: []}
        self.lost_subscriptions = []
        self.expected_versions = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def add_event(self, event):
        """Keeps what a service worker reported."""
        scope = event["scope"].removeprefix(self.origin)
        with self.changed:
            if event["type"] == "push":
                self.payloads[scope].append(event["payload"])
            else:
                self.lost_subscriptions.append(scope)
            self.changed.notify_all()

    def expect(self, scope, *payloads):
        """Waits until the worker of a scope got as many push messages, compares them, and returns them as they came.

        The order is not compared, see `ORDER_ATTEMPTS`.
        """
        with self.changed:
            waiting = self.payloads[scope]
            self.changed.wait_for(lambda: len(waiting) >= len(payloads), DELIVERY_SECS)
            arrived = waiting[:]
            waiting.clear()
        assert Counter(arrived) == Counter(payloads), f"{scope} got {arrived} instead of {list(payloads)}"
        return arrived

    def expect_lost(self, *scopes):
        """Waits until the workers of these scopes have heard that their subscriptions are lost."""
        with self.changed:
            told = self.changed.wait_for(lambda: set(self.lost_subscriptions) >= set(scopes), DELIVERY_SECS)
        assert told, f"lost are {self.lost_subscriptions} instead of {scopes}"

    def expect_version(self, version):
        """Waits until Firefox has looked for this version of its remote settings."""
        with self.changed:
            told = self.changed.wait_for(lambda: version in self.expected_versions, BROADCAST_SECS)
        assert told, f"Firefox looked for {self.expected_versions}, never for {version}"


class SiteHandler(http.server.BaseHTTPRequestHandler):
    """Serves the page and the worker, takes the worker's events."""

    def do_GET(self):
        """Answers with one of the files of the site, or that there are no remote settings."""
        url = urllib.parse.urlsplit(self.path)
        if url.path.startswith(REMOTE_SETTINGS):
            with self.server.changed:
                self.server.expected_versions += urllib.parse.parse_qs(url.query).get("_expected", [])
                self.server.changed.notify_all()
            self._answer(200, json.dumps(NO_REMOTE_SETTINGS).encode(), "application/json")
            return
        name, content_type = self.server.files.get(self.path, (None, None))
        if name is None:
            self.send_error(404)
            return
        self._answer(200, (HERE / name).read_bytes(), content_type)

    def do_POST(self):
        """Takes an event."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.add_event(json.loads(body))
        self._answer(200, b"", "text/plain")

    def _answer(self, status, body, content_type):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


class Stage:
    """The gateway, Firefox, the site and the application server that the checks act on."""

    def __init__(self, binary, program, directory, config=""):
        self.site = Site()
        self.broadcasts = pathlib.Path(directory, "broadcasts.json")
        self.broadcasts.write_text(broadcast_list("1"))
        config = CONFIG.format(broadcasts=json.dumps(str(self.broadcasts))) + config
        self.gateway = Gateway(binary, directory, config)
        self.firefox = Firefox(program, directory)
        self.vapid = Vapid02()
        self.vapid.generate_keys()
        self.session = requests.Session()
        self.session.trust_env = False  # a proxy from the environment must not see endpoints
        self.subscriptions = {}

    @property
    def logs(self):
        """Whose logs tell what happened."""
        return [self.firefox, self.gateway]

    @property
    def vapid_public_key(self):
        """The application server's public key, as `subscribe()` takes it."""
        point = self.vapid.public_key.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        return base64.urlsafe_b64encode(point).rstrip(b"=").decode()

    def restore(self):
        """Starts what is not running: all at first, later what a failed check left stopped."""
        if not self.gateway.is_running:
            self.gateway.start()
        if not self.firefox.is_running:
            self.start_firefox()

    def close(self):
        """Ends all processes."""
        self.firefox.kill()
        self.gateway.kill()

    def start_firefox(self):
        """Starts Firefox and opens the site."""
        self.firefox.start(f"ws://{self.gateway.address}/", f"{self.site.origin}{REMOTE_SETTINGS}")
        self.firefox.open(self.site.origin + "/")

    def subscribe(self, scope, key=None):
        """Subscribes a scope, restricted to a VAPID key if there is one."""
        self.subscriptions[scope] = self.firefox.call("subscribe", scope, key)

    def post(
        self,
        scope,
        payload,
        vapid=None,
        aud=None,
        encoding="aes128gcm",
        ttl=60,
        headers=None,
        subscription=None,
    ):
        """Sends a push message as an application server does and returns the answer.

        Without `aud`, pywebpush makes the VAPID token out for the origin of the endpoint.
        """
        claims = {"sub": "mailto:test@example.org"}
        if aud:
            claims["aud"] = aud
        try:
            return webpush(
                subscription or self.subscriptions[scope],
                payload,
                vapid_private_key=vapid,
                vapid_claims=claims if vapid else None,
                content_encoding=encoding,
                ttl=ttl,
                headers=headers,
                timeout=POST_SECS,
                requests_session=self.session,
            )
        except WebPushException as refused:
            return refused.response

    def expired_token(self):
        """The headers of one that was right an hour ago; `webpush` itself would make it out anew."""
        aud = f"http://{self.gateway.address}"
        return self.vapid.sign({"sub": "mailto:test@example.org", "aud": aud, "exp": int(time.time()) - 3_600})

    @contextlib.contextmanager
    def same_connection(self):
        """Firefox must not reconnect within."""
        before = self.gateway.said(WEBSOCKET_GONE)
        yield
        gone = self.gateway.said(WEBSOCKET_GONE) - before
        assert gone == 0, f"Firefox disconnected {gone} times"

    def push(self, scope, payload, **options):
        """Sends a push message that must be accepted; to the keyed scope it is signed unless said otherwise."""
        if scope == KEYED:
            options.setdefault("vapid", self.vapid)
        answer = self.post(scope, payload, **options)
        assert answer.status_code == 201, f"{payload!r} was answered {answer.status_code} {answer.text}"

    def expect_subscriptions_kept(self):
        """Firefox still has the same subscriptions, and no service worker was told that it lost one."""
        for scope, before in self.subscriptions.items():
            now = self.firefox.call("subscription", scope)
            assert now == before, f"the subscription of {scope} was {before} and is {now}"
        lost = self.site.lost_subscriptions
        assert not lost, f"pushsubscriptionchange in {lost}: Firefox was given another UAID"


def plain_subscription(stage):
    """a subscription without a key gets what was sent with aes128gcm"""
    stage.subscribe(PLAIN)
    longest = "x" * 3_900  # with the encryption's header and tag just below 4,096 bytes
    stage.push(PLAIN, "Grüße 🍓 1")
    stage.push(PLAIN, longest)
    stage.site.expect(PLAIN, "Grüße 🍓 1", longest)


def keyed_subscription(stage):
    """a subscription with a key gets what was signed with VAPID, and nothing else is accepted"""
    stage.subscribe(KEYED, stage.vapid_public_key)
    stranger = Vapid02()
    stranger.generate_keys()
    expect_refusal(stage.post(KEYED, "unsigned"), 401, 109)
    expect_refusal(stage.post(KEYED, "signed by another", vapid=stranger), 401, 109)
    expect_refusal(stage.post(KEYED, "signed for another", vapid=stage.vapid, aud="https://push.example.org"), 401, 109)
    expect_refusal(stage.post(KEYED, "signed long ago", headers=stage.expired_token()), 401, 109)
    stage.push(KEYED, "signed")
    stage.site.expect(KEYED, "signed")


def foreign_endpoint(stage):
    """an endpoint that another gateway gave away is none here, whether it looks like ours or not"""
    for change in (lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"), lambda token: "gAAAAABm" + token):
        subscription = dict(stage.subscriptions[PLAIN])
        start, token = subscription["endpoint"].rsplit("/", 1)
        subscription["endpoint"] = f"{start}/{change(token)}"
        expect_refusal(stage.post(PLAIN, "astray", subscription=subscription), 404, 102)
    stage.push(PLAIN, "not astray")
    stage.site.expect(PLAIN, "not astray")


def version_update(stage):
    """a version update, which is for SimplePush, does no harm: no event, no reconnection, later messages arrive"""
    endpoint = stage.subscriptions[PLAIN]["endpoint"]
    with stage.same_connection():
        for version in (1, 2):
            answer = stage.session.put(endpoint, data={"version": version}, timeout=POST_SECS)
            assert answer.status_code in (200, 202), f"answered {answer.status_code} {answer.text}"
        stage.push(PLAIN, "after the update")
        stage.site.expect(PLAIN, "after the update")
    # It is never acked, so it comes again; that is no harm either.
    stage.firefox.stop()
    stage.start_firefox()
    with stage.same_connection():
        stage.push(PLAIN, "after another start")
        stage.site.expect(PLAIN, "after another start")


def aesgcm(stage):
    """the older encryption aesgcm, plain and with the VAPID of its time"""
    stage.push(PLAIN, "older", encoding="aesgcm")
    stage.push(KEYED, "older and signed", encoding="aesgcm", vapid=Vapid01(stage.vapid.private_key))
    stage.site.expect(PLAIN, "older")
    stage.site.expect(KEYED, "older and signed")


def empty(stage):
    """a push message without a body arrives as an event without data"""
    stage.push(PLAIN, None)
    stage.push(KEYED, None)
    stage.site.expect(PLAIN, None)
    stage.site.expect(KEYED, None)


def stored_while_away(stage):
    """stored while Firefox is closed: all arrive, once and in order"""
    for attempt in range(ORDER_ATTEMPTS):
        sent = [f"stored {attempt}.{number}" for number in range(ORDERED_MESSAGES)]
        stage.firefox.stop()
        for payload in sent:
            stage.push(PLAIN, payload)
        stage.start_firefox()
        arrived = stage.site.expect(PLAIN, *sent)
        if arrived == sent:
            return
        print(f"# attempt {attempt}: Firefox handled them as {arrived}")
    raise AssertionError(f"in {ORDER_ATTEMPTS} attempts never in order")


def topic_and_ttl(stage):
    """stored while Firefox is closed: only the latest of a topic, nothing with TTL 0"""
    stage.firefox.stop()
    stage.push(KEYED, "replaced", headers={"Topic": "weather"})
    stage.push(KEYED, "never stored", ttl=0)
    stage.push(KEYED, "latest", headers={"Topic": "weather"})
    stage.start_firefox()
    stage.site.expect(KEYED, "latest")
    stage.push(KEYED, "online", ttl=0)
    stage.site.expect(KEYED, "online")


def gateway_restart(stage):
    """after a restart of the gateway with SIGTERM subscriptions and UAID are the same"""
    stage.gateway.stop()
    stage.gateway.start()
    stage.push(PLAIN, "restarted")
    stage.push(KEYED, "restarted")
    stage.site.expect(PLAIN, "restarted")
    stage.site.expect(KEYED, "restarted")
    stage.expect_subscriptions_kept()


def gateway_killed(stage):
    """stored messages survive kill -9 of the gateway"""
    sent = [f"accepted {number}" for number in (1, 2, 3)]
    stage.firefox.stop()
    for payload in sent:
        stage.push(PLAIN, payload)
    stage.gateway.kill()
    stage.gateway.start()
    stage.start_firefox()
    stage.site.expect(PLAIN, *sent)
    stage.expect_subscriptions_kept()


def killed_before_ack(stage):
    """sent to a Firefox that hangs, then kill -9 of the gateway: delivered again, seen once"""
    sent = [f"unacknowledged {number}" for number in (1, 2, 3)]
    stage.firefox.signal(signal.SIGSTOP)
    try:
        for payload in sent:
            stage.push(PLAIN, payload)
        stage.gateway.kill()
        stage.gateway.start()
    finally:
        stage.firefox.signal(signal.SIGCONT)
    stage.push(PLAIN, "after the kill")
    stage.site.expect(PLAIN, *sent, "after the kill")


def database_lost(stage):
    """with the database lost and the key kept the old endpoints deliver"""
    stage.gateway.stop()
    stage.gateway.lose_database()
    stage.gateway.start()
    stage.push(PLAIN, "new database")
    stage.push(KEYED, "new database")
    stage.site.expect(PLAIN, "new database")
    stage.site.expect(KEYED, "new database")
    stage.expect_subscriptions_kept()


def unsubscribed(stage):
    """after unsubscribe() the endpoint is gone: of the lost database as of the present one"""
    for _ in range(2):
        assert stage.firefox.call("unsubscribe", PLAIN), "unsubscribe() found no subscription"
        expect_refusal(stage.post(PLAIN, "too late"), 410, 106)
        stage.subscribe(PLAIN)
    stage.push(PLAIN, "subscribed again")
    stage.site.expect(PLAIN, "subscribed again")


def nothing_else(stage):
    """no other event came during the whole run"""
    stage.push(KEYED, "last")
    stage.site.expect(KEYED, "last")
    stage.site.expect(PLAIN)
    stage.expect_subscriptions_kept()


def broadcast(stage):
    """versions of a broadcast from a file reach Firefox, which acts on them and keeps its connection"""
    stage.site.expect_version("1")
    with stage.same_connection():
        stage.broadcasts.write_text(broadcast_list("2"))
        stage.site.expect_version("2")
        stage.push(PLAIN, "after the broadcast")
        stage.site.expect(PLAIN, "after the broadcast")


def console_page(stage):
    """the console's own page subscribes, sends, and receives what it sent"""
    stage.firefox.open(f"{stage.gateway.console.replace('127.0.0.1', 'localhost')}/try")
    received = stage.firefox.run(TRY_PAGE_SCRIPT)
    assert received == "Received: Größe: 5 €", f"the page says {received!r}"
    stage.firefox.open(stage.site.origin + "/")


# What a person does on that page, and what they see then.
TRY_PAGE_SCRIPT = """
    const $ = (id) => document.getElementById(id);
    const until = async (what) => {
      for (let tries = 0; tries < 150; tries += 1) {
        const value = await what();
        if (value) return value;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      throw new Error(`the page says: ${$("state").textContent}`);
    };
    $("subscribe").click();
    await until(() => !$("send").disabled);
    $("text").value = "Größe: 5 €";
    $("send").click();
    await until(() => $("state").textContent.startsWith("Answered 201"));
    const received = await until(() => $("received").textContent);
    $("unsubscribe").click();
    await until(() => $("send").disabled);
    return JSON.stringify(received);
"""


CHECKS = [
    plain_subscription,
    keyed_subscription,
    foreign_endpoint,
    aesgcm,
    empty,
    stored_while_away,
    topic_and_ttl,
    gateway_restart,
    gateway_killed,
    killed_before_ack,
    database_lost,
    version_update,
    unsubscribed,
    broadcast,
    console_page,
    nothing_else,
]


def main(binary, program):
    """Runs the checks on a stage of its own and returns the exit status."""
    return run_within(RUN_SECS, "firefox", lambda directory: Stage(binary, program, directory), CHECKS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
