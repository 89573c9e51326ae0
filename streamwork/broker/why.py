"""Why a task message is not running: every reason that holds now, each with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from streamwork.broker.coverage import Unserved
from streamwork.broker.lookup import find_task
from streamwork.broker.pausing import line_count, paused
from streamwork.broker.stats import Overview, QueueStats, WorkerStats, last_delivered, overview
from streamwork.broker.steps import Steps, at_once, refused
from streamwork.broker.taskview import TaskView
from streamwork.clock import SYSTEM_CLOCK
from streamwork.model.flow import WINDOW
from streamwork.model.lane import lane_tags
from streamwork.model.pausing import QUEUE, mark_of
from streamwork.model.state import State
from streamwork.store.commands import plain
from streamwork.store.keys import GROUP, QueueKeys

# More entries ahead than this are not counted one by one.
MOST_AHEAD = 1_000
# Any live worker of a queue sends on what is due within milliseconds.
_LATE_MS = 3_000


class Reason(msgspec.Struct, frozen=True):
    """One reason.

    Attributes:
        code: ``never_seen``, ``gone``, ``ended``, ``cancel_requested``, ``running``, ``worker_silent``, ``due``,
            ``retry``, ``overdue``, ``unknown_task``, ``queue_paused``, ``task_paused``, ``group_paused``,
            ``no_worker``, ``no_tags``, ``parked`` (behind a limit), ``slots_busy`` or ``next``.
        text: The same, as a sentence.
        remedy: What to do; empty where there is nothing to do.
    """

    code: str
    text: str
    remedy: str = ""


def why(keys: Sequence[QueueKeys], task_id: str) -> Steps[list[Reason]]:
    """Say why a task message is not running, or that it is, or how it ended.

    Args:
        keys: Queues to look into; the workers of all of them are looked at.
        task_id: 32 hex digits.

    Returns:
        At least one reason; where several hold, all have to go.
    """
    view = yield from find_task(keys, task_id)
    if view is None:
        names = ", ".join(each.queue for each in keys) or "any queue"
        text = f"there is no trace of it in {names}: it was never sent there, or nothing of it is kept any more"
        return [Reason("never_seen", text, "check the id, the namespace and the queue")]
    here = next(each for each in keys if each.queue == view.queue)
    if view.state.is_end:
        return [_ended(view)]
    if view.state == State.UNKNOWN:
        return [Reason("gone", "it has ended, and neither its result nor its history is kept")]
    asked = Reason("cancel_requested", "its cancellation was asked for: it will not begin")
    found = [asked] if view.cancel_asked else []
    if view.state == State.RUNNING:
        return [*found, *(yield from _running(here, view))]
    seen = yield from overview(here.namespace, [each.queue for each in keys])
    found += yield from _paused(here, view)
    if view.parked_behind:
        if all(each.code != "group_paused" for each in found):
            found.append((yield from _parked(here, view)))
        return [*found, *_without_worker(view, seen)]
    if view.state == State.SCHEDULED:
        return found if view.is_held else [*found, *_scheduled(view), *_without_worker(view, seen)]
    lacking = _without_worker(view, seen)
    if lacking or found:
        return [*found, *lacking]
    return [(yield from _in_line(here, view, seen))]


def _ended(view: TaskView) -> Reason:
    at_ms = view.journal[-1].ended_at_ms if view.journal else view.died_at_ms
    when = f" at {_at(at_ms)}" if at_ms else ""
    failure = f": {view.failure.type_name}: {view.failure.message}"[:300] if view.failure is not None else ""
    remedy = f"streamwork tasks show {view.id} tells all that is kept" if view.failure is not None else ""
    return Reason("ended", f"it is {view.state}{when}{failure}", remedy)


def _running(keys: QueueKeys, view: TaskView) -> Steps[list[Reason]]:
    pending, alive = yield [
        plain("XPENDING", keys.lane(view.lane), GROUP, view.entry, view.entry, 1, if_gone=[]),
        plain("EXISTS", keys.alive(view.consumer)),
    ]
    since = f" since {_at(SYSTEM_CLOCK.now_ms() - pending[0][2])}" if pending else ""
    place = f" ({view.worker.get('host')}:{view.worker.get('pid')})" if view.worker else ""
    running = Reason("running", f"run {view.attempt} is in the hands of worker {view.consumer}{place}{since}")
    if alive:
        return [running]
    text = "that worker gives no sign of life: any live worker of the queue takes it over within seconds"
    return [running, Reason("worker_silent", text, Unserved(view.queue, sorted(lane_tags(view.lane))).remedy)]


def _paused(keys: QueueKeys, view: TaskView) -> Steps[list[Reason]]:
    found = yield from paused(keys.namespace, [keys.queue])
    reasons = []
    for each in found:
        since = f"{each.text} since {_at(each.at_ms)}"
        if each.mark == QUEUE:
            reasons.append(Reason("queue_paused", since, each.remedy))
        elif each.mark == mark_of(view.task):
            reasons.append(Reason("task_paused", since, each.remedy))
        elif each.line and each.line in (view.parked_behind, view.group):
            others = yield from _others(keys, view)
            reasons.append(Reason("group_paused", f"its {since}; it waits in line with {others:,} others", each.remedy))
    return reasons


_LINES = {
    "c": ("concurrency", "as many as may run at once do: it begins when one of them ends"),
    "k": ("key", "the one before it has not ended: it begins when that does"),
    "g": ("group", "as many of its group as may run at once do: it begins when one of them ends"),
    "t": ("rate", "the rate is used up: it begins when there is a token for it"),
    "w": ("rate", "the rate is used up: it begins when its window has room"),
}


def _parked(keys: QueueKeys, view: TaskView) -> Steps[Reason]:
    kind, _, name = view.parked_behind.partition(":")
    others = yield from _others(keys, view)
    if kind.startswith(WINDOW):
        text = f"groups take turns for the workers' slots: its group's comes, and {others:,} others wait for theirs"
        return Reason("parked", text, "start more workers, or raise --slots, if more may run")
    option, text = _LINES.get(kind, ("limit", "it has no room: it begins when there is some"))
    text = f"it waits for its {option}= {name}, with {others:,} others: {text}"
    return Reason("parked", text, f"raise {option}=, if more may run" if option != "key" else "")


def _others(keys: QueueKeys, view: TaskView) -> Steps[int]:
    (count,) = yield [line_count(keys, view.parked_behind)]
    return int(count) - 1


def _scheduled(view: TaskView) -> list[Reason]:
    at_ms, now_ms = view.run_at_ms or 0, SYSTEM_CLOCK.now_ms()
    last = view.journal[-1] if view.journal else None
    if last is not None and last.state == "deferred" and last.detail.startswith("unknown task"):
        text = f"no worker that was offered it knows task {view.task}; it is offered again at {_at(at_ms)}"
        found = [Reason("unknown_task", text, "start a worker whose app declares it")]
    elif view.attempt > 1 or (last is not None and last.state in ("retried", "crashed")):
        before = f" after {last.detail}"[:300] if last is not None and last.detail else ""
        found = [Reason("retry", f"run {view.attempt} is to begin at {_at(at_ms)}{before}")]
    else:
        found = [Reason("due", f"it is due at {_at(at_ms)}")]
    if now_ms - at_ms > _LATE_MS:
        text = f"it has been due for {(now_ms - at_ms) // 1000:,} s, and nobody sends it on"
        found.append(Reason("overdue", text, Unserved(view.queue, []).remedy))
    return found


def _takers(view: TaskView, seen: Overview) -> list[WorkerStats]:
    needed = lane_tags(view.lane)
    return [each for each in seen.workers if each.alive and view.queue in each.queues and needed <= set(each.tags)]


def _without_worker(view: TaskView, seen: Overview) -> list[Reason]:
    if _takers(view, seen):
        return []
    missing = Unserved(view.queue, sorted(lane_tags(view.lane)))
    if not any(each.alive and view.queue in each.queues for each in seen.workers):
        return [Reason("no_worker", Unserved(view.queue, []).text, f"start one: {missing.remedy}")]
    return [Reason("no_tags", missing.text, f"start one: {missing.remedy}")]


def _in_line(keys: QueueKeys, view: TaskView, seen: Overview) -> Steps[Reason]:
    ahead, most = yield from _ahead(keys, view, next(each for each in seen.queues if each.queue == keys.queue))
    takers = _takers(view, seen)
    before = f"{most}{ahead:,} {'is' if ahead == 1 and not most else 'are'} ahead of it"
    if all(each.in_hand >= each.slots for each in takers):
        slots = sum(each.slots for each in takers)
        text = f"all {slots:,} slots of {len(takers):,} worker processes that take it are busy, and {before}"
        return Reason("slots_busy", text, "start more workers, raise --slots, or send it with a higher priority")
    return Reason("next", f"{before}, and there are free slots: it begins in a moment")


def _ahead(keys: QueueKeys, view: TaskView, queue: QueueStats) -> Steps[tuple[int, str]]:
    """Count what is read before it: all that waits on higher lanes, and what stands before it on its own."""
    level = int(view.lane.partition(":")[0])
    higher = sum(lane.waiting for lane in queue.lanes if int(lane.lane.partition(":")[0]) > level)
    stream = keys.lane(view.lane)
    ((groups,),) = yield at_once([plain("XINFO", "GROUPS", stream)])
    if refused(groups) or not view.entry:
        return higher, ""
    (rows,) = yield [
        plain("XRANGE", stream, f"({last_delivered(groups)}", f"({view.entry}", "COUNT", MOST_AHEAD, if_gone=[])
    ]
    return higher + len(rows), "at least " if len(rows) == MOST_AHEAD else ""


def _at(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
