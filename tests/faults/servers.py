"""Redis servers with something of their own: a disk that fills, a clock that can be set, less care of the disk."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from streamwork.config import redis_for_tests
from streamwork.store.binary import find_server_binary
from streamwork.testing.server import PrivateServer

_SHIM = Path(__file__).with_name("clock_shim.c")
_DISK_MB = 3
# What of its disk a server is left when it is full: the next few writes find none.
_LEFT = 8_192


def careful(_stage):
    """Return a Redis that keeps what it acknowledged.

    With `everysec` writes wait in memory while an fsync goes on, and a kill loses them.
    """
    return PrivateServer(redis_for_tests()[1], "--appendonly", "yes", "--appendfsync", "always")


def everysec(_stage):
    """Return a Redis with `appendfsync everysec`, as most run it."""
    return PrivateServer(redis_for_tests()[1], "--appendonly", "yes", "--appendfsync", "everysec")


def _wrapped(folder, name, lines):
    """Write a script that prepares something and becomes the redis-server."""
    path = folder / name
    binary = find_server_binary(redis_for_tests()[1])
    path.write_text("\n".join(["#!/bin/sh", 'case "$1" in --version) ;; *)', *lines, ";; esac", f'exec {binary} "$@"']))
    path.chmod(0o755)
    return str(path)


class SmallDisk(PrivateServer):
    """A Redis whose AOF is on a small tmpfs, in a mount namespace of its own that ends with it.

    Args:
        folder: Where the tmpfs is mounted, as the server sees it.
    """

    def __init__(self, folder):
        self._disk = folder / "disk"
        self._disk.mkdir()
        mount = f"mount -t tmpfs -o size={_DISK_MB}m tmpfs {self._disk} || exit 9"
        me = '[ -n "$HAS_DISK" ] || HAS_DISK=1 exec unshare --mount "$0" "$@"'
        binary = _wrapped(folder, "redis-on-small-disk", [me, mount])
        # With `always` Redis ends where it cannot write.
        super().__init__(binary, "--appendonly", "yes", "--appendfsync", "everysec", "--dir", str(self._disk))

    @property
    def _filler(self):
        return Path(f"/proc/{self.pid}/root{self._disk}/filler")

    def fill(self):
        """Leave it no room to speak of, and return how many bytes are free."""
        with self._filler.open("wb") as file:
            free = os.statvfs(self._filler.parent)
            file.write(b"x" * max(0, free.f_bavail * free.f_bsize - _LEFT))
        free = os.statvfs(self._filler.parent)
        return free.f_bavail * free.f_bsize

    def empty(self):
        """Give it room again."""
        self._filler.unlink()


def small_disk(stage):
    """Return a Redis whose disk can be filled."""
    return SmallDisk(stage.folder)


@cache
def why_no_small_disk():
    """Return why no tmpfs can be mounted here, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
        try:
            tried = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return "no unshare(1)"
        return "" if tried.returncode == 0 else f"no tmpfs of its own: {tried.stderr.strip()}"


class Clock:
    """A wall clock that processes started with `environ` have, and that may be set.

    Args:
        folder: For its files.
    """

    def __init__(self, folder):
        self._file, library = folder / "clock", folder / "clock.so"
        self._file.write_bytes(struct.pack("d", 0.0))
        subprocess.run([_compiler(), "-O2", "-shared", "-fPIC", "-o", library, _SHIM], check=True)
        self.environ = {"LD_PRELOAD": str(library), "CLOCK_SHIM_FILE": str(self._file)}

    def step(self, seconds):
        """Set it so much forward from the true time; all see it at once."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("d", float(seconds)))


def clocked(stage):
    """Return a Redis with a clock that can be set, which is `server.clock`."""
    clock = Clock(stage.folder)
    lines = [f"export {name}='{value}'" for name, value in clock.environ.items()]
    binary = _wrapped(stage.folder, "redis-with-clock", lines)
    server = PrivateServer(binary, "--appendonly", "yes", "--appendfsync", "always")
    server.clock = clock
    return server


def _compiler():
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def why_no_clock():
    """Return why no clock can be set here, or ""."""
    return "" if _compiler() else "no C compiler, and the wall clock of the machine is everybody's"


# How the Redis of a scenario is made: takes the stage, returns what has `url`, `pid`, `start`, `stop`, `close`.
SERVER_KINDS = {"unix": careful, "everysec": everysec, "small-disk": small_disk, "clock": clocked}
