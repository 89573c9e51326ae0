"""What may stand as the lifespan of an app: an async context manager, in any of the forms in which people write one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from streamwork.errors import ConfigError

T = TypeVar("T")
Lifespan = Callable[[], AbstractAsyncContextManager[T]]


def lifespan_of(make: Callable[[], AbstractAsyncContextManager[T]] | Callable[[], AsyncIterator[T]]) -> Lifespan[T]:
    """Return what makes the context manager: an async generator function is made one, the other forms stay.

    Raises:
        ConfigError: It is no async context manager as far as can be told without calling it, or it needs arguments.
    """
    given: Any = make
    inner = given.func if isinstance(given, functools.partial) else given
    is_class = isinstance(inner, type) and hasattr(inner, "__aenter__") and hasattr(inner, "__aexit__")
    # What @asynccontextmanager returns is a plain function around an async generator function.
    if not is_class and not inspect.isasyncgenfunction(inspect.unwrap(inner) if callable(inner) else inner):
        raise ConfigError(
            f"{make!r} cannot be a lifespan: write `async def` with one `yield` of the resources in it, "
            "with or without @asynccontextmanager, or give a class with __aenter__ and __aexit__"
        )
    try:
        inspect.signature(given).bind()
    except TypeError as error:
        raise ConfigError(f"{make!r} cannot be a lifespan: it is called without arguments ({error})") from None
    return asynccontextmanager(given) if inspect.isasyncgenfunction(inner) else given
