"""fire.lua: one message per occurrence, never early, and nothing of it where it does not happen (rule 27)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from streamwork.errors import StoreFull, StoreRejected
from streamwork.ids import new_task_id
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.planning import Fired, fire, plan, unique_name
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from tests.helpers import body_of, state_of
from tests.redis.kit import LANE, dump, full, mark_of, set_mark, signals

RECORD, NAME = b"the record", "nightly"
MARK = 1_000


@pytest.fixture
def planned(driver, keys):
    """A schedule whose last occurrence was at 1,000 ms of 1970."""
    driver.run(plan(keys, NAME, "add", RECORD))
    set_mark(driver, keys, NAME, MARK)
    driver.run(plain("DEL", keys.control))
    return keys


def message(limits=b""):
    task_id, body = body_of("tests.echo")
    return Fired(task_id, b"1:\n1,0,0,1,0\n" + body, limits)


def shot(driver, keys, at_ms, overlap="queue", record=RECORD, made=None):
    """Fire an occurrence; returns the answer and the id of its message."""
    made = made or message()
    return driver.run(fire(keys, NAME, record, at_ms, made, overlap)), made.task_id


def test_an_occurrence_becomes_a_message_that_is_due_at_its_instant(driver, planned):
    made = message(b"limits")
    assert shot(driver, planned, 2000, made=made)[0] == "fired"
    state = state_of(driver, planned)
    assert state.due == {made.task_id: 2000}
    assert state.due_body == {made.task_id: made.due}
    assert driver.run(plain("HGETALL", planned.flow)) == [made.task_id.encode(), b"\nlimits"]
    assert mark_of(driver, planned, NAME) == "2000 -"
    assert [name for name, _ in signals(driver, planned)] == ["due"]
    assert driver.run(scripts.promote(planned, [LANE], 10)).moved == 1


def test_without_limits_nothing_is_kept_of_them(driver, planned):
    shot(driver, planned, 2000)
    assert driver.run(plain("EXISTS", planned.flow, planned.unique, planned.cancelled)) == 0


def test_the_same_occurrence_and_one_before_it_are_decided_already(driver, planned):
    assert shot(driver, planned, 3000)[0] == "fired"
    before = dump(driver, planned.namespace)
    for at_ms in (3000, 2000, MARK, 1):
        for overlap in ("queue", "skip", "cancel-running"):
            assert shot(driver, planned, at_ms, overlap)[0] == "not now"
        assert driver.run(fire(planned, NAME, RECORD, at_ms, Fired(), "queue")) == "not now"
    assert dump(driver, planned.namespace) == before


def test_of_many_at_once_one_sends_each_occurrence(driver, redis_url, planned):
    def tries(_):
        own = SyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
        try:
            return [shot(own, planned, at_ms)[0] for at_ms in range(2000, 22_000, 1000)]
        finally:
            own.close()

    with ThreadPoolExecutor(4) as pool:
        answers = [answer for row in pool.map(tries, range(4)) for answer in row]
    # A process that is behind finds the watermark past its occurrence: none happens twice, whoever comes first.
    at = sorted(state_of(driver, planned).due.values())
    assert len(at) == len(set(at)) == answers.count("fired")
    assert at[-1] == 21_000
    assert set(answers) <= {"fired", "not now"}


def test_never_before_the_servers_time(driver, planned):
    early = driver.server_ms() + 60_000
    before = dump(driver, planned.namespace)
    assert shot(driver, planned, early)[0] == "not now"
    assert driver.run(fire(planned, NAME, RECORD, early, Fired(), "queue")) == "not now"
    assert dump(driver, planned.namespace) == before
    assert shot(driver, planned, driver.server_ms())[0] == "fired"


def test_paused_and_without_a_mark_it_waits(driver, planned):
    driver.run(plan(planned, NAME, "pause"))
    assert shot(driver, planned, 2000)[0] == "not now"
    driver.run(plain("HDEL", planned.schedule_marks, NAME))
    assert shot(driver, planned, 2000)[0] == "not now"
    driver.run(plain("HSET", planned.schedule_marks, NAME, "garbage"))
    assert shot(driver, planned, 2000)[0] == "not now"
    assert state_of(driver, planned).due == {}


def test_another_record_or_none_is_changed(driver, planned):
    assert shot(driver, planned, 2000, record=b"of older code")[0] == "changed"
    assert shot(driver, planned, None, record=b"of older code")[0] == "changed"
    driver.run(plan(planned, NAME, "remove"))
    assert shot(driver, planned, 2000)[0] == "changed"
    assert state_of(driver, planned).due == {}


def test_passed_over_is_decided_without_a_message(driver, planned):
    assert driver.run(fire(planned, NAME, RECORD, 5000, Fired(), "queue")) == "passed"
    assert (mark_of(driver, planned, NAME), state_of(driver, planned).due) == ("5000 -", {})
    assert signals(driver, planned) == []
    assert shot(driver, planned, 5000)[0] == "not now"
    assert shot(driver, planned, 6000)[0] == "fired"


def running(driver, keys, task_id):
    """Let a message hold the name of the schedule, as one does that was promoted and has not ended."""
    driver.run(plain("HSET", keys.flow, task_id, "held"))
    driver.run(plain("HSET", keys.unique, unique_name(NAME), f"{task_id} 0"))


def test_skip_passes_over_while_the_message_before_has_not_ended(driver, planned):
    made = message(b"limits")
    assert shot(driver, planned, 2000, "skip", made=made)[0] == "fired"
    assert driver.run(plain("HGET", planned.unique, unique_name(NAME))).decode() == f"{made.task_id} 0"
    assert shot(driver, planned, 3000, "skip")[0] == "running"
    assert mark_of(driver, planned, NAME) == "3000 -"
    assert list(state_of(driver, planned).due) == [made.task_id]
    driver.run(plain("HDEL", planned.flow, made.task_id))  # it has ended
    assert shot(driver, planned, 4000, "skip")[0] == "fired"
    assert state_of(driver, planned).cancelled == {}


def test_cancel_running_sends_and_asks_the_one_before_to_end(driver, planned):
    old = new_task_id()
    running(driver, planned, old)
    made = message(b"limits")
    assert shot(driver, planned, 2000, "cancel-running", made=made)[0] == "fired"
    assert state_of(driver, planned).cancelled == {old: f"{made.task_id} terminate"}
    assert signals(driver, planned)[:2] == [("cancel", old), ("terminate", old)]
    assert driver.run(plain("HGET", planned.unique, unique_name(NAME))).decode() == f"{made.task_id} 0"
    assert list(state_of(driver, planned).due) == [made.task_id]


def test_cancel_running_cancels_nothing_that_has_ended(driver, planned):
    running(driver, planned, old := new_task_id())
    driver.run(plain("HDEL", planned.flow, old))
    assert shot(driver, planned, 2000, "cancel-running")[0] == "fired"
    assert state_of(driver, planned).cancelled == {}


def test_by_hand_is_beside_the_plan(driver, planned):
    before = driver.server_ms()
    answer, task_id = shot(driver, planned, None)
    assert answer == "fired"
    assert before <= state_of(driver, planned).due[task_id] <= driver.server_ms()
    assert mark_of(driver, planned, NAME) == f"{MARK} -"
    driver.run(plan(planned, NAME, "pause"))
    assert shot(driver, planned, None)[0] == "fired"
    assert mark_of(driver, planned, NAME) == f"{MARK} p"
    running(driver, planned, new_task_id())
    assert shot(driver, planned, None, "skip")[0] == "running"
    assert mark_of(driver, planned, NAME) == f"{MARK} p"


@pytest.mark.parametrize("key", ["due", "due_body", "control", "cancelled", "flow", "unique"])
@pytest.mark.parametrize("overlap", ["queue", "cancel-running"])
def test_a_key_of_another_kind_is_found_before_anything_is_written(driver, planned, key, overlap):
    if key != "flow":
        running(driver, planned, new_task_id())
    driver.run(plain("DEL", getattr(planned, key)))
    driver.run(plain("SET", getattr(planned, key), "text"))
    before = dump(driver, planned.namespace)
    with pytest.raises(StoreRejected, match="FIRE-TYPE"):
        shot(driver, planned, 2000, overlap, made=message(b"limits"))
    assert dump(driver, planned.namespace) == before
    driver.run(plain("DEL", getattr(planned, key)))
    assert shot(driver, planned, 2000, overlap)[0] == "fired"


def test_a_full_redis_refuses_it_whole_and_it_waits_for_room(own, own_keys):
    own.run(plan(own_keys, NAME, "add", RECORD))
    set_mark(own, own_keys, NAME, MARK)
    before = dump(own, "own")
    with full(own), pytest.raises(StoreFull):
        shot(own, own_keys, 2000)
    assert dump(own, "own") == before
    assert shot(own, own_keys, 2000)[0] == "fired"


def test_the_watermark_has_no_ttl(driver, planned):
    shot(driver, planned, 2000)
    assert driver.run(plain("PTTL", planned.schedule_marks)) == -1
    assert driver.run(plain("PTTL", planned.schedules)) == -1
