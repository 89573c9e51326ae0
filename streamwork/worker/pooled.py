"""What goes on in a process of the pool: it begins, finds its tasks by name, and runs one body after another."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import multiprocessing.context
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import Pipe, resource_tracker
from typing import Any, NamedTuple

from streamwork.app import Streamwork
from streamwork.config import TelemetryConfig
from streamwork.context import Context, enter_run, enter_thread, leave_run, leave_thread
from streamwork.errors import AppBroken, ConfigError, SoftTimeout, WireError
from streamwork.model.judge import Dead, Verdict, decide, text_of, traceback_text, type_name
from streamwork.origins import flush_spans, spans_of
from streamwork.task import Task

_PR_SET_PDEATHSIG = 1
# A word of a process: length of the token, span in seconds, and the token behind. Shorter than 512 bytes, which any
# pipe takes in one piece, so that many processes share one without a lock that one of them could die with.
_WORD = struct.Struct("<Hd")
# The token of the word that a process says when it has imported its tasks; the span is the number of its pool.
READY = ""
# What sending out the spans of a body may take: this process may be killed as soon as it is idle, at any time.
_FLUSH_S = 0.2


# The span that a body runs in, the name of its app, and what is set for that.
Trace = tuple[str, str, TelemetryConfig]


class Place(NamedTuple):
    """Where a new process finds a task: a module's name for the app or for the task itself."""

    module: str
    name: str


def places_of(app: Streamwork) -> dict[str, Place]:
    """Return where new processes find each task with ``executor="process"``, by task name.

    Raises:
        ConfigError: One of them, and the app too, stands under no name of any module, so that no process finds it.
    """
    wanted = {id(task): name for name, task in app.tasks.items() if task.executor == "process"}
    if not wanted:
        return {}
    home: Place | None = None
    found: dict[str, Place] = {}
    for module in _modules(app.tasks[name].function.__module__ for name in wanted.values()):
        for name, value in list(getattr(sys.modules.get(module), "__dict__", {}).items()):
            if value is app:
                home = home or Place(module, name)
            elif id(value) in wanted:
                found.setdefault(wanted[id(value)], Place(module, name))
        if len(found) == len(wanted):
            break
    places: dict[str, Place] = {}
    for name in wanted.values():
        place = found.get(name, home)
        if place is None:
            raise ConfigError(
                f"task {name}: executor='process' needs a task that a new process can import: "
                "make the app, or the task, at the top level of a module"
            )
        places[name] = place
    return places


def _modules(likely: Iterable[str]) -> Iterator[str]:
    """Name the modules to look into, the likely ones first.

    To look into one writes to every page that its objects are on (they are counted), and so copies the pages that the
    process shares with its supervisor: all modules together 8 MB, measured with ``/proc/PID/smaps_rollup``.
    """
    # The main module last: its name means another module where a program is started in another way.
    first = sorted({name for name in likely if name != "__main__"})
    yield from first
    yield from sorted(sys.modules.keys() - set(first), key=lambda name: (name == "__main__", name))


class _PoolProcess(multiprocessing.context.SpawnProcess):
    """A process that only its pool ends, at once; a SIGTERM for the whole group or container is the worker's matter."""

    def start(self) -> None:
        """Start with SIGTERM held back, until `begin` has said what it means."""
        resource_tracker.ensure_running()  # it would let the signal through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminate(self) -> None:
        """Kill it: the body has no say in that."""
        self.kill()


class PoolContext(multiprocessing.context.SpawnContext):
    """How the pool starts its processes.

    It keeps the pool's locks, whose names go with their last owner: the pool drops them while a process that is just
    being started still looks for them.
    """

    Process = _PoolProcess

    def __init__(self) -> None:
        super().__init__()
        self._locks: list[Any] = []

    def RLock(self) -> Any:  # noqa: N802 - its name in multiprocessing
        """Return a lock for several processes."""
        self._locks.append(super().RLock())
        return self._locks[-1]


