"""The gateway under test: started, stopped, its database lost."""

import pathlib
import re
import subprocess
import threading
import time
import urllib.request

from child import Child

READY_SECS = 15
STOP_SECS = 15
ANSWER_SECS = 5


class Gateway(Child):
    """One edgepush with a data directory; after the first start it always returns to the same port."""

    def __init__(self, binary, directory, config=""):
        directory = pathlib.Path(directory)
        super().__init__(directory / "gateway.log")
        self.binary = binary
        self.config = directory / "edgepush.toml"
        self.config.write_text(config)
        self.data = directory / "data"
        self.data.mkdir()
        self.address = "127.0.0.1:0"
        self.console = None

    def start(self):
        """Starts the gateway and waits for the line that says that it is ready."""
        command = [self.binary, "--listen", self.address, "--console", "127.0.0.1:0", "--data", self.data]
        command += ["--config", self.config, "--log", "debug"]
        self.spawn(command, stdout=subprocess.PIPE, text=True)
        watchdog = threading.Timer(READY_SECS, self.process.kill)
        watchdog.daemon = True
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        ready = re.fullmatch(r"edgepush ready push=https?://(127\.0\.0\.1:\d+) console=(http://\S+)\n", line)
        if not ready:
            self.kill()
            raise AssertionError(f"the gateway began with {line!r} instead of its ready line")
        self.address = ready.group(1)
        self.console = ready.group(2)

    def stop(self):
        """Asks the gateway to end as an operator would; it must do so in time and without an error."""
        self.process.terminate()
        status = self.process.wait(STOP_SECS)
        assert status == 0, f"after SIGTERM the gateway ended with status {status}"

    def said(self, text):
        """How many lines of its log have this in them."""
        return sum(text in line for line in self.log.read_text(errors="replace").splitlines())

    def metric(self, name):
        """One value of its metrics."""
        with urllib.request.urlopen(f"{self.console}/metrics", timeout=ANSWER_SECS) as answer:
            text = answer.read().decode()
        values = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
        assert values, f"no {name} in {text}"
        return int(values[0])

    def wait_for_metric(self, name, least, secs):
        """Waits until a value of its metrics, which may be a moment old, is at least so high."""
        end = time.monotonic() + secs
        while (value := self.metric(name)) < least:
            assert time.monotonic() < end, f"{name} is {value}, never {least}"
            time.sleep(0.1)

    def lose_everything(self):
        """Deletes the database and the key of a stopped gateway: it knows nobody any more."""
        self.lose_database()
        (self.data / "edgepush.key").unlink()

    def lose_database(self):
        """Deletes the database of a stopped gateway and leaves its key."""
        files = sorted(self.data.iterdir())
        lost = [file for file in files if file.match("edgepush.db*")]
        assert lost, f"no edgepush.db among {files}"
        assert self.data / "edgepush.key" in files, f"no edgepush.key among {files}"
        for file in lost:
            file.unlink()
