"""dead_purge.lua: what is purged leaves nothing but its history."""

from __future__ import annotations

from streamwork.broker.dead import purging
from streamwork.store.burying import dead_purge
from streamwork.store.commands import plain
from tests.helpers import state_of
from tests.leaks import leaked
from tests.redis.burial import bury, letter_of, purge, retry
from tests.redis.kit import dump, full


def test_letter_and_result_are_gone_and_the_journal_says_who_did_it(driver, keys, namespace):
    one, other = bury(driver, keys, 2)
    assert purge(driver, keys, one.task_id) == {one.task_id: ""}
    state = state_of(driver, keys)
    assert (list(state.dead), list(state.results)) == ([other.task_id], [other.task_id])
    record = state.journal[-1]
    assert (record.id, record.state, record.consumer) == (one.task_id, "purged", "me")
    assert record.detail == "failed: ValueError: no"
    assert purge(driver, keys) == {other.task_id: ""}
    assert driver.run(plain("EXISTS", keys.dead, keys.dead_body)) == 0
    assert leaked(driver, namespace) == []


def seen_journal(driver, keys):
    return driver.run(plain("XREVRANGE", keys.journal, "+", "-", "COUNT", 1))[0][1][1]


def test_what_was_retried_or_edited_meanwhile_stays(driver, keys):
    one, other = bury(driver, keys, 2)
    seen = letter_of(driver, keys, one.task_id)
    assert retry(driver, keys, one.task_id) == {one.task_id: ""}
    before = dump(driver, keys.namespace)
    assert driver.run(purging(keys, seen, "me")) == "gone"
    assert driver.run(dead_purge(keys, other.task_id, b"another letter", seen_journal(driver, keys))) == "changed"
    assert dump(driver, keys.namespace) == before
    assert driver.run(dead_purge(keys, other.task_id, b"", seen_journal(driver, keys))) == ""  # as the retention does


def test_a_full_redis_is_made_room_in(own, own_keys):
    (one,) = bury(own, own_keys)
    with full(own):
        assert purge(own, own_keys) == {one.task_id: ""}
