"""Rule 26: what waits for a paused task is in due all the time, goes on with that task, and nothing else does."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.model.pausing import held_score, mark_of
from streamwork.store import scripts
from streamwork.store.pausing import pause, unhold
from streamwork.worker import unholder
from streamwork.worker.member import QueueFacts
from tests.faults.proof import must_fail
from tests.faults.unguarded import module_without
from tests.helpers import body_of, seed, state_of
from tests.redis.kit import LANE, deliver, settle, signals


def hold(own, keys, task, count=1):
    """Set messages aside for a paused task."""
    own.run(pause(keys, mark_of(task), b"{}"))
    held = deliver(own, keys, "w1", count)
    for run in held:
        assert settle(own, keys, run, "R", run_at=held_score(task))
    return [run.task_id for run in held]


def another_resumed(own, keys):
    hold(own, keys, "a")
    ids = hold(own, keys, "b", 2)
    own.run(pause(keys, mark_of("b"), b""))
    assert own.run(unhold(keys, 100)) <= 2, "what is paused goes on with another one"
    assert own.run(scripts.promote(keys, [LANE], 100)).moved == len(ids)


def for_later(own, keys):
    message = body_of("tests.echo")
    at_ms = own.server_ms() + 9_000_000
    seed(own, keys, message, lane=LANE, due_at_ms=at_ms)
    own.run(unhold(keys, 100))
    assert state_of(own, keys).due == {message[0]: at_ms}, "what is for later comes early"


def told_of_it(own, keys):
    hold(own, keys, "a")
    own.run(pause(keys, mark_of("a"), b""))
    assert own.run(unhold(keys, 100)) == 1
    assert signals(own, keys)[-1][0] == "due", "it is due, and the promoter sleeps"


SCENARIOS = {
    "held_while_paused": (another_resumed, "goes on with another one"),
    "held_apart": (for_later, "comes early"),
    "held_is_told": (told_of_it, "the promoter sleeps"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_was_held_goes_on_with_its_task(own, own_keys, name):
    SCENARIOS[name][0](own, own_keys)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_of_what_is_held_it_does_not(own, own_keys, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own, own_keys)


def unholding(module, connected, own, keys, steps):
    """Do each step, and look after it for as long as the service wants to look again soon."""

    async def main():
        driver = connected()
        service = module.Unholder(driver, QueueFacts(keys))
        service.BATCH = 3
        service.nudge()
        again_s = 0.0
        try:
            for step in steps:
                step()
                again_s = None if again_s is None else await service.tick()
        finally:
            await driver.close()

    asyncio.run(main())


def very_many(module, connected, own, keys):
    hold(own, keys, "a", 8)
    own.run(pause(keys, mark_of("a"), b""))
    unholding(module, connected, own, keys, [lambda: None] * 4)
    assert own.run(unhold(keys, 100)) == 0, "what is behind the first few waits on"


def late(module, connected, own, keys):
    """A worker sets one aside after the first look: it has not heard yet."""
    hold(own, keys, "a")
    (run,) = deliver(own, keys, "w1")
    own.run(pause(keys, mark_of("a"), b""))
    aside = lambda: settle(own, keys, run, "R", run_at=held_score("a"))
    unholding(module, connected, own, keys, [lambda: None, aside])
    assert own.run(unhold(keys, 100)) == 0, "what was set aside a moment too late waits on"


SERVICE = {
    "unhold_all": (very_many, "behind the first few"),
    "unhold_again": (late, "a moment too late"),
}


@pytest.mark.parametrize("name", SERVICE)
def test_all_that_waited_goes_on(connected, own, own_keys, name):
    SERVICE[name][0](unholder, connected, own, own_keys)


@pytest.mark.parametrize("name", SERVICE)
def test_without_another_look_it_does_not(connected, own, own_keys, name):
    scenario, match = SERVICE[name]
    must_fail(name, match, scenario, module_without("streamwork.worker.unholder", name), connected, own, own_keys)
