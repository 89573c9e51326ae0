"""What a process counts: names that stay, and numbers that are cheap to keep.

Plain Python: a counter of the SDK takes 2 us with its lock, and a task as a whole 30.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

# Of the conventions, and behind them what tasks take and messages do not.
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 300, 1800, 3600)
# Deliveries of one kind that are kept before they are counted up.
_MOST_WAITING = 4_096


class Metric(NamedTuple):
    """One metric: its name in OpenTelemetry, from which that in Prometheus follows, and the names of its attributes."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    attributes: tuple[str, ...]

    @property
    def prometheus_name(self) -> str:
        """Its name in Prometheus, without the ``_total`` of counters."""
        return self.name.replace(".", "_") + ("_seconds" if self.unit == "s" else "")


_QUEUE, _TASK, _OUTCOME, _STATE = "messaging.destination.name", "streamwork.task", "streamwork.outcome", "state"
_BY_TASK = (_QUEUE, _TASK)
CONSUMED = Metric(
    "messaging.client.consumed.messages", "counter", "{message}", "Deliveries whose outcome is known.", _BY_TASK
)
DURATION = Metric("messaging.process.duration", "histogram", "s", "How long bodies ran.", _BY_TASK)
ATTEMPTS = Metric(
    "streamwork.attempts", "counter", "{attempt}", "Outcomes of deliveries, committed by Redis or refused (lost).",
    (*_BY_TASK, _OUTCOME),
)  # fmt: skip
WAITED = Metric(
    "streamwork.wait.duration",
    "histogram",
    "s",
    "From when a message came onto its lane until its body began.",
    _BY_TASK,
)
SLOTS = Metric("streamwork.slots", "gauge", "{slot}", "Task messages that a worker takes in hand at once.", ())
BUSY = Metric("streamwork.slots.busy", "gauge", "{slot}", "Task messages that it has in hand.", ())
PROCESSES = Metric("streamwork.processes", "gauge", "{process}", "Processes of this worker.", ())
MESSAGES = Metric(
    "streamwork.queue.messages", "gauge", "{message}", "Task messages that have not ended, and dead letters.",
    (_QUEUE, _STATE),
)  # fmt: skip
OLDEST = Metric(
    "streamwork.queue.oldest", "gauge", "s", "How long the first message that nobody has taken has waited.", (_QUEUE,)
)
REACHED = Metric("streamwork.redis.up", "gauge", "1", "Whether Redis answered when the queues were asked for.", ())
METRICS = {
    each.name: each
    for each in (CONSUMED, DURATION, ATTEMPTS, WAITED, SLOTS, BUSY, PROCESSES, MESSAGES, OLDEST, REACHED)
}


class Series(NamedTuple):
    """One series: the name of its metric, the values of its attributes, and its number.

    A histogram has a count for each bound, one beyond them, and the sum behind them.
    """

    name: str
    labels: tuple[str, ...]
    value: Any


class _Cell:
    """Deliveries of one queue, task and outcome that are not counted up yet."""

    __slots__ = ("ran_ms", "unbegun", "waited_ms")

    def __init__(self) -> None:
        self.waited_ms: list[int] = []
        self.ran_ms: list[int] = []
        self.unbegun = 0


class Meters:
    """The counts of one worker process: one thread counts, and any may ask."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str, str], _Cell] = {}
        self._attempts: dict[tuple[str, str, str], int] = {}
        self._times: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
        self._lock = threading.Lock()
        self.slots = self.busy = 0

    def ended(self, queue: str, task: str, outcome: str, waited_ms: int, ran_ms: int) -> None:
        """Count a delivery; its times are -1 where its body never began."""
        key = (queue, task, outcome)
        cell = self._cells.get(key)
        if cell is None:
            with self._lock:
                cell = self._cells[key] = _Cell()
        if ran_ms < 0:
            cell.unbegun += 1
            return
        # Two appends each, and the rest is done for thousands at once.
        cell.waited_ms.append(waited_ms)
        spans_ms = cell.ran_ms
        spans_ms.append(ran_ms)
        if len(spans_ms) >= _MOST_WAITING:
            with self._lock:
                self._count_up()

    def _count_up(self) -> None:
        for key, cell in self._cells.items():
            count = len(cell.ran_ms)  # one that is being counted just now is there next time, with both of its times
            self._attempts[key] = self._attempts.get(key, 0) + count
            if not count:
                continue
            times = self._times.get(key[:2])
            if times is None:
                empty = [0.0] * (len(BOUNDS_S) + 2)
                times = self._times[key[:2]] = (empty, list(empty))
            for histogram, spans_ms in zip(times, (cell.waited_ms, cell.ran_ms), strict=True):
                for known_ms, alike in Counter(spans_ms[:count]).items():
                    span_ms = max(0, known_ms)  # Redis and this machine may differ in what time it is
                    histogram[bisect_left(BOUNDS_S, span_ms / 1000)] += alike
                    histogram[-1] += alike * span_ms / 1000
                del spans_ms[:count]

    def series(self) -> list[Series]:
        """Return all series as they stand."""
        with self._lock:
            self._count_up()
            return self._series()

    def _series(self) -> list[Series]:
        found = [Series(ATTEMPTS.name, key, self._attempts[key] + cell.unbegun) for key, cell in self._cells.items()]
        consumed: dict[tuple[str, ...], int] = {}
        for one in found:
            consumed[one.labels[:2]] = consumed.get(one.labels[:2], 0) + one.value
        found += [Series(CONSUMED.name, key, count) for key, count in consumed.items()]
        for key, (waited, ran) in self._times.items():
            found += [Series(WAITED.name, key, list(waited)), Series(DURATION.name, key, list(ran))]
        return [*found, Series(SLOTS.name, (), self.slots), Series(BUSY.name, (), self.busy)]


def summed(parts: Iterable[Iterable[Series]]) -> list[Series]:
    """Return the series of several processes as one: numbers of the same series are added up."""
    found: dict[tuple[str, tuple[str, ...]], Any] = {}
    for part in parts:
        for name, labels, value in part:
            before = found.get((name, labels))
            if before is None:
                found[name, labels] = value
            elif isinstance(value, list):
                found[name, labels] = [mine + other for mine, other in zip(before, value, strict=True)]
            else:
                found[name, labels] = before + value
    return [Series(*key, value) for key, value in found.items()]


def lasting(series: Iterable[Series]) -> list[Series]:
    """Return what stays when a process ends: all but its gauges."""
    return [one for one in series if METRICS[one.name].kind != "gauge"]
