"""`enqueued` and `assert_enqueued`: what waits in Redis, decoded."""

from __future__ import annotations

import asyncio
import threading
import time
from enum import Enum

import pytest

from streamwork import ArgumentError, Context
from streamwork.errors import UseAsync
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys, queues
from streamwork.testing import aassert_enqueued, aenqueued, assert_enqueued, enqueued, run_until_idle
from tests.helpers import body_of, seed


class Colour(Enum):
    RED = "red"


@pytest.fixture
def paint(app):
    @app.task(queue="walls")
    def paint(colour: Colour, coats: int = 1) -> str:
        return colour.value * coats

    return paint


def test_what_waits_is_listed_decoded_and_in_order(app, paint, driver, namespace):
    first = paint.enqueue(Colour.RED)
    second = paint.options(priority=9).enqueue(Colour.RED, coats=3)
    later_id, body = body_of("elsewhere", 1, x=2)
    seed(driver, QueueKeys(namespace, "walls"), (later_id, body), due_at_ms=9_999_999_999_999)
    found = enqueued(app)
    assert [(one.id, one.args, one.kwargs) for one in found] == [
        (second.id, (Colour.RED, 3), {}),
        (first.id, (Colour.RED,), {}),
        (later_id, (1,), {"x": 2}),
    ]
    assert [one.due_at_ms for one in found] == [None, None, 9_999_999_999_999]
    assert {one.queue for one in found} == {"walls"}


def test_what_was_run_does_not_wait_any_more(app, paint):
    paint.enqueue(Colour.RED)
    run_until_idle(app)
    assert enqueued(app) == []
    paint.enqueue(Colour.RED, 2)
    assert [one.args for one in enqueued(app)] == [(Colour.RED, 2)]


def test_entries_that_are_not_ours_are_left_out(app, paint, driver, namespace):
    seed(driver, QueueKeys(namespace, "walls"), b"garbage")
    paint.enqueue(Colour.RED)
    assert len(enqueued(app)) == 1
    driver.run(plain("XADD", QueueKeys(namespace, "walls").lane("1:"), "*", "z", "z"))
    assert len(enqueued(app)) == 1


def test_it_asserts_by_task_and_by_arguments_however_they_were_given(app, paint):
    @app.task(queue="walls")
    def other(n: int) -> None: ...

    with pytest.raises(AssertionError, match="there waits: nothing"):
        assert_enqueued(paint)
    handle = paint.enqueue(colour=Colour.RED, coats=2)
    assert assert_enqueued(paint).id == handle.id
    assert assert_enqueued(paint, (Colour.RED,), {"coats": 2}).id == handle.id
    with pytest.raises(AssertionError, match=r"paint\(<Colour.RED: 'red'>, 3\) is not enqueued(?s:.*)RED: 'red'>, 2\)"):
        assert_enqueued(paint, (Colour.RED, 3))
    with pytest.raises(AssertionError, match="is not enqueued"):
        assert_enqueued(other)
    with pytest.raises(ArgumentError):
        assert_enqueued(paint, ("red!",))


def test_it_looks_where_the_option_sends(app, paint):
    elsewhere = paint.options(queue="doors")
    elsewhere.enqueue(Colour.RED)
    assert_enqueued(elsewhere, (Colour.RED,))
    with pytest.raises(AssertionError):
        assert_enqueued(paint)


def test_what_was_sent_to_another_queue_is_listed_too(app, paint, driver, namespace):
    elsewhere = paint.options(queue="doors").enqueue(Colour.RED)
    by_another = body_of(paint.name, "red")
    seed(driver, QueueKeys(namespace, "roofs"), by_another)
    driver.run(plain("SADD", queues(namespace), "roofs"))  # as another process announces it
    assert [(one.queue, one.id) for one in enqueued(app)] == [("doors", elsewhere.id), ("roofs", by_another[0])]
    driver.run(plain("DEL", queues(namespace)))
    assert [one.queue for one in enqueued(app)] == ["doors"]  # this process remembers its own

    @app.task
    def inline_too() -> None: ...

    with app.inline():
        inline_too.options(queue="cellar").enqueue()
        assert [one.queue for one in enqueued(app)] == ["cellar"]


def test_a_lane_whose_stream_is_gone_holds_nothing(app, paint, driver, namespace):
    paint.enqueue(Colour.RED)
    driver.run(plain("DEL", QueueKeys(namespace, "walls").lane("1:")))
    assert enqueued(app) == []
    with pytest.raises(AssertionError, match="there waits: nothing"):
        assert_enqueued(paint)


@pytest.mark.parametrize("args", [5, "red", b"red", {1}])
def test_arguments_that_are_no_tuple_are_told(paint, args):
    with pytest.raises(ArgumentError, match="give a tuple, such as"):
        assert_enqueued(paint, args)


def test_what_is_no_task_or_no_names_is_told(paint):
    with pytest.raises(ArgumentError, match="is not a task"):
        assert_enqueued(paint.function)
    with pytest.raises(ArgumentError, match="give a dict"):
        assert_enqueued(paint, kwargs=[1])


def test_an_argument_that_equals_its_default_may_be_left_out_on_either_side(app):
    @app.task
    def cut(
        ctx: Context, length: int, width: int = 2, *rest: int, colour: Colour = Colour.RED, **more: int
    ) -> None: ...

    left_out, given = cut.enqueue(1), cut.enqueue(2, 2, colour=Colour.RED)
    further = cut.enqueue(3, 2, 9, deep=4)
    assert assert_enqueued(cut, (1, 2), {"colour": Colour.RED}).id == left_out.id
    assert assert_enqueued(cut, (2,)).id == given.id
    assert assert_enqueued(cut, (3, 2, 9), {"deep": 4, "colour": Colour.RED}).id == further.id
    for args, kwargs in (((1, 3), {}), ((3,), {}), ((1,), {"more": 1})):
        with pytest.raises(AssertionError):
            assert_enqueued(cut, args, kwargs)


def test_it_waits_for_what_another_thread_sends(app, paint):
    timer = threading.Timer(0.15, paint.enqueue, (Colour.RED,))
    timer.start()
    began_s = time.monotonic()
    try:
        assert_enqueued(paint, within_s=10)
    finally:
        timer.join()
    assert 0.1 < time.monotonic() - began_s < 9


def test_async_code_has_twins_and_the_blocking_ones_refuse(app, paint):
    async def main():
        await paint.aenqueue(Colour.RED)
        assert (await aassert_enqueued(paint)).args == (Colour.RED,)
        assert len(await aenqueued(app)) == 1
        for blocking in (lambda: enqueued(app), lambda: assert_enqueued(paint), lambda: run_until_idle(app)):
            with pytest.raises(UseAsync):
                blocking()
        await app.aclose()

    asyncio.run(main())
