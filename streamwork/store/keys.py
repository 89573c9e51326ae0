"""Every key in Redis: name, type, what it holds and who frees it. No other file builds a key name.

All keys of one queue share the hash tag ``{namespace:queue}``, so a queue is one cluster slot and every script stays
within it. `KEYS` is the table of them, without that tag; ``*`` stands for the part that varies. `NAMESPACE_KEYS` are
those of the namespace itself, behind the tag ``{namespace}``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from streamwork.errors import ConfigError
from streamwork.settings import NAME

GROUP = "workers"
RETURNED_CONSUMER = "returned"

Owner = Literal["namespace", "queue", "message", "expires"]


class KeySpec(NamedTuple):
    """One kind of key.

    Attributes:
        pattern: What follows the queue's hash tag.
        kind: Its type in Redis.
        holds: What is in it.
        owner: ``namespace``, ``queue`` = lives as long as that; ``message`` = its members go with the task messages
            they belong to; ``expires`` = it always has a TTL.
        freed_by: What removes it, or its members.
    """

    pattern: str
    kind: Literal["stream", "hash", "zset", "set", "list", "string"]
    holds: str
    owner: Owner
    freed_by: str


KEYS = (
    KeySpec(":lane:*", "stream", "task messages: `d` body, `a` attempt record (retries)", "queue", "trimmed (rule 30)"),
    KeySpec(":lanes", "hash", "lane → creation ms; its length is the lane version", "queue", ""),
    KeySpec(":added", "hash", "lane → messages ever added (rule 33)", "queue", ""),
    KeySpec(":settled", "hash", "lane → messages ever settled (rule 33)", "queue", ""),
    KeySpec(":low", "hash", "lane → id behind which a lost group is restored (rule 8)", "queue", ""),
    KeySpec(":restoring", "hash", "lane → restored up to, to restore up to, instant of the loss", "queue", "restore"),
    KeySpec(":control", "stream", "signals: lane, lost, returned, due, cancel, terminate, …", "queue", "MAXLEN ~ 1000"),
    KeySpec(":paused", "hash", "`queue`, `task:…`, `group:…` → since when and why", "queue", "resume"),
    KeySpec(":bell:*", "list", 'at most one token: "this tag set has work" (rule 6)', "queue", "who is woken"),
    KeySpec(":due", "zset", "task id → run-at ms", "message", "promote, cancel"),
    KeySpec(":due:body", "hash", "task id → lane, attempt record, body", "message", "promote, cancel"),
    KeySpec(":moved", "hash", "task id → lane and entry after a promotion", "message", "finish"),
    KeySpec(":suspects", "hash", "lane/entry → crash and loss counts with evidence", "message", "finish"),
    KeySpec(":kept", "hash", "lane/entry → id, attempt record, body (rule 31)", "message", "finish, unkeep"),
    KeySpec(":cancelled", "hash", "task id → who asked, and whether a run is ended", "message", "finish"),
    KeySpec(":dead", "zset", "task id → died-at ms", "message", "retry, purge"),
    KeySpec(":dead:body", "hash", "task id → lane, attempt record, reason, body", "message", "retry, purge"),
    KeySpec(":result:*", "string", "token, state, payload", "expires", "PX keep_ms"),
    KeySpec(":flow", "hash", "task id → its place, which tells what it has, its limits", "message", "finish"),
    KeySpec(":permits", "hash", "+limit → how many have it, -limit → how many wait for it", "message", "finish, retry"),
    KeySpec(":parked", "zset", "limit, order, task id: who waits for it", "message", "wake, cancel"),
    KeySpec(":parked:body", "hash", "task id → limit, order, lane, attempt record, body", "message", "wake, cancel"),
    KeySpec(":unique", "hash", "name → task id that has it, until", "message", "finish, the maintainer"),
    KeySpec(":turns", "hash", "line, level, group → how many wait, last turn", "message", "submit, wake, cancel"),
    KeySpec(":rates", "hash", "rate → tokens left, when, full when (us)", "expires", "PX, once all are full"),
    KeySpec(":starts", "zset", "limit, instant us, task id: starts in its span", "expires", "PX, the longest span"),
    KeySpec(":wake", "zset", "line → when it has room next, us", "message", "promote"),
    KeySpec(":flow:state", "hash", "arrivals, window and served: counters of flow.lua", "queue", ""),
    KeySpec(":schedules", "hash", "name → schedule", "queue", "remove"),
    KeySpec(":schedules:marks", "hash", "name → last decided occurrence ms, paused (rule 27)", "queue", "remove"),
    KeySpec(":journal", "stream", "what came of each message: field `j`", "queue", "trimmed by age"),
    KeySpec(":imported", "stream", "history from files: `j` as in the journal, `d` body", "expires", "PX, as told"),
    KeySpec(":trimmed", "hash", "`journal`, lane → first id kept, when the rest went, why", "queue", ""),
    KeySpec(":tap:*", "string", "liveness of a tap (rule 30)", "expires", "PX a day"),
    KeySpec(":taps", "hash", "tap → since ms; `tap lane` → messages up to its place", "queue", "untap"),
    KeySpec(":counts", "hash", "state → how many ended so, ever", "queue", ""),
    KeySpec(":sender:*", "string", "last chunk number and its reply (rule 1)", "expires", "PX 10 min"),
    KeySpec(":settle:*", "string", "a consumer's last chunk of ends and its answer (rule 23)", "expires", "PX 10 min"),
    KeySpec(":reply:*", "stream", "ends of this client's messages", "expires", "PX, renewed by the client"),
    KeySpec(":consumers", "hash", "consumer → registration (tags, host, pid, …)", "queue", "deregistration, reaper"),
    KeySpec(":alive:*", "string", "liveness (rule 11)", "expires", "PX liveness TTL"),
    KeySpec(":claimed:*", "string", "when a consumer last claimed work, ms", "expires", "PX an hour"),
    KeySpec(":pulse", "string", "the reaper's own liveness (rule 14)", "expires", "PX"),
    KeySpec(":grace", "string", "nobody is taken now (rule 14)", "expires", "PX"),
    KeySpec(":nearly_full", "string", "large results are dropped (rule 32)", "expires", "PX, by the maintainer"),
    KeySpec(":returned", "set", "lanes that hold entries marked for adoption (rule 15)", "queue", "adopt"),
)  # fmt: skip

NAMESPACE_KEYS = (
    KeySpec(":queues", "set", "queues that anything was sent to or read from", "namespace", ""),
    KeySpec(":events", "stream", "what happens rarely: `e` record, `t` token", "namespace", "MAXLEN ~ 10000"),
    KeySpec(":events:trimmed", "hash", "`events` → first id kept, when the rest went, why", "namespace", ""),
)


def checked_name(kind: str, name: str) -> str:
    """Return `name` if it may be part of a key, else raise ConfigError: letters, digits, ``_ . -``, 100 at most."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(
            f"{kind} {name!r}: use 1-100 letters, digits, '_', '.' or '-', starting with a letter or digit"
        )
    return name


