"""What `ops/faults` says in the end: a table per scenario over its seeds, for people, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections import defaultdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import redis_for_tests
from streamwork.store.binary import find_server_binary

_ROOT = Path(__file__).resolve().parents[2]
_COLUMNS = (
    "scenario", "runs", "failed", "sent", "acked", "ok", "lost", "double", "order", "over", "odd", "reruns",
    "recovered", "p50 s", "p99 s", "max s", "reach s",
)  # fmt: skip


class Report:
    """The verdicts so far.

    Args:
        scenarios: Those that are played, by name.
    """

    def __init__(self, scenarios):
        self._scenarios = scenarios
        self.verdicts = []
        self.commit = _commit()
        self.server = _server()

    @property
    def headline(self):
        """Which tree, on what."""
        return f"commit {self.commit} · {self.server} · Python {platform.python_version()} · {os.cpu_count()} cores"

    @property
    def failed(self):
        """The runs that failed."""
        return [one for one in self.verdicts if one.status == "failed"]

    @property
    def slow(self):
        """The scenarios whose recoveries miss their reach."""
        rows = [(name, self._recoveries(name)) for name in self._by_scenario()]
        return [
            name
            for name, times in rows
            if times and (reach := self._scenarios[name].recovery_s) is not None and percentile(times, 99) > reach
        ]

    def add(self, verdict):
        """Take one in."""
        self.verdicts.append(verdict)

    def _by_scenario(self):
        found = defaultdict(list)
        for verdict in self.verdicts:
            found[verdict.scenario].append(verdict)
        return found

    def _recoveries(self, name):
        return sorted(time for one in self._by_scenario()[name] for time in one.findings.recovered_s)

    def rows(self):
        """Return the table's rows, texts."""
        return [self._row(name, verdicts) for name, verdicts in sorted(self._by_scenario().items())]

    def _row(self, name, verdicts):
        played = [one for one in verdicts if one.status != "skipped"]
        if not played:
            return [name, f"skipped: {verdicts[0].why[0]}", *[""] * (len(_COLUMNS) - 2)]
        total = dict.fromkeys(vars(played[0].findings), 0)
        for verdict in played:
            for field, value in vars(verdict.findings).items():
                total[field] += len(value) if isinstance(value, list) else value
        times, reach = self._recoveries(name), self._scenarios[name].recovery_s
        spread = [f"{percentile(times, percent):.2f}" if times else "" for percent in (50, 99, 100)]
        counted = (
            "attempted", "acknowledged", "ok", "lost", "duplicated_commits", "out_of_order", "over_limit",
            "unexpected", "duplicated_runs", "recovered_s",
        )  # fmt: skip
        failed = sum(one.status == "failed" for one in played)
        figures = [len(played), failed, *(total[field] for field in counted)]
        return [name, *map(str, figures), *spread, "" if reach is None else f"{reach:g}"]

    def show(self, console):
        """Print table and verdict."""
        table = Table(title=self.headline, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in _COLUMNS:
            table.add_column(column, justify="left" if column == "scenario" else "right", no_wrap=True)
        for row in self.rows():
            table.add_row(*row)
        console.print(table)
        for line in self.summary():
            console.print(line, markup=False, highlight=False)

    def summary(self):
        """Return what came of it, and how to repeat what failed."""
        lines = [f"{len(self.verdicts)} runs, {len(self.failed)} failed"]
        lines += [f"again: ops/faults --only {one.scenario} --seed {one.seed} --keep" for one in self.failed]
        lines += [f"slow: {name} recovers later than its reach" for name in self.slow]
        return lines

    def write(self, json_path, markdown_path):
        """Write the files that were asked for, whole each time: a run that is stopped leaves them."""
        if json_path is not None:
            runs = [one.as_dict() for one in self.verdicts]
            head = {"commit": self.commit, "server": self.server, "written_at_ms": SYSTEM_CLOCK.now_ms()}
            json_path.write_text(json.dumps({**head, "slow": self.slow, "runs": runs}, indent=1) + "\n")
        if markdown_path is not None:
            rule = ["---", *["---:"] * (len(_COLUMNS) - 1)]
            lines = [f"| {' | '.join(row)} |" for row in (_COLUMNS, rule, *self.rows())]
            text = "\n".join([self.headline, "", *lines, "", *(f"- {line}" for line in self.summary())])
            markdown_path.write_text(text + "\n")


def percentile(times, percent):
    """Return the smallest of sorted times that so many percent do not exceed."""
    return times[max(0, math.ceil(len(times) * percent / 100) - 1)]


def _commit():
    git = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _server():
    binary = find_server_binary(redis_for_tests()[1])
    words = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=False).stdout.split()
    return "Redis " + next((word[2:] for word in words if word.startswith("v=")), "of unknown version")
