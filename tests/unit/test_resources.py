"""What may stand as a lifespan, told at its declaration."""

from __future__ import annotations

import asyncio
import functools
from contextlib import asynccontextmanager, contextmanager

import pytest

from streamwork import ConfigError, Streamwork

ended = []


@pytest.fixture
def app():
    ended.clear()
    return Streamwork("lives", "redis://127.0.0.1:1/0")


async def generator(size=3):
    yield size
    ended.append(size)


class Manager:
    async def __aenter__(self):
        return 3

    async def __aexit__(self, *_):
        ended.append(3)


@pytest.mark.parametrize(
    "form",
    [generator, asynccontextmanager(generator), Manager, functools.partial(generator, 3)],
    ids=["generator", "decorated", "class", "partial"],
)
def test_each_form_of_an_async_context_manager_is_one(app, form):
    made = app.lifespan(form)

    async def live():
        async with made() as resources:
            assert (resources, ended) == (3, [])

    asyncio.run(live())
    assert ended == [3]
    assert app.lifespan_of is made


def plain():
    yield 3


async def coroutine():
    return 3


async def needy(size):
    yield size


@pytest.mark.parametrize(
    "form",
    [lambda: None, plain, coroutine, contextmanager(plain), dict, Manager(), None, 3],
    ids=["lambda", "generator", "coroutine", "contextmanager", "class", "instance", "None", "number"],
)
def test_anything_else_is_refused_with_the_remedy(app, form):
    with pytest.raises(ConfigError, match="cannot be a lifespan: write `async def` with one `yield`"):
        app.lifespan(form)
    assert app.lifespan_of is None


def test_one_that_needs_arguments_is_refused(app):
    with pytest.raises(ConfigError, match=r"called without arguments .*'size'"):
        app.lifespan(needy)
