"""The steps that one delivery goes through: decode → admit → start → execute → judge → settle → announce.

Each step takes a `Run` and says whether to go on; the executors call `start` before the body and `finished` or
`raised` after it. Nothing here waits and nothing here speaks to Redis.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from streamwork.broker.plans import planned
from streamwork.clock import SYSTEM_CLOCK
from streamwork.context import Context
from streamwork.errors import StreamworkError, WireError
from streamwork.model.judge import Again, Dead, Skipped, Verdict, decide, text_of, traceback_text, type_name
from streamwork.model.state import State
from streamwork.store.scripts import SettleItem
from streamwork.task import Task
from streamwork.wire.message import NO_OPTIONS, Failure, decode_attempt, decode_message, encode_record, remains
from streamwork.wire.origin import TRACE_LINK
from streamwork.worker.delivery import Run
from streamwork.worker.endings import Endings, facts
from streamwork.worker.limits import extend
from streamwork.worker.slot_table import SlotTable

if TYPE_CHECKING:
    from streamwork.telemetry.tracing import Processing, Spans

logger = logging.getLogger(__name__)

# A message that killed its process this often is quarantined; entries that vanished with their host get more, since
# nobody knows whether they had started (rule 17).
MOST_CRASHES = 3
MOST_LOSSES = 10


class Runner:
    """The steps, with what they need from the process.

    Args:
        tasks: The app's tasks by name.
        table: Where started deliveries are noted.
        settle: Takes (run, item) once the end is known.
        resources: What the lifespan yielded.
    """

    def __init__(
        self,
        tasks: dict[str, Task[..., Any]],
        table: SlotTable,
        settle: Callable[[Run, SettleItem], None],
        resources: Any = None,
    ) -> None:
        self._tasks = tasks
        self._table = table
        # Looked up at each call: a test's clock is set later.
        self.endings = Endings(settle, lambda: self.now_ms())  # noqa: PLW0108
        self._resources = resources
        self.free_slots: Callable[[str], int] | None = None
        self.spans: Spans | None = None
        self.now_ms: Callable[[], int] = SYSTEM_CLOCK.now_ms

    def decode(self, run: Run) -> bool:
        """Read the message and its past; what cannot be read goes to the dead letters."""
        fields = run.fields
        try:
            if len(fields) == 2 and fields[0] == b"d":
                run.message = decode_message(fields[1])
            else:
                named = dict(zip(fields[::2], fields[1::2], strict=True))
                if set(named) - {b"d", b"a"}:
                    raise WireError(f"unknown field(s) {sorted(set(named) - {b'd', b'a'})}")
                run.message = decode_message(named.get(b"d", b""))
                if b"a" in named:
                    run.was_moved = True
                    past = decode_attempt(named[b"a"])
                    run.attempt = past._replace(
                        crashes=past.crashes + run.attempt.crashes, lost=past.lost + run.attempt.lost
                    )
        except (StreamworkError, ValueError) as error:
            if run.message is None and b"d" in fields[::2]:
                run.message = remains(fields[fields[::2].index(b"d") * 2 + 1])
            logger.warning(
                "undecodable entry", extra={"lane": run.lane.stream, "entry": run.entry.decode(), "error": str(error)}
            )
            self.endings.dead(run, "undecodable", Failure("DecodeError", str(error)))
            return False
        return True

    def admit(self, run: Run) -> bool:
        """Find the task; refuse what is cancelled, quarantined, lost too often or unknown here."""
        message = run.message
        assert message is not None
        if message.id in run.lane.queue.cancelled:
            self.cancelled(run)
            return False
        options = message.options
        if options is not None and options.expires_at_ms is not None and self.now_ms() >= options.expires_at_ms:
            failure = Failure("Expired", "it had not begun in time")
            self.endings.end(run, "E", State.EXPIRED, encode_record(failure), "expired")
            return False
        if run.attempt.crashes >= MOST_CRASHES:
            text = f"its process died {run.attempt.crashes} times"
            self.endings.dead(run, "quarantined", evident("Quarantined", text, run.stop_reason))
            return False
        if run.attempt.lost >= MOST_LOSSES:
            text = f"its worker vanished {run.attempt.lost} times"
            self.endings.dead(run, "lost", evident("Lost", text, run.stop_reason))
            return False
        if message.task in run.lane.queue.paused_tasks:
            self.endings.hold(run)
            return False
        run.task = self._tasks.get(message.task)
        if run.task is None:
            self.endings.unknown(run)
            return False
        return True

    @staticmethod
    def is_dangerous(run: Run) -> bool:
        """Whether a run is to be alone in this process: its next crash is its last, so that one has to be its own.

        Until then those that died together run side by side again, since all but one of them are innocent. A killable
        process takes only itself.
        """
        if run.attempt.crashes < MOST_CRASHES - 1:
            return False
        return run.is_suspect or (run.task is not None and run.task.executor != "process")

    def start(self, run: Run, slot: int) -> None:
        """Note the start where the supervisor sees it, before the body runs."""
        run.slot = slot
        lane = run.lane
        self._table.start(slot, lane.queue.number, run.entry, lane.name_bytes)
        run.started_at_ms = self.now_ms()

    def span(self, run: Run) -> Processing | None:
        """Return the block in which the body runs, where it has a span, which is current there."""
        if self.spans is None:
            return None
        message = run.message
        assert message is not None
        options = message.options or NO_OPTIONS
        if options.headers is None and not self.spans.keeps(message.id):
            return None
        headers = options.headers or {}
        run.span = self.spans.process(
            run.lane.queue.name, message.task, message.id, run.attempt.attempt, headers,
            consumer=run.consumer, replay_of=options.replay_of, link=headers.get(TRACE_LINK, ""),
        )  # fmt: skip
        return run.span

    def arguments(self, run: Run) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the body's arguments, decoded and with the context where the task asks for it; raises WireError."""
        message, task = run.message, run.task
        assert message is not None and task is not None  # noqa: PT018 - admit went first
        args, kwargs = task.signature.decode(message.args, message.kwargs)
        if task.signature.context_parameter is None:
            return args, kwargs
        return task.signature.inject(args, kwargs, self.context(run))

    def context(self, run: Run) -> Context[Any]:
        """Return the run's context, made at first use: most bodies never ask."""
        context = run.context
        if context is None:
            message = run.message
            assert message is not None
            context = run.context = Context(message.task, self._resources)
            context.task_id = message.id
            context.queue = run.lane.queue.name
            context.lane = run.lane.name
            context.attempt, context.crashes = run.attempt.attempt, run.attempt.crashes
            context.fence = run.token
            context.free_slots = self.free_slots
            context.extend_by = partial(extend, run)
            if message.options is not None and message.options.headers is not None:
                context.schedule, context.scheduled_at = planned(message.options.headers)
        return context

    def timeout_s(self, run: Run) -> float | None:
        """Return the time limit of this run, the message's own or the task's; None = none."""
        message, task = run.message, run.task
        assert message is not None and task is not None  # noqa: PT018 - admit went first
        if message.options is not None and message.options.timeout_ms is not None:
            return message.options.timeout_ms / 1000 or None
        return task.timeout_s

    def soft_timeout_s(self, run: Run) -> float | None:
        """Return the soft limit of this run, the message's own or the task's; None = none."""
        message, task = run.message, run.task
        assert message is not None and task is not None  # noqa: PT018 - admit went first
        if message.options is not None and message.options.soft_ms is not None:
            return message.options.soft_ms / 1000 or None
        return task.soft_timeout_s

    def finished(self, run: Run, value: Any) -> None:
        """Settle a body that returned."""
        payload = self.packed(run, value)
        if payload is not None:
            self.ended(run, payload)

    def packed(self, run: Run, value: Any) -> bytes | None:
        """Return a result as bytes; one that cannot be stored ends the run as dead, and None is returned."""
        task = run.task
        assert task is not None
        try:
            return task.signature.encode_result(value)
        except BaseException as error:  # noqa: BLE001 - also the user's code; retrying would not change it
            self.endings.dead(run, "failed", Failure(type_name(error), text_of(error), traceback_text(error)))
            return None

    def ended(self, run: Run, payload: bytes) -> None:
        """Settle a body whose result is packed already."""
        self.endings.end(run, "S", State.SUCCEEDED, payload, "")

    def cancelled(self, run: Run) -> None:
        """Settle what somebody cancelled: before it ran, between two runs, or while it ran."""
        has_run = bool(run.started_at_ms) or run.attempt.attempt > 1
        text = "cancelled before it ran again" if has_run else "cancelled before it ran"
        if run.stop_reason == "cancelled":
            text = "cancelled while it ran"
        self.endings.end(run, "C", State.CANCELLED, encode_record(Failure("Cancelled", text)), text)

    def _is_cancelled(self, run: Run) -> bool:
        return run.message is not None and run.message.id in run.lane.queue.cancelled

    def crashed(self, run: Run, evidence: str) -> None:
        """Settle a body that took its own process with it: again at once, or quarantine after the third time."""
        past = run.attempt._replace(crashes=run.attempt.crashes + 1)
        if past.crashes >= MOST_CRASHES:
            run.attempt = past
            self.endings.dead(
                run, "quarantined", Failure("Quarantined", f"its process died {past.crashes} times: {evidence}")
            )
            return
        if self._is_cancelled(run):
            self.cancelled(run)
            return
        logger.error("task crashed its process", extra={**facts(run), "evidence": evidence, "crashes": past.crashes})
        self.endings.reschedule(run, past, 0, "crashed", evidence, error=("Crashed", ""))

    def raised(self, run: Run, error: BaseException) -> None:
        """Judge and settle a body that raised."""
        message, task = run.message, run.task
        assert message is not None and task is not None  # noqa: PT018 - admit went first
        carried = message.options.retry if message.options is not None else None
        self.settle_verdict(run, decide(error, run.attempt.attempt, task.retry, carried))

    def unreadable(self, run: Run, error: WireError) -> None:
        """Settle a run whose arguments do not fit the task here; the next run would say the same."""
        self.endings.dead(run, "failed", Failure(type_name(error), text_of(error)))

    def settle_verdict(self, run: Run, verdict: Verdict) -> None:
        """Settle what was decided; an end that cannot be written down is a dead letter that says why."""
        try:
            if isinstance(verdict, Again) and self._is_cancelled(run):
                self.cancelled(run)
            elif isinstance(verdict, Again):
                self.endings.again(run, verdict)
            elif isinstance(verdict, Skipped):
                self.endings.end(run, "K", State.SKIPPED, b"\xc0", verdict.reason)
            else:
                assert isinstance(verdict, Dead)
                failure = Failure(verdict.type_name, verdict.message, verdict.traceback)
                self.endings.dead(run, verdict.reason, failure, verdict.digest)
        except Exception as error:
            logger.exception("an end could not be written down", extra=facts(run))
            self.endings.dead(run, "failed", Failure(type_name(error), text_of(error), traceback_text(error)))

    @staticmethod
    def facts(run: Run) -> dict[str, Any]:
        """Return what a log line says of a run."""
        return facts(run)


def unsettled(run: Run, error: Exception) -> None:
    """Log why a delivery has no outcome; it stays pending until this worker ends, and then others take it."""
    run.is_unsettled = True
    with contextlib.suppress(Exception):  # it may be a handler of the log that raises
        logger.error("a delivery could not be settled", exc_info=error, extra=facts(run))


def evident(kind: str, text: str, evidence: str) -> Failure:
    """Return the failure of a message whose process died: how, and what that process logged last."""
    how, _, lines = evidence.partition("\n")
    return Failure(kind, f"{text}: {how}", f"the last log lines of that process:\n{lines}" if lines else "")
