"""What the tests of schedules share: processes of tests/apps/planned.py, and what its bodies noted."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import NamedTuple

from tests.helpers import wait_until

APP = "tests.apps.planned:app"
TICK, HOLD, FAIL = "tests.apps.planned.tick", "tests.apps.planned.hold", "tests.apps.planned.fail"
SECOND_MS = 1000


class Ran(NamedTuple):
    """One run of a body."""

    text: str
    schedule: str
    id: str
    server_ms: int
    at_ms: int | None


class Planned:
    """Starts workers and schedulers of one namespace, and reads what their bodies noted."""

    def __init__(self, start, path):
        self._start = start
        self.path = path
        path.touch()

    def start(self, *declared, **options):
        """Start a process whose code declares schedules, ``name`` or ``name:text``, every second, all made up for."""
        environ = {"STREAMWORK_TEST_NOTES": str(self.path), "STREAMWORK_TEST_SCHEDULES": " ".join(declared)}
        return self._start(APP, environ=environ, **options)

    def ran(self, schedule=None):
        """Return the runs so far, or those of one schedule."""
        found = [
            Ran(**json.loads(line)) for line in self.path.read_text().splitlines(keepends=True) if line[-1] == "\n"
        ]
        return [run for run in found if schedule is None or run.schedule == schedule]

    def until(self, schedule, count, within_s=30.0):
        """Wait until so many occurrences of a schedule have run; returns its runs."""
        wait_until(
            lambda: len({run.at_ms for run in self.ran(schedule)}) >= count,
            lambda: f"{count} occurrences of {schedule}: {self.ran(schedule)}",
            within_s,
        )
        return self.ran(schedule)

    def occurrences(self, schedule):
        """Return the instants of a schedule that have run, in order; each must be the business of one message."""
        ids = defaultdict(set)
        for run in self.ran(schedule):
            ids[run.at_ms].add(run.id)
        assert {at_ms: found for at_ms, found in ids.items() if len(found) != 1} == {}
        return sorted(ids)

    def go(self):
        """Let the bodies that hold go on."""
        self.path.with_suffix(".go").touch()
