"""The world of one schedule: one server, a few supervisors, processes and clients, and a clock that only steps move."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import deque

from streamwork.context import Context  # noqa: F401 - imported before the first clock is patched
from streamwork.errors import Reject, Skip
from streamwork.store import healing, scripts
from streamwork.store.commands import plain
from tests.model.client import BODIES, IDS, Client
from tests.model.driver import Greeting
from tests.model.host import Host
from tests.model.loop import ModelLoop, Thread
from tests.model.parts import AUDIT_MS, CONFIG
from tests.model.patching import NOW
from tests.model.process import Process
from tests.model.promises import Promises
from tests.model.server import KEYS, ModelServer

BEGIN_MS = 1_700_000_000_000
_SERVER = ModelServer()


class World(Promises):
    """Everything of one schedule.

    Args:
        shape: What there is, see `schedule.Shape`.

    Attributes:
        broken: What is wrong, or None.
    """

    errors = {"F": Reject("no"), "R": RuntimeError("again"), "K": Skip("no need")}

    def __init__(self, shape):
        self.shape = shape
        self.steady_ms, self.wall_ms, self.skew_ms = 1_000_000, BEGIN_MS, 0
        self.broken = None
        self.drivers, self.current, self.threads = {}, None, []
        self.entries, self.last_sent, self.outside_kills = {}, {}, 0
        self.files, self.spooled = [], 0
        self._numbers = self._clients = 0
        self.run_id = "server-0"
        self.loop = ModelLoop(self)
        NOW.world = self
        asyncio._set_running_loop(self.loop)
        self.server = _SERVER
        self.server.reset(BEGIN_MS, shape.version)
        self.server.watch(shape.exact_trim)
        for task_id in IDS[: shape.messages]:
            self.server.expect(task_id, BODIES[task_id])
        self.sent = 0
        self.hosts = [Host(self, number + 1) for number in range(shape.hosts)]
        self.processes = []
        self.clients = [Client(self, f"p{number + 1}") for number in range(shape.clients)]
        self._begin()

    def _begin(self):
        shape = self.shape
        if shape.is_prepared:
            for lane in shape.lanes:
                self.server.execute(healing.heal(KEYS, lane, BEGIN_MS))
        for host in self.hosts:
            for tags in shape.tags[host.name_here]:
                process = Process(self, host, self.number(), tags)
                self.server.execute(scripts.register(KEYS, process.name, b"{}", CONFIG.liveness.ttl_ms))
                self.processes.append(process)
                host.begin_with(process)
        for host in self.hosts:
            if shape.is_prepared:
                host.queue.lanes = sorted(shape.lanes)
                host.cursor = self._newest_signal()
            for process in host.processes:
                process.lanes_changed(KEYS.queue, host.queue.lanes, len(self.processes))
                process.begin()

    def _newest_signal(self):
        rows = self.server.execute(plain("XREVRANGE", KEYS.control, "+", "-", "COUNT", 1))
        return rows[0][0] if rows else b"0-0"

    def may_audit(self, process):
        """Whether the time has come for its next audit; one follows the other's end."""
        return self.steady_ms - process.audited_ms >= AUDIT_MS

    def number(self):
        """Return a number that nothing else in this world has."""
        self._numbers += 1
        return self._numbers

    def greet(self, driver):
        """Let a connection know its server."""
        self._clients += 1
        return Greeting(self.run_id, self._clients)

    def spawn(self, party, coroutine, name):
        """Step a coroutine of a party from now on."""
        thread = Thread(party, coroutine, name)
        if party.is_dead:
            coroutine.close()
            return thread
        self.threads.append(thread)
        before = self.current
        thread.resume()
        self.current = before
        return thread

    def new_host(self):
        """Start one more worker, as someone does when all have gone."""
        host = Host(self, len(self.hosts) + 1)
        host.cursor = None
        self.hosts.append(host)
        return host

    def close(self):
        """Let go of all that still waits."""
        for process in self.processes:
            process.recycle()
        for thread in self.threads:
            if not thread.is_done:
                with contextlib.suppress(RuntimeError):  # it would wait for something on its way out
                    thread.coroutine.close()
        for party in (*self.hosts, *self.processes, *self.clients):
            party.tear()
        self.drivers, self.threads, self.current = {}, [], None
        self.loop.timers, self.loop.ready = [], deque()
        NOW.closed += 1
        if NOW.closed % 2_000 == 0:
            gc.collect()

    # The server.

    def run(self, command):
        """Execute a command and see what it wakes; its raw reply."""
        self.steady_ms += 1
        self.wall_ms += 1
        self.server.now_ms = self.wall_ms
        args = command.args
        if args[0] == "CLIENT":
            return self._unblock(args[2])
        reply = self.server.execute(command)
        if command.script in _WAKING:
            self.wake_blocked()
        return reply

    def wake_blocked(self):
        """Let blocked reads look again."""
        for driver in self.drivers.values():
            if driver.is_blocked:
                reply = self.server.execute(driver.sent[0].commands[0])
                if reply is not None:
                    self.unblock(driver, reply)

    def unblock(self, driver, reply):
        """Answer a blocked read; it is heard in a later step."""
        op = driver.sent.popleft()
        op.replies.append(reply)
        driver.is_blocked = False
        if not driver.is_orphan:
            driver.answered.append(op)

    def _unblock(self, client_id):
        for driver in self.drivers.values():
            if driver.greeting.client_id == client_id and driver.is_blocked:
                self.unblock(driver, None)
                return 1
        return 0

    def execute(self, driver, most=100):
        """Execute what a connection has sent first; False where it has nothing that could be."""
        if not driver.sent or driver.is_blocked:
            return False
        op = driver.sent[0]
        if not op.commands:
            driver.sent.popleft()
            if not driver.is_orphan:
                driver.greeting, driver.is_connected = self.greet(driver), True
                op.thread.resume()
            return True
        for command in op.commands[len(op.replies) : len(op.replies) + most]:
            reply = self.run(command)
            if reply is None and op.block_ms is not None:
                driver.is_blocked, op.until_ms = True, self.steady_ms + op.block_ms
                return True
            op.replies.append(reply)
        if op.is_done:
            driver.sent.popleft()
            if not driver.is_orphan:
                driver.answered.append(op)
        return True

    def deliver(self, driver):
        """Let the oldest answer of a connection be heard."""
        if not driver.answered:
            return False
        op = driver.answered.popleft()
        op.thread.resume(op.replies)
        return True

    def restart_server(self):
        """A server that kept its data: every connection breaks, the process is another one."""
        self.run_id = f"server-{self.number()}"
        for driver in list(self.drivers.values()):
            driver.lose()
        for host in self.hosts:
            host.cursor = None

    # Time.

    def advance(self, ms):
        """Let time pass; what waits for it goes on."""
        self.steady_ms += ms
        self.wall_ms += ms
        self.server.now_ms = self.wall_ms
        for driver in self.drivers.values():
            if driver.is_blocked and driver.sent[0].until_ms <= self.steady_ms:
                self.unblock(driver, None)
        for party in (*self.hosts, *self.processes, *self.clients):
            if not party.is_dead and not party.is_paused:
                for driver in party.drivers:
                    if driver.is_late(self.steady_ms):
                        driver.lose()
        self.loop.fire()


_WAKING = frozenset({scripts.ENQUEUE, scripts.PROMOTE})
