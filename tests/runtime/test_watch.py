"""What a supervisor watches and how soon it replaces: hung and large processes, quick deaths, spool files."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from types import SimpleNamespace

import pytest

from streamwork import spool
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import load
from streamwork.errors import DecodeError
from streamwork.store.scripts import SettleItem
from streamwork.worker import pace
from streamwork.worker.crew import Crew
from streamwork.worker.pace import Pace
from streamwork.worker.slot_table import SlotTable
from streamwork.worker.watch import Watchdog


def nobody(replica):
    raise AssertionError("nobody is to be replaced")


class FakeReplica:
    """A process as the watchdog sees it."""

    def __init__(self, **settings):
        self.name, self.pid = "replica", os.getpid()
        self.config = load({f"worker.{name}": value for name, value in settings.items()}, environ={}).config
        self.table = SlotTable(1)
        self.killed, self.told = [], []
        self.is_draining = self.is_leaving = False
        self.taken = 1
        now_ms = SYSTEM_CLOCK.steady_ms()
        self.table.loop_at_ms = self.table.read_at_ms = now_ms
        self.table.free_slots = 1

    def tell(self, type_, detail):
        self.told.append((type_, detail))

    def kill(self, number, evidence):
        self.killed.append((number, evidence))


@pytest.fixture
def clock(monkeypatch):
    """Move the steady clock by hand, in seconds; it moves by nothing else, however busy the machine is."""
    moved = SimpleNamespace(s=0.0)
    began_ms = SYSTEM_CLOCK.steady_ms()
    monkeypatch.setattr(type(SYSTEM_CLOCK), "steady_ms", lambda self: began_ms + int(moved.s * 1000))

    def move(seconds, look=None, *, step=1.0):
        for _ in range(int(seconds / step)):
            moved.s += step
            if look is not None:
                look()

    return move


def test_a_process_whose_loop_turns_and_reads_is_left_alone(clock):
    replica = FakeReplica(hung_after_s=5)
    watchdog = Watchdog([replica], lambda: True, nobody)

    def look():
        replica.table.loop_at_ms = replica.table.read_at_ms = SYSTEM_CLOCK.steady_ms()
        watchdog.look()

    clock(100, look)
    assert replica.killed == []


def test_a_loop_that_stands_still_is_killed_with_evidence_and_zero_means_never(clock):
    replica, patient, starting = FakeReplica(hung_after_s=5), FakeReplica(hung_after_s=0), FakeReplica(hung_after_s=5)
    starting.table.loop_at_ms = 0
    watchdog = Watchdog([replica, patient, starting], lambda: True, nobody)
    clock(5, watchdog.look)
    assert replica.killed == []
    clock(2, watchdog.look)
    (number, evidence), *_ = replica.killed
    assert number == signal.SIGKILL
    assert evidence.startswith("hung: its loop has not turned for ")
    assert (patient.killed, starting.killed) == ([], [])
    assert replica.told[0] == ("worker.hung", evidence.removeprefix("hung: "))


def test_a_process_that_reads_no_more_with_free_slots_is_killed_whatever_hung_after_says(clock):
    replica, busy = (FakeReplica(hung_after_s=1000, block_s=10) for _ in range(2))
    busy.table.free_slots = 0
    watchdog = Watchdog([replica, busy], lambda: True, nobody)

    def look():
        for each in (replica, busy):
            each.table.loop_at_ms = SYSTEM_CLOCK.steady_ms()
        watchdog.look()

    clock(30, look)  # three blocking reads
    assert replica.killed == []
    clock(3, look)
    assert "has not read" in replica.killed[0][1]
    assert busy.killed == []


def test_a_process_gets_the_time_to_find_its_own_connection_dead(clock):
    replica = FakeReplica(hung_after_s=1000, block_s=2)
    watchdog = Watchdog([replica], lambda: True, nobody)

    def look():
        replica.table.loop_at_ms = SYSTEM_CLOCK.steady_ms()
        watchdog.look()

    clock(2 + 10 + 1, look)  # a read, its deadline, and a new connection
    assert replica.killed == []


def test_a_loop_that_was_held_up_gets_its_time_to_read_anew(clock):
    replica = FakeReplica(hung_after_s=60, block_s=5)
    watchdog = Watchdog([replica], lambda: True, nobody)
    clock(40, watchdog.look)  # no stamp of any kind, and that is allowed
    replica.table.loop_at_ms = SYSTEM_CLOCK.steady_ms()
    watchdog.look()
    assert replica.killed == []


def test_while_redis_is_away_nobody_is_expected_to_read(clock):
    replica = FakeReplica(hung_after_s=5)
    is_beating = []
    watchdog = Watchdog([replica], lambda: bool(is_beating), nobody)

    def look():
        replica.table.loop_at_ms = SYSTEM_CLOCK.steady_ms()
        watchdog.look()

    clock(60, look)
    is_beating.append(True)
    clock(10, look)
    assert replica.killed == []


def test_after_a_pause_of_all_of_them_each_gets_its_time_anew(clock):
    replica = FakeReplica(hung_after_s=5)
    watchdog = Watchdog([replica], lambda: True, nobody)
    clock(2, watchdog.look)
    clock(3600, step=3600)  # Ctrl-Z, or a suspended machine: nobody looked meanwhile
    clock(4, watchdog.look)
    assert replica.killed == []
    clock(4, watchdog.look)
    assert replica.killed


def test_a_process_that_grew_too_large_is_replaced_once_it_has_worked():
    replica, small, fresh = (
        FakeReplica(max_memory_mb=1),
        FakeReplica(max_memory_mb=100_000),
        FakeReplica(max_memory_mb=1),
    )
    fresh.taken = 0  # the next one would be as large
    replaced = []

    def recycle(one):
        replaced.append(one)
        one.is_leaving = True

    watchdog = Watchdog([replica, small, fresh], lambda: True, recycle)
    for _ in range(3):
        watchdog.look()
    assert replaced == [replica]


def test_a_process_that_drains_is_left_to_its_deadline(clock):
    replica = FakeReplica(hung_after_s=5)
    replica.is_draining = True
    clock(100, Watchdog([replica], lambda: True, nobody).look)
    assert replica.killed == []


def crew_of(*leaving):
    """A crew of processes that leave (True) or stay."""
    crew = Crew(lambda: None, "supervisor")
    crew.replicas += [SimpleNamespace(is_leaving=one, number=n) for n, one in enumerate(leaving)]
    return crew


@pytest.mark.parametrize(
    ("leaving", "wanted", "is_short"),
    [
        ([False], 1, False),
        ([False], 2, True),
        ([True], 1, True),
        ([True] * 4, 1, True),
        ([True] * 5, 1, False),  # a process for each task that never ends would be one too many some day
        ([True] * 8 + [False] * 8, 9, True),
        ([True] * 9 + [False] * 8, 9, True),
        ([True] * 10 + [False] * 8, 9, False),
    ],
)
def test_who_leaves_is_replaced_at_once_but_not_without_end(leaving, wanted, is_short):
    assert crew_of(*leaving).is_short(wanted) is is_short


def test_the_youngest_are_surplus_and_who_leaves_does_not_count():
    crew = crew_of(True, False, False, False)
    assert [crew.is_surplus(one, 2) for one in crew.replicas] == [False, False, False, True]


def test_a_duty_that_fails_is_begun_anew(monkeypatch, caplog):
    monkeypatch.setattr(pace, "_DUTY_PAUSE_S", 0.01)
    tries = []

    async def duty():
        tries.append(1)
        if len(tries) < 3:
            raise OSError(24, "too many open files")

    asyncio.run(pace.on_duty(duty))
    assert len(tries) == 3
    assert caplog.text.count("is begun anew") == 2


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(pace, "_FIRST_S", 0.02)
    monkeypatch.setattr(pace, "_MOST_S", 0.1)


def waits(*deaths):
    """Return how long each of these deaths was waited for."""

    async def main():
        keeper = Pace()
        took = []
        for death in deaths:
            began = time.monotonic()
            await keeper.wait(**{"worked": False, "hopeless": False, **death})
            took.append(time.monotonic() - began)
        return took

    return asyncio.run(main())


@pytest.mark.usefixtures("quick")
def test_deaths_soon_after_the_start_are_waited_for_longer_each_time_up_to_a_bound():
    took = waits(*[{"age_s": 0.1}] * 5)
    assert [wait >= least for wait, least in zip(took, (0.02, 0.04, 0.08, 0.1, 0.1), strict=True)] == [True] * 5
    assert took[4] < 0.1 * 5


@pytest.mark.usefixtures("quick")
def test_a_long_life_or_an_orderly_end_after_work_costs_no_wait():
    took = waits({"age_s": 100.0}, {"age_s": 0.1, "worked": True}, {"age_s": 0.1}, {"age_s": 100.0}, {"age_s": 0.1})
    assert [wait > 0.015 for wait in took] == [False, False, True, False, True]
    assert took[4] < 0.04  # the row of quick deaths was broken


def test_a_hopeless_one_waits_for_a_change():
    async def main():
        keeper = Pace()
        waiting = asyncio.create_task(keeper.wait(0.1, worked=False, hopeless=True))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        keeper.hurry()
        await asyncio.wait_for(waiting, 1)

    asyncio.run(main())


ITEM = SettleItem(
    "S", "1:", b"1-0", 1, b"journal", (b"token\nsucceeded\n\xc0", 60_000), "{a:q}:result:id", "{a:q}:reply:x", 99
)


def test_a_spool_file_comes_back_as_it_was(tmp_path):
    retry = ITEM._replace(op="Rm", rest=(1_700_000_000_000, b"1:\n2,0,0,1,0\nbody"), reply_key=None)
    outcomes = [spool.Spooled("default", "consumer", "run-id", ITEM), spool.Spooled("mail", "other", "", retry)]
    path = spool.write(tmp_path / "spool", "shop", outcomes)
    assert list(spool.files(tmp_path / "spool", "shop")) == [path]
    assert spool.read(path) == outcomes


def test_spool_files_belong_to_one_namespace_and_come_oldest_first(tmp_path):
    paths = [spool.write(tmp_path, "shop", []) for _ in range(3)]
    for age, path in enumerate(paths):
        os.utime(path, (1_000 - age, 1_000 - age))
    spool.write(tmp_path, "shop-eu", [])
    (tmp_path / f"shop-{'0' * 16}.draft").touch()
    assert list(spool.files(tmp_path, "shop")) == paths[::-1]
    assert len(list(spool.files(tmp_path, "shop-eu"))) == 1
    assert list(spool.files(tmp_path / "nowhere", "shop")) == []


def test_a_disk_that_refuses_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    def refuse(fd):
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="no space"):
        spool.write(tmp_path, "shop", [spool.Spooled("default", "c", "s", ITEM)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x91\x01", b"\x91\x90", b"\x91\x93\x01\x02\x03"], ids=range(5))
def test_a_file_that_is_not_ours_is_said_to_be(tmp_path, content):
    path = tmp_path / "shop-0.spool"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match="not a spool file"):
        spool.read(path)
