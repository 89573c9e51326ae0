"""Calls and handles: what a user holds before and after sending, and the two ports below them.

Nothing here knows what an app or a connection is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any, Generic, NoReturn, Protocol, TypeVar, cast

from streamwork.broker.why import Reason
from streamwork.context import refuse_on_loop
from streamwork.errors import ConfigError, DecodeError, ResultGone, ResultTimeout, TaskCancelled, TaskFailed
from streamwork.ids import task_id_at_ms
from streamwork.model.flow import Resolved
from streamwork.model.span import Seconds, seconds
from streamwork.model.state import State
from streamwork.model.timing import NOW, Timing
from streamwork.wire.message import DROPPED, Options, decode_failure, decode_result

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Sending(Protocol):
    """What tasks and calls need from below."""

    def send(self, call: Call[R]) -> Handle[R]:
        """Send one call."""
        ...

    def asend(self, call: Call[R]) -> Coroutine[Any, Any, Handle[R]]:
        """Send one call from a loop."""
        ...

    def send_many(self, calls: Iterable[Call[R]], wait_s: float | None = None) -> list[Handle[R]]:
        """Send any number of calls; handles in their order."""
        ...

    def asend_many(self, calls: Iterable[Call[R]], wait_s: float | None = None) -> Coroutine[Any, Any, list[Handle[R]]]:
        """Send any number of calls from a loop; handles in their order."""
        ...


class Waiting(Protocol):
    """What handles need from below: waiting, looking, cancelling."""

    def wait(self, handle: Handle[Any], timeout_s: float | None) -> bytes | None:
        """Return the handle's result record, or None when the time is up."""
        ...

    async def await_(self, handle: Handle[Any], timeout_s: float | None) -> bytes | None:
        """Return the handle's result record, or None when the time is up."""
        ...

    def why_late(self, handle: Handle[Any]) -> str:
        """Say why there is no result yet, where that is known."""
        ...

    async def awhy_late(self, handle: Handle[Any]) -> str:
        """Say why there is no result yet, where that is known."""
        ...

    def why(self, handle: Handle[Any]) -> list[Reason]:
        """Say why the task message is not running."""
        ...

    async def awhy(self, handle: Handle[Any]) -> list[Reason]:
        """Say why the task message is not running."""
        ...

    def state(self, handle: Handle[Any]) -> State:
        """Return where the task message is."""
        ...

    async def astate(self, handle: Handle[Any]) -> State:
        """Return where the task message is."""
        ...

    def cancel(self, handle: Handle[Any], terminate: bool) -> str:
        """Ask that the task message does not run, or that its run ends now."""
        ...

    async def acancel(self, handle: Handle[Any], terminate: bool) -> str:
        """Ask that the task message does not run, or that its run ends now."""
        ...


class Port(Sending, Waiting, Protocol):
    """What an app sends through, and its handles ask."""


class Switch:
    """The `Sending` that an app's tasks hold: passes everything on to the one that counts now.

    A handle stays with the one that sent it.

    Attributes:
        now: Where to.
    """

    __slots__ = ("now",)

    def __init__(self, now: Port) -> None:
        self.now = now

    def handle(self, task_id: str, queue: str, read_result: Callable[[bytes], R]) -> Handle[R]:
        """Return a handle for what was sent before, maybe by another process; raises ConfigError for what is no id."""
        digits = task_id.replace("-", "").lower() if isinstance(task_id, str) else ""
        if task_id_at_ms(digits) is None:
            raise ConfigError(f"{task_id!r} is not a task id: 32 hex digits, as in handle.id")
        return Handle(self.now, digits, queue, "", "", read_result)

    def send(self, call: Call[R]) -> Handle[R]:
        """Send one call."""
        return self.now.send(call)

    def asend(self, call: Call[R]) -> Coroutine[Any, Any, Handle[R]]:
        """Send one call from a loop."""
        return self.now.asend(call)

    def send_many(self, calls: Iterable[Call[R]], wait_s: float | None = None) -> list[Handle[R]]:
        """Send any number of calls; handles in their order."""
        return self.now.send_many(calls, wait_s)

    def asend_many(self, calls: Iterable[Call[R]], wait_s: float | None = None) -> Coroutine[Any, Any, list[Handle[R]]]:
        """Send any number of calls from a loop; handles in their order."""
        return self.now.asend_many(calls, wait_s)


class Call(Generic[R_co]):
    """A task with its arguments and options, checked and encoded, not yet sent.

    Attributes:
        task_name: The task.
        queue: Where it goes.
        lane: Lane name.
        args: Encoded positional arguments.
        kwargs: Encoded keyword arguments or None.
        options: What the message carries beside them.
        wait_s: How long to try while Redis is away or full; None = as the settings say.
        timing: When it may run.
        flow: The limits it asks for; None = none.
        read_result: Decodes the result.
    """

    __slots__ = (
        "_sending",
        "args",
        "flow",
        "kwargs",
        "lane",
        "options",
        "queue",
        "read_result",
        "task_name",
        "timing",
        "wait_s",
    )

    def __init__(
        self, sending: Sending, task_name: str, queue: str, lane: str, packed: tuple[bytes, bytes | None],
        options: Options, read_result: Callable[[bytes], R_co], *, wait_s: float | None = None,
        timing: Timing = NOW, flow: Resolved | None = None,
    ) -> None:  # fmt: skip
        self._sending = sending
        self.task_name = task_name
        self.queue = queue
        self.lane = lane
        self.args, self.kwargs = packed
        self.options = options
        self.read_result = read_result
        self.wait_s = wait_s
        self.timing = timing
        self.flow = flow

    def enqueue(self) -> Handle[R_co]:
        """Send this call; see `Task.enqueue`."""
        return self._sending.send(self)

    async def aenqueue(self) -> Handle[R_co]:
        """Send this call from async code."""
        return await self._sending.asend(self)

    delay = enqueue
    adelay = aenqueue


