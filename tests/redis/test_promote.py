"""promote.lua: from due to a lane exactly once, never early (rules 3, 4, 26, I1)."""

from __future__ import annotations

import threading

import pytest

from streamwork.errors import StoreError
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from tests.helpers import body_of, seed, state_of, wait_until
from tests.redis.kit import LANE, bell, deliver, dump, full, read, settle, signals

LAST_ID = "18446744073709551615-18446744073709551615"


def promote(driver, keys, most=100, lanes=(LANE,)):
    return driver.run(scripts.promote(keys, list(lanes), most))


def test_what_is_due_is_on_its_lane_with_its_attempt_record(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, "R", run_at=1)
    driver.run(plain("DEL", keys.bell(LANE)))
    assert promote(driver, keys) == (1, None, False)
    state = state_of(driver, keys)
    entry, fields = state.lanes[LANE][-1]
    assert fields == {"a": b"2,0,0,1,0", "d": delivery.body}
    assert state.moved == {delivery.task_id: f"{LANE}\n{entry}"}
    assert (state.due, state.due_body, state.added, state.undelivered) == ({}, {}, {LANE: 2}, 1)
    assert bell(driver, keys) == 1


def test_nothing_is_early_and_the_next_instant_is_told(driver, keys):
    at_ms = driver.server_ms() + 150
    seed(driver, keys, body_of("tests.echo"), lane=LANE, due_at_ms=at_ms)
    assert promote(driver, keys) == (0, at_ms, False)
    wait_until(lambda: promote(driver, keys).moved, "the message to be due")
    entry = state_of(driver, keys).lanes[LANE][0][0]
    assert int(entry.partition("-")[0]) >= at_ms


def test_the_earliest_come_first_and_a_batch_is_bounded(driver, keys):
    messages = [body_of("tests.echo", n) for n in range(10)]
    for n, message in enumerate(messages):
        seed(driver, keys, message, lane=LANE, due_at_ms=100 - n)
    assert promote(driver, keys, most=4) == (4, 95, False)
    assert promote(driver, keys, most=100).moved == 6
    assert [d.task_id for d in read(driver, keys, "w1")] == [task_id for task_id, _ in reversed(messages)]


def test_many_promoters_at_once_move_each_message_once(redis_url, driver, keys):
    messages = [body_of("tests.echo", n) for n in range(300)]
    for message in messages:
        seed(driver, keys, message, lane=LANE, due_at_ms=1)
    moved = []

    def run():
        mine = SyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
        while count := promote(mine, keys, most=7).moved:
            moved.append(count)
        mine.close()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(moved) == 300
    assert sorted(d.task_id for d in read(driver, keys, "w1")) == sorted(task_id for task_id, _ in messages)
    assert state_of(driver, keys).added == {LANE: 300}


def test_a_lane_that_was_not_declared_is_told_and_its_message_stays(driver, keys):
    message = body_of("tests.echo")
    seed(driver, keys, message, lane="3:gpu", due_at_ms=1)
    seed(driver, keys, body_of("tests.echo"), lane=LANE, due_at_ms=2)
    assert promote(driver, keys) == (1, 1, True)
    assert state_of(driver, keys).due == {message[0]: 1}
    assert promote(driver, keys, lanes=(LANE, "3:gpu")) == (1, None, False)


def test_a_lane_that_did_not_exist_is_made_with_its_group_and_announced(driver, keys):
    seed(driver, keys, body_of("tests.echo"), lane="3:gpu", due_at_ms=1)
    assert promote(driver, keys, lanes=(LANE, "3:gpu")).moved == 1
    assert signals(driver, keys) == [("lane", "3:gpu")]
    assert list(state_of(driver, keys).lanes) == ["3:gpu"]
    assert len(read(driver, keys, "w1", lane="3:gpu")) == 1


def test_an_id_without_a_body_goes_away(driver, keys):
    driver.run(plain("ZADD", keys.due, 1, "ghost"))
    assert promote(driver, keys) == (0, None, False)
    assert state_of(driver, keys).due == {}


