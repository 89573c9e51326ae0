"""What the demo found: the facts, and what would make it fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from streamwork.cli.demo_tasks import FileFacts
from streamwork.cli.demo_watch import Observed
from streamwork.model.state import State
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.store.sync_driver import SyncDriver
from streamwork.wire.message import JournalRecord, decode_journal

_PAGE = 1000


class Totals(msgspec.Struct, frozen=True):
    """The sums over all files; `unparsable` counts those that do not parse."""

    files: int
    unparsable: int
    lines: int
    functions: int
    classes: int
    imports: int


class Facts(msgspec.Struct, frozen=True):
    """What one run of the demo found; spans in ms, rates per second.

    Attributes:
        files: Files enqueued.
        elapsed_ms: From the first enqueue to the last result, recovery included.
        enqueue_ms: All of the enqueueing.
        files_per_s: Over all of `elapsed_ms`.
        p50_ms: Median of enqueue → result; all files were enqueued at once.
        p99_ms: 99th percentile of it.
        by_worker: Files that each worker finished; the first one was killed.
        killed_after: Results that had arrived by then.
        held: Deliveries that the killed worker held.
        reclaimed: Those of them that another worker finished.
        first_recovered_ms: From the kill to the result of the first of them; None = there was none.
        last_recovered_ms: To the last.
        lost: Files without a committed outcome.
        committed_twice: Files with more than one.
        totals: As scanned through the queue.
        direct: As computed by this process alone.
        direct_ms: How long that took.
        problems: Why the run failed, in words; empty = it did not.
    """

    files: int
    elapsed_ms: int
    enqueue_ms: int
    files_per_s: float
    p50_ms: int
    p99_ms: int
    by_worker: list[int]
    killed_after: int
    held: int
    reclaimed: int
    first_recovered_ms: int | None
    last_recovered_ms: int | None
    lost: int
    committed_twice: int
    totals: Totals
    direct: Totals
    direct_ms: int
    problems: list[str]


def total(facts: Iterable[FileFacts]) -> Totals:
    """Return the sums."""
    found = list(facts)
    return Totals(
        files=len(found),
        unparsable=sum(not fact.parses for fact in found),
        lines=sum(fact.lines for fact in found),
        functions=sum(fact.functions for fact in found),
        classes=sum(fact.classes for fact in found),
        imports=sum(fact.imports for fact in found),
    )


def journal(driver: SyncDriver, keys: QueueKeys) -> Iterator[JournalRecord]:
    """Read the whole journal of a queue."""
    start = "-"
    while page := driver.run(plain("XRANGE", keys.journal, start, "+", "COUNT", _PAGE)):
        for _, fields in page:
            yield decode_journal(fields[1])
        start = "(" + page[-1][0].decode()


def percentile(spans: Iterable[int], share: float) -> int:
    """Return the smallest span that `share` (0-1) of all do not exceed; 0 where there is none."""
    ordered = sorted(spans)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0


def gather(
    seen: Observed, records: Sequence[JournalRecord], direct: Mapping[Path, FileFacts], direct_ms: int, killed: str
) -> Facts:
    """Put the facts together and judge them.

    Args:
        seen: What the producer saw.
        records: The journal.
        direct: What this process computed by itself.
        direct_ms: How long that took.
        killed: Consumer name of the worker to be killed.
    """
    committed = [record for record in records if record.state == State.SUCCEEDED]
    per_id = Counter(record.id for record in committed)
    last_ms = max(seen.arrived_at_ms.values(), default=seen.enqueued_at_ms)
    held = seen.kill.held if seen.kill else set()
    reclaimed = [record.id for record in committed if record.entry in held and record.consumer != killed]
    killed_at_ms = seen.kill.at_ms if seen.kill else 0
    arrived = [seen.arrived_at_ms[task_id] for task_id in reclaimed if task_id in seen.arrived_at_ms]
    by_killed = sum(record.consumer == killed for record in committed)
    lost = sum(handle.id not in seen.arrived_at_ms or not per_id[handle.id] for handle in seen.handles)
    twice = sum(count > 1 for count in per_id.values())
    elapsed_ms = max(1, last_ms - seen.began_at_ms)
    return Facts(
        files=len(seen.handles),
        elapsed_ms=elapsed_ms,
        enqueue_ms=seen.enqueued_at_ms - seen.began_at_ms,
        files_per_s=round(len(seen.results) * 1000 / elapsed_ms, 1),
        p50_ms=percentile(seen.latency_ms.values(), 0.5),
        p99_ms=percentile(seen.latency_ms.values(), 0.99),
        by_worker=[by_killed, len(committed) - by_killed],
        killed_after=seen.kill.after if seen.kill else 0,
        held=len(held),
        reclaimed=len(reclaimed),
        first_recovered_ms=min(arrived) - killed_at_ms if arrived else None,
        last_recovered_ms=max(arrived) - killed_at_ms if arrived else None,
        lost=lost,
        committed_twice=twice,
        totals=total(seen.results.values()),
        direct=total(direct.values()),
        direct_ms=direct_ms,
        problems=[*_problems(seen, direct, lost, twice)],
    )


def _problems(seen: Observed, direct: Mapping[Path, FileFacts], lost: int, twice: int) -> Iterator[str]:
    if seen.kill is None:
        yield "no worker was killed"
    if lost:
        yield f"{lost} of {len(seen.handles)} files have no committed outcome"
    if twice:
        yield f"{twice} files have more than one committed outcome"
    yield from seen.failures
    for path, mine in direct.items():
        if path in seen.results and seen.results[path] != mine:
            yield f"{path} differs: {seen.results[path]} through the queue, {mine} directly"
