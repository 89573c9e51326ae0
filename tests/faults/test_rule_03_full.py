"""Rule 3: a full Redis takes no new work, and everything that lets it drain."""

from __future__ import annotations

import pytest

from streamwork.broker.outgoing import Sender
from streamwork.errors import StoreFull
from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.faults.proof import must_fail
from tests.helpers import body_of, seed, state_of
from tests.redis.kit import LANE, deliver, dump, end, full, outgoing, put, settle


def works(act):
    """Return whether Redis took it."""
    try:
        return act()
    except StoreFull:
        return False


def enqueue(own, keys):
    put(own, keys)
    before, message = dump(own, "own"), outgoing()
    with full(own):
        taken = works(lambda: own.run(scripts.enqueue(keys, "s", 1, [LANE], [1, message.body], 1, 64)))
    assert not taken, "a full Redis took new work"
    assert dump(own, "own") == before, "a full Redis refused it, and kept a part"


def schedule(own, keys):
    command = Sender(64).command(keys, [outgoing()._replace(when="+60000")], 0)
    with full(own):
        taken = works(lambda: own.run(command))
    assert not taken, "a full Redis took new work"
    assert dump(own, "own") == {}, "a full Redis refused it, and kept a part"


def settling(own, keys):
    held = deliver(own, keys, "w1", 4)
    with full(own):
        for delivery, op in zip(held, "SKDR", strict=True):
            assert works(lambda d=delivery, o=op: settle(own, keys, d, o)), "a full Redis does not take an outcome"
    state = state_of(own, keys)
    assert (state.in_flight, len(state.journal), len(state.dead), len(state.due)) == (0, 4, 1, 1)


def release(own, keys):
    (delivery,) = deliver(own, keys, "w1")
    with full(own):
        back = works(lambda: own.run(scripts.release(keys, LANE, "w1", [(delivery.entry, 1)])))
    assert back, "nothing can be given back to a full Redis"
    assert state_of(own, keys).returned == {LANE}


def beat(own, keys):
    own.run(scripts.register(keys, "w1", b"{}", 5_000))
    own.run(plain("DEL", keys.alive("w1")))
    with full(own):
        assert works(lambda: own.run(scripts.revive(keys, "w1", 5_000))), "a full Redis lets a live worker die"
    assert own.run(plain("EXISTS", keys.alive("w1"))) == 1


def promote(own, keys):
    seed(own, keys, body_of("tests.echo"), due_at_ms=1)
    with full(own):
        assert works(lambda: own.run(scripts.promote(keys, [LANE], 10))), "a full Redis promotes nothing"
    assert state_of(own, keys).undelivered == 1


SCENARIOS = {
    "enqueue_refused_whole": (enqueue, "a full Redis took new work"),
    "schedule_refused_whole": (schedule, "a full Redis took new work"),
    "settle_when_full": (settling, "does not take an outcome"),
    "release_when_full": (release, "nothing can be given back"),
    "beat_when_full": (beat, "lets a live worker die"),
    "promote_when_full": (promote, "promotes nothing"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_full_redis_drains_and_takes_no_more(own, own_keys, name):
    SCENARIOS[name][0](own, own_keys)


@pytest.mark.parametrize("name", SCENARIOS)
def test_with_another_first_write_it_does_not(own, own_keys, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own, own_keys)


def test_finish_needs_no_room_of_its_own(own, own_keys):
    """It only deletes, so it goes with whoever ends the message."""
    (delivery,) = deliver(own, own_keys, "w1")
    for name in (own_keys.moved, own_keys.cancelled):
        own.run(plain("HSET", name, delivery.task_id, "x"))
    with full(own):
        assert own.run(scripts.settle(own_keys, "w1", [end(own_keys, delivery, "Sm")])) == []
    state = state_of(own, own_keys)
    assert (state.moved, state.cancelled) == ({}, {})
