"""look.lua: several answers of one instant, also from a Redis that is full."""

from __future__ import annotations

import threading

from streamwork.broker.stats import queue_stats
from streamwork.broker.steps import ask
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.looking import look
from streamwork.store.sync_driver import SyncDriver
from tests.helpers import body_of, seed
from tests.redis.kit import full


def test_answers_come_in_order_and_a_refusal_spoils_no_other(driver, keys):
    driver.run(plain("HSET", keys.added, "1:", 3))
    answers = driver.run(
        look(
            [
                plain("HGET", keys.added, "1:"),
                plain("XPENDING", keys.lane("1:"), "workers"),
                plain("HGET", keys.low, "x"),
            ]
        )
    )
    assert answers[0] == b"3"
    assert "NOGROUP" in str(answers[1])
    assert isinstance(answers[1], Exception)
    assert answers[2] is None
    driver.run(plain("UNLINK", keys.added))


def test_a_full_redis_can_be_looked_at(own, own_keys):
    seed(own, own_keys, body_of("t"), body_of("t"))
    with full(own):
        assert ask(own, queue_stats(own_keys)).waiting == 2


def test_all_is_read_at_one_instant(driver, keys, redis_url):
    stop = threading.Event()

    def move():
        mover = SyncDriver(Endpoint(redis_url), ())
        number = 0
        while not stop.is_set():  # both or neither
            number += 1
            mover.run_all([
                plain("MULTI"), plain("HSET", keys.added, "1:", number), plain("HSET", keys.settled, "1:", number),
                plain("EXEC"),
            ])  # fmt: skip
        mover.close()

    thread = threading.Thread(target=move)
    thread.start()
    try:
        pairs = [driver.run(look([plain("HGET", key, "1:") for key in (keys.added, keys.settled)])) for _ in range(500)]
    finally:
        stop.set()
        thread.join()
    assert all(one == other for one, other in pairs)
    assert len({one for one, _ in pairs}) > 1
    driver.run(plain("UNLINK", keys.added, keys.settled))
