"""What should not be on a lane: garbage, messages of tomorrow, tasks that nobody knows. The worker goes on."""

from __future__ import annotations

import msgspec
import pytest

from streamwork import TaskFailed
from streamwork.ids import new_task_id
from streamwork.store.commands import plain
from streamwork.wire.message import WIRE_VERSION, Options
from tests.apps import basic, faults
from tests.helpers import body_of, seed, wait_until
from tests.system.kit import TTL_S

GOOD = faults.nothing.name
NAN = float("nan")


def body(*fields):
    """Return a message of these fields, right or wrong."""
    return msgspec.msgpack.encode(fields)


def newer():
    return body(WIRE_VERSION + 1, new_task_id(), GOOD, [1], None, None, None, "a field of tomorrow")


GARBAGE = {
    "unknown fields": {"x": "y", "d": body_of(GOOD, 1)[1]},
    "no body": {"x": "y"},
    "only an attempt": {"a": "1,0,0,1,0"},
    "cut off": {"d": body_of(GOOD, 1)[1][:-7]},
    "empty": {"d": ""},
    "text": {"d": "hello"},
    "not an array": {"d": msgspec.msgpack.encode({"id": 1})},
    "no id": {"d": body(WIRE_VERSION, None, GOOD, [1])},
    "newer version": {"d": newer()},
    "wrong attempt": {"a": "x", "d": body_of(GOOD, 1)[1]},
    "attempts beyond count": {"a": f"{2**70},0,0,1,0", "d": body_of(GOOD, 1)[1]},
    "attempts below none": {"a": "-1,0,0,1,0", "d": body_of(GOOD, 1)[1]},
    "nested too deep": {"d": body(WIRE_VERSION, new_task_id(), GOOD, [])[:-1] + b"\x91" * 100_000 + b"\x90"},
    "odd bytes": {b"\xff\x00": b"\xfe\n", "d": b"\xc1" * 100},
}


def xadd(driver, keys, fields, lane="1:"):
    return driver.run(plain("XADD", keys.lane(lane), "*", *(part for pair in fields.items() for part in pair))).decode()


def test_garbage_goes_to_the_dead_letters_and_the_worker_goes_on(start, send, driver, keys, look):
    worker = start()
    assert send(faults.nothing, 1).result(timeout=10) == 1
    added = {xadd(driver, keys, fields): what for what, fields in GARBAGE.items()}
    wait_until(lambda: len(look().dead) == len(added), lambda: f"all dead: {look().dead}")
    assert send(faults.nothing, 2).result(timeout=10) == 2
    state = look()
    assert {letter.reason for letter in state.dead.values()} == {"undecodable"}
    assert state.in_flight == 0
    assert len(worker.children) == 1
    # Only where the id was readable has the letter the message's own id.
    with_id = {"unknown fields", "newer version", "wrong attempt", "attempts beyond count", "attempts below none"}
    named = {f"entry-1:-{entry}": what for entry, what in added.items() if what not in with_id}
    named |= {msgspec.msgpack.decode(GARBAGE[what]["d"])[1]: what for what in with_id}
    by_kind = {named[task_id]: letter for task_id, letter in state.dead.items()}
    assert set(by_kind) == set(GARBAGE)
    assert "unknown field(s)" in by_kind["unknown fields"].failure.message
    assert f"wire version {WIRE_VERSION + 1}" in by_kind["newer version"].failure.message
    assert by_kind["cut off"].body == GARBAGE["cut off"]["d"]
    assert msgspec.msgpack.decode(by_kind["no body"].body) == [b"x", b"y"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (Options(keep_ms=2**60), "settle_error"),
        (Options(keep_ms=-1), "settle_error"),
        (Options(retry=(5, NAN, NAN, NAN, False)), "failed"),
        (Options(retry=(0, 1.0, 2.0, 600.0, True)), "failed"),
        (Options(retry=(5, 1e300, 1e300, 1e300, False)), "failed"),
    ],
    ids=[
        "kept for ever",
        "kept for less than nothing",
        "delays that are no numbers",
        "no attempts",
        "delays past all time",
    ],
)
def test_options_that_no_sender_of_ours_writes_end_the_message_not_the_worker(
    start, send, driver, keys, look, options, reason
):
    worker = start("tests.apps.basic:app")
    assert send(basic.add, 1, 2).result(timeout=10) == 3
    task = basic.add if options.retry is None else basic.fail
    args = (1, 2) if options.retry is None else ("told to",)
    task_id, message = body_of(task.name, *args, options=options)
    seed(driver, keys, message)
    wait_until(lambda: task_id in look().dead, lambda: f"dead: {look().journal[-1:]}\n{worker.text()}")
    assert look().dead[task_id].reason == reason
    assert send(basic.add, 3, 4).result(timeout=10) == 7
    assert look().in_flight == 0
    assert len(worker.children) == 1


