"""import.lua: exported records come back at their own ids, once, in order, and live for a while."""

from __future__ import annotations

import pytest

from streamwork.broker.history import Query, Reading
from streamwork.broker.imported import batches, forget, journal_of, take
from streamwork.broker.steps import ask
from streamwork.errors import HistoryFileError, StoreFull
from streamwork.model.history import HistoryGap
from streamwork.model.where import Where
from streamwork.store.archiving import Imported, take_records
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from tests.redis.kit import deliver, dump, full, settle

LIFE_MS = 60_000


def rows(*ids, body=b"d"):
    return [(one, b"j" + one.encode(), body) for one in ids]


def stored(driver, keys):
    return [(entry, fields[1], fields[3]) for entry, fields in driver.run(plain("XRANGE", keys.imported, "-", "+"))]


def history(driver, keys, **asked):
    reading, found = Reading(keys, Query(**asked)), []
    while not reading.is_over:
        found += ask(driver, reading.page())
    return found


def test_records_come_once_at_their_own_ids(driver, keys):
    assert driver.run(take_records(keys, LIFE_MS, rows("1-0", "1-1", "2-0"))) == Imported(3, 0)
    assert driver.run(take_records(keys, LIFE_MS, rows("1-1", "2-0", "9-0"))) == Imported(1, 2)
    assert [entry for entry, *_ in stored(driver, keys)] == [b"1-0", b"1-1", b"2-0", b"9-0"]
    assert stored(driver, keys)[0] == (b"1-0", b"j1-0", b"d")
    assert driver.run(take_records(keys, LIFE_MS, [])) == Imported(0, 0)


def test_all_of_it_lives_as_long_as_the_last_import_says(driver, keys):
    driver.run(take_records(keys, LIFE_MS, rows("1-0")))
    assert 0 < driver.run(plain("PTTL", keys.imported)) <= LIFE_MS
    driver.run(take_records(keys, 10 * LIFE_MS, rows("1-0")))
    assert driver.run(plain("PTTL", keys.imported)) > LIFE_MS


@pytest.mark.parametrize("wrong", [("1-0",), ("6-0", "1-0"), ("6-0", "5-5"), ("7-0", "x"), ("7-0", "7"), ("-1-0",)])
def test_what_is_older_and_not_there_is_refused_whole(driver, keys, wrong):
    driver.run(take_records(keys, LIFE_MS, rows("2-0", "5-0")))
    before = stored(driver, keys)
    with pytest.raises(HistoryFileError, match="from the oldest to the newest"):
        ask(driver, take(keys, rows(*wrong), LIFE_MS))
    assert stored(driver, keys) == before
    ask(driver, forget(keys))
    assert ask(driver, take(keys, rows("1-0"), LIFE_MS)) == Imported(1, 0)


def test_a_full_redis_refuses_it_whole(own, own_keys):
    with full(own), pytest.raises(StoreFull):
        own.run(take_records(own_keys, LIFE_MS, rows("1-0", "2-0")))
    assert own.run(plain("EXISTS", own_keys.imported)) == 0


def test_what_was_exported_is_read_back_as_it_was_and_what_is_there_stays(driver, keys, namespace):
    for delivery in deliver(driver, keys, "w1", 450):
        assert settle(driver, keys, delivery, "D" if delivery.entry.endswith(b"3") else "S")
    other, found = QueueKeys(namespace, "other"), history(driver, keys)
    gap = HistoryGap(queue="default", what="attempts", until_ms=5)
    counts = [len(batch) for batch in batches([gap, *found])]
    assert sum(counts) == 450
    assert max(counts) <= 200
    for batch in batches([gap, *found]):
        ask(driver, take(other, batch, LIFE_MS))
    back = history(driver, other, is_imported=True)
    assert [(one.cursor, one.id, one.args, one.body, one.state) for one in back] == [
        (one.cursor, one.id, one.args, one.body, one.state) for one in found
    ]
    assert [journal_of(one) for one in back] == [journal_of(one) for one in found]
    assert history(driver, other, is_imported=True, where=Where("arg0 == 7")) == [back[7]]
    assert history(driver, other, is_imported=True, is_reversed=True, limit=3) == back[:-4:-1]
    assert history(driver, other) == []
    before = dump(driver, namespace)
    history(driver, other, is_imported=True)
    assert dump(driver, namespace) == before


def test_large_imported_messages_come_a_few_at_a_time(driver, keys):
    record = journal_of(history_of_one(driver, keys))
    for at in range(1, 91):
        driver.run(take_records(keys, LIFE_MS, [(f"{at}-0", record, b"x" * 200_000)]))
    reading, sizes = Reading(keys, Query(is_imported=True)), []
    while not reading.is_over:
        sizes.append(len(ask(driver, reading.page())))
    assert sum(sizes) >= 90
    assert max(sizes) <= 21


def history_of_one(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery)
    (found,) = history(driver, keys)
    return found
