"""`--floor`: raw redis-py, redis-benchmark and the bare machinery, as rows beside the peers of the same round."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

from benchlib.peer import clean_environment, parse_marked, venv_folder
from benchlib.recorder import FINISHED
from benchlib.records import RecordFile
from benchlib.settings import OPS, BenchError, logs
from benchlib.throughput import Arena, Figures, span_of

_BODY_BYTES = 90
# W4 ideally runs 100 slots / 50 ms = 2,000 a second.
_IDEAL_PER_PCT = 20


@dataclass(frozen=True)
class Ceiling:
    """One row of the floor.

    Attributes:
        kind: "floor" or "machinery" (modules of this package) or "redis-benchmark".
        words: Arguments for it.
        factor: How many times the usual number of tasks it takes to be timed well.
    """

    label: str
    kind: str
    words: tuple[str, ...]
    factor: float = 1


_PIPELINE = Ceiling("raw pipeline 100", "floor", ("pipeline",), factor=5)
_BENCHMARK_BULK = Ceiling("redis-benchmark P100", "redis-benchmark", ("-c", "1", "-P", "100"), factor=25)
CEILINGS: dict[str, tuple[Ceiling, ...]] = {
    "W1": (
        Ceiling("raw loop", "floor", ("loop",)),
        Ceiling("redis-benchmark c1", "redis-benchmark", ("-c", "1")),
    ),
    "W1b": (_PIPELINE, _BENCHMARK_BULK),
    "W1c": (_PIPELINE, Ceiling("raw asyncio pipe 100", "floor", ("asyncio-pipeline",), factor=5)),
    "W2": (
        Ceiling("machinery task", "machinery", ("task",)),
        Ceiling("machinery slots", "machinery", ("slots",)),
        Ceiling("machinery task uvloop", "machinery", ("task", "--uvloop")),
        Ceiling("raw read+ack 1", "floor", ("read-ack",)),
        Ceiling("raw read+ack 100", "floor", ("read-ack-100",), factor=5),
    ),
    "W2t": (Ceiling("machinery threads", "machinery", ("threads",)),),
    "W4": (Ceiling("machinery task uvloop", "machinery", ("task", "--uvloop", "--sleep=0.05", "--slots=100"), 0.25),),
}


def run(arena: Arena, ceiling: Ceiling) -> Figures:
    """Measure one ceiling on an empty server.

    Raises:
        BenchError: It failed, or did not do every task once.
    """
    tasks = int(arena.options.tasks * ceiling.factor)
    with arena.server.flushed():
        if ceiling.kind == "redis-benchmark":
            return {"rate": _redis_benchmark(arena.server.port, ceiling.words, tasks)}
        with RecordFile() as records:
            figures = _module(arena, ceiling, tasks, records)
            if ceiling.kind == "floor":
                return {"rate": figures["sent"] / figures["seconds"]}
            delivery = records.delivery(tasks)
            events = records.read()
    # Measured like a peer's drain: from the first to the last record. Where starts are recorded, none is before it.
    ends = sum(event.kind == FINISHED for event in events)
    rate = (ends if ends < len(events) else ends - 1) / span_of([event.at_ns for event in events])
    if ceiling.words[-1] == "--slots=100":
        return {"rate": rate, "ideal_pct": rate / _IDEAL_PER_PCT, **delivery.as_dict()}
    return {"rate": rate, "kept_per_task": figures["results"] / tasks, **delivery.as_dict()}


def _module(arena: Arena, ceiling: Ceiling, tasks: int, records: RecordFile) -> Figures:
    log = logs() / f"{ceiling.kind}.log"
    python = str(venv_folder("raw") / "bin" / "python")
    words = [python, "-m", f"benchlib.{ceiling.kind}", *ceiling.words, "--tasks", str(tasks)]
    environment = clean_environment(arena.server.port, records.path, arena.burn_loops)
    with log.open("ab") as errors:
        finished = subprocess.run(
            words, check=False, cwd=OPS, env=environment, stdout=subprocess.PIPE, stderr=errors, timeout=180
        )
    figures: Figures = parse_marked(finished.stdout, ceiling.label, log)
    return figures


def _redis_benchmark(port: int, words: tuple[str, ...], tasks: int) -> float:
    binary = shutil.which("redis-benchmark")
    if binary is None:
        raise BenchError("no redis-benchmark on PATH: it comes with Redis (Debian: apt-get install redis-tools)")
    command = [binary, "-p", str(port), "-n", str(tasks), "--csv", *words, "XADD", "stream", "*", "data"]
    output = subprocess.run([*command, "x" * _BODY_BYTES], check=True, capture_output=True, text=True).stdout
    # "test","rps","avg latency", … : the command holds commas of its own only inside its quotes.
    return float(output.strip().splitlines()[-1].split('","')[1])
