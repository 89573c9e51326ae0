"""What is paused does not begin, whoever runs or starts; what runs ends, sending works, and it goes on at once."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.broker.pausing import paused_checks
from streamwork.broker.stats import overview
from streamwork.broker.steps import ask
from streamwork.errors import ConfigError, QueueNotFound, TaskNotFound
from streamwork.ids import task_id_at_ms
from streamwork.store.commands import plain
from tests.apps import faults
from tests.helpers import wait_until
from tests.system.kit import done

NOTE = "tests.apps.faults.note"


def test_a_paused_queue_is_not_read_until_it_is_resumed(start, send, app, notes, look):
    start(slots=1)  # with a free slot it might take one in the milliseconds before it hears
    held = send(faults.hold, notes.path, "held")
    notes.until(1)
    assert app.pause(queue="default", reason="tonight") == {"default": True}
    assert app.pause(queue="default") == {"default": False}
    waiting = app.enqueue_many(send.declared(faults.note).call(notes.path, str(n)) for n in range(50))
    later = start(slots=2)  # who comes later knows, too
    notes.go()
    held.result(timeout=10)
    assert not waiting[0].wait(timeout=1)
    assert [run.text for run in notes.runs()] == ["held"]
    assert look().in_flight == 0
    (pause,) = app.paused()
    assert (pause.queue, pause.mark, pause.reason) == ("default", "queue", "tonight")
    assert app.resume(queue="default") == {"default": True}
    for handle in waiting:
        handle.result(timeout=10)
    assert later.process.poll() is None
    assert app.paused() == []


def test_a_paused_task_is_set_aside_without_an_attempt_and_goes_on_in_order(
    start, send, app, notes, look, driver, keys
):
    start(slots=1)
    held = send(
        faults.hold, notes.path, "held"
    )  # with a free slot it might take one in the milliseconds before it hears
    notes.until(1)
    app.pause(task=send.declared(faults.note), queue="default")
    aside = [send(faults.note, notes.path, str(n)) for n in range(30)]
    notes.go()
    held.result(timeout=10)
    assert send(faults.nothing, 2).result(timeout=10) == 2  # others go on
    wait_until(lambda: len(look().due) == 30, "all are set aside")
    before = driver.run(plain("XLEN", keys.journal))
    assert not aside[0].wait(timeout=1)
    assert driver.run(plain("XLEN", keys.journal)) == before  # nobody looks at them again and again
    assert [run.text for run in notes.runs()] == ["held"]
    app.resume(task=NOTE)
    for handle in aside:
        assert handle.result(timeout=10) == (1, 0)
    runs = notes.runs()[1:]
    sent_at = [task_id_at_ms(aside[int(run.text)].id) for run in runs]
    assert sent_at == sorted(sent_at)
    assert len({run.text for run in runs}) == 30
    assert [run.attempt for run in runs] == [1] * 30


def test_a_pause_outlives_workers_and_is_heard_after_a_lost_connection(start, send, app, notes, driver, keys):
    send.declared(faults.note)
    app.pause(queue="default")
    worker = start(slots=2)
    handle = send(faults.note, notes.path, "1")
    assert not handle.wait(timeout=0.5)
    app.resume(queue="default")
    handle.result(timeout=10)
    # The signal is lost with the connections, and the mark is read at the next.
    driver.run(plain("HSET", keys.paused, "queue", "{}"))
    driver.run(plain("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    wait_until(lambda: worker.process.poll() is None and not send(faults.nothing, 1).wait(timeout=0.3), "it is paused")
    app.resume(queue="default")
    waiting = send(faults.nothing, 2)
    assert waiting.result(timeout=10) == 2


def test_what_is_given_back_to_a_paused_queue_is_not_begun_elsewhere(start, send, app, notes):
    first = start(slots=1, drain_timeout_s=0.1)
    handle = send(faults.hold, notes.path, "held")
    notes.until(1)
    app.pause(queue="default")
    start(slots=1)
    first.signal()
    first.wait()
    assert not handle.wait(timeout=1)
    assert len(notes.runs()) == 1
    notes.go()
    app.resume(queue="default")
    handle.result(timeout=10)
    assert len(notes.runs()) == 2


def test_async_twins_and_wrong_words(app, driver, keys, send):
    send.declared(faults.note)

    async def both():
        assert await app.apause(queue="default", group="tenant-7") == {"default": True}
        assert [each.mark for each in await app.apaused()] == ["group:tenant-7"]
        assert await app.aresume(queue="default", group="tenant-7") == {"default": True}

    asyncio.run(both())
    for wrong in ({}, {"task": "a", "group": "b"}, {"task": ""}, {"queue": "a b"}, {"group": 7}):
        with pytest.raises(ConfigError):
            app.pause(**wrong)
    assert done(driver, keys) == 0
    assert driver.run(plain("EXISTS", keys.paused)) == 0


def test_a_short_name_is_a_task_and_what_is_no_task_or_queue_is_an_error(send, app, driver, keys):
    send.declared(faults.note)
    assert app.pause(task="note") == {"default": True}
    assert [each.mark for each in app.paused()] == [f"task:{NOTE}"]
    for wrong in ("nto", "tests.apps.faults.noet", "test.apps.faults.note", "noe"):
        for change in (app.pause, app.resume):
            with pytest.raises(TaskNotFound, match=NOTE):
                change(task=wrong)
    with pytest.raises(QueueNotFound, match="did you mean 'default'"):
        app.pause(queue="defualt")
    with pytest.raises(QueueNotFound):
        app.resume(queue="nope", task="note")
    assert app.pause(task="other.code.task") == {"default": True}  # which this app does not import
    app.task(name="one.twin")(faults.nothing.function)
    app.task(name="two.twin")(faults.nothing.function)
    with pytest.raises(TaskNotFound, match=r"one\.twin or two\.twin"):
        app.pause(task="twin")
    driver.run(plain("HSET", keys.paused, "task:old", "{}"))
    assert app.resume(task="old") == {"default": True}  # whatever was paused can be resumed
    assert app.resume(task="note") == {"default": True}
    assert [each.mark for each in app.paused()] == ["task:other.code.task"]


def test_of_a_paused_group_its_own_line_is_counted(send, app, driver):
    send.declared(faults.nothing)
    app.pause(queue="default", group="g1")
    for group, count in (("g1", 3), ("g10", 2), ("other", 4)):
        for _ in range(count):
            send(faults.nothing, group=group)
    app.pause(queue="default", group="g1")
    app.pause(queue="default", group="empty")
    queues = ask(driver, overview(app.name, ["default"])).queues
    found = {check.found: check.remedy for check in ask(driver, paused_checks(app.name, queues))}
    assert found == {
        "group empty is paused on queue default": "streamwork resume --group empty",
        "group g1 is paused on queue default: 3 waiting": "streamwork resume --group g1",
    }
