"""One loss of Redis for all parts: told at its first and its last, and never left open by a part that asks no more."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.errors import StoreRejected, StoreUnavailable
from streamwork.outage import Outage
from streamwork.service import Service


@pytest.fixture
def told():
    return []


@pytest.fixture
def outage(told):
    return Outage(told.append)


def test_the_first_part_begins_it_and_the_last_one_ends_it(outage, told):
    outage.failed("a", "gone")
    outage.failed("b", "gone too")
    outage.failed("a", "still gone")
    outage.over("a")
    assert told == ["gone"]
    outage.over("b")
    outage.over("b")
    outage.hear("c", "again")
    outage.hear("c", None)
    assert told == ["gone", None, "again", None]


def test_a_part_that_asks_no_more_holds_up_no_later_outage(outage, told):
    outage.failed("a", "gone")
    outage.forget("a")
    outage.failed("b", "gone again")
    outage.over("b")
    assert told == ["gone", "gone again", None]


class Scripted(Service):
    """Fails as it is told, one tick after the other."""

    name = "scripted"

    def __init__(self, outage, *errors):
        super().__init__()
        self.outage = outage
        self._errors = list(errors)

    async def tick(self):
        error = self._errors.pop(0)
        if error is not None:
            raise error


@pytest.mark.parametrize("answer", [None, StoreRejected("WRONGTYPE"), ValueError("a bug")])
def test_whatever_redis_answers_a_service_it_is_back(outage, told, answer):
    async def main():
        service = Scripted(outage, StoreUnavailable("gone"), answer, StoreUnavailable("gone again"), answer)
        for _ in range(4):
            await service._guarded_tick()

    asyncio.run(main())
    assert told == ["gone", None, "gone again", None]


def test_a_service_that_leaves_is_forgotten(outage, told):
    async def main():
        service = Scripted(outage, StoreUnavailable("gone"))
        await service._guarded_tick()
        service.leave()

    asyncio.run(main())
    outage.failed("other", "gone again")
    assert told == ["gone", "gone again"]
