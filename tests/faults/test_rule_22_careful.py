"""Rule 22: on another server than the one that delivered, an entry may be a stranger's."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.spool import Spooled
from streamwork.store.commands import plain
from streamwork.worker import settle as settling
from streamwork.worker.delivery import LaneSide, QueueSide, Run
from tests.faults.proof import must_fail
from tests.faults.unguarded import module_without
from tests.helpers import await_until, state_of
from tests.redis.kit import LANE, deliver, end, hand_over, outgoing, owners, read, settle

MODULE = "streamwork.worker.settle"


def stranger(own, keys):
    """Return a delivery of before, where the server of now has a stranger's message under its entry, in hand of w1."""
    (delivery,) = deliver(own, keys, "w1")
    own.run(plain("FLUSHALL"))
    message = outgoing()
    own.run(plain("XADD", keys.lane(LANE), delivery.entry, "d", message.body))
    own.run(plain("XGROUP", "CREATE", keys.lane(LANE), "workers", "0"))
    (foreign,) = read(own, keys, "w1")
    assert (foreign.entry, foreign.task_id) == (delivery.entry, message.task_id)
    return delivery, foreign


def foreign_message(own, keys):
    delivery, foreign = stranger(own, keys)
    for op in "SKCDR":
        assert not settle(own, keys, delivery, op + "!"), "a stranger's message was ended"
    assert settle(own, keys, foreign, "S!")


def foreign_owner(own, keys):
    (old,) = deliver(own, keys, "w1")
    new = hand_over(own, keys, old, "w2")
    assert not settle(own, keys, old, "S!"), "what another one owns there was ended"
    assert settle(own, keys, new, "S!")


def settled(module, connected, own, keys):
    """A worker has an outcome in hand while its Redis is replaced by another one."""
    delivery, foreign = stranger(own, keys)

    async def main():
        driver, told = connected(), []
        settler = module.Settler(driver, lambda run, item, committed: told.append(committed))
        lane = LaneSide(QueueSide(keys, 0), LANE)
        settler.add(Run(lane, delivery.entry, [b"d", delivery.body], "w1", "of before"), end(keys, delivery))
        loop = asyncio.create_task(settler.run())
        await await_until(lambda: told, "it is told")
        loop.cancel()
        await asyncio.wait({loop})
        await driver.close()

    asyncio.run(main())
    assert owners(own, keys) == {foreign.entry: ("w1", 1)}, "a worker ended a stranger's message"


def spooled(module, connected, own, keys):
    delivery, foreign = stranger(own, keys)

    async def main():
        driver = connected()
        settler = module.Settler(driver, lambda *_: None)
        await settler.settle_spooled("own", [Spooled("default", "w1", "of before", end(keys, delivery))])
        await driver.close()

    asyncio.run(main())
    assert owners(own, keys) == {foreign.entry: ("w1", 1)}, "a spooled outcome ended a stranger's message"
    assert state_of(own, keys).counts == {}


SCRIPTS = {
    "careful_message": (foreign_message, "a stranger's message was ended"),
    "careful_owner": (foreign_owner, "what another one owns"),
}
WORKERS = {
    "careful_elsewhere": (settled, "a worker ended a stranger's"),
    "careful_spool": (spooled, "a spooled outcome ended"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_careful_ends_nothing_of_strangers(own, own_keys, name):
    SCRIPTS[name][0](own, own_keys)


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_care_it_does(own, own_keys, name):
    scenario, match = SCRIPTS[name]
    must_fail(name, match, scenario, own, own_keys)


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_is_careful_on_another_server(connected, own, own_keys, name):
    WORKERS[name][0](settling, connected, own, own_keys)


@pytest.mark.parametrize("name", WORKERS)
def test_one_that_is_not_ends_what_it_never_had(connected, own, own_keys, name):
    scenario, match = WORKERS[name]
    must_fail(name, match, scenario, module_without(MODULE, name), connected, own, own_keys)
