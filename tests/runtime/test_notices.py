"""Who is told of dead letters: each once, nobody for long, and whatever a listener does harms nothing."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from streamwork import ConfigError, Streamwork
from streamwork.config import load
from streamwork.wire.message import DeadLetter, Failure, encode_record
from streamwork.worker import notices
from streamwork.worker.notices import Herald, Notices
from tests.helpers import wait_until

LETTER = encode_record(DeadLetter(1, "0" * 32, "tests.t", "1:", "failed", Failure("E", "no"), "1,0,0,1,0", 7, b"x"))


def test_a_listener_that_raises_is_told_of_the_next_one(caplog):
    told = []

    def tell(record):
        told.append(record.id)
        raise SystemExit("no")

    herald = Herald("on_dead", tell)
    for task_id in ("a", "b"):
        herald.put("default", task_id, LETTER)
    herald.close(time.monotonic() + 10)
    assert told == ["0" * 32] * 2
    assert caplog.text.count("a listener failed") == 2


def test_a_listener_that_hangs_holds_up_neither_who_tells_it_nor_the_end(caplog, monkeypatch):
    monkeypatch.setattr(notices, "CLOSE_S", 0.05)
    go, began, told = threading.Event(), threading.Event(), []

    def tell(record):
        began.set()
        go.wait()
        told.append(record)

    herald = Herald("on_dead", tell)
    herald.put("default", "a", LETTER)
    assert began.wait(10)
    for _ in range(notices.MOST_WAITING + 50):
        herald.put("default", "a", LETTER)
    assert caplog.text.count("does not keep up") == 1
    herald.close(time.monotonic() + 0.05)
    assert "before the end" in caplog.text
    assert not told
    go.set()
    wait_until(lambda: len(told) == 1 + notices.MOST_WAITING, "those in the line to be told")


def test_where_nobody_listens_nothing_is_made():
    silent = Notices(Streamwork("silent"), load().config, None)
    before = threading.active_count()
    asyncio.run(silent.close())
    assert threading.active_count() == before


def test_what_cannot_be_told_is_refused_where_it_is_said():
    with pytest.raises(ConfigError, match="on_dead: 7 is no function"):
        Streamwork("silent").on_dead(7)
    for url in ("ftp://x.org", "x.org/dead", "https://"):
        with pytest.raises(ConfigError, match="dead_webhook \\(set by code\\): give a URL"):
            load({"dead_webhook": url})
