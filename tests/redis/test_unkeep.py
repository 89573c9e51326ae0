"""unkeep.lua: the block that lets a message run again from its copy, in all that give entries away (rule 31)."""

from __future__ import annotations

import pytest

from streamwork.store import healing, scripts
from streamwork.store.commands import plain
from tests.helpers import state_of
from tests.redis.kit import LANE, deliver, deliveries, full, owners, settle, signals

FEW = healing.Bounds(entries=5)


def maintain(driver, keys):
    driver.run(healing.maintain(keys, LANE, "99999999999999", 10_000, 7, FEW))


def kept(driver, keys):
    """Let a delivery of w1 be older than all that is settled, and copied."""
    old, *rest = deliver(driver, keys, "w1", 10)
    for delivery in rest:
        assert settle(driver, keys, delivery)
    maintain(driver, keys)
    assert driver.run(plain("HLEN", keys.kept)) == 1
    return old


GIVE_AWAY = {
    "take": lambda keys, old: scripts.take(keys, LANE, "w1", mode="leave"),
    "release": lambda keys, old: scripts.release(keys, LANE, "w1", [(old.entry, old.count)]),
    "adopt": lambda keys, old: scripts.adopt(keys, LANE, "w1", 10, [(old.entry, old.count)]),
}


@pytest.mark.parametrize("how", GIVE_AWAY)
def test_its_message_is_due_now_and_nowhere_else_and_the_promoter_hears_of_it(driver, keys, how):
    old = kept(driver, keys)
    driver.run(GIVE_AWAY[how](keys, old))
    state = state_of(driver, keys)
    assert state.due_body == {old.task_id: f"{LANE}\n1,0,0,1,0\n".encode() + old.body}
    assert (state.in_flight, state.undelivered, state.backlog) == (0, 0, 1)
    assert driver.run(plain("HLEN", keys.kept)) == 0
    assert signals(driver, keys)[-1][0] == "due" or signals(driver, keys)[-2][0] == "due"
    assert driver.run(scripts.promote(keys, [LANE], 10)).moved == 1
    assert not settle(driver, keys, old, "S")  # its late success finds that another one has it


def test_what_already_waited_to_be_adopted_is_due_as_well(driver, keys):
    old, *rest = deliver(driver, keys, "w1", 10)
    driver.run(scripts.release(keys, LANE, "w1", [(old.entry, old.count)]))
    for delivery in rest:
        assert settle(driver, keys, delivery)
    maintain(driver, keys)
    assert driver.run(scripts.adopt(keys, LANE, "w2", 10)) == []
    state = state_of(driver, keys)
    assert (list(state.due), state.in_flight, state.returned) == ([old.task_id], 0, set())


def test_a_zombie_gives_nothing_away(driver, keys):
    old = kept(driver, keys)
    assert driver.run(scripts.release(keys, LANE, "w1", [(old.entry, old.count + 1)])) == 0
    assert driver.run(scripts.release(keys, LANE, "w9", [(old.entry, old.count)])) == 0
    driver.run(scripts.adopt(keys, LANE, "w9", 10, [(old.entry, old.count)]))
    assert owners(driver, keys) == {old.entry: ("w1", 1)}
    assert settle(driver, keys, old)


def test_what_is_given_out_again_keeps_its_past_and_its_suspicion(driver, keys):
    old, *rest = deliver(driver, keys, "w1", 10)
    past = "2,1,0,1,0"
    assert settle(driver, keys, old, "R", run_at=1)
    driver.run(plain("HSET", keys.due_body, old.task_id, f"{LANE}\n{past}\n".encode() + old.body))
    driver.run(scripts.promote(keys, [LANE], 10))
    rows = driver.run(scripts.read_new([(keys.lane(LANE),)], "w1", 1, None))[0][1]
    (retry,) = deliveries(rows, LANE, "w1")
    for delivery in (*rest, *deliver(driver, keys, "w1", 9)):
        assert settle(driver, keys, delivery)
    maintain(driver, keys)
    driver.run(scripts.take(keys, LANE, "w1", mode="dead", evidence="SIGSEGV", started=[retry.entry]))
    lane, record, body = state_of(driver, keys).due_body[old.task_id].split(b"\n", 2)
    assert (lane.decode(), record, body) == (LANE, b"2,2,0,1,0", old.body)
    assert state_of(driver, keys).suspects == {}
    assert driver.run(plain("HLEN", keys.moved)) == 0  # it is in due now, and nowhere else


@pytest.mark.parametrize("broken", ["due", "due_body"])
@pytest.mark.parametrize("how", GIVE_AWAY)
def test_where_due_is_something_else_it_stays_with_its_owner(own, own_keys, broken, how):
    old = kept(own, own_keys)
    own.run(plain("SET", getattr(own_keys, broken), "foreign"))
    assert own.run(GIVE_AWAY[how](own_keys, old)) in (0, [])  # who asks for more until there is none comes to an end
    assert owners(own, own_keys) == {old.entry: ("w1", 1)}
    assert own.run(plain("HLEN", own_keys.kept)) == 1


def test_a_lane_stays_marked_while_an_entry_of_it_can_only_stay(own, own_keys):
    old, *rest = deliver(own, own_keys, "w1", 10)
    own.run(scripts.release(own_keys, LANE, "w1", [(old.entry, old.count)]))
    for delivery in rest:
        assert settle(own, own_keys, delivery)
    maintain(own, own_keys)
    own.run(plain("SET", own_keys.due, "foreign"))
    assert own.run(scripts.adopt(own_keys, LANE, "w2", 10)) == []
    assert own.run(plain("SMEMBERS", own_keys.returned)) == [LANE.encode()]
    own.run(plain("DEL", own_keys.due))
    assert own.run(scripts.adopt(own_keys, LANE, "w2", 10)) == []
    assert own.run(plain("SMEMBERS", own_keys.returned)) == []
    assert list(state_of(own, own_keys).due) == [old.task_id]


@pytest.mark.parametrize("garbage", ["", "x", "x\n1,0,0,1,0"])
@pytest.mark.parametrize("how", GIVE_AWAY)
def test_a_copy_that_is_not_ours_goes_and_the_entry_is_given_away_itself(driver, keys, how, garbage):
    old = kept(driver, keys)
    driver.run(plain("HSET", keys.kept, f"{LANE}/{old.entry.decode()}", garbage))
    driver.run(GIVE_AWAY[how](keys, old))
    assert (list(owners(driver, keys)), state_of(driver, keys).due) == ([old.entry], {})
    assert driver.run(plain("HLEN", keys.kept)) == 0


def test_it_works_when_redis_is_full(own, own_keys):
    old = kept(own, own_keys)
    with full(own):
        own.run(GIVE_AWAY["take"](own_keys, old))
    assert state_of(own, own_keys).due.keys() == {old.task_id}
