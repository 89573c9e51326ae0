"""Fixtures of the guards' tests: those of tests/redis and tests/system, by the floor that a scenario needs."""

from __future__ import annotations

import pytest

from streamwork.store.async_driver import AsyncDriver
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from tests.redis.conftest import own, own_flow, own_keys, proxy, server, start_server
from tests.system.conftest import keys, look, notes, send, start

__all__ = ["keys", "look", "notes", "own", "own_flow", "own_keys", "proxy", "send", "server", "start", "start_server"]


@pytest.fixture
def connected(server):
    """Make a driver for the running loop, to the Redis of this test alone; the test closes it."""
    return lambda deadline_s=10.0: AsyncDriver(Endpoint(server.url), ALL_SCRIPTS, deadline_s)
