"""What runs next: highest lane first, in order within one, only where the tags are, and the last ones in the end."""

from __future__ import annotations

from streamwork.store.commands import plain
from tests.apps import faults
from tests.helpers import wait_until

LOW, HIGH, CRITICAL = 0, 7, 9


def started(state):
    """Return task ids in the order in which their bodies began."""
    records = [record for record in state.journal if record.state == "succeeded"]
    return [record.id for record in sorted(records, key=lambda r: (r.started_at_ms, r.ended_at_ms))]


def test_one_critical_behind_a_hundred_low_ones_is_next(start, send, app, notes, look):
    start(slots=1)
    send(faults.nothing, priority=CRITICAL).result(timeout=10)  # so that its lane is known when it counts
    held = send(faults.hold, notes.path, "held", priority=LOW)
    notes.until(1)
    note = send.declared(faults.note).options(priority=LOW)
    low = app.enqueue_many(note.call(notes.path, str(n)) for n in range(100))
    critical = send(faults.note, notes.path, "critical", priority=CRITICAL)
    notes.go()
    for handle in [held, critical, *low]:
        handle.result(timeout=10)
    assert [run.text for run in notes.runs()] == ["held", "critical", *map(str, range(100))]


def test_a_lane_that_did_not_exist_is_read_before_what_waits_below_it(start, send, app, notes, look):
    start(slots=1)
    held = send(faults.hold, notes.path, "held", priority=LOW)
    notes.until(1)
    note = send.declared(faults.note).options(priority=LOW)
    low = app.enqueue_many(note.call(notes.path, str(n), seconds=0.05) for n in range(20))
    levels = [send(faults.note, notes.path, f"at-{n}", priority=n) for n in (4, 9, 6)]
    notes.go()
    for handle in [held, *levels, *low]:
        handle.result(timeout=10)
    order = [run.text for run in notes.runs()]
    # A worker hears of a lane within 100 ms; half a second of low ones is far more.
    assert max(order.index(f"at-{n}") for n in (4, 6, 9)) < order.index("10")
    assert [text for text in order if text.isdigit()] == [str(n) for n in range(20)]


def test_within_a_lane_the_order_of_sending_is_kept(start, send, app, notes):
    start(slots=1)
    note = send.declared(faults.note)
    handles = app.enqueue_many(note.call(notes.path, str(n)) for n in range(300))
    handles += [send(faults.note, notes.path, str(n)) for n in range(300, 320)]
    for handle in handles:
        handle.result(timeout=10)
    assert [run.text for run in notes.runs()] == [str(n) for n in range(320)]


def test_a_task_runs_only_where_all_its_tags_are_offered(start, send, look):
    backend = start(args=("--tags", "backend"))
    both, front = send(faults.backend_gpu, 1), send(faults.frontend, 2)
    assert send(faults.backend, 3).result(timeout=10) == 3
    assert send(faults.nothing, 4).result(timeout=10) == 4  # who offers more also takes what needs nothing
    assert not both.wait(timeout=0.5)
    assert look().in_flight == 0
    start(args=("--tags", "frontend"))
    assert front.result(timeout=10) == 2
    assert not both.wait(timeout=0.5)
    start(args=("--tags", "gpu,backend"))
    assert both.result(timeout=10) == 1
    ran_by = {record.id: record.consumer for record in look().journal}
    assert f"-{backend.pid}-" not in ran_by[both.id] + ran_by[front.id]


def test_what_is_lowest_starts_under_endless_load_above_it(start, send, app, notes, keys, driver):
    start(slots=2, max_starve_s=1)
    busy = send.declared(faults.wait).options(priority=HIGH)
    send(faults.nothing, priority=LOW).result(timeout=10)
    app.enqueue_many(busy.call(0.005) for _ in range(200))
    low = [send(faults.note, notes.path, str(n), priority=LOW) for n in range(3)]

    def is_fed():
        # Never fewer than a hundred wait above it, so without the bound it would not start.
        waiting = undelivered(driver, keys)
        assert waiting > 0 or notes.runs(), "the load has run out, which proves nothing"
        if waiting < 100:
            app.enqueue_many(busy.call(0.005) for _ in range(100))
        return len(notes.runs()) == 3

    wait_until(is_fed, "all low ones have begun", within_s=10)
    assert undelivered(driver, keys) > 0
    for handle in low:
        assert handle.result(timeout=10) == (1, 0)
    assert [run.text for run in notes.runs()] == ["0", "1", "2"]
    wait_until(lambda: undelivered(driver, keys) == 0, "the load is worked off")


def undelivered(driver, keys):
    """Return how many wait on the high lane."""
    groups = driver.run(plain("XINFO", "GROUPS", keys.lane("2:")))
    facts = dict(zip(groups[0][::2], groups[0][1::2], strict=True))
    waiting = driver.run(plain("XRANGE", keys.lane("2:"), b"(" + facts[b"last-delivered-id"], "+", "COUNT", 1000))
    return len(waiting)
