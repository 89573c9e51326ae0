"""Every error that streamwork raises on purpose, drawn as one tree.

::

    StreamworkError
    ├── ConfigError             config            a setting or the app itself is wrong
    │   ├── AppNotFound         app_not_found     no app where one was looked for
    │   ├── AppBroken           app_broken        the app's own code raises when it is imported
    │   ├── UseAsync            use_async         a blocking call on an event loop's thread
    │   ├── NotPrivate          not_private       a test would touch queues that are not its own
    │   └── WhereError          bad_where         an expression over arguments that cannot be read
    ├── TaskError
    │   ├── TaskNotFound        task_not_found    no task of that name
    │   ├── DuplicateTaskName   duplicate_task    two functions under one name
    │   └── RouteError          route_failed      a predicate of app.route raises
    ├── WireError               wire              a value that cannot be stored or read back
    │   ├── ArgumentError       bad_arguments     arguments do not fit the task's signature
    │   ├── ResultTypeError     bad_result        what a task returned is not of its annotated type
    │   ├── BodyTooLarge        body_too_large    over the size limit
    │   ├── DecodeError         undecodable       bytes that are not ours
    │   └── HistoryFileError    bad_history_file  a history file of another version, cut short or garbled
    ├── StoreError              store             Redis refused or broke a rule
    │   ├── StoreUnavailable    redis_unavailable not reached, loading, busy or read-only
    │   ├── StoreRejected       redis_rejected    wrong password, no permission, wrong type
    │   ├── StoreFull           redis_full        maxmemory reached or disk full
    │   ├── QueueFull           queue_full        a queue is at its own limit, max_backlog
    │   └── EmbeddedError       embedded_redis    the private server cannot be used
    ├── BrokerError             broker
    │   ├── EnqueueUnknown      enqueue_unknown   sent, but nobody knows whether it arrived
    │   ├── TooManyLanes        too_many_lanes    more tag sets than a queue may have
    │   ├── AlreadyQueued       already_queued    a unique one that has not ended is there
    │   ├── LeaseLost           lease_lost        another consumer holds the delivery
    │   ├── WorkerCut           worker_cut        a body has cancelled the loops of its worker
    │   ├── QueueNotFound       queue_not_found   nothing was ever sent to or read from it
    │   ├── HistoryTrimmed      history_trimmed   what was asked for is past its retention
    │   ├── DeadLetterRefused   dead_letter       it is none, cannot be read, or was changed meanwhile
    │   ├── ReplayRefused       replay_refused    too many, begun before, or its place is not known
    │   └── NotSent             not_sent          asked of what a body has sent while it was replayed
    └── ResultError             result
        ├── ResultTimeout       result_timeout    not finished in the time given
        ├── ResultGone          result_gone       finished, but its result is no longer kept
        └── TaskFailed          task_failed       the task raised; type, message, traceback text
            └── TaskCancelled   task_cancelled    it was cancelled, before it ran or while it did

`TaskSignal` stands apart: what a task may raise to steer its own delivery; it is never logged as a fault.
The faces map `code` to exit statuses; errors of the redis package appear only as `__cause__`.
"""

from __future__ import annotations

from asyncio import CancelledError


class StreamworkError(Exception):
    """Base of everything that streamwork raises on purpose."""

    code = "error"


class ConfigError(StreamworkError):
    """A setting, or the app itself, is wrong; nothing was started."""

    code = "config"


class AppNotFound(ConfigError):
    """No app was found where one was looked for."""

    code = "app_not_found"


class AppBroken(ConfigError):
    """The module of the app raises when it is imported; the text says where and what."""

    code = "app_broken"


class UseAsync(ConfigError):
    """A blocking method was called on the thread of a running event loop."""

    code = "use_async"


class NotPrivate(ConfigError):
    """The testing kit was to look into or empty queues that are not a test's own; nothing was touched."""

    code = "not_private"


class WhereError(ConfigError):
    """An expression over arguments is none of the documented ones; nothing was read."""

    code = "bad_where"


class TaskError(StreamworkError):
    """Something is wrong with a task's declaration or name."""

    code = "task"


