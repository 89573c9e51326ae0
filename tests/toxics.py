"""A TCP way to a Redis that is slow, narrow, torn or dead: each way by itself, switched while connections live."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import itertools
import queue
import random
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from tests.proxy import REPLIES, REQUESTS, DropReplyProxy, Pair

WAYS = (REQUESTS, REPLIES)

# What waits on a line; more makes the sender wait, as a full socket buffer does.
_CHUNKS = 64
# Linux: a program that looks at each packet of a socket, here one that takes none of it.
_ATTACH_FILTER, _DETACH_FILTER = 26, 27
_TAKE_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)


@dataclass(frozen=True)
class Toxics:
    """What is wrong with one way; all at once where several are set.

    Attributes:
        latency_s: What each chunk is late by.
        jitter_s: By how much more or less, by chance; the order stays.
        bytes_per_s: What passes at most, on each connection; None = anything.
        slice_bytes: Pieces of 1 to so many bytes, by chance; None = as they came.
        slice_pause_s: Pause between two pieces.
        is_held: Nothing passes; it comes later, once this is switched off.
        swallows: Nothing passes, nor ever will on a connection from which something was swallowed.
        closes_after: (least, most) bytes after which a connection is reset, by chance; None = never.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    slice_bytes: int | None = None
    slice_pause_s: float = 0.0
    is_held: bool = False
    swallows: bool = False
    closes_after: tuple[int, int] | None = None


@dataclass
class Counts:
    """What came of one way, over all connections.

    Attributes:
        passed: Bytes.
        pieces: Writes that they were passed on in.
        late_s: Seconds that all chunks together were kept back.
        swallowed: Bytes.
        closed: Connections that were reset after so many bytes.
    """

    passed: int = 0
    pieces: int = 0
    late_s: float = 0.0
    swallowed: int = 0
    closed: int = 0


