"""Judge a history: a pure function of its records and of what the queue says at the end.

`VIOLATIONS` names what must not be; the rest are figures. Every finding is a line that names the message.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.faults import limit_checker

# What a message may be sent for. Any other text that a producer expects is a dead letter's reason.
VALUE, ANYTHING = "value", "anything"

ENDS = frozenset({"succeeded", "skipped", "dead", "cancelled", "expired"})

VIOLATIONS = ("lost", "duplicated_commits", "out_of_order", "over_limit", "unexpected")


class QueueEnd(NamedTuple):
    """What the queue says at the end.

    Attributes:
        journal: (task id, state) of every record, oldest first.
        dead: Task id → reason of its dead letter.
        results: Task id → (state, value) of what is kept; the value is None for what is no success.
        backlog: Messages that wait, are due or in flight.
        leaks: What is left without an owner, one line each.
    """

    journal: tuple = ()
    dead: dict = {}
    results: dict = {}
    backlog: int = 0
    leaks: tuple = ()


@dataclass
class Findings:
    """What a history shows; counts, and lists of lines or seconds.

    Attributes:
        refused: Producers were told by a typed error that nothing was sent.
        doubtful: Producers were told that it may have been sent (`EnqueueUnknown`).
        erased: Acknowledged before the data was destroyed on purpose, and of no known end: gone, as expected.
        ok: Acknowledged, and ended once, as expected.
        duplicated_runs: Runs beyond one per attempt; the price of at-least-once, no violation by itself.
        recovered_s: From a fault to the start of each of its victims' bodies elsewhere; from the first answer of a
            Redis that was away to the first start of a body.
    """

    attempted: int = 0
    acknowledged: int = 0
    refused: int = 0
    doubtful: int = 0
    erased: int = 0
    ok: int = 0
    lost: list = field(default_factory=list)
    duplicated_runs: list = field(default_factory=list)
    duplicated_commits: list = field(default_factory=list)
    recovered_s: list = field(default_factory=list)
    out_of_order: list = field(default_factory=list)
    over_limit: list = field(default_factory=list)
    unexpected: list = field(default_factory=list)

    @property
    def violations(self):
        """Return one line for each thing that must not be."""
        return [f"{name.replace('_', ' ')}: {line}" for name in VIOLATIONS for line in getattr(self, name)]


def check(records, end, *, is_ordered=False):
    """Return the findings of a history.

    Args:
        records: In the order of their instants.
        end: What the queue says once everything had the time to end.
        is_ordered: Whether first deliveries must begin in the order of their lane, which holds for one consumer only.
    """
    return _Check(records, end).findings(is_ordered)


class _Check:
    def __init__(self, records, end):
        self.end = end
        self.kinds = defaultdict(list)
        for record in records:
            self.kinds[record.kind].append(record)
        self.sent = {record.label: record for record in self.kinds["attempted"]}
        self.ends = Counter(task_id for task_id, state in end.journal if state in ENDS)
        self.states = defaultdict(list)
        for task_id, state in end.journal:
            if state in ENDS:
                self.states[task_id].append(state)
        self.found = Findings()

    def findings(self, is_ordered):
        found = self.found
        found.attempted = len(self.kinds["attempted"])
        found.acknowledged = len(self.kinds["acknowledged"])
        found.refused, found.doubtful = len(self.kinds["refused"]), len(self.kinds["doubtful"])
        for record in self.kinds["acknowledged"]:
            self._outcome_of(record)
        self._runs()
        self._commits()
        self._recoveries()
        if is_ordered:
            self._order()
        found.out_of_order += limit_checker.out_of_order(self.kinds)
        found.over_limit += limit_checker.over_limit(self.kinds)
        self._strangers()
        return found

    def _outcome_of(self, record):
        task_id, what = record.id, f"{record.label} ({record.id})"
        expects = self.sent[record.label].facts.get("expects", VALUE) if record.label in self.sent else ANYTHING
        seen = [one for one in self.kinds["seen"] if one.id == task_id]
        states = self.states[task_id] or [one.facts["state"] for one in seen[:1]]
        if not states and task_id not in self.end.dead:
            if any(_is_erased(record, erased) for erased in self.kinds["erased"]):
                self.found.erased += 1
            elif not self.end.backlog:
                self.found.lost.append(f"{what} was acknowledged and never ended")
            return
        reason = self.end.dead.get(task_id)
        is_right = reason == expects if expects != VALUE else states == ["succeeded"] and reason is None
        if expects == ANYTHING or is_right:
            self.found.ok += 1
        elif len(states) <= 1:
            self.found.unexpected.append(f"{what} ended as {reason or states[0]}, expected {expects}")

    def _runs(self):
        runs = defaultdict(list)
        for record in self.kinds["started"]:
            runs[record.label, record.id, record.facts["attempt"]].append(record.pid)
        for (label, _, attempt), pids in runs.items():
            extra = [f"{label} ran again in {pid}, attempt {attempt}" for pid in pids[1:]]
            self.found.duplicated_runs += extra

    def _commits(self):
        say = self.found.duplicated_commits.append
        for task_id, count in self.ends.items():
            if count > 1:
                say(f"{task_id} ended {count} times: {', '.join(self.states[task_id])}")
        ids = defaultdict(set)
        for record in (*self.kinds["acknowledged"], *self.kinds["started"]):
            ids[record.label].add(record.id)
        for label, found in ids.items():
            if len(found) > 1:
                say(f"{label} was sent once and is there as {len(found)} messages: {', '.join(sorted(found))}")
        first = {}
        for record in self.kinds["seen"]:
            told = record.facts["state"], record.facts.get("value")
            before = first.setdefault(record.id, told)
            if before != told:
                say(f"{record.label} was seen as {before} and later as {told}")
        for task_id, told in first.items():
            kept = self.end.results.get(task_id)
            if kept is not None and kept != told:
                say(f"{task_id} was seen as {told} and is kept as {kept}")

    def _recoveries(self):
        started = defaultdict(list)
        for record in self.kinds["started"]:
            started[record.id].append(record)
        for fault in self.kinds["fault"]:
            victims = set(fault.facts.get("pids", ()))
            for task_id, runs in started.items():
                before = [run for run in runs if run.at_ns <= fault.at_ns]
                after = [run for run in runs if run.at_ns > fault.at_ns and run.pid not in victims]
                if before:
                    # The next attempt of what had failed there is a retry, and no recovery.
                    attempt, was_there = before[-1].facts["attempt"], before[-1].pid in victims
                    after = [run for run in after if run.facts["attempt"] == attempt]
                else:
                    was_there = task_id in fault.facts.get("ids", ())
                if was_there and after:
                    self.found.recovered_s.append((after[0].at_ns - fault.at_ns) / 1e9)
        firsts = sorted(runs[0].at_ns for runs in started.values())
        for answer in self.kinds["answered"]:
            after = [at_ns for at_ns in firsts if at_ns > answer.at_ns]
            self.found.recovered_s += [(at_ns - answer.at_ns) / 1e9 for at_ns in after[:1]]

    def _order(self):
        lanes, begun = defaultdict(list), {}
        for record in self.kinds["started"]:
            begun.setdefault(record.id, record.at_ns)
        for record in self.kinds["acknowledged"]:
            if record.id in begun and record.facts.get("entry"):
                place = tuple(map(int, record.facts["entry"].split("-")))
                lanes[record.facts["lane"]].append((place, begun[record.id], record.label))
        for lane, messages in lanes.items():
            messages.sort()
            for (_, one_at, one), (_, next_at, following) in itertools.pairwise(messages):
                if next_at < one_at:
                    self.found.out_of_order.append(f"{following} began before {one}, which is ahead of it on {lane!r}")

    def _strangers(self):
        say = self.found.unexpected.append
        known = {record.id: record.label for record in self.kinds["acknowledged"]}
        doubted = {task_id for record in self.kinds["doubtful"] for task_id in record.facts["ids"]}
        planted = {record.id: record.facts["expects"] for record in self.kinds["planted"]}
        refused = {record.label for record in self.kinds["refused"]}
        for record in self.kinds["started"]:
            if record.label not in self.sent:
                say(f"{record.label} ({record.id}) ran and was never attempted")
            elif record.label in refused:
                say(f"{record.label} ran, and its producer was told that it was not sent")
        ran = {record.id for record in self.kinds["started"]}
        for task_id in {*self.ends, *self.end.dead} - {*known, *doubted, *planted, *ran}:
            say(f"{task_id} ended and was never attempted")
        for task_id, reason in planted.items():
            if self.end.dead.get(task_id) != reason:
                say(f"{task_id} was planted: dead as {self.end.dead.get(task_id)}, expected {reason}")
        self._wrong_values()
        for record in self.kinds["broke"]:
            say(f"{record.label}: the producer got {record.facts['error']}, no error of the tree")
        for record in self.kinds["unseen"]:
            if record.id in known and self.ends[record.id]:
                say(f"{record.label} ended, and its waiter was never told: {record.facts['error']}")
        if self.end.backlog:
            say(f"{self.end.backlog} messages are still in the backlog at the end")
        for line in self.end.leaks:
            say(f"left behind: {line}")

    def _wrong_values(self):
        values = defaultdict(set)
        for record in self.kinds["effect"]:
            values[record.id].add(record.facts["value"])
        told = [(one.label, one.id, one.facts["state"], one.facts.get("value")) for one in self.kinds["seen"]]
        told += [(task_id, task_id, *kept) for task_id, kept in self.end.results.items()]
        for name, task_id, state, value in told:
            if state == "succeeded" and value not in values[task_id]:
                self.found.unexpected.append(f"{name} has the result {value!r}, which none of its runs returned")


def _is_erased(record, erased):
    """Whether a message had its place in what was destroyed; Redis gave it its entry id by its own clock."""
    until_ms, lane = erased.facts.get("until_ms"), erased.facts.get("lane")
    if lane is not None and record.facts["lane"] != lane:
        return False
    if until_ms is None or not record.facts.get("entry"):
        return record.at_ns <= erased.at_ns
    return int(record.facts["entry"].partition("-")[0]) <= until_ms
