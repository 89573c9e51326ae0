"""Fixtures of the runtime tests: parts of a worker, with Redis only where they speak to it."""

from __future__ import annotations

import importlib
import sys

import pytest

from streamwork.store.async_driver import AsyncDriver
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from tests.helpers import state_of
from tests.runtime.kit import Bench


@pytest.fixture
def bench():
    """A runner with four slots, and no Redis."""
    return Bench()


@pytest.fixture
def keys(namespace):
    """The keys of the queue `default`."""
    return QueueKeys(namespace, "default")


@pytest.fixture
def look(driver, keys):
    """Return everything in the queue `default`."""
    return lambda: state_of(driver, keys)


@pytest.fixture
def connected(redis_url):
    """Make a driver for the running loop; the test closes it."""
    return lambda deadline_s=10.0: AsyncDriver(Endpoint(redis_url), ALL_SCRIPTS, deadline_s)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Import a module with these lines, which new processes can import too."""

    def make(name, lines):
        (tmp_path / f"{name}.py").write_text(lines)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return make
