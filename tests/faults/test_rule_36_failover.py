"""Rule 36: what a Redis that loses acknowledged writes can break stands beside the promise, and is what it breaks."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from streamwork import ConfigError, Streamwork
from streamwork.errors import StoreUnavailable
from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.helpers import body_of, seed, state_of
from tests.redis.kit import LANE, deliver, outgoing, put, read, settle

README = Path(__file__).parents[2] / "README.md"


def promise():
    """Return the section that says what is promised, as one line."""
    section = re.search(r"^## What it promises$(.*?)^## ", README.read_text(), re.MULTILINE | re.DOTALL)
    return " ".join(section[1].split())


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("P1", "an enqueue that returned is gone"),
        ("P3", "a result that you have seen is gone, and the message runs again: a second outcome is committed"),
        ("sender marks", "the number is gone by which a call is known that is sent again"),
        ("unique", "`unique`"),
        ("cron marks", "the marks of cron"),
        ("outbox", "what workflows hand over from queue to queue"),
        ("durability", "no option narrows yet (`durability` is not there)"),
        ("wording", 'at most one committed outcome while Redis keeps its acknowledged writes. Never "exactly once"'),
    ],
)
def test_what_a_lossy_failover_breaks_stands_beside_the_promise(what, words):
    assert words.lower() in promise().lower(), what


def test_an_option_that_would_narrow_it_is_refused_until_it_does():
    """Whoever builds it takes it off the README, and a typed error says where it cannot be kept."""

    @Streamwork("shop").task
    def task() -> None: ...

    with pytest.raises(ConfigError):
        task.options(durability="fsync")


@pytest.fixture
def kept(own):
    """Keep what there is by now, on disk: what comes after it is lost with `roll_back`."""
    return lambda: own.run(plain("SAVE"))


@pytest.fixture
def roll_back(server, own):
    """Kill the server and start it as it was when it was last kept, as a replica that lagged would be."""

    def back():
        server.stop(signal.SIGKILL)
        server.start()
        try:
            own.run(plain("PING"))
        except StoreUnavailable:
            own.run(plain("PING"))

    return back


def test_an_enqueue_that_returned_is_gone(own, own_keys, kept, roll_back):
    put(own, own_keys)
    kept()
    put(own, own_keys, 2)
    roll_back()
    assert len(read(own, own_keys, "w")) == 1


def test_a_result_that_was_seen_is_gone_and_another_one_is_committed(own, own_keys, kept, roll_back):
    (delivery,) = deliver(own, own_keys, "w1")
    kept()
    assert settle(own, own_keys, delivery, value=b"\x01")
    seen = state_of(own, own_keys).results[delivery.task_id]
    roll_back()
    assert state_of(own, own_keys).results == {}
    own.run(scripts.take(own_keys, LANE, "w1", mode="leave"))
    (again,) = own.run(scripts.adopt(own_keys, LANE, "w2", 1))
    assert settle(own, own_keys, delivery._replace(consumer="w2", count=again.delivered), value=b"\x02")
    assert state_of(own, own_keys).results[delivery.task_id].payload != seen.payload


def test_a_call_that_is_sent_again_runs_twice(own, own_keys, kept, roll_back):
    kept()
    message = outgoing()
    chunk = lambda: own.run(scripts.enqueue(own_keys, "s", 1, [LANE], [1, message.body], 1, 64))
    ran = []
    for _ in range(2):
        chunk()
        (delivery,) = read(own, own_keys, "w")
        assert settle(own, own_keys, delivery)
        ran.append(delivery.task_id)
        roll_back()
    assert ran == [message.task_id] * 2


def test_a_cancel_that_was_answered_is_gone(own, own_keys, kept, roll_back):
    message = body_of("tests.echo")
    seed(own, own_keys, message, due_at_ms=1)
    kept()
    assert own.run(scripts.cancel(own_keys, message[0], "me", b"c\ncancelled\n", 60_000, "me")) == "cancelled"
    roll_back()
    assert own.run(scripts.promote(own_keys, [LANE], 10)).moved == 1
