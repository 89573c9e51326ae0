"""The way to Redis: lost answers, cut requests, half-open connections, and a network that is slow or narrow."""

from __future__ import annotations

import time

from streamwork.store.scripts import ENQUEUE, SETTLE
from tests.faults import harm
from tests.faults.registry import scenario
from tests.faults.scenarios.redis_down import held_by_both
from tests.proxy import REPLIES, REQUESTS
from tests.system.kit import deaths

# What each of these is in requests; each is asked for again when its answer is lost, and was executed once.
_ASKED = {
    "enqueue": harm.sends(ENQUEUE),
    "settle": harm.sends(SETTLE),
    "beat": harm.is_beat,
    "read": harm.is_read,
}


def _replies_lost(stage, what):
    """Let Redis run some of these requests by chance, and cut the connection instead of answering."""
    proxy = harm.toxic(stage)
    workers = held_by_both(stage)
    nth = sorted(stage.random.sample(range(1, 13), 4))
    stage.fault(f"replies {nth} to {what} will be lost")
    proxy.lose_reply(_ASKED[what], *nth)
    stage.until(lambda: proxy.dropped == len(nth), "the replies are lost", 30.0)
    stage.prove(f"replies to {what} that were lost", proxy.dropped)
    stage.sent(10)
    assert deaths(*workers) == []


@scenario("reply-lost-enqueue", rules=(1, 23), most_duplicated_runs=0)
def reply_lost_enqueue(stage):
    """Answers to enqueues are lost: each is sent again, and is there once."""
    _replies_lost(stage, "enqueue")


@scenario("reply-lost-settle", rules=(20, 22, 23), most_duplicated_runs=0)
def reply_lost_settle(stage):
    """Answers to settles are lost: each is sent again, and is committed once."""
    _replies_lost(stage, "settle")


@scenario("reply-lost-beat", rules=(11, 12), most_duplicated_runs=0)
def reply_lost_beat(stage):
    """Answers to beats are lost: nobody is taken for dead."""
    _replies_lost(stage, "beat")


@scenario("reply-lost-read", rules=(5, 18), most_duplicated_runs=0)
def reply_lost_read(stage):
    """Answers to reads are lost: what was read is found among what the reader owns, and runs there."""
    _replies_lost(stage, "read")


@scenario("requests-cut", rules=(1, 22, 23), most_duplicated_runs=0)
def requests_cut(stage):
    """Requests of all kinds are cut off before Redis has them, and connections end by a reset or in order."""
    proxy = harm.toxic(stage)
    workers = held_by_both(stage)
    stage.fault("requests cut off")
    nth = sorted(stage.random.sample(range(1, 150), 10))
    proxy.lose_request(lambda request: True, *nth)
    stage.until(lambda: proxy.dropped == len(nth), "the requests are cut off", 30.0)
    stage.prove("requests that were cut off", proxy.dropped)
    for _ in range(4):
        proxy.cut(is_orderly=stage.random.random() < 0.5)
        time.sleep(stage.random.uniform(0.0, 0.3))  # chance: what it falls into
    stage.sent(10)
    assert deaths(*workers) == []


@scenario("connections-torn", rules=(1, 22, 23), most_duplicated_runs=0)
def connections_torn(stage):
    """Each connection is reset after some kilobytes, in the middle of a request or an answer."""
    proxy = harm.toxic(stage)
    workers = held_by_both(stage)
    stage.fault("connections torn")
    proxy.set(REQUESTS, closes_after=(3_000, 12_000))
    proxy.set(REPLIES, closes_after=(1_000, 4_000))
    counts = proxy.counts
    stage.until(lambda: all(counts[way].closed >= 3 for way in counts), "connections are torn both ways", 30.0)
    proxy.set()
    stage.prove("connections torn in a request", counts[REQUESTS].closed)
    stage.prove("connections torn in an answer", counts[REPLIES].closed)
    stage.sent(10)
    assert deaths(*workers) == []


@scenario("half-open-forgotten", rules=(12, 22, 23))
def half_open_forgotten(stage):
    """What connections of now carry is swallowed both ways and nobody is told; new ones work."""
    proxy, workers = _with_deadlines(stage)
    stage.fault("connections forgotten", *workers)
    had = proxy.connections
    proxy.stall()
    stage.until(lambda: proxy.connections - had >= 4, "they are given up for new ones", 30.0)
    stage.prove("connections made instead", proxy.connections - had)
    stage.sent(10)


@scenario("half-open-packets", rules=(11, 12, 20, 22, 23))
def half_open_packets(stage):
    """The kernel drops all packets to Redis for less or more than a life; who is cut off writes nothing twice."""
    proxy, _ = _with_deadlines(stage)
    beside = stage.worker(url=stage.server.url)
    lives = stage.random.choice((0.4, 2.5))
    stage.fault("packets dropped")
    proxy.drop_packets()
    time.sleep(lives * stage.scenario.ttl_s)  # the fault itself
    stage.until(proxy.resent, "the kernel sends anew")  # that is the proof, and a busy machine may be late
    stage.prove("times that the kernel sends anew", proxy.resent())
    if lives > 1:
        stage.until(lambda: "dead consumer taken" in beside.text(), "who cannot be heard is taken for dead")
    proxy.pass_packets()
    stage.open()
    stage.sent(10)


def _with_deadlines(stage):
    """Put a proxy before Redis, and start workers and a load that give a silent connection up after 1.5 s."""
    proxy = harm.toxic(stage)
    stage.settings = {"client.deadline_s": 1.5}
    return proxy, held_by_both(stage, environ={"STREAMWORK_CLIENT_DEADLINE_S": "1.5"})


def _slow(stage, what, *ways, **toxics):
    proxy = harm.toxic(stage)
    workers = held_by_both(stage)
    stage.fault(what)
    proxy.set(*ways, **toxics)
    stage.sent(25, 30.0)
    assert deaths(*workers) == []
    return proxy


@scenario("slow-latency", rules=(12, 14), most_duplicated_runs=0)
def slow_latency(stage):
    """Each request and each answer is late, by chance."""
    latency_s = stage.random.uniform(0.02, 0.06)
    proxy = _slow(stage, "latency", latency_s=latency_s, jitter_s=latency_s)
    stage.prove("seconds late, all together", round(sum(counts.late_s for counts in proxy.counts.values()), 1))


@scenario("slow-bandwidth", rules=(12, 14), most_duplicated_runs=0)
def slow_bandwidth(stage):
    """Few bytes pass per second, requests or answers."""
    way = stage.random.choice((REQUESTS, REPLIES))
    proxy = _slow(stage, f"few {way} per second", way, bytes_per_s=stage.random.uniform(8_000, 20_000))
    stage.prove(f"seconds that {way} waited", round(proxy.counts[way].late_s, 1))


@scenario("slow-slices", rules=(12, 14), most_duplicated_runs=0)
def slow_slices(stage):
    """Requests and answers arrive in pieces of a few bytes, with pauses between."""
    proxy = _slow(stage, "tiny pieces", slice_bytes=stage.random.randint(10, 60), slice_pause_s=0.0005)
    # The scripts, 200 KB of them, had passed whole before that.
    pieces, passed = proxy.since_set()
    stage.prove("bytes per piece", passed / pieces < 100 and round(passed / pieces, 1))
