"""The parent of the embedded redis-server: starts it, restarts it, and stops it when its last user has gone.

Runs as a program of its own, outside of every user's session, from this one file and the standard library, because
it lives as long as the server does. Its arguments are those of `Guardian`; the descriptor is that of `start.lock`,
locked by the user that started it. Guardian and server keep it open, so whoever gets that lock knows both to be dead.
"""

# One guardian runs per project folder, all day: it stays at the few modules that it cannot do without.
# ruff: noqa: PTH103, PTH108, PTH116, PTH118

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

if sys.platform != "win32":
    import fcntl

READY = "ready"
LOADING = "loading"
SILENT = "silent"

# Users may be gone for up to this long before the server is; ten seconds are promised.
_TICK_S = 1.0
_STARTING_TICK_S = 0.05

# Leaves room for the tick within the ten seconds; Redis flushes and ends within milliseconds unless its disk hangs.
_STOP_S = 7.0

_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
# A server that has served for this long has earned a quick restart again.
_HEALTHY_S = 10.0

# The socket is there within milliseconds, before any file is read; a server without one after this long is of no use.
_SOCKET_S = 5.0

# Ending by itself before it was seen to serve is final. Killed then may be chance; three times is not.
_STRIKES = 3

_PROBE_TIMEOUT_S = 1.0
_PR_SET_PDEATHSIG = 1


def probe(socket_path: str, data: str) -> str:
    """Ask a server whether it serves the given data folder.

    Args:
        socket_path: Of its unix socket.
        data: Its working directory, absolute and without symbolic links.

    Returns:
        READY, LOADING (alive, reading its files), or SILENT (nobody there, hanging, or serving something else).
    """
    folder = os.fsencode(data)
    expected = b"+PONG\r\n*2\r\n$3\r\ndir\r\n$%d\r\n%b\r\n" % (len(folder), folder)
    reply = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PROBE_TIMEOUT_S)
            connection.connect(socket_path)
            connection.sendall(b"PING\r\nCONFIG GET dir\r\n")
            while reply != expected and expected.startswith(reply):
                received = connection.recv(4096)
                if not received:
                    return SILENT
                reply += received
    except (OSError, ValueError):
        return SILENT
    if reply == expected:
        return READY
    return LOADING if reply.startswith(b"-LOADING") else SILENT


