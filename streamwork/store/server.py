"""The embedded Redis: a private, persistent redis-server of one project folder, shared by all processes that use it.

What keeps it sound, whoever dies when:

- Every user holds a shared lock on `users`, taken before it looks whether a server is there.
- A guardian is the server's parent. It stops the server only while it holds `users` exclusively, until both are gone.
- `start.lock` is taken by who starts, and inherited by guardian and server: free means that neither lives.
- Locks end with their holders, so there is nothing to clean up after a kill -9, a power cut or a copied folder.

The folder may be shared by the containers of one machine. On a network disk without locks between machines two of them
could both start a server; use one Redis with a URL there.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import EmbeddedError
from streamwork.store import guardian
from streamwork.store.binary import find_server_binary, server_version
from streamwork.store.filelock import FileLock, try_lock, wait_lock
from streamwork.store.place import Place, choose_socket, prepare

logger = logging.getLogger(__name__)

_POLL_S = 0.02

# The guardian's own start takes 50 ms of Python; the rest is for a machine that is busy with twenty others.
_LAUNCH_TIMEOUT_S = 10.0

# A new starter needs a moment to replace the note of a machine that is long gone.
_FOREIGN_AFTER_MS = 1000

# Enough for years of starts and for the last rewrite; older lines help nobody.
_LONGEST_LOG = 1_000_000

_LOG_PREFIX = re.compile(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ . ")


def join(
    folder: Path,
    *,
    binary: str | None = None,
    runtime_dir: str | None = None,
    start_timeout_s: float = 10.0,
) -> EmbeddedServer:
    """Use the embedded Redis of a folder, starting it if it does not run.

    Blocks for about a millisecond where it runs and some 200 ms where it does not. The server runs at least for as long
    as the returned object, or any fork of this process, is alive and not closed. Any number may be held at a time.

    Args:
        folder: Made if missing, with mode 0700.
        binary: The redis-server to start; None looks for one (`find_server_binary`). Unused where one runs already.
        runtime_dir: Value of XDG_RUNTIME_DIR, for the socket of a folder with a long name; None = not set.
        start_timeout_s: Seconds, > 0, without a sign of life. Reading large files is one: it is waited for.

    Raises:
        EmbeddedError: It cannot be started, reached or shared; the message says why and what to do. No lock is kept.
    """
    return EmbeddedServer(folder, binary=binary, runtime_dir=runtime_dir, start_timeout_s=start_timeout_s)


class EmbeddedServer:
    """One user's share in an embedded Redis; made by `join`.

    Attributes:
        folder: The server's folder, absolute, without symbolic links.
        socket_path: Where it listens.
    """

    def __init__(self, folder: Path, *, binary: str | None, runtime_dir: str | None, start_timeout_s: float) -> None:
        if sys.platform == "win32":
            raise EmbeddedError("there is no embedded Redis on Windows: set STREAMWORK_URL to a Redis of your own")
        if start_timeout_s <= 0:
            raise ValueError(f"start_timeout_s={start_timeout_s}: must be above zero")
        self.folder = folder
        self.socket_path = ""
        self._binary = binary
        self._runtime_dir = runtime_dir
        self._start_timeout_s = start_timeout_s
        self._users: FileLock | None = None
        self._closed = False
        try:
            self.ensure()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Return what redis-py's `from_url` takes."""
        return f"unix://{quote(self.socket_path)}?db=0"

    def ensure(self) -> str:
        """Make sure that the server runs, and return its URL; for a user whose connection broke and stays so.

        The guardian restarts a server that dies, but whoever kills the guardian or removes the folder takes the server
        away from its users. This starts it again, and takes a new share where the old one is void. Any thread may call.

        Raises:
            EmbeddedError: As for `join`, or closed.
        """
        if self._closed:
            raise EmbeddedError(f"this share in the embedded Redis of {self.folder} is closed: call join again")
        try:
            place = prepare(self.folder)
            if self._users is None or not self._users.is_current():
                self._users = self._become_user(place)
            if self._closed:
                self._users.close()
            self.folder = place.folder
            self.socket_path = _Arrival(place, self._binary, self._runtime_dir, self._start_timeout_s).reach()
        except OSError as error:
            raise EmbeddedError(
                f"{self.folder} cannot hold an embedded Redis: {error.strerror or error}: "
                "make it a writable folder on a local disk, or set STREAMWORK_URL to a Redis of your own"
            ) from error
        return self.url

    def heal(self) -> None:
        """Start the server again where it and its guardian are gone; returns at once where one of them lives.

        Raises:
            EmbeddedError: As for `ensure`.
        """
        if self._closed or self._users is None:
            return
        if self._users.is_current():
            place = Place(self.folder)
            try:
                lock = try_lock(place.start_lock, shared=False)
            except OSError:
                lock = None  # `ensure` says what is wrong with it when it is needed next
            if lock is None:
                return
            lock.close()
        self.ensure()

    def close(self) -> None:
        """Give up this share; the server stops within ten seconds if it was the last one. Repeated calls do nothing."""
        self._closed = True
        if self._users is not None:
            self._users.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _become_user(self, place: Place) -> FileLock:
        lock = wait_lock(place.users, shared=True, timeout_s=self._start_timeout_s)
        if lock is None:
            raise EmbeddedError(
                f"the embedded Redis in {place.folder} has been stopping for {self._start_timeout_s:g} s: "
                f"see {place.server_log}, and try again"
            )
        return lock


