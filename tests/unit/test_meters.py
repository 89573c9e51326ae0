"""What a process counts: buckets, sums over processes, and names that stay."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource

from streamwork.telemetry import meters
from streamwork.telemetry.meters import ATTEMPTS, BOUNDS_S, DURATION, METRICS, WAITED, Meters, Series, lasting, summed
from streamwork.telemetry.push import to_otlp

DOC = Path(__file__).resolve().parents[2] / "ops" / "docs" / "telemetry.md"


def found(counted):
    return {(one.name, one.labels): one.value for one in counted.series()}


def test_a_time_falls_into_the_first_bucket_that_has_room_for_it():
    counted = Meters()
    for ran_ms in (0, 5, 6, 3_600_000, 3_600_001):
        counted.ended("q", "t", "succeeded", 1_000, ran_ms)
    *buckets, total = found(counted)[DURATION.name, ("q", "t")]
    expected = [0] * (len(BOUNDS_S) + 1)
    expected[0], expected[1], expected[-2], expected[-1] = 2, 1, 1, 1
    assert buckets == expected
    assert total == pytest.approx(7_200.012)
    waited = found(counted)[WAITED.name, ("q", "t")]
    assert (waited[BOUNDS_S.index(1)], waited[-1]) == (5, 5)


def test_what_never_began_is_counted_and_has_no_times():
    counted = Meters()
    counted.ended("q", "t", "cancelled", -1, -1)
    assert found(counted)[ATTEMPTS.name, ("q", "t", "cancelled")] == 1
    assert (DURATION.name, ("q", "t")) not in found(counted)


def test_it_counts_on_while_another_thread_asks(monkeypatch):
    monkeypatch.setattr(meters, "_MOST_WAITING", 50)
    counted, stop = Meters(), threading.Event()

    def ask():
        while not stop.is_set():
            counted.series()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for n in range(20_000):
            counted.ended("q", f"t{n % 3}", "succeeded", n % 7, n % 11)
    finally:
        stop.set()
        asking.join()
    ended = found(counted)
    assert sum(ended[ATTEMPTS.name, ("q", f"t{n}", "succeeded")] for n in range(3)) == 20_000
    assert sum(sum(ended[DURATION.name, ("q", f"t{n}")][:-1]) for n in range(3)) == 20_000


def test_processes_are_added_up_and_gauges_end_with_theirs():
    one = [Series("streamwork.slots", (), 5), Series(ATTEMPTS.name, ("q", "t", "dead"), 2)]
    two = [Series("streamwork.slots", (), 7), Series(DURATION.name, ("q", "t"), [1, 0, 0.5])]
    three = [Series(DURATION.name, ("q", "t"), [2, 1, 0.5])]
    assert summed([lasting(one), two, three]) == [
        Series(ATTEMPTS.name, ("q", "t", "dead"), 2), Series("streamwork.slots", (), 7),
        Series(DURATION.name, ("q", "t"), [3, 1, 1.0]),
    ]  # fmt: skip


def test_every_metric_is_in_the_docs_with_its_names_kind_and_attributes():
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (\w+) \|(.*?)\| (.+?) \|$", DOC.read_text(), re.MULTILINE)
    told = [(name, prom, kind, tuple(re.findall(r"`(.+?)`", labels)), text) for name, prom, kind, labels, text in rows]
    assert told == [
        (one.name, one.prometheus_name + "_total" * (one.kind == "counter"), one.kind, one.attributes, one.help)
        for one in METRICS.values()
    ]


def test_counters_grow_from_when_the_process_began():
    made = to_otlp([Series(ATTEMPTS.name, ("q", "t", "dead"), 3)], Resource({}), 5, 9)
    (metric,) = made.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.data.data_points
    assert (metric.data.is_monotonic, point.start_time_unix_nano, point.time_unix_nano, point.value) == (True, 5, 9, 3)
