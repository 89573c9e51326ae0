"""A driver with the interface of `AsyncDriver` whose requests wait until the scheduler lets them go on.

Requests of one connection are executed in the order in which they were sent, and answered in it too.
"""

from __future__ import annotations

from collections import deque

import hiredis
import redis

from streamwork.errors import StoreError, StoreUnavailable
from streamwork.store.commands import RAISE
from streamwork.store.failures import NoGroup, translated


class Op:
    """Requests on their way: what `await` in the product hands to the scheduler."""

    __slots__ = ("block_ms", "by_ms", "commands", "driver", "replies", "thread", "until_ms")

    def __init__(self, driver, commands):
        self.driver = driver
        self.commands = commands
        self.replies = []
        self.thread = None
        self.by_ms = driver.world.steady_ms + driver.deadline_ms
        self.until_ms = None
        self.block_ms = None
        if len(commands) == 1:
            args = commands[0].args
            if args[0] == "XREADGROUP" and args[6] == "BLOCK":
                self.block_ms = args[7]

    def __await__(self):
        return (yield self)

    @property
    def is_done(self):
        """Whether every request was executed."""
        return len(self.replies) == len(self.commands)


class Greeting:
    """What a connection learned of its server."""

    __slots__ = ("client_id", "run_id")

    def __init__(self, run_id, client_id):
        self.run_id = run_id
        self.client_id = client_id


class ModelDriver:
    """One connection of a model process.

    Attributes:
        sent: Requests that the server has not executed, oldest first.
        answered: Executed ones whose answers nobody has heard yet.
        is_blocked: The oldest one waits at the server for an entry.
        is_orphan: Nobody hears its answers any more; what was sent may still be executed.
    """

    def __init__(self, world, name, deadline_ms):
        self.world = world
        self.deadline_ms = deadline_ms
        self.name = name
        self.sent = deque()
        self.answered = deque()
        self.is_blocked = self.is_orphan = False
        self.greeting = world.greet(self)
        self.is_connected = True

    @property
    def run_id(self):
        """The server process that it talks to."""
        return self.greeting.run_id

    async def connect(self):
        """Connect, unless that is done."""
        if not self.is_connected:
            await Op(self, ())

    async def run(self, command):
        """Send one command and return its answer."""
        if not self.is_connected:
            await Op(self, ())
        (reply,) = await Op(self, (command,))
        return self._answer(command, reply)

    async def run_all(self, commands):
        """Send commands in one round trip."""
        if not self.is_connected:
            await Op(self, ())
        commands = tuple(commands)
        if not commands:
            return []
        replies = await Op(self, commands)
        return [self._answer(command, reply) for command, reply in zip(commands, replies, strict=True)]

    def _answer(self, command, reply):
        if reply.__class__ is hiredis.ReplyError:
            failure = translated(redis.ResponseError(str(reply)), "the model")
            if isinstance(failure, NoGroup) and command.if_gone is not RAISE:
                return command.if_gone
            raise failure
        return command.read(reply)

    def lose(self):
        """The connection breaks: whoever waits for an answer is told so."""
        waiting = [op.thread for op in (*self.answered, *self.sent)]
        self.sent.clear()
        self.answered.clear()
        self.is_blocked = self.is_connected = False
        if not self.is_orphan:
            for thread in waiting:
                thread.throw(StoreUnavailable("the model broke the connection", maybe_executed=True))

    def is_late(self, now_ms):
        """Whether the oldest request waits for longer than its deadline."""
        oldest = self.answered[0] if self.answered else self.sent[0] if self.sent else None
        return oldest is not None and oldest.by_ms < now_ms

    async def close(self):
        """Nothing to do."""


__all__ = ["ModelDriver", "Op", "StoreError"]
