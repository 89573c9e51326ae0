"""`app.events` and `app.aevents`: what workers, schedules and pauses do, told once each, over a restart of Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter

import pytest

from streamwork import ConfigError, Event, EventGap, UseAsync
from streamwork.broker.events import event
from streamwork.store.commands import plain
from streamwork.store.keys import events, queues
from streamwork.store.telling import announce
from streamwork.wire.message import JournalRecord, encode_record
from tests.apps import faults
from tests.helpers import wait_until


@pytest.fixture
def streamwork_redis_url(server):
    """One of these tests restarts the server."""
    return server.url


@pytest.fixture
def redis_url(server):
    return server.url


def kept(app, **asked):
    """Return all that is kept and fits."""
    return list(app.events(follow=False, **asked))


def types(found):
    return [one.type for one in found]


def test_tasks_and_workers_are_told_and_picked_by_type_and_queue(start, app, send, notes):
    worker = start()
    done = send(faults.nothing, 7)
    done.result(timeout=20)
    held = send(faults.hold, notes.path, "one")
    notes.until(1)
    notes.go("one", how="raise")
    assert held.wait(timeout=20)
    worker.signal()
    assert worker.wait() == 0
    wait_until(lambda: "worker.stopped" in types(kept(app)), "the last word of the worker")
    found = kept(app)
    assert Counter(types(found)) == {
        "worker.started": 1, "task.succeeded": 1, "task.retried": 4, "task.dead": 1, "worker.draining": 1,
        "worker.stopped": 1,
    }  # fmt: skip
    (succeeded,) = kept(app, types="task.succeeded")
    assert (succeeded.id, succeeded.queue, succeeded.task) == (done.id, "default", faults.nothing.name)
    assert [one.facts["attempt"] for one in kept(app, types=["task.retried", "task.dead"])] == [1, 2, 3, 4, 5]
    assert types(kept(app, types="worker.*")) == ["worker.started", "worker.draining", "worker.stopped"]
    assert len({one.worker for one in kept(app, types="worker.*")}) == 1
    assert kept(app, queues=["mail"]) == []
    assert types(kept(app, since=3600)) == types(found)
    assert kept(app, since=found[3].cursor) == found[4:]
    assert kept(app, limit=2) == found[:2]


def test_a_process_that_dies_is_told_with_how(start, app, send):
    worker = start()
    handle = send(faults.nothing, 1)
    handle.result(timeout=20)
    (child,) = worker.children
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: kept(app, types="worker.died"), "the death of the process to be told", 20)
    (died,) = kept(app, types="worker.died")
    assert "signal 9 (SIGKILL)" in died.detail
    wait_until(lambda: len(kept(app, types="worker.started")) == 2, "the next process to be told", 20)
    worker.kill()
    start()
    wait_until(lambda: kept(app, types="worker.vanished"), "the end of the whole worker to be told", 20)


def test_pauses_and_schedules_by_hand_are_told(app, send):
    task = send.declared(faults.nothing)
    task.enqueue(1)
    app.pause(queue="default", reason="the provider is down")
    app.pause(queue="default")  # nothing new
    app.resume(queue="default")
    app.schedules.add("nightly", task.call(1), every=3600)
    app.schedules.pause("nightly")
    app.schedules.resume("nightly")
    app.schedules.remove("nightly")
    found = kept(app)
    assert types(found) == [
        "queue.paused", "queue.resumed", "schedule.added", "schedule.paused", "schedule.resumed", "schedule.removed",
    ]  # fmt: skip
    assert (found[0].detail, found[0].facts) == ("the provider is down", {"mark": "queue"})
    assert {one.facts["schedule"] for one in found[2:]} == {"nightly"}


def test_who_follows_misses_nothing_over_a_restart_of_redis_and_hears_of_it(start, app, send, server):
    start()
    task = send.declared(faults.nothing)
    task.enqueue(0).result(timeout=20)
    heard, aheard = [], []

    def follow():
        heard.extend(one.id for one in app.events(since=3600, types="task.*", limit=41))

    async def afollow():
        async for one in app.events(since=3600, types="task.*", limit=41):
            aheard.append(one.id)  # noqa: PERF401 - one by one, to be seen meanwhile
        await app.connection.aclose()

    threads = [threading.Thread(target=follow), threading.Thread(target=lambda: asyncio.run(afollow()))]
    for thread in threads:
        thread.start()
    handles = app.enqueue_many(task.call(number) for number in range(20))
    wait_until(lambda: len(heard) == len(aheard) == 21, lambda: f"21: {len(heard)} {len(aheard)}", 20)
    server.stop(signal.SIGKILL)
    server.start()
    handles += app.enqueue_many((task.call(number) for number in range(20)), wait=20)
    for thread in threads:
        thread.join(30)
    assert set(heard) == set(aheard)
    assert {handle.id for handle in handles} < set(heard)
    assert len(set(heard)) == len(heard) == len(aheard) == 41
    wait_until(lambda: "outage.ended" in types(kept(app)), "the outage to be told", 20)
    began, ended = kept(app, types="outage.*")
    assert began.at_ms <= ended.at_ms
    assert ended.facts["away_s"] >= 0


def test_a_cursor_tells_each_event_once_in_pages_of_many_streams(app, driver, namespace):
    for number in range(1_200):
        driver.run(event(namespace, "queue.paused", queue="a", number=number))
    driver.run(plain("SADD", queues(namespace), "a", "b"))
    numbers, since = [], None
    while True:
        found = kept(app, limit=700, **({"since": since} if since else {}))
        if not found:
            break
        numbers += [one.facts["number"] for one in found]
        since = found[-1].cursor
    assert numbers == list(range(1_200))
    driver.run(event(namespace, "queue.resumed", queue="new"))
    (one,) = kept(app, since=since)
    assert one.queue == "new"


def test_what_has_more_than_a_page_keeps_its_place_among_the_streams(app, driver, namespace, keys):
    for number in range(501):
        driver.run(event(namespace, "queue.paused", queue="default", number=number))
    record = encode_record(JournalRecord(1, "0" * 32, "t", "succeeded", "1:", b"1-1", 1, "w", 1, 2))
    driver.run(plain("XADD", keys.journal, "*", "j", record))
    driver.run(plain("SADD", queues(namespace), "default"))
    assert types(kept(app)) == ["queue.paused"] * 501 + ["task.succeeded"]


def test_what_is_gone_is_a_gap(app, driver, namespace):
    driver.run(event(namespace, "queue.paused", queue="a"))
    (first,) = kept(app)
    for at in range(5):
        driver.run(announce(namespace, [(f"{at} {n}", b"x") for n in range(100)], 7, 100))
    driver.run(event(namespace, "queue.resumed", queue="a"))
    gap, last = kept(app, since=first.cursor)
    assert isinstance(gap, EventGap)
    assert (gap.queue, gap.why, gap.trimmed_at_ms) == ("", "the newest 100 events are kept", 7)
    assert (isinstance(last, Event), last.type) == (True, "queue.resumed")  # strangers hide nothing
    assert kept(app, since=last.cursor) == []


def test_one_who_begins_now_hears_only_what_comes(app, driver, namespace):
    driver.run(event(namespace, "queue.paused", queue="a"))
    heard = []

    async def main():
        with pytest.raises(UseAsync):
            iter(app.events())

        async def follow():
            heard.extend([one async for one in app.aevents(limit=1)])

        following = asyncio.create_task(follow())
        await asyncio.sleep(0.5)  # it begins now, and not before it is asked
        await asyncio.to_thread(driver.run, event(namespace, "queue.resumed", queue="b"))
        await following
        await app.connection.aclose()

    asyncio.run(main())
    assert types(heard) == ["queue.resumed"]
    assert driver.run(plain("XLEN", events(namespace))) == 2


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"types": "tasks.*"}, "fits no event"), ({"since": "yesterday"}, "give the cursor"), ({"limit": 0}, "limit=0"),
        ({"queues": ["no name"]}, "queue 'no name'"), ({"since": []}, "since="),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_when_it_is_asked(app, asked, text):
    for ask in (app.events, app.aevents):
        with pytest.raises(ConfigError, match=text):
            ask(**asked)
