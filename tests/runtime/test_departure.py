"""What a process that is told to drain is given for it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from streamwork.config import Config
from streamwork.worker import departure


@pytest.mark.parametrize(("has_begun", "wanted_s"), [(True, 34.0), (False, 4.0)])
def test_who_takes_deliveries_has_its_drain_timeout_ready_or_not(monkeypatch, has_begun, wanted_s):
    waited, told = [], []

    async def note(span_s):
        waited.append(span_s)

    monkeypatch.setattr(departure.asyncio, "sleep", note)
    replica = SimpleNamespace(
        config=Config(), has_begun=has_begun, is_ready=False, table=SimpleNamespace(loop_at_ms=0),
        tell=told.append, send_off=told.append, kill=lambda *_args, **_named: told.append("killed"),
    )  # fmt: skip
    asyncio.run(departure.drain(replica))
    assert waited == [wanted_s]
    assert told == ["worker.draining", "drain", "killed"]
