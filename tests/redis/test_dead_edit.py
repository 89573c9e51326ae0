"""dead_edit.lua: other arguments in the same letter, only where it is the one that was seen, and who did it."""

from __future__ import annotations

import msgspec

from streamwork.broker.dead import editing
from streamwork.wire.message import decode_dead_letter, decode_message
from tests.helpers import state_of
from tests.redis.burial import bury, letter_of, retry
from tests.redis.kit import dump


def edit(driver, keys, record, *args):
    return driver.run(editing(keys, record, (msgspec.msgpack.encode(args), None), "me", "value=9"))


def test_only_the_arguments_change_and_the_journal_says_who_did_it(driver, keys):
    (one,) = bury(driver, keys)
    before = letter_of(driver, keys, one.task_id)
    assert edit(driver, keys, before, 9) == ""
    after = letter_of(driver, keys, one.task_id)
    assert (before.args, after.args) == ([0], [9])
    assert msgspec.structs.replace(after, args=before.args, letter=before.letter) == before
    was, body = (decode_message(decode_dead_letter(each.letter).body) for each in (before, after))
    assert msgspec.structs.replace(body, args=was.args) == was
    record = state_of(driver, keys).journal[-1]
    assert (record.id, record.state, record.consumer, record.detail) == (one.task_id, "edited", "me", "value=9")


def test_what_was_edited_or_retried_meanwhile_is_left_alone(driver, keys):
    (one,) = bury(driver, keys)
    seen = letter_of(driver, keys, one.task_id)
    assert edit(driver, keys, seen, 9) == ""
    before = dump(driver, keys.namespace)
    assert edit(driver, keys, seen, 10) == "changed"
    assert dump(driver, keys.namespace) == before
    retry(driver, keys, one.task_id)
    before = dump(driver, keys.namespace)
    assert edit(driver, keys, seen, 10) == "gone"
    assert dump(driver, keys.namespace) == before
