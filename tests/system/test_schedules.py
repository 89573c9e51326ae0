"""Schedules with real workers and schedulers: once each, never early, changed while everything runs (rule 27)."""

from __future__ import annotations

import pytest

from streamwork.errors import ScheduleNotFound
from streamwork.model.limits import Limit
from streamwork.store.commands import plain
from tests.apps import planned as tasks
from tests.helpers import wait_until
from tests.redis.kit import mark_of, set_mark
from tests.system.kit import successes
from tests.system.planning import FAIL, HOLD, SECOND_MS, TICK


@pytest.fixture
def marked(driver, keys):
    """Return the last occurrence of a schedule that was decided."""
    return lambda schedule: int(mark_of(driver, keys, schedule).split()[0])


def every_second(instants):
    """Whether there is one in each second, without a gap."""
    return instants == list(range(instants[0], instants[-1] + 1, SECOND_MS))


def sent(driver, keys):
    """Return how many messages the queue has had."""
    return sum(int(value) for value in driver.run(plain("HVALS", keys.added)))


def nudge(driver, keys):
    """Let all schedulers look at once."""
    driver.run(plain("XADD", keys.control, "*", "e", "schedules", "v", ""))


def test_each_occurrence_is_sent_once_while_one_of_three_dies(planned, app, driver, keys, look, marked):
    """Two workers and a scheduler; one worker loses its power."""
    victim, _, scheduler = planned.start("one"), planned.start("one"), planned.start("one", command="scheduler")
    planned.until("one", 2)
    victim.kill()
    killed_ms = driver.server_ms()
    ran = lambda: planned.occurrences("one")
    wait_until(lambda: ran()[-1] > killed_ms + 3 * SECOND_MS, lambda: f"it goes on: {ran()}", 30)
    app.schedules.pause("one")
    wait_until(lambda: look().backlog == 0, lambda: f"all that was sent has run: {look()}", 30)
    assert ran()[-1] == marked("one")
    assert every_second(ran())
    assert all(at_ms % SECOND_MS == 0 for at_ms in ran())
    assert all(run.server_ms >= run.at_ms for run in planned.ran()), "early"
    assert sent(driver, keys) == len(ran()), "an occurrence was sent twice"
    assert set(successes(look()).values()) == {1}
    scheduler.signal()
    assert scheduler.wait() == 0


def test_three_that_make_up_for_many_at_one_time_send_each_once(planned, app, driver, keys, look, marked):
    app.schedules.add("many", app.call(TICK, "x"), every=1, missed="all", elsewhere=True)
    app.schedules.pause("many")
    for command in ("worker", "worker", "scheduler"):
        planned.start("one", command=command)
    planned.until("one", 1)
    before_ms = driver.server_ms() // SECOND_MS * SECOND_MS - 300 * SECOND_MS
    set_mark(driver, keys, "many", before_ms)
    nudge(driver, keys)  # all of them begin now
    wait_until(lambda: marked("many") >= before_ms + 300 * SECOND_MS, "all are decided", 30)
    for schedule in ("one", "many"):
        app.schedules.pause(schedule)
    wait_until(lambda: look().backlog == 0, lambda: f"all that was sent has run: {look()}", 60)
    ran = planned.occurrences("many")
    assert ran == list(range(before_ms + SECOND_MS, marked("many") + 1, SECOND_MS))
    assert sent(driver, keys) == len(ran) + len(planned.occurrences("one")), "an occurrence was sent twice"


def test_a_scheduler_alone_sends_and_a_worker_runs_it_later(planned, look):
    scheduler = planned.start("one", command="scheduler")
    wait_until(lambda: len(look().lanes.get("1:", [])) >= 3, "three are sent")
    assert planned.ran() == []
    scheduler.signal()
    assert scheduler.wait() == 0
    planned.start()
    planned.until("one", 3)
    assert every_second(planned.occurrences("one"))


