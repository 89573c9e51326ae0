"""The reader of a queue's history: what fits, in order, page by page, gaps told, and nothing written."""

from __future__ import annotations

from functools import partial

import pytest

from streamwork.broker import bodies, history
from streamwork.broker.history import Query, Reading, check_queue
from streamwork.broker.steps import ask
from streamwork.errors import HistoryTrimmed, QueueNotFound
from streamwork.ids import new_task_id
from streamwork.model.history import HistoryGap, HistoryRecord
from streamwork.model.where import Where
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import WIRE_VERSION, JournalRecord, Options, encode_record
from tests.helpers import body_of, seed
from tests.redis.kit import calls_of, deliver, dump, settle


def read(driver, keys, names=lambda task: (), **asked):
    """Read everything that fits."""
    reading, found = Reading(keys, Query(**asked), names), []
    while not reading.is_over:
        found += ask(driver, reading.page())
    return found


def write(driver, keys, at, state="succeeded", task="shop.send", args=(7,), lane="1:", **fields):
    """Put a message on a lane and its record into the journal, at an id of one's choosing; returns the task id."""
    options = fields.pop("options", Options())
    task_id, body = body_of(task, *args, options=options, **fields.pop("kwargs", {}))
    (entry,) = seed(driver, keys, body, lane=lane)
    record = JournalRecord(
        WIRE_VERSION, fields.pop("id", task_id), task, state, lane, entry.encode(), 1, "host-1-a", 5, 9, **fields
    )
    driver.run(plain("XADD", keys.journal, at, "j", encode_record(record)))
    return task_id


def cursors(found):
    return [one.cursor for one in found]


def test_a_record_tells_the_whole_attempt(driver, keys, namespace):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery)
    before = dump(driver, namespace)
    (record,) = read(driver, keys)
    assert dump(driver, namespace) == before
    entry = delivery.entry.decode()
    assert record == HistoryRecord(
        cursor=record.cursor, queue="default", id=delivery.task_id, task="tests.echo", state="succeeded", attempt=1,
        crashes=0, lane="1:", tags=(), entry=entry, worker="w1", enqueued_at_ms=int(entry.partition("-")[0]),
        started_at_ms=1, ended_at_ms=2, detail="", error_type="", error_digest="", result_bytes=0, parent="",
        trace_id="", args=[0], kwargs={}, body=delivery.body,
    )  # fmt: skip


def test_what_the_newer_fields_and_the_message_say(driver, keys):
    write(
        driver, keys, "5-0", "dead", lane="2:eu,gpu", kwargs={"to": "a"}, options=Options(replay_of="f" * 32),
        detail="failed: OSError: no", crashes=1, result_bytes=3, error_type="OSError", digest="c0ffee", parent="p",
        trace_id="t",
    )  # fmt: skip
    (record,) = read(driver, keys)
    assert (record.error_type, record.error_digest, record.result_bytes) == ("OSError", "c0ffee", 3)
    assert (record.parent, record.trace_id, record.replay_of) == ("p", "t", "f" * 32)
    assert (record.tags, record.args, record.kwargs, record.crashes) == (("eu", "gpu"), [7], {"to": "a"}, 1)


def test_pages_follow_each_other_without_a_gap_or_a_repetition(driver, keys, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 7)
    for at in range(1, 24):
        write(driver, keys, f"{at}-0", args=(at,))
    found = read(driver, keys)
    assert [record.args for record in found] == [[at] for at in range(1, 24)]
    assert read(driver, keys, is_reversed=True) == found[::-1]
    assert cursors(read(driver, keys, after="9-0")) == [f"{at}-0" for at in range(10, 24)]
    assert cursors(read(driver, keys, after="9-0", is_reversed=True)) == [f"{at}-0" for at in range(8, 0, -1)]


