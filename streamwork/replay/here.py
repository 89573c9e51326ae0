"""Run one past delivery in this process, with a debugger where that is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from streamwork.broker.trimmed import shown
from streamwork.errors import HistoryTrimmed, ReplayRefused
from streamwork.model.history import HistoryGap, HistoryRecord
from streamwork.model.replay import Ran
from streamwork.replay.body import Delivery, arun_here, run_here
from streamwork.replay.capture import Capture
from streamwork.replay.debugger import BodyDebugger
from streamwork.replay.host import Host
from streamwork.replay.past import NOT_RUN, why_not


def find_past(app: Host, queue: str, task_id: str, attempt: int | None, *, imported: bool) -> HistoryRecord:
    """Return the attempt that is asked for; None = the last one whose body ran.

    Raises:
        HistoryTrimmed: It, or its arguments, are past their retention.
        ReplayRefused: There is no such attempt, or none whose body ran.
        What `Remembering.history` raises.
    """
    found = list(app.history(queue, id=task_id, imported=imported))
    records = [one for one in found if isinstance(one, HistoryRecord)]
    fits = [one for one in records if attempt is None or one.attempt == attempt]
    ran = [one for one in fits if one.state not in NOT_RUN]
    if not ran:
        there = ", ".join(f"{one.attempt} ({one.state})" for one in records) or "none"
        asked = "no attempt" if attempt is None else f"no attempt {attempt}"
        raise ReplayRefused(f"{asked} of task message {task_id} in queue {queue!r} has run; there are: {there}")
    last = ran[-1]
    if last.body is None:
        gap = next((one for one in found if isinstance(one, HistoryGap) and one.what == "arguments"), None)
        when = f": they went at {shown(gap.trimmed_at_ms)} ({gap.why})" if gap and gap.trimmed_at_ms else ""
        at_ms = gap.trimmed_at_ms or 0 if gap else 0
        raise HistoryTrimmed(f"the arguments of task message {task_id} are not kept any more{when}", task_id, at_ms)
    if why := why_not(last):
        raise ReplayRefused(f"task message {task_id}: {why}")
    return last


def run_alone(app: Host, delivery: Delivery, capture: Capture, *, debug: bool) -> Ran:
    """Run a body in this thread, between the begin and the end of the app's lifespan; no limit ends it."""
    debugger = BodyDebugger(delivery.task.function) if debug else None
    with asyncio.Runner() as runner, _resources(app, runner) as resources:
        if delivery.task.is_async:
            body = None if debugger is None else debugger.arun_body
            return runner.run(arun_here(delivery, capture, resources, body, is_timed=False))
        # Not on the loop: a sync body may run one of its own.
        return run_here(delivery, capture, resources, None if debugger is None else debugger.run_body)


@contextmanager
def _resources(app: Host, runner: asyncio.Runner) -> Iterator[Any]:
    """Enter and leave the lifespan in one task, to which what it opens may be bound; that stands still in between."""
    if app.lifespan_of is None:
        yield None
        return
    loop, make = runner.get_loop(), app.lifespan_of
    entered, leaving = loop.create_future(), loop.create_future()

    async def live() -> None:
        try:
            async with make() as resources:
                entered.set_result(resources)
                await leaving
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    async def wait(future: Any) -> Any:
        return await future

    task = loop.create_task(live())
    resources = runner.run(wait(entered))
    try:
        yield resources
    finally:
        leaving.set_result(None)
        runner.run(wait(task))
