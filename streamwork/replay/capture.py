"""While past deliveries run here, nothing that they send leaves the process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from streamwork.broker.why import Reason
from streamwork.context import current
from streamwork.errors import NotSent, WireError
from streamwork.handle import Call, Handle
from streamwork.ids import new_task_id
from streamwork.model.replay import Captured
from streamwork.replay.host import Host
from streamwork.wire.codec import unpacker

R = TypeVar("R")

_anything = unpacker(Any)
# A body that sends without end must not fill the memory.
_MOST = 1_000


class Capture:
    """Takes what bodies send, and answers nothing for it; implements `Sending` and `Waiting`.

    Attributes:
        waited: Ids of deliveries that asked for what comes of their calls.
    """

    def __init__(self) -> None:
        self._sent: dict[str, list[Captured]] = {}
        self._lock = threading.Lock()
        self.waited: set[str] = set()

    def take(self, fence: str) -> list[Captured]:
        """Return what a delivery has sent, and forget it; what came from threads of its own is under no fence."""
        with self._lock:
            return self._sent.pop(fence, [])

    def send(self, call: Call[R]) -> Handle[R]:
        """Take one call."""
        context = current()
        said = Captured(call.task_name, call.queue, _plain(call.args) or [], _plain(call.kwargs) or {})
        with self._lock:
            taken = self._sent.setdefault("" if context is None else context.fence, [])
            if len(taken) < _MOST:
                taken.append(said)
        return Handle(self, new_task_id(), call.queue, call.lane, "", call.read_result)

    async def asend(self, call: Call[R]) -> Handle[R]:
        """Take one call."""
        return self.send(call)

    def send_many(self, calls: Iterable[Call[R]], wait_s: float | None = None) -> list[Handle[R]]:
        """Take calls."""
        return [self.send(call) for call in calls]

    async def asend_many(self, calls: Iterable[Call[R]], wait_s: float | None = None) -> list[Handle[R]]:
        """Take calls."""
        return [self.send(call) for call in calls]

    def _nothing(self, what: str) -> NoReturn:
        context = current()
        if context is not None:
            self.waited.add(context.fence)
        raise NotSent(f"{what}: what a replayed body sends is captured, so nothing comes of it")

    def wait(self, handle: Handle[Any], timeout_s: float | None) -> bytes | None:
        """Refuse."""
        self._nothing(f"the result of {handle.id}")

    async def await_(self, handle: Handle[Any], timeout_s: float | None) -> bytes | None:
        """Refuse."""
        self._nothing(f"the result of {handle.id}")

    def why_late(self, handle: Handle[Any]) -> str:
        """Refuse."""
        self._nothing(f"the state of {handle.id}")

    async def awhy_late(self, handle: Handle[Any]) -> str:
        """Refuse."""
        self._nothing(f"the state of {handle.id}")

    def why(self, handle: Handle[Any]) -> list[Reason]:
        """Refuse."""
        self._nothing(f"the state of {handle.id}")

    async def awhy(self, handle: Handle[Any]) -> list[Reason]:
        """Refuse."""
        self._nothing(f"the state of {handle.id}")

    def state(self, handle: Handle[Any]) -> Any:
        """Refuse."""
        self._nothing(f"the state of {handle.id}")

    async def astate(self, handle: Handle[Any]) -> Any:
        """Refuse."""
        self._nothing(f"the state of {handle.id}")

    def cancel(self, handle: Handle[Any], terminate: bool) -> str:
        """Answer that it is too late."""
        return "ended"

    async def acancel(self, handle: Handle[Any], terminate: bool) -> str:
        """Answer that it is too late."""
        return "ended"

    def close(self) -> None:
        """Close nothing: there is no connection."""

    async def aclose(self) -> None:
        """Close nothing: there is no connection."""

    def __getattr__(self, name: str) -> NoReturn:
        # It stands for the connection, too: whatever else a body asks of the app would speak to Redis.
        if name.startswith("__"):
            raise AttributeError(name)
        self._nothing(f"app.connection.{name}")


@contextmanager
def captured(app: Host) -> Iterator[Capture]:
    """Let nothing that the app sends leave this process until the block ends; whatever thread sends it."""
    capture: Any = Capture()
    before = app.sending.now, app.connection
    app.sending.now = app.connection = capture
    try:
        yield capture
    finally:
        app.sending.now, app.connection = before


def _plain(data: bytes | None) -> Any:
    try:
        return None if data is None else _anything(data)
    except WireError:
        return None
