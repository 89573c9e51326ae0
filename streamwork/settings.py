"""The settings themselves: one frozen struct per room, with unit, default and why that default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

# What may be part of a key; `store.keys.checked_name` says so in words.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")

WEBHOOK = re.compile(r"https?://[^\s/]+\S*")

# What is said of every queue and of single ones: the pattern of its numbers, and how to word it.
BY_QUEUE = {
    "client.max_backlog": (r"[0-9]{1,15}", "a whole number, 0 = no limit,"),
    "keep.history_s": (r"[0-9]{1,12}(\.[0-9]{1,9})?", "seconds, 0 = for ever,"),
    "keep.dead_s": (r"[0-9]{1,12}(\.[0-9]{1,9})?", "seconds, 0 = for ever,"),
    "keep.history_most": (r"[0-9]{1,15}", "a whole number, 0 = no bound,"),
}


class ClientConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this process talks to Redis.

    Attributes:
        connect_timeout_s: Seconds for one attempt to connect; 1 s fails fast and is long for a network.
        deadline_s: Seconds for one answer before a connection is given up.
        send_timeout_s: Seconds that an enqueue keeps trying to reach a Redis that is away; 0 = one try.
        resend_s: Seconds after the first try in which a lost answer is asked for again; 300 at most count, since Redis
            forgets a sender after 600.
        max_body_bytes: Largest task message; Redis is no blob store and 1 MB already costs it milliseconds.
        max_lanes: Distinct (priority level, tag set) pairs per queue.
        max_backlog: Most task messages of a queue that wait, run or are scheduled: a number for every queue, and
            ``name=number`` for one of its own; 0 = no limit, as where nothing is said. What this process sends beyond
            it is refused (`QueueFull`), or waits as long as `options(wait=)` says.
    """

    connect_timeout_s: float = 1.0
    deadline_s: float = 10.0
    send_timeout_s: float = 10.0
    resend_s: float = 60.0
    max_body_bytes: int = 1_048_576
    max_lanes: int = 64
    max_backlog: tuple[str, ...] = ()

    @property
    def backlogs(self) -> dict[str, int]:
        """The limits by queue; ``*`` = every other one, 0 = none."""
        return {name or "*": int(most) for name, _, most in (text.rpartition("=") for text in self.max_backlog)}


class WorkerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a worker runs.

    Attributes:
        tags: What this worker offers.
        queues: Which queues it reads; empty = all that the app's tasks use.
        slots: Deliveries in hand at once per process; no more are read.
        threads: Threads for sync tasks per process; 0 = as many as slots, started when needed.
        processes: Worker processes under one supervisor.
        drain_timeout_s: Seconds that SIGTERM leaves running tasks.
        max_tasks: Deliveries after which a process is replaced; 0 = never.
        max_memory_mb: Resident memory above which a process is replaced; 0 = no bound.
        block_s: Longest wait in one blocking read; 2 s bounds what a lost wake-up costs (rule 6).
        hung_after_s: A process whose loop has not turned for so long is killed; 0 = never (rule 19).
        bell_fleet: Consumers of a queue from which idle ones wait on the doorbell: since Redis 7.2 every XADD re-runs
            each blocked read, 0.14 ms at 100 clients and 1.4 ms at 1,000.
        max_starve_s: A lane that waits behind higher ones is looked at at least this often (rule 7).
    """

    tags: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    slots: int = 100
    threads: int = 0
    processes: int = 1
    drain_timeout_s: float = 30.0
    max_tasks: int = 0
    max_memory_mb: int = 0
    block_s: float = 2.0
    hung_after_s: float = 60.0
    bell_fleet: int = 100
    max_starve_s: float = 10.0


class LivenessConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How soon the dead are noticed.

    Attributes:
        ttl_s: Life of a liveness key. A SIGKILLed worker's tasks run elsewhere within 2 x ttl_s; 0.5 at least.
    """

    ttl_s: float = 5.0

    @property
    def ttl_ms(self) -> int:
        """Life of a liveness key, ms."""
        return int(self.ttl_s * 1000)

    @property
    def beat_s(self) -> float:
        """Seconds between beats: four fit into one life, so three may be lost."""
        return self.ttl_s / 4

    @property
    def pulse_ms(self) -> int:
        """Life of the reaper's pulse: TTL − 2 beats, which lapses just before a live worker's key would (rule 14)."""
        return int(self.ttl_s * 500)

    @property
    def reap_s(self) -> float:
        """Seconds between reaper ticks: 0.38 TTL leaves a standby a quarter of the pulse to take over."""
        return self.ttl_s * 0.38

    @property
    def near_ms(self) -> int:
        """What is left of the pulse when a standby takes over: half of the slack between tick and pulse, ms."""
        return int((self.pulse_ms - self.reap_s * 1000) / 2)


class KeepConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long things are kept.

    Attributes:
        result_s: Results; 0 = none are written.
        history_s: Settled entries and the journal, by age: a number of seconds for every queue, and ``name=number`` for
            one of its own; 0 = for ever. A week where nothing is said.
        history_most: The same by count, written so: records of a queue's journal at most, and the entries that those
            speak of; 0 = no bound, as where nothing is said. What is unsettled, or newer than that, stays in any case.
        dead_s: Dead letters, from when they died on, written so; 0 = for ever. 90 days where nothing is said: long
            enough for whoever is to look at them, and an end for what nobody does.
    """

    result_s: float = 86_400.0
    history_s: tuple[str, ...] = ("604800",)
    history_most: tuple[str, ...] = ()
    dead_s: tuple[str, ...] = ("7776000",)

    def age_ms(self, queue: str) -> int:
        """How long the history of a queue is kept, ms; 0 = for ever."""
        return round(float(of_queue(self.history_s, queue) or WEEK_S) * 1000)

    def most(self, queue: str) -> int:
        """How many records of a queue are kept; 0 = no bound."""
        return int(of_queue(self.history_most, queue) or 0)

    def dead_ms(self, queue: str) -> int:
        """How long the dead letters of a queue are kept, ms; 0 = for ever."""
        return round(float(of_queue(self.dead_s, queue) or DAYS_90_S) * 1000)


class TelemetryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is told to OpenTelemetry and Prometheus; nothing where nothing is said, and then nothing of it is imported.

    Attributes:
        traces: ``off``; ``on`` = spans go to the TracerProvider that the app has set up; ``otlp`` = they are sent out,
            by one of ours where the app has none (extra ``otlp``).
        metrics: ``off``, or ``otlp`` = each worker process sends its own (extra ``otlp``).
        sample: Share of the traces begun here that are kept, 0 – 1; whoever begins one decides for all that follows.
        otlp_endpoint: Base URL of the receiver, such as ``http://collector:4318``; None = as ``OTEL_EXPORTER_OTLP_…``
            say, else localhost.
        push_s: Seconds between two sendings of metrics.
        metrics_host: Address on which a worker answers Prometheus.
        metrics_port: Port of the same, for all processes of a worker together (extra ``prometheus``); 0 = none.
    """

    traces: Literal["off", "on", "otlp"] = "off"
    metrics: Literal["off", "otlp"] = "off"
    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    otlp_endpoint: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/]+\S*$")] | None = None
    push_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] = 60.0
    metrics_host: str = "0.0.0.0"  # noqa: S104 - Prometheus asks from elsewhere
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0

    @property
    def counts(self) -> bool:
        """Whether anybody wants to know the numbers of a worker."""
        return self.metrics != "off" or self.metrics_port > 0


WEEK_S, DAYS_90_S = "604800", "7776000"


def listed(text: str) -> list[str]:
    """Return the parts of a text with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def by_queue(value: Any) -> Any:
    """Return numbers by queue in their one form, from a number, a text or a table too."""
    if isinstance(value, Mapping):
        return [f"{name}={_digits(number)}" for name, number in value.items()]
    return listed(_digits(value)) if isinstance(value, (str, int, float)) else value


def _digits(number: Any) -> str:
    # 1e-05 is how Python writes a short time.
    return f"{number:.9f}".rstrip("0").rstrip(".") if isinstance(number, float) else str(number)


def of_queue(texts: tuple[str, ...], queue: str) -> str | None:
    """Return what ``number`` and ``name=number`` say of a queue; None where nothing is said."""
    said = {name or "*": number for name, _, number in (text.rpartition("=") for text in texts)}
    return said.get(queue, said.get("*"))


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings.

    Attributes:
        url: Redis; None = the embedded server of this project folder.
        app: ``package.module:attribute`` of the app, for the command line.
        namespace: Name of the app, for commands that run where it cannot be imported.
        redis_server: Binary for the embedded server; None = search.
        folder: Where the embedded server keeps its data; `load` makes it absolute, from the folder of the
            pyproject.toml that has a ``[tool.streamwork]``, else from the current one, so that all users of a project
            meet there.
        log_level: Of the worker's log lines: debug, info, warning, error or critical.
        log_format: Of the same: ``text`` or ``json``, one object per line.
        dead_webhook: URL that workers post each dead letter to, as JSON and without its arguments; None = none.
    """

    url: str | None = None
    app: str | None = None
    namespace: str | None = None
    redis_server: str | None = None
    folder: str = ".streamwork"
    log_level: str = "info"
    log_format: str = "text"
    dead_webhook: str | None = None
    client: ClientConfig = ClientConfig()
    worker: WorkerConfig = WorkerConfig()
    liveness: LivenessConfig = LivenessConfig()
    keep: KeepConfig = KeepConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
