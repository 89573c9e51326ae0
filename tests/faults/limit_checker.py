"""Judge limits: how many ran at once, in which order, and how fast; pure functions of a history's records.

A producer notes with each message what may not be exceeded (`Limits.facts`), and a body when it is left in any way.
Zombies may exceed a limit (rule 28), so a run whose process was stopped or killed counts until then; and where a zombie
ends a message, which counts if it comes first, the run elsewhere counts until then.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import NamedTuple

# Redis dates a start before its body begins, and in whole milliseconds where it reckons in those.
_TOLERANCE_NS = 2_000_000


class Span(NamedTuple):
    """One run: when it began and was over, ns; infinite where nothing says so."""

    label: str
    begun: float
    over: float


def spans(kinds):
    """Return the runs that count, by label, in the order of their beginnings.

    Args:
        kinds: Records by kind, in the order of their instants.
    """
    ends, faults, starts = defaultdict(list), defaultdict(list), defaultdict(list)
    for record in kinds["ended"]:
        ends[record.pid, record.id].append(record.at_ns)
    for record in kinds["fault"]:
        for pid in record.facts.get("pids", ()):
            faults[pid].append(record.at_ns)
    for record in kinds["started"]:
        starts[record.id].append(record)
    found = defaultdict(list)
    for task_id, runs in starts.items():
        late = [at for run in runs for at in ends[run.pid, task_id] if faults[run.pid] and at > faults[run.pid][0]]
        for run in runs:
            befell = faults[run.pid]
            if befell and befell[0] < run.at_ns and any(run.pid != other.pid for other in runs):
                continue  # it had this in hand when it was stopped; since then it runs elsewhere, or did
            after = [at for at in (*ends[run.pid, task_id], *befell, *late) if at > run.at_ns]
            found[run.label].append(Span(run.label, run.at_ns, min(after, default=math.inf)))
    return found


def over_limit(kinds):
    """Return one line for each limit that was exceeded: so many at once, or so fast."""
    runs, facts = spans(kinds), _facts(kinds)
    at_once, most, rates = defaultdict(list), {}, defaultdict(list)
    for label, limits in facts.items():
        for name, number in limits.get("at_once", {}).items():
            most[name] = number
            at_once[name] += runs[label]
        for name, rate in limits.get("rates", {}).items():
            rates[name, *rate].append(label)
    found = []
    for name, these in at_once.items():
        peak = _peak(these)
        if len(peak) > most[name]:
            found.append(f"{name}: {len(peak)} ran at once, {most[name]} may: {', '.join(sorted(peak))}")
    for (name, count, span_s, burst), labels in rates.items():
        found += _too_fast(name, count, span_s, burst, labels, kinds)
    return found


def out_of_order(kinds):
    """Return one line for each message of a strict order that began before its elder had ended for good."""
    runs, facts = spans(kinds), _facts(kinds)
    sent = {record.label: record.at_ns for record in kinds["attempted"]}
    lines, found = defaultdict(list), []
    for record in kinds["acknowledged"]:
        if "key" in facts.get(record.label, {}) and runs[record.label]:
            lines[facts[record.label]["key"]].append(record.label)
    for key, labels in lines.items():
        labels.sort(key=sent.__getitem__)  # one sender each, and one message after the other
        over, elder = 0, ""
        for label in labels:
            if runs[label][0].begun < over:
                found.append(f"{label} began before {elder} had ended, which is ahead of it for the key {key!r}")
            last = max(run.over for run in runs[label])
            if last > over:
                over, elder = last, label
    return found


def _facts(kinds):
    return {record.label: record.facts.get("limits") or {} for record in kinds["attempted"]}


def _peak(runs):
    """Return the labels that ran when most did."""
    edges = sorted([(run.begun, 1, run.label) for run in runs] + [(run.over, 0, run.label) for run in runs])
    now, peak = [], []
    for _, is_begin, label in edges:
        if is_begin:
            now.append(label)
            peak = max(peak, list(now), key=len)
        else:
            now.remove(label)
    return peak


def _too_fast(name, count, span_s, burst, labels, kinds):
    """Compare starts with the earliest that are possible when the bucket, or the window, was full at the first send."""
    these = set(labels)
    first = min(record.at_ns for record in kinds["attempted"] if record.label in these)
    begun = sorted(record.at_ns for record in kinds["started"] if record.label in these)
    for number, at_ns in enumerate(begun):
        spent = number // count * span_s if burst is None else max(0, number + 1 - burst) * span_s / count
        if at_ns < first + spent * 1e9 - _TOLERANCE_NS:
            return [f"{name}: start {number + 1} came {(at_ns - first) / 1e9:.3f} s after the first send, too early"]
    return []
