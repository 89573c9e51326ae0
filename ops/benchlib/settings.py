"""What the user asked for, where things live, and how the harness speaks."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

OPS = Path(__file__).resolve().parent.parent
CHECKOUT = OPS.parent


class BenchError(Exception):
    """The benchmark cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """One invocation of `ops/bench`.

    Attributes:
        tasks: Tasks per throughput run.
        enqueue_cap_s: A producer stops sending after this long; its rate covers what it sent.
        drain_cap_s: A drain is cut this long after its first task; its rate covers what finished.
        latency_samples: Tasks per latency run, at most; `latency_cap_s` may end it earlier.
        fault_window_s: How long W7 and W8 wait for a system to recover.
    """

    peers: tuple[str, ...]
    workloads: tuple[str, ...]
    rounds: int
    tasks: int
    port: int
    floor: bool
    upgrade: bool
    json_path: Path | None
    enqueue_cap_s: float = 6.0
    drain_cap_s: float = 9.0
    latency_samples: int = 500
    latency_cap_s: float = 8.0
    fault_window_s: float = 120.0


def home() -> Path:
    """Return the folder of environments and logs: $STREAMWORK_BENCH_HOME, else ~/.cache/streamwork-bench."""
    chosen = os.environ.get("STREAMWORK_BENCH_HOME")
    folder = Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "streamwork-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def logs() -> Path:
    """Return the folder for what the servers, workers and producers print."""
    folder = home() / "logs"
    folder.mkdir(exist_ok=True)
    return folder


def say(text: str) -> None:
    """Print one progress line on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
