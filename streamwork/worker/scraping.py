"""What a supervisor answers Prometheus: the numbers of its processes, added up, and how its queues stand.

On the supervisor's own loop, since it must have one thread only; the processes say their numbers once a second.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from streamwork.broker.stats import Overview, overview
from streamwork.broker.steps import aask
from streamwork.config import TelemetryConfig
from streamwork.errors import ConfigError, StoreError
from streamwork.telemetry.exposition import exposition, require_prometheus
from streamwork.telemetry.meters import MESSAGES, OLDEST, PROCESSES, REACHED, Series, summed
from streamwork.worker.crew import Crew
from streamwork.worker.homes import Home

logger = logging.getLogger(__name__)

# What Redis and a client may take; Prometheus itself waits for ten seconds by default.
_ASK_S, _HEAD_S = 2.0, 5.0
_STATES = ("waiting", "running", "scheduled", "held", "dead")


class Scraping:
    """The HTTP side of a supervisor: ``GET /metrics`` and nothing else.

    Args:
        crew: Its processes.
        homes: Says where their queues are.
    """

    def __init__(self, crew: Crew, homes: Callable[[], list[Home]]) -> None:
        self._crew = crew
        self._homes = homes
        self._listening: socket.socket | None = None
        self._server: asyncio.Server | None = None

    async def open(self, telemetry: TelemetryConfig) -> None:
        """Listen where the settings say, once; raises ConfigError where that cannot be."""
        if self._listening is not None or not telemetry.metrics_port:
            return
        require_prometheus()
        host, port = telemetry.metrics_host, telemetry.metrics_port
        try:
            # Before anything is awaited: several processes are welcomed at once.
            self._listening = socket.create_server((host, port))
        except OSError as error:
            raise ConfigError(
                f"telemetry.metrics_port (--metrics-port) {host}:{port} cannot be listened on: {error.strerror}"
            ) from error
        self._crew.sockets.append(self._listening)
        self._server = await asyncio.start_server(self._serve, sock=self._listening)
        logger.info("metrics", extra={"url": f"http://{host}:{port}/metrics"})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_S):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, kind, body = await self._answer(head)
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + (b"" if head.startswith("HEAD ") else body)
            )
            writer.write_eof()  # a process that was forked meanwhile has the connection open, too
            async with asyncio.timeout(_HEAD_S):
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that went away, or is none
        finally:
            writer.close()

    async def _answer(self, head: str) -> tuple[str, str, bytes]:
        request, *lines = head.splitlines()
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if path != "/metrics":
            return "404 Not Found", "text/plain", b"see /metrics\n"
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", "text/plain", b"GET only\n"
        fields = (line.partition(":") for line in lines)
        accept = next((value.strip() for name, _, value in fields if name.lower() == "accept"), "")
        body, kind = exposition(await self._series(), accept)
        return "200 OK", kind, body

    async def _series(self) -> list[Series]:
        crew = self._crew
        found = summed([crew.past, *(replica.series for replica in crew.replicas)])
        found.append(Series(PROCESSES.name, (), len(crew.replicas)))
        is_up = True
        for home in self._homes():
            try:
                async with asyncio.timeout(_ASK_S):
                    seen = await aask(home.keeper.driver, overview(home.address.namespace, home.address.queues))
            except (StoreError, TimeoutError):
                is_up = False
            else:
                found += _of_queues(seen)
        found.append(Series(REACHED.name, (), int(is_up)))
        return summed([found])


def _of_queues(seen: Overview) -> list[Series]:
    found: list[Series] = []
    for queue in seen.queues:
        counts: dict[str, Any] = {state: getattr(queue, state) for state in _STATES}
        found += [Series(MESSAGES.name, (queue.queue, state), count) for state, count in counts.items()]
        found.append(Series(OLDEST.name, (queue.queue,), (queue.oldest_ms or 0) / 1000))
    return found
