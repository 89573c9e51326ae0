"""A TCP way to a Redis behind a unix socket that loses replies, swallows requests or cuts connections when told."""

from __future__ import annotations

import socket
import struct
import threading

import hiredis

_NOW = struct.pack("ii", 1, 0)

# The two ways of a connection.
REQUESTS, REPLIES = "requests", "replies"


class DropReplyProxy:
    """Forwards everything until told otherwise; requests are counted over all connections.

    Args:
        socket_path: Where the server is.

    Attributes:
        seen: Requests that the rule in force has matched.
        dropped: Connections that were cut for it.
    """

    def __init__(self, socket_path):
        self._path = socket_path
        self._lock = threading.Lock()
        self._pairs = set()
        self._rule = None
        self._is_cutting = True
        self.seen = self.dropped = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.where = f"127.0.0.1:{self.port}"
        self._thread(self._accept)

    @property
    def url(self):
        """What `Endpoint` takes."""
        return f"redis://{self.where}/0"

    def lose_reply(self, matches, *nth):
        """Let the server run the nth requests (1 = next) that match, and cut the connection instead of answering."""
        with self._lock:
            self._rule = (matches, set(nth), "reply")
            self.seen = self.dropped = 0

    def lose_request(self, matches, *nth):
        """Cut the connection instead of passing the nth matching request on."""
        with self._lock:
            self._rule = (matches, set(nth), "request")
            self.seen = self.dropped = 0

    def cut(self, *, is_orderly=False):
        """Reset every connection, or end it in order, as a server that stops does."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair, is_orderly=is_orderly)

    def stall(self):
        """Swallow what the connections of now carry, both ways, as a firewall that forgot them does; new ones work."""
        with self._lock:
            for pair in self._pairs:
                pair.is_stalled = True

    def close(self):
        """Reset every connection and listen no more."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept, which would take one more connection
        except OSError:
            pass
        self._listener.close()
        self.cut()

    @staticmethod
    def _thread(target, *args):
        threading.Thread(target=target, args=args, name="drop-reply-proxy", daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX)
            try:
                upstream.connect(self._path)
            except OSError:
                upstream.close()
                client.close()
                continue
            pair = self._pair(client, upstream)
            with self._lock:
                self._pairs.add(pair)
            self._thread(self._requests, pair)
            self._thread(self._replies, pair)

    def _pair(self, client, upstream):
        return Pair(client, upstream)

    def _forward(self, pair, way, data):
        (pair.upstream if way == REQUESTS else pair.client).sendall(data)

    def _ended(self, pair, way):
        """Nothing more comes this way."""
        self._end(pair)

    def _requests(self, pair):
        reader = hiredis.Reader()
        try:
            while data := pair.client.recv(1 << 16):
                if pair.is_stalled:
                    continue
                reader.feed(data)
                while (request := reader.gets()) is not False:
                    pair.sent += 1
                    # What comes behind one whose reply will be cut off ends with it, and counts on its next connection.
                    what = None if pair.cut_at is not None else self._match(request)
                    if what == "reply":
                        pair.cut_at = pair.sent
                    elif what == "request":
                        self._end(pair, is_drop=True)
                        return
                self._forward(pair, REQUESTS, data)
        except OSError:
            pass
        self._ended(pair, REQUESTS)

    def _match(self, request):
        with self._lock:
            if self._rule is None or not self._rule[0](request):
                return None
            self.seen += 1
            return self._rule[2] if self.seen in self._rule[1] else None

    def _replies(self, pair):
        reader = hiredis.Reader()
        try:
            while data := pair.upstream.recv(1 << 16):
                if pair.is_stalled:
                    continue
                reader.feed(data)
                while reader.gets() is not False:
                    pair.answered += 1
                if pair.cut_at is not None and pair.answered >= pair.cut_at:
                    self._end(pair, is_drop=True)
                    return
                self._forward(pair, REPLIES, data)
        except OSError:
            pass
        self._ended(pair, REPLIES)

    def _end(self, pair, *, is_drop=False, is_orderly=False):
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
            self.dropped += is_drop
        pair.over.set()
        try:
            if not is_orderly:
                pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
            # Both ways would send an orderly end before the reset; so much wakes the thread that reads there.
            pair.client.shutdown(socket.SHUT_RDWR if is_orderly else socket.SHUT_RD)
        except OSError:
            pass
        try:
            pair.upstream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        for end in (pair.client, pair.upstream):
            end.close()


class Pair:
    """One connection: its client's end, and the way on to the server.

    Attributes:
        over: Set once it was cut or has ended.
    """

    def __init__(self, client, upstream):
        self.client = client
        self.upstream = upstream
        self.over = threading.Event()
        self.sent = self.answered = 0
        self.cut_at = None
        self.is_stalled = False


def is_script(script):
    """Return what matches the EVALSHA of a script."""
    sha = script.sha.encode()
    return lambda request: len(request) > 1 and request[0] == b"EVALSHA" and request[1] == sha