def test_paused_resumed_and_removed_while_it_runs(planned, app, marked, driver, keys):
    planned.start("one", "other")
    planned.until("one", 1)
    assert app.schedules.pause("one")
    assert not app.schedules.pause("one")
    assert [view.is_paused for view in app.schedules.list()] == [True, False]
    rests_at = marked("one")
    planned.until("other", len(planned.occurrences("other")) + 3)
    assert marked("one") == rests_at
    before = driver.server_ms()
    assert app.schedules.resume("one")
    assert not app.schedules.resume("one")
    wait_until(lambda: planned.occurrences("one")[-1] > before, "it goes on", 20)
    # What fell into the pause does not happen, though this schedule makes up for all that was missed.
    assert [at_ms for at_ms in planned.occurrences("one") if rests_at < at_ms <= before] == []


def test_added_replaced_and_removed_while_it_runs(planned, app, driver, keys):
    planned.start("other")
    assert app.schedules.add("added", app.call(TICK, "first"), every=1, missed="all", elsewhere=True)
    assert not app.schedules.add("added", app.call(TICK, "first"), every=1, missed="all", elsewhere=True)
    planned.until("added", 2)
    assert app.schedules.add("added", app.call(TICK, "then"), every=1, missed="all", elsewhere=True, replace=True)
    wait_until(lambda: [run for run in planned.ran("added") if run.text == "then"], "the new one fires", 20)
    texts = {run.at_ms: run.text for run in planned.ran("added")}
    assert every_second(planned.occurrences("added")), "it did not go on from its last occurrence"
    assert [texts[at_ms] for at_ms in sorted(texts)] == sorted(texts.values())  # "first"s, then "then"s
    assert app.schedules.remove("added")
    with pytest.raises(ScheduleNotFound):
        app.schedules.remove("added")
    gone_at = driver.server_ms()
    planned.until("other", len(planned.occurrences("other")) + 3)
    assert [at_ms for at_ms in planned.occurrences("added") if at_ms > gone_at] == []
    assert driver.run(plain("HKEYS", keys.schedules)) == [b"other"]


def test_run_now_is_beside_the_plan(planned, app, marked):
    planned.start()
    app.schedules.add("rare", app.call(TICK, "x"), cron="0 0 29 2 *", elsewhere=True)
    mark = marked("rare")
    task_id = app.schedules.run_now("rare")
    (run,) = planned.until("rare", 1)
    assert (run.id, run.text, marked("rare")) == (task_id, "x", mark)
    assert mark <= run.at_ms <= run.server_ms
    with pytest.raises(ScheduleNotFound):
        app.schedules.run_now("nobody")
    # What no schedule sent knows of none.
    app.call(TICK, "by hand").enqueue()
    wait_until(lambda: planned.ran(""), "it runs")
    assert [(run.text, run.at_ms) for run in planned.ran("")] == [("by hand", None)]


def test_what_code_declares_no_more_does_not_fire(planned, app, marked, driver):
    old = planned.start("gone", "kept")
    planned.until("gone", 1)
    old.signal()
    assert old.wait() == 0
    rests_at = marked("gone")
    planned.start("kept")
    began_at = driver.server_ms()
    wait_until(lambda: marked("kept") > began_at + 3 * SECOND_MS, "the other goes on", 20)
    assert marked("gone") == rests_at
    # This app has no task and so no code to compare with.
    assert [(view.name, view.problem) for view in app.schedules.list()] == [("gone", ""), ("kept", "")]
    wait_until(lambda: every_second(planned.occurrences("kept")), "all of the other, also those in between", 20)


def test_code_of_two_versions_and_the_newer_one_goes(planned, app, marked, driver, keys, look):
    """The record is the newer code's as long as that fires it; where it is gone, the older code's comes back."""
    planned.start("one:old")
    planned.until("one", 1)
    newer = planned.start("one:new", command="scheduler")
    texts = lambda: [run.text for run in sorted(planned.ran("one"), key=lambda run: run.at_ms)]
    wait_until(lambda: texts().count("new") >= 3, lambda: f"the newer code's fires: {texts()}", 30)
    assert texts() == sorted(texts(), reverse=True)  # "old"s, then "new"s
    assert every_second(planned.occurrences("one"))
    newer.kill()
    app.schedules.pause("one")
    wait_until(lambda: look().backlog == 0, "all have run")
    before_ms = driver.server_ms() // SECOND_MS * SECOND_MS - 70 * SECOND_MS
    set_mark(driver, keys, "one", before_ms)  # longer ago than anybody who fires it would let it be
    nudge(driver, keys)
    wait_until(lambda: marked("one") >= before_ms + 70 * SECOND_MS, "the older code fires it", 30)


