"""Who is told of a dead letter: the app's own functions and a webhook, beside the work and never in its way.

Each has a thread and a short line in front of it. What does not fit there is dropped, which the log says: a settle
waits for nobody, and the letter itself is in Redis.
"""

from __future__ import annotations

import asyncio
import http.client
import inspect
import logging
import queue
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from streamwork.app import Streamwork
from streamwork.broker.dead import read_letter
from streamwork.config import Config
from streamwork.model.dead import DeadRecord
from streamwork.store.scripts import SettleItem
from streamwork.worker.delivery import Run
from streamwork.worker.intake import Settled

logger = logging.getLogger(__name__)

# A letter may hold a megabyte of arguments; and what a worker that ends waits for its last ones.
MOST_WAITING, CLOSE_S = 100, 5.0
_TRIES, _PAUSE_S, _TIMEOUT_S = 3, 1.0, 5.0


class Notices:
    """What hears of each settled outcome, and tells of those that are dead letters.

    Args:
        app: Whose functions are told (`app.on_dead`).
        config: Has the webhook, if there is one.
        told: Told of every outcome besides; None = nobody.
    """

    def __init__(self, app: Streamwork, config: Config, told: Settled | None) -> None:
        self._told = told
        self._heralds = [Herald("on_dead", _Hooks(app))] if app.dead_hooks else []
        if config.dead_webhook is not None:
            self._heralds.append(Herald("dead_webhook", Webhook(config.dead_webhook, app.name)))

    @property
    def listener(self) -> Settled | None:
        """What is to be told of outcomes: this, or whoever else is where nobody hears of dead letters."""
        return self if self._heralds else self._told

    def __call__(self, run: Run, item: SettleItem, committed: bool) -> None:
        """Hear that Redis has answered for an outcome."""
        if committed and item.op[0] == "D":
            task_id = item.result_key[len(run.lane.queue.keys.result_prefix) :]
            for herald in self._heralds:
                herald.put(run.lane.queue.name, task_id, item.rest[3])  # type: ignore[arg-type]
        if self._told is not None:
            self._told(run, item, committed)

    async def close(self) -> None:
        """Let those that wait be told, for `CLOSE_S` at most."""
        until_s = time.monotonic() + CLOSE_S
        for herald in self._heralds:
            await asyncio.to_thread(herald.close, until_s)


class Herald:
    """A thread that tells one listener of dead letters, one after the other.

    Args:
        name: What the log calls the listener.
        tell: Told of each; what it raises is logged.
    """

    def __init__(self, name: str, tell: Callable[[DeadRecord], None]) -> None:
        self._name = name
        self._tell = tell
        self._line: queue.Queue[tuple[str, str, bytes] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def put(self, queue_name: str, task_id: str, letter: bytes) -> None:
        """Let it be told of a dead letter, if there is room in the line."""
        if self._thread is None:
            # A daemon: a listener that hangs must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name=f"streamwork-{self._name}", daemon=True)
            self._thread.start()
        try:
            self._line.put_nowait((queue_name, task_id, letter))
        except queue.Full:
            self._dropped += 1
            if self._dropped == 1:
                logger.warning(
                    "not told of all dead letters: it does not keep up (streamwork dead list has them)",
                    extra={"listener": self._name, "task_id": task_id},
                )

    def _run(self) -> None:
        while (one := self._line.get()) is not None:
            try:
                self._tell(read_letter(*one))
            except BaseException as error:  # whatever it is, the next one is told
                logger.exception(
                    "a listener failed at a dead letter",
                    extra={"listener": self._name, "task_id": one[1], "error": str(error)},
                )
            if self._line.empty():
                self._dropped = 0

    def close(self, until_s: float) -> None:
        """Take no more, and wait until those in the line were told or the time is up (monotonic)."""
        if self._thread is None:
            return
        try:
            self._line.put(None, timeout=max(0.0, until_s - time.monotonic()))
        except queue.Full:
            pass
        self._thread.join(max(0.0, until_s - time.monotonic()))
        if self._thread.is_alive():
            logger.warning("not told of all dead letters before the end", extra={"listener": self._name})


class _Hooks:
    """The functions of `app.on_dead`; async ones run on a loop of their thread's own."""

    def __init__(self, app: Streamwork) -> None:
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, record: DeadRecord) -> None:
        for hook in self._app.dead_hooks:
            try:
                answer = hook(record)
                if inspect.isawaitable(answer):
                    self._loop = self._loop or asyncio.new_event_loop()
                    self._loop.run_until_complete(_awaited(answer))
            except Exception as error:  # the next one is told all the same
                logger.exception(
                    "a function of on_dead raised",
                    extra={
                        "function": getattr(hook, "__qualname__", repr(hook)),
                        "task_id": record.id,
                        "error": str(error),
                    },
                )


async def _awaited(answer: Any) -> None:
    await answer


class Webhook:
    """Posts dead letters to a URL as JSON, without their arguments, which may be anybody's secrets.

    Args:
        url: Where to.
        namespace: Name of the app.
    """

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self._namespace = namespace

    def __call__(self, record: DeadRecord) -> None:
        """Post one; tried three times."""
        facts = {
            name: getattr(record, name) for name in record.__struct_fields__ if name not in ("letter", "args", "kwargs")
        }
        body = msgspec.json.encode({"event": "dead", "namespace": self._namespace, **facts})
        headers = {"Content-Type": "application/json", "User-Agent": "streamwork"}
        for left in reversed(range(_TRIES)):
            request = urllib.request.Request(self._url, body, headers)  # noqa: S310 - config takes http and https only
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
                    return
            except (OSError, ValueError, http.client.HTTPException) as error:
                if not left:
                    # The host alone: the rest of a webhook's URL is often its password.
                    facts = {"host": urlsplit(self._url).hostname, "task_id": record.id, "error": str(error)}
                    logger.warning("dead_webhook does not take a dead letter", extra=facts)
                    return
            time.sleep(_PAUSE_S)
