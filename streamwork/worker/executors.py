"""Where bodies run: async ones in slots on the loop, sync ones in threads or in killable processes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection

from streamwork.app import Streamwork
from streamwork.config import WorkerConfig
from streamwork.worker.delivery import Run
from streamwork.worker.pooled import places_of
from streamwork.worker.processes import ProcessExecutor, require_pebble
from streamwork.worker.runner import Runner
from streamwork.worker.slots import AsyncSlots
from streamwork.worker.threads import ThreadExecutor


class Executors:
    """The executors of one process, made when a task first needs them, or processes by `prepare`.

    Args:
        app: For the processes, which import it themselves.
        worker: Bounds.
        runner: The steps.
        numbers: Free rows of the slot table; the worker puts them back once an outcome is settled.
        freed: Called on the loop when a delivery left its slot.

    Raises:
        ConfigError: A task runs in a process, and that could not find it or the extra for it is not installed.
    """

    def __init__(
        self, app: Streamwork, worker: WorkerConfig, runner: Runner, numbers: deque[int], freed: Callable[[Run], None]
    ) -> None:
        if places_of(app):
            require_pebble()
        self._app = app
        self._worker = worker
        self._runner = runner
        self._freed = freed
        self._numbers = numbers
        self._slots = AsyncSlots(runner, self._numbers, freed)
        self._threads: ThreadExecutor | None = None
        self._processes: ProcessExecutor | None = None

    @property
    def queued(self) -> int:
        """Deliveries that were read and have not begun."""
        return self._slots.queued + (self._threads.queued if self._threads is not None else 0)

    @property
    def cancellable(self) -> bool:
        """Whether async bodies or processes still run."""
        return self._slots.running > 0 or (self._processes is not None and self._processes.running > 0)

    async def prepare(self, queues: Collection[str]) -> None:
        """Start processes where a task of these queues needs them; returns once they have imported it.

        Nothing is raised where they cannot: the first delivery tells of it.
        """
        tags = frozenset(self._worker.tags)
        tasks = [task for task in self._app.tasks.values() if task.executor == "process"]
        if any(task.queue in queues and tags.issuperset(task.tags) for task in tasks):
            await self._process_executor().warm()

    def _process_executor(self) -> ProcessExecutor:
        if self._processes is None:
            most = min(os.cpu_count() or 1, self._worker.slots)
            self._processes = ProcessExecutor(self._app, self._runner, self._numbers, self._freed, most)
        return self._processes

    def submit(self, run: Run) -> None:
        """Hand an admitted delivery to where its body runs."""
        task = run.task
        assert task is not None
        if task.is_async:
            self._slots.submit(run)
        elif task.executor == "thread":
            if self._threads is None:
                most = self._worker.threads or self._worker.slots
                self._threads = ThreadExecutor(self._runner, self._numbers, self._freed, most)
            self._threads.submit(run)
        else:
            self._process_executor().submit(run)

    def cancel_run(self, run: Run, *, terminate: bool) -> None:
        """End a delivery that was cancelled: one that has not begun, or where `terminate` any."""
        task = run.task
        if task is None or run.is_over:
            return
        executor = self._slots if task.is_async else self._threads if task.executor == "thread" else self._processes
        if executor is None:
            return
        if executor.withdraw(run):
            self._runner.cancelled(run)
            self._freed(run)
        elif terminate:
            executor.terminate(run)

    def flush(self) -> None:
        """Hand what has returned to the settler, before it is told to end."""
        self._slots.flush()

    def cancel(self) -> None:
        """Stop what can be stopped, which threads cannot, and begin nothing more."""
        self._slots.cancel_all()
        if self._threads is not None:
            self._threads.forget_queued()
        if self._processes is not None:
            self._processes.cancel_all()

    async def close(self) -> None:
        """End slots, threads and processes."""
        await self._slots.close()
        if self._threads is not None:
            self._threads.close()
        if self._processes is not None:
            self._processes.close()
