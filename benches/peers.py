"""Peers of edgepush, and one client that drives them all in the same way.

The client is one thread of Python, which is slower than what it drives: how many messages there are a second says
more about it than about the service. The processor time that a service takes for each of them is the service's own.
"""

import base64
import collections
import json
import os
import re
import select
import shutil
import socket
import struct
import time

from processes import Missing, Process, Unmeasured, folder, free_port

# Messages that are on their way at once: enough to keep a service busy, as that many application servers do.
PUBLISHERS = 16
# As `edgepush load` sends by default.
BODY = bytes(range(200))
NCHAN = "/usr/lib/nginx/modules/ngx_nchan_module.so"


class Peer(Process):
    """One that is told its settings by a file."""

    def __init__(self, command, settings):
        if not shutil.which(command[0]):
            raise Missing(f"{command[0]} is not installed")
        port, place = free_port(), folder()
        config = os.path.join(place, "config")
        with open(config, "w") as file:
            file.write(settings.replace("FOLDER", place).replace("PORT", str(port)))
        super().__init__([*command, config], port, place)


class Mosquitto(Peer):
    """QoS 1: it answers when it has the message in memory, and delivers until that is acked."""

    name = "Mosquitto"

    def __init__(self):
        super().__init__(["mosquitto", "-c"], "listener PORT 127.0.0.1\nallow_anonymous true\nuser root\n")

    @staticmethod
    def _packet(kind, *parts):
        body = b"".join(parts)
        length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
        return bytes([kind]) + length + body

    @staticmethod
    def _text(text):
        return len(text).to_bytes(2, "big") + text.encode()

    def join(self, client, number):
        """Says who this is and what it wants to hear of; nothing more is to come but that."""
        client.sendall(self._packet(0x10, b"\0\4MQTT\4\2\0\0", self._text(f"a{number}")))
        client.sendall(self._packet(0x82, b"\0\1", self._text(f"t/{number}"), b"\1"))
        receive(client, 4 + 5)

    def prepare(self, client):
        client.sendall(self._packet(0x10, b"\0\4MQTT\4\2\0\0", self._text(f"p{client.fileno()}")))
        receive(client, 4)

    def post(self, number):
        return self._packet(0x32, self._text(f"t/{number}"), b"\0\1", BODY)

    def answers(self, buffer):
        count = len(buffer) // 4
        del buffer[: 4 * count]
        return count

    def messages(self, buffer):
        """How many have come, and the acks for them. What is not whole stays in the buffer."""
        acks, count = b"", 0
        while len(buffer) > 3:
            start, length = (2, buffer[1]) if buffer[1] < 128 else (3, buffer[1] & 0x7F | buffer[2] << 7)
            if len(buffer) < start + length:
                break
            topic = int.from_bytes(buffer[start : start + 2], "big")
            acks += b"\x40\2" + buffer[start + 2 + topic : start + 4 + topic]
            del buffer[: start + length]
            count += 1
        return count, acks


class Websockets:
    """What nginx with nchan and edgepush have in common: HTTP in, websockets out."""

    def prepare(self, client):
        pass

    def answers(self, buffer):
        count = 0
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(buffer[:end]).lower()
            if not re.match(rb"http/1.1 20[012] ", head):
                raise Unmeasured(f"{self.name} answers {head[:60]!r}")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head)
            end += 4 + int(length[1] if length else 0)
            if len(buffer) < end:
                break
            del buffer[:end]
            count += 1
        return count

    @staticmethod
    def frame(buffer):
        """The next whole one's content, taken out of the buffer."""
        if len(buffer) < 4:
            return None
        start, length = (4, int.from_bytes(buffer[2:4], "big")) if buffer[1] == 126 else (2, buffer[1])
        if len(buffer) < start + length:
            return None
        content = bytes(buffer[start : start + length])
        del buffer[: start + length]
        return content

    def messages(self, buffer):
        acks, count = b"", 0
        while (content := self.frame(buffer)) is not None:
            acks += self.ack(content)
            count += 1
        return count, acks


class Nchan(Websockets, Peer):
    """It answers when it has the message in memory; what is sent on a websocket counts as delivered."""

    name = "nginx with nchan"

    def __init__(self):
        if not os.path.exists(NCHAN):
            raise Missing("nchan is not installed")
        super().__init__(["nginx", "-c"], f"""load_module {NCHAN};
            daemon off; worker_processes 1; user root; pid FOLDER/pid; error_log FOLDER/error;
            worker_rlimit_nofile 20000; events {{ worker_connections 19900; }}
            http {{ access_log off; keepalive_requests 1000000000; server {{ listen 127.0.0.1:PORT;
            location ~ /sub/(.+) {{ nchan_subscriber websocket; nchan_channel_id $1; nchan_subscriber_first_message newest; }}
            location ~ /pub/(.+) {{ nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 1; }} }} }}""")

    def join(self, client, number):
        upgrade(client, f"/sub/{number}", number)

    def post(self, number):
        return f"POST /pub/{number} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY

    def ack(self, _content):
        return b""


