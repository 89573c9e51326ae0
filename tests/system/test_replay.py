"""`app.replay`, `replay_here` and `compare`: what real workers did, done again, with and without sending it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from streamwork import (
    ArgumentError,
    ConfigError,
    HistoryRecord,
    QueueNotFound,
    ReplayRefused,
    StoreUnavailable,
    TaskNotFound,
    UseAsync,
)
from streamwork.ids import new_task_id
from streamwork.store.commands import plain
from tests.apps import replayed
from tests.helpers import wait_until


@pytest.fixture
def shop(redis_url, namespace, start, tmp_path, monkeypatch):
    """The app of tests/apps/replayed.py in this namespace, with a worker that has its old code."""
    monkeypatch.setenv("REPLAYED_CODE", "old")
    monkeypatch.setenv("STREAMWORK_FOLDER", str(tmp_path / "state"))
    monkeypatch.setattr(replayed.app, "tasks", dict(replayed.app.tasks))
    start("tests.apps.replayed:app", environ={"REPLAYED_CODE": "old"})
    with replayed.app.redirected(namespace, redis_url) as shop:
        yield shop


def task_of(app, name):
    return app.tasks[f"tests.apps.replayed.{name}"]


def run(app, name, *calls):
    """Let a worker run these calls to their ends; returns their ids."""
    handles = [task_of(app, name).enqueue(*call) for call in calls]
    assert all(handle.wait(timeout=15) for handle in handles)
    return [handle.id for handle in handles]


def state_of_redis(driver, namespace):
    """Return every key of the namespace that a replay could write, and its contents."""
    # What a worker and its supervisor write by themselves while it waits.
    idle = (b":pulse", b":consumers", b":alive:", b":bell", b":claimed:", b":reply:", b":low", b":grace", b":duty")
    keys = [key for key in driver.run(plain("KEYS", f"*{namespace}*")) if not any(part in key for part in idle)]
    return {key: driver.run(plain("DUMP", key)) for key in keys}


def test_what_is_sent_anew_has_its_own_id_and_the_arguments_of_the_past(shop):
    ids = run(shop, "order", (1, "EUR"), (2, "USD"), (3, "EUR"))
    told = []
    done = shop.replay(into="again", where="currency == 'EUR'", changes={"currency": "CHF"}, told=told.append)
    assert (done.sent, done.sent_before, done.refused) == (2, 0, {})
    assert {call.id for call in told} == {ids[0], ids[2]}
    found = [shop.handle(call.new_id, "again").state() for call in told]
    assert found == ["waiting", "waiting"]
    assert not {call.new_id for call in told} & set(ids)
    for call in told:
        lane = shop.connection.keys("again").lane(call.lane)
        (body,) = [
            f[1] for _, f in shop.connection.driver.run(plain("XRANGE", lane, "-", "+")) if call.new_id in str(f)
        ]
        assert call.id.encode() in body  # replay_of
        assert b"CHF" in body


def test_nothing_is_sent_where_a_changed_argument_does_not_fit_or_too_many_do(shop, driver):
    run(shop, "order", (1, "EUR"), (2, "USD"), (3, "EUR"))
    for wrong in ({"colour": "red"}, {"number": "many"}):
        with pytest.raises(ArgumentError, match="nothing was sent"):
            shop.replay(into="again", changes=wrong)
    with pytest.raises(ReplayRefused, match="3 task messages fit, and 2 are the most"):
        shop.replay(into="again", most=2)
    told = []
    assert shop.replay(into="again", dry_run=True, told=told.append).sent == 3
    assert [call.new_id for call in told] == [""] * 3
    assert not driver.run(plain("EXISTS", shop.connection.keys("again").lanes))
    for wrong, error in (
        ({"rate": 0}, ConfigError), ({"pace": "fast"}, ConfigError), ({"pace": 0}, ConfigError),
        ({"follow": True}, ConfigError), ({"resume": True}, ReplayRefused), ({"since": "2 hours"}, ConfigError),
        ({"queue": "nowhere"}, QueueNotFound),
    ):  # fmt: skip
        with pytest.raises(error):
            shop.replay(**{"into": "again", **wrong})


@pytest.mark.parametrize("is_lost", [False, True])
def test_an_interrupted_replay_goes_on_and_sends_none_twice(shop, driver, monkeypatch, is_lost):
    """The second chunk's answer is lost: it arrived, or it did not."""
    ids = run(shop, "order", *((number, "EUR") for number in range(250)))
    real, calls = shop.connection.send_made, []

    def cut(queue, chunk):
        calls.append(len(chunk))
        if len(calls) == 2:
            if not is_lost:
                real(queue, chunk)
            raise StoreUnavailable("cut")
        return real(queue, chunk)

    monkeypatch.setattr(shop.connection, "send_made", cut)
    with pytest.raises(StoreUnavailable, match="cut"):
        shop.replay(into="again")
    assert calls == [100, 100]
    with pytest.raises(ReplayRefused, match="was interrupted after 100"):
        shop.replay(into="again")
    run(shop, "order", (1_000, "EUR"))  # what ended later is not part of it
    assert shop.replay(into="again", resume=True, dry_run=True).sent == 150
    done = shop.replay(into="again", resume=True)
    assert (done.sent, done.sent_before) == ((150, 100) if is_lost else (50, 200))
    lane = shop.connection.keys("again").lane("1:")
    bodies = [fields[1] for _, fields in driver.run(plain("XRANGE", lane, "-", "+"))]
    assert len(bodies) == 250
    assert all(sum(past.encode() in body for body in bodies) == 1 for past in ids)
    with pytest.raises(ReplayRefused, match="no interrupted replay"):
        shop.replay(into="again", resume=True)
    assert shop.replay(into="again", anew=True).sent == 251


