"""What is paused: set, taken away and looked at, queue by queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from streamwork.broker.checkup import Check
from streamwork.broker.events import event
from streamwork.broker.stats import QueueStats, queue_names
from streamwork.broker.steps import Steps, pairs
from streamwork.clock import SYSTEM_CLOCK
from streamwork.model.pausing import GROUP, TASK, described, line_of, option_of
from streamwork.store.commands import Command, plain
from streamwork.store.keys import QueueKeys
from streamwork.store.pausing import pause


class Pause(msgspec.Struct, frozen=True):
    """One thing that is paused.

    Attributes:
        queue: Where.
        mark: ``queue``, ``task:…`` or ``group:…``.
        at_ms: Since when.
        reason: Why; empty = nobody said.
    """

    queue: str
    mark: str
    at_ms: int = 0
    reason: str = ""

    @property
    def text(self) -> str:
        """Say what is paused."""
        return described(self.mark, self.queue) + (f" ({self.reason})" if self.reason else "")

    @property
    def line(self) -> str:
        """The line in which a paused group waits; empty = it is no group."""
        return line_of(self.mark)

    @property
    def remedy(self) -> str:
        """Say what ends it."""
        return f"streamwork resume {option_of(self.mark, self.queue)}"


class _Known(msgspec.Struct):
    at_ms: int = 0
    reason: str = ""


def set_mark(
    namespace: str, known: Iterable[str], queue: str | None, mark: str, reason: str | None
) -> Steps[dict[str, bool]]:
    """Pause or resume.

    Args:
        namespace: The app's.
        known: Queues beside those that anything was sent to.
        queue: The queue; None = all of them.
        mark: What of it.
        reason: Why it is paused; None = it is resumed.

    Returns:
        Queue to whether that changed anything.
    """
    names = [queue] if queue is not None else (yield from queue_names(namespace, known))
    facts = b"" if reason is None else msgspec.json.encode(_Known(SYSTEM_CLOCK.now_ms(), reason))
    changed = yield [pause(QueueKeys(namespace, name), mark, facts) for name in names]
    type_ = "queue.resumed" if reason is None else "queue.paused"
    new = [name for name, is_new in zip(names, changed, strict=True) if is_new]
    if new:
        yield [event(namespace, type_, queue=name, detail=reason or "", mark=mark) for name in new]
    return dict(zip(names, changed, strict=True))


def paused(namespace: str, names: Sequence[str]) -> Steps[list[Pause]]:
    """Find what is paused on these queues."""
    answers = yield [plain("HGETALL", QueueKeys(namespace, name).paused) for name in names]
    return [
        _read(name, mark.decode(errors="replace"), facts)
        for name, flat in zip(names, answers, strict=True)
        for mark, facts in sorted(pairs(flat).items())
    ]


def _read(queue: str, mark: str, facts: bytes) -> Pause:
    try:
        known = msgspec.json.decode(facts, type=_Known)
    except msgspec.MsgspecError:
        known = _Known()  # another version's
    return Pause(queue, mark, known.at_ms, known.reason)


def line_count(keys: QueueKeys, line: str) -> Command[Any]:
    """Return the command that counts what waits in a line: a group's, or another limit's."""
    return plain("ZLEXCOUNT", keys.parked, f"[{line}\0", f"({line}\1")


def paused_checks(namespace: str, queues: Sequence[QueueStats]) -> Steps[list[Check]]:
    """Tell what is paused, and how much waits for that."""
    found = yield from paused(namespace, [queue.queue for queue in queues])
    stats = {queue.queue: queue for queue in queues}
    lines = [each for each in found if each.mark.startswith(GROUP)]
    counts = yield [line_count(QueueKeys(namespace, each.queue), each.line) for each in lines]
    in_line = {(each.queue, each.mark): int(count) for each, count in zip(lines, counts, strict=True)}
    checks = []
    for each in found:
        queue = stats[each.queue]
        other = queue.held if each.mark.startswith(TASK) else queue.waiting
        count = in_line.get((each.queue, each.mark), other)
        waiting = f": {count:,} {'held' if each.mark.startswith(TASK) else 'waiting'}" if count else ""
        checks.append(Check("paused", "note", each.text + waiting, each.remedy))
    return checks
