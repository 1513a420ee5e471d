"""Application servers as they are: pywebpush, npm's web-push and curl post to the real gateway.

Usage: senders_test.py EDGEPUSH. Prints a line for each check; `run` beside this file installs what is needed.
"""

import asyncio
import json
import os
import pathlib
import ssl
import subprocess
import sys
import time

import http_ece
import requests
from py_vapid import Vapid01, Vapid02
from pywebpush import WebPushException, webpush, webpush_async

from certificate import make_certificate
from checks import expect_refusal, run_within
from curl import curl
from gateway import Gateway
from user_agent import UserAgent, base64url, public_point

HERE = pathlib.Path(__file__).parent
RUN_SECS = 120
REQUEST_SECS = 10
TTL_SECS = 60
DAY_SECS = 86_400
ENCODINGS = ("aes128gcm", "aesgcm")
URGENCIES = ("very-low", "low", "normal", "high")
CLAIMS = {"sub": "mailto:test@example.org"}
LONGEST = "x" * 3_900  # with the encryption's header and tag just below 4,096 bytes
PAYLOAD_MAX = "x" * 3_993  # what RFC 8291 leaves of them
GONE = "No such subscription"

CONFIG = """\
[tls]
certificate = {certificate}
key = {key}
[vapid]
clock = "trusted"
"""