class Handle(Generic[R_co]):
    """A task message that was sent: ask for its state, wait for its result.

    A handle stays in its process. Another one, such as a later request to a web server, makes its own from the id:
    ``task.handle(id)``, or ``app.handle(id, queue)`` where the task is not known.

    Attributes:
        id: Task id.
        queue: Its queue.
        lane: Its lane; empty for a handle made from an id that has not been looked for yet.
        entry: Its first entry on the lane; a retry gets another one. Empty as `lane` is, and for what is scheduled.
    """

    __slots__ = ("_read_result", "_waiting", "entry", "id", "lane", "queue")

    def __init__(
        self, waiting: Waiting, task_id: str, queue: str, lane: str, entry: str, read_result: Callable[[bytes], R_co]
    ) -> None:
        self._waiting = waiting
        self.id = task_id
        self.queue = queue
        self.lane = lane
        self.entry = entry
        self._read_result = read_result

    def __repr__(self) -> str:
        return f"Handle({self.id}, queue={self.queue!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Handle stays in its process: pass handle.id on, and make another one there "
            "with task.handle(id) or app.handle(id, queue)"
        )

    def __await__(self) -> Generator[Any, None, R_co]:
        return self.aresult().__await__()

    def result(self, timeout: Seconds | None = None) -> R_co:
        """Wait for the end and return the result.

        Args:
            timeout: Seconds; None waits as long as it takes.

        Raises:
            TaskFailed: The task raised, or was rejected or quarantined.
            TaskCancelled: It was cancelled.
            ResultTimeout: Not ended in time; the text says where the task message is. It is not withdrawn.
            ResultGone: Ended, but no result is kept.
            UseAsync: Called on an event loop's thread.
        """
        record = self._waiting.wait(self, seconds(timeout))
        if record is None:
            raise self._late(timeout, self._waiting.why_late(self))
        return self._value(record)

    async def aresult(self, timeout: Seconds | None = None) -> R_co:
        """Wait for the end and return the result; raises what `result` raises."""
        record = await self._waiting.await_(self, seconds(timeout))
        if record is None:
            raise self._late(timeout, await self._waiting.awhy_late(self))
        return self._value(record)

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Wait for the end, however it comes; False when the time is up first."""
        refuse_on_loop("wait", "await_")
        return self._waiting.wait(self, seconds(timeout)) is not None

    async def await_(self, timeout: Seconds | None = None) -> bool:
        """Wait for the end, however it comes; False when the time is up first."""
        return await self._waiting.await_(self, seconds(timeout)) is not None

    def state(self) -> State:
        """Return where the task message is now; UNKNOWN where nothing is kept any more, or it was never sent.

        The first question of a handle made from an id looks for it: by key, then on the lanes around the time in the
        id, then in the journal, as ``streamwork tasks show`` does.
        """
        return self._waiting.state(self)

    async def astate(self) -> State:
        """Return where the task message is now."""
        return await self._waiting.astate(self)

    def why(self) -> list[Reason]:
        """Say why the task message is not running: every reason that holds now, or where it runs, or how it ended.

        Looks for it as `state` does, so it is for people and for tests, not for a loop.
        """
        return self._waiting.why(self)

    async def awhy(self) -> list[Reason]:
        """Say why the task message is not running; see `why`."""
        return await self._waiting.awhy(self)

    def cancel(self, *, terminate: bool = False) -> str:
        """Ask that the task message does not run (again).

        Args:
            terminate: A run that goes on is ended too, wherever it is: an async body is cancelled (a body that ignores
                that goes on until its hard limit), a process is killed, and in a thread CancelledError is raised as
                soon as it runs Python code. What a body does nevertheless return first, counts.

        Returns:
            ``cancelled``: it will not. ``requested``: it is on a lane; a worker drops or ends it, unless it ends
            first. ``ended``: too late, or there is no trace of it.
        """
        return self._waiting.cancel(self, terminate)

    async def acancel(self, *, terminate: bool = False) -> str:
        """Ask that the task message does not run (again); see `cancel`."""
        return await self._waiting.acancel(self, terminate)

    def _late(self, timeout: Seconds | None, why: str) -> ResultTimeout:
        text = f"task message {self.id} did not end within {seconds(timeout)} s"
        return ResultTimeout(f"{text}: {why}" if why else text)

    def _value(self, record: bytes) -> R_co:
        result = decode_result(record)
        if result.state == State.SUCCEEDED:
            if result.payload == DROPPED:
                why = "dropped, since Redis was nearly full: free memory, or return a reference to the data"
                raise ResultGone(f"task message {self.id} succeeded, and its result was {why}")
            return self._read_result(result.payload)
        if result.state == State.SKIPPED:
            return cast(R_co, None)
        if result.state == State.UNKNOWN:
            if not self.lane:
                where = f"there is no result of task message {self.id} on queue {self.queue!r}"
                raise ResultGone(f"{where}: it is not kept any more, or it was never sent there")
            why = "it ended and its result is not kept (option keep), or Redis lost it (a flush, an old backup)"
            raise ResultGone(f"Redis has no trace of task message {self.id}: {why}")
        try:
            failure = decode_failure(result.payload)
        except DecodeError as error:
            raise ResultGone(f"task message {self.id} ended as {result.state}, its failure cannot be read") from error
        kind = TaskCancelled if result.state == State.CANCELLED else TaskFailed
        raise kind(self.id, result.state, failure.type_name, failure.message, failure.traceback)
