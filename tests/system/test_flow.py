"""Limits over several worker processes: how many, how fast, in which order, fairly, once, and over a death."""

from __future__ import annotations

import asyncio

import pytest

from streamwork import AlreadyQueued, Group, Limit, Rate, TaskFailed, Unique
from streamwork.broker.steps import ask
from streamwork.broker.why import why
from streamwork.store.commands import plain
from tests.apps import faults
from tests.helpers import state_of, wait_until


def spans(look):
    """Return (id, begun, ended) in ms of what succeeded; one clock, since all runs on one machine."""
    return [(r.id, r.started_at_ms, r.ended_at_ms) for r in look().journal if r.state == "succeeded"]


def most_at_once(spans):
    edges = sorted([(begun, 1) for _, begun, _ in spans] + [(ended, -1) for _, _, ended in spans])
    now = most = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def left_over(driver, keys):
    """Return what is still held; nothing belongs there once all has ended."""
    names = (keys.flow, keys.permits, keys.parked, keys.parked_body, keys.turns, keys.wake)
    return [key for key in names if driver.run(plain("EXISTS", key))]


def test_no_more_than_the_limit_run_at_once_on_all_workers_together(start, send, app, look, driver, keys):
    start(slots=10)
    start(slots=10)
    task = send.declared(faults.wait).options(concurrency=Limit(3))
    for handle in app.enqueue_many(task.call(0.01) for _ in range(120)):
        handle.result(timeout=30)
    found = spans(look)
    assert len(found) == 120
    assert most_at_once(found) == 3
    assert left_over(driver, keys) == []


def test_a_limit_by_key_leaves_the_others_alone(start, send, look, notes):
    start(slots=10)
    task = send.declared(faults.hold).options(concurrency=Limit(1, key=lambda _notes, text: text[0]))
    handles = [task.enqueue(notes.path, text) for text in ("a1", "a2", "b1")]
    notes.until(2)
    assert sorted(run.text for run in notes.runs()) == ["a1", "b1"]
    assert handles[1].state() == "waiting"
    notes.go()
    for handle in handles:
        handle.result(timeout=10)
    assert sorted(run.text for run in notes.runs()) == ["a1", "a2", "b1"]


def test_a_dead_worker_keeps_no_place(start, send, notes, look, driver, keys):
    task = send.declared(faults.hold).options(concurrency=Limit(1))
    first = start()
    held, waiting = task.enqueue(notes.path, "one"), task.enqueue(notes.path, "two")
    notes.until(1)
    first.kill()
    start()
    notes.until(2)
    assert [run.text for run in notes.runs()] == ["one", "one"]  # its place went with it to the one that runs it now
    notes.go()
    held.result(timeout=10)
    waiting.result(timeout=10)
    assert left_over(driver, keys) == []


def test_what_a_worker_gives_back_keeps_its_place(start, send, notes):
    task = send.declared(faults.hold).options(concurrency=Limit(1))
    first = start(args=("--drain-timeout", "0.1"))
    held, waiting = task.enqueue(notes.path, "one"), task.enqueue(notes.path, "two")
    notes.until(1)
    first.signal()
    assert first.wait() == 0
    start()
    notes.until(2)
    notes.go()
    held.result(timeout=10)
    waiting.result(timeout=10)
    assert [run.text for run in notes.runs()] == ["one", "one", "two"]


def test_calls_of_one_key_run_one_at_a_time_in_order_through_their_retries(start, send, app, notes, look):
    start(slots=10)
    start(slots=10)
    task = send.declared(faults.note).options(key=lambda _notes, text, **_: text[0])
    handles = app.enqueue_many(task.call(notes.path, f"{key}{n:02}") for n in range(30) for key in "abc")
    for handle in handles:
        handle.result(timeout=30)
    texts = [run.text for run in notes.runs()]
    assert {key: [text for text in texts if text[0] == key] for key in "abc"} == {
        key: [f"{key}{n:02}" for n in range(30)] for key in "abc"
    }


