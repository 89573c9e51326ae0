"""Fixtures of the system tests: real workers with a short liveness, notes of what ran where, a Redis to hurt."""

from __future__ import annotations

import os
import signal

import pytest

from streamwork.config import redis_for_tests
from streamwork.store.keys import QueueKeys
from streamwork.testing.server import PrivateServer
from tests.helpers import state_of
from tests.system.kit import TTL_S, Notes
from tests.system.planning import Planned


@pytest.fixture
def notes(tmp_path):
    """Where tasks note their runs."""
    return Notes(tmp_path / "notes.txt")


@pytest.fixture
def keys(namespace):
    """The keys of the queue `default`."""
    return QueueKeys(namespace, "default")


@pytest.fixture
def send(app):
    """Send a call of another app's task in this test's namespace: send(task, *args, **options of the message)."""

    def declared(task):
        known = app.tasks.get(task.name)
        if known is not None:
            return known
        more = {} if task.is_async else {"executor": task.executor}
        return app.task(name=task.name, queue=task.queue, tags=task.tags, priority=task.priority, **more)(task.function)

    def send(task, *args, **options):
        return (declared(task).options(**options) if options else declared(task)).enqueue(*args)

    send.declared = declared
    return send


@pytest.fixture
def start(spawn_worker):
    """Start a worker of tests/apps/faults.py with a short liveness: start(slots=4) sets `worker.slots`, and so on."""

    def start(app="tests.apps.faults:app", ttl_s=TTL_S, **options):
        names = ("redis_url", "args", "ready", "environ", "without", "command")
        rest = {name: options.pop(name) for name in names if name in options}
        settings = {"liveness.ttl_s": ttl_s, **{f"worker.{name}": value for name, value in options.items()}}
        return spawn_worker(app, settings=settings, **rest)

    return start


@pytest.fixture
def planned(start, tmp_path):
    """Processes with schedules, and what their bodies noted."""
    return Planned(start, tmp_path / "planned.jsonl")


@pytest.fixture
def look(driver, keys):
    """Return everything in the queue `default`."""
    return lambda: state_of(driver, keys)


@pytest.fixture
def server():
    """A Redis that only this test uses, to stop, flush and restart.

    It keeps what it acknowledged: with ``everysec`` writes wait in memory while an fsync goes on; a kill loses them.
    """
    with PrivateServer(redis_for_tests()[1], "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server
        if server.pid:
            os.kill(server.pid, signal.SIGCONT)
