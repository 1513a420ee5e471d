"""A connection that can be cut: a relay in front of a gateway, on a port of its own."""

import socket
import threading

CHUNK_BYTES = 65_536


class Link:
    """Passes on all that is said to its port, and the answers; while it is cut, connections end at once."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:{}".format(self.listener.getsockname()[1])
        self.target = None
        self.whole = True
        self.lock = threading.Lock()
        self.sockets = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Ends all connections and lets nobody through."""
        with self.lock:
            self.whole = False
            for end in self.sockets:
                end.close_both()

    def restore(self):
        """Lets connections through again."""
        with self.lock:
            self.whole = True

    def _accept(self):
        while True:
            near, _ = self.listener.accept()
            with self.lock:
                whole = self.whole
            try:
                if not whole:
                    raise OSError
                host, port = self.target.split(":")
                far = socket.create_connection((host, int(port)))
            except OSError:
                near.close()
                continue
            pair = Pair(near, far)
            with self.lock:
                self.sockets.add(pair)
            pair.start()


class Pair:
    """One connection, both of its halves."""

    def __init__(self, near, far):
        self.near = near
        self.far = far

    def start(self):
        """Passes on what comes, each way on a thread of its own."""
        for source, sink in ((self.near, self.far), (self.far, self.near)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def close_both(self):
        """Ends it."""
        for half in (self.near, self.far):
            try:
                half.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself

    def _pass_on(self, source, sink):
        try:
            while chunk := source.recv(CHUNK_BYTES):
                sink.sendall(chunk)
        except OSError:
            pass  # cut, or one side is gone
        self.close_both()
