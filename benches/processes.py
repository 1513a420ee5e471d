"""The processes that benches/run measures, each in a folder of its own, and what Linux says that they use."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))
# Beside what was built, and not in /tmp: that may be memory, where a flush costs nothing.
SCRATCH = os.path.join(ROOT, "target", "tmp")
# Nothing is refused, so that the program is measured and not its limits.
LIMITS = """[limits]
app_ping_interval_secs_min = 0
connections_max = 19400
store_queue_max = 20000
subscription_rate_per_sec_max = 1000000
subscription_burst_max = 1000000
user_agent_rate_per_sec_max = 1000000
user_agent_burst_max = 1000000
"""


class Unmeasured(Exception):
    """Why there is no figure."""


class Missing(Unmeasured):
    """What has to be installed or built for it."""


def folder():
    os.makedirs(SCRATCH, exist_ok=True)
    made = tempfile.mkdtemp(prefix="edgepush-bench-", dir=SCRATCH)
    os.chmod(made, 0o755)
    return made


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""  # a thread may end while it is looked at


class Process:
    """One that listens on the loopback interface, with those that it started."""

    running = []

    def __init__(self, command, port=None, place=None, **options):
        self.folder = place or folder()
        self.port = port
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **options)
        Process.running.append(self)
        self.pid = self.process.pid
        if port:
            self._wait_until_it_listens(command[0])

    def _wait_until_it_listens(self, name):
        for _ in range(200):
            try:
                return socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise Unmeasured(f"{name} does not listen")

    def stop(self, keep=False):
        if self in Process.running:
            Process.running.remove(self)
            os.kill(self.pid, signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def pids(self):
        return [self.pid, *map(int, read(f"/proc/{self.pid}/task/{self.pid}/children").split())]

    def status(self, name):
        """A figure of all its processes together; memory in KiB."""
        found = (re.search(rf"^{name}:\s*(\d+)", read(f"/proc/{pid}/status"), re.M) for pid in self.pids())
        return sum(int(match[1]) for match in found if match)

    def memory(self):
        """Bytes that are no file's. What processes share is counted once."""
        shared = (re.search(r"^RssShmem:\s*(\d+)", read(f"/proc/{pid}/status"), re.M) for pid in self.pids())
        return (self.status("RssAnon") + max(int(match[1]) for match in shared if match)) * 1024

    def _threads(self):
        return [f"/proc/{pid}/task/{thread}" for pid in self.pids() for thread in os.listdir(f"/proc/{pid}/task")]

    def cpu_secs(self):
        """On a processor, of all threads."""
        return sum(int((read(f"{thread}/schedstat").split() or [0])[0]) for thread in self._threads()) / 1e9

    def wakeups(self):
        """How often a thread has waited and was woken."""
        found = (re.search(r"^voluntary_ctxt_switches:\s*(\d+)", read(f"{thread}/status"), re.M) for thread in self._threads())
        return sum(int(match[1]) for match in found if match)

    def wakeups_in(self, secs):
        before = self.wakeups()
        time.sleep(secs)
        return self.wakeups() - before

    def system_calls_in(self, secs):
        if not shutil.which("strace"):
            return None
        log = os.path.join(self.folder, "calls")
        pids = [option for pid in self.pids() for option in ("-p", str(pid))]
        tracer = subprocess.Popen(["strace", "-qq", "-f", "-ttt", "-o", log, *pids], stderr=subprocess.DEVNULL)
        # Being traced interrupts the calls that wait: they are made again in the first second.
        time.sleep(1)
        first = time.time()
        time.sleep(secs)
        last = time.time()
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        begun = (line.split()[1] for line in read(log).splitlines() if "resumed>" not in line)
        return sum(first <= float(at) < last for at in begun)


def calls_in(log):
    """What `strace -c` counted: calls by name."""
    lines = (line.split() for line in read(log).splitlines() if re.match(r"\s*\d", line))
    return {line[-1]: int(line[3]) for line in lines if line[-1] != "total"}


class Gateway(Process):
    """An edgepush."""

    name = "edgepush"

    def __init__(self, program, before=(), place=None, **settings):
        place = place or folder()
        config = os.path.join(place, "edgepush.toml")
        with open(config, "w") as file:
            top = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items() if key == "durability"]
            limits = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items() if key != "durability"]
            file.write("".join([*top, LIMITS, *limits]))
        command = [*before, program, "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0", "--log", "warn"]
        command += ["--data", os.path.join(place, "data"), "--config", config]
        self.started = time.monotonic()
        super().__init__(command, place=place, stdout=subprocess.PIPE, text=True)
        ready = self.process.stdout.readline()
        found = re.search(r"push=http://127\.0\.0\.1:(\d+)", ready)
        if not found:
            self.stop()
            raise Unmeasured(f"edgepush is not ready: {ready!r}")
        self.port = int(found[1])
        # strace starts it as its child; valgrind is the process itself.
        self.pid = self.pids()[-1] if before else self.pid


class Load:
    """A run of `edgepush load`. What failed in any of them is kept in `failed`."""

    failed = []

    def __init__(self, program, gateway, *arguments):
        self.arguments = [str(argument) for argument in arguments]
        command = [program, "load", "--json", "--pid", str(gateway.pid), *self.arguments]
        command.append(f"ws://127.0.0.1:{gateway.port}/")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)

    def wait_until_connected(self):
        for line in self.process.stderr:
            found = re.search(r"(\d+) of (\d+) connected", line)
            if found and found[1] == found[2]:
                return
        raise Unmeasured("edgepush load did not connect")

    def report(self):
        out, told = self.process.communicate(timeout=300)
        try:
            report = json.loads(out)
        except ValueError:
            raise Unmeasured(f"edgepush load: {told.strip().splitlines()[-1:]}") from None
        if report["failed_checks"]:
            Load.failed.append(f"{' '.join(self.arguments)}: {json.dumps(report['failed_checks'])}")
        return report

    def end(self):
        """Before its time."""
        self.process.send_signal(signal.SIGINT)
        return self.report()
