"""Where Redis is and how to connect: the settings of redis-py that are right for queues."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry as SyncRetry

from streamwork.errors import ConfigError
from streamwork.store.commands import Command, Script, plain
from streamwork.store.failures import Unavailable


class Endpoint:
    """One Redis server, by URL (``redis://``, ``rediss://``, ``unix://``).

    redis-py 8 resends silently, speaks RESP3 and times reads out by default; a resent XADD is a duplicate and a timed
    out blocking read strands entries, so all three are off here and streamwork keeps its own deadlines.

    Args:
        url: As redis-py takes it.
        connect_timeout_s: Seconds for one attempt to connect.

    Raises:
        ConfigError: The URL cannot be understood.
    """

    def __init__(self, url: str, connect_timeout_s: float = 1.0) -> None:
        self.url = url
        self.connect_timeout_s = connect_timeout_s
        try:
            self.where = _shown(url)
            self._options = redis.asyncio.connection.parse_url(url)
        except ValueError as error:
            raise ConfigError(
                f"{_without_secret(url)!r} is not a Redis URL ({error}): use redis://host:port/0"
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
        """Return a fresh, unconnected blocking connection whose reads wait at most `deadline_s` seconds."""
        pool = redis.ConnectionPool.from_url(self.url)
        settings = self._settings()
        settings["socket_timeout"] = deadline_s
        settings["retry"] = SyncRetry(NoBackoff(), 0)
        return pool.connection_class(**settings)

    def async_connection(self) -> Any:
        """Return a fresh, unconnected asyncio connection."""
        pool = redis.asyncio.ConnectionPool.from_url(self.url)
        settings = self._settings()
        settings["retry"] = AsyncRetry(NoBackoff(), 0)
        return pool.connection_class(**settings)


class Greeting:
    """What a connection learns about its server before the first command.

    Attributes:
        run_id: The server process; a delivery remembers it (rule 8).
        client_id: This connection, for CLIENT UNBLOCK.
    """

    def __init__(self, where: str, info: bytes, client_id: int, role: list[Any]) -> None:
        if role and role[0] in (b"slave", b"replica"):
            master = f"{role[1].decode()}:{role[2]}"
            raise Unavailable(
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
        return parts.path
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError(f"scheme {parts.scheme!r}")
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def _without_secret(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.partition('//')[0]}//…@{tail}" if at else url
