"""Rule 28: a worker begins a delivery with a rate once Redis has said so, and forgets none."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from streamwork.store.commands import plain
from streamwork.wire.message import decode_message
from streamwork.worker import beginning
from streamwork.worker.delivery import LaneSide, QueueSide, Run
from tests.faults.proof import must_fail
from tests.faults.unguarded import module_without
from tests.helpers import await_until
from tests.redis.flowkit import t, w
from tests.redis.kit import LANE

HOUR = 3_600_000_000


def asking(module, connected, flow, main):
    """Run `main` with who asks, the deliveries in its hands, and what came of them."""

    async def all_of_it():
        driver = connected()
        began, dropped = [], []
        lane = LaneSide(QueueSide(flow.keys, 0), LANE)

        def run_of(delivery):
            run = Run(lane, delivery.entry, [b"d", delivery.body], delivery.consumer, "server")
            run.message, run.count = decode_message(delivery.body), delivery.count
            return run

        beginner = module.Beginner(driver, began.append, dropped.append)
        at = SimpleNamespace(beginner=beginner, run_of=run_of, began=began, dropped=dropped, driver=driver)
        try:
            await main(at)
        finally:
            if beginner._asking is not None:
                beginner._asking.cancel()
            await driver.close()

    asyncio.run(all_of_it())


def at_the_last_moment(module, connected, flow):
    """A delivery comes when the last answer was heeded, and the loop has not heard yet that this was the last."""
    flow.send(t(HOUR, 9), count=2)
    first, second = flow.read()

    async def main(at):
        def begin(run):
            at.began.append(run)
            if len(at.began) == 1:
                asyncio.get_running_loop().call_soon(at.beginner.add, at.run_of(second))

        at.beginner._submit = begin
        at.beginner.add(at.run_of(first))
        await await_until(lambda: len(at.began) == 2, "both to begin", 3)

    asking(module, connected, flow, main)


def without_a_token(module, connected, flow):
    """It began and crashed; there is no token for another start."""
    flow.send(w(1, HOUR))
    (delivery,) = flow.read()
    assert flow.begin(delivery) == [1]
    again = flow.adopt(delivery)

    async def main(at):
        at.beginner.add(at.run_of(again))
        await await_until(lambda: at.began or at.dropped, "it is answered")
        assert at.began == [], "it begins without a token"

    asking(module, connected, flow, main)


def while_redis_is_away(module, connected, flow):
    flow.send(t(HOUR))
    (delivery,) = flow.read()

    async def main(at):
        await at.driver.run(plain("PING"))
        assert flow.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        at.beginner.add(at.run_of(delivery))
        await await_until(lambda: at.began, "it to begin", 5)

    asking(module, connected, flow, main)


def after_a_fence(module, connected, flow):
    """The one was read under the old name, and the other one under the new."""
    flow.send(t(HOUR, 9), count=2)
    (old,), (new,) = flow.read("w1", 1), flow.read("w2", 1)

    async def main(at):
        at.beginner.add(at.run_of(old))
        at.beginner.add(at.run_of(new))
        await await_until(lambda: len(at.began) + len(at.dropped) == 2, "both are answered")
        assert at.dropped == [], "its own delivery is said to be another's"

    asking(module, connected, flow, main)


SCENARIOS = {
    "begin_asked_for_all": (at_the_last_moment, "both to begin"),
    "begin_heeds_the_answer": (without_a_token, "without a token"),
    "begin_asked_again": (while_redis_is_away, "it to begin"),
    "begin_of_one_consumer": (after_a_fence, "said to be another's"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_delivery_with_a_rate_begins_once_it_may(own_flow, connected, name):
    SCENARIOS[name][0](beginning, connected, own_flow)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_of_a_begin_it_does_not(own_flow, connected, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, module_without("streamwork.worker.beginning", name), connected, own_flow)
