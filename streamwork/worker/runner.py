"""The steps that one delivery goes through: decode → admit → start → execute → judge → settle → announce.

Each step takes a `Run` and says whether to go on; the executors call `start` before the body and `finished` or
`raised` after it. Nothing here waits and nothing here speaks to Redis.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from streamwork.clock import SYSTEM_CLOCK
from streamwork.context import Context
from streamwork.errors import StreamworkError, WireError
from streamwork.model.judge import Again, Dead, Skipped, Verdict, judge, text_of, traceback_text, type_name
from streamwork.model.policy import Retry
from streamwork.model.state import State
from streamwork.store.commands import Arg
from streamwork.store.scripts import SettleItem
from streamwork.task import Task
from streamwork.wire.message import (
    WIRE_VERSION,
    Attempt,
    DeadLetter,
    Failure,
    JournalRecord,
    decode_attempt,
    decode_message,
    encode_attempt,
    encode_record,
    encode_result,
)
from streamwork.worker.delivery import Run
from streamwork.worker.slot_table import SlotTable

logger = logging.getLogger(__name__)

# A message that killed its process this often is quarantined; entries that vanished with their host get more, since
# nobody knows whether they had started (rule 17).
MOST_CRASHES = 3
MOST_LOSSES = 10
# A task that no worker knows waits 1 s × 2ⁿ, 60 s at most, and for a day in all (rule 9).
UNKNOWN_FIRST_MS, UNKNOWN_MOST_MS, UNKNOWN_TTL_MS = 1_000, 60_000, 86_400_000


class Runner:
    """The steps, with what they need from the process.

    Args:
        tasks: The app's tasks by name.
        table: Where started deliveries are noted.
        settle: Takes (run, item) once the end is known.
        resources: What the lifespan yielded.
    """

    def __init__(
        self, tasks: dict[str, Task[..., Any]], table: SlotTable, settle: Callable[[Run, SettleItem], None], resources: Any = None
    ) -> None:
        self._tasks = tasks
        self._table = table
        self._settle = settle
        self._resources = resources
        self._unknown: set[str] = set()
        self.free_slots: Callable[[], int] | None = None
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
                    run.attempt = past._replace(crashes=past.crashes + run.attempt.crashes, lost=past.lost + run.attempt.lost)
        except (StreamworkError, ValueError) as error:
            logger.warning("undecodable entry", extra={"lane": run.lane.stream, "entry": run.entry.decode(), "error": str(error)})
            self._end_dead(run, "undecodable", Failure("DecodeError", str(error)))
            return False
        return True

    def admit(self, run: Run) -> bool:
        """Find the task; refuse what is cancelled, quarantined, lost too often or unknown here."""
        message = run.message
        assert message is not None  # noqa: S101 - decode went first
        if message.id in run.lane.queue.cancelled:
            self._end(run, "C", State.CANCELLED, encode_record(Failure("Cancelled", "cancelled before it ran")), "cancelled")
            return False
        if run.attempt.crashes >= MOST_CRASHES:
            self._end_dead(run, "quarantined", Failure("Quarantined", f"its process died {run.attempt.crashes} times: {run.stop_reason}"))
            return False
        if run.attempt.lost >= MOST_LOSSES:
            self._end_dead(run, "lost", Failure("Lost", f"its worker vanished {run.attempt.lost} times: {run.stop_reason}"))
            return False
        run.task = self._tasks.get(message.task)
        if run.task is None:
            self._defer_unknown(run)
            return False
        return True

    def start(self, run: Run, slot: int) -> None:
        """Note the start where the supervisor sees it, before the body runs."""
        run.slot = slot
        lane = run.lane
        self._table.start(slot, lane.queue.number, run.entry, lane.name_bytes)
        run.started_at_ms = self.now_ms()

    def arguments(self, run: Run) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the body's arguments, decoded and with the context where the task asks for it; raises WireError."""
        message, task = run.message, run.task
        assert message is not None and task is not None  # noqa: S101, PT018 - admit went first
        args, kwargs = task.signature.decode(message.args, message.kwargs)
        if task.signature.context_parameter is None:
            return args, kwargs
        return task.signature.inject(args, kwargs, self.context(run))

    def context(self, run: Run) -> Context[Any]:
        """Return the run's context, made at first use: most bodies never ask."""
        context = run.context
        if context is None:
            message = run.message
            assert message is not None  # noqa: S101 - decode went first
            context = run.context = Context(message.task, self._resources)
            context.task_id = message.id
            context.queue = run.lane.queue.name
            context.lane = run.lane.name
            context.attempt, context.crashes = run.attempt.attempt, run.attempt.crashes
            context.fence = run.token
            context.free_slots = self.free_slots
        return context

    def timeout_s(self, run: Run) -> float | None:
        """Return the time limit of this run, the message's own or the task's; None = none."""
        message, task = run.message, run.task
        assert message is not None and task is not None  # noqa: S101, PT018 - admit went first
        if message.options is not None and message.options.timeout_ms is not None:
            return message.options.timeout_ms / 1000
        return task.timeout_s

    def finished(self, run: Run, value: Any) -> None:
        """Settle a body that returned."""
        task = run.task
        assert task is not None  # noqa: S101 - admit went first
        try:
            payload = task.signature.encode_result(value)
        except Exception as error:  # noqa: BLE001 - also the user's enc_hook; retrying would not change it
            self._end_dead(run, "failed", Failure(type_name(error), text_of(error), traceback_text(error)))
            return
        self.ended(run, payload)

    def ended(self, run: Run, payload: bytes) -> None:
        """Settle a body whose result is packed already."""
        self._end(run, "S", State.SUCCEEDED, payload, "")

    def crashed(self, run: Run, evidence: str) -> None:
        """Settle a body that took its own process with it: again at once, or quarantine after the third time."""
        past = run.attempt._replace(crashes=run.attempt.crashes + 1)
        if past.crashes >= MOST_CRASHES:
            run.attempt = past
            self._end_dead(run, "quarantined", Failure("Quarantined", f"its process died {past.crashes} times: {evidence}"))
            return
        logger.error("task crashed its process", extra={**self.facts(run), "evidence": evidence, "crashes": past.crashes})
        self._reschedule(run, past, 0, "crashed", evidence)

    def raised(self, run: Run, error: BaseException) -> None:
        """Judge and settle a body that raised."""
        message, task = run.message, run.task
        assert message is not None and task is not None  # noqa: S101, PT018 - admit went first
        policies = task.retry
        if message.options is not None and message.options.retry is not None:
            attempts, base, factor, longest, jitter = message.options.retry
            policies = (Retry(attempts, (Exception,), base, factor, longest, jitter),)
        self.settle_verdict(run, judge(error, run.attempt.attempt, policies))

    def unreadable(self, run: Run, error: WireError) -> None:
        """Settle a run whose arguments do not fit the task here; the next run would say the same."""
        self._end_dead(run, "failed", Failure(type_name(error), text_of(error)))

    def settle_verdict(self, run: Run, verdict: Verdict) -> None:
        """Settle what judge decided."""
        if isinstance(verdict, Again):
            self._end_again(run, verdict)
        elif isinstance(verdict, Skipped):
            self._end(run, "K", State.SKIPPED, b"\xc0", verdict.reason)
        else:
            assert isinstance(verdict, Dead)  # noqa: S101 - a closed union
            self._end_dead(run, verdict.reason, Failure(verdict.type_name, verdict.message, verdict.traceback))

    def _keep_ms(self, run: Run) -> int:
        if run.message is not None and run.message.options is not None and run.message.options.keep_ms is not None:
            return run.message.options.keep_ms
        return run.task.keep_ms if run.task is not None else UNKNOWN_TTL_MS

    @staticmethod
    def _flags(run: Run) -> str:
        flags = "m" if run.was_moved else ""
        return flags + "s" if run.is_suspect else flags

    def _end(self, run: Run, op: str, state: str, payload: bytes, detail: str) -> None:
        message = run.message
        assert message is not None  # noqa: S101 - decode went first
        keys = run.lane.queue.keys
        record = encode_result(run.token, state, payload)
        journal = self._journal(run, message.id, message.task, state, detail)
        self._settle(run, SettleItem(
            op + self._flags(run), run.lane.name, run.entry, run.count, journal, (record, self._keep_ms(run)),
            keys.result_prefix + message.id, None if message.reply_to is None else keys.reply(message.reply_to),
            len(record) + len(journal) + 120,
        ))  # fmt: skip

    def _end_again(self, run: Run, verdict: Again) -> None:
        past = run.attempt._replace(attempt=run.attempt.attempt + 1)
        logger.info("task will run again", extra={**self.facts(run), "error": f"{verdict.type_name}: {verdict.message[:300]}", "in_ms": verdict.delay_ms})
        self._reschedule(run, past, verdict.delay_ms, "retried", f"{verdict.type_name}: {verdict.message}"[:500])

    def _defer_unknown(self, run: Run) -> None:
        message = run.message
        assert message is not None  # noqa: S101 - decode went first
        past = run.attempt
        waited_ms = sum(min(UNKNOWN_FIRST_MS << min(n, 20), UNKNOWN_MOST_MS) for n in range(past.deferrals))
        if waited_ms >= UNKNOWN_TTL_MS:
            self._end_dead(run, "unknown_task", Failure("TaskNotFound", f"for a day no worker knew {message.task!r}"))
            return
        delay_ms = min(UNKNOWN_FIRST_MS << min(past.deferrals, 20), UNKNOWN_MOST_MS)
        if message.task not in self._unknown:
            self._unknown.add(message.task)  # once per name: there may be thousands of messages
            logger.warning("task unknown to this worker, left for another one", extra=self.facts(run))
        self._reschedule(run, past._replace(deferrals=past.deferrals + 1), delay_ms, "deferred", f"unknown task {message.task}")

    def _reschedule(self, run: Run, past: Attempt, delay_ms: int, state: str, detail: str) -> None:
        message = run.message
        assert message is not None  # noqa: S101 - decode went first
        body = run.fields[run.fields.index(b"d") + 1]
        due = b"%b\n%b\n%b" % (run.lane.name_bytes, encode_attempt(past).encode(), body)
        journal = self._journal(run, message.id, message.task, state, detail)
        self._settle(run, SettleItem(
            "R" + self._flags(run), run.lane.name, run.entry, run.count, journal, (self.now_ms() + delay_ms, due),
            run.lane.queue.keys.result_prefix + message.id, None, len(due) + len(journal) + 120,
        ))  # fmt: skip

    def _end_dead(self, run: Run, reason: str, failure: Failure) -> None:
        message = run.message
        task_id = message.id if message is not None else f"entry-{run.lane.name}-{run.entry.decode()}"
        name = message.task if message is not None else ""
        body = _stored(run.fields)
        letter = encode_record(DeadLetter(
            WIRE_VERSION, task_id, name, run.lane.name, reason, failure, encode_attempt(run.attempt), self.now_ms(), body
        ))  # fmt: skip
        logger.error("task is dead", extra={**self.facts(run), "reason": reason, "error": f"{failure.type_name}: {failure.message[:300]}"})
        record = encode_result(run.token, State.DEAD, encode_record(failure))
        journal = self._journal(run, task_id, name, State.DEAD, f"{reason}: {failure.type_name}: {failure.message}"[:500])
        keys = run.lane.queue.keys
        rest: tuple[Arg, ...] = (record, max(self._keep_ms(run), 60_000), self.now_ms(), letter)
        reply = keys.reply(message.reply_to) if message is not None and message.reply_to is not None else None
        self._settle(run, SettleItem(
            "D" + self._flags(run), run.lane.name, run.entry, run.count, journal, rest, keys.result_prefix + task_id, reply,
            len(record) + len(letter) + len(journal) + 120,
        ))  # fmt: skip

    def _journal(self, run: Run, task_id: str, name: str, state: str, detail: str) -> bytes:  # noqa: PLR0913, PLR0917 - its fields
        record: JournalRecord | tuple[Any, ...] = (
            WIRE_VERSION, task_id, name, state, run.lane.name, run.entry, run.attempt.attempt, run.consumer,
            run.started_at_ms, self.now_ms(), detail,
        )  # fmt: skip
        return encode_record(record)

    @staticmethod
    def facts(run: Run) -> dict[str, Any]:
        """Return what a log line says of a run."""
        message = run.message
        return {
            "task_id": message.id if message else "", "task": message.task if message else "", "queue": run.lane.queue.name,
            "entry": run.entry.decode(), "attempt": run.attempt.attempt,
        }  # fmt: skip


def _stored(fields: list[bytes]) -> bytes:
    if len(fields) == 2 and fields[0] == b"d":
        return fields[1]
    if b"d" in fields[::2]:
        return fields[fields[::2].index(b"d") * 2 + 1]
    return encode_record(tuple(fields))
