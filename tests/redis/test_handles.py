"""Handles made from a bare id, as a later request or another process does."""

from __future__ import annotations

import asyncio

import pytest

from streamwork import ConfigError, State, Streamwork
from streamwork.errors import ResultGone, ResultTimeout, TaskFailed
from streamwork.ids import new_task_id
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.wire.codec import pack
from streamwork.wire.message import Failure, encode_record
from tests.redis.test_results import Waiting, is_waited_for, later


@pytest.fixture
def waiting(server):
    waiting = Waiting(server)
    yield waiting
    waiting.close()


@pytest.fixture
def other(server):
    """The same app in another process: it knows nothing of what was sent."""
    with Streamwork("own", server.url) as app:
        yield app


@pytest.fixture
def echo(other, waiting):
    """The task there."""

    @other.task(name=waiting.echo.name)
    def echo(value: int) -> int:
        return value

    return echo


def read_one(waiting):
    """Take one entry, as a worker that runs it."""
    lane = waiting.echo.lane
    return waiting.driver.run(scripts.read_new([(waiting.keys.lane(lane),)], "w1", 1, None))


def test_a_result_is_had_by_its_id(waiting, echo, other):
    sent = waiting.echo.enqueue(7)
    answer = later(echo.handle(sent.id).result, 10)
    loosely = later(other.handle(sent.id).result, 10)
    assert waiting.finish() == 1
    assert (answer(), loosely()) == (7, 7)
    assert echo.handle(str(sent.id).upper()).result(timeout=10) == 7
    assert echo.handle(sent.id).wait(timeout=10)


def test_the_state_follows_the_message(waiting, echo):
    sent = waiting.echo.enqueue(7)
    handle = echo.handle(sent.id)
    assert (handle.state(), handle.lane, handle.entry) == (State.WAITING, sent.lane, sent.entry)
    read_one(waiting)
    assert handle.state() == echo.handle(sent.id).state() == State.RUNNING
    with pytest.raises(ResultTimeout, match="running"):
        echo.handle(sent.id).result(timeout=0.1)

    async def on_loop():
        handle = echo.handle(sent.id)
        try:
            return await handle.astate(), await handle.acancel(), await echo.handle(sent.id).await_(timeout=0.1)
        finally:
            await echo.sending.now.aclose()

    assert asyncio.run(on_loop()) == (State.RUNNING, "requested", False)


def test_a_failure_comes_by_the_id(waiting, echo):
    sent = waiting.echo.enqueue(7)
    assert waiting.finish(op="D", value=encode_record(Failure("ValueError", "no"))) == 1
    assert echo.handle(sent.id).state() == State.DEAD
    with pytest.raises(TaskFailed, match="ValueError: no"):
        echo.handle(sent.id).result(timeout=10)


def test_what_waits_is_cancelled_by_its_id(waiting, echo):
    sent = waiting.echo.enqueue(7)
    assert echo.handle(sent.id).cancel() == "requested"
    assert waiting.driver.run(plain("HEXISTS", waiting.keys.cancelled, sent.id)) == 1
    assert waiting.finish() == 1
    assert echo.handle(sent.id).cancel() == "ended"


def test_an_id_that_was_never_sent_is_unknown_and_leaves_no_mark(waiting, echo):
    waiting.echo.enqueue(7)
    handle = echo.handle(new_task_id())
    assert handle.state() == State.UNKNOWN
    assert handle.cancel() == "ended"
    assert not waiting.driver.run(plain("EXISTS", waiting.keys.cancelled))
    with pytest.raises(ResultGone, match=r"no result of task message .* on queue 'default': .* never sent there"):
        handle.result(timeout=20)


def test_a_wait_by_id_ends_with_a_message_that_keeps_no_result(waiting, echo):
    sent = waiting.echo.options(keep=0).enqueue(7)
    answer = later(echo.handle(sent.id).result, 20)
    is_waited_for_by(echo)
    assert waiting.finish(keep_ms=0) == 1
    with pytest.raises(ResultGone):
        answer(20)


def is_waited_for_by(task):
    is_waited_for(type("Client", (), {"results": task.sending.now.results}))


def test_another_queue_is_asked_by_its_name(waiting, echo, other):
    sent = waiting.echo.options(queue="mail").enqueue(7)
    assert echo.handle(sent.id).state() == State.UNKNOWN
    assert other.handle(sent.id, "mail").state() == State.WAITING
    assert echo.options(queue="mail").handle(sent.id).state() == State.WAITING


@pytest.mark.parametrize("text", ["", "x", "0" * 32, None, 7, b"x"], ids=repr)
def test_what_is_no_id_is_refused(echo, other, text):
    with pytest.raises(ConfigError, match="is not a task id"):
        echo.handle(text)
    with pytest.raises(ConfigError, match="is not a task id"):
        other.handle(text)


def test_the_plain_form_comes_where_the_task_is_not_known(waiting, other):
    sent = waiting.echo.enqueue(7)
    assert waiting.finish(value=pack({"a": (1, 2)})) == 1
    assert other.handle(sent.id).result(timeout=10) == {"a": [1, 2]}
