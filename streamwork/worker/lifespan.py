"""The app's lifespan in a worker process: entered and left in one task, to which what it opens may be bound."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from streamwork.model.judge import text_of, type_name

logger = logging.getLogger(__name__)


class Lifespan:
    """One life of the app's resources.

    Args:
        make: Makes the context manager; None = the app has none.
        broken: Called when it ends before it is told to, for instance because a task group in it failed.

    Attributes:
        error: What it raised at its end.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Any]] | None, broken: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._make = make
        self._broken = broken
        self._is_leaving = False
        self._task: asyncio.Task[None] | None = None
        self._context: contextvars.Context | None = None

    async def enter(self) -> Any:
        """Enter it and return the resources; raises what it raises, and then it is over."""
        make = self._make
        if make is None:
            return None
        loop = asyncio.get_running_loop()
        self._entered: asyncio.Future[Any] = loop.create_future()
        self._leaving: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._live(make), name="streamwork-lifespan")
        resources = await self._entered
        # Bodies see the context variables that it has set, as if it had been entered here.
        for variable, value in (self._context or {}).items():
            variable.set(value)
        return resources

    async def _live(self, make: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        try:
            async with make() as resources:
                self._context = contextvars.copy_context()
                if not self._entered.done():
                    self._entered.set_result(resources)
                await self._leaving
        except asyncio.CancelledError:
            self._entered.cancel()
        except BaseException as error:  # noqa: BLE001 - whatever the user's code raises
            if not self._entered.done():
                self._entered.set_exception(error)
                return
            self.error = error
            how = f"{type_name(error)}: {text_of(error)}"
            logger.error("the lifespan raises at its end", extra={"error": how})  # noqa: TRY400 - the user's own matter
        if not self._is_leaving:
            self._broken()

    async def leave(self) -> None:
        """Leave it, or cancel it where it is not yet entered; waits until it is over."""
        task, self._task = self._task, None
        if task is None:
            return
        self._is_leaving = True
        if not self._entered.done() or self._entered.cancelled():
            task.cancel()
        elif not self._leaving.done():
            self._leaving.set_result(None)
        await asyncio.wait({task})
