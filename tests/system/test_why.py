"""Every reason why a task message is not running, with what to do about it: `handle.why()` and `awhy`."""

from __future__ import annotations

import asyncio
import re

import pytest

from streamwork import Limit, Retry
from streamwork.broker.stats import overview
from streamwork.broker.steps import ask
from streamwork.errors import ResultTimeout
from streamwork.ids import new_task_id
from streamwork.store.commands import plain
from tests.apps import faults
from tests.helpers import wait_until


def codes(handle):
    return [reason.code for reason in handle.why()]


def until(handle, *expected):
    wait_until(lambda: codes(handle) == list(expected), lambda: f"{expected}: {handle.why()}")
    return handle.why()


def test_nobody_is_there_then_nobody_offers_the_tags_then_it_ends(start, send):
    handle = send(faults.backend_gpu, 1)
    (reason,) = handle.why()
    assert reason.code == "no_worker"
    assert "no live worker reads queue default" in reason.text
    assert "--tags backend,gpu" in reason.remedy
    start(args=("--tags", "backend"))
    (reason,) = until(handle, "no_tags")
    assert "no live worker offers tags {backend, gpu}" in reason.text
    start(args=("--tags", "backend,gpu"))
    assert handle.result(timeout=10) == 1
    (reason,) = handle.why()
    assert reason.code == "ended"
    assert reason.text.startswith("it is succeeded at 20")


def test_all_slots_are_busy_with_so_many_ahead_and_who_has_them(start, send, app, notes):
    start(slots=1)
    held = send(faults.hold, notes.path, "held")
    notes.until(1)
    nothing = send.declared(faults.nothing)
    before = app.enqueue_many([nothing.options(priority=priority).call() for priority in (9, 5, 5, 7)])
    handle, last = send(faults.nothing, 1), send(faults.nothing, 2, priority=0)
    app.enqueue_many([nothing.call(), nothing.options(priority=0).call()])
    (reason,) = handle.why()
    assert reason.code == "slots_busy"
    assert reason.text == "all 1 slots of 1 worker processes that take it are busy, and 4 are ahead of it"
    assert "--slots" in reason.remedy
    assert "and 6 are ahead of it" in last.why()[0].text
    (reason,) = held.why()
    assert reason.code == "running"
    assert re.search(r"run 1 is in the hands of worker .*:\d+\) since 20", reason.text)
    notes.go()
    for each in (*before, handle):
        each.result(timeout=10)


def test_it_is_due_or_to_be_tried_again_and_nobody_may_know_it(start, send, app):
    due = send(faults.nothing, delay=3600)
    assert codes(due) == ["due", "no_worker"]
    start(slots=4)
    (reason,) = until(due, "due")
    assert reason.text.startswith("it is due at 20")
    again = send(faults.unstorable, retry=Retry(max_attempts=3, base=600, jitter=False))
    stranger = app.call("tests.nobody.knows").enqueue()
    (reason,) = until(stranger, "unknown_task")
    assert "knows task tests.nobody.knows" in reason.text
    assert "declares it" in reason.remedy
    assert again.wait(timeout=10)
    (reason,) = again.why()
    assert (reason.code, "it is dead" in reason.text) == ("ended", True)
    assert "tasks show" in reason.remedy


def test_a_retry_says_which_run_and_after_what(start, app):
    @app.task(name="tests.apps.faults.wait", retry=Retry(max_attempts=3))
    async def wait(seconds: float) -> None: ...

    start(slots=4)
    handle = wait.options(retry=Retry(max_attempts=3, base=600, jitter=False), timeout=0.05).enqueue(60)
    (reason,) = until(handle, "retry")
    assert re.match(r"run 2 is to begin at 20.* after TimeoutError: not ended within 0.05 s", reason.text)
    app.pause(queue="default", reason="x")
    until(handle, "queue_paused", "retry")
    app.resume(queue="default")


