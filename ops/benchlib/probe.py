"""A tiny Redis client for the harness: commands, counters and MONITOR, without any package."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from dataclasses import dataclass
from typing import Any

_SCRIPT_LINE = re.compile(rb"^\+[\d.]+ \[\d+ lua\] ")


class ServerError(Exception):
    """Redis answered with an error."""


@dataclass(frozen=True)
class Snapshot:
    """Counters of the server at one instant."""

    calls: dict[str, int]
    reads: int
    bytes_in: int
    bytes_out: int
    cpu_s: float
    memory: int
    keys: int

    def since(self, before: Snapshot, tasks: int) -> dict[str, Any]:
        """Return what was spent per task between `before` and this snapshot.

        The one INFO that took `before` is subtracted. `reads_per_task` counts the server's socket reads, an upper
        bound for round trips: a pipeline is one read, or one per 16 KiB. `cmds_per_task` includes what ran in scripts.
        """
        calls = {name: count - before.calls.get(name, 0) for name, count in self.calls.items()}
        calls["info"] = calls.get("info", 1) - 1
        spent = sorted(((name, count) for name, count in calls.items() if count > 0), key=lambda pair: -pair[1])
        share = 1 / max(tasks, 1)
        return {
            "cmds_per_task": sum(count for _, count in spent) * share,
            "reads_per_task": (self.reads - before.reads - 1) * share,
            "bytes_in": (self.bytes_in - before.bytes_in) * share,
            "bytes_out": (self.bytes_out - before.bytes_out) * share,
            "redis_us": (self.cpu_s - before.cpu_s) * share * 1e6,
            "mib_per_10k": (self.memory - before.memory) * share * 1e4 / 2**20,
            "commands": {name: round(count * share, 4) for name, count in spent[:12]},
        }


class Probe:
    """One connection to a local server."""

    def __init__(self, port: int, timeout_s: float = 30.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._socket.close()

    def send(self, *words: object) -> None:
        """Send one command without reading its answer."""
        encoded = [str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(encoded), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)]
        self._socket.sendall(b"".join(parts))

    def command(self, *words: object) -> Any:
        """Send one command and return its answer.

        Raises:
            ServerError: Redis refused the command.
            ConnectionError: The server is gone.
        """
        self.send(*words)
        return self._reply()

    def line(self) -> bytes:
        """Return the next raw line.

        Raises:
            ConnectionError: The server is gone.
        """
        line: bytes = self._file.readline()
        if not line:
            raise ConnectionError("Redis closed the connection")
        return line

    def _reply(self) -> Any:
        line = self.line()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise ServerError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._file.read(size + 2)[:-2].decode(errors="replace")
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        return rest.decode()

    def info(self, section: str = "everything") -> dict[str, str]:
        """Return INFO as a mapping."""
        lines = self.command("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def snapshot(self) -> Snapshot:
        """Read every counter with one INFO."""
        info = self.info()
        prefix = "cmdstat_"
        calls = {
            name[len(prefix) :]: int(value.split("calls=")[1].split(",")[0])
            for name, value in info.items()
            if name.startswith(prefix)
        }
        return Snapshot(
            calls=calls,
            reads=int(info["total_reads_processed"]),
            bytes_in=int(info["total_net_input_bytes"]),
            bytes_out=int(info["total_net_output_bytes"]),
            cpu_s=float(info["used_cpu_user"]) + float(info["used_cpu_sys"]),
            memory=int(info["used_memory"]),
            keys=int(info.get("db0", "keys=0").split("keys=")[1].split(",")[0]),
        )

    def flush(self) -> None:
        """Empty the server: data, scripts, functions, free pages."""
        for words in (("FLUSHALL", "SYNC"), ("SCRIPT", "FLUSH"), ("FUNCTION", "FLUSH"), ("MEMORY", "PURGE")):
            # FUNCTION came with 7.0.
            with contextlib.suppress(ServerError):
                self.command(*words)


class ClientCommandCounter:
    """Count the commands that clients sent, without those that scripts ran, by MONITOR.

    MONITOR slows the server down: use it for counting only, never in a timed run.
    """

    _END = "streamwork-bench-end"

    def __init__(self, port: int) -> None:
        self.count = 0
        self._port = port
        self._monitor = Probe(port)
        self._monitor.command("MONITOR")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        end = self._END.encode()
        while True:
            line = self._monitor.line()
            if end in line:
                return
            if not _SCRIPT_LINE.match(line):
                self.count += 1

    def finish(self) -> int:
        """Stop counting once everything sent so far has been seen, and return the count."""
        with Probe(self._port) as marker:
            marker.command("ECHO", self._END)
        self._thread.join(30)
        self._monitor.close()
        return self.count
