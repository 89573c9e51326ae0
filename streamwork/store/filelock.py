"""Advisory file locks that end with their holder, however it ends.

The lock belongs to the open file: forked children share it, an exec drops it, and it is given back when the last copy
of the descriptor closes. It is therefore never unlocked by hand, which would take it from a fork's other half as well.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from pathlib import Path

from streamwork.clock import SYSTEM_CLOCK

if sys.platform != "win32":
    import fcntl

# Locks are waited for while a server starts or stops, which takes 100 ms or more.
_POLL_S = 0.02


class FileLock:
    """One held lock; it goes when this object is closed, collected, or its process and forks have ended."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self._closing = weakref.finalize(self, _close, fd, os.fstat(fd))

    def close(self) -> None:
        """Let go of this process's share; repeated calls do nothing."""
        self._closing()

    def is_current(self) -> bool:
        """Return whether the path still names the locked file, and not another one made after a removal."""
        return _is_same_file(self.path, self.fd)


def try_lock(path: Path, *, shared: bool) -> FileLock | None:
    """Take the lock without waiting, making the file where it is missing; None = another holder is in the way.

    Raises:
        OSError: The file cannot be made or locked.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        if _is_same_file(path, fd):
            return FileLock(path, fd)
        os.close(fd)


def wait_lock(path: Path, *, shared: bool, timeout_s: float) -> FileLock | None:
    """Take the lock, waiting up to `timeout_s` seconds for its holders; None = they are still there.

    Raises:
        OSError: The file cannot be made or locked.
    """
    give_up_at_ms = SYSTEM_CLOCK.steady_ms() + int(timeout_s * 1000)
    while (lock := try_lock(path, shared=shared)) is None and SYSTEM_CLOCK.steady_ms() < give_up_at_ms:
        time.sleep(_POLL_S)
    return lock


def _is_same_file(path: Path, fd: int) -> bool:
    try:
        return _is_open(fd, path.stat())
    except FileNotFoundError:
        return False


def _is_open(fd: int, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), status)
    except OSError:
        return False


def _close(fd: int, status: os.stat_result) -> None:
    # A process that turned itself into a daemon may have closed all its descriptors and reused the number.
    if _is_open(fd, status):
        os.close(fd)
