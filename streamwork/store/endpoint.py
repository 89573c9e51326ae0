"""Where Redis is and how to connect: the settings of redis-py that are right for queues."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry as SyncRetry

from streamwork.errors import ConfigError, EmbeddedError, StoreUnavailable
from streamwork.store.commands import Command, Script, plain
from streamwork.store.failures import is_reply

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


class Endpoint:
    """One Redis server, by URL (``redis://``, ``rediss://``, ``unix://``).

    redis-py 8 resends silently, speaks RESP3 and times reads out by default; a resent XADD is a duplicate and a timed
    out blocking read strands entries, so all three are off here and streamwork keeps its own deadlines.

    Args:
        url: As redis-py takes it.
        connect_timeout_s: Seconds for one attempt to connect.
        ensure: Starts the server where nobody listens, and returns its URL; None = it is not ours to start.

    Raises:
        ConfigError: The URL cannot be understood, as a whole or in one option.
    """

    def __init__(self, url: str, connect_timeout_s: float = 1.0, ensure: Callable[[], str] | None = None) -> None:
        self.connect_timeout_s = connect_timeout_s
        self._ensure = ensure
        self._ensuring = threading.Lock()
        self._ensured = 0
        self._take(url)

    def _take(self, url: str) -> None:
        self.url = url
        try:
            self.where = _shown(url)
            self._options = redis.asyncio.connection.parse_url(url)
            # Nothing is connected: what redis-py does not know or want, it says only when it makes a connection.
            self.sync_connection(self.connect_timeout_s)
            self.async_connection()
        except (ValueError, TypeError, redis.RedisError) as error:
            unknown = _UNEXPECTED.search(str(error))
            what = f"unknown option {unknown[1]!r}" if unknown else error
            raise ConfigError(
                f"{_without_secret(url)!r} is not a Redis URL ({what}): use redis://host:port/0"
            ) from error

    def _settings(self) -> dict[str, Any]:
        options: dict[str, Any] = dict(self._options)
        options.pop("connection_class", None)
        options.update(
            protocol=2, socket_timeout=None, socket_connect_timeout=self.connect_timeout_s, health_check_interval=0
        )
        if "path" not in options:
            options["socket_keepalive"] = True
        return options

    def sync_connection(self, deadline_s: float) -> Any:
        """Return a fresh, unconnected blocking connection that waits at most `deadline_s` seconds for each thing."""
        pool = redis.ConnectionPool.from_url(self.url)
        settings = self._settings()
        settings["socket_timeout"] = deadline_s
        settings["socket_connect_timeout"] = min(deadline_s, self.connect_timeout_s)
        settings["retry"] = SyncRetry(NoBackoff(), 0)
        return pool.connection_class(**settings)

    def async_connection(self) -> Any:
        """Return a fresh, unconnected asyncio connection."""
        pool = redis.asyncio.ConnectionPool.from_url(self.url)
        settings = self._settings()
        settings["retry"] = AsyncRetry(NoBackoff(), 0)
        return pool.connection_class(**settings)

    def revive(self, error: BaseException) -> bool:
        """Start an embedded server again to which a connection failed; True when another attempt is worth it.

        Whoever kills the guardian takes the server from all its users, and each of them may be the one who notices. One
        thread of the process starts it, and those who come meanwhile wait for that; up to ten seconds.

        Args:
            error: What connecting raised; a server that is there and does not answer is not started again.

        Raises:
            StoreUnavailable: It cannot be started; the message says why.
        """
        if self._ensure is None or is_reply(error) or isinstance(error, (TimeoutError, redis.TimeoutError)):
            return False
        seen = self._ensured
        with self._ensuring:
            if self._ensured != seen:
                return True
            try:
                self._take(self._ensure())
            except EmbeddedError as failure:
                raise StoreUnavailable(str(failure), maybe_executed=False) from failure
            finally:
                self._ensured += 1
        return True

    async def arevive(self, error: BaseException) -> bool:
        """Start an embedded server again, in a thread, so that the loop goes on; as `revive`."""
        return self._ensure is not None and await asyncio.to_thread(self.revive, error)


class Greeting:
    """What a connection learns about its server before the first command.

    Attributes:
        run_id: The server process; a delivery remembers it (rule 8).
        client_id: This connection, for CLIENT UNBLOCK.
    """

    def __init__(self, where: str, info: bytes, client_id: int, role: list[Any]) -> None:
        if role and role[0] in (b"slave", b"replica"):
            master = f"{role[1].decode()}:{role[2]}"
            raise StoreUnavailable(
                f"Redis at {where} is a replica of {master}: give the URL of the master", maybe_executed=False
            )
        facts = dict(line.partition(":")[::2] for line in info.decode().splitlines() if ":" in line)
        self.run_id = facts.get("run_id", "")
        self.client_id = client_id


def greeting_commands(scripts: tuple[Script, ...]) -> list[Command[Any]]:
    """Return what every connection asks first: server, own id, role, and which scripts are there."""
    return [
        plain("INFO", "server"),
        plain("CLIENT", "ID"),
        plain("ROLE"),
        plain("SCRIPT", "EXISTS", *(s.sha for s in scripts)) if scripts else plain("ECHO", ""),
    ]


def _shown(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("no path of a socket")
        return parts.path
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError(f"scheme {parts.scheme!r}")
    # redis-py takes the database 0 where it cannot read a number, and 12 for /1/2.
    if not re.fullmatch(r"(/[0-9]*)?/?", parts.path):
        raise ValueError(f"database {parts.path[1:]!r} is not a number")
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def _without_secret(url: str) -> str:
    head, at, tail = url.rpartition("@")
    tail = tail.partition("?")[0]  # a password may also be among the options
    return f"{head.partition('//')[0]}//…@{tail}" if at else tail
