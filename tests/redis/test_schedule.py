"""schedule.lua: into due once, whatever is lost; refused whole (rules 1, 3, 26)."""

from __future__ import annotations

import pytest

from streamwork.broker.outgoing import Sender
from streamwork.errors import StoreError, StoreFull
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.scheduling import schedule
from tests.helpers import state_of
from tests.proxy import is_script
from tests.redis.kit import LANE, full, later, outgoing, signals, stored, sync_sender, with_async_sender

IS_SCHEDULE = is_script(scripts.SCHEDULE)


def for_later(when="+60000", value=0):
    return outgoing(value=value)._replace(when=when)


def test_a_span_counts_from_the_servers_clock_and_an_instant_is_kept(driver, keys):
    span, instant = for_later("+60000"), for_later("4000000000000")
    before = driver.server_ms()
    assert driver.run(Sender(64).command(keys, [span, instant], 0)) == ["", ""]
    state = state_of(driver, keys)
    assert state.due[instant.task_id] == 4_000_000_000_000
    assert before + 60_000 <= state.due[span.task_id] <= driver.server_ms() + 60_000
    assert state.due_body[span.task_id] == b"1:\n1,0,0,1,0\n" + span.body


def test_what_is_promoted_is_a_first_attempt(driver, keys):
    driver.run(Sender(64).command(keys, [for_later("5")], 0))
    assert driver.run(scripts.promote(keys, [LANE], 10)).moved == 1
    assert state_of(driver, keys).lanes[LANE][0][1]["a"] == b"1,0,0,1,0"


def test_a_chunk_sent_again_is_answered_and_not_repeated(driver, keys):
    sender, message = Sender(64), for_later("+1")
    command = sender.command(keys, [message], 0)
    assert driver.run(command) == [""]
    driver.run(plain("ZREM", keys.due, message.task_id))  # as after a promotion
    driver.run(plain("HDEL", keys.due_body, message.task_id))
    assert driver.run(command) == [""]
    assert state_of(driver, keys).due == {}


def test_chunks_for_now_and_for_later_share_one_row_of_numbers(driver, keys):
    sender = Sender(64)
    for message in (outgoing(), for_later(), outgoing(), for_later()):
        driver.run(sender.command(keys, [message], 0))
        sender.sent(keys)
    state = state_of(driver, keys)
    assert (len(state.lanes[LANE]), len(state.due)) == (2, 2)
    late = Sender(64)
    late.id, late._numbers = sender.id, {keys.tag: 9}
    with pytest.raises(StoreError, match="ENQUEUE-GAP"):
        driver.run(late.command(keys, [for_later()], 0))


@pytest.mark.parametrize("lose", ["reply", "request"])
def test_a_lost_answer_schedules_once(own, own_keys, proxy, lose):
    getattr(proxy, f"lose_{lose}")(IS_SCHEDULE, 1)
    message = for_later()
    assert sync_sender(proxy.url).line().send(own_keys, (message,)) == [""]
    assert proxy.dropped == 1
    assert set(state_of(own, own_keys).due) == {message.task_id}


def test_a_loop_sends_both_kinds_side_by_side(own, own_keys, proxy):
    import asyncio

    messages = [for_later(value=n) if n % 2 else outgoing(value=n) for n in range(40)]

    async def body(sender):
        return await asyncio.gather(*(sender.send(own_keys, message) for message in messages))

    entries = with_async_sender(proxy.url, body)
    assert [bool(entry) for entry in entries] == [not message.when for message in messages]
    assert len(stored(own, own_keys)) == len(state_of(own, own_keys).due) == 20


def test_a_full_redis_refuses_it_whole(own, own_keys):
    with full(own), pytest.raises(StoreFull):
        own.run(Sender(64).command(own_keys, [for_later(), for_later()], 0))
    assert state_of(own, own_keys).due == {}


@pytest.mark.parametrize("when", ["", "+", "x", "-5", "+-5", "1.5", "inf", "nan", "1e400", "9007199254740993"])
def test_a_wrong_number_writes_nothing(driver, keys, when):
    command = schedule(keys, "s", 1, [("0" * 32, "+5", b"a"), ("1" * 32, when, b"b")], 1000)
    with pytest.raises(StoreError, match="SCHEDULE-NUMBER"):
        driver.run(command)
    assert state_of(driver, keys).due == {}
    assert driver.run(plain("EXISTS", keys.sender("s"))) == 0


def test_a_key_of_another_type_writes_nothing(driver, keys):
    driver.run(plain("SET", keys.due_body, "x"))
    with pytest.raises(StoreError, match="SCHEDULE-TYPE"):
        driver.run(Sender(64).command(keys, [for_later()], 0))
    assert driver.run(plain("EXISTS", keys.due)) == 0
    driver.run(plain("DEL", keys.due_body))


def test_the_promoter_is_told_of_an_earlier_head_and_of_no_other(driver, keys):
    for when, told in (("5000000000000", 1), ("6000000000000", 1), ("4000000000000", 2)):
        driver.run(Sender(64).command(keys, [for_later(when)], 0))
        assert len([one for one in signals(driver, keys) if one[0] == "due"]) == told


def test_an_enqueue_for_later_waits_for_room_as_long_as_it_is_told(own, own_keys, server):
    own.run(plain("CONFIG", "SET", "maxmemory", 1))
    waiting = later(sync_sender(server.url).line().send, own_keys, (for_later(),), 60.0)
    own.run(plain("CONFIG", "SET", "maxmemory", 0))
    assert waiting() == [""]
