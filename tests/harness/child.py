"""A child process with a log file, which is ended together with all that it started."""

import os
import signal
import subprocess

LOG_LINES_MAX = 60


class Child:
    """A program that can be started again and again; its standard error goes to one log."""

    def __init__(self, log):
        self.log = log
        self.log.touch()
        self.process = None

    def spawn(self, command, **options):
        """Starts the program as the leader of a process group of its own."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, start_new_session=True, **options)

    @property
    def is_running(self):
        """Whether the process is there and has not ended."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        """Sends a signal to the process and to all that it started."""
        os.killpg(self.process.pid, number)

    def kill(self):
        """Takes the process away as a power cut would; nothing happens if there is none."""
        if self.is_running:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def print_log(self):
        """Prints the end of the log as comments."""
        print(f"# the end of {self.log.name}:")
        for line in self.log.read_text(errors="replace").splitlines()[-LOG_LINES_MAX:]:
            print(f"# {line}")
