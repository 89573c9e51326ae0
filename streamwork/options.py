"""Options of tasks and messages: their names, what they may be, and what a wrong one is told."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict, cast

from streamwork.errors import ConfigError
from streamwork.model.flow import FLOW_OPTIONS
from streamwork.model.lane import DEFAULT_PRIORITY
from streamwork.model.limits import Debounce, Group, Key, Limit, Rate, Unique
from streamwork.model.policy import DEFAULT_RETRY, Retry, RetryRule
from streamwork.model.span import Seconds, milliseconds
from streamwork.store.keys import checked_name


class _Options(TypedDict, total=False):
    queue: str
    tags: Iterable[str]
    priority: int
    timeout: Seconds | None
    soft_timeout: Seconds | None
    keep: Seconds | None
    expires: Seconds | datetime | None
    rate: Rate | list[Rate] | None
    concurrency: Limit | list[Limit] | None
    key: Key | None
    group: Key | Group | None
    unique: Unique | Key | bool | None
    debounce: Seconds | Debounce | None


class MessageOptions(_Options, total=False):
    """Options of `task.options`; times are seconds as float or timedelta.

    Attributes:
        queue: Queue name.
        tags: What a worker must offer.
        priority: 0 (last) – 9 (first).
        timeout: Time limit of one run, a millisecond or longer; None = none.
        soft_timeout: `SoftTimeout` is raised in a run that lasts so long; shorter than `timeout`; None = never.
        keep: Retention of the result; 0 = keep none; None = the app's.
        retry: A Retry for every exception, or None: the first failure is the last.
        wait: How long an enqueue tries while Redis is away or full, or the queue is (``client.max_backlog``), 0 – 9e9;
            None = ``client.send_timeout_s`` while it is away, and not at all while something is full.
        delay: Runs so long after it was sent, and never sooner; 0 = now.
        run_at: Runs at this instant, a datetime with a time zone, and never sooner; in the past = now.
        expires: What has not begun so long after it was sent, or by this datetime, does not begin; None = whenever.
            Set by the sender's clock and judged by the worker's.
        rate: How often it starts, in all workers together: a `Rate`, or several; None = as often as it comes.
        concurrency: How many run at once, in all workers together: a `Limit`, or several; None = no limit.
        key: A text, or a function of the arguments: calls of one key run one at a time, in the order sent, through
            their retries. None = no order but the lane's.
        group: A name, a `Group`, or a function of the arguments: groups of a queue take turns. None = no turns.
        unique: A key, a function of the arguments, True for all arguments, or a `Unique`: one of them at a time.
        debounce: A span of time, or a `Debounce`: of those that come within it, only the last one runs.
    """

    retry: Retry | None
    wait: Seconds | None
    delay: Seconds
    run_at: datetime


class TaskOptions(_Options, total=False):
    """Options of `@app.task`: those of `MessageOptions`, and more.

    Attributes:
        name: Task name; None = module and function.
        retry: A Retry, a list of them (the first that fits counts) or None.
        executor: ``thread`` or ``process`` for sync bodies.
    """

    name: str | None
    retry: RetryRule
    executor: Literal["thread", "process"]


MESSAGE_OPTIONS = frozenset(
    {
        "queue",
        "tags",
        "priority",
        "retry",
        "timeout",
        "soft_timeout",
        "keep",
        "expires",
        "wait",
        "delay",
        "run_at",
        *FLOW_OPTIONS,
    }
)
TASK_OPTIONS = MESSAGE_OPTIONS - {"wait", "delay", "run_at"} | {"name", "executor"}
DEFAULTS: Mapping[str, Any] = {
    "queue": "default", "tags": (), "priority": DEFAULT_PRIORITY, "retry": DEFAULT_RETRY, "timeout": None,
    "soft_timeout": None, "keep": None,
}  # fmt: skip
TIMES = frozenset({"delay", "run_at", "expires"})
# What users of Celery are used to write, and how it is said here.
_CELERY: Mapping[str, str] = {
    "countdown": "task.options(delay=...), in seconds",
    "eta": "task.options(run_at=...), a datetime with a time zone",
    "time_limit": "timeout=",
    "soft_time_limit": "soft_timeout=",
    "rate_limit": "rate=Rate(...), for all workers together",
    "max_retries": "retry=Retry(max_attempts=...), which counts the first run too",
    "autoretry_for": "retry=Retry(on=...)",
    "default_retry_delay": "retry=Retry(base=...)",
    "retry_backoff": "retry=Retry(base=..., factor=...)",
    "retry_backoff_max": "retry=Retry(max_delay=...)",
    "retry_jitter": "retry=Retry(jitter=...)",
    "ignore_result": "keep=0",
    "result_expires": "keep=",
    "bind": "a parameter that is annotated with Context",
    "routing_key": "queue=",
    "task_id": "unique=, for one of a kind at a time; ids are made here",
}
_CELERY_METHODS: Mapping[str, str] = {
    "apply_async": "task.options(delay=..., queue=...).enqueue(1, 2)",
    "apply": "a plain call, task(1, 2), or app.inline() in tests",
    "s": "task.call(1, 2)",
    "si": "task.call(1, 2)",
    "signature": "task.call(1, 2)",
    "subtask": "task.call(1, 2)",
    "map": "app.enqueue_many(task.call(n) for n in ...)",
    "starmap": "app.enqueue_many(task.call(*each) for each in ...)",
    "chunks": "app.enqueue_many(task.call(n) for n in ...)",
    "AsyncResult": "task.handle(task_id)",
}


def tags_of(tags: object) -> frozenset[str]:
    """Return tags as a set; raises ConfigError."""
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        raise ConfigError(f"tags={tags!r}: give a set of texts")
    return frozenset([checked_name("tag", tag) for tag in tags])


def limit_s(value: Seconds | None, name: str = "timeout") -> float | None:
    """Return a time limit in seconds, None = none; raises ConfigError."""
    if value is None:
        return None
    limit_ms = milliseconds(value, name)
    if not limit_ms:
        raise ConfigError(f"{name}=0: use None for no limit")
    return limit_ms / 1000


def check_limits(soft_s: float | None, hard_s: float | None) -> None:
    """Raise ConfigError for a soft limit that is never reached."""
    if soft_s is not None and hard_s is not None and soft_s >= hard_s:
        raise ConfigError(
            f"soft_timeout={soft_s:g}: it has to be shorter than timeout={hard_s:g}, which ends the run; None = none"
        )


def check_options(options: object, allowed: frozenset[str], where: str) -> None:
    """Raise ConfigError for an unknown option, naming the nearest one."""
    for name in cast(dict[str, Any], options):
        if name not in allowed:
            if name in _CELERY:
                raise ConfigError(f"{where}: unknown option {name!r}: here it is {_CELERY[name]}")
            close = difflib.get_close_matches(name, allowed, 1)
            hint = f": did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(allowed))}"
            raise ConfigError(f"{where}: unknown option {name!r}{hint}")


def misplaced(kwargs: Iterable[str]) -> str:
    """Say which of these named arguments, which a task does not take, are options; empty where none is."""
    for name in kwargs:
        if name in _CELERY:
            return f"; {name} is here {_CELERY[name]}"
        if name in MESSAGE_OPTIONS:
            return f"; if {name} is meant as an option, say task.options({name}=...).enqueue(...)"
    return ""


def no_such_method(name: str, method: str) -> str:
    """Return what is said of a task's attribute that is not there, with what Celery's method of that name is here."""
    hint = f": here it is {_CELERY_METHODS[method]}" if method in _CELERY_METHODS else ""
    return f"task {name} has no attribute {method!r}{hint}"