def queues(namespace: str) -> str:
    """Return the key of the set of queue names."""
    return "{" + namespace + "}:queues"


def events(namespace: str) -> str:
    """Return the stream of the events that are of no queue's journal."""
    return "{" + namespace + "}:events"


def events_trimmed(namespace: str) -> str:
    """Return the key that says what went of that stream."""
    return "{" + namespace + "}:events:trimmed"


def spec_of(key: str) -> KeySpec | None:
    """Return what kind of key this is, or None for one that is in neither table."""
    tag, _, rest = key.partition("}")
    table = KEYS if ":" in tag else NAMESPACE_KEYS
    exact = next((spec for spec in table if spec.pattern == rest), None)
    return exact or next(
        (spec for spec in table if spec.pattern[-1] == "*" and rest.startswith(spec.pattern[:-1])), None
    )


class QueueKeys:
    """The keys of one queue; attributes for the fixed ones, methods for the rest."""

    __slots__ = (
        "added",
        "cancelled",
        "consumers",
        "control",
        "counts",
        "dead",
        "dead_body",
        "due",
        "due_body",
        "flow",
        "flow_state",
        "grace",
        "imported",
        "journal",
        "kept",
        "lanes",
        "low",
        "moved",
        "namespace",
        "nearly_full",
        "parked",
        "parked_body",
        "paused",
        "permits",
        "pulse",
        "queue",
        "rates",
        "restoring",
        "result_prefix",
        "returned",
        "schedule_marks",
        "schedules",
        "settled",
        "starts",
        "suspects",
        "tag",
        "taps",
        "trimmed",
        "turns",
        "unique",
        "wake",
    )

    def __init__(self, namespace: str, queue: str) -> None:
        self.namespace = checked_name("namespace", namespace)
        self.queue = checked_name("queue", queue)
        tag = self.tag = "{" + namespace + ":" + queue + "}"
        self.lanes = tag + ":lanes"
        self.added = tag + ":added"
        self.settled = tag + ":settled"
        self.low = tag + ":low"
        self.restoring = tag + ":restoring"
        self.control = tag + ":control"
        self.paused = tag + ":paused"
        self.due = tag + ":due"
        self.due_body = tag + ":due:body"
        self.moved = tag + ":moved"
        self.suspects = tag + ":suspects"
        self.kept = tag + ":kept"
        self.cancelled = tag + ":cancelled"
        self.dead, self.dead_body = tag + ":dead", tag + ":dead:body"
        self.flow = tag + ":flow"
        self.permits = tag + ":permits"
        self.parked = tag + ":parked"
        self.parked_body = tag + ":parked:body"
        self.unique = tag + ":unique"
        self.turns = tag + ":turns"
        self.rates = tag + ":rates"
        self.starts = tag + ":starts"
        self.wake = tag + ":wake"
        self.flow_state = tag + ":flow:state"
        self.schedules = tag + ":schedules"
        self.schedule_marks = tag + ":schedules:marks"
        self.journal = tag + ":journal"
        self.imported = tag + ":imported"
        self.trimmed = tag + ":trimmed"
        self.taps, self.counts = tag + ":taps", tag + ":counts"
        self.consumers = tag + ":consumers"
        self.pulse = tag + ":pulse"
        self.grace = tag + ":grace"
        self.nearly_full = tag + ":nearly_full"
        self.returned = tag + ":returned"
        self.result_prefix = tag + ":result:"

    @property
    def flow_keys(self) -> tuple[str, ...]:
        """The keys of flow.lua that no script has for other reasons, in the order in which scripts declare them."""
        return (
            self.flow, self.permits, self.parked, self.parked_body, self.turns, self.rates, self.starts, self.wake,
            self.flow_state, self.unique, self.paused,
        )  # fmt: skip

    def lane(self, lane: str) -> str:
        """Return the stream of a lane named ``<level>:<tags>``."""
        return f"{self.tag}:lane:{lane}"

    def bell(self, lane: str) -> str:
        """Return the bell of a lane's tag set."""
        return f"{self.tag}:bell:{lane.partition(':')[2]}"

    def result(self, task_id: str) -> str:
        """Return where the result of a task message is."""
        return self.result_prefix + task_id

    def sender(self, sender_id: str) -> str:
        """Return the mark of a sender."""
        return f"{self.tag}:sender:{sender_id}"

    def settle_mark(self, consumer: str) -> str:
        """Return what remembers the last chunk that a consumer settled."""
        return f"{self.tag}:settle:{consumer}"

    def reply(self, client_id: str) -> str:
        """Return the reply stream of a client."""
        return f"{self.tag}:reply:{client_id}"

    def tap(self, name: str) -> str:
        """Return the liveness key of a tap."""
        return f"{self.tag}:tap:{name}"

    def alive(self, consumer: str) -> str:
        """Return the liveness key of a consumer."""
        return f"{self.tag}:alive:{consumer}"

    def claimed(self, consumer: str) -> str:
        """Return the key that says when a consumer last claimed work; it outlives its liveness."""
        return f"{self.tag}:claimed:{consumer}"
