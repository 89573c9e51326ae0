"""A consumer group that is lost under work: one outcome for each message, and none is forgotten (rule 8, P9)."""

from __future__ import annotations

from collections import Counter

from streamwork.store.commands import plain
from tests.apps import faults
from tests.helpers import wait_until
from tests.system.kit import done, successes


def destroy(driver, keys):
    return driver.run(plain("XGROUP", "DESTROY", keys.lane("1:"), "workers"))


def test_only_what_was_in_hand_runs_again_and_nothing_is_committed_twice(start, send, app, notes, driver, keys, look):
    worker = start(slots=5)
    held = send(faults.hold, notes.path, "held")  # the oldest entry stays unsettled
    notes.until(1)
    note = send.declared(faults.note)
    first = app.enqueue_many(note.call(notes.path, str(n)) for n in range(300))
    for handle in first:
        assert handle.result(timeout=20) == (1, 0)
    waiting = [send(faults.hold, notes.path, f"late-{n}") for n in range(10)]
    notes.until(1 + 300 + 4)
    destroy(driver, keys)
    notes.go()
    worker.until("a lane's consumer group was destroyed and is made anew: no task message is lost")
    worker.until("unsettled entries of a lane were given back")
    assert [handle.result(timeout=20) for handle in (held, *waiting)] == [(1, 0)] * 11
    runs = Counter(run.text for run in notes.runs())
    assert {text for text, count in runs.items() if count > 1} <= {"held", "late-0", "late-1", "late-2", "late-3"}
    assert max(runs.values()) == 2
    assert successes(look()) == {handle.id: 1 for handle in (held, *first, *waiting)}
    wait_until(lambda: look().backlog == 0, lambda: f"nothing is left: {look().added} {look().settled}")


def test_a_burst_does_not_take_a_lane_that_is_being_restored_for_an_empty_one(start, send, app, notes, driver, keys):
    note = send.declared(faults.note)
    app.enqueue_many(note.call(notes.path, str(n)) for n in range(20))
    destroy(driver, keys)
    worker = start(args=["--burst"], ready=False)
    assert worker.wait(within_s=30) == 0
    assert sorted(int(run.text) for run in notes.runs()) == list(range(20))


def test_a_lane_that_lost_its_place_in_the_list_is_read_again(start, send, driver, keys):
    send(faults.nothing, 1)
    driver.run(plain("DEL", keys.lanes))
    start()
    assert send(faults.nothing, 2).result(timeout=30) == 2
    wait_until(lambda: done(driver, keys) == 2, "both have run")
