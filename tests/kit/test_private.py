"""A test does not look into, nor empty, queues that are not its own."""

from __future__ import annotations

import asyncio

import pytest

from streamwork import Streamwork
from streamwork.errors import NotPrivate
from streamwork.store.keys import QueueKeys
from streamwork.testing import (
    Drained,
    aassert_enqueued,
    aenqueued,
    allow,
    arun_until_idle,
    assert_enqueued,
    enqueued,
    private,
    run_until_idle,
)
from tests.helpers import state_of


@pytest.fixture
def shop(monkeypatch, redis_url, namespace):
    """The user's own app, on what counts here as its real Redis; (app, its task, what ran)."""
    monkeypatch.setattr(private, "_servers", set())
    monkeypatch.setattr(private, "_namespaces", set())
    ran = []
    with Streamwork(namespace, redis_url) as app:

        @app.task
        async def add(n: int) -> int:
            ran.append(n)
            return n + 1

        yield app, add, ran


@pytest.mark.parametrize(
    "look",
    [
        lambda app, add: run_until_idle(app),
        lambda app, add: asyncio.run(arun_until_idle(app)),
        lambda app, add: enqueued(app),
        lambda app, add: asyncio.run(aenqueued(app)),
        lambda app, add: assert_enqueued(add, (1,)),
        lambda app, add: asyncio.run(aassert_enqueued(add, (1,))),
    ],
    ids=["run_until_idle", "arun_until_idle", "enqueued", "aenqueued", "assert_enqueued", "aassert_enqueued"],
)
def test_an_app_on_its_own_redis_is_refused_and_nothing_is_touched(shop, driver, look):
    app, add, ran = shop
    add.enqueue(1)
    with pytest.raises(NotPrivate, match=rf"app '{app.name}' is on its own Redis .*streamwork_redirect\(app\) first"):
        look(app, add)
    assert ran == []
    assert state_of(driver, QueueKeys(app.name, "default")).undelivered == 1


def test_the_embedded_redis_of_a_project_is_its_own_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = Streamwork("shop")
    with pytest.raises(NotPrivate, match=r"the embedded one in .*\.streamwork"):
        run_until_idle(app)
    assert list(tmp_path.iterdir()) == []  # and it was not even started


def test_redirected_it_is_drained_where_the_test_is_private(shop, driver, request):
    app, add, ran = shop
    add.enqueue(1)
    real = app.name
    private.add_namespace(f"{real}-")
    with app.redirected(f"{real}-shop", app.config.url):
        add.enqueue(2)
        assert assert_enqueued(add).args == (2,)
        assert run_until_idle(app).succeeded == 1
    assert ran == [2]
    assert state_of(driver, QueueKeys(real, "default")).undelivered == 1


def test_inline_nothing_is_left_to_run(shop, driver):
    app, add, ran = shop
    add.enqueue(1)
    with app.inline():
        add.enqueue(2)
        assert run_until_idle(app) == Drained()
        assert [found.args for found in enqueued(app)] == [(2,)]
    assert ran == [2]
    assert state_of(driver, QueueKeys(app.name, "default")).undelivered == 1


def test_who_means_it_says_so(shop):
    app, add, ran = shop
    allow(app)
    add.enqueue(1)
    assert len(enqueued(app)) == 1
    assert run_until_idle(app).succeeded == 1
    assert ran == [1]


def test_outside_of_a_test_an_app_is_drained_where_it_is(shop, monkeypatch):
    app, add, ran = shop
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    add.enqueue(1)
    run_until_idle(app)
    assert ran == [1]
