"""Send past task messages anew, chunk by chunk, each noted in the log before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from streamwork.broker.lookup import find_task
from streamwork.broker.outgoing import CHUNK_BYTES, Outgoing
from streamwork.broker.trimmed import trimmed_up_to_ms
from streamwork.errors import QueueFull, ReplayRefused
from streamwork.ids import new_task_id, task_id_at_ms
from streamwork.model.replay import ReplayCall, Replayed
from streamwork.replay.choosing import Chosen
from streamwork.replay.host import Host
from streamwork.replay.log import Log
from streamwork.replay.pace import Pace, sleep
from streamwork.wire.message import encode_message

# Few enough that an interruption leaves little in doubt, and that the file costs less than Redis.
_MOST = 100
# What is due within so many seconds goes at once.
_SOON_S = 0.02

Told = Callable[[ReplayCall], None]


class Sending:
    """One run of a replay.

    Args:
        app: Whose Redis and tasks.
        into: The queue.
        log: What earlier runs have sent, and what this one does.
        pace: When each goes.
        told: Called with each message once its fate is known: `new_id` says that it is sent, `why` that it is not.
    """

    def __init__(self, app: Host, into: str, log: Log, pace: Pace, told: Told) -> None:
        self._app, self._into, self._log, self._pace, self._told = app, into, log, pace, told
        self._before = len(log.sent)
        self._refused: dict[str, str] = {}
        self._chunk: list[tuple[Chosen, Outgoing]] = []
        self._size = 0

    def send(self, chosen: Iterable[Chosen]) -> Replayed:
        """Send what earlier runs have not; raises what sending raises, and then the log says how far it came."""
        for one in chosen:
            if one.call.id in self._log.sent:
                continue
            if one.call.why:
                self._refuse(one.call, one.call.why)
                continue
            wait_s = self._pace.wait_s(one.call.made_at_ms)
            if wait_s > _SOON_S:
                self._flush()
                sleep(wait_s)
            self._add(one)
        self._flush()
        self._log.end()
        return Replayed(
            replay=self._log.head.replay, sent=len(self._log.sent) - self._before, sent_before=self._before,
            refused=self._refused,
        )  # fmt: skip

    def _refuse(self, call: ReplayCall, why: str) -> None:
        self._refused[call.id] = why
        self._told(msgspec.structs.replace(call, why=why))

    def _add(self, one: Chosen) -> None:
        made = self._outgoing(one)
        is_full = len(self._chunk) == _MOST or self._size + len(made.body) > CHUNK_BYTES
        if self._chunk and (is_full or self._chunk[0][1].way != made.way):
            self._flush()
        self._chunk.append((one, made))
        self._size += len(made.body)

    def _outgoing(self, one: Chosen) -> Outgoing:
        options, task = one.options, self._app.tasks.get(one.call.task)
        flow = None if task is None else task.limits_of(one.call.lane, one.packed)
        if flow is not None and flow.begins:
            options = msgspec.structs.replace(options, begins=True)
        task_id = new_task_id()
        body = encode_message(task_id, one.call.task, *one.packed, options, None)
        when = f"+{flow.delay_ms}" if flow is not None and flow.delay_ms else ""
        return Outgoing(task_id, one.call.lane, body, when, b"" if flow is None else flow.limits)

    def _flush(self) -> None:
        if not self._chunk:
            return
        chunk, self._chunk, self._size = self._chunk, [], 0
        self._log.begin([(one.call.id, made.task_id) for one, made in chunk])
        try:
            answers = self._app.connection.send_made(self._into, [made for _, made in chunk])
        except QueueFull as error:
            # What fits was sent, from the begin of the chunk.
            self._log.answer({}, [one.call.id for one, _ in chunk[error.sent :]])
            raise
        refused = {one.call.id: _why(answer) for (one, _), answer in zip(chunk, answers, strict=True) if _why(answer)}
        self._log.answer(refused)
        for one, made in chunk:
            if one.call.id in refused:
                self._refuse(one.call, refused[one.call.id])
            else:
                self._told(msgspec.structs.replace(one.call, new_id=made.task_id))


def _why(answer: str) -> str:
    """Say why a message was not sent; an answer is an entry, or what submit.lua says of a unique one."""
    if answer[:1] == "!" or answer[:1] == "=":
        return f"task message {answer[1:].partition('~')[0]}, which has not ended, has its name (unique=)"
    return ""


def settle_doubt(app: Host, into: str, log: Log) -> None:
    """Ask Redis which messages of a chunk arrived that an earlier run had no answer for.

    Raises:
        ReplayRefused: Its answer would mean nothing, since history of that time is gone.
    """
    doubt, keys = log.in_doubt, app.connection.keys(into)
    if not doubt:
        return
    missing = [old for old, new in doubt if app.connection.ask(find_task([keys], new)) is None]
    since_ms = min(task_id_at_ms(new) or 0 for _, new in doubt)
    if missing and app.connection.ask(trimmed_up_to_ms(keys)) >= since_ms:
        raise ReplayRefused(
            f"replay {log.head.replay} was interrupted so long ago that queue {into!r} does not tell any more which of "
            "its last messages arrived: look at what there is, and begin another one (--anew, anew=True)"
        )
    log.answer({}, missing)