class Words:
    """What the processes of a pool say while a body runs, over one pipe that all of them write to.

    Args:
        heard: Called on the loop with the token of a run and a span: 0 = its body begins, else it asks for more time;
            or with `READY` and the number of a pool.
    """

    def __init__(self, heard: Callable[[str, float], None]) -> None:
        self._heard = heard
        self._rest = b""
        self._reader, self.writer = Pipe(duplex=False)
        os.set_blocking(self._reader.fileno(), False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader.fileno(), self.listen)

    def listen(self) -> None:
        """Hear what is there."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._reader.fileno(), 65_536):
                self._rest += data
        while len(self._rest) >= _WORD.size:
            length, span_s = _WORD.unpack_from(self._rest)
            end = _WORD.size + length
            if len(self._rest) < end:
                break
            token, self._rest = self._rest[_WORD.size : end], self._rest[end:]
            self._heard(token.decode(errors="replace"), span_s)

    def close(self) -> None:
        """Hear no more."""
        self._loop.remove_reader(self._reader.fileno())
        self._reader.close()
        self.writer.close()


# Where this process, of a pool, says its words.
_writer: Any = None


def _say(token: str, span_s: float) -> None:
    if _writer is not None:
        name = token.encode()
        os.write(_writer.fileno(), _WORD.pack(len(name), span_s) + name)


def begin(parent: int, modules: list[str], writer: Any, pool: int) -> None:
    """Make this process, of the pool with that number, ready for bodies; runs once in each."""
    global _writer  # noqa: PLW0603 - there is one for the process, and the pool calls functions only
    _writer = writer
    # Signals often go to the whole group; only the worker decides what they mean. A handler, since what
    # is ignored stays so in the programs that a body starts.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before the call above
    for module in modules:
        with contextlib.suppress(Exception, SystemExit):  # the first delivery tells of it
            importlib.import_module(module)
    _say(READY, float(pool))


def run_in_process(
    name: str,
    place: Place,
    args: bytes,
    kwargs: bytes,
    facts: dict[str, Any],
    override: tuple[int, float, float, float, bool] | None,
) -> tuple[str, bytes | Verdict]:
    """Run one body in a pool process; answers ("value", packed result) or ("verdict", what judge decided).

    Raises:
        AppBroken: The task's module cannot be imported here, or does not declare it.
    """
    task = _task(name, place)
    context: Context[Any] = Context(task.name)
    soft_s: float | None = facts.pop("soft_s")
    trace: Trace | None = facts.pop("trace")
    for fact, value in facts.items():
        setattr(context, fact, value)
    context.extend_by = lambda span_s: _say(context.fence, span_s)
    _say(context.fence, 0.0)
    try:
        positional, named = task.signature.inject(*task.signature.decode(args, kwargs), context)
    except WireError as error:
        return "verdict", Dead("failed", type_name(error), text_of(error), "")
    enter_thread(lambda: context)
    token = enter_run(lambda made: made, context)
    try:
        with _inside(trace), _soft_limit(soft_s):
            value = task.function(*positional, **named)
        return "value", task.signature.encode_result(value)
    except WireError as error:
        return "verdict", Dead("failed", type_name(error), text_of(error), traceback_text(error))
    except BaseException as error:  # noqa: BLE001 - whatever the body raises is its outcome
        return "verdict", decide(error, context.attempt, task.retry, override)
    finally:
        leave_run(token)
        leave_thread()
        if trace is not None:
            flush_spans(_FLUSH_S)


def _inside(trace: Trace | None) -> contextlib.AbstractContextManager[None]:
    if trace is None:
        return contextlib.nullcontext()
    from streamwork.telemetry.tracing import Elsewhere

    traceparent, name, telemetry = trace
    spans_of(name, telemetry)  # so that what the body begins by itself is sent out from here
    return Elsewhere(traceparent)


@contextlib.contextmanager
def _soft_limit(soft_s: float | None) -> Iterator[None]:
    """Raise SoftTimeout in the block once that time is up, also in a call that blocks, such as a long sleep."""
    if soft_s is None:
        yield
        return
    is_inside = True

    def ring(*_: Any) -> None:
        if is_inside:
            raise SoftTimeout("the soft time limit is reached")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, soft_s)
    try:
        yield
    finally:
        is_inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


def _task(name: str, place: Place) -> Task[..., Any]:
    try:
        found = getattr(importlib.import_module(place.module), place.name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's module raises what it likes
        why = f"{type_name(error)}: {text_of(error)}"
        raise AppBroken(f"a new process cannot import {place.name} from {place.module}: {why}") from None
    if isinstance(found, Streamwork):
        found = found.tasks.get(name)
    if not isinstance(found, Task):
        raise AppBroken(f"in a new process {place.module} does not declare {name}")
    return found
