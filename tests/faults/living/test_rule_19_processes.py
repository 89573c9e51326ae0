"""Rule 19: supervisor and process die together or are told apart; who hangs is killed; the dead are handed over."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace

import pytest

from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import load
from streamwork.worker import watch
from streamwork.worker.slot_table import SlotTable
from tests.apps import faults
from tests.faults.living.kit import must_fail
from tests.faults.unguarded import module_without
from tests.helpers import body_of, seed, wait_until
from tests.system.kit import is_gone

# What a scenario waits for its promise to be kept, and how long it takes to see that it is not.
SOON_S, LONG_ENOUGH_S = 15.0, 2.5

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")


def hold(driver, keys, notes):
    """Send a body that runs until told; returns its run once it has begun."""
    seed(driver, keys, body_of(faults.hold.name, str(notes.path), "one"))
    return notes.until(1)[0]


def a_process_dies_with_its_supervisor(start, driver, keys, notes, without=(), within_s=SOON_S):
    worker = start(without=without)
    begun = hold(driver, keys, notes)
    worker.process.kill()
    worker.process.wait()
    wait_until(lambda: is_gone(begun.pid), "the process dies with its supervisor", within_s)


@linux
def test_a_process_dies_with_its_supervisor(start, driver, keys, notes):
    a_process_dies_with_its_supervisor(start, driver, keys, notes)


@linux
def test_without_the_system_s_help_it_runs_on(start, driver, keys, notes, wiped):
    must_fail(
        a_process_dies_with_its_supervisor, start, driver, keys, notes, ("pdeathsig",), LONG_ENOUGH_S,
        says="the process dies with its supervisor",
    )  # fmt: skip


def a_process_without_a_supervisor_drains(start, without=(), within_s=SOON_S):
    worker = start(without=("pdeathsig", *without))
    (child,) = worker.children
    worker.process.kill()
    worker.process.wait()
    wait_until(lambda: is_gone(child), "the process hears that its supervisor is gone", within_s)


def test_where_the_system_does_not_help_the_process_hears_it_and_drains(start, driver, keys, wiped):
    a_process_without_a_supervisor_drains(start)


def test_deaf_to_that_it_lives_on_for_nobody(start, driver, keys, wiped):
    must_fail(
        a_process_without_a_supervisor_drains,
        start,
        ("end of file",),
        LONG_ENOUGH_S,
        says="hears that",
    )


def the_dead_are_handed_over_at_once(start, driver, keys, notes, without=(), within_s=SOON_S):
    worker = start(ttl_s=120.0, without=without)  # no reaper will come
    begun = hold(driver, keys, notes)
    os.kill(begun.pid, signal.SIGKILL)
    worker.until("worker process died")
    wait_until(lambda: len(notes.runs()) == 2, "what a dead process had runs again", within_s)
    assert notes.runs()[1].crashes == 1
    notes.go()


def test_the_dead_are_handed_over_at_once(start, driver, keys, notes, wiped):
    the_dead_are_handed_over_at_once(start, driver, keys, notes)


def test_without_a_hand_over_their_work_waits(start, driver, keys, notes, wiped):
    without = ("hand-over",)
    must_fail(
        the_dead_are_handed_over_at_once,
        start,
        driver,
        keys,
        notes,
        without,
        LONG_ENOUGH_S,
        says="had runs again",
    )


class Watched:
    """A process as the watchdog sees it, and a clock that is moved by hand."""

    def __init__(self, monkeypatch, module, **settings):
        self._at_ms = SYSTEM_CLOCK.steady_ms()
        monkeypatch.setattr(type(SYSTEM_CLOCK), "steady_ms", lambda clock: self._at_ms)
        self.killed = []
        table = self.table = SlotTable(1)
        table.loop_at_ms = table.read_at_ms = self._at_ms
        table.free_slots = 1
        config = load({f"worker.{name}": value for name, value in settings.items()}, environ={}).config
        kill = lambda number, evidence: self.killed.append(evidence)
        replica = Replica(name="r", pid=os.getpid(), config=config, table=table, kill=kill, taken=1)
        replica.is_draining = replica.is_leaving = False
        self._watchdog = module.Watchdog([replica], lambda: True, lambda one: None)

    def go_on(self, seconds, *, turning=False, reading=False, step=1):
        for _ in range(int(seconds / step)):
            self._at_ms += step * 1000
            if turning:
                self.table.loop_at_ms = self._at_ms
            if reading:
                self.table.read_at_ms = self._at_ms
            self._watchdog.look()


class Replica(SimpleNamespace):
    __hash__ = object.__hash__

    def tell(self, _type, _detail):
        """Tell nobody."""


def a_loop_that_stands_still_is_killed(monkeypatch, module=watch):
    watched = Watched(monkeypatch, module, hung_after_s=5, block_s=100)
    watched.go_on(5)
    assert watched.killed == []
    watched.go_on(3)
    assert watched.killed, "a loop that stands still holds its work for ever"
    assert watched.killed[0].startswith("hung: its loop")


def who_reads_no_more_is_killed(monkeypatch, module=watch):
    watched = Watched(monkeypatch, module, hung_after_s=1000, block_s=10)
    watched.go_on(30, turning=True)  # three blocking reads
    assert watched.killed == []
    watched.go_on(10, turning=True)
    assert watched.killed, "a process that is deaf to its queue lives on"
    assert "has not read" in watched.killed[0]


def who_was_stopped_with_all_others_is_left_alone(monkeypatch, module=watch):
    watched = Watched(monkeypatch, module, hung_after_s=5)
    watched.go_on(3600, step=3600)  # Ctrl-Z, or a suspended machine
    watched.go_on(3)
    assert watched.killed == [], "a process was killed for the sleep of the machine"


HUNG = [
    (a_loop_that_stands_still_is_killed, "loop stamp", "stands still holds"),
    (who_reads_no_more_is_killed, "read stamp", "deaf to its queue"),
    (who_was_stopped_with_all_others_is_left_alone, "awake", "for the sleep of the machine"),
]


@pytest.mark.parametrize("scenario", [scenario for scenario, *_ in HUNG])
def test_who_hangs_is_killed_and_nobody_else(monkeypatch, scenario):
    scenario(monkeypatch)


@pytest.mark.parametrize(("scenario", "guard", "says"), HUNG)
def test_without_a_look_at_its_stamps_it_is_not(monkeypatch, scenario, guard, says):
    must_fail(scenario, monkeypatch, module_without("streamwork.worker.watch", guard), says=says)
