"""A debugger that begins at the first line of a task's body, however the function is wrapped."""

from __future__ import annotations

import inspect
import pdb  # noqa: T100 - this is what it is for
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any


class BodyDebugger(pdb.Pdb):
    """Stops nowhere before the body's first line, and from there on as it is told to.

    Args:
        function: The task's.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(nosigint=True)
        self._code: CodeType | None = getattr(inspect.unwrap(function), "__code__", None)
        self._is_there = self._code is None

    def stop_here(self, frame: FrameType) -> bool:
        """Return whether this is a place to stop."""
        return bool((self._is_there or frame.f_code is self._code) and super().stop_here(frame))

    def user_call(self, frame: FrameType, argument_list: Any) -> None:
        """Go on to the first line."""
        if self._is_there:
            super().user_call(frame, argument_list)

    def user_line(self, frame: FrameType) -> None:
        """Stop at a line."""
        self._is_there = True
        super().user_line(frame)

    def run_body(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function under this debugger."""
        return self.runcall(function, *args, **kwargs)

    async def arun_body(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Await a coroutine function under this debugger."""
        self.reset()
        before = sys.gettrace()
        sys.settrace(self.trace_dispatch)
        try:
            return await function(*args, **kwargs)
        finally:
            self.quitting = True
            sys.settrace(before)
