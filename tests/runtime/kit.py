"""The parts of one worker process without Redis: a runner, deliveries made by hand, and what was settled."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from types import SimpleNamespace
from typing import NamedTuple

import psutil

from streamwork import Streamwork
from streamwork.clock import SYSTEM_CLOCK
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import (
    NO_OPTIONS,
    decode_attempt,
    decode_dead_letter,
    decode_failure,
    decode_journal,
    decode_message,
    decode_result,
    encode_attempt,
)
from streamwork.worker.consumer import Consumer
from streamwork.worker.delivery import LaneSide, QueueSide, Run
from streamwork.worker.runner import Runner
from streamwork.worker.slot_table import SlotTable
from tests.helpers import body_of

# Nothing listens there, and nothing in these tests connects.
NOWHERE = "redis://127.0.0.1:1/0"


class Ended(NamedTuple):
    """One outcome, read back: the letter of its end, its state, and what it carries by kind of end."""

    op: str
    state: str
    value: object = None
    failure: object = None
    letter: object = None
    attempt: object = None
    run_at_ms: int = 0


class Bench:
    """What the executors of one process need, and what came of the deliveries given to them."""

    def __init__(self, slots=4):
        self.app = Streamwork("runtime", NOWHERE)
        self.table = SlotTable(slots)
        self.settled = []
        self.freed = []
        self.runner = Runner(self.app.tasks, self.table, lambda run, item: self.settled.append((run, item)))
        self.numbers = deque(range(slots))
        self.queue = QueueSide(QueueKeys("runtime", "default"), 0)
        self.lane = LaneSide(self.queue, "1:")
        self._entries = 0

    def free(self, run):
        """What the worker does when a delivery left its slot."""
        if run.slot >= 0:
            self.table.clear(run.slot)
            self.numbers.append(run.slot)
        self.freed.append(run)

    def delivery(self, task, *args, attempt=None, options=NO_OPTIONS, reply_to=None, **kwargs):
        """Return a delivery as a read gives it; `task` is one of the app's, or a name."""
        name = task if isinstance(task, str) else task.name
        _, body = body_of(name, *args, options=options, reply_to=reply_to, **kwargs)
        fields = [b"d", body] if attempt is None else [b"d", body, b"a", encode_attempt(attempt).encode()]
        return self.raw(fields)

    def raw(self, fields):
        """Return a delivery with any fields."""
        self._entries += 1
        return Run(self.lane, b"%d-0" % self._entries, fields, "consumer", "server")

    def admitted(self, task, *args, **options):
        """Return a delivery that has passed decode and admit."""
        run = self.delivery(task, *args, **options)
        assert self.runner.decode(run)
        assert self.runner.admit(run)
        return run

    def ends(self):
        """Return the outcomes so far, read back."""
        return [self.read(item) for _, item in self.settled]

    def end_of(self, run):
        """Return the one outcome of a delivery, or None."""
        found = [item for other, item in self.settled if other is run]
        assert len(found) <= 1
        return self.read(found[0]) if found else None

    @staticmethod
    def read(item):
        """Read an outcome back, as Redis and the waiting client would."""
        state = decode_journal(item.journal).state
        if item.op[0] == "R":
            lane, attempt, body = item.rest[1].split(b"\n", 2)
            assert lane.decode() == item.lane
            return Ended(item.op, state, decode_message(body), None, None, decode_attempt(attempt), item.rest[0])
        result = decode_result(item.rest[0])
        assert result.state == state
        if item.op[0] == "D":
            letter = decode_dead_letter(item.rest[3])
            return Ended(item.op, state, None, decode_failure(result.payload), letter)
        return Ended(item.op, state, result.payload)


class FakeMember:
    """A consumer that only remembers what it was told."""

    def __init__(self, name):
        self.name = name
        self.claimed_at_ms = 0
        self.told = []

    def beaten(self, at_ms):
        self.told.append("beaten")

    def fenced(self):
        self.told.append("fenced")

    def lanes_changed(self, queue, lanes, fleet):
        self.told.append(("lanes", queue, tuple(lanes), fleet))

    def paused_changed(self, queue, marks):
        self.told.append(("paused", queue, tuple(marks)))

    def lane_returned(self, queue, lane):
        self.told.append(("returned", queue, lane))

    def cancel_asked(self, queue, task_ids):
        self.told.append(("cancel", queue, tuple(task_ids)))

    def terminate_asked(self, queue, task_ids):
        self.told.append(("terminate", queue, tuple(task_ids)))


def with_reader(connected, keys, main, *lanes, slots=4, consumer=Consumer):
    """Run `main` with a reader named ``me`` of these lanes, which takes and never ends anything.

    Args:
        connected: Makes a driver for the running loop.
        keys: The queue.
        main: Awaited with the reader, what it has taken, the queue's side, and how to start its loop.
        lanes: What it reads, highest first.
        slots: How many it takes.
        consumer: The class, where a test has another one than the product's.
    """

    async def all_of_it():
        drivers = [connected(), connected()]
        side = QueueSide(keys, 0)
        side.set_lanes(list(lanes))
        table, taken = SlotTable(slots), []
        table.beat_at_ms = SYSTEM_CLOCK.steady_ms() + 60_000
        reader = consumer("me", [side], *drivers, table, lambda: slots - len(taken), taken.append)
        loop = None

        def start():
            nonlocal loop
            loop = asyncio.create_task(reader.run())
            return loop

        try:
            await asyncio.gather(*(driver.connect() for driver in drivers))
            await main(SimpleNamespace(reader=reader, taken=taken, side=side, start=start))
        finally:
            if loop is not None:
                loop.cancel()
                await asyncio.wait({loop})
            for driver in drivers:
                await driver.close()
            table.close()

    asyncio.run(all_of_it())


def pool_pids(of=None):
    """Return the living pool processes of this process, or of the one with that pid."""
    return {one.pid for one in psutil.Process(of).children() if _is_of_a_pool(one)}


def _is_of_a_pool(process):
    with contextlib.suppress(psutil.Error):
        return "spawn_main" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
    return False
