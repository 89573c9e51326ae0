"""Guards of liveness, reclaim, history, processes and loops: rules 11-19, 30-34, 38, 39."""

from __future__ import annotations

from tests.faults.guard import Guard

LIVING: dict[str, Guard] = {}
