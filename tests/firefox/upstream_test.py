"""Real Firefox behind a gateway that borrows its endpoints from another edgepush, the main service: what is posted there
arrives, also after cuts and kill -9 in between; so it does at `edgepush listen`, and as a version update for SimplePush.

Usage: upstream_test.py EDGEPUSH FIREFOX. Prints a line for each check; `run` beside this file installs what is needed.
"""

import json
import pathlib
import queue
import subprocess
import sys
import threading

from checks import expect_refusal, run_within
from child import Child
from gateway import Gateway
from link import Link
from push_test import DELIVERY_SECS, KEYED, PLAIN, POST_SECS, Stage

RUN_SECS = 240
FIVE = (1, 2, 3, 4, 5)
# Twice the longest wait before another attempt.
RECONNECT_SECS = 20
ACKS_SENT = "edgepush_upstream_acks_total"
ACKED_ABOVE = "edgepush_messages_acked_total"

CONFIG = """\
[upstream]
url = "ws://{link}/"
plain = true
endpoints = "all"
reconnect_secs_max = 10
"""


class Listener(Child):
    """`edgepush listen` at the gateway of the house."""

    def __init__(self, binary, directory, name, *options):
        super().__init__(pathlib.Path(directory, f"{name}.log"))
        self.command = [binary, "listen", "--state", pathlib.Path(directory, f"{name}.json"), *options]
        self.lines = queue.Queue()

    def start(self, address):
        """Subscribes; returns what it says of its subscription, a word in front of each."""
        self.spawn([*self.command, address], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def _read(self, output):
        for line in output:
            self.lines.put(line.rstrip("\n"))

    def line(self, word):
        """The rest of its next line, which must begin with this word."""
        line = self.lines.get(timeout=DELIVERY_SECS)
        first, _, rest = line.partition(" ")
        assert first == word, f"{line!r} instead of {word}"
        return rest

    def expect(self, *texts):
        """These messages and no others have come since the last, in any order."""
        arrived = sorted(self.line("message") for _ in texts)
        assert arrived == sorted(texts), f"got {arrived} instead of {list(texts)}"
        assert self.lines.empty(), f"and then {self.lines.get()!r}"


class House(Stage):
    """Firefox and listeners at a gateway, which is behind a link to the main service."""

    def __init__(self, binary, program, directory):
        self.link = Link()
        super().__init__(binary, program, directory, CONFIG.format(link=self.link.address))
        above = pathlib.Path(directory, "main")
        above.mkdir()
        self.main = Gateway(binary, above)
        self.message_listener = Listener(binary, directory, "messages")
        self.update_listener = Listener(binary, directory, "updates", "--simplepush")
        self.acked = 0

    @property
    def logs(self):
        """Whose logs tell what happened."""
        return [*super().logs, self.main, self.message_listener, self.update_listener]

    def restore(self):
        """Starts what is not running, and lets the link be whole."""
        if not self.main.is_running:
            self.main.start()
            # Endpoints would begin with the address of the link otherwise: it is what the gateway connects to.
            public_url = f'public_url = "http://{self.main.address}"\n'
            if self.main.config.read_text() != public_url:
                self.main.config.write_text(public_url)
                self.main.stop()
                self.main.start()
            self.link.target = self.main.address
        self.link.restore()
        super().restore()

    def close(self):
        """Ends all processes."""
        self.message_listener.kill()
        self.update_listener.kill()
        super().close()
        self.main.kill()

    def expect_borrowed(self, endpoint):
        """The endpoint is the main service's."""
        assert endpoint.startswith(f"http://{self.main.address}/"), f"{endpoint} is not the main service's"

    def push_five(self, name):
        """Sends five push messages to Firefox and to the listener; what they say."""
        self.acked = self.main.metric(ACKED_ABOVE)
        sent = [f"{name} {number}" for number in FIVE]
        for payload in sent:
            self.push(PLAIN, payload)
            self.push(PLAIN, payload, subscription=self.listener_subscription)
        return sent

    def take_down_five(self, name):
        """Sends five push messages to Firefox, which is closed, and waits until the gateway has acked them; what they say."""
        before = self.gateway.metric(ACKS_SENT)
        sent = [f"{name} {number}" for number in FIVE]
        for payload in sent:
            self.push(PLAIN, payload)
        self.gateway.wait_for_metric(ACKS_SENT, before + len(sent), DELIVERY_SECS)
        return sent

    def expect_five(self, sent):
        """They arrive at both, each once, and the main service has heard that: what it has not heard comes again."""
        self.site.expect(PLAIN, *sent)
        self.message_listener.expect(*sent)
        self.main.wait_for_metric(ACKED_ABOVE, self.acked + 2 * len(sent), DELIVERY_SECS)


def firefox_borrows(stage):
    """Firefox gets the main service's endpoints, with and without a key, and what is posted to them"""
    stage.subscribe(PLAIN)
    stage.subscribe(KEYED, stage.vapid_public_key)
    for scope in (PLAIN, KEYED):
        stage.expect_borrowed(stage.subscriptions[scope]["endpoint"])
    expect_refusal(stage.post(KEYED, "unsigned"), 401, 109)
    stage.push(PLAIN, "from above 🍓")
    stage.push(KEYED, "signed, from above")
    stage.push(PLAIN, "older, from above", encoding="aesgcm")
    stage.push(KEYED, None)
    stage.site.expect(PLAIN, "from above 🍓", "older, from above")
    stage.site.expect(KEYED, "signed, from above", None)


def listener_borrows(stage):
    """so does `edgepush listen`"""
    stage.message_listener.start(stage.gateway.address)
    stage.expect_borrowed(stage.message_listener.line("endpoint"))
    stage.listener_subscription = json.loads(stage.message_listener.line("subscription"))
    stage.push(PLAIN, "for the listener", subscription=stage.listener_subscription)
    stage.message_listener.expect("for the listener")


def simplepush_borrows(stage):
    """a push message becomes a version update for a SimplePush listener, each with a higher version"""
    stage.update_listener.start(stage.gateway.address)
    endpoint = stage.update_listener.line("endpoint")
    stage.expect_borrowed(endpoint)
    versions = []
    for _ in range(2):
        answer = stage.session.post(endpoint, headers={"TTL": "60"}, timeout=POST_SECS)
        assert answer.status_code == 201, f"answered {answer.status_code} {answer.text}"
        versions.append(int(stage.update_listener.line("update").removeprefix("version=")))
    assert versions[0] < versions[1], f"versions {versions}"


def cut_and_restored(stage):
    """the link cut, five posted, the link restored: all five arrive once"""
    stage.link.cut()
    sent = stage.push_five("cut")
    stage.site.expect(PLAIN)
    stage.link.restore()
    stage.expect_five(sent)


def killed_in_between(stage):
    """the link cut, five posted, kill -9 of the gateway, the link restored: all five arrive once"""
    stage.link.cut()
    sent = stage.push_five("killed")
    stage.gateway.kill()
    stage.gateway.start()
    stage.link.restore()
    stage.expect_five(sent)
    stage.expect_subscriptions_kept()


def killed_after_acks(stage):
    """five taken down while Firefox is closed, kill -9 of the gateway, the link cut: all five arrive once"""
    stage.firefox.stop()
    sent = stage.take_down_five("kept")
    stage.link.cut()
    stage.gateway.kill()
    stage.gateway.start()
    stage.start_firefox()
    stage.site.expect(PLAIN, *sent)
    stage.expect_subscriptions_kept()


def main_service_killed(stage):
    """kill -9 of the main service: subscriptions are the same, and what is posted arrives"""
    stage.main.kill()
    stage.main.start()
    sent = stage.push_five("main service back")
    stage.expect_five(sent)
    stage.expect_subscriptions_kept()


def unsubscribed(stage):
    """unsubscribe() while the link is cut: the endpoint is gone once it is restored, and nothing comes of it"""
    stage.link.cut()
    assert stage.firefox.call("unsubscribe", PLAIN), "unsubscribe() found no subscription"
    stage.push(PLAIN, "for nobody")
    before = stage.gateway.metric("edgepush_upstream_unregistrations_total")
    stage.link.restore()
    stage.gateway.wait_for_metric("edgepush_upstream_unregistrations_total", before + 1, DELIVERY_SECS)
    expect_refusal(stage.post(PLAIN, "too late"), 410, 106)
    stage.subscribe(PLAIN)
    stage.push(PLAIN, "subscribed again")
    stage.site.expect(PLAIN, "subscribed again")


def nothing_else(stage):
    """no other event came during the whole run"""
    stage.push(KEYED, "last")
    stage.site.expect(KEYED, "last")
    stage.site.expect(PLAIN)
    assert stage.message_listener.lines.empty()
    assert stage.update_listener.lines.empty()
    stage.expect_subscriptions_kept()


def forgotten(stage):
    """the main service forgets everybody while five wait here: they arrive, then both scopes subscribe again"""
    stage.firefox.stop()
    sent = stage.take_down_five("before the loss")
    stage.main.stop()
    stage.main.lose_everything()
    stage.main.start()
    stage.gateway.wait_for_metric("edgepush_upstream_user_agents_to_tell", 1, RECONNECT_SECS)
    stage.start_firefox()
    stage.site.expect(PLAIN, *sent)
    stage.site.expect_lost(PLAIN, KEYED)
    stage.subscribe(PLAIN)
    stage.subscribe(KEYED, stage.vapid_public_key)
    for scope in (PLAIN, KEYED):
        stage.expect_borrowed(stage.subscriptions[scope]["endpoint"])
        stage.push(scope, "after the loss")
        stage.site.expect(scope, "after the loss")


CHECKS = [
    firefox_borrows,
    listener_borrows,
    simplepush_borrows,
    cut_and_restored,
    killed_in_between,
    killed_after_acks,
    main_service_killed,
    unsubscribed,
    nothing_else,
    forgotten,
]


def main(binary, program):
    """Runs the checks on a stage of its own and returns the exit status."""
    return run_within(RUN_SECS, "upstream", lambda directory: House(binary, program, directory), CHECKS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
