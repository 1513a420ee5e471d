"""A small user agent that really decrypts what it gets, on one websocket."""

import asyncio
import base64
import json
import os
import threading
import uuid

import http_ece
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect

ANSWER_SECS = 15
AUTH_SECRET_BYTES = 16
# Never registered: unregistering it changes nothing and is answered after all that came before.
NO_CHANNEL = "00000000-0000-0000-0000-000000000000"

# The websockets of all user agents are served beside the test. (The library's own threads are not to be used over TLS:
# they read and write at the same time, which Python's ssl does not bear; one handshake in some hundred hangs.)
LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, daemon=True).start()


def wait_for(coroutine):
    """Runs it beside the test and returns what it comes to."""
    return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, ANSWER_SECS), LOOP).result()


def base64url(data):
    """Base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text):
    """The bytes of it; padding may be there or not."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def public_point(key):
    """The public part of a P-256 key as 65 bytes, as everything in Web Push names it."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


class Subscription:
    """An endpoint, and the keys that a push message must be encrypted for."""

    def __init__(self, channel, endpoint):
        self.channel = channel
        self.endpoint = endpoint
        self.private_key = ec.generate_private_key(ec.SECP256R1())
        self.auth_secret = os.urandom(AUTH_SECRET_BYTES)

    @property
    def info(self):
        """What an application server is told, in the form of a browser's PushSubscription."""
        p256dh = base64url(public_point(self.private_key.public_key()))
        return {"endpoint": self.endpoint, "keys": {"p256dh": p256dh, "auth": base64url(self.auth_secret)}}

    def decrypt(self, notification):
        """The text that was sent, `None` for an empty push message."""
        if "data" not in notification:
            assert "headers" not in notification, f"headers without data: {notification}"
            return None
        headers = notification["headers"]
        encoding = headers["encoding"]
        salt = dh = None
        if encoding == "aesgcm":
            salt = from_base64url(parameters(headers["encryption"])["salt"])
            dh = from_base64url(parameters(headers["crypto_key"])["dh"])
        data = from_base64url(notification["data"])
        return http_ece.decrypt(
            data, salt=salt, dh=dh, private_key=self.private_key, auth_secret=self.auth_secret, version=encoding
        ).decode()


def parameters(header):
    """`a=1;b=2` and `a=1,b=2` as a dictionary."""
    return dict(part.strip().split("=", 1) for part in header.replace(",", ";").split(";"))


class UserAgent:
    """Speaks as Bitwarden's autopush-manager does on the wire (tests/fixtures/frames): its first UAID is the empty
    string, hello names all channels, a key has no padding. It acks when it is told to.
    """

    def __init__(self, url, tls=None):
        self.url = url
        self.tls = tls
        self.uaid = ""
        self.subscriptions = {}
        self.socket = None
        self.waiting = []

    def hello(self, **fields):
        """Connects and says hello; returns the answer. Fields that are given replace the usual ones."""
        self.socket = wait_for(self.connect())
        self.waiting = []
        hello = {"messageType": "hello", "uaid": self.uaid, "channelIDs": list(self.subscriptions), "use_webpush": True}
        self.send({**hello, **fields})
        answer = self.answer("hello")
        assert answer["status"] == 200, answer
        self.uaid = answer["uaid"]
        return answer

    async def connect(self):
        """A websocket, opened."""
        return await connect(self.url, ssl=self.tls, proxy=None, user_agent_header=None)

    def register(self, key=None):
        """A new subscription, restricted to a VAPID key if there is one."""
        answer = self.try_register(key)
        assert answer["status"] == 200, answer
        subscription = Subscription(answer["channelID"], answer["pushEndpoint"])
        self.subscriptions[subscription.channel] = subscription
        return subscription

    def try_register(self, key=None):
        """Asks for a subscription and returns the answer."""
        message = {"messageType": "register", "channelID": str(uuid.uuid4())}
        self.send({**message, "key": key} if key else message)
        answer = self.answer("register")
        assert answer["channelID"] == message["channelID"], answer
        return answer

    def unregister(self, subscription):
        """Ends a subscription."""
        self.send({"messageType": "unregister", "channelID": subscription.channel, "code": 200})
        answer = self.answer("unregister")
        assert (answer["channelID"], answer["status"]) == (subscription.channel, 200), answer
        del self.subscriptions[subscription.channel]

    def arrived(self):
        """All notifications that were sent so far and not yet taken: there are no others."""
        self.send({"messageType": "unregister", "channelID": NO_CHANNEL})
        answer = self.answer("unregister")
        assert answer["channelID"] == NO_CHANNEL, answer
        arrived, self.waiting = self.waiting, []
        assert all(message["messageType"] == "notification" for message in arrived), arrived
        return arrived

    def expect(self, subscription, *texts):
        """Compares all that has arrived with what should have, decrypted and in this order, and acks it at once."""
        arrived = self.arrived()
        seen = [subscription.decrypt(notification) for notification in arrived]
        assert seen == list(texts), f"got {seen} instead of {list(texts)}"
        assert all(notification["channelID"] == subscription.channel for notification in arrived), arrived
        self.ack(*arrived)

    def ack(self, *notifications):
        """Acks several at once."""
        updates = [{"channelID": n["channelID"], "version": n["version"], "code": 100} for n in notifications]
        if updates:
            self.send({"messageType": "ack", "updates": updates})

    def answer(self, message_type):
        """The next message of a type; what comes before it waits."""
        while True:
            message = self.receive()
            if message["messageType"] == message_type:
                return message
            self.waiting.append(message)

    def send(self, message):
        """Sends one message."""
        wait_for(self.socket.send(json.dumps(message)))

    def receive(self):
        """The next message of any type, but for those that wait."""
        return json.loads(wait_for(self.socket.recv()))

    def leave(self):
        """Closes the websocket; what was sent before is with the gateway then."""
        wait_for(self.socket.close())

    def ping(self):
        """Sends a ping of the websocket protocol and waits for its pong."""

        async def exchange():
            await (await self.socket.ping(b"{}"))

        wait_for(exchange())
