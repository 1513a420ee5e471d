"""A headless Firefox with a profile of its own, driven over its Marionette protocol."""

import json
import os
import pathlib
import socket
import subprocess
import time

from child import Child

START_SECS = 60
QUIT_SECS = 20
SCRIPT_SECS = 30

# Nothing listens on port 9 of the loopback interface: what is sent there fails at once and goes nowhere.
NOWHERE_PORT = 9
NOWHERE_URL = f"http://127.0.0.1:{NOWHERE_PORT}/"

# Names are not looked up, and all but loopback traffic goes to a proxy that is not there, also that of the browser
# itself (failover_direct). The services that would only fail all the time are switched off as well.
SILENT_PREFS = {
    "network.proxy.type": 1,
    "network.proxy.socks": "127.0.0.1",
    "network.proxy.socks_port": NOWHERE_PORT,
    "network.proxy.failover_direct": False,
    "network.dns.disabled": True,
    "network.trr.mode": 5,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.manage-offline-status": False,
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "app.update.disabledForTesting": True,
    "app.shield.optoutstudies.enabled": False,
    "browser.region.network.url": "",
    "browser.region.update.enabled": False,
    "browser.safebrowsing.blockedURIs.enabled": False,
    "browser.safebrowsing.downloads.remote.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.safebrowsing.update.enabled": False,
    "browser.search.update": False,
    "browser.topsites.contile.enabled": False,
    "browser.newtabpage.enabled": False,
    "browser.newtabpage.activity-stream.feeds.system.topstories": False,
    "browser.aboutwelcome.enabled": False,
    "browser.startup.page": 0,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "datareporting.policy.dataSubmissionPolicyBypassNotification": True,
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.server": NOWHERE_URL,
    "extensions.update.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "extensions.blocklist.enabled": False,
    "extensions.getAddons.cache.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "geo.provider.network.url": NOWHERE_URL,
    "security.remote_settings.crlite_filters.enabled": False,
    "security.remote_settings.intermediates.enabled": False,
    "signon.firefoxRelay.feature": "disabled",
}

# Marionette's recommended preferences would switch the push connection off.
MARIONETTE_PREFS = {"remote.prefs.recommended": False, "marionette.port": 0}

# Only with the first of them does a released Firefox heed `services.settings.server`.
ENVIRONMENT = {"MOZ_REMOTE_SETTINGS_DEVTOOLS": "1", "MOZ_CRASHREPORTER_DISABLE": "1"}

PUSH_PREFS = {
    "dom.push.testing.allowInsecureServerURL": True,
    "dom.push.retryBaseInterval": 500,
    "dom.push.maxQuotaPerSubscription": 100_000,
    "permissions.default.desktop-notification": 1,
}


class Marionette:
    """A connection to Firefox's remote control: `length:[0, id, command, parameters]` there, `[1, id, error, result]` back."""

    def __init__(self, port):
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=SCRIPT_SECS + 10)
        self.last_id = 0
        self._receive()  # what Firefox says about itself
        self.command("WebDriver:NewSession", {})
        self.command("WebDriver:SetTimeouts", {"script": SCRIPT_SECS * 1000, "pageLoad": SCRIPT_SECS * 1000})

    def command(self, name, parameters):
        """Runs one command and returns its result."""
        self.last_id += 1
        message = json.dumps([0, self.last_id, name, parameters]).encode()
        self.stream.sendall(b"%d:%s" % (len(message), message))
        _, answered_id, error, result = self._receive()
        assert answered_id == self.last_id, f"{name}: answer {answered_id} instead of {self.last_id}"
        assert error is None, f"{name}: {error['error']}: {error['message']}"
        return result

    def _receive(self):
        length = b""
        while not length.endswith(b":"):
            length += self._receive_exactly(1)
        return json.loads(self._receive_exactly(int(length[:-1])))

    def _receive_exactly(self, size):
        received = b""
        while len(received) < size:
            part = self.stream.recv(size - len(received))
            assert part, "Firefox closed its Marionette connection"
            received += part
        return received


class Firefox(Child):
    """One user's Firefox: its profile outlives a stop and a start."""

    def __init__(self, program, directory):
        super().__init__(pathlib.Path(directory, "firefox.log"))
        self.program = program
        self.home = pathlib.Path(directory, "home")
        self.profile = self.home / "profile"
        self.profile.mkdir(parents=True)
        self.marionette = None

    def start(self, push_server_url, remote_settings_url):
        """Starts Firefox as a user agent of the push server and takes control of it.

        It looks for its remote settings where it is told to; nothing else but loopback is reached.
        """
        self._write_prefs({"dom.push.serverURL": push_server_url, "services.settings.server": remote_settings_url})
        port_file = self.profile / "MarionetteActivePort"
        port_file.unlink(missing_ok=True)
        command = [self.program, "--headless", "--no-remote", "--marionette", "--profile", self.profile]
        environment = {**os.environ, **ENVIRONMENT, "HOME": str(self.home)}
        self.spawn(command, stdout=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + START_SECS
        while not (port_file.exists() and port_file.read_text()):
            assert self.is_running, f"Firefox ended with status {self.process.returncode}"
            assert time.monotonic() < deadline, f"Firefox was not ready in {START_SECS} s"
            time.sleep(0.1)
        self.marionette = Marionette(int(port_file.read_text()))

    def _write_prefs(self, prefs):
        prefs = {**SILENT_PREFS, **MARIONETTE_PREFS, **PUSH_PREFS, **prefs}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in prefs.items()]
        (self.profile / "user.js").write_text("".join(lines))

    def stop(self):
        """Closes Firefox as its user would, so that it keeps what it knows."""
        self.marionette.command("Marionette:Quit", {"flags": ["eAttemptQuit"]})
        self.process.wait(QUIT_SECS)

    def open(self, url):
        """Loads a page."""
        self.marionette.command("WebDriver:Navigate", {"url": url})

    def call(self, function, *arguments):
        """Calls a function of the page that resolves to JSON text, and returns what that says."""
        return self._execute(f"return window.{function}(...arguments);", list(arguments))

    def run(self, script):
        """Runs the body of an asynchronous function in the page; it returns JSON text."""
        return self._execute(f"return (async () => {{ {script} }})();", [])

    def _execute(self, script, arguments):
        parameters = {"script": script, "args": arguments, "sandbox": None}
        return json.loads(self.marionette.command("WebDriver:ExecuteScript", parameters)["value"])
