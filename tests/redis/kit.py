"""Deliveries and their ends, as a worker would make them, and everything that a test compares."""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import contextmanager
from typing import NamedTuple

from streamwork.broker.async_sender import AsyncSender
from streamwork.broker.outgoing import Outgoing
from streamwork.broker.sync_sender import SyncSender
from streamwork.config import ClientConfig
from streamwork.ids import random_id
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS, SettleItem
from streamwork.store.sync_driver import SyncDriver
from streamwork.wire.message import (
    WIRE_VERSION,
    DeadLetter,
    Failure,
    JournalRecord,
    decode_message,
    encode_attempt,
    encode_record,
    encode_result,
)
from tests.helpers import body_of

LANE = "1:"
STATES = {"S": "succeeded", "K": "skipped", "C": "cancelled", "E": "expired", "D": "dead", "R": "retried"}
KEEP_MS = 60_000
DUE_MS = 4_000_000_000_000


class Delivery(NamedTuple):
    """One entry in the hands of one consumer."""

    lane: str
    entry: bytes
    count: int
    task_id: str
    body: bytes
    consumer: str

    @property
    def token(self):
        return f"{self.consumer}/{self.entry.decode()}/{self.count}"


def outgoing(lane=LANE, value=0, **options):
    """Return a message ready for a sender."""
    task_id, body = body_of("tests.echo", value, **options)
    return Outgoing(task_id, lane, body)


def put(driver, keys, count=1, lane=LANE):
    """Enqueue messages; returns them."""
    messages = [outgoing(lane, n) for n in range(count)]
    items = [part for message in messages for part in (1, message.body)]
    driver.run(scripts.enqueue(keys, random_id(), 1, [lane], items, 1, 64))
    return messages


def deliveries(rows, lane, consumer, count=1):
    """Return what XREADGROUP answered for one stream."""
    found = []
    for entry, fields in rows:
        body = dict(zip(fields[::2], fields[1::2], strict=True))[b"d"]
        found.append(Delivery(lane, entry, count, decode_message(body).id, body, consumer))
    return found


def read(driver, keys, consumer, count=1000, lane=LANE):
    """Read what is new."""
    reply = driver.run(scripts.read_new([(keys.lane(lane),)], consumer, count, None))
    return deliveries(reply[0][1], lane, consumer) if reply else []


def deliver(driver, keys, consumer, count=1, lane=LANE):
    """Enqueue messages and read them."""
    put(driver, keys, count, lane)
    return read(driver, keys, consumer, count, lane)


def hand_over(driver, keys, delivery, consumer):
    """Let another consumer take the entry, as after the death of its owner; returns the new delivery."""
    driver.run(scripts.take(keys, delivery.lane, delivery.consumer, mode="leave"))
    (adopted,) = driver.run(scripts.adopt(keys, delivery.lane, consumer, 1))
    assert adopted.entry == delivery.entry
    return delivery._replace(consumer=consumer, count=adopted.delivered)


def take(driver, keys, consumer="w1", mode="reap", **options):
    """Take a consumer's entries as the reaper on duty does, whose pulse is there."""
    if not driver.run(plain("EXISTS", keys.pulse)):
        driver.run(plain("SET", keys.pulse, "reaper", "PX", 60_000))
    return driver.run(scripts.take(keys, LANE, consumer, mode=mode, **options))


def journal(delivery, op):
    """Return the journal record of an end."""
    return encode_record(
        JournalRecord(
            WIRE_VERSION, delivery.task_id, "tests.echo", STATES[op], delivery.lane, delivery.entry, 1,
            delivery.consumer, 1, 2,
        )
    )  # fmt: skip


def letter(delivery):
    """Return a dead letter."""
    return encode_record(
        DeadLetter(
            WIRE_VERSION, delivery.task_id, "tests.echo", delivery.lane, "failed", Failure("ValueError", "no"),
            "1,0,0,1,0", 7, delivery.body,
        )
    )  # fmt: skip


