"""Fixtures of the whole suite: a private Redis, a namespace and an app per test, workers that never outlive it."""

from __future__ import annotations

import signal
import threading

import pytest

from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.testing import plugin
from tests import helpers, leaks, order


def pytest_configure(config):
    # What a shell puts into the background ignores Ctrl-C, and so would every program that a test starts.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Installed, the plugin comes in by its entry point; in a bare checkout it does not.
    if not config.pluginmanager.has_plugin("streamwork"):
        config.pluginmanager.register(plugin, "streamwork")


def pytest_collection_modifyitems(config, items):
    # In the processes of a parallel run: what takes long comes first, so that none of it begins when the rest is done,
    # and what computes is spread among what waits, so that neither the processors nor the clock stand still.
    if hasattr(config, "workerinput"):
        items[:] = order.spread(items)


@pytest.fixture(scope="session")
def redis_url(streamwork_redis_url):
    """The Redis of this test process."""
    return streamwork_redis_url


@pytest.fixture
def namespace(streamwork_namespace):
    """A name that no other test has used; its keys are deleted after the test."""
    return streamwork_namespace


@pytest.fixture
def app(streamwork_app):
    """An app without tasks in this test's namespace."""
    return streamwork_app


@pytest.fixture
def driver(redis_url):
    """A blocking driver with every script loaded."""
    driver = SyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
    yield driver
    driver.close()


@pytest.fixture
def spawn_worker(request, tmp_path):
    """Start real worker daemons (`helpers.WorkerProcess`) for this test's namespace; killed at the end."""
    started = []

    def spawn(app="tests.apps.basic:app", **options):
        for name in ("namespace", "redis_url"):
            if name not in options:
                options[name] = request.getfixturevalue(name)
        worker = helpers.WorkerProcess(app, folder=tmp_path, **options)
        started.append(worker)
        return worker

    yield spawn
    for worker in started:
        worker.end()


@pytest.fixture(autouse=True)
def no_listener_leaks():
    """After a test: no app that it left open listens on, trying to reach a Redis that another test has ended."""
    before = set(threading.enumerate())
    yield
    left = [one for one in threading.enumerate() if one not in before and one.name.startswith("streamwork-results")]
    helpers.wait_until(lambda: not any(one.is_alive() for one in left), "the end of listeners: close the app", 5)


@pytest.fixture(autouse=True)
def no_key_leaks(request):
    """After a test that had a namespace: each key left has a TTL or an owner, and nothing is kept of what ended."""
    if "streamwork_namespace" not in request.fixturenames:
        yield
        return
    # Asked for here, the namespace outlives this fixture, and everything that uses it ends before the look.
    namespace, url = request.getfixturevalue("namespace"), request.getfixturevalue("redis_url")
    yield
    driver = SyncDriver(Endpoint(url), ALL_SCRIPTS)
    try:
        assert leaks.leaked(driver, namespace) == []
    finally:
        driver.close()