def test_arguments_that_do_not_fit_the_task_here_end_the_message(start, send, driver, keys, look):
    start()
    bad = [body_of(faults.typed.name, value) for value in ("seven", None, [1], {"number": 1})]
    bad.append(body_of(faults.typed.name, 1, number=2))
    bad.append(body_of(faults.typed.name, other=2))
    bad.append((task_id := new_task_id(), body(WIRE_VERSION, task_id, faults.typed.name, 5)))
    bad.append((task_id := new_task_id(), body(WIRE_VERSION, task_id, faults.typed.name, [1], [2])))
    seed(driver, keys, *bad)
    assert send(faults.typed, 6).result(timeout=10) == 6
    state = look()
    assert set(state.dead) == {task_id for task_id, _ in bad}
    assert {letter.reason for letter in state.dead.values()} == {"failed"}
    assert [record.state for record in state.journal].count("dead") == len(bad)


def test_a_result_that_cannot_be_stored_fails_its_task_only(start, send, look):
    worker = start()
    bad = send(faults.unstorable)
    with pytest.raises(TaskFailed, match="object"):
        bad.result(timeout=10)
    assert look().dead[bad.id].reason == "failed"
    assert send(faults.nothing, 2).result(timeout=10) == 2
    assert len(worker.children) == 1


def test_a_task_that_no_worker_knows_yet_is_left_for_one_that_does(start, app, send, notes, look):
    # A newer producer: this worker does not declare the task, and must neither drop nor hold it.
    older = start(slots=1)
    handles = [app.call(basic.add.name, n, 1).enqueue() for n in range(5)]
    older.until("task unknown to this worker")
    wait_until(lambda: len([r for r in look().journal if r.state == "deferred"]) >= 5, "all left")
    assert send(faults.nothing, 1).result(timeout=10) == 1
    held = send(faults.hold, notes.path, "held")  # so that the older one takes no more of them
    notes.until(1)
    start("tests.apps.basic:app")
    assert [handle.result(timeout=20) for handle in handles] == [1, 2, 3, 4, 5]
    state = look()
    succeeded = {record.id: record for record in state.journal if record.state == "succeeded"}
    assert {succeeded[handle.id].attempt for handle in handles} == {1}
    assert state.dead == {}
    notes.go()
    held.result(timeout=10)
    assert older.text().count("task unknown to this worker") == 1  # said once, not per message


def test_an_entry_deleted_under_a_dead_worker_does_not_hold_up_the_rest(start, send, notes, driver, keys, look):
    first = start(slots=2)
    gone, there = (send(faults.hold, notes.path, text) for text in ("gone", "there"))
    notes.until(2)
    start(slots=2)
    driver.run(plain("XDEL", keys.lane("1:"), gone.entry))
    first.kill()
    assert [run.text for run in notes.until(3, within_s=10 * TTL_S)][2:] == ["there"]
    notes.go()
    assert there.result(timeout=10) == (1, 0)
    wait_until(lambda: look().in_flight == 0, lambda: f"nothing pending: {look().pending}")
    assert send(faults.nothing, 3).result(timeout=10) == 3
    assert look().suspects == {}
    assert len(notes.runs("gone")) == 1
