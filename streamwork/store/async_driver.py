"""Run commands from one event loop: many in flight on one connection, answers in order.

A command is never cancelled on the wire: a caller that gives up just leaves its answer unread, so replies cannot be
mixed up and no delivered entry is stranded.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

import redis

from streamwork.errors import StoreError
from streamwork.store.commands import Command, Script, plain
from streamwork.store.endpoint import Endpoint, Greeting, greeting_commands
from streamwork.store.failures import NoScript, Unavailable, translated

T = TypeVar("T")


class AsyncDriver:
    """One connection shared by all coroutines of one loop.

    Args:
        endpoint: Which server.
        scripts: Loaded on each new connection.
        deadline_s: Seconds that the oldest command in flight may wait before the connection is given up; for a
            blocking connection more than its BLOCK.
    """

    def __init__(self, endpoint: Endpoint, scripts: tuple[Script, ...], deadline_s: float = 10.0) -> None:
        self.endpoint = endpoint
        self.greeting: Greeting | None = None
        self._scripts = scripts
        self._deadline_s = deadline_s
        self._connection: Any = None
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._connecting: asyncio.Lock | None = None
        self._reader: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def run_id(self) -> str:
        """The server process this connection talks to, empty before the first command."""
        return self.greeting.run_id if self.greeting else ""

    async def run(self, command: Command[T]) -> T:
        """Send one command and return its answer.

        Raises:
            StoreUnavailable: Not reached, or the connection broke; `maybe_executed` tells which.
            StoreError: Redis refused.
        """
        if self._connection is None:
            await self.connect()
        (future,) = await self._send((command,))
        try:
            reply = await future
        except NoScript:
            if command.script is None:
                raise
            await self.run(plain("SCRIPT", "LOAD", command.script.source))
            (future,) = await self._send((command,))
            reply = await future
        return command.read(reply)

    async def run_all(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send commands in one round trip and return their answers in order; the first refusal is raised."""
        if self._connection is None:
            await self.connect()
        futures = await self._send(commands)
        replies = await asyncio.gather(*futures)
        return [command.read(reply) for command, reply in zip(commands, replies, strict=True)]

    async def connect(self) -> None:
        """Connect and greet the server, unless that is done; one attempt.

        Raises:
            StoreUnavailable: Not reached within the connect timeout, or the server is a replica.
            StoreRejected: The login was refused.
        """
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._connection is None:
                await self._connect()

    async def _connect(self) -> None:
        connection = self.endpoint.async_connection()
        try:
            async with asyncio.timeout(self.endpoint.connect_timeout_s + 5.0):
                await connection.connect()
                info, client_id, role, known = await self._ask(connection, greeting_commands(self._scripts))
                greeting = Greeting(self.endpoint.where, info, client_id, role)
                missing = [script for script, there in zip(self._scripts, known, strict=True) if not there]
                await self._ask(connection, [plain("SCRIPT", "LOAD", script.source) for script in missing])
        except (redis.RedisError, OSError) as error:
            await _closed(connection)
            raise translated(error, self.endpoint.where) from error
        except BaseException:
            await _closed(connection)
            raise
        self.greeting = greeting
        self._connection = connection
        self._reader = asyncio.create_task(self._read(connection), name=f"redis-reader {self.endpoint.where}")

    @staticmethod
    async def _ask(connection: Any, commands: Sequence[Command[Any]]) -> list[Any]:
        if commands:
            packed = [chunk for command in commands for chunk in connection.pack_command(*command.args)]
            await connection.send_packed_command(packed, check_health=False)
        return [await connection.read_response(disable_decoding=True, timeout=math.inf) for _ in commands]

    async def _send(self, commands: Sequence[Command[Any]]) -> list[asyncio.Future[Any]]:
        connection = self._connection
        if connection is None:
            raise Unavailable(f"lost Redis at {self.endpoint.where}", maybe_executed=False)
        loop = asyncio.get_running_loop()
        by_s = loop.time() + self._deadline_s
        futures: list[asyncio.Future[Any]] = []
        packed: list[bytes] = []
        for command in commands:
            future: asyncio.Future[Any] = loop.create_future()
            futures.append(future)
            self._waiting.append((future, by_s))
            packed.extend(connection.pack_command(*command.args))
        if self._alarm is None:
            self._alarm = loop.call_at(by_s, self._check_deadline)
        try:
            # The bytes are in the transport's buffer before this first suspends, so requests go out in the order
            # in which their futures were queued.
            await connection.send_packed_command(packed, check_health=False)
        except (redis.RedisError, OSError) as error:
            self._lose(connection, error)
        return futures

    async def _read(self, connection: Any) -> None:
        waiting = self._waiting
        try:
            while True:
                try:
                    reply = await connection.read_response(disable_decoding=True, timeout=math.inf, disconnect_on_error=False)
                except redis.ResponseError as error:
                    failure = translated(error, self.endpoint.where)
                    self._refuse(failure)
                    if isinstance(failure, Unavailable):
                        self._lose(connection, error)
                        return
                else:
                    future = waiting.popleft()[0]
                    if not future.done():
                        future.set_result(reply)
        except (redis.RedisError, OSError, IndexError) as error:
            self._lose(connection, error)

    def _refuse(self, failure: StoreError) -> None:
        future = self._waiting.popleft()[0]
        if not future.done():
            future.set_exception(failure)

    def _check_deadline(self) -> None:
        self._alarm = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        by_s = self._waiting[0][1]
        if loop.time() < by_s:
            self._alarm = loop.call_at(by_s, self._check_deadline)
            return
        self._lose(self._connection, TimeoutError(f"no answer within {self._deadline_s:g} s"))

    def _lose(self, connection: Any, error: BaseException) -> None:
        if connection is None or connection is not self._connection:
            return
        self._connection = None
        failed, self._waiting = self._waiting, deque()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for future, _ in failed:
            if not future.done():
                failure = Unavailable(f"lost Redis at {self.endpoint.where} ({error})", maybe_executed=True)
                failure.__cause__ = error
                future.set_exception(failure)
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()
        self._reader = None
        closing = asyncio.get_running_loop().create_task(_closed(connection))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def drop(self, reason: str) -> None:
        """Give the connection up; what is in flight fails with StoreUnavailable, the next command connects anew."""
        self._lose(self._connection, ConnectionError(reason))

    async def close(self) -> None:
        """Close for good; what is in flight fails."""
        connection = self._connection
        reader = self._reader
        self.drop("closed")
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        if connection is not None:
            await _closed(connection)


async def _closed(connection: Any) -> None:
    try:
        await connection.disconnect(nowait=True)
    except (redis.RedisError, OSError):
        pass  # it is gone either way