def test_a_paused_queue_and_task_are_both_said(send, app, driver, keys):
    handle = send(faults.nothing)
    app.pause(queue="default", reason="the night")
    app.pause(task="tests.apps.faults.nothing", queue="default")
    reasons = handle.why()
    assert [reason.code for reason in reasons] == ["queue_paused", "task_paused", "no_worker"]
    assert "queue default is paused (the night) since 20" in reasons[0].text
    assert reasons[0].remedy == "streamwork resume --queue default"
    assert asyncio.run(again(app, handle.id)) == [reason.code for reason in reasons]
    app.resume(queue="default")
    app.resume(task="tests.apps.faults.nothing")
    assert handle.cancel() == "requested"
    assert codes(handle) == ["cancel_requested", "no_worker"]
    driver.run(plain("HDEL", keys.cancelled, handle.id))


def test_what_waits_in_the_line_of_a_paused_group_names_the_pause_and_not_the_limit(start, send, app):
    start(slots=2)
    send(faults.nothing, 1).result(timeout=10)
    app.pause(queue="default", group="g1", reason="the night")
    handle, _ = (send(faults.nothing, group="g1") for _ in range(2))
    (reason,) = handle.why()
    assert reason.code == "group_paused"
    assert reason.text.startswith("its group g1 is paused on queue default (the night) since 20")
    assert reason.text.endswith("; it waits in line with 1 others")
    assert reason.remedy == "streamwork resume --group g1"
    assert late(handle).endswith(
        ": it waits: group g1 is paused on queue default (the night), until `streamwork resume --group g1`"
    )
    other = send(faults.nothing, group="g10")
    other.result(timeout=10)
    app.pause(queue="default")
    assert codes(handle) == ["group_paused", "queue_paused"]
    assert "queue default is paused, until `streamwork resume --queue default`" in late(handle)
    app.resume(queue="default")
    app.resume(group="g1")
    handle.result(timeout=10)


def late(handle):
    with pytest.raises(ResultTimeout) as raised:
        handle.result(timeout=0.2)
    return str(raised.value)


async def again(app, task_id):
    return [reason.code for reason in await app.handle(task_id).awhy()]


def test_what_waits_for_a_limit_says_for_which_and_has_the_state_of_what_waits(start, send, app, notes, driver):
    start(slots=4)
    held = send(faults.hold, notes.path, "held", concurrency=Limit(1, name="one"))
    notes.until(1)
    note = send.declared(faults.note)
    waiting = [note.options(concurrency=Limit(1, name="one")).enqueue(notes.path, str(n)) for n in range(3)]
    (reason,) = waiting[1].why()
    assert reason.code == "parked"
    assert reason.text.startswith("it waits for its concurrency= one, with 2 others: as many as may run at once do")
    assert waiting[1].state() == app.handle(waiting[1].id).state() == "waiting"
    assert not waiting[0].wait(timeout=5)  # a wait asks every two seconds whether anything is kept of it
    with pytest.raises(ResultTimeout, match="it waits for its concurrency= one, with 2 others"):
        waiting[1].result(timeout=0.1)
    (stats,) = ask(driver, overview(app.name, ["default"])).queues
    assert (stats.waiting, stats.parked, stats.running) == (3, 3, 1)
    assert waiting[2].cancel() == "cancelled"
    (reason,) = waiting[1].why()
    assert "with 1 others" in reason.text
    app.pause(queue="default")
    assert codes(waiting[1]) == ["queue_paused", "parked"]
    app.resume(queue="default")
    notes.go()
    for handle in (held, *waiting[:2]):
        handle.result(timeout=10)
    keyed = [send(faults.nothing, key="k", delay=0.2) for _ in range(2)]
    assert [handle.result(timeout=10) for handle in keyed] == [0, 0]


def test_what_is_cancelled_overdue_or_was_never_sent(send, app, driver, keys):
    handle = send(faults.nothing, delay=3600)
    assert handle.cancel() == "cancelled"
    assert codes(handle) == ["ended"]
    late = send(faults.nothing, delay=3600)
    driver.run(plain("ZADD", keys.due, 1_000_000_000_000, late.id))
    reasons = late.why()
    assert [reason.code for reason in reasons] == ["due", "overdue", "no_worker"]
    assert codes(app.handle(new_task_id())) == ["never_seen"]
