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

from streamwork.errors import StoreError, StoreUnavailable
from streamwork.store.commands import RAISE, Command, Script, packed, plain
from streamwork.store.endpoint import Endpoint, Greeting, greeting_commands
from streamwork.store.failures import NoGroup, NoScript, is_reply, translated, unloaded

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
        except StoreError as failure:
            return await self._after_refusal(command, failure)
        return command.read(reply)

    async def _after_refusal(self, command: Command[T], failure: StoreError) -> T:
        if isinstance(failure, NoScript) and command.script is not None:
            await self.run(plain("SCRIPT", "LOAD", command.script.source))
            (future,) = await self._send((command,))
            try:
                return command.read(await future)
            except NoScript as again:
                raise unloaded(self.endpoint.where) from again
        if isinstance(failure, NoGroup) and command.if_gone is not RAISE:
            return command.if_gone  # type: ignore[no-any-return]
        raise failure

    async def run_all(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send commands in one round trip and return their answers in order; the first refusal is raised at the end."""
        if self._connection is None:
            await self.connect()
        futures = await self._send(commands)
        replies = await asyncio.gather(*futures, return_exceptions=True)
        answers: list[Any] = []
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, StoreError):
                answers.append(await self._after_refusal(command, reply))
            elif isinstance(reply, BaseException):
                raise reply
            else:
                answers.append(command.read(reply))
        return answers

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
            async with asyncio.timeout(self.endpoint.connect_timeout_s + min(5.0, self._deadline_s)):
                try:
                    await connection.connect()
                except (redis.RedisError, OSError) as error:
                    if not await self.endpoint.arevive(error):
                        raise
                    connection = self.endpoint.async_connection()
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
            await connection.send_packed_command(packed(commands), check_health=False)
        return [await connection.read_response(disable_decoding=True, timeout=math.inf) for _ in commands]

    async def _send(self, commands: Sequence[Command[Any]]) -> list[asyncio.Future[Any]]:
        connection = self._connection
        if connection is None:
            raise StoreUnavailable(f"lost Redis at {self.endpoint.where}", maybe_executed=False)
        data = packed(commands)  # first, because a request that cannot be packed may leave no place in the queue
        loop = asyncio.get_running_loop()
        by_s = loop.time() + self._deadline_s
        futures: list[asyncio.Future[Any]] = []
        for _ in commands:
            future: asyncio.Future[Any] = loop.create_future()
            futures.append(future)
            self._waiting.append((future, by_s))
        if self._alarm is None:
            self._alarm = loop.call_at(by_s, self._check_deadline)
        try:
            # Not redis-py's own send: that one drops the connection under everyone when one caller is cancelled while
            # the socket is full. Here the bytes are in the transport's buffer before the first wait, so requests go
            # out in the order in which their futures were queued, and a cancelled caller only stops waiting.
            writer = connection._writer  # noqa: SLF001 - see above
            writer.write(data)
            await writer.drain()
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except (redis.RedisError, OSError, RuntimeError) as error:
            # uvloop says RuntimeError where the socket has just closed and the reader has not heard of it yet.
            self._lose(connection, error)
        return futures

    async def _read(self, connection: Any) -> None:
        waiting = self._waiting
        try:
            while True:
                try:
                    reply = await connection.read_response(
                        disable_decoding=True, timeout=math.inf, disconnect_on_error=False
                    )
                except redis.RedisError as error:
                    if not is_reply(error):
                        raise
                    failure = translated(error, self.endpoint.where)
                    self._refuse(failure)
                    if isinstance(failure, StoreUnavailable) or not isinstance(error, redis.ResponseError):
                        self._lose(connection, error)
                        return
                else:
                    future = waiting.popleft()[0]
                    if not future.done():
                        future.set_result(reply)
        except asyncio.CancelledError:
            # Not by `_lose`: the loop ends, and nobody else will close the socket.
            self._lose(connection, ConnectionError("its event loop ended"))
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the answers that follow cannot be told apart
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
                failure = StoreUnavailable(f"lost Redis at {self.endpoint.where} ({error})", maybe_executed=True)
                failure.__cause__ = error
                future.set_exception(failure)
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()
        self._reader = None
        connection._close()  # noqa: SLF001 - the only way to close at once, also while the loop is ending

    def drop(self, reason: str) -> None:
        """Give the connection up; what is in flight fails with StoreUnavailable, the next command connects anew."""
        self._lose(self._connection, ConnectionError(reason))

    async def close(self) -> None:
        """Close for good; what is in flight fails."""
        reader = self._reader
        self.drop("closed")
        if reader is not None:
            await asyncio.gather(reader, return_exceptions=True)
        await asyncio.sleep(0)  # the transport closes its socket one turn later


async def _closed(connection: Any) -> None:
    try:
        await connection.disconnect(nowait=True)
    except (redis.RedisError, OSError):
        pass  # it is gone either way
