"""Every key in Redis: name, type, what it holds and who frees it. No other file builds a key name.

All keys of one queue share the hash tag ``{namespace:queue}``, so a queue is one cluster slot and every script stays
within it. ``q`` below is that tag.

===================== ======= ============================================================ ==========================
key                   type    holds                                                        freed by
===================== ======= ============================================================ ==========================
q:lane:<level>:<tags> stream  task messages: ``d`` body, ``a`` attempt record (retries)    queue; trimmed (rule 30)
q:lanes               hash    lane → creation ms; its length is the lane version           queue
q:added, q:settled    hash    lane → messages ever added / ever settled (rule 33)          queue
q:low                 hash    lane → id to recreate a lost group at (rule 8)               queue
q:control             stream  signals to supervisors: new lane, returned, due, cancel      queue; MAXLEN ~ 1000
q:bell:<tags>         list    at most one token: "this tag set has work" (rule 6)          queue
q:due                 zset    task id → run-at ms                                          message (promote, finish)
q:due:body            hash    task id → lane, attempt record, body                         message
q:moved               hash    task id → lane and entry after a promotion                   message (finish)
q:suspects            hash    lane/entry → crash and loss counts with evidence             message (finish)
q:cancelled           hash    task id → who asked                                          message (finish)
q:dead                zset    task id → died-at ms                                         message (retry, purge)
q:dead:body           hash    task id → lane, attempt record, reason, body                 message
q:result:<id>         string  token, state, payload                                        PX keep_ms
q:journal             stream  what came of each message: field ``j``                       queue; trimmed by age
q:counts              hash    state → how many ended so, ever                              queue
q:sender:<id>         string  last chunk number and its reply (rule 1)                     PX 10 min
q:reply:<client>      stream  ends of this client's messages                               PX, renewed by the client
q:consumers           hash    consumer → registration (tags, host, pid, …)                 queue; deregistration, reaper
q:alive:<consumer>    string  liveness (rule 11)                                           PX liveness TTL
q:pulse, q:grace      string  the reaper's own liveness / nobody is taken now (rule 14)    PX
q:returned            set     lanes that hold entries marked for adoption (rule 15)        queue; adopt
===================== ======= ============================================================ ==========================

Namespace level: ``{namespace}:queues`` (set of queue names, no TTL, owner: the namespace).
"""

from __future__ import annotations

import re

from streamwork.errors import ConfigError

GROUP = "workers"
RETURNED_CONSUMER = "returned"

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")


def checked_name(kind: str, name: str) -> str:
    """Return `name` if it may be part of a key, else raise ConfigError: letters, digits, ``_ . -``, 100 at most."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"{kind} {name!r}: use 1-100 letters, digits, '_', '.' or '-', starting with a letter or digit")
    return name


def queues(namespace: str) -> str:
    """Return the key of the set of queue names."""
    return "{" + namespace + "}:queues"


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
        "grace",
        "journal",
        "lanes",
        "low",
        "moved",
        "namespace",
        "pulse",
        "queue",
        "result_prefix",
        "returned",
        "settled",
        "suspects",
        "tag",
    )

    def __init__(self, namespace: str, queue: str) -> None:
        self.namespace = checked_name("namespace", namespace)
        self.queue = checked_name("queue", queue)
        tag = self.tag = "{" + namespace + ":" + queue + "}"
        self.lanes = tag + ":lanes"
        self.added = tag + ":added"
        self.settled = tag + ":settled"
        self.low = tag + ":low"
        self.control = tag + ":control"
        self.due = tag + ":due"
        self.due_body = tag + ":due:body"
        self.moved = tag + ":moved"
        self.suspects = tag + ":suspects"
        self.cancelled = tag + ":cancelled"
        self.dead = tag + ":dead"
        self.dead_body = tag + ":dead:body"
        self.journal = tag + ":journal"
        self.counts = tag + ":counts"
        self.consumers = tag + ":consumers"
        self.pulse = tag + ":pulse"
        self.grace = tag + ":grace"
        self.returned = tag + ":returned"
        self.result_prefix = tag + ":result:"

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

    def reply(self, client_id: str) -> str:
        """Return the reply stream of a client."""
        return f"{self.tag}:reply:{client_id}"

    def alive(self, consumer: str) -> str:
        """Return the liveness key of a consumer."""
        return f"{self.tag}:alive:{consumer}"