def test_limits_of_a_task_hold_for_what_schedules_send(planned, app, send, look, marked):
    planned.start(slots=4)
    app.schedules.add("s", send.declared(tasks.hold).options(concurrency=Limit(1)).call("x"), every=1)
    (first,) = planned.until("s", 1)
    wait_until(lambda: marked("s") >= first.at_ms + 2 * SECOND_MS, "two more are sent", 20)
    wait_until(lambda: look().due == {}, "they wait for the limit")
    assert planned.ran("s") == [first]
    app.schedules.remove("s")
    planned.go()
    wait_until(lambda: look().counts.get("succeeded", 0) >= 3, "each runs", 20)


def test_occurrences_that_nobody_was_there_for(planned, app, driver, keys, marked):
    now_s = driver.server_ms() // 1000
    # The last occurrence is well over a minute ago, and the next one far.
    interval_s = next(s for s in range(600, 3600) if 120 < now_s % s < s - 240)
    last = now_s // interval_s * interval_s * 1000
    step = interval_s * 1000
    for missed in ("last", "skip", "all"):
        app.schedules.add(missed, app.call(TICK, missed), every=interval_s, missed=missed, elsewhere=True)
        set_mark(driver, keys, missed, last - 3 * step)
    planned.start(command="scheduler")
    planned.start()
    wait_until(lambda: [marked(missed) for missed in ("last", "skip", "all")] == [last] * 3, "all are decided", 20)
    planned.until("last", 1)
    planned.until("all", 3)
    assert planned.occurrences("last") == [last]
    assert planned.occurrences("all") == [last - 2 * step, last - step, last]
    assert planned.ran("skip") == []
    assert sent(driver, keys) == 4


def test_one_that_may_not_overlap_waits_for_the_end_of_the_last(planned, app, driver, marked, look):
    planned.start(slots=4)
    app.schedules.add("alone", app.call(HOLD, "x"), every=1, overlap="skip", elsewhere=True)
    (first,) = planned.until("alone", 1)
    wait_until(lambda: marked("alone") >= first.at_ms + 3 * SECOND_MS, "three are passed over", 20)
    assert planned.ran("alone") == [first]
    assert look().due == {}
    assert app.schedules.run_now("alone") is None
    planned.go()
    assert planned.until("alone", 2)[1].at_ms > first.at_ms + 3 * SECOND_MS
    assert look().cancelled == {}


def test_one_that_cancels_the_one_before(planned, app, look):
    planned.start(slots=4)
    app.schedules.add("latest", app.call(HOLD, "x"), every=1, overlap="cancel-running", elsewhere=True)
    began = lambda: [run for run in planned.ran("latest") if run.text == "x"]
    wait_until(lambda: len(began()) >= 3, lambda: f"three begin: {planned.ran()}", 30)
    app.schedules.remove("latest")
    planned.go()
    wait_until(lambda: look().counts.get("succeeded", 0) == 1, lambda: f"the last one ends well: {look().counts}", 20)
    ends = {record.id: record.state for record in look().journal}
    *old, last = [run.id for run in began()]
    assert [ends[task_id] for task_id in old] == ["cancelled"] * len(old)
    assert ends[last] == "succeeded"
    assert {run.id for run in planned.ran() if run.text == "cancelled"} == set(old)


def test_whatever_its_end_the_next_one_is_not_held_up(planned, app, look, driver, keys):
    app.schedules.add("alone", app.call(TICK, "x"), cron="0 0 29 2 *", overlap="skip", elsewhere=True)
    task_id = app.schedules.run_now("alone")
    assert app.schedules.run_now("alone") is None
    assert app.handle(task_id).cancel() == "cancelled"
    assert app.schedules.run_now("alone") not in (None, task_id)
    planned.start()
    app.schedules.add("fails", app.call(FAIL, "x"), every=1, overlap="skip", elsewhere=True)
    planned.until("fails", 2)
    app.schedules.pause("fails")
    wait_until(lambda: look().backlog == 0, "all have ended", 20)
    assert driver.run(plain("EXISTS", keys.flow, keys.unique)) == 0
    assert look().counts["dead"] == len(planned.occurrences("fails"))
