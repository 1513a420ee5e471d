"""curl as an application server."""

import json
import re
import subprocess

REQUEST_SECS = 10


class Answer:
    """What came back, in the manner of requests."""

    def __init__(self, output):
        *interim, head, self.text = split_off_heads(output)
        status_line, *lines = head.split("\r\n")
        self.version, status, *_ = status_line.split(" ")
        self.status_code = int(status)
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.interim = [int(head.split(" ")[1]) for head in interim]

    def json(self):
        """The body as JSON."""
        return json.loads(self.text)


def split_off_heads(output):
    """The heads that stand before the body, one for each answer (100, then 201), and the body."""
    parts = []
    while re.match(r"HTTP/\S+ \d", output):
        head, output = output.split("\r\n\r\n", 1)
        parts.append(head)
    return [*parts, output]


def curl(*arguments):
    """Runs curl, without proxies and without its own configuration, and returns the answer."""
    command = ["curl", "--disable", "--noproxy", "*", "--silent", "--show-error", "--include"]
    command += ["--max-time", str(REQUEST_SECS), *arguments]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr.decode()}"
    return Answer(done.stdout.decode())