def test_garbage_does_not_hold_back_what_is_behind_it(driver, keys):
    for n, body in enumerate((b"", b"no newline", b"one\nnewline")):
        driver.run(plain("HSET", keys.due_body, f"garbage{n}", body))
        driver.run(plain("ZADD", keys.due, 1, f"garbage{n}"))
    seed(driver, keys, body_of("tests.echo"), lane=LANE, due_at_ms=2)
    assert promote(driver, keys, most=4).moved == 1
    state = state_of(driver, keys)
    assert (state.due, state.due_body) == ({}, {})


def test_a_lane_of_another_type_loses_nothing(own, own_keys):
    own.run(plain("SADD", own_keys.lane(LANE), "foreign"))
    seed(own, own_keys, body_of("tests.echo"), lane=LANE, due_at_ms=1)
    before = dump(own, "own")
    assert promote(own, own_keys) == (0, 1, True)
    assert dump(own, "own") == before


def test_it_works_when_redis_is_full(own, own_keys):
    seed(own, own_keys, body_of("tests.echo"), lane=LANE, due_at_ms=1)
    with full(own):
        assert promote(own, own_keys).moved == 1
    assert len(read(own, own_keys, "w1")) == 1


@pytest.mark.parametrize("rounds", [3])
def test_retry_after_retry_keeps_one_live_record(driver, keys, rounds):
    (delivery,) = deliver(driver, keys, "w1")
    flags = ""
    for _ in range(rounds):
        assert settle(driver, keys, delivery, "R" + flags, run_at=1)
        state = state_of(driver, keys)
        assert (len(state.due), state.in_flight, state.moved) == (1, 0, {})
        assert promote(driver, keys).moved == 1
        (delivery,) = read(driver, keys, "w1")
        assert len(state_of(driver, keys).moved) == 1
        flags = "m"
    assert settle(driver, keys, delivery, "Sm")
    assert state_of(driver, keys).backlog == 0


def spoil(driver, keys, what):
    """Put something else under a key, or fill a stream's last id."""
    key = (
        keys.bell(LANE)
        if what == "bell"
        else keys.lane(LANE)
        if what == "lane's end"
        else getattr(keys, what.split("'")[0])
    )
    if what.endswith("end"):
        driver.run(plain("XADD", key, LAST_ID, "d", "x"))
    else:
        driver.run(plain("DEL", key))
        driver.run(plain("SET", key, "foreign"))


@pytest.mark.parametrize("broken", ["lanes", "control", "moved", "added", "bell", "lane's end", "control's end"])
def test_a_message_is_never_half_way_whatever_stands_elsewhere(own, own_keys, broken):
    keys = own_keys
    task_id, body = body_of("tests.echo")
    seed(own, keys, (task_id, body), lane=LANE, due_at_ms=1)
    spoil(own, keys, broken)
    for _ in range(2):
        try:
            promote(own, keys)
        except StoreError as error:
            assert "PROMOTE-TYPE" in str(error)  # noqa: PT017 - only one of them is an error
            assert broken == "moved"
    rows = own.run(plain("XRANGE", keys.lane(LANE), "-", "+"))
    on_lane = sum(fields[-1] == body for _, fields in rows)
    in_due = own.run(plain("ZSCORE", keys.due, task_id))
    kept = own.run(plain("HEXISTS", keys.due_body, task_id))
    stays = broken in {"moved", "lane's end"}
    assert (on_lane, in_due, kept) == ((0, b"1", 1) if stays else (1, None, 0))


def test_what_cannot_be_read_leaves_no_place_behind_that_nobody_would_free(driver, keys):
    task_id, _ = body_of("tests.echo")
    seed(driver, keys, (task_id, b"\xff\xfe"), lane=LANE, due_at_ms=1)
    assert promote(driver, keys).moved == 1
    assert state_of(driver, keys).moved == {}
