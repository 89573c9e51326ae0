"""How a delivery's end is written down: what the settle script, the journal and the dead letters get."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from streamwork.model.digest import digest_of
from streamwork.model.judge import Again
from streamwork.model.pausing import held_score
from streamwork.model.state import State
from streamwork.store.commands import Arg
from streamwork.store.scripts import SettleItem
from streamwork.wire.message import (
    WIRE_VERSION,
    Attempt,
    DeadLetter,
    Failure,
    encode_attempt,
    encode_record,
    encode_result,
)
from streamwork.wire.origin import origin_of, trace_id_in
from streamwork.worker.delivery import Run

logger = logging.getLogger(__name__)

# A task that no worker knows waits 1 s × 2ⁿ, 60 s at most, and for a day in all (rule 9).
UNKNOWN_FIRST_MS, UNKNOWN_MOST_MS, UNKNOWN_TTL_MS = 1_000, 60_000, 86_400_000


class Endings:
    """The ends that a delivery can have, each one item for the settler.

    Args:
        settle: Takes (run, item).
        now_ms: The wall clock.
    """

    def __init__(self, settle: Callable[[Run, SettleItem], None], now_ms: Callable[[], int]) -> None:
        self._settle = settle
        self.now_ms = now_ms
        self._unknown: set[str] = set()

    def _keep_ms(self, run: Run) -> int:
        if run.message is not None and run.message.options is not None and run.message.options.keep_ms is not None:
            return run.message.options.keep_ms
        return run.task.keep_ms if run.task is not None else UNKNOWN_TTL_MS

    @staticmethod
    def _flags(run: Run) -> str:
        flags = "m" if run.was_moved else ""
        return flags + "s" if run.is_suspect else flags

    def end(self, run: Run, op: str, state: str, payload: bytes, detail: str) -> None:
        """End it with a result record: S success, K skip, C cancel, E expiry."""
        message = run.message
        assert message is not None
        keys = run.lane.queue.keys
        record = encode_result(run.token, state, payload)
        journal = self._journal(run, message.id, message.task, state, detail, len(payload) if op == "S" else 0)
        self._settle(
            run,
            SettleItem(
                op + self._flags(run),
                run.lane.name,
                run.entry,
                run.count,
                journal,
                (record, self._keep_ms(run)),
                keys.result_prefix + message.id,
                None if message.reply_to is None else keys.reply(message.reply_to),
                len(record) + len(journal) + 120,
            ),
        )

    def again(self, run: Run, verdict: Again) -> None:
        """Let it run again as the next attempt."""
        past = run.attempt._replace(attempt=run.attempt.attempt + 1)
        logger.info(
            "task will run again",
            extra={**facts(run), "error": f"{verdict.type_name}: {verdict.message[:300]}", "in_ms": verdict.delay_ms},
        )
        detail = f"{verdict.type_name}: {verdict.message}"[:500]
        error = (verdict.type_name, verdict.digest)
        self.reschedule(run, past, verdict.delay_ms, "retried", detail, error=error)

    def unknown(self, run: Run) -> None:
        """Leave a task that this worker does not declare for one that does."""
        message = run.message
        assert message is not None
        past = run.attempt
        waited_ms = sum(min(UNKNOWN_FIRST_MS << min(n, 20), UNKNOWN_MOST_MS) for n in range(past.deferrals))
        if waited_ms >= UNKNOWN_TTL_MS:
            self.dead(run, "unknown_task", Failure("TaskNotFound", f"for a day no worker knew {message.task!r}"))
            return
        delay_ms = min(UNKNOWN_FIRST_MS << min(past.deferrals, 20), UNKNOWN_MOST_MS)
        if message.task not in self._unknown:
            self._unknown.add(message.task)  # once per name: there may be thousands of messages
            logger.warning("task unknown to this worker, left for another one", extra=facts(run))
        self.reschedule(
            run, past._replace(deferrals=past.deferrals + 1), delay_ms, "deferred", f"unknown task {message.task}"
        )

    def hold(self, run: Run) -> None:
        """Set it aside until its task is resumed; that counts as no attempt."""
        message = run.message
        assert message is not None
        logger.debug("task is paused, set aside", extra=facts(run))
        at_ms = held_score(message.task)
        self.reschedule(run, run.attempt, 0, "deferred", f"task {message.task} is paused", at_ms=at_ms)

    def reschedule(
        self, run: Run, past: Attempt, delay_ms: int, state: str, detail: str, *, at_ms: int | None = None,
        error: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Put it into due with this past; promoted `delay_ms` from now, or at the score `at_ms`.

        `error` is its class and digest.
        """
        message = run.message
        assert message is not None
        body = run.fields[run.fields.index(b"d") + 1]
        due = b"%b\n%b\n%b" % (run.lane.name_bytes, encode_attempt(past).encode(), body)
        journal = self._journal(run, message.id, message.task, state, detail, error=error)
        self._settle(
            run,
            SettleItem(
                "R" + self._flags(run),
                run.lane.name,
                run.entry,
                run.count,
                journal,
                (self.now_ms() + delay_ms if at_ms is None else at_ms, due),
                run.lane.queue.keys.result_prefix + message.id,
                None,
                len(due) + len(journal) + 120,
            ),
        )

    def dead(self, run: Run, reason: str, failure: Failure, digest: str = "") -> None:
        """Put it to the dead letters; garbage without an id too. Without a digest only the failure's class counts."""
        message = run.message
        task_id = message.id if message is not None else f"entry-{run.lane.name}-{run.entry.decode()}"
        name = message.task if message is not None else ""
        letter = self._letter(run, task_id, name, reason, failure)
        logger.error(
            "task is dead",
            extra={
                **facts(run),
                "task_id": task_id,  # by which what cannot be read is shown too
                "reason": reason,
                "error": f"{failure.type_name}: {failure.message[:300]}",
                "traceback": failure.traceback,
            },
        )
        record = encode_result(run.token, State.DEAD, encode_record(failure))
        detail = f"{reason}: {failure.type_name}: {failure.message}"[:500]
        journal = self._journal(run, task_id, name, State.DEAD, detail, error=(failure.type_name, digest))
        keys = run.lane.queue.keys
        rest: tuple[Arg, ...] = (record, max(self._keep_ms(run), 60_000), self.now_ms(), letter)
        reply = keys.reply(message.reply_to) if message is not None and message.reply_to is not None else None
        self._settle(
            run,
            SettleItem(
                "D" + self._flags(run),
                run.lane.name,
                run.entry,
                run.count,
                journal,
                rest,
                keys.result_prefix + task_id,
                reply,
                len(record) + len(letter) + len(journal) + 120,
            ),
        )

    def _letter(self, run: Run, task_id: str, name: str, reason: str, failure: Failure) -> bytes:
        past, body = encode_attempt(run.attempt), _stored(run.fields)
        return encode_record(
            DeadLetter(WIRE_VERSION, task_id, name, run.lane.name, reason, failure, past, self.now_ms(), body)
        )

    def _journal(
        self, run: Run, task_id: str, name: str, state: str, detail: str, result_bytes: int = 0,
        error: tuple[str, str] | None = None,
    ) -> bytes:  # fmt: skip
        run.outcome, run.ended_at_ms = state, self.now_ms()
        record: tuple[Any, ...] = (
            WIRE_VERSION,
            task_id,
            name,
            state,
            run.lane.name,
            run.entry,
            run.attempt.attempt,
            run.consumer,
            run.started_at_ms,
            run.ended_at_ms,
            detail,
            run.attempt.crashes,
            result_bytes,
        )
        options = run.message.options if run.message is not None else None
        # What most have not is not written: a record of nothing but a success stays the shortest.
        is_later_round = run.attempt.round > 1
        span = run.span
        if error or span is not None or is_later_round or (options is not None and options.headers is not None):
            kind, digest = error or ("", "")
            parent, trace_id = origin_of(options)
            if span is not None:
                span.end(state, kind, detail)
                trace_id = trace_id or trace_id_in(span.traceparent)  # of a trace that began with this run
            record = (*record, kind, digest or (digest_of(kind) if kind else ""), parent, trace_id)
        if is_later_round:
            record = (*record, run.attempt.round)
        return encode_record(record)


def facts(run: Run) -> dict[str, Any]:
    """Return what a log line says of a run."""
    message = run.message
    return {
        "task_id": message.id if message else "",
        "task": message.task if message else "",
        "queue": run.lane.queue.name,
        "entry": run.entry.decode(),
        "attempt": run.attempt.attempt,
    }


def _stored(fields: list[bytes]) -> bytes:
    if len(fields) == 2 and fields[0] == b"d":
        return fields[1]
    if b"d" in fields[::2]:
        return fields[fields[::2].index(b"d") * 2 + 1]
    return encode_record(tuple(fields))
