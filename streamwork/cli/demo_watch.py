"""The demo's main part: enqueue a file each, watch the results arrive, have a worker killed half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streamwork.cli.demo_tasks import FileFacts, app, scan
from streamwork.cli.demo_workers import Daemon, held_by
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import ResultError
from streamwork.handle import Handle
from streamwork.ids import task_id_at_ms

# Nothing is silent for so long: a dead worker's files come back within ten seconds.
_SILENCE_S = 60.0
# How long to look for an instant at which the worker to be killed holds something.
_PATIENCE_S = 5.0

Progress = Callable[[int, str], None]


@dataclass
class Kill:
    """One worker's end.

    Attributes:
        at_ms: When its processes were gone, steady clock.
        after: Results that had arrived.
        consumer: Its name in Redis.
        pids: Supervisor and worker process.
        held: Entries that it held.
    """

    at_ms: int
    after: int
    consumer: str
    pids: list[int]
    held: set[bytes]


@dataclass
class Observed:
    """What was seen; instants in ms of the steady clock.

    Attributes:
        handles: One per path, in their order.
        began_at_ms: Before the first was enqueued.
        enqueued_at_ms: When all were.
        results: By path.
        arrived_at_ms: By task id.
        latency_ms: By task id: from enqueue to result.
        failures: What ended otherwise, or not at all, in words.
        kill: None until it happened.
    """

    handles: list[Handle[FileFacts]] = field(default_factory=list)
    began_at_ms: int = 0
    enqueued_at_ms: int = 0
    results: dict[Path, FileFacts] = field(default_factory=dict)
    arrived_at_ms: dict[str, int] = field(default_factory=dict)
    latency_ms: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    kill: Kill | None = None


async def scan_all(queue: str, paths: Sequence[Path], victim: Daemon, progress: Progress) -> Observed:
    """Scan the files through the queue; `victim` is killed when half of the results are there.

    Args:
        queue: The queue of this run.
        paths: What to scan.
        victim: A registered worker.
        progress: Told (results that have arrived, what happened since) at each result.
    """
    seen = Observed(began_at_ms=SYSTEM_CLOCK.steady_ms())
    task = scan.options(queue=queue)
    seen.handles = await app.aenqueue_many(task.call(path) for path in paths)
    seen.enqueued_at_ms = SYSTEM_CLOCK.steady_ms()
    pairs = zip(paths, seen.handles, strict=True)
    waiting = [asyncio.create_task(_wait(seen, path, handle)) for path, handle in pairs]
    try:
        for done, result in enumerate(asyncio.as_completed(waiting), 1):
            async with asyncio.timeout(_SILENCE_S):
                await result
            news = ""
            if seen.kill is None and done >= len(paths) / 2:
                seen.kill = await asyncio.to_thread(_kill, queue, victim, done)
                news = f"worker {victim.number} killed while it held {len(seen.kill.held)} deliveries"
            progress(done, news)
    except TimeoutError:
        seen.failures.append(f"no result for {_SILENCE_S:g} s with {len(paths) - len(seen.results)} files to go")
    finally:
        for waiter in waiting:
            waiter.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return seen


async def _wait(seen: Observed, path: Path, handle: Handle[FileFacts]) -> None:
    try:
        facts = await handle
    except ResultError as error:
        seen.failures.append(f"{path}: {error}")
        return
    seen.results[path] = facts
    seen.arrived_at_ms[handle.id] = SYSTEM_CLOCK.steady_ms()
    seen.latency_ms[handle.id] = SYSTEM_CLOCK.now_ms() - (task_id_at_ms(handle.id) or 0)


def _kill(queue: str, victim: Daemon, after: int) -> Kill:
    driver, keys = app.connection.driver, app.connection.keys(queue)
    held = victim.kill_holding(lambda consumer: held_by(driver, keys, consumer), _PATIENCE_S)
    return Kill(SYSTEM_CLOCK.steady_ms(), after, victim.consumer, victim.pids, held)