class Stage:
    """The gateway, two user agents (one on TLS), and the key of the application server."""

    def __init__(self, binary, directory):
        self.directory = pathlib.Path(directory)
        self.authority, certificate, key = make_certificate(self.directory)
        config = CONFIG.format(certificate=json.dumps(str(certificate)), key=json.dumps(str(key)))
        self.gateway = Gateway(binary, directory, config)
        self.vapid = Vapid02()
        self.vapid.generate_keys()
        self.session = requests.Session()
        self.session.trust_env = False  # a proxy from the environment must not see endpoints
        self.session.verify = str(self.authority)
        self.agent = None
        self.logs = [self.gateway]

    def restore(self):
        """Starts the gateway where it is not running, and gives each check a user agent of its own."""
        if not self.gateway.is_running:
            self.gateway.start()
        self.agent = UserAgent(f"ws://{self.gateway.address}/")
        self.agent.hello()

    def close(self):
        """Ends all processes."""
        self.gateway.kill()

    @property
    def vapid_public_key(self):
        """The application server's public key, as `register` takes it."""
        return base64url(public_point(self.vapid.public_key))

    def agent_on_tls(self):
        """A user agent whose endpoints start with https."""
        tls = ssl.create_default_context(cafile=self.authority)
        tls.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does by itself
        agent = UserAgent(f"wss://{self.gateway.address}/", tls)
        agent.hello()
        return agent

    def push(self, subscription, payload, vapid=None, claims=None, encoding="aes128gcm", ttl=TTL_SECS, headers=None):
        """Sends with pywebpush; what it raises is what its users see."""
        return webpush(
            subscription.info,
            payload,
            vapid_private_key=vapid,
            vapid_claims={**CLAIMS, **(claims or {})} if vapid else None,
            content_encoding=encoding,
            ttl=ttl,
            headers=headers,
            timeout=REQUEST_SECS,
            requests_session=self.session,
        )

    def refused(self, *arguments, **options):
        """The answer in the exception that pywebpush raises."""
        try:
            answer = self.push(*arguments, **options)
        except WebPushException as exception:
            answer = exception.response
            expected = f"Push failed: {answer.status_code} {answer.reason}\nResponse body:{answer.text}"
            assert exception.message == expected, f"the exception says {exception.message!r}"
            return answer
        raise AssertionError(f"answered {answer.status_code} instead of an exception")

    def web_push(self, subscription, payload, **options):
        """Sends with web-push for Node.js: `answer` or `error`."""
        message = {"subscription": subscription.info, "payload": payload, "options": {"TTL": TTL_SECS, **options}}
        environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(self.authority)}
        done = subprocess.run(
            ["node", HERE / "web_push.js"],
            input=json.dumps(message),
            capture_output=True,
            text=True,
            timeout=REQUEST_SECS,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def vapid_details(self, vapid=None):
        """The key in the form that web-push takes."""
        vapid = vapid or self.vapid
        number = vapid.private_key.private_numbers().private_value
        public_key, private_key = base64url(public_point(vapid.public_key)), base64url(number.to_bytes(32))
        return {"subject": CLAIMS["sub"], "publicKey": public_key, "privateKey": private_key}


def expect_accepted(answer, ttl=TTL_SECS):
    """Compares an answer with that to a push message that is accepted; returns the URL of the message."""
    assert answer.status_code == 201, f"answered {answer.status_code} {answer.text}"
    assert answer.text == "", f"a body: {answer.text}"
    assert answer.headers["ttl"] == str(ttl), f"TTL {answer.headers['ttl']}"
    return answer.headers["location"]


def pywebpush_open(stage):
    """pywebpush: aes128gcm and aesgcm to an open subscription, without VAPID and with both forms of it"""
    subscription = stage.agent.register()
    for encoding in ENCODINGS:
        for vapid in (None, stage.vapid, Vapid01(stage.vapid.private_key)):
            if encoding == "aes128gcm" and isinstance(vapid, Vapid01) and not isinstance(vapid, Vapid02):
                continue  # its key would be in a Crypto-Key header, which this encoding does not have
            text = f"Grüße 🍓 {encoding}"
            expect_accepted(stage.push(subscription, text, vapid, encoding=encoding))
            stage.agent.expect(subscription, text)
        expect_accepted(stage.push(subscription, LONGEST, encoding=encoding))
        stage.agent.expect(subscription, LONGEST)


def pywebpush_restricted(stage):
    """pywebpush: the same to a restricted subscription, signed as `vapid` (RFC 8292) and as `WebPush`"""
    subscription = stage.agent.register(stage.vapid_public_key)
    first = Vapid01(stage.vapid.private_key)
    for vapid, encoding in ((stage.vapid, "aes128gcm"), (stage.vapid, "aesgcm"), (first, "aesgcm")):
        expect_accepted(stage.push(subscription, "signed", vapid, encoding=encoding))
        stage.agent.expect(subscription, "signed")


def pywebpush_headers(stage):
    """pywebpush: TTL, topic, urgency and an empty message, live and stored"""
    subscription = stage.agent.register()
    for ttl in (0, 1, DAY_SECS):
        expect_accepted(stage.push(subscription, "live", ttl=ttl), ttl)
        stage.agent.expect(subscription, "live")
    expect_accepted(stage.push(subscription, "a year", ttl=365 * DAY_SECS), 30 * DAY_SECS)
    expect_accepted(stage.push(subscription, None))
    stage.agent.expect(subscription, "a year", None)
    stage.agent.leave()
    expect_accepted(stage.push(subscription, "now or never", ttl=0), 0)
    expect_accepted(stage.push(subscription, "replaced", headers={"Topic": "weather"}))
    for urgency in URGENCIES:
        expect_accepted(stage.push(subscription, urgency, headers={"Urgency": urgency}))
    expect_accepted(stage.push(subscription, None))
    expect_accepted(stage.push(subscription, "latest", headers={"Topic": "weather"}))
    stage.agent.hello()
    stage.agent.expect(subscription, *URGENCIES, None, "latest")


def pywebpush_vapid_refused(stage):
    """pywebpush: a wrong key, a wrong aud, an expired token, none at all: a WebPushException that says so"""
    subscription = stage.agent.register(stage.vapid_public_key)
    stranger = Vapid02()
    stranger.generate_keys()
    expect_refusal(stage.refused(subscription, "x"), 401, 109, "Missing VAPID public key")
    expect_refusal(stage.refused(subscription, "x", stranger), 401, 109, "VAPID public key mismatch")
    elsewhere = {"aud": "https://updates.push.services.mozilla.com"}
    expect_refusal(stage.refused(subscription, "x", stage.vapid, elsewhere), 401, 109, "Invalid VAPID audience")
    # pywebpush makes out an expired token anew; so it is signed here and handed over as headers.
    claims = {**CLAIMS, "aud": f"http://{stage.gateway.address}"}
    expired = stage.vapid.sign({**claims, "exp": int(time.time()) - 3_600})
    expect_refusal(stage.refused(subscription, "x", headers=expired), 401, 109, "ExpiredSignature")
    too_long = stage.vapid.sign({**claims, "exp": int(time.time()) + 2 * DAY_SECS})
    message = "The VAPID token expiration is too long"
    expect_refusal(stage.refused(subscription, "x", headers=too_long), 401, 109, message)
    # py_vapid's own default is a day, to the second.
    expect_accepted(stage.push(subscription, "accepted", headers=stage.vapid.sign(claims)))
    stage.agent.expect(subscription, "accepted")


def pywebpush_refused(stage):
    """pywebpush: a bad topic, a bad urgency, too large, 410 after unregister, 404: a WebPushException that says so"""
    subscription = stage.agent.register()
    expect_refusal(stage.refused(subscription, "x", headers={"Topic": "t" * 33}), 400, 113)
    expect_refusal(stage.refused(subscription, "x", headers={"Urgency": "urgent"}), 400, None)
    expect_refusal(stage.refused(subscription, "x" * 5_600), 413, 104)
    stage.agent.unregister(subscription)
    gone = stage.refused(subscription, "x")
    expect_refusal(gone, 410, 106, GONE)
    assert gone.headers["Cache-Control"] == "max-age=86400", gone.headers
    subscription.endpoint += "x"
    expect_refusal(stage.refused(subscription, "x"), 404, 102)
    assert stage.agent.arrived() == []


def pywebpush_tls(stage):
    """pywebpush: to an https endpoint, with VAPID for its origin"""
    agent = stage.agent_on_tls()
    subscription = agent.register(stage.vapid_public_key)
    assert subscription.endpoint.startswith(f"https://{stage.gateway.address}/wpush/v2/"), subscription.endpoint
    expect_accepted(stage.push(subscription, "behind TLS", stage.vapid))
    agent.expect(subscription, "behind TLS")


def pywebpush_other_ways(stage):
    """pywebpush: webpush_async (aiohttp) and the command"""
    subscription = stage.agent.register(stage.vapid_public_key)
    sending = webpush_async(
        subscription.info, "async", vapid_private_key=stage.vapid, vapid_claims=dict(CLAIMS), ttl=TTL_SECS
    )
    assert asyncio.run(sending).status == 201
    stage.agent.expect(subscription, "async")
    files = {name: stage.directory / f"command-{name}" for name in ("data", "info", "head", "claims", "key")}
    files["data"].write_text("by command")
    files["info"].write_text(json.dumps(subscription.info))
    files["head"].write_text('{"TTL": "60", "Topic": "command"}')
    files["claims"].write_text(json.dumps(CLAIMS))
    stage.vapid.save_key(files["key"])
    command = [sys.executable, "-m", "pywebpush"]
    for name, file in files.items():
        command += [f"--{name}", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=REQUEST_SECS)
    assert done.stdout == "<Response [201]>\n", done
    stage.agent.expect(subscription, "by command")


def web_push(stage):
    """web-push for Node.js: aes128gcm and aesgcm, with and without VAPID; only https, so the gateway needs TLS"""
    agent = stage.agent_on_tls()
    subscription, restricted = agent.register(), agent.register(stage.vapid_public_key)
    for encoding in ENCODINGS:
        text = f"Grüße 🍓 {encoding}"
        sent = stage.web_push(subscription, text, contentEncoding=encoding)
        assert sent["answer"]["statusCode"] == 201, sent
        assert sent["answer"]["headers"]["ttl"] == str(TTL_SECS), sent
        agent.expect(subscription, text)
        sent = stage.web_push(restricted, text, contentEncoding=encoding, vapidDetails=stage.vapid_details())
        assert sent["answer"]["statusCode"] == 201, sent
        agent.expect(restricted, text)


def web_push_headers(stage):
    """web-push for Node.js: its TTL of four weeks, topic, urgency and an empty message, live and stored"""
    agent = stage.agent_on_tls()
    subscription = agent.register()
    sent = stage.web_push(subscription, None, TTL=28 * DAY_SECS)
    assert sent["answer"]["headers"]["ttl"] == str(28 * DAY_SECS), sent
    agent.expect(subscription, None)
    agent.leave()
    stage.web_push(subscription, "replaced", topic="weather", urgency="low")
    stage.web_push(subscription, "kept", urgency="high")
    stage.web_push(subscription, "latest", topic="weather", urgency="very-low")
    stage.web_push(subscription, "now or never", TTL=0)
    agent.hello()
    agent.expect(subscription, "kept", "latest")


def web_push_refused(stage):
    """web-push for Node.js: a wrong VAPID key, 410 after unregister, 404: a WebPushError with status and body"""
    agent = stage.agent_on_tls()
    subscription = agent.register(stage.vapid_public_key)
    stranger = Vapid02()
    stranger.generate_keys()
    mine = {"vapidDetails": stage.vapid_details()}

    def expect_error(status, errno, message, **options):
        error = stage.web_push(subscription, "x", **options)["error"]
        body = json.loads(error["body"])
        seen = (error["name"], error["statusCode"], body["errno"], error["endpoint"])
        assert seen == ("WebPushError", status, errno, subscription.endpoint), error
        assert message is None or body["message"] == message, error

    wrong = stage.vapid_details(stranger)
    expect_error(401, 109, "VAPID public key mismatch", vapidDetails=wrong)
    agent.unregister(subscription)
    expect_error(410, 106, GONE, **mine)
    subscription.endpoint += "x"
    expect_error(404, 102, None, **mine)


def curl_message(stage):
    """curl: the README's command; a stored message is taken back with DELETE, and once more"""
    subscription = stage.agent.register()
    expect_accepted(curl("-X", "POST", "-H", "TTL: 60", subscription.endpoint))
    stage.agent.expect(subscription, None)
    stage.agent.leave()
    messages = [expect_accepted(curl("-X", "POST", "-H", "TTL: 60", subscription.endpoint)) for _ in range(2)]
    for _ in range(2):
        assert curl("-X", "DELETE", messages[0]).status_code == 204
    expect_refusal(curl("-X", "DELETE", messages[0] + "x"), 400, None, "Invalid message ID")
    stage.agent.hello()
    stage.agent.expect(subscription, None)


def curl_forms(stage):
    """curl: HTTP/1.0, Expect: 100-continue, a chunked body, header names in odd case, a request for h2c"""
    subscription = stage.agent.register()
    body = stage.directory / "body"

    def post(text, *arguments, ttl="TTL", content_encoding="Content-Encoding"):
        body.write_bytes(encrypt(subscription, text))
        headers = ["-H", f"{ttl}: 60", "-H", f"{content_encoding}: aes128gcm"]
        answer = curl("--data-binary", f"@{body}", *headers, *arguments, subscription.endpoint)
        expect_accepted(answer)
        stage.agent.expect(subscription, text)
        return answer

    post("plain")
    assert post("old", "--http1.0").version == "HTTP/1.0"
    assert post("hesitating", "-H", "Expect: 100-continue").interim == [100]
    post("in pieces", "-H", "Transfer-Encoding: chunked")
    post("odd", ttl="tTl", content_encoding="CONTENT-encoding")
    upgrading = post("upgrading", "--http2")
    assert (upgrading.version, upgrading.interim) == ("HTTP/1.1", []), upgrading.headers


def curl_update(stage):
    """curl: PUT version=N reaches the user agent as a version update, the highest one if it was away"""
    subscription = stage.agent.register()

    def put(version, status):
        answer = curl("-X", "PUT", "-d", f"version={version}", subscription.endpoint)
        assert (answer.status_code, answer.text) == (status, "{}"), answer.text

    def expect_version(version):
        (notification,) = stage.agent.arrived()
        expected = [{"channelID": subscription.channel, "version": version}]
        assert notification["updates"] == expected, notification
        stage.agent.send({"messageType": "ack", "updates": expected})

    put(3, 200)
    expect_version(3)
    expect_refusal(curl("-X", "PUT", "-d", "version=x", subscription.endpoint), 400, None)
    stage.agent.leave()
    for version in (5, 7, 6):
        put(version, 202)
    stage.agent.hello()
    expect_version(7)


def encrypt(subscription, text):
    """The body of a push message: aes128gcm, as pywebpush makes it."""
    own_key = type(subscription)(None, None).private_key
    dh = public_point(subscription.private_key.public_key())
    return http_ece.encrypt(text.encode(), private_key=own_key, dh=dh, auth_secret=subscription.auth_secret)


def life(stage):
    """a user agent's life: first hello, register, many messages acked at once, kill -9 with some stored, unregister"""
    agent = stage.agent
    subscription, other = agent.register(), agent.register(stage.vapid_public_key)
    uaid = agent.uaid
    sent = [f"together {number}" for number in range(20)]
    for text in sent:
        expect_accepted(stage.push(subscription, text))
    agent.expect(subscription, *sent)
    agent.leave()
    expect_accepted(stage.push(subscription, "stored before"))
    stage.gateway.kill()
    stage.gateway.start()
    expect_accepted(stage.push(other, "stored after", stage.vapid))
    assert agent.hello()["uaid"] == uaid
    first, second = agent.arrived()
    assert subscription.decrypt(first) == "stored before" and other.decrypt(second) == "stored after"
    agent.leave()  # not acked
    agent.hello()
    again = agent.arrived()
    assert [notification["version"] for notification in again] == [first["version"], second["version"]], again
    agent.ack(*again)
    agent.unregister(subscription)
    expect_refusal(stage.refused(subscription, "late"), 410, 106, GONE)
    expect_accepted(stage.push(other, "the last", stage.vapid))
    agent.expect(other, "the last")
    agent.leave()
    assert agent.hello()["uaid"] == uaid
    agent.expect(other)


CHECKS = [
    pywebpush_open,
    pywebpush_restricted,
    pywebpush_headers,
    pywebpush_vapid_refused,
    pywebpush_refused,
    pywebpush_tls,
    pywebpush_other_ways,
    web_push,
    web_push_headers,
    web_push_refused,
    curl_message,
    curl_forms,
    curl_update,
    life,
]


def main(binary):
    """Runs the checks on a stage of its own and returns the exit status."""
    return run_within(RUN_SECS, "senders", lambda directory: Stage(binary, directory), CHECKS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
