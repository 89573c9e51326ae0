"""Dead letters at the level of scripts: how one comes to be, and what is done to it."""

from __future__ import annotations

from streamwork.broker.dead import PURGE, RETRY, DeadQuery, DeadReading, doing, read_letter
from streamwork.broker.steps import ask
from streamwork.store.commands import plain
from tests.redis.kit import deliver, settle


def bury(driver, keys, count=1):
    """Let messages die; returns their deliveries."""
    found = deliver(driver, keys, "w1", count)
    assert all(settle(driver, keys, each, "D") for each in found)
    return found


def letter_of(driver, keys, task_id):
    """Return a dead letter as it is read, or None."""
    letter = driver.run(plain("HGET", keys.dead_body, task_id))
    return None if letter is None else read_letter(keys.queue, task_id, letter)


def do(driver, keys, deed, *ids, dry_run=False):
    """Do something to dead letters, to all of them where none is named; returns what came of each by id."""
    reading, found = DeadReading(keys, DeadQuery(ids=ids)), {}
    while not reading.is_over:
        found |= {record.id: why for record, why in ask(driver, doing(reading, deed, "me", dry_run=dry_run))}
    return found


def retry(driver, keys, *ids):
    return do(driver, keys, RETRY, *ids)


def purge(driver, keys, *ids):
    return do(driver, keys, PURGE, *ids)
