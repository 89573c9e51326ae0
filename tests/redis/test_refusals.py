"""Outcomes that Redis refuses for reasons of its own are kept until it takes them (rule 23)."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.spool import Spooled
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.failures import NotPermitted
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker.delivery import LaneSide, QueueSide, Run
from streamwork.worker.settle import Settler
from tests.helpers import await_until, state_of
from tests.redis.kit import LANE, deliver, end


class Forgetful(AsyncDriver):
    """A driver to a server that forgets its scripts just before it is asked for one."""

    admin, tries = None, 0

    async def _send(self, commands):
        if self.admin is not None and commands[0].script is not None:
            self.admin.run(plain("SCRIPT", "FLUSH"))
            self.tries += 1
        return await super()._send(commands)


@pytest.mark.parametrize("refusal", ["permission", "login", "scripts"])
def test_what_is_refused_for_now_is_written_later(own, server, own_keys, refusal):
    own.run(plain("ACL", "SETUSER", "worker", "on", ">word", "~*", "+@all"))
    held = deliver(own, own_keys, "c", 10)
    told = []

    async def main():
        driver = Forgetful(Endpoint(server.url.replace("unix://", "unix://worker:word@")), ALL_SCRIPTS)
        await driver.connect()
        settler = Settler(driver, lambda _run, item, committed: told.append((item.op, committed)))
        loop = asyncio.create_task(settler.run())
        lane = LaneSide(QueueSide(own_keys, 0), LANE)
        refused = refuse(driver)
        for n, delivery in enumerate(held):
            run = Run(lane, delivery.entry, [b"d", delivery.body], "c", driver.run_id)
            settler.add(run, end(own_keys, delivery, "R" if n == 3 else "S"))
        await await_until(lambda: refused() >= 4, "several tries are refused")
        assert (told, settler.unsent) == ([], 10)
        own.run(plain("ACL", "SETUSER", "worker", "on", "+@all"))
        driver.admin = None
        await await_until(lambda: len(told) == 10, "all are told")
        settler.close()
        await loop
        await driver.close()

    def refuse(driver):
        if refusal == "scripts":
            driver.admin = own
            return lambda: driver.tries
        if refusal == "permission":
            own.run(plain("ACL", "SETUSER", "worker", "-evalsha"))
        else:
            own.run(plain("ACL", "SETUSER", "worker", "off"))
            own.run(plain("CLIENT", "KILL", "USER", "worker"))
        return lambda: sum(
            dict(zip(row[::2], row[1::2], strict=True))[b"count"] for row in own.run(plain("ACL", "LOG"))
        )

    asyncio.run(main())
    assert sorted(told) == [("R", True)] + [("S", True)] * 9
    state = state_of(own, own_keys)
    assert (state.counts, state.dead, state.in_flight) == ({"succeeded": 9, "retried": 1}, {}, 0)


def test_what_was_spooled_is_not_given_up_because_of_a_right_that_is_missing(own, server, own_keys):
    own.run(plain("ACL", "SETUSER", "worker", "on", ">word", "~*", "+@all", "-evalsha"))
    (delivery,) = deliver(own, own_keys, "c")
    spooled = [Spooled("default", "c", "", end(own_keys, delivery))]

    async def main():
        driver = AsyncDriver(Endpoint(server.url.replace("unix://", "unix://worker:word@")), ALL_SCRIPTS)
        settler = Settler(driver, lambda *_: None)
        with pytest.raises(NotPermitted):
            await settler.settle_spooled("own", spooled)
        own.run(plain("ACL", "SETUSER", "worker", "+@all"))
        assert await settler.settle_spooled("own", spooled) == []
        await driver.close()

    asyncio.run(main())
    assert state_of(own, own_keys).counts == {"succeeded": 1}
