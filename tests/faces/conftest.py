"""Fixtures for the command line: a project folder of one's own, and `streamwork …` run in it as a process."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from streamwork.cli import main
from streamwork.config import redis_for_tests
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.sync_driver import SyncDriver
from streamwork.testing.server import PrivateServer
from tests.helpers import ROOT, WorkerProcess

TASKS = """
from __future__ import annotations

import asyncio
import os
import time
from datetime import datetime
from pathlib import Path

from streamwork import Reject, Retry, Streamwork

app = Streamwork({namespace!r})


@app.task
async def add(a: int, b: int = 1) -> int:
    return a + b


@app.task
def greet(name: str, *, loud: bool = False) -> str:
    return name.upper() if loud else name


@app.task
def when(at: datetime, path: Path) -> datetime:
    return at


@app.task(retry=None)
def boom(what: str) -> None:
    raise ValueError("no " + what)


@app.task(retry=Retry(max_attempts=5, base=600, jitter=False))
def flaky() -> None:
    raise OSError("later")


@app.task(queue="mail", tags={{"backend"}}, priority=8)
def send(to: str) -> str:
    return to


@app.task
def crash() -> None:
    os._exit(3)


@app.task
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"


@app.task
def slots() -> list[int]:
    return [app.config.worker.slots, os.getppid()]
"""


class Done(NamedTuple):
    """What a command left: its exit status and output, and how long it took."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def json(self):
        return json.loads(self.out)


class Project:
    """A folder with an app, and the command line in it.

    Args:
        folder: The project.
        variables: Environment beside the process's own, from which everything of ours is dropped.
    """

    def __init__(self, folder, variables):
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMWORK_", "COLUMNS"))}
        self.environ = {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **variables}

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def process(self, *args, within_s=30.0, folder=None, **variables):
        """Run the command line as a process."""
        began_at = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "streamwork", *map(str, args)],
            cwd=folder or self.folder,
            env={**self.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - began_at)

    def run(self, *args, folder=None, **variables):
        """Run a command in this process, as if it were one of its own: twenty times faster."""
        began_at = time.monotonic()
        out, err = io.StringIO(), io.StringIO()
        place = _place(folder or self.folder, {"COLUMNS": "200", **self.environ, **variables})
        with place, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main.run([str(arg) for arg in args])
        return Done(status, out.getvalue(), err.getvalue(), time.monotonic() - began_at)


@contextlib.contextmanager
def _place(folder, environ):
    """Be in a folder and an environment; modules imported from the folder and changed loggers are forgotten."""
    kept = (dict(os.environ), sys.path[:], Path.cwd(), set(sys.modules))
    with _own_logging():
        os.environ.clear()
        os.environ.update(environ)
        os.chdir(folder)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(kept[0])
            sys.path[:] = kept[1]
            os.chdir(kept[2])
            for name in set(sys.modules) - kept[3]:
                module = sys.modules[name]
                places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
                if any(place.startswith(str(folder)) for place in places):
                    del sys.modules[name]
            importlib.invalidate_caches()


@contextlib.contextmanager
def _own_logging():
    loggers = [logging.getLogger(name) for name in ("root", "streamwork", "asyncio", "redis", "watchfiles")]
    loggers[0] = logging.getLogger()
    kept = [(each, each.handlers[:], each.level, each.propagate) for each in loggers]
    try:
        yield
    finally:
        for each, handlers, level, propagate in kept:
            each.handlers[:], each.propagate = handlers, propagate
            each.setLevel(level)


@pytest.fixture
def bare(tmp_path):
    """A project without app, settings and Redis."""
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project", {})


@pytest.fixture
def project(tmp_path, redis_url, namespace):
    """A project whose tasks.py holds `TASKS`, on the Redis of the tests."""
    (tmp_path / "project").mkdir()
    made = Project(tmp_path / "project", {"STREAMWORK_URL": redis_url})
    made.write("tasks.py", TASKS.format(namespace=namespace))
    return made


class Server(PrivateServer):
    """A further redis-server, with options of its own."""

    def run(self, *command):
        driver = SyncDriver(Endpoint(self.url), ())
        try:
            return driver.run(plain(*command))
        finally:
            driver.close()


@pytest.fixture
def server():
    """Start further redis-servers with options of their own."""
    started = []

    def start(*options):
        started.append(Server(redis_for_tests()[1], *options))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def worker(request, namespace, redis_url):
    """Start workers in a project; their output is in `log`. An option that is None is left to the project."""
    started = []

    def start(*args, app="tasks:app", folder=None, **options):
        folder = folder or request.getfixturevalue("project").folder
        options = {"namespace": namespace, "redis_url": redis_url, **options}
        started.append(WorkerProcess(app, folder=folder, args=args, **options))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def root_logging():
    """Give the loggers back as they were."""
    with _own_logging():
        yield


def one_line(text):
    """Return an error's only line; fails for a traceback or more."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def log_lines(path: Path):
    """Return a worker's JSON log lines."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
