"""A load of messages with limits of every kind, and what a producer notes of each for the checker."""

from __future__ import annotations

import random
import threading
from typing import NamedTuple

from streamwork import Group, Limit, Rate

# How many of each limit run at once, in all workers together.
THREE, TWO, CAPPED = "three", "two", "capped"


class Limits(NamedTuple):
    """One kind of message: its options, and what may not be exceeded.

    Attributes:
        options: Of the message.
        facts: ``at_once``: name → most · ``key``: of a strict order · ``rates``: name → (count, span in s, burst; None
            = a sliding window).
    """

    options: dict
    facts: dict


def at_once(*names):
    """So many at once, under one name or several."""
    most = {THREE: 3, TWO: 2}
    limits = [Limit(most[name], name=name) for name in names]
    return Limits({"concurrency": limits}, {"at_once": {name: most[name] for name in names}})


def in_order(key):
    """One at a time in the order of sending; one thread sends all of a key."""
    return Limits({"key": key}, {"key": key, "at_once": {f"key {key}": 1}})


ALONE = Limits({"unique": "alone"}, {"at_once": {"unique": 1}})
GROUPS = (
    Limits({"group": Group("heavy", weight=3)}, {}),
    Limits({"group": Group("light")}, {}),
    Limits({"group": Group(CAPPED, most=2)}, {"at_once": {CAPPED: 2}}),
)
WINDOW = Limits({"rate": Rate("20/s", window=True, name="window")}, {"rates": {"window": (20, 1, None)}})
BUCKET = Limits({"rate": Rate("40/s", burst=5, name="bucket")}, {"rates": {"bucket": (40, 1, 5)}})
# What lacks a token is set aside with the place it has, and comes back for both.
BOTH = Limits({**at_once(THREE).options, **BUCKET.options}, {**at_once(THREE).facts, **BUCKET.facts})
MIX = (at_once(THREE), at_once(TWO), at_once(TWO, THREE), ALONE, *GROUPS, BUCKET, BOTH)
KEYS = ("k0", "k1")


class LimitedLoad:
    """Messages with limits from threads until stopped: one thread for each key, one for all other kinds.

    Args:
        producer: Who sends.
        chance: Of the stage.
        pause_s: Mean pause between the sends of one thread.
    """

    def __init__(self, producer, chance, *, pause_s=0.04):
        self._producer, self._pause_s = producer, pause_s
        self._stop = threading.Event()
        kinds = [MIX, MIX, *([in_order(key)] for key in KEYS)]
        self._threads = [
            threading.Thread(target=self._run, args=(chance.random(), mine), daemon=True) for mine in kinds
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, seed, kinds):
        chance = random.Random(seed)
        while not self._stop.is_set():
            kind = chance.choice(kinds)
            failures = 1 if chance.random() < 0.1 else 0
            args = (chance.uniform(0.002, 0.03), failures)
            self._producer.send("counted", *args, limits=kind.facts, **kind.options)
            self._stop.wait(chance.expovariate(1 / self._pause_s))

    def stop(self):
        """Send no more; returns once the threads have ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def send_held(stage, count=3):
    """Send as many as may run at once, which hold, and some that wait for them; returns the labels of the first."""
    kind = at_once(THREE)
    labels = [f"held-{number}" for number in range(count)]
    for label in labels:
        stage.producer.send("counted_held", label=label, limits=kind.facts, **kind.options)
        stage.started(label)
    for _ in range(count):
        stage.producer.send("counted", 0.01, 0, limits=kind.facts, **kind.options)
    return labels


def send_burst(stage, count=30):
    """Send more at once than their rate lets start, so that a line of them stands there for a while."""
    for _ in range(count):
        stage.producer.send("counted", 0.01, 0, limits=WINDOW.facts, **WINDOW.options)


def send_crowd(stage, count=8, seconds=0.2):
    """Send as many at once of a limit, and of a key, as would surely run side by side if nobody minded."""
    for kind in (at_once(THREE), in_order("crowd")):
        for _ in range(count):
            stage.producer.send("counted", seconds, 0, limits=kind.facts, **kind.options)


def in_lines(stage):
    """Return how many messages wait for a limit."""
    return stage.redis("HLEN", stage.keys.parked_body)
