"""What a worker says of a Redis that is away: one line when it begins, one with its length when it is over."""

from __future__ import annotations

import re
import signal
import time

import pytest

from tests.apps import faults


@pytest.fixture
def streamwork_redis_url(server):
    """These tests hurt the whole server."""
    return server.url


@pytest.fixture
def redis_url(server):
    return server.url


def _told(worker):
    return [line for line in worker.text().splitlines() if " warning " in line or " error " in line]


def test_an_outage_is_one_line_at_its_start_and_one_at_its_end(start, send, server, notes):
    worker = start(processes=2)
    held = [send(faults.hold, notes.path, str(number)) for number in range(4)]
    notes.until(4)
    server.stop(signal.SIGKILL)
    worker.until("Redis is away")
    told_s = time.monotonic()
    notes.go()  # their outcomes wait, the reads fail, and so does each service of the supervisor
    server.start()
    back_s = time.monotonic()
    assert [handle.result(timeout=20) for handle in held] == [(1, 0)] * 4
    worker.until("Redis is back")
    first, last = _told(worker)
    assert "Redis is away" in first
    assert server.url.partition("://")[2].partition("?")[0] in first
    assert float(re.search(r"away_s=([0-9.]+)", last)[1]) > back_s - told_s - 0.1


def test_a_worker_that_drains_without_redis_has_said_it_once(start, send, server, notes):
    worker = start(drain_timeout_s=1)
    send(faults.hold, notes.path, "one")
    notes.until(1)
    server.stop(signal.SIGKILL)
    worker.until("Redis is away")
    worker.signal()
    worker.wait()
    server.start()
    assert worker.text().count("Redis is away") == 1
    assert "Redis is back" not in worker.text()