class TaskNotFound(TaskError):
    """No task of that name is declared here."""

    code = "task_not_found"


class ScheduleNotFound(TaskError):
    """There is no schedule of this name."""

    code = "schedule_not_found"


class DuplicateTaskName(TaskError):
    """Two functions were declared under one task name."""

    code = "duplicate_task"


class RouteError(TaskError):
    """The predicate of a route raises, so nobody knows where the call goes; nothing was sent."""

    code = "route_failed"


class WireError(StreamworkError):
    """A value cannot be stored, or stored bytes cannot be read back."""

    code = "wire"


class ArgumentError(WireError):
    """Arguments do not fit the task's signature; nothing was enqueued."""

    code = "bad_arguments"


class ResultTypeError(WireError):
    """What a task returned is not of its annotated type; the task has failed, as its traceback in the worker says."""

    code = "bad_result"


class BodyTooLarge(WireError):
    """The encoded task message is over the size limit; nothing was enqueued.

    Attributes:
        size, limit: Bytes that the message would take, and that are allowed.
    """

    code = "body_too_large"

    def __init__(self, task: str, size: int, limit: int) -> None:
        super().__init__(
            f"the message for {task} takes {size:,} bytes and the limit is {limit:,}: "
            "pass a reference to the data, or raise max_body_bytes"
        )
        self.size = size
        self.limit = limit


class DecodeError(WireError):
    """Bytes that are not a task message, or not of a version known here."""

    code = "undecodable"


class HistoryFileError(WireError):
    """A file is no history file, is one of another version, or is cut short or garbled; the text says which."""

    code = "bad_history_file"


class StoreError(StreamworkError):
    """Redis refused a command or broke an expectation."""

    code = "store"


class StoreUnavailable(StoreError):
    """Redis was not reached, or said that it cannot serve now.

    Attributes:
        maybe_executed: False when the request surely had no effect; True when it was sent and the answer is missing.
    """

    code = "redis_unavailable"

    def __init__(self, message: str, *, maybe_executed: bool = True) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed


class StoreRejected(StoreError):
    """Redis answered and refuses for good: wrong password, missing permission, a key of the wrong type."""

    code = "redis_rejected"


class StoreFull(StoreError):
    """Redis is at maxmemory or its disk is full; the write was refused whole."""

    code = "redis_full"


class QueueFull(StoreError):
    """A queue holds as many unended task messages as it may (``client.max_backlog``); the rest was not sent.

    Attributes:
        queue: Its name.
        backlog: Task messages that wait, run or are scheduled there.
        limit: How many there may be.
        sent: Of the calls of one `enqueue_many`, those that were sent before, and stay sent.
    """

    code = "queue_full"

    def __init__(self, queue: str, backlog: int, limit: int, sent: int = 0) -> None:
        done = f"{sent:,} were sent before and stay sent" if sent else "nothing was sent"
        super().__init__(
            f"queue {queue!r} holds {backlog:,} task messages that wait, run or are scheduled, and may hold {limit:,} "
            f"(client.max_backlog); {done}: wait for room with options(wait=...), start workers, or raise the limit"
        )
        self.queue = queue
        self.backlog = backlog
        self.limit = limit
        self.sent = sent

    @property
    def room(self) -> int:
        """How many more there was room for."""
        return max(0, self.limit - self.backlog)

    def after(self, sent: int) -> QueueFull:
        """Return this, said to somebody for whom so many more were sent before."""
        return QueueFull(self.queue, self.backlog, self.limit, self.sent + sent)


class EmbeddedError(StoreError):
    """The private redis-server of this project cannot be started or joined."""

    code = "embedded_redis"


class BrokerError(StreamworkError):
    """A rule of the queues was broken."""

    code = "broker"


class EnqueueUnknown(BrokerError):
    """Sent, and no answer came within the resend time: it may have arrived, or may still arrive.

    Attributes:
        task_ids: Ids of the task messages in doubt; look them up before sending anew.
    """

    code = "enqueue_unknown"

    def __init__(self, message: str, task_ids: list[str]) -> None:
        super().__init__(message)
        self.task_ids = task_ids


