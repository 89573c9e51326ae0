"""H1: what a page of history costs out of so many attempts; runs inside streamwork's virtual environment."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from benchlib.latency import percentile
from benchlib.peers.streamwork_ import app, noop
from streamwork.store.commands import plain

Figures = dict[str, Any]

_PAGE = 100
_DRAWS = 300
_SEED = 7
_POLL_S = 0.2


def recall(count: int) -> Figures:
    """Let a worker run so many tasks, then read their history: pages from anywhere, the newest, one id, all of it."""
    ids: list[str] = []
    for handle in app.enqueue_many(noop.call(i) for i in range(count)):
        if len(ids) < _DRAWS or random.random() < _DRAWS / count:
            ids.append(handle.id)
    driver, keys = app.connection.driver, app.connection.keys("default")
    while int(driver.run(plain("HGET", keys.counts, "succeeded")) or 0) < count:
        time.sleep(_POLL_S)
    first, last = (next(iter(app.history("default", limit=1, reverse=way))).ended_at_ms for way in (False, True))
    dice = random.Random(_SEED)

    def anywhere() -> datetime:
        return datetime.fromtimestamp(dice.uniform(first, last) / 1000, UTC)

    asked: dict[str, Iterator[dict[str, Any]]] = {
        "page": ({"since": anywhere(), "limit": _PAGE} for _ in range(_DRAWS)),
        "newest": ({"limit": _PAGE, "reverse": True} for _ in range(_DRAWS)),
        "where": ({"since": anywhere(), "limit": _PAGE, "where": "arg0 >= 0"} for _ in range(_DRAWS)),
        "id": ({"id": task_id, "limit": 1} for task_id in dice.sample(ids, min(len(ids), _DRAWS))),
    }
    figures: Figures = {"attempts": int(driver.run(plain("XLEN", keys.journal)))}
    for name, questions in asked.items():
        spans = [_span_ms(question) for question in questions]
        figures[f"{name}_p50"], figures[f"{name}_p99"] = percentile(spans, 0.5), percentile(spans, 0.99)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    seen = sum(1 for _ in app.history("default"))
    figures["all_rate"] = seen / (time.monotonic() - begun)
    figures["grown_mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    figures["missing"] = count - seen
    return figures


def _span_ms(question: dict[str, Any]) -> float:
    begun = time.perf_counter()
    found = list(app.history("default", **question))
    assert found, question
    return (time.perf_counter() - begun) * 1000