class Edgepush(Websockets):
    """The same for a gateway, which answers when the message was acked."""

    def __init__(self, gateway):
        self.gateway, self.name, self.endpoints = gateway, "edgepush", {}
        self.port, self.cpu_secs = gateway.port, gateway.cpu_secs

    def join(self, client, number):
        upgrade(client, "/", number)
        self.ask(client, {"messageType": "hello", "use_webpush": True})
        channel = f"00000000-0000-4000-8000-{number:012}"
        answer = self.ask(client, {"messageType": "register", "channelID": channel})
        self.endpoints[number] = re.sub("^http://[^/]*", "", answer["pushEndpoint"])

    def ask(self, client, question):
        client.sendall(masked(json.dumps(question).encode()))
        buffer = bytearray()
        while (content := self.frame(buffer)) is None:
            buffer += receive(client)
        answer = json.loads(content)
        if answer.get("status") != 200:
            raise Unmeasured(f"edgepush answers {answer}")
        return answer

    def post(self, number):
        return (f"POST {self.endpoints[number]} HTTP/1.1\r\nHost: x\r\nTTL: 60\r\nContent-Encoding: aes128gcm\r\n"
                f"Content-Length: {len(BODY)}\r\n\r\n").encode() + BODY

    def ack(self, content):
        channel, version = (re.search(rb'"%s":"([^"]*)"' % name, content)[1] for name in (b"channelID", b"version"))
        return masked(b'{"messageType":"ack","updates":[{"channelID":"%s","version":"%s","code":100}]}' % (channel, version))


def receive(client, count=1):
    """At least so many bytes."""
    got = b""
    while len(got) < count:
        more = client.recv(4096)
        if not more:
            raise Unmeasured("the connection was closed")
        got += more
    return got


def upgrade(client, path, number):
    key = base64.b64encode(number.to_bytes(16, "big")).decode()
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                   f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += receive(client)
    if not answer.startswith(b"HTTP/1.1 101"):
        raise Unmeasured(f"no websocket: {answer[:60]!r}")


def masked(text):
    """As a websocket frame of a client's, with a mask that changes nothing."""
    length = struct.pack("!B", 0x80 | len(text)) if len(text) < 126 else struct.pack("!BH", 0x80 | 126, len(text))
    return b"\x81" + length + bytes(4) + text


def join_all(service, count):
    clients = []
    for number in range(count):
        client = socket.create_connection(("127.0.0.1", service.port))
        service.join(client, number)
        clients.append(client)
    return clients


def fan_out(service, agents, secs):
    """Sends to one subscriber after the other for so long, on PUBLISHERS connections with one message each on its way.

    Messages a second, median milliseconds to the answer, and the service's processor microseconds for each."""
    subscribers, publishers = join_all(service, agents), []
    for _ in range(PUBLISHERS):
        publishers.append(socket.create_connection(("127.0.0.1", service.port)))
        publishers[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        service.prepare(publishers[-1])
    buffers = {client.fileno(): (client, bytearray()) for client in [*subscribers, *publishers]}
    is_publisher = {client.fileno() for client in publishers}
    poll = select.epoll()
    for descriptor in buffers:
        poll.register(descriptor, select.EPOLLIN)
    asked, times, received = {}, [], collections.Counter()

    def send(client):
        client.sendall(service.post(received["sent"] % agents))
        received["sent"] += 1
        asked[client.fileno()] = time.monotonic()

    cpu, started = service.cpu_secs(), time.monotonic()
    for client in publishers:
        send(client)
    while (asked or received["came"] < received["sent"]) and time.monotonic() < started + secs + 5:
        for descriptor, _ in poll.poll(0.1):
            client, buffer = buffers[descriptor]
            buffer += receive(client)
            if descriptor not in is_publisher:
                count, acks = service.messages(buffer)
                received["came"] += count
                if acks:
                    client.sendall(acks)
            elif service.answers(buffer):
                now = time.monotonic()
                times.append(now - asked.pop(descriptor))
                if now < started + secs:
                    send(client)
    took, cpu = time.monotonic() - started, service.cpu_secs() - cpu
    for client, _ in buffers.values():
        client.close()
    if received["came"] != received["sent"]:
        raise Unmeasured(f"{received['sent']} were sent and {received['came']} received")
    return received["came"] / took, sorted(times)[len(times) // 2] * 1e3, cpu / received["came"] * 1e6
