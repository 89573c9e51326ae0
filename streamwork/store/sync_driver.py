"""Run commands from ordinary threads: one connection per thread, forgotten in a forked child."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import redis

from streamwork.errors import StoreError, StoreRejected, StoreUnavailable
from streamwork.store.commands import RAISE, Command, Script, packed, plain
from streamwork.store.endpoint import Endpoint, Greeting, greeting_commands
from streamwork.store.failures import NoGroup, NoScript, is_reply, translated, unloaded

T = TypeVar("T")

# A connection that lay idle for longer is looked at before it is used; in a row of requests nobody looks.
_IDLE_S = 0.05
# What is left at least of a time that is over: to hand on what has arrived by then.
_LEAST_S = 0.01


def _left_s(most_s: float, by_s: float | None) -> float:
    return most_s if by_s is None else max(_LEAST_S, min(most_s, by_s - time.monotonic()))


class SyncLink:
    """One blocking connection that has greeted its server."""

    def __init__(self, endpoint: Endpoint, scripts: tuple[Script, ...], deadline_s: float, by_s: float | None) -> None:
        self.endpoint = endpoint
        self._deadline_s = deadline_s
        # A server that does not even greet is given up as soon as one that does not let us connect.
        self.connection = endpoint.sync_connection(_left_s(endpoint.connect_timeout_s, by_s))
        self.unread = 0
        self._used_s = 0.0
        try:
            try:
                self.connection.connect()
            except (redis.RedisError, OSError) as error:
                if not endpoint.revive(error):
                    raise
                self.connection = endpoint.sync_connection(_left_s(endpoint.connect_timeout_s, by_s))
                self.connection.connect()
            info, client_id, role, known = self._ask(greeting_commands(scripts), by_s)
            self.greeting = Greeting(endpoint.where, info, client_id, role)
            missing = [script for script, there in zip(scripts, known, strict=True) if not there]
            self._ask([plain("SCRIPT", "LOAD", script.source) for script in missing], by_s)
            self.connection.socket_timeout = deadline_s
            self.connection.update_current_socket_timeout(deadline_s)
        except (redis.RedisError, OSError) as error:
            self.close()
            raise translated(error, endpoint.where) from error
        except StoreError:
            self.close()
            raise

    def _ask(self, commands: Sequence[Command[Any]], by_s: float | None) -> list[Any]:
        self.send(packed(commands), len(commands))
        return [self.receive(_left_s(5.0, by_s)) for _ in commands]

    def send(self, data: bytes, count: int, by_s: float | None = None) -> None:
        """Write `count` requests without waiting for the answers."""
        self.unread += count
        if by_s is not None:
            self.connection.update_current_socket_timeout(_left_s(self._deadline_s, by_s))
        self.connection.send_packed_command([data], check_health=False)
        if by_s is not None:
            self.connection.update_current_socket_timeout(self._deadline_s)

    def has_ended(self) -> bool:
        """Whether the other side has closed it while it lay idle: nothing was sent then, and nothing is in doubt."""
        now_s = time.monotonic()
        idle_s, self._used_s = now_s - self._used_s, now_s
        if idle_s < _IDLE_S or not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(self.connection._sock, select.POLLIN)  # noqa: SLF001 - its own look costs four system calls
        return bool(poll.poll(0))

    def receive(self, timeout_s: float) -> Any:
        """Read the next raw answer; a reply that is an error is raised."""
        try:
            if timeout_s == self._deadline_s:
                # The socket's own timeout: setting another one for each read costs two system calls.
                reply = self.connection.read_response(disable_decoding=True)
            else:
                reply = self.connection.read_response(disable_decoding=True, timeout=timeout_s)
        except redis.ResponseError:
            self.unread -= 1
            raise
        self.unread -= 1
        return reply

    def close(self) -> None:
        """Drop the connection."""
        self.connection.disconnect()


class SyncDriver:
    """Run commands one at a time from any thread.

    Args:
        endpoint: Which server.
        scripts: Loaded on each new connection.
        deadline_s: Seconds to wait for one answer before the connection is given up.
    """

    def __init__(self, endpoint: Endpoint, scripts: tuple[Script, ...], deadline_s: float = 10.0) -> None:
        self.endpoint = endpoint
        self._scripts = scripts
        self._deadline_s = deadline_s
        self._local = threading.local()
        self._pid = os.getpid()

    def link(self) -> SyncLink:
        """Return this thread's connection, made at first use and again after a fork (rule 2)."""
        pid = os.getpid()
        link: SyncLink | None = getattr(self._local, "link", None)
        if link is None or self._local.pid != pid:
            link = self._local.link = SyncLink(self.endpoint, self._scripts, self._deadline_s, self._by_s)
            self._local.pid = pid
        return link

    @property
    def _by_s(self) -> float | None:
        return getattr(self._local, "by_s", None)

    @contextmanager
    def until(self, by_s: float | None) -> Iterator[None]:
        """Let what this thread does inside wait no longer than until `by_s` (steady seconds) for anything of Redis.

        None = as long as the driver does. A server that has to be started first takes what that takes.
        """
        self._local.by_s = by_s
        try:
            yield
        finally:
            self._local.by_s = None

    def run(self, command: Command[T], timeout_s: float | None = None) -> T:
        """Send one command and return its answer.

        Raises:
            StoreUnavailable: Not reached, or no answer in time; `maybe_executed` tells whether it may have had effect.
            StoreError: Redis refused; nothing was written unless the script says otherwise.
        """
        self.begin(command)
        return self.finish(command, timeout_s)

    def begin(self, command: Command[Any]) -> None:
        """Send a command; `finish` on the same thread reads its answer, so work can be done in between."""
        self._send((command,))

    def _send(self, commands: Sequence[Command[Any]]) -> None:
        data = packed(commands)
        link = self.link()
        if link.has_ended():
            self.drop()
            link = self.link()
        elif link.unread:
            self.drop()  # Ctrl-C came between a request and its answer: that answer must not be taken for this one's
            link = self.link()
        try:
            link.send(data, len(commands), self._by_s)
        except (redis.RedisError, OSError) as error:
            self.drop()
            raise StoreUnavailable(
                f"lost Redis at {self.endpoint.where} while sending ({error})", maybe_executed=True
            ) from error
        except BaseException:
            self.drop()
            raise

    def finish(self, command: Command[T], timeout_s: float | None = None) -> T:
        """Read the answer of the command begun last on this thread."""
        try:
            reply = self._receive(timeout_s)
        except StoreError as failure:
            return self._after_refusal(command, failure)
        return command.read(reply)

    def _receive(self, timeout_s: float | None = None) -> Any:
        link: SyncLink = self._local.link
        try:
            return link.receive(_left_s(timeout_s or self._deadline_s, self._by_s))
        except (redis.RedisError, OSError) as error:
            where = self.endpoint.where
            if is_reply(error):
                failure = translated(error, where)
                if isinstance(failure, StoreUnavailable) or not isinstance(error, redis.ResponseError):
                    self.drop()
                raise failure from error
            self.drop()
            raise StoreUnavailable(f"lost Redis at {where} ({error})", maybe_executed=True) from error
        except BaseException:
            self.drop()
            raise

    def _after_refusal(self, command: Command[T], failure: StoreError) -> T:
        if isinstance(failure, NoScript) and command.script is not None:
            loaded = self.run(plain("SCRIPT", "LOAD", command.script.source))
            if loaded.decode() != command.script.sha:
                raise StoreRejected(f"Redis loaded {command.script} under another name")
            self._send((command,))
            try:
                return command.read(self._receive())
            except NoScript as again:
                raise unloaded(self.endpoint.where) from again
        if isinstance(failure, NoGroup) and command.if_gone is not RAISE:
            return command.if_gone  # type: ignore[no-any-return]
        raise failure

    def run_all(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send commands in one round trip and return their answers in order; the first refusal is raised at the end."""
        if not commands:
            return []
        self._send(commands)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(self._receive())
            except StoreUnavailable:
                self.drop()  # the other answers would be taken for those of the next request
                raise
            except StoreError as failure:
                replies.append(failure)
        return [
            self._after_refusal(command, reply) if isinstance(reply, StoreError) else command.read(reply)
            for command, reply in zip(commands, replies, strict=True)
        ]

    def server_ms(self) -> int:
        """Return the server's clock, milliseconds."""
        seconds, micros = self.run(plain("TIME"))
        return int(seconds) * 1000 + int(micros) // 1000

    def drop(self) -> None:
        """Give this thread's connection up; the next command makes a new one."""
        link: SyncLink | None = getattr(self._local, "link", None)
        self._local.link = None
        if link is not None and self._local.pid == os.getpid():
            link.close()

    def close(self) -> None:
        """Close this thread's connection; other threads' close with their threads."""
        self.drop()