def test_time_bounds_are_both_included_and_read_nothing_else(driver, keys, monkeypatch):
    for at in range(1, 30):
        write(driver, keys, f"{at * 100}-3")
    assert cursors(read(driver, keys, since_ms=2_700)) == ["2700-3", "2800-3", "2900-3"]
    assert cursors(read(driver, keys, until_ms=200)) == ["100-3", "200-3"]
    assert cursors(read(driver, keys, since_ms=500, until_ms=700)) == ["500-3", "600-3", "700-3"]
    assert cursors(read(driver, keys, since_ms=500, until_ms=700, is_reversed=True)) == ["700-3", "600-3", "500-3"]
    assert read(driver, keys, since_ms=501, until_ms=599) == []
    looks = []
    monkeypatch.setattr(history, "plain", lambda *args: looks.append(args) or plain(*args))
    read(driver, keys, limit=2, since_ms=500)
    assert [look for look in looks if look[0] == "XRANGE"] == [("XRANGE", keys.journal, "500", "+", "COUNT", 2)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"limit": 2}, [1, 2]),
        ({"limit": 2, "is_reversed": True}, [5, 4]),
        ({"task": "shop.mail.send"}, [1, 2]), ({"task": "shop.*"}, [1, 2, 3]), ({"task": "send"}, [1, 2, 4]),
        ({"task": "s*"}, [1, 2, 3, 4]), ({"task": "mail"}, []), ({"task": "shop.mail.sen?"}, [1, 2]),
        ({"states": frozenset({"dead"})}, [2]), ({"states": frozenset({"dead", "retried"})}, [2, 3]),
        ({"tags": frozenset({"gpu"})}, [3, 4]), ({"tags": frozenset({"gpu", "eu"})}, [4]),
        ({"where": Where("arg0 == 3")}, [3]), ({"where": Where("arg0 >= 3 and size == 1")}, [4]),
        ({"where": Where("arg0 > 1"), "limit": 2}, [2, 3]), ({"task": "send", "limit": 2, "is_reversed": True}, [4, 2]),
        ({"task": "send", "states": frozenset({"succeeded"}), "tags": frozenset({"eu"})}, [4]),
    ],
)  # fmt: skip
def test_what_fits(driver, keys, asked, expected, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    put = partial(write, driver, keys)
    put("1-0", task="shop.mail.send", args=(1,))
    put("2-0", task="shop.mail.send", args=(2,), state="dead")
    put("3-0", task="shop.grow", args=(3,), state="retried", lane="1:gpu")
    put("4-0", task="other.send", args=(4,), lane="1:eu,gpu", kwargs={"size": 1})
    put("5-0", task="big", args=(5,))
    assert [record.args[0] for record in read(driver, keys, **asked)] == expected


def test_where_knows_the_names_that_a_task_gives_its_arguments(driver, keys):
    write(driver, keys, "1-0", task="a", args=(7, "x"))
    write(driver, keys, "2-0", task="b", args=("x", 7))
    names = {"a": ["order_id", "to"], "b": ["to", "order_id"]}
    found = read(driver, keys, names.get, where=Where("order_id == 7 and to == 'x'"))
    assert cursors(found) == ["1-0", "2-0"]


def test_one_message_is_found_from_its_time_on_with_all_its_attempts(driver, keys):
    task_id = new_task_id()
    made_at_ms = int(task_id[:12], 16)
    write(driver, keys, f"{made_at_ms - 60_000}-0", id=task_id)  # before it was made: never looked at
    write(driver, keys, f"{made_at_ms + 1}-0", "retried", id=task_id)
    write(driver, keys, f"{made_at_ms + 2}-0", args=(task_id,))  # names it, and is another one
    write(driver, keys, f"{made_at_ms + 3}-0", id=task_id)
    found = read(driver, keys, id=task_id)
    assert [record.state for record in found] == ["retried", "succeeded"]
    assert read(driver, keys, id=new_task_id()) == []


def test_garbage_in_the_journal_hides_nothing(driver, keys):
    write(driver, keys, "1-0")
    for at, fields in ((2, ("j", "garbage")), (3, ("x", "y")), (4, ("j", "\x91\x01", "k", "v"))):
        driver.run(plain("XADD", keys.journal, f"{at}-0", *fields))
    record = JournalRecord(WIRE_VERSION, "no id", "t", "dead", "no lane", b"no entry", 1, "w", 0, 9)
    driver.run(plain("XADD", keys.journal, "5-0", "j", encode_record(record)))
    write(driver, keys, "6-0", lane="1:x")
    driver.run(plain("DEL", keys.lane("1:x")))
    found = read(driver, keys)
    records = [one for one in found if isinstance(one, HistoryRecord)]
    assert cursors(records) == ["1-0", "5-0", "6-0"]
    assert (records[1].args, records[1].enqueued_at_ms, records[1].started_at_ms) == (None, None, None)
    driver.run(plain("DEL", keys.journal))


def note(driver, keys, field, place, why="keep.history_s = 3600"):
    driver.run(plain("HSET", keys.trimmed, field, f"{place} 99 {why}"))


def test_what_was_trimmed_behind_since_is_told_in_front_and_read_backwards_at_the_end(driver, keys):
    write(driver, keys, "500-0")
    write(driver, keys, "600-0")
    note(driver, keys, "journal", "500-0")
    gap = HistoryGap(
        queue="default", what="attempts", since_ms=100, until_ms=500, trimmed_at_ms=99, why="keep.history_s = 3600"
    )
    first, *rest = read(driver, keys, since_ms=100)
    assert (first, cursors(rest)) == (gap, ["500-0", "600-0"])
    *rest, last = read(driver, keys, since_ms=100, is_reversed=True)
    assert (last, cursors(rest)) == (gap, ["600-0", "500-0"])
    # Nobody asked for what is before, or it is behind what is gone.
    for asked in ({}, {"since_ms": 500}, {"is_reversed": True}, {"since_ms": 550, "is_reversed": True}):
        assert all(isinstance(one, HistoryRecord) for one in read(driver, keys, **asked)), asked
    (only,) = read(driver, keys, since_ms=100, until_ms=300)
    assert (only.since_ms, only.until_ms) == (100, 300)


def test_what_is_trimmed_under_a_slow_reader_is_told(driver, keys, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    for at in range(1, 10):
        write(driver, keys, f"{at}-0")
    reading = Reading(keys, Query())
    assert cursors(ask(driver, reading.page())) == ["1-0", "2-0"]
    driver.run(plain("XTRIM", keys.journal, "MINID", "7-0"))
    note(driver, keys, "journal", "7-0")
    gap, *records = ask(driver, reading.page())
    assert (gap.what, gap.since_ms, gap.until_ms) == ("attempts", 2, 7)
    assert cursors(records) == ["7-0", "8-0"]
    assert cursors(ask(driver, reading.page())) == ["9-0"]
    assert reading.is_over


def test_an_empty_journal_that_was_trimmed_is_a_gap_once_also_for_who_waits(driver, keys):
    note(driver, keys, "journal", "700-0")
    assert [gap.until_ms for gap in read(driver, keys, since_ms=100)] == [700]
    reading = Reading(keys, Query(since_ms=100, is_followed=True))
    assert [gap.until_ms for gap in ask(driver, reading.page())] == [700]
    assert ask(driver, reading.page()) == []
    note(driver, keys, "journal", "900-0")
    assert [gap.until_ms for gap in ask(driver, reading.page())] == [900]


def test_arguments_that_are_gone_are_told_once_a_lane_and_fit_no_expression(driver, keys):
    for at, lane in ((1, "1:"), (2, "1:"), (3, "2:"), (4, "1:")):
        write(driver, keys, f"{at}-0", lane=lane, args=(at,))
    driver.run(plain("DEL", keys.lane("1:")))
    note(driver, keys, "1:", "99999999999999-0")
    gap, *records = read(driver, keys)
    assert (gap.what, gap.lane, gap.until_ms, gap.why) == ("arguments", "1:", 99999999999999, "keep.history_s = 3600")
    assert [record.args for record in records] == [None, None, [3], None]
    assert records[0].body is None
    gap, record = read(driver, keys, where=Where("arg0 >= 1"))
    assert (gap.what, record.args) == ("arguments", [3])


def test_a_message_whose_history_is_gone_is_refused_with_when_and_why(driver, keys):
    task_id = new_task_id()
    made_at_ms = int(task_id[:12], 16)
    note(driver, keys, "journal", f"{made_at_ms - 6_000}-0")
    assert read(driver, keys, id=task_id) == []
    note(driver, keys, "journal", f"{made_at_ms + 1}-0")
    with pytest.raises(HistoryTrimmed, match=r"history_s = 3600") as caught:
        read(driver, keys, id=task_id)
    assert (caught.value.task_id, caught.value.trimmed_at_ms) == (task_id, 99)
    write(driver, keys, f"{made_at_ms + 5}-0", id=task_id)
    gap, record = read(driver, keys, id=task_id)
    assert (gap.what, record.id) == ("attempts", task_id)


def test_a_broken_note_is_none(driver, keys):
    for text in ("", "x", "5-0", "x-y z w", "5-0 now why"):
        driver.run(plain("HSET", keys.trimmed, "journal", text))
        assert read(driver, keys, since_ms=1) == []


def test_large_messages_come_a_few_at_a_time(driver, keys, monkeypatch):
    monkeypatch.setattr(bodies, "MOST_BYTES", 10_000)
    monkeypatch.setattr(bodies, "_ROUND_BYTES", 2_000)
    monkeypatch.setattr(bodies, "_FIRST", 2)
    for at in range(1, 31):
        write(driver, keys, f"{at}-0", args=("x" * 1_000,))
    reading, sizes, found = Reading(keys, Query()), [], []
    while not reading.is_over:
        page = ask(driver, reading.page())
        sizes.append(len(page))
        found += cursors(page)
    assert found == [f"{at}-0" for at in range(1, 31)]
    assert max(sizes) <= 12


def test_who_follows_begins_now_or_where_it_is_told_and_hears_what_comes(driver, keys):
    write(driver, keys, "5-0")
    reading, since = Reading(keys, Query(is_followed=True)), Reading(keys, Query(is_followed=True, since_ms=1))
    assert ask(driver, reading.page()) == []
    assert cursors(ask(driver, since.page())) == ["5-0"]
    assert (reading.is_at_end, reading.is_over) == (True, False)
    write(driver, keys, "6-0")
    for each in (reading, since):
        assert driver.run(each.bell(), 10)
        assert cursors(ask(driver, each.page())) == ["6-0"]
    empty = Reading(QueueKeys(keys.namespace, "empty"), Query(is_followed=True))
    assert ask(driver, empty.page()) == []
    write(driver, empty.keys, "7-0")
    assert cursors(ask(driver, empty.page())) == ["7-0"]


def test_a_page_costs_the_same_however_long_the_journal_is(driver, keys):
    for at in range(1, 2_001):
        driver.run(plain("XADD", keys.journal, f"{at}-0", "j", "x")) if at < 1_990 else write(driver, keys, f"{at}-0")
    before = calls_of(driver, "xrange")
    assert len(ask(driver, Reading(keys, Query(since_ms=1_991, limit=3)).page())) == 3
    assert calls_of(driver, "xrange") - before == 4  # the journal, and an entry each
    driver.run(plain("DEL", keys.journal))


def test_a_queue_that_nobody_knows_is_refused_with_the_nearest(driver, keys):
    with pytest.raises(QueueNotFound, match="there are none"):
        ask(driver, check_queue(keys, ()))
    with pytest.raises(QueueNotFound, match="did you mean 'defualt'"):
        ask(driver, check_queue(keys, ("defualt",)))
    ask(driver, check_queue(keys, ("default",)))
    write(driver, keys, "1-0")
    ask(driver, check_queue(keys, ()))