class _Arrival:
    """One attempt of a user, who holds a share, to reach the server or to start it."""

    def __init__(self, place: Place, binary: str | None, runtime_dir: str | None, timeout_s: float) -> None:
        self._place = place
        self._binary = binary
        self._runtime_dir = runtime_dir
        self._timeout_s = timeout_s
        self._began_at_ms = SYSTEM_CLOCK.steady_ms()
        self._alive_at_ms = self._began_at_ms
        self._launched = False
        self._logs_from = {log: _size(log) for log in (place.server_log, place.guardian_log)}

    def reach(self) -> str:
        while True:
            socket_path = self._place.socket_path()
            state = guardian.probe(socket_path, os.path.realpath(self._place.data)) if socket_path else guardian.SILENT
            if socket_path and state == guardian.READY:
                return socket_path
            if state == guardian.LOADING:
                # Given up, this user would be gone, the server be stopped for it, and the next would begin anew.
                self._alive_at_ms = SYSTEM_CLOCK.steady_ms()
            self._start_if_dead()
            self._check_patience()
            time.sleep(_POLL_S)

    def _start_if_dead(self) -> None:
        lock = try_lock(self._place.start_lock, shared=False)
        if lock is None:
            return
        try:
            if self._launched:
                raise EmbeddedError(
                    f"the embedded Redis in {self._place.folder} ended at its start: {self._last_words()}"
                )
            self._launch(lock)
            self._launched = True
        finally:
            lock.close()

    def _launch(self, lock: FileLock) -> None:
        place = self._place
        binary = find_server_binary(self._binary)
        self._refuse_older(binary)
        socket_path = choose_socket(place, self._runtime_dir)
        place.note_start(socket_path)
        for log in self._logs_from:
            if _size(log) > _LONGEST_LOG:
                os.truncate(log, 0)
            self._logs_from[log] = _size(log)
        if not sys.executable:
            raise EmbeddedError(
                "this Python does not know its own executable: set STREAMWORK_URL to a Redis of your own"
            )
        self._run_guardian(binary, socket_path, lock)
        logger.debug("embedded redis launched", extra={"folder": str(place.folder), "binary": binary})

    def _run_guardian(self, binary: str, socket_path: str, lock: FileLock) -> None:
        folder = self._place.folder
        # By file and isolated: nothing of the user's packages and paths reaches a process that outlives its starter.
        command = [sys.executable, "-I", "-S", guardian.__file__, binary, str(folder), socket_path, str(lock.fd)]
        with self._place.guardian_log.open("ab") as output:
            try:
                status = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=folder,
                    start_new_session=True,
                    pass_fds=(lock.fd,),
                    timeout=_LAUNCH_TIMEOUT_S,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired as error:
                raise EmbeddedError(f"the guardian of {folder} did not start: {self._last_words()}") from error
        if status:
            raise EmbeddedError(f"the guardian of {folder} did not start: {self._last_words()}")

    def _refuse_older(self, binary: str) -> None:
        # Redis 7 keeps its append-only files in a folder that 6.2 does not look into: it would serve an empty database.
        if (self._place.data / "appendonlydir").exists() and server_version(binary) < (7,):
            raise EmbeddedError(
                f"{self._place.data} was written by Redis 7 or newer and {binary} is older: set "
                "STREAMWORK_REDIS_SERVER to the newer server, or remove the folder to begin without its data"
            )

    def _check_patience(self) -> None:
        now_ms = SYSTEM_CLOCK.steady_ms()
        if now_ms - self._began_at_ms > _FOREIGN_AFTER_MS and (owner := self._place.foreign_host()):
            raise EmbeddedError(
                f"the embedded Redis in {self._place.folder} is in use on another machine ({owner}): "
                "it serves one machine; set STREAMWORK_URL to a Redis that both can reach"
            )
        if now_ms - self._alive_at_ms > self._timeout_s * 1000:
            raise EmbeddedError(
                f"the embedded Redis in {self._place.folder} runs and does not answer for {self._timeout_s:g} s: "
                f"{self._last_words()}"
            )

    def _last_words(self) -> str:
        for log, start in self._logs_from.items():
            try:
                lines = log.read_bytes()[start:].decode(errors="replace").split("\n")
            except FileNotFoundError:
                continue
            said = [line.strip() for line in lines if line.strip()]
            if said:
                return f"{_LOG_PREFIX.sub('', said[-1])} (from {log})"
        return f"it said nothing; see {self._place.server_log}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
