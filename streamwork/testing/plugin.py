"""The pytest plugin (entry point ``streamwork``): a private Redis per test process and a fresh namespace per test.

``STREAMWORK_TEST_REDIS_URL`` uses a server that is there already, ``STREAMWORK_TEST_REDIS_SERVER`` names the binary to
start. With pytest-xdist every worker process has a server of its own. Nothing starts before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from streamwork.app import Streamwork
from streamwork.config import redis_for_tests
from streamwork.ids import random_id
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.testing import private
from streamwork.testing.server import PrivateServer


@pytest.fixture(scope="session")
def streamwork_redis_url() -> Iterator[str]:
    """URL of the Redis that this test process uses."""
    url, binary = redis_for_tests()
    if url is not None:
        yield url
        return
    with PrivateServer(binary) as server:
        yield server.url


@pytest.fixture
def streamwork_namespace(streamwork_redis_url: str) -> Iterator[str]:
    """An app name that no other test has used; its keys are deleted after the test."""
    namespace = f"test-{random_id(64)}"
    private.add_namespace(namespace)
    yield namespace
    private.remove_namespace(namespace)
    delete_namespace(streamwork_redis_url, namespace)


@pytest.fixture
def streamwork_app(streamwork_redis_url: str, streamwork_namespace: str) -> Iterator[Streamwork]:
    """An app without tasks, in its own namespace on the test Redis; closed after the test."""
    with Streamwork(streamwork_namespace, streamwork_redis_url) as app:
        yield app


@pytest.fixture
def streamwork_redirect(streamwork_redis_url: str, streamwork_namespace: str) -> Iterator[Callable[[Streamwork], None]]:
    """Send an app of your own to the test Redis, under a name of its own, until the test ends.

    ::

        @pytest.fixture(autouse=True)
        def private_redis(streamwork_redirect):
            streamwork_redirect(shop.tasks.app)
    """
    with ExitStack() as stack:

        def redirect(app: Streamwork) -> None:
            name = f"{streamwork_namespace}-{app.name}"[:100]
            stack.callback(delete_namespace, streamwork_redis_url, name)
            stack.enter_context(app.redirected(name, streamwork_redis_url))

        yield redirect


def delete_namespace(url: str, namespace: str) -> None:
    """Delete every key of a namespace, step by step, so that a shared server goes on serving."""
    driver = SyncDriver(Endpoint(url), ALL_SCRIPTS)
    try:
        for keys in scan(driver, namespace):
            driver.run(plain("UNLINK", *keys))
    finally:
        driver.close()


def scan(driver: SyncDriver, namespace: str) -> Iterator[list[str]]:
    """Yield the keys of a namespace in batches; a key may come twice."""
    cursor = "0"
    while True:
        reply = driver.run(plain("SCAN", cursor, "MATCH", "{" + namespace + "[:}]*", "COUNT", 1000))
        cursor = reply[0].decode()
        if reply[1]:
            yield [key.decode() for key in reply[1]]
        if cursor == "0":
            return
