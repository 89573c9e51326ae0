"""What the system tests share: notes of what ran where, and looks at processes and journals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from streamwork.store.commands import plain
from tests.helpers import wait_until

# The shortest that the noise of two busy cores does not trip; the default is tried once, in test_crash.py.
TTL_S = 1.0


class Noted(NamedTuple):
    """One run of a task of tests/apps/faults.py."""

    text: str
    pid: int
    attempt: int
    crashes: int


class Notes:
    """The file in which tasks note their runs; its name is the tasks' first argument."""

    def __init__(self, path):
        self.path = path
        path.touch()

    def runs(self, text=None):
        """Return the runs so far, or those with this text."""
        lines = [line.split() for line in self.path.read_text().splitlines()]
        found = [Noted(line[0], *map(int, line[1:])) for line in lines]
        return [run for run in found if text is None or run.text == text]

    def until(self, count, within_s=10.0):
        """Wait for so many runs, and return all there are."""
        wait_until(lambda: len(self.runs()) >= count, lambda: f"{count} runs: {self.runs()}", within_s)
        return self.runs()

    def go(self, which=None, how=""):
        """Let the tasks that hold go on: all, or those with this pid or text; `how` = ``"raise"`` makes them fail."""
        draft = self.path.with_suffix(".draft")
        draft.write_text(how)
        draft.rename(self.path.with_suffix(".go" if which is None else f".go-{which}"))

    def hold(self, which):
        """Take back what `go` said of this pid or text."""
        self.path.with_suffix(f".go-{which}").unlink()


def successes(state):
    """Return how often each task message was committed as succeeded."""
    return Counter(record.id for record in state.journal if record.state == "succeeded")


def is_gone(pid):
    """Whether a process has ended; one that nobody has waited for counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second where it ends between open and read
        return True


def done(driver, keys):
    """Return how many task messages have succeeded."""
    return int(driver.run(plain("HGET", keys.counts, "succeeded")) or 0)


def deaths(*workers):
    """Return the log lines in which somebody was taken for dead."""
    words = ("dead consumer taken", "fenced", "lease lost", "handed over")
    return [line for worker in workers for line in worker.text().splitlines() if any(word in line for word in words)]


def _text(driver, *command):
    return driver.run(plain(*command)).decode().splitlines()


def until_nobody_reads(driver):
    """Wait until ten looks running see no blocked read; a reader blocks again a few milliseconds after a read."""
    looks = 0

    def is_quiet():
        nonlocal looks
        clients = [dict(fact.split("=", 1) for fact in line.split()) for line in _text(driver, "CLIENT", "LIST")]
        reads = [one for one in clients if one["cmd"] == "xreadgroup" and "b" in one["flags"]]
        looks = 0 if reads else looks + 1
        return looks >= 10

    wait_until(is_quiet, "the readers stop")


def until_reaped(driver, keys, times):
    """Wait until the reaper on duty has looked so often: each time it renews its pulse."""
    left_ms, looks = 0, 0

    def has_looked():
        nonlocal left_ms, looks
        before, left_ms = left_ms, driver.run(plain("PTTL", keys.pulse))
        looks += left_ms > before
        return looks >= times

    wait_until(has_looked, "the reaper looks again and again", within_s=10 * TTL_S)
