"""Dead letters are read page by page, each once, whatever happens to them meanwhile."""

from __future__ import annotations

import msgspec
import pytest

from streamwork.broker.dead import PAGE, DeadQuery, DeadReading, retrying
from streamwork.broker.steps import ask
from streamwork.clock import SYSTEM_CLOCK
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.wire.message import Options, decode_dead_letter, decode_message, encode_record
from tests.helpers import state_of
from tests.redis.burial import bury, letter_of, purge, retry
from tests.redis.kit import LANE, read, settle


def found(driver, keys, **asked):
    reading, ids = DeadReading(keys, DeadQuery(**asked)), []
    while not reading.is_over:
        ids += [record.id for record in ask(driver, reading.page())]
    return ids


@pytest.mark.parametrize("is_spread", [True, False])
def test_each_is_met_once_also_where_all_died_in_one_instant(driver, keys, is_spread):
    ids = [each.task_id for each in bury(driver, keys, 5 * PAGE)]
    if is_spread:
        for at, task_id in enumerate(ids):
            driver.run(plain("ZADD", keys.dead, 1000 + at, task_id))
    assert sorted(found(driver, keys)) == sorted(ids)
    assert len(found(driver, keys, limit=PAGE + 3)) == PAGE + 3
    assert found(driver, keys, ids=(ids[3], "0" * 32, ids[1])) == [ids[3], ids[1]]


def test_all_are_retried_once_though_they_die_again_meanwhile(driver, keys):
    ids = [each.task_id for each in bury(driver, keys, 3 * PAGE)]
    reading, retried = DeadReading(keys, DeadQuery()), []
    while not reading.is_over:
        for record in ask(driver, reading.page()):
            assert driver.run(retrying(keys, record, "me")) == ""
            retried.append(record.id)
        driver.run(scripts.promote(keys, [LANE], 1000))
        for again in read(driver, keys, "w1"):
            assert settle(driver, keys, again, "Dm")
            driver.run(plain("ZADD", keys.dead, 8, again.task_id))
    assert sorted(retried) == sorted(ids)
    assert len(state_of(driver, keys).dead) == len(ids)


def test_a_body_of_a_megabyte_makes_pages_short(driver, keys):
    big = bury(driver, keys, 12)
    for each in big:
        letter = decode_dead_letter(driver.run(plain("HGET", keys.dead_body, each.task_id)))
        message = msgspec.structs.replace(
            decode_message(letter.body), args=msgspec.Raw(msgspec.msgpack.encode(["x" * 1_000_000]))
        )
        new = msgspec.structs.replace(letter, body=msgspec.msgpack.encode(message))
        driver.run(plain("HSET", keys.dead_body, each.task_id, encode_record(new)))
    bury(driver, keys, 30)
    for each in big:
        driver.run(plain("ZADD", keys.dead, 1, each.task_id))
    reading, sizes = DeadReading(keys, DeadQuery()), []
    while not reading.is_over:
        sizes.append(len(ask(driver, reading.page())))
    assert sum(sizes) == 42
    assert sizes == [4, 4, 34]
    purge(driver, keys)


def test_one_that_has_expired_stays_dead(driver, keys):
    (one,) = bury(driver, keys)
    letter = decode_dead_letter(driver.run(plain("HGET", keys.dead_body, one.task_id)))
    past = Options(expires_at_ms=SYSTEM_CLOCK.now_ms() - 1)
    message = msgspec.structs.replace(decode_message(letter.body), options=past)
    new = msgspec.structs.replace(letter, body=msgspec.msgpack.encode(message))
    driver.run(plain("HSET", keys.dead_body, one.task_id, encode_record(new)))
    assert retry(driver, keys)[one.task_id] == "it has expired meanwhile: send it anew"
    assert list(state_of(driver, keys).dead) == [one.task_id]


def test_what_another_version_has_written_is_shown_and_can_be_purged(driver, keys):
    one, other = bury(driver, keys, 2)
    driver.run(plain("HSET", keys.dead_body, one.task_id, b"\xc1garbage"))
    record = letter_of(driver, keys, one.task_id)
    assert (record.id, record.reason, record.args) == (one.task_id, "undecodable", None)
    assert sorted(found(driver, keys)) == sorted([one.task_id, other.task_id])
    assert retry(driver, keys, one.task_id)[one.task_id].startswith("nothing of it can be read")
    assert purge(driver, keys, one.task_id) == {one.task_id: ""}


def test_those_that_stay_are_met_once_though_the_last_of_each_page_goes(driver, keys):
    ids = [each.task_id for each in bury(driver, keys, 3 * PAGE)]
    reading, met = DeadReading(keys, DeadQuery()), []
    while not reading.is_over:
        page = ask(driver, reading.page())
        met += [record.id for record in page]
        if page:
            assert purge(driver, keys, met[-1]) == {met[-1]: ""}
    assert sorted(met) == sorted(ids)
