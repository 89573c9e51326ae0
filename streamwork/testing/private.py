"""Which queues a test may look into and empty: those on a private server, in a namespace of its own, or allowed ones.

An app keeps its own Redis in a test that does not redirect it. To drain that one would run real work, so it is refused.
"""

from __future__ import annotations

import weakref

from streamwork.app import Streamwork
from streamwork.config import running_test
from streamwork.connection import Connection
from streamwork.errors import NotPrivate
from streamwork.store.endpoint import Endpoint

_servers: set[str] = set()
_namespaces: set[str] = set()
_allowed: weakref.WeakSet[Streamwork] = weakref.WeakSet()


def add_server(url: str) -> None:
    """Let tests do as they like on a server of their own."""
    _servers.add(url)


def remove_server(url: str) -> None:
    """Forget a server that is gone."""
    _servers.discard(url)


def add_namespace(name: str) -> None:
    """Let tests do as they like in this namespace, and in those whose names begin so."""
    _namespaces.add(name)


def remove_namespace(name: str) -> None:
    """Forget a namespace whose test is over."""
    _namespaces.discard(name)


def allow(app: Streamwork) -> None:
    """Let the tests of this process look into and empty an app's queues on the very Redis it is set to."""
    _allowed.add(app)


def check(connection: Connection) -> None:
    """Raise NotPrivate under pytest where these queues are not a test's own; nothing is connected.

    Raises:
        NotPrivate: The text says what to do instead.
    """
    url = connection.config.url
    if running_test() is None or url in _servers or any(map(connection.namespace.startswith, _namespaces)):
        return
    if any(app.connection is connection for app in _allowed):
        return
    where = f"the embedded one in {connection.config.folder}" if url is None else Endpoint(url).where
    raise NotPrivate(
        f"app {connection.namespace!r} is on its own Redis ({where}), so its real queues would be meant: ask for the "
        "fixture streamwork_redirect and call streamwork_redirect(app) first, use `with app.inline():`, or say "
        "streamwork.testing.allow(app) if that Redis is for tests"
    )