class ToxicProxy(DropReplyProxy):
    """Forwards everything until told otherwise.

    Args:
        socket_path: Where the server is.
        seed: Of all its chance.

    Attributes:
        counts: By way.
        connections: How many were made so far.
    """

    def __init__(self, socket_path, seed=0):
        self._seed, self.connections = seed, 0
        self.toxics = dict.fromkeys(WAYS, Toxics())
        self.counts = {way: Counts() for way in WAYS}
        super().__init__(socket_path)
        self._before = [0, 0]

    def set(self, *ways, **toxics):
        """Have these toxics and no others on these ways, both without any; for new connections and those that live."""
        self._before = self._totals()
        for way in ways or WAYS:
            self.toxics[way] = Toxics(**toxics)

    def _totals(self):
        return [sum(getattr(counts, name) for counts in self.counts.values()) for name in ("pieces", "passed")]

    def since_set(self):
        """Return in how many pieces, and bytes, have passed since the toxics were last set, both ways together."""
        return [now - then for now, then in zip(self._totals(), self._before, strict=True)]

    def drop_packets(self):
        """Let the kernel drop every packet that clients send, also those of new connections, and hold the replies.

        As a firewall that forgot the connections does: nobody is told, and what is sent is sent again and again.
        """
        self.toxics[REPLIES] = dataclasses.replace(self.toxics[REPLIES], is_held=True)
        for sock in self._sockets():
            _take_nothing(sock)

    def pass_packets(self):
        """Take packets again; what clients sent meanwhile arrives with the next that the kernel sends again."""
        for sock in self._sockets():
            with contextlib.suppress(OSError):  # made since, it has none
                sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
        self.toxics[REPLIES] = dataclasses.replace(self.toxics[REPLIES], is_held=False)

    def resent(self):
        """Return how often the kernel now sends anew what clients of the proxy have sent, all connections together."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(int(row[6], 16) for row in rows if int(row[2].rpartition(":")[2], 16) == self.port)

    def _sockets(self):
        with self._lock:
            return [self._listener, *(pair.client for pair in self._pairs)]

    def _pair(self, client, upstream):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the kernel glues pieces together
        pair = Pair(client, upstream)
        self.connections += 1
        pair.lines = {way: _Line(self, pair, way, f"{self._seed}:{self.connections}:{way}") for way in WAYS}
        for line in pair.lines.values():
            self._thread(line.run)
        return pair

    def _forward(self, pair, way, data):
        pair.lines[way].put(data)

    def _ended(self, pair, way):
        pair.lines[way].put(None)

    def _end(self, pair, **how):
        super()._end(pair, **how)
        for line in pair.lines.values():
            line.wake()


def _take_nothing(sock):
    program = ctypes.create_string_buffer(_TAKE_NOTHING)
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


class _Line:
    """One way of one connection: what was read waits here for its time."""

    def __init__(self, proxy, pair, way, seed):
        self._proxy, self._pair, self._way = proxy, pair, way
        self._target = pair.upstream if way == REQUESTS else pair.client
        self._waiting = queue.Queue(_CHUNKS)
        self._chance = random.Random(seed)
        self._counts = proxy.counts[way]
        self._is_dead = False
        self._limit, self._left = None, 0

    @property
    def _toxics(self):
        return self._proxy.toxics[self._way]

    def put(self, data):
        item = time.monotonic(), data
        while not self._pair.over.is_set():
            with contextlib.suppress(queue.Full):
                self._waiting.put(item, timeout=0.1)
                break

    def wake(self):
        with contextlib.suppress(queue.Full):  # then it has something to wake for
            self._waiting.put_nowait((0.0, None))

    def run(self):
        try:
            while not self._pair.over.is_set():
                at_s, data = self._waiting.get()
                if data is None:
                    break
                self._pass(at_s, data)
        except OSError:
            pass
        self._proxy._end(self._pair)

    def _pass(self, at_s, data):
        toxics = self._toxics
        late_s = toxics.latency_s + self._chance.uniform(-toxics.jitter_s, toxics.jitter_s)
        self._wait(at_s + late_s - time.monotonic())
        while self._toxics.is_held and not self._pair.over.is_set():
            self._wait(0.01)
        toxics = self._toxics  # it may have been switched meanwhile
        if toxics.swallows or self._is_dead:
            self._is_dead = True
            self._count(swallowed=len(data))
            return
        allowed = self._allowed(toxics, len(data))
        for piece in self._pieces(data[:allowed], toxics):
            if toxics.bytes_per_s:
                self._wait(len(piece) / toxics.bytes_per_s)
            self._target.sendall(piece)
            self._count(passed=len(piece), pieces=1)
            self._wait(toxics.slice_pause_s)
        if allowed < len(data):
            self._count(closed=1)
            raise OSError("closed after its bytes")

    def _allowed(self, toxics, size):
        """Return how many of so many bytes may pass; fewer only at the end of the connection."""
        if toxics.closes_after is None:
            return size
        if self._limit is not toxics:
            self._limit, self._left = toxics, self._chance.randint(*toxics.closes_after)
        allowed = min(size, self._left)
        self._left -= allowed
        return allowed

    def _pieces(self, data, toxics):
        if not toxics.slice_bytes and not toxics.bytes_per_s:
            return [data] if data else []
        most = toxics.slice_bytes or max(1, int(toxics.bytes_per_s / 50))
        sizes = iter(lambda: self._chance.randint(1, most) if toxics.slice_bytes else most, 0)
        ends = itertools.accumulate(sizes)
        cuts = [0, *itertools.takewhile(lambda end: end < len(data), ends), len(data)]
        return [data[one:end] for one, end in itertools.pairwise(cuts) if end > one]

    def _wait(self, seconds):
        if seconds > 0:
            self._pair.over.wait(seconds)
            self._count(late_s=seconds)

    def _count(self, **more):
        with self._proxy._lock:
            for name, value in more.items():
                setattr(self._counts, name, getattr(self._counts, name) + value)
