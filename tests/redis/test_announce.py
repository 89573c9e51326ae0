"""announce.lua: events are told once, the stream of them is bounded, and what went is noted."""

from __future__ import annotations

from streamwork.broker.trimmed import read_notes
from streamwork.store.commands import plain
from streamwork.store.keys import events, events_trimmed
from streamwork.store.telling import announce


def told(driver, namespace):
    return [fields[1] for _, fields in driver.run(plain("XRANGE", events(namespace), "-", "+"))]


def test_each_is_told_once_also_when_its_answer_was_lost(driver, namespace):
    assert driver.run(announce(namespace, [("a", b"1"), ("b", b"2")], 7)) == 2
    assert driver.run(announce(namespace, [("b", b"2"), ("c", b"3")], 7)) == 1
    assert told(driver, namespace) == [b"1", b"2", b"3"]
    assert driver.run(plain("EXISTS", events_trimmed(namespace))) == 0


def test_the_oldest_go_and_that_is_noted(driver, namespace):
    for at in range(5):
        driver.run(announce(namespace, [(f"{at} {n}", b"%d" % (100 * at + n)) for n in range(100)], 7, 150))
    left = told(driver, namespace)
    assert 150 <= len(left) < 500
    assert left[-1] == b"499"
    (first, _), *_ = driver.run(plain("XRANGE", events(namespace), "-", "+", "COUNT", 1))
    note = read_notes(driver.run(plain("HGETALL", events_trimmed(namespace))))["events"]
    assert b"%d-%d" % note.place == first
    assert (note.at_ms, note.why) == (7, "the newest 150 events are kept")