def due_body(delivery, attempt="2,0,0,1,0"):
    """Return what a retry leaves in due."""
    record = attempt if isinstance(attempt, str) else encode_attempt(attempt)
    return b"%b\n%b\n%b" % (delivery.lane.encode(), record.encode(), delivery.body)


def end(keys, delivery, op="S", *, keep_ms=KEEP_MS, reply=None, value=b"\xc0", run_at=DUE_MS):
    """Return the end of a delivery: `op` with its flags."""
    record = encode_result(delivery.token, STATES[op[0]], value)
    if op[0] == "R":
        rest = (run_at, due_body(delivery))
    elif op[0] == "D":
        rest = (record, keep_ms, 7, letter(delivery))
    else:
        rest = (record, keep_ms)
    return SettleItem(
        op, delivery.lane, delivery.entry, delivery.count, journal(delivery, op[0]), rest,
        keys.result(delivery.task_id), None if reply is None else keys.reply(reply), 100,
    )  # fmt: skip


def settle(driver, keys, delivery, op="S", **options):
    """Settle one delivery; True when it was committed."""
    return driver.run(scripts.settle(keys, delivery.consumer, [end(keys, delivery, op, **options)])) == []


def dump(driver, namespace):
    """Return every key of a namespace with its serialized value."""
    names = sorted(driver.run(plain("KEYS", "{" + namespace + "[:}]*")))
    return {name: driver.run(plain("DUMP", name)) for name in names}


def bell(driver, keys, lane=LANE):
    """Return how many tokens a bell holds."""
    return driver.run(plain("LLEN", keys.bell(lane)))


def signals(driver, keys):
    """Return what the control stream says."""
    rows = driver.run(plain("XRANGE", keys.control, "-", "+"))
    return [(fields[1].decode(), fields[3].decode()) for _, fields in rows]


def mark_of(driver, keys, schedule):
    """Return the watermark of a schedule as it is stored."""
    return driver.run(plain("HGET", keys.schedule_marks, schedule)).decode()


def set_mark(driver, keys, schedule, at_ms):
    """Set the last occurrence that was decided of a schedule."""
    driver.run(plain("HSET", keys.schedule_marks, schedule, f"{at_ms} -"))


def owners(driver, keys, lane=LANE):
    """Return who has which entry, and how often it was delivered."""
    rows = driver.run(plain("XPENDING", keys.lane(lane), "workers", "-", "+", 10_000))
    return {entry: (consumer.decode(), count) for entry, consumer, _, count in rows}


@contextmanager
def full(driver):
    """Let the server be at maxmemory."""
    driver.run(plain("CONFIG", "SET", "maxmemory", 1))
    try:
        yield
    finally:
        driver.run(plain("CONFIG", "SET", "maxmemory", 0))


def calls_of(driver, command):
    """Return how often the server ran a command."""
    for line in driver.run(plain("INFO", "commandstats")).decode().splitlines():
        if line.startswith(f"cmdstat_{command}:"):
            return int(line.partition("calls=")[2].partition(",")[0])
    return 0


def stored(driver, keys, lane=LANE):
    """Return the task ids on a lane, in order."""
    rows = driver.run(plain("XRANGE", keys.lane(lane), "-", "+"))
    return [decode_message(fields[1]).id for _, fields in rows]


def sync_sender(url, deadline_s=5.0, **settings):
    make = lambda: SyncDriver(Endpoint(url), ALL_SCRIPTS, deadline_s)
    return SyncSender(make(), make, ClientConfig(**settings))


def with_async_sender(url, body, deadline_s=5.0, **settings):
    """Run `body(sender)` on a fresh loop."""

    async def main():
        driver = AsyncDriver(Endpoint(url), ALL_SCRIPTS, deadline_s)
        try:
            return await body(AsyncSender(driver, ClientConfig(**settings)))
        finally:
            await driver.close()

    return asyncio.run(main())


def later(function, *args):
    """Call a function on a thread; the callable that is returned waits and gives its answer or raises its error."""
    answers = queue.SimpleQueue()

    def run():
        try:
            answers.put((function(*args), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()

    def answer(within_s=10.0):
        value, error = answers.get(timeout=within_s)
        if error is not None:
            raise error
        return value

    return answer
