"""Finished work that Redis could not take: to a file, and from there back; no file stops a worker's start."""

from __future__ import annotations

import asyncio

import pytest

from streamwork import spool
from streamwork.errors import StoreUnavailable
from streamwork.worker import spooling
from streamwork.worker.delivery import LaneSide, QueueSide, Run
from streamwork.worker.settle import Settler
from tests.redis.kit import deliver, end


@pytest.fixture
def restart(connected, keys, tmp_path):
    """Do as a worker does when it starts, and return the names of the files that are left."""

    def restart():
        async def main():
            driver = connected()
            try:
                await spooling.settle_spooled(Settler(driver, lambda *_: None), tmp_path, keys.namespace)
            finally:
                await driver.close()

        asyncio.run(main())
        return sorted(path.suffix for path in tmp_path.iterdir())

    return restart


def test_a_refused_outcome_is_set_aside_with_its_file_and_the_start_goes_on(
    driver, keys, look, restart, tmp_path, caplog
):
    held = deliver(driver, keys, "c", 2)
    items = [end(keys, held[0], keep_ms="nonsense"), end(keys, held[1])]
    spool.write(tmp_path, keys.namespace, [spool.Spooled("default", "c", "other", item) for item in items])
    assert restart() == [".refused"]
    assert (look().counts, look().in_flight) == ({"succeeded": 1}, 1)
    assert "Redis refuses spooled outcomes" in caplog.text
    caplog.clear()
    assert restart() == [".refused"]
    assert caplog.text == ""


def test_while_redis_is_away_the_files_stay(driver, keys, restart, tmp_path, monkeypatch):
    (delivery,) = deliver(driver, keys, "c")
    spool.write(tmp_path, keys.namespace, [spool.Spooled("default", "c", "other", end(keys, delivery))])

    async def away(*_):
        raise StoreUnavailable("away")

    monkeypatch.setattr(Settler, "settle_spooled", away)
    with pytest.raises(StoreUnavailable):
        restart()
    monkeypatch.undo()
    assert restart() == []


def test_a_disk_that_refuses_is_one_line(driver, keys, connected, tmp_path, caplog):
    (delivery,) = deliver(driver, keys, "c")
    (tmp_path / "file").touch()

    async def main():
        settler = Settler(connected(), lambda *_: None)
        lane = LaneSide(QueueSide(keys, 0), "1:")
        settler.add(Run(lane, delivery.entry, [], "c", ""), end(keys, delivery))
        assert spooling.spool_unsent(settler, tmp_path / "file", keys.namespace) is None

    asyncio.run(main())
    (record,) = caplog.records
    assert ("will run again" in record.message, record.exc_info) == (True, None)
