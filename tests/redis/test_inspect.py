"""Where a task message is, seen from its handle: read-only, and no error where a key is gone."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.broker import inspect
from streamwork.broker.steps import aask, ask
from streamwork.model.state import State
from streamwork.store import healing, scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from tests.redis.kit import LANE, deliver, dump, put, read, settle


def state(driver, keys, delivery):
    return ask(driver, inspect.where_is(keys, delivery.task_id, LANE, delivery.entry.decode()))


def test_a_message_on_its_way(driver, keys, namespace):
    put(driver, keys)
    entry = driver.run(plain("XRANGE", keys.lane(LANE), "-", "+"))[0][0]
    message = read(driver, keys, "w1")[0]
    driver.run(plain("XGROUP", "SETID", keys.lane(LANE), "workers", "0"))
    driver.run(plain("XACK", keys.lane(LANE), "workers", entry))
    assert state(driver, keys, message) == State.WAITING
    (delivery,) = read(driver, keys, "w1")
    before = dump(driver, namespace)
    assert state(driver, keys, delivery) == State.RUNNING
    assert dump(driver, namespace) == before
    assert settle(driver, keys, delivery, "R", run_at=1)
    assert state(driver, keys, delivery) == State.SCHEDULED
    driver.run(scripts.promote(keys, [LANE], 1))
    assert state(driver, keys, delivery) == State.WAITING
    (again,) = read(driver, keys, "w1")
    assert state(driver, keys, delivery) == State.RUNNING
    driver.run(scripts.release(keys, LANE, "w1", [(again.entry, again.count)]))
    assert state(driver, keys, delivery) == State.WAITING
    (adopted,) = driver.run(scripts.adopt(keys, LANE, "w2", 1))
    assert state(driver, keys, delivery) == State.RUNNING
    again = again._replace(consumer="w2", count=adopted.delivered)
    assert settle(driver, keys, again, "Sm")
    assert state(driver, keys, delivery) == State.SUCCEEDED


@pytest.mark.parametrize(
    ("op", "expected"), [("S", State.SUCCEEDED), ("K", State.SKIPPED), ("C", State.CANCELLED), ("D", State.DEAD)]
)
def test_an_end_with_a_result(driver, keys, op, expected):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, op)
    assert state(driver, keys, delivery) == expected


@pytest.mark.parametrize(("op", "expected"), [("S", State.UNKNOWN), ("D", State.DEAD)])
def test_an_end_without_a_result(driver, keys, op, expected):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, op, keep_ms=0)
    assert state(driver, keys, delivery) == expected


def test_after_flushall_or_a_lost_group_it_is_no_error(own, server, own_keys):
    (delivery,) = deliver(own, own_keys, "w1")
    own.run(plain("XGROUP", "DESTROY", own_keys.lane(LANE), "workers"))
    assert state(own, own_keys, delivery) == State.WAITING
    own.run(healing.heal(own_keys, LANE, 1))
    assert state(own, own_keys, delivery) == State.WAITING  # it is on its way back
    own.run(plain("FLUSHALL"))
    assert state(own, own_keys, delivery) == State.UNKNOWN

    async def main():
        driver = AsyncDriver(Endpoint(server.url), ALL_SCRIPTS)
        found = await aask(driver, inspect.where_is(own_keys, delivery.task_id, LANE, delivery.entry.decode()))
        await driver.close()
        return found

    assert asyncio.run(main()) == State.UNKNOWN
