"""The part of an app that pauses and resumes queues, tasks and groups."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from streamwork.broker.history import check_queue
from streamwork.broker.pausing import Pause, paused, set_mark
from streamwork.broker.stats import queue_names
from streamwork.broker.steps import Steps
from streamwork.errors import ConfigError, TaskNotFound
from streamwork.guards import refuse_on_loop
from streamwork.model.pausing import mark_of
from streamwork.store.keys import QueueKeys, checked_name

if TYPE_CHECKING:
    from streamwork.connection import Connection
    from streamwork.task import Task

# So alike are two names of which one is a slip of the other.
_A_SLIP = 0.9


class Pausing(ABC):
    """Pauses are kept in Redis until they are resumed, whatever is started or stopped meanwhile."""

    name: str
    connection: Connection
    tasks: dict[str, Task[..., Any]]

    @abstractmethod
    def find(self, name: str) -> Task[..., Any]:
        """Return a declared task; raises TaskNotFound."""

    @property
    @abstractmethod
    def queues(self) -> list[str]:
        """The queues that this app uses."""

    def pause(
        self, *, queue: str | None = None, task: str | Task[..., Any] | None = None, group: str | None = None,
        reason: str = "",
    ) -> dict[str, bool]:  # fmt: skip
        """Let nothing of a queue, a task or a group begin until it is resumed; what runs goes on, and so does sending.

        Workers hear of it at once. What waits for a paused queue stays where it is; what comes up of a paused task is
        set aside, which counts as no attempt, and goes on when it is resumed, in the order of sending to the
        millisecond.

        Args:
            queue: This queue; with `task` or `group`, that one on this queue only.
            task: A task, its name, or the part of that behind the last dot where only one of the app's has it: on this
                queue, else on all that anything was ever sent to.
            group: What is sent with this ``group``; as `task`. Nothing more of it comes onto a lane; what is
                there already (at most the queue's window of grouped messages) begins.
            reason: Shown by ``status`` and ``doctor``.

        Returns:
            Queue to whether that is new.

        Raises:
            ConfigError: Nothing or too much is named.
            QueueNotFound: No task of this app has the queue, and nothing was ever sent to or read from it.
            TaskNotFound: The name is none of the app's tasks and has no module, or one that only this app's tasks have.
            StoreError: Redis is away or refuses; nothing, or a part of the queues, is paused.
        """
        refuse_on_loop("pause", "apause")
        return self.connection.ask(self._steps(queue, task, group, reason))

    async def apause(
        self, *, queue: str | None = None, task: str | Task[..., Any] | None = None, group: str | None = None,
        reason: str = "",
    ) -> dict[str, bool]:  # fmt: skip
        """Let nothing of a queue, a task or a group begin until it is resumed; see `pause`."""
        return await self.connection.aask(self._steps(queue, task, group, reason))

    def resume(
        self, *, queue: str | None = None, task: str | Task[..., Any] | None = None, group: str | None = None
    ) -> dict[str, bool]:
        """Let go on what was paused under the same words, at once.

        Returns:
            Queue to whether it was paused.
        """
        refuse_on_loop("resume", "aresume")
        return self.connection.ask(self._steps(queue, task, group, None))

    async def aresume(
        self, *, queue: str | None = None, task: str | Task[..., Any] | None = None, group: str | None = None
    ) -> dict[str, bool]:
        """Let go on what was paused; see `resume`."""
        return await self.connection.aask(self._steps(queue, task, group, None))

    def paused(self) -> list[Pause]:
        """Return what is paused now."""
        refuse_on_loop("paused", "apaused")
        return self.connection.ask(self._look())

    async def apaused(self) -> list[Pause]:
        """Return what is paused now."""
        return await self.connection.aask(self._look())

    def _look(self) -> Steps[list[Pause]]:
        names = yield from queue_names(self.name, self.queues)
        return (yield from paused(self.name, names))

    def _steps(
        self, queue: str | None, task: str | Task[..., Any] | None, group: str | None, reason: str | None
    ) -> Steps[dict[str, bool]]:
        if queue is None and task is None and group is None:
            raise ConfigError("pause what? give queue, task or group")
        if task is not None and group is not None:
            raise ConfigError("task and group: give one of them")
        name = task if isinstance(task, str | None) else task.name
        for what, text in (("task", name), ("group", group)):
            if text is not None and (not isinstance(text, str) or not text):
                raise ConfigError(f"{what}={text!r}: give its name")
        if queue is not None:
            checked_name("queue", queue)
            yield from known_queue(self.name, self.queues, queue)
        if isinstance(task, str):
            name = yield from known_task(self, task)
        return (yield from set_mark(self.name, self.queues, queue, mark_of(name, group), reason))


def known_queue(namespace: str, known: Sequence[str], queue: str) -> Steps[None]:
    """Raise QueueNotFound where a queue is none that is known, was ever used or has something paused."""
    if not (yield from paused(namespace, [queue])):
        yield from check_queue(QueueKeys(namespace, queue), known)


def known_task(app: Pausing, name: str) -> Steps[str]:
    """Return a task's whole name, given that or the part behind its last dot where only one has it.

    A name that is paused is taken as it is, and so is one with a module in which this app has no task: other code may
    declare it. An app without tasks takes all.

    Raises:
        TaskNotFound: It can be none, or is one of this app's with a slip.
    """
    full = whole_name(app.tasks, name)
    if full in app.tasks or not app.tasks:
        return full
    names = yield from queue_names(app.name, app.queues)
    if any(each.mark == mark_of(name) for each in (yield from paused(app.name, names))):
        return name
    several = sorted(each for each in app.tasks if each.endswith(f".{name}"))
    if several:
        raise TaskNotFound(f"app {app.name!r} has no task {name!r}: did you mean {' or '.join(several)}?")
    module = name.rpartition(".")[0]
    own = {each.rpartition(".")[0] for each in app.tasks}
    if not module or module in own or difflib.get_close_matches(name, app.tasks, 1, _A_SLIP):
        app.find(name)
    return name


def whole_name(tasks: Iterable[str], name: str) -> str:
    """Return the one name that is this or ends in a dot and this; else the name as it is."""
    if name in tasks:
        return name
    ends = [full for full in tasks if full.endswith(f".{name}")]
    return ends[0] if len(ends) == 1 else name
