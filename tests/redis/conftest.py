"""Fixtures of the store and broker rooms: keys of one queue, and servers of one's own for what would hurt others."""

from __future__ import annotations

import pytest

from streamwork.config import redis_for_tests
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.testing.server import PrivateServer
from tests.proxy import DropReplyProxy
from tests.redis.flowkit import Flow


@pytest.fixture
def keys(namespace):
    """The keys of the queue `default` in this test's namespace."""
    return QueueKeys(namespace, "default")


@pytest.fixture
def start_server():
    """Start servers with options of their own; gone after the test."""
    started = []

    def start(*options):
        server = PrivateServer(redis_for_tests()[1], *options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.close()


@pytest.fixture
def server(start_server):
    """A server that only this test uses: to fill, stop, flush and restart."""
    return start_server()


@pytest.fixture
def own(server):
    """A driver for `server`."""
    driver = SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    yield driver
    driver.close()


@pytest.fixture
def own_keys():
    """Keys of a queue on `server`, where nobody else has any."""
    return QueueKeys("own", "default")


@pytest.fixture
def proxy(server):
    """A TCP way to `server` that loses replies when told."""
    proxy = DropReplyProxy(server.socket_path)
    yield proxy
    proxy.close()


@pytest.fixture
def flow(driver, keys):
    """A queue with limits."""
    return Flow(driver, keys)


@pytest.fixture
def own_flow(own, own_keys):
    """A queue with limits on a server that only this test uses."""
    return Flow(own, own_keys)