class TooManyLanes(BrokerError):
    """A queue has reached its bound of distinct (priority, tag set) pairs; nothing was enqueued."""

    code = "too_many_lanes"


class AlreadyQueued(BrokerError):
    """A task message with this ``unique=`` key has not ended; the call was not sent.

    Of an `enqueue_many` the others that were sent with it stay sent; the text says how many.

    Attributes:
        task_id: The one that is there.
    """

    code = "already_queued"

    def __init__(self, message: str, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id


class LeaseLost(BrokerError):
    """Another consumer holds this delivery now; nothing was written."""

    code = "lease_lost"


class WorkerCut(BrokerError):
    """A body has cancelled the loops of its own worker, which cannot go on; what had started is blamed for it."""

    code = "worker_cut"


class QueueNotFound(BrokerError):
    """Nothing was ever sent to or read from a queue of this name."""

    code = "queue_not_found"


class HistoryTrimmed(BrokerError):
    """The history of a task message is past its retention; the text says when it went, and by which setting.

    Attributes:
        task_id: The message.
        trimmed_at_ms: When that part of the history went, ms since 1970.
    """

    code = "history_trimmed"

    def __init__(self, message: str, task_id: str, trimmed_at_ms: int) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.trimmed_at_ms = trimmed_at_ms


class DeadLetterRefused(BrokerError):
    """A dead letter is not there any more, cannot be read, or was changed meanwhile; nothing was written."""

    code = "dead_letter"


class ReplayRefused(BrokerError):
    """A replay was not begun, or does not go on; the text says why and what to do."""

    code = "replay_refused"


class NotSent(BrokerError):
    """A body that is replayed asks for what does not exist: what it sends is captured, so nothing comes of it."""

    code = "not_sent"


class ResultError(StreamworkError):
    """A result is not to be had."""

    code = "result"


class ResultTimeout(ResultError):
    """The task message did not end in the time given, and is not withdrawn; the text says where it is."""

    code = "result_timeout"


class ResultGone(ResultError):
    """The task message ended, but its result was not kept or is past its retention."""

    code = "result_gone"


class TaskFailed(ResultError):
    """The task ended without success, as told by the worker that ran it.

    The original class is not imported: what is known of it is text.

    Attributes:
        task_id, state: Of the task message: `dead`, `cancelled`, `expired`, ….
        type_name, message: Qualified name of the exception's class, or the reason's name, and its text.
        traceback: The worker's traceback as text, empty where there was none.
    """

    code = "task_failed"

    def __init__(self, task_id: str, state: str, type_name: str, message: str, traceback: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.task_id = task_id
        self.state = state
        self.type_name = type_name
        self.message = message
        self.traceback = traceback


class TaskCancelled(TaskFailed):
    """The task message was cancelled, before it ran or while it did; it does not run again."""

    code = "task_cancelled"


class SoftTimeout(StreamworkError, CancelledError):
    """Raised in a body at its soft limit, to clean up until the hard one. ``except Exception`` catches it.

    To asyncio it is a cancellation too, so that a task group or a timeout around the place where it is raised ends.
    """

    code = "soft_timeout"


class TaskSignal(Exception):
    """Base of what a task raises to steer its delivery."""

    reason: str = ""  # here too, for subclasses that do not call __init__


class RetryLater(TaskSignal):
    """Run this task message again later; counts as an attempt.

    Args:
        in_s: Seconds from now, ≥ 0; None takes the retry policy's own delay.
        reason: Kept in the history.
    """

    in_s: float | None = None

    def __init__(self, in_s: float | None = None, reason: str = "") -> None:
        if in_s is not None and not 0 <= in_s < 1e11:  # nan compares as false; 1e11 s is 3,000 years
            raise ValueError(f"RetryLater(in_s={in_s}): a delay cannot be negative or without end")
        super().__init__(reason or "retry later")
        self.in_s = in_s
        self.reason = reason


class Reject(TaskSignal):
    """Put this task message to the dead letters now, whatever its retry policy says."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "rejected")
        self.reason = reason


class Skip(TaskSignal):
    """End this task message without a result and without a fault."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "skipped")
        self.reason = reason
