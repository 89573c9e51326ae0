"""Rule 26: what is due gets to its lane once, not early, and nobody sleeps past it."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.broker.outgoing import Sender
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.wire.message import encode_result
from streamwork.worker import upkeep
from streamwork.worker.member import QueueFacts
from tests.apps import faults
from tests.faults.proof import must_fail
from tests.faults.unguarded import module_without
from tests.helpers import body_of, seed, state_of
from tests.redis.kit import LANE, deliver, outgoing, settle, signals

RECORD = encode_result("cancel", "cancelled", b"\xc0")
LAST_ID = "18446744073709551615-18446744073709551615"


def on_lane(own, keys, lane=LANE):
    return own.run(plain("XLEN", keys.lane(lane)))


def promote(own, keys, most=100):
    return own.run(scripts.promote(keys, [LANE], most))


def once(own, keys):
    seed(own, keys, body_of("tests.echo"), lane=LANE, due_at_ms=1)
    promote(own, keys)
    assert on_lane(own, keys) == 1
    assert state_of(own, keys).due == {}, "it is on its lane and due"


def in_time(own, keys):
    seed(own, keys, body_of("tests.echo"), lane=LANE, due_at_ms=own.server_ms() + 9_000_000)
    promote(own, keys)
    assert on_lane(own, keys) == 0, "it comes early"


def whole(own, keys):
    """Its lane takes no further entry, ever."""
    task_id, body = body_of("tests.echo")
    own.run(plain("XADD", keys.lane(LANE), LAST_ID, "d", body))
    seed(own, keys, (task_id, body), lane=LANE, due_at_ms=1)
    promote(own, keys)
    assert state_of(own, keys).due == {task_id: 1}, "it is neither on its lane nor due"


def retried_and_cancelled(own, keys):
    (delivery,) = deliver(own, keys, "w1")
    assert settle(own, keys, delivery, "R", run_at=1)
    assert promote(own, keys).moved == 1
    where = {"lane": LANE, "entry": delivery.entry.decode()}
    answer = own.run(scripts.cancel(keys, delivery.task_id, "me", RECORD, 60_000, "me", **where))
    assert answer == "requested", "it waits, and is said to have ended"


def behind_garbage(own, keys):
    for n in range(3):
        own.run(plain("ZADD", keys.due, 1, f"garbage{n}"))
    seed(own, keys, body_of("tests.echo"), lane=LANE, due_at_ms=2)
    for _ in range(3):
        promote(own, keys, 3)
    assert on_lane(own, keys) == 1, "what is no message holds all others back"


def scheduled(own, keys):
    own.run(Sender(64).command(keys, [outgoing()._replace(when="+9000000")], 0))
    assert [name for name, _ in signals(own, keys)] == ["due"], "it is the next one, and the promoter sleeps"


def retried(own, keys):
    (delivery,) = deliver(own, keys, "w1")
    assert settle(own, keys, delivery, "R", run_at=1)
    assert ("due", "1") in signals(own, keys), "it is the next one, and the promoter sleeps"


SCENARIOS = {
    "promoted_once": (once, "on its lane and due"),
    "promoted_in_time": (in_time, "it comes early"),
    "promoted_whole": (whole, "neither on its lane nor due"),
    "promoted_place": (retried_and_cancelled, "said to have ended"),
    "promoted_past_garbage": (behind_garbage, "holds all others back"),
    "promoter_told": (scheduled, "the promoter sleeps"),
    "promoter_told_of_retries": (retried, "the promoter sleeps"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_due_gets_to_its_lane(own, own_keys, name):
    SCENARIOS[name][0](own, own_keys)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_of_what_is_due_it_does_not(own, own_keys, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own, own_keys)


def ticked(module, connected, keys, lanes=(LANE,), times=1):
    """Let a promoter look so often; returns when it would look again, in s."""

    async def main():
        driver = connected()
        queue = QueueFacts(keys)
        queue.lanes = list(lanes)
        service = module.Promoter(driver, queue)
        service.BATCH = 5
        try:
            return [await service.tick() for _ in range(times)][-1]
        finally:
            await driver.close()

    return asyncio.run(main())


def sleeps(module, connected, own, keys):
    seed(own, keys, body_of("tests.echo"), lane=LANE, due_at_ms=own.server_ms() + 10_000)
    assert ticked(module, connected, keys) <= 10.1, "it sleeps past what is due next"


def goes_on(module, connected, own, keys):
    for _ in range(5):
        seed(own, keys, body_of("tests.echo"), lane=LANE, due_at_ms=1)
    assert ticked(module, connected, keys) == 0.0, "it sleeps while more may be due"


def another_lane(module, connected, own, keys):
    seed(own, keys, body_of("tests.echo"), lane="3:", due_at_ms=1)
    ticked(module, connected, keys, times=2)
    assert on_lane(own, keys, "3:") == 1, "nobody knows its lane, and it never gets there"


SERVICE = {
    "promoter_sleeps_exactly": (sleeps, "past what is due"),
    "promoter_goes_on": (goes_on, "more may be due"),
    "promoter_learns_lanes": (another_lane, "never gets there"),
}


@pytest.mark.parametrize("name", SERVICE)
def test_nobody_sleeps_past_what_is_due(connected, own, own_keys, name):
    SERVICE[name][0](upkeep, connected, own, own_keys)


@pytest.mark.parametrize("name", SERVICE)
def test_without_the_guard_of_a_promoter_somebody_does(connected, own, own_keys, name):
    scenario, match = SERVICE[name]
    must_fail(name, match, scenario, module_without("streamwork.worker.upkeep", name), connected, own, own_keys)


def sent_while_it_sleeps(start, send, notes, without=()):
    start(without=without)
    send(faults.note, notes.path, "before").result(timeout=10)  # it has looked, and nothing is due
    handle = send(faults.note, notes.path, "soon", delay=0.3)
    assert handle.wait(timeout=5), "it is due, and the promoter sleeps on"


def test_who_sleeps_is_woken_by_what_is_due_before(start, send, notes):
    sent_while_it_sleeps(start, send, notes)


def test_without_an_ear_for_it_it_sleeps_on(start, send, notes):
    name = "promoter_hears"
    must_fail(name, "the promoter sleeps on", sent_while_it_sleeps, start, send, notes, without=(name,))
