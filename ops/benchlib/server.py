"""The private redis-server of a benchmark."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchlib.probe import Probe
from benchlib.settings import BenchError

_START_S = 10.0


class PrivateRedis:
    """A redis-server on a port of its own: nothing persisted, or AOF everysec where a restart is part of the test."""

    def __init__(self, port: int, logs: Path, *, append_only: bool = False) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._append_only = append_only
        self._log = logs / f"redis-{port}.log"
        self._folder = tempfile.mkdtemp(prefix="streamwork-bench-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateRedis:
        try:
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            BenchError: There is no redis-server, or something else holds the port.
        """
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            raise BenchError("no redis-server on PATH: install it (Debian: apt-get install redis-server)")
        words = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--protected-mode", "no"]
        words += ["--dir", self._folder, "--loglevel", "warning", "--save", ""]
        words += ["--appendonly", "yes", "--appendfsync", "everysec"] if self._append_only else ["--appendonly", "no"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.025)
        self.stop()
        raise BenchError(f"redis-server did not start on port {self.port}: see {self._log}, or choose another --port")

    def _answers(self) -> bool:
        assert self._process is not None
        try:
            with Probe(self.port, 2.0) as probe:
                # A stranger's server on this port must never be flushed: only our own process counts.
                return int(probe.info("server")["process_id"]) == self._process.pid
        except (OSError, KeyError, ValueError):
            return False

    def stop(self) -> None:
        """Stop the server with SIGTERM and wait until it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)

    def connect(self) -> Probe:
        """Return a new connection."""
        return Probe(self.port)

    def flushed(self) -> Probe:
        """Empty the server and return a connection to it."""
        probe = self.connect()
        probe.flush()
        return probe