class Guardian:
    """Keeps one redis-server as its child.

    Args:
        binary: Path of redis-server.
        folder: Of the embedded server, absolute.
        socket_path: Where the server is to listen.
        lock_fd: Descriptor of `start.lock`, locked and inheritable.
    """

    def __init__(self, binary: str, folder: str, socket_path: str, lock_fd: int) -> None:
        self.binary = binary
        self.folder = folder
        self.socket_path = socket_path
        self.data = os.path.join(folder, "data")
        self.lock_fd = lock_fd
        self.users_fd = os.open(os.path.join(folder, "users"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.pid = 0
        self.data_id = (0, 0)
        self.spawned_at = 0.0
        self.served = False
        self.strikes = 0
        self.ready_at: float | None = None
        self.restart_at = 0.0
        self.backoff_s = _FIRST_BACKOFF_S
        self.was_told = self.told_to_stop = False
        self.wake_fd, wake_writer = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(wake_writer, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        self.prctl = _find_prctl()

    def run(self) -> int:
        """Serve until nobody is left, and return the exit status: 1 when the server never came to serve."""
        self._spawn()
        while not self.told_to_stop:
            self._pause(_TICK_S if self.ready_at is not None else _STARTING_TICK_S)
            if self._is_replaced():
                # By path, an orderly stop would remove the socket of whoever uses the new folder.
                self._log("the folder was removed: ending at once")
                self._kill()
                return 0
            if self._reap() and self.strikes >= _STRIKES:
                return 1
            self._tend()
            if self._nobody_left():
                break
        self._stop()
        return 0

    def told(self) -> None:
        """Hear SIGTERM. Who stops a service tells all its processes, and the users need the server: twice means it."""
        self.told_to_stop = self.was_told
        self.was_told = True

    def _tend(self) -> None:
        now = time.monotonic()
        if not self.pid:
            if now >= self.restart_at:
                self._spawn()
        elif self.ready_at is None:
            if probe(self.socket_path, os.path.realpath(self.data)) == READY:
                self.served = True
                self.ready_at = now
                self._log(f"redis-server {self.pid} serves at {self.socket_path}")
            elif now - self.spawned_at > _SOCKET_S:
                self._kill_if_torn()
        else:
            self._kill_if_torn()
            if now - self.ready_at > _HEALTHY_S:
                self.backoff_s = _FIRST_BACKOFF_S

    def _spawn(self) -> None:
        try:
            os.makedirs(self.data, mode=0o700, exist_ok=True)
            self.data_id = _identity(os.stat(self.data))
            self.spawned_at = time.monotonic()
            parent = os.getpid()
            self.pid = os.fork()
        except OSError as error:
            self._log(f"cannot start {self.binary}: {error}")
            self._back_off()
            return
        if self.pid == 0:
            self._become_server(parent)

    def _become_server(self, parent: int) -> None:
        try:
            if self.prctl is not None:
                self.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
                # The guardian may have died before the line above could take effect.
                if os.getppid() != parent:
                    os._exit(1)
            os.execv(self.binary, self._server_arguments())  # noqa: S606 - no shell wanted
        except OSError as error:
            self._log(f"cannot run {self.binary}: {error.strerror}")
        finally:
            os._exit(127)

    def _server_arguments(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": self.socket_path,
            "unixsocketperm": "700",
            "dir": self.data,
            "logfile": os.path.join(self.folder, "redis.log"),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        return [self.binary, *(part for name, value in options.items() for part in (f"--{name}", value))]

    def _reap(self) -> bool:
        if not self.pid:
            return False
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return False
        self.pid = 0
        self._log(f"redis-server ended with status {os.waitstatus_to_exitcode(status)}")
        if not self.served:
            self.strikes += 1 if os.WIFSIGNALED(status) else _STRIKES
        self._back_off()
        return True

    def _back_off(self) -> None:
        self.ready_at = None
        self.restart_at = time.monotonic() + self.backoff_s
        self.backoff_s = min(2 * self.backoff_s, _LONGEST_BACKOFF_S)

    def _nobody_left(self) -> bool:
        # Held until this process ends: a new user waits for that, and so never joins a server on its way out.
        try:
            fcntl.flock(self.users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_replaced(self) -> bool:
        try:
            locks = {"users": self.users_fd, "start.lock": self.lock_fd}
            return any(_identity(os.stat(os.path.join(self.folder, n))) != _identity(os.fstat(locks[n])) for n in locks)
        except FileNotFoundError:
            return True

    def _kill_if_torn(self) -> None:
        try:
            os.stat(self.socket_path)
            torn = _identity(os.stat(self.data)) != self.data_id
        except FileNotFoundError:
            torn = True
        if torn:
            self._log("the socket or the data folder is missing: restarting redis-server")
            os.kill(self.pid, signal.SIGKILL)

    def _stop(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
        give_up_at = time.monotonic() + _STOP_S
        while self.pid and not self._reap() and time.monotonic() < give_up_at:
            self._pause(_STARTING_TICK_S)
        self._kill()
        for path in (self.socket_path, os.path.join(self.folder, "host")):
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue

    def _kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def _pause(self, longest_s: float) -> None:
        if select.select([self.wake_fd], [], [], longest_s)[0]:
            os.read(self.wake_fd, 4096)

    def _log(self, message: str) -> None:
        sys.stderr.write(f"{os.getpid()} {time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")
        sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Leave the starter's family and guard; returns the exit status."""
    binary, folder, socket_path, lock_fd = arguments
    # Twice removed from the starter, which then has no child to wait for that it does not know of.
    if os.fork():
        return 0
    os.umask(0o077)
    # Redis 7.0 refuses to start under a locale that is not installed.
    os.putenv("LC_ALL", "C")
    guardian = Guardian(binary, folder, socket_path, int(lock_fd))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: guardian.told())
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    # The starter's mask is inherited, and with it a SIGTERM that would never arrive here or at the server.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return guardian.run()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _find_prctl() -> Callable[..., int] | None:
    # Users of the server import this module for `probe` and need not pay for ctypes.
    import ctypes

    try:
        prctl: Callable[..., int] = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None
    return prctl


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
