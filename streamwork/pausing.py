"""The part of an app that pauses and resumes queues, tasks and groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from streamwork.broker.pausing import Pause, paused, set_mark
from streamwork.broker.stats import queue_names
from streamwork.broker.steps import Steps
from streamwork.errors import ConfigError
from streamwork.guards import refuse_on_loop
from streamwork.model.pausing import mark_of
from streamwork.store.keys import checked_name

if TYPE_CHECKING:
    from streamwork.connection import Connection
    from streamwork.task import Task


class Pausing(ABC):
    """Pauses are kept in Redis until they are resumed, whatever is started or stopped meanwhile."""

    name: str
    connection: Connection

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
            task: A task or its name: on this queue, else on all that anything was ever sent to.
            group: What is sent with this ``group``; as `task`. Nothing more of it comes onto a lane; what is
                there already (at most the queue's window of grouped messages) begins.
            reason: Shown by ``status`` and ``doctor``.

        Returns:
            Queue to whether that is new.

        Raises:
            ConfigError: Nothing or too much is named.
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
        return set_mark(self.name, self.queues, queue, mark_of(name, group), reason)