def test_a_call_that_does_not_fit_any_more_is_told_and_the_others_are_sent(shop):
    first, second = run(shop, "order", (1, "EUR"), (2, "USD"))

    def narrow(number: int, currency: bool) -> str:
        return ""

    name = "tests.apps.replayed.order"
    del shop.tasks[name]
    shop.task(name=name)(narrow)
    other = run(shop, "agreed", (1,))[0]
    done = shop.replay(into="again")
    assert set(done.refused) == {first, second}
    assert all(why.startswith("incompatible: ") for why in done.refused.values())
    assert done.sent == 1
    found = shop.compare()
    assert found.counts == {"incompatible": 2, "same": 1}
    assert other not in {one.id for one in found.different}


def test_one_delivery_runs_here_and_nothing_is_written(shop, driver, namespace):
    (sent,) = run(shop, "sender", (5,))
    wait_until(lambda: len(list(shop.history())) == 3, "what it sent to end")
    before = state_of_redis(driver, namespace)
    ran = shop.replay_here(sent)
    assert (ran.state, [(call.task, call.args) for call in ran.sends]) == (
        "succeeded", [("tests.apps.replayed.agreed", [5]), ("tests.apps.replayed.agreed", [6])]
    )  # fmt: skip
    (tried,) = run(shop, "tries", (3,))
    before = state_of_redis(driver, namespace)
    ran = shop.replay_here(tried, attempt=2)
    assert (ran.state, ran.error_type) == ("retried", "ValueError")
    assert ran.detail == f"{tried} attempt 2 here"
    assert shop.replay_here(tried).detail == ""
    first = next(one.id for one in shop.history(task="agreed") if isinstance(one, HistoryRecord))
    assert shop.replay_here(first).state == "succeeded"
    assert state_of_redis(driver, namespace) == before
    with pytest.raises(ReplayRefused, match="no attempt 9"):
        shop.replay_here(tried, attempt=9)
    with pytest.raises(ReplayRefused, match="there are: none"):
        shop.replay_here(new_task_id())
    del shop.tasks["tests.apps.replayed.tries"]
    with pytest.raises(TaskNotFound):
        shop.replay_here(tried)


def test_a_body_cannot_reach_redis_past_its_tasks(shop, driver, namespace, monkeypatch):
    (one,) = run(shop, "pause_it", (False,))
    before = state_of_redis(driver, namespace)
    monkeypatch.setenv("REPLAYED_CODE", "new")
    ran = shop.replay_here(one)
    assert (ran.state, ran.error_type, ran.waited) == ("dead", "streamwork.errors.NotSent", True)
    assert state_of_redis(driver, namespace) == before


def test_each_kind_of_difference_is_found(shop, driver, namespace, monkeypatch):
    orders = run(shop, "order", *((number, "CHF" if number == 3 else "EUR") for number in range(8)))
    run(shop, "agreed", (1,), (2,))
    (asker,) = run(shop, "asker", (1,))
    (split,) = run(shop, "split", ("b a",))
    (timed,) = run(shop, "timed", ())
    (slow,) = run(shop, "slow", ())
    (killer,) = run(shop, "killer", ())
    driver.run(plain("DEL", shop.connection.keys("default").result(orders[5])))
    driver.run(plain("DEL", shop.connection.keys("default").result(orders[6])))
    same = shop.compare(task="*")
    different = [(one.id, one.change, one.note) for one in same.different]
    assert [(id_, change) for id_, change, _ in different] == [(asker, "not_compared")], different
    assert same.by["size"] == 2
    before = state_of_redis(driver, namespace)
    monkeypatch.setenv("REPLAYED_CODE", "new")
    told = []
    found = shop.compare(slower="150ms", told=told.append)
    changes = {one.id: one for one in found.different}
    assert {id_: one.change for id_, one in changes.items()} == {
        orders[1]: "result_differs", orders[2]: "now_fails", orders[3]: "now_succeeds", orders[4]: "result_differs",
        orders[5]: "result_differs", asker: "not_compared", timed: "fails_differently", slow: "slower",
    }  # fmt: skip
    assert '-  "price": 100' in changes[orders[1]].diff
    assert '+  "price": 1000' in changes[orders[1]].diff
    assert (changes[orders[5]].by, changes[orders[5]].diff) == ("size", "")
    assert "not kept" in changes[orders[5]].note
    assert (changes[orders[2]].was, changes[orders[2]].now) == ("succeeded", "dead: ZeroDivisionError")
    assert found.total == len(told) == sum(found.counts.values())
    assert found.differences() == 7
    assert found.differences({"result_differs", "slower", "now_succeeds"}) == 2
    assert killer not in changes  # it took its process along again, and that was not this one
    assert split not in changes
    assert state_of_redis(driver, namespace) == before
    assert shop.sending.now is shop.connection


def test_async_code_does_the_same(shop):
    ids = run(shop, "order", (1, "EUR"), (2, "USD"))
    run(shop, "agreed", (1,))

    async def main():
        for call in (shop.compare, lambda: shop.replay(into="x"), lambda: shop.replay_here(ids[0])):
            with pytest.raises(UseAsync):
                call()
        found = await shop.acompare(since=timedelta(hours=1))
        return found, await shop.areplay_here(ids[0]), await shop.areplay(into="again", most=5)

    found, ran, done = asyncio.run(main())
    assert found.counts == {"same": 3}
    assert ran.state == "succeeded"
    assert done.sent == 3
    with pytest.raises(ReplayRefused, match="more than 2 deliveries fit"):
        shop.compare(most=2)
    for wrong in ({"concurrency": 0}, {"slower": "soon"}, {"slower": "0.5x"}, {"reverse": True}):
        with pytest.raises(ConfigError):
            shop.compare(**wrong)
