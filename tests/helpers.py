"""What tests share: waiting for facts, real workers, and the state of a queue to set up and to compare."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import variable_of
from streamwork.ids import new_task_id, random_id
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.wire.codec import pack
from streamwork.wire.message import (
    FIRST_ATTEMPT,
    NO_OPTIONS,
    decode_dead_letter,
    decode_journal,
    decode_result,
    encode_attempt,
    encode_message,
)

ROOT = Path(__file__).resolve().parent.parent
_POLL_S = 0.01


def wait_until(predicate, what, within_s=10.0):
    """Wait until the predicate answers something true, and return that; else fail with `what`, a text or a callable."""
    give_up_at = time.monotonic() + within_s
    while not (found := predicate()):
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {within_s:g} s: {what() if callable(what) else what}")
        time.sleep(_POLL_S)
    return found


async def await_until(predicate, what, within_s=10.0):
    """Wait on the loop until the predicate (plain or async) answers something true, and return that."""
    give_up_at = time.monotonic() + within_s
    while True:
        found = predicate()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {within_s:g} s: {what() if callable(what) else what}")
        await asyncio.sleep(_POLL_S)


class WorkerProcess:
    """A worker daemon in a session of its own, its output in `log`.

    Args:
        app: ``package.module:attribute``; importable from the project's root.
        namespace: Reaches the app module as STREAMWORK_TEST_NAMESPACE.
        redis_url: The Redis it uses.
        folder: Working folder; log, embedded data and spool go there.
        settings: Dotted names to values, passed as variables.
        args: Further arguments of `streamwork worker`, such as ``"--burst"``.
        environ: Further variables.
        ready: Wait for the line that says so.
        without: Guards (tests/faults/guards.py) that it lacks.
        command: ``worker`` or ``scheduler``.
    """

    def __init__(
        self, app, *, namespace, redis_url, folder, settings=None, args=(), environ=None, ready=True, without=(),
        command="worker",
    ):  # fmt: skip
        self.log = Path(folder) / f"worker-{random_id(32)}.log"
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",
            "STREAMWORK_URL": redis_url,
            "STREAMWORK_TEST_NAMESPACE": namespace,
            **{variable_of(name): _text(value) for name, value in (settings or {}).items()},
            **(environ or {}),
        }
        program = ["tests.faults.unguarded", ",".join(without)] if without else ["streamwork"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *program, command, "--app", app, *args],
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if ready:
            self.until(f"{command} ready")

    @property
    def pid(self):
        """The supervisor."""
        return self.process.pid

    @property
    def children(self):
        """Pids of its worker processes."""
        found = []
        with contextlib.suppress(FileNotFoundError):  # the supervisor is gone
            for task in Path(f"/proc/{self.pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # a thread that has just ended
                    found += [int(pid) for pid in task.read_text().split()]
        return found

    def text(self):
        """Return its output so far."""
        return self.log.read_text(errors="replace")

    def until(self, words, within_s=20.0):
        """Wait until its output holds these words; fails at once when it ended before."""

        def look():
            is_over = self.process.poll() is not None
            if words in self.text():
                return True
            assert not is_over, f"worker ended with {self.process.returncode} before {words!r}:\n{self.text()}"
            return False

        wait_until(look, lambda: f"{words!r} in the worker's output:\n{self.text()}", within_s)

    def signal(self, number=signal.SIGTERM):
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def kill(self):
        """SIGKILL supervisor and processes, as a machine that loses power does."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def wait(self, within_s=20.0):
        """Return its exit status; fails, with its output, when it does not end."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"worker did not end within {within_s:g} s:\n{self.text()}") from None

    def end(self):
        """Kill whatever is left of it."""
        if self.process.poll() is None:
            self.kill()
        else:
            try:
                os.killpg(self.pid, signal.SIGKILL)  # a child that outlived its supervisor
            except ProcessLookupError:
                pass


def _text(value):
    return ",".join(value) if isinstance(value, (list, tuple, set)) else str(value)


def body_of(task, *args, task_id=None, options=NO_OPTIONS, reply_to=None, **kwargs):
    """Return (task id, body) of a task message, as an app would send it."""
    task_id = task_id or new_task_id()
    return task_id, encode_message(task_id, task, pack(list(args)), pack(kwargs) if kwargs else None, options, reply_to)


def seed(driver, keys, *bodies, lane="1:", due_at_ms=None, attempt=FIRST_ATTEMPT):
    """Put bodies on a lane, or into due for an instant; returns the entry ids, [] for due.

    A body is bytes, or (task id, bytes) as `body_of` gives it; due needs the id.
    """
    if due_at_ms is None:
        chunk = [body[1] if isinstance(body, tuple) else body for body in bodies]
        items = [part for body in chunk for part in (1, body)]
        return driver.run(scripts.enqueue(keys, random_id(), 1, [lane], items, SYSTEM_CLOCK.now_ms(), 64))
    for task_id, body in bodies:
        record = b"%b\n%b\n%b" % (lane.encode(), encode_attempt(attempt).encode(), body)
        driver.run(plain("HSET", keys.due_body, task_id, record))
        driver.run(plain("ZADD", keys.due, due_at_ms, task_id))
    return []


class QueueState(NamedTuple):
    """Everything in a queue, as plain values."""

    lanes: dict[str, list[tuple[str, dict[str, bytes]]]]
    pending: dict[str, dict[str, tuple[str, int]]]
    due: dict[str, int]
    due_body: dict[str, bytes]
    dead: dict[str, object]
    results: dict[str, object]
    moved: dict[str, str]
    suspects: dict[str, str]
    cancelled: dict[str, str]
    journal: list[object]
    counts: dict[str, int]
    added: dict[str, int]
    settled: dict[str, int]
    low: dict[str, str]
    returned: set[str]
    consumers: set[str]

    @property
    def in_flight(self):
        """Entries that some consumer has, all lanes together."""
        return sum(map(len, self.pending.values()))

    @property
    def undelivered(self):
        """Entries that nobody has read: added − settled − in flight."""
        return sum(self.added.values()) - sum(self.settled.values()) - self.in_flight

    @property
    def backlog(self):
        """What is still to do: undelivered, due and in flight."""
        return self.undelivered + len(self.due) + self.in_flight


def state_of(driver, keys):
    """Return everything in a queue."""
    lanes = sorted(name.decode() for name in driver.run(plain("HKEYS", keys.lanes)))
    dead = _hash(driver, keys.dead_body)
    found = [key.decode() for key in driver.run(plain("KEYS", _literally(keys.result_prefix) + "*"))]
    results = {key[len(keys.result_prefix) :]: driver.run(plain("GET", key)) for key in found}
    return QueueState(
        lanes={lane: _entries(driver, keys.lane(lane)) for lane in lanes},
        pending={lane: _pending(driver, keys.lane(lane)) for lane in lanes},
        due=_scores(driver, keys.due),
        due_body=_hash(driver, keys.due_body),
        dead={task_id: decode_dead_letter(letter) for task_id, letter in dead.items()},
        results={task_id: decode_result(record) for task_id, record in results.items() if record is not None},
        moved=_texts(driver, keys.moved),
        suspects=_texts(driver, keys.suspects),
        cancelled=_texts(driver, keys.cancelled),
        journal=[decode_journal(fields[1]) for _, fields in driver.run(plain("XRANGE", keys.journal, "-", "+"))],
        counts=_numbers(driver, keys.counts),
        added=_numbers(driver, keys.added),
        settled=_numbers(driver, keys.settled),
        low=_texts(driver, keys.low),
        returned={lane.decode() for lane in driver.run(plain("SMEMBERS", keys.returned))},
        consumers={name.decode() for name in driver.run(plain("HKEYS", keys.consumers))},
    )


def _literally(text):
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _entries(driver, stream):
    rows = driver.run(plain("XRANGE", stream, "-", "+"))
    return [
        (entry.decode(), dict(zip((f.decode(errors="replace") for f in fields[::2]), fields[1::2], strict=True)))
        for entry, fields in rows
    ]


def _pending(driver, stream):
    rows = driver.run(plain("XPENDING", stream, "workers", "-", "+", 10_000))
    return {entry.decode(): (consumer.decode(), count) for entry, consumer, _, count in rows}


def _scores(driver, key):
    flat = driver.run(plain("ZRANGE", key, 0, -1, "WITHSCORES"))
    return {name.decode(): int(float(score)) for name, score in zip(flat[::2], flat[1::2], strict=True)}


def _hash(driver, key):
    flat = driver.run(plain("HGETALL", key))
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _texts(driver, key):
    return {name: value.decode() for name, value in _hash(driver, key).items()}


def _numbers(driver, key):
    return {name: int(value) for name, value in _hash(driver, key).items()}
