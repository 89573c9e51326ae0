"""Rule 23: an outcome whose answer was lost is sent again until it is told, and told the truth."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.broker.sync_sender import SyncSender
from streamwork.config import ClientConfig
from streamwork.errors import StoreRejected
from streamwork.store import failures, scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.worker.delivery import LaneSide, QueueSide, Run
from streamwork.worker.settle import Settler
from tests.faults.proof import must_fail
from tests.faults.unguarded import module_without
from tests.helpers import await_until, state_of
from tests.redis.kit import LANE, deliver, end, outgoing, read


def alone(own, keys):
    """The answer of a chunk is lost, and its outcomes are sent again one by one, from the spool."""
    items = [end(keys, delivery, op) for delivery, op in zip(deliver(own, keys, "w1", 4), "SKCD", strict=True)]
    assert own.run(scripts.settle(keys, "w1", items)) == []
    before = len(state_of(own, keys).journal)
    for item in items:
        assert own.run(scripts.settle(keys, "w1", [item])) == [], "written, and told that it was lost"
    assert len(state_of(own, keys).journal) == before


def together(own, keys):
    """The answer of a chunk is lost, and it is sent again as it was; a retry has no result, and some are not kept."""
    held = deliver(own, keys, "w1", 3)
    chunk = [end(keys, delivery, op, keep_ms=0) for delivery, op in zip(held, "SRD", strict=True)]
    assert own.run(scripts.settle(keys, "w1", chunk)) == []
    assert own.run(scripts.settle(keys, "w1", chunk)) == [], "a chunk was written, and told that it was lost"
    assert len(state_of(own, keys).journal) == 3


SCENARIOS = {"outcome_token": (alone, "told that it was lost"), "settle_mark": (together, "a chunk was written")}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_resend_hears_the_truth(own, own_keys, name):
    SCENARIOS[name][0](own, own_keys)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_it_hears_that_it_was_lost(own, own_keys, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own, own_keys)


class Counting(AsyncDriver):
    """A driver that counts what it is asked."""

    asked = 0

    async def run(self, command):
        """Count and run."""
        self.asked += 1
        return await super().run(command)


def refused_for_now(server, own, keys):
    held = deliver(own, keys, "w1", 3)
    own.run(plain("CONFIG", "SET", "min-replicas-to-write", 1))

    async def main():
        driver, told = Counting(Endpoint(server.url), ALL_SCRIPTS), []
        await driver.connect()
        settler = Settler(driver, lambda run, item, committed: told.append(committed))
        lane = LaneSide(QueueSide(keys, 0), LANE)
        for delivery in held:
            settler.add(Run(lane, delivery.entry, [b"d", delivery.body], "w1", driver.run_id), end(keys, delivery))
        loop = asyncio.create_task(settler.run())
        await await_until(lambda: driver.asked >= 4, "several tries are refused")
        own.run(plain("CONFIG", "SET", "min-replicas-to-write", 0))
        await await_until(lambda: len(told) == len(held), "all are told")
        loop.cancel()
        await asyncio.wait({loop})
        await driver.close()

    asyncio.run(main())
    state = state_of(own, keys)
    assert (state.counts, state.dead) == ({"succeeded": 3}, {}), "not executed, and given up"


def call_refused_for_now(server, own, keys):
    message, again = outgoing(), []

    class Again(SyncDriver):
        """The first try begins and ends in two steps; whoever tries again finds a Redis that takes it."""

        def run(self, command, timeout_s=None):
            own.run(plain("CONFIG", "SET", "min-replicas-to-write", 0))
            again.append(command)
            return super().run(command, timeout_s)

    driver = Again(Endpoint(server.url), ALL_SCRIPTS)
    own.run(plain("CONFIG", "SET", "min-replicas-to-write", 1))
    try:
        SyncSender(driver, lambda: driver, ClientConfig()).line().send(keys, [message])
    except StoreRejected:
        raise AssertionError("not executed, and the caller has to send it again") from None
    assert len(again) == 1
    assert [each.task_id for each in read(own, keys, "w")] == [message.task_id]


FOR_NOW = {"outcome": (refused_for_now, "given up"), "call": (call_refused_for_now, "the caller has to")}


@pytest.mark.parametrize("what", FOR_NOW)
def test_what_was_not_executed_is_sent_again(server, own, own_keys, what):
    FOR_NOW[what][0](server, own, own_keys)


@pytest.mark.parametrize("what", FOR_NOW)
def test_taken_for_a_refusal_it_is_given_up(server, own, own_keys, what, monkeypatch):
    module = module_without("streamwork.store.failures", "not_now")
    for name in ("NoGroup", "NoScript", "NotPermitted", "StoreUnavailable"):
        setattr(module, name, getattr(failures, name))  # what the driver catches
    monkeypatch.setattr(failures, "_from_reply", module._from_reply)
    must_fail("not_now", FOR_NOW[what][1], FOR_NOW[what][0], server, own, own_keys)
