"""Fixtures of the guards of liveness, reclaim, history and processes: scripts and daemons without their guards."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from streamwork.config import redis_for_tests
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.testing.plugin import scan
from streamwork.testing.server import PrivateServer
from tests.faults.unguarded import scripts_without
from tests.store.home import open_home
from tests.system.kit import TTL_S, Notes


@pytest.fixture
def keys(namespace):
    """The keys of the queue `default`."""
    return QueueKeys(namespace, "default")


@pytest.fixture
def unguarded(redis_url, namespace):
    """Connect with scripts that lack these guards: unguarded("grace"); what a broken promise left behind goes."""
    with ExitStack() as stack:

        def connect(*names, url=redis_url):
            stack.enter_context(scripts_without(*names))
            driver = SyncDriver(Endpoint(url), ALL_SCRIPTS)
            stack.callback(driver.close)
            return driver

        yield connect
    _wipe(redis_url, namespace)


@pytest.fixture
def wiped(redis_url, namespace):
    """Remove what a scenario without its guard left behind, so that its keys are not called leaks."""
    yield
    _wipe(redis_url, namespace)


def _wipe(url, namespace):
    driver = SyncDriver(Endpoint(url), ())
    for batch in scan(driver, namespace):
        if batch:
            driver.run(plain("DEL", *batch))
    driver.close()


@pytest.fixture
def server():
    """A Redis that only this test uses: to stop, to fill, and to set up otherwise."""
    with PrivateServer(redis_for_tests()[1]) as server:
        yield server


@pytest.fixture
def own(server):
    """A driver for `server`."""
    driver = SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    yield driver
    driver.close()


@pytest.fixture
def exact_trim(driver):
    """Nodes of one entry: what an approximate trim spares hides a wrong cut."""
    before = driver.run(plain("CONFIG", "GET", "stream-node-max-entries"))[1]
    driver.run(plain("CONFIG", "SET", "stream-node-max-entries", 1))
    yield
    driver.run(plain("CONFIG", "SET", "stream-node-max-entries", before))


@pytest.fixture
def notes(tmp_path):
    """Where tasks note their runs."""
    return Notes(tmp_path / "notes.txt")


@pytest.fixture
def start(spawn_worker):
    """Start a worker of tests/apps/faults.py: start(without=("pdeathsig",), slots=2)."""

    def start(ttl_s=TTL_S, without=(), **options):
        settings = {"liveness.ttl_s": ttl_s, **{f"worker.{name}": value for name, value in options.items()}}
        return spawn_worker("tests.apps.faults:app", settings=settings, without=without)

    return start


@pytest.fixture
def home():
    """A folder for an embedded server."""
    with open_home() as made:
        yield made