def test_a_window_lets_so_many_start_in_each_span_of_it(start, send, app, look, driver):
    start(slots=20)
    start(slots=20)
    before_ms = driver.server_ms()
    window = send.declared(faults.nothing).options(rate=Rate("10/s", window=True))
    for handle in app.enqueue_many(window.call(n) for n in range(35)):
        handle.result(timeout=30)
    begun = sorted(at for _, at, _ in spans(look))
    # Redis dates a start before the body begins, so the eleventh body begins a second after the first was dated, or
    # later. That no span at all sees more is shown by the dates themselves, in tests/redis/test_begin.py.
    assert all(at >= before_ms + n // 10 * 1000 for n, at in enumerate(begun))


def test_a_bucket_allows_its_burst_and_then_its_rate(start, send, app, look, driver):
    start(slots=20)
    before_ms = driver.server_ms()
    task = send.declared(faults.nothing).options(rate=Rate("20/s", burst=5))
    for handle in app.enqueue_many(task.call(n) for n in range(25)):
        handle.result(timeout=30)
    begun = sorted(at for _, at, _ in spans(look))
    # One more than the burst needs 50 ms, and so on; a millisecond is lost where instants are cut to whole ones.
    assert all(at >= before_ms + max(0, n - 4) * 50 - 1 for n, at in enumerate(begun))


def test_a_large_group_does_not_hold_up_the_first_of_another(start, send, app, notes):
    send(faults.nothing).state()
    task = send.declared(faults.note)
    large = app.enqueue_many(task.options(group="large").call(notes.path, f"large{n}") for n in range(2000))
    small = [task.options(group="small").enqueue(notes.path, f"small{n}") for n in range(3)]
    start(slots=4)
    for handle in [*small, *large]:
        handle.result(timeout=60)
    texts = [run.text for run in notes.runs()]
    # The places that were given away before it came (20 until a worker is there), and turn about from then on.
    assert max(texts.index(f"small{n}") for n in range(3)) < 40


def test_groups_that_share_a_rate_take_turns_for_it(start, send, app, notes):
    task = send.declared(faults.note).options(rate=Rate("200/s", burst=1, name="shared"))
    large = app.enqueue_many(task.options(group="large").call(notes.path, f"large{n}") for n in range(300))
    small = [task.options(group="small").enqueue(notes.path, f"small{n}") for n in range(5)]
    start(slots=4)
    for handle in [*small, *large]:
        handle.result(timeout=60)
    texts = [run.text for run in notes.runs()]
    assert max(texts.index(f"small{n}") for n in range(5)) < 20


def test_groups_whose_tags_nobody_offers_hold_up_no_others(start, send, app, notes, driver, keys):
    task = send.declared(faults.note)
    start(slots=4)
    waiting = app.enqueue_many(task.options(group="a", tags={"gpu"}).call(notes.path, "gpu") for _ in range(100))
    others = app.enqueue_many(task.options(group="a").call(notes.path, "any") for _ in range(50))
    for handle in others:
        handle.result(timeout=10)
    assert {run.text for run in notes.runs()} == {"any"}
    assert [reason.code for reason in ask(driver, why([keys], waiting[99].id))] == ["parked", "no_tags"]
    start(slots=4, tags=["gpu"])
    for handle in waiting:
        handle.result(timeout=10)


def test_turns_go_by_weight_and_a_group_has_its_own_limit(start, send, app, notes, look):
    task = send.declared(faults.note)
    heavy = app.enqueue_many(task.options(group=Group("h", weight=3)).call(notes.path, "h") for _ in range(300))
    light = app.enqueue_many(task.options(group=Group("l")).call(notes.path, "l") for _ in range(300))
    capped = app.enqueue_many(
        task.options(group=Group("c", most=1)).call(notes.path, "c", seconds=0.01) for _ in range(5)
    )
    start(slots=4)
    for handle in [*heavy, *light, *capped]:
        handle.result(timeout=60)
    texts = [run.text for run in notes.runs()]
    middle = [text for text in texts[60:260] if text != "c"]
    assert 2 <= middle.count("h") / middle.count("l") <= 4
    mine = {handle.id for handle in capped}
    assert most_at_once([span for span in spans(look) if span[0] in mine]) == 1


def test_one_of_a_kind_is_joined_refused_or_replaced(start, send, notes):
    task = send.declared(faults.hold)
    first = task.options(unique="k").enqueue(notes.path, "first")
    assert task.options(unique="k").enqueue(notes.path, "again").id == first.id
    with pytest.raises(AlreadyQueued) as refused:
        task.options(unique=Unique("k", on_duplicate="reject")).enqueue(notes.path, "refused")
    assert refused.value.task_id == first.id
    other = task.options(unique=Unique("k", on_duplicate="replace")).enqueue(notes.path, "instead")
    start()
    notes.go()
    other.result(timeout=10)
    with pytest.raises(TaskFailed) as replaced:
        first.result(timeout=10)
    assert replaced.value.state == "cancelled"
    assert [run.text for run in notes.runs()] == ["instead"]
    assert task.options(unique="k").enqueue(notes.path, "later").id not in (first.id, other.id)


@pytest.mark.parametrize("face", ["sync", "async"])
def test_of_a_batch_it_is_said_which_call_was_refused_and_that_the_others_were_sent(send, app, face, driver, keys):
    task = send.declared(faults.nothing)
    first = task.options(unique="k").enqueue()
    reject = task.options(unique=Unique("k", on_duplicate="reject"))
    other = task.options(unique=Unique("l", on_duplicate="reject"))
    calls = [task.call(), other.call(), reject.call(), other.call(), task.options(unique="m").call()]
    with pytest.raises(AlreadyQueued) as refused:
        app.enqueue_many(calls) if face == "sync" else asyncio.run(app.aenqueue_many(calls))
    assert refused.value.task_id == first.id
    text = str(refused.value)
    assert text.startswith(
        f"call 3 of the batch was refused, and 1 more that were sent with it: task message {first.id}"
    )
    assert sum(map(len, state_of(driver, keys).lanes.values())) == 1 + 3
    assert "; 3 others were sent and stay sent" in text


def test_unique_until_it_starts_lets_the_next_one_come(start, send, notes):
    start()
    task = send.declared(faults.hold).options(unique=Unique("k", until="start"))
    running = task.enqueue(notes.path, "one")
    notes.until(1)
    waiting = task.enqueue(notes.path, "two")
    assert waiting.id != running.id
    notes.until(2)
    notes.go()
    running.result(timeout=10)
    waiting.result(timeout=10)


def test_of_those_that_come_close_together_the_last_one_runs(start, send, notes):
    start()
    task = send.declared(faults.note).options(debounce=0.4)
    handles = [task.enqueue(notes.path, str(n)) for n in range(5)]
    handles[-1].result(timeout=10)
    assert [run.text for run in notes.runs()] == ["4"]
    assert [handle.state() for handle in handles[:-1]] == ["cancelled"] * 4


def test_what_waits_in_a_line_can_be_taken_back(start, send, notes, driver, keys):
    task = send.declared(faults.hold).options(concurrency=Limit(1))
    held, waiting, last = (task.enqueue(notes.path, text) for text in ("one", "two", "three"))
    assert waiting.cancel() == "cancelled"
    assert waiting.state() == "cancelled"
    start()
    notes.go()
    held.result(timeout=10)
    last.result(timeout=10)
    assert [run.text for run in notes.runs()] == ["one", "three"]
    wait_until(lambda: left_over(driver, keys) == [], "nothing to be held")


def test_a_message_with_several_limits_needs_room_in_all(start, send, app, look, driver, keys):
    start(slots=20)
    task = send.declared(faults.wait)
    wide = task.options(concurrency=[Limit(5, name="wide"), Limit(2, name="narrow")])
    other = task.options(concurrency=Limit(5, name="wide"))
    handles = app.enqueue_many([*(wide.call(0.01) for _ in range(40)), *(other.call(0.01) for _ in range(40))])
    for handle in handles:
        handle.result(timeout=30)
    found = spans(look)
    narrow = {handle.id for handle in handles[:40]}
    assert most_at_once([span for span in found if span[0] in narrow]) <= 2
    assert most_at_once(found) <= 5
    assert left_over(driver, keys) == []


def test_two_versions_of_a_limit_each_count_for_their_own_messages(start, send, app, look):
    start(slots=20)
    task = send.declared(faults.wait)
    old, new = task.options(concurrency=Limit(1, name="n")), task.options(concurrency=Limit(4, name="n"))
    handles = app.enqueue_many([*(old.call(0.01) for _ in range(10)), *(new.call(0.01) for _ in range(40))])
    for handle in handles:
        handle.result(timeout=30)
    assert 1 < most_at_once(spans(look)) <= 4
