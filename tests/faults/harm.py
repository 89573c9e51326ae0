"""Harm to a Redis and to the way there, each with its proof: what `scenarios/` puts together."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from streamwork.errors import StreamworkError
from tests.faults.stage import process_state
from tests.proxy import is_script
from tests.toxics import ToxicProxy

# TIME and the destruction in one step: what has an entry of that millisecond or before is gone.
_FLUSH = "local now = redis.call('TIME') redis.call('FLUSHALL') return now"
_DELETE = "local now = redis.call('TIME') redis.call('DEL', KEYS[1]) return now"
# A command that keeps the server busy: DEBUG SLEEP is locked away in 7.0, and scripts have no clock there.
_BUSY = "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + i % 7 end return n"


def toxic(stage):
    """Put a proxy before the Redis, and return it: workers and producers made from now on go through it."""
    proxy = ToxicProxy(stage.server.socket_path, stage.random.random())
    stage.on_close(proxy.close)
    stage.url = proxy.url
    return proxy


def kill_redis(stage):
    """SIGKILL the Redis, and prove it."""
    pid = stage.server.pid
    stage.fault("Redis killed")
    stage.server.stop(signal.SIGKILL)
    stage.prove("the Redis that was killed", process_state(pid) == "" and pid)


def until_no_fsync(stage):
    """Wait until no fsync goes on, nor is about to: one begins as a second of the server's clock does.

    During one, the server answers what it has not written to its file yet, and a kill loses what it acknowledged: the
    price of `everysec`, and no fault of ours.
    """

    def is_between():
        _, micros = map(int, stage.redis("TIME"))
        return info(stage, "persistence")["aof_pending_bio_fsync"] == "0" and 200_000 < micros < 700_000

    stage.until(is_between, "no fsync goes on")


def restart_redis(stage):
    """Start the Redis again on its data; its first answer is noted."""
    stage.server.start()
    stage.driver.close()  # its connection is that of the dead one
    stage.answered()


def freeze_redis(stage, seconds):
    """SIGSTOP the Redis for so long, and prove it."""
    pid = stage.server.pid
    stage.fault("Redis frozen")
    os.kill(pid, signal.SIGSTOP)
    try:
        stage.until(lambda: process_state(pid) == "T", "it stands still")
        stage.prove("state of the Redis", process_state(pid))
        time.sleep(seconds)  # the fault itself
    finally:
        os.kill(pid, signal.SIGCONT)
    stage.answered()


def flush(stage):
    """FLUSHALL, and note what is gone."""
    stage.fault("FLUSHALL")
    stage.erased(_ms(stage.redis("EVAL", _FLUSH, 0)))
    stage.prove("calls of FLUSHALL", calls(stage, "flushall"))


def delete_lane(stage, lane):
    """DEL a lane, and note what is gone."""
    stage.fault("lane deleted")
    had = stage.redis("XLEN", stage.keys.lane(lane))
    stage.erased(_ms(stage.redis("EVAL", _DELETE, 1, stage.keys.lane(lane))), lane)
    stage.prove("entries of the lane that was deleted", had)


def _ms(now):
    seconds, micros = map(int, now)
    return seconds * 1000 + micros // 1000


def busy_redis(stage, seconds):
    """Keep the Redis busy with one script; others are answered BUSY after a while, or not at all."""
    stage.fault("Redis busy")
    stage.redis("SLOWLOG", "RESET")
    loops, slowest = 1_000_000, 0.0
    # How fast Redis counts is known only from the time it took, and on a busy machine changes from one run to the next.
    for _ in range(8):
        stage.redis("EVAL", _BUSY, 0, loops)
        slowest = max(int(entry[2]) for entry in stage.redis("SLOWLOG", "GET", 20)) / 1e6
        if slowest > 0.5 * seconds:
            break
        loops = int(loops * min(50, seconds / max(slowest, 0.001)))
    stage.prove("seconds that one command took", slowest > 0.5 * seconds and round(slowest, 2))


def info(stage, section):
    """Return a section of INFO, texts by name."""
    lines = stage.redis("INFO", section).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def refusals(stage, code):
    """Return how often the Redis has answered an error of this code."""
    return int(info(stage, "errorstats").get(f"errorstat_{code}", "count=0").partition("=")[2])


def calls(stage, command):
    """Return how often a command was run."""
    return int(info(stage, "commandstats").get(f"cmdstat_{command}", "calls=0").partition("=")[2].partition(",")[0])


def kill_connections(stage):
    """CLIENT KILL everybody but the stage, and return how many connections that were."""
    return stage.redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@contextlib.contextmanager
def setting(stage, name, value):
    """Have another setting of the Redis meanwhile."""
    before = stage.redis("CONFIG", "GET", name)[1]
    stage.redis("CONFIG", "SET", name, value)
    try:
        yield
    finally:
        with contextlib.suppress(StreamworkError):  # the run has failed, and its Redis may be gone
            stage.redis("CONFIG", "SET", name, before)


def sends(*scripts):
    """Return what matches the requests of these scripts."""
    matches = [is_script(one) for one in scripts]
    return lambda request: any(match(request) for match in matches)


def is_beat(request):
    """Whether a request renews a worker's life."""
    return request[0] == b"PEXPIRE" and b":alive:" in request[1]


def is_read(request):
    """Whether a request reads new entries."""
    return request[0] == b"XREADGROUP"
