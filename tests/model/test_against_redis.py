"""The model answers as a real server does: random requests go to both, and so do whole scripts."""

from __future__ import annotations

import hiredis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from streamwork.errors import StoreError
from streamwork.store.commands import plain
from tests.model.server import KEYS, ModelServer

STREAM, HASH, ZSET, SET, LIST, TEXT = (
    f"{KEYS.tag}:{name}" for name in ("stream", "hash", "zset", "set", "list", "text")
)
EVERY = (STREAM, HASH, ZSET, SET, LIST, TEXT)
FAR_MS = 100_000_000

_names = st.sampled_from(["a", "b", "c"])
_keys = st.sampled_from([*EVERY, HASH, ZSET, SET, LIST, TEXT])
# Half of them exist, for a model in which ids go up by one.
_ids = st.builds(lambda ms, seq: f"{ms}-{seq}", st.integers(1, 6), st.sampled_from([0, 0, 0, 1]))
_BEGUN = [
    ("XGROUP", "CREATE", STREAM, "g", "0", "MKSTREAM"), *(("XADD", STREAM, f"{ms}-0", "d", "a") for ms in (1, 2, 3)),
    ("XREADGROUP", "GROUP", "g", "w1", "COUNT", 2, "STREAMS", STREAM, ">"),
]  # fmt: skip
_from, _to = (st.one_of(st.just(end), _ids, _ids.map("({}".format)) for end in "-+")
_who = st.sampled_from(["w1", "w2", "returned"])
_counts = st.integers(1, 3)


def _request(name, *parts):
    return st.tuples(st.just(name), *(part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts))


_plain = st.one_of(
    _request("GET", _keys), _request("SET", TEXT, _names), _request("SET", TEXT, _names, "PX", FAR_MS),
    _request("SET", TEXT, "x", "PX", 0), _request("DEL", _keys), _request("DEL", HASH, ZSET), _request("EXISTS", _keys),
    _request("TYPE", _keys), _request("PEXPIRE", _keys, FAR_MS), _request("PERSIST", _keys),
    _request("MGET", TEXT, HASH),
    _request("HSET", _keys, _names, _names), _request("HSET", HASH, _names, 7), _request("HSETNX", HASH, _names, "x"),
    _request("HGET", _keys, _names), _request("HMGET", HASH, _names, _names), _request("HDEL", _keys, _names, _names),
    _request("HEXISTS", HASH, _names), _request("HLEN", _keys), _request("HKEYS", HASH), _request("HGETALL", HASH),
    _request("HINCRBY", _keys, _names, st.integers(-3, 3)),
    _request("SADD", _keys, _names, _names), _request("SREM", SET, _names), _request("SMEMBERS", SET),
    _request("RPUSH", _keys, _names), _request("LLEN", _keys), _request("LPOP", LIST),
    _request("ZADD", _keys, st.integers(0, 4), _names), _request("ZREM", ZSET, _names),
    _request("ZSCORE", _keys, _names),
    _request("ZCARD", ZSET), _request("ZRANGE", ZSET, 0, st.integers(-1, 2)),
    _request("ZRANGE", ZSET, 0, 0, "WITHSCORES"),
    _request("ZRANGEBYSCORE", ZSET, "-inf", st.integers(0, 4), "LIMIT", 0, _counts),
)  # fmt: skip

_look = st.one_of(
    _request("XRANGE", STREAM, _from, _to), _request("XRANGE", STREAM, _from, _to, "COUNT", _counts),
    _request("XREVRANGE", STREAM, _to, _from, "COUNT", _counts), _request("XLEN", _keys),
    _request("XPENDING", STREAM, "g"), _request("XPENDING", STREAM, "g", _from, _to, _counts),
    _request("XPENDING", STREAM, "g", _from, _to, _counts, _who), _request("XINFO", "CONSUMERS", STREAM, "g"),
)  # fmt: skip

_stream = st.one_of(
    _request("XADD", _keys, "*", "d", _names).filter(lambda request: request[1] != STREAM),
    _request("XADD", STREAM, _ids, "d", _names), _request("XADD", STREAM, "NOMKSTREAM", _ids, "d", _names),
    _request("XADD", STREAM, "MAXLEN", "~", 1, _ids, "d", _names),
    _request("XADD", STREAM, "MAXLEN", "=", 3, _ids, "d", _names),
    _request("XGROUP", "CREATE", STREAM, "g", st.one_of(st.sampled_from(["0", "$"]), _ids), "MKSTREAM"),
    _request("XGROUP", "CREATE", STREAM, "g", "0"), _request("XGROUP", "DESTROY", STREAM, "g"),
    _request("XGROUP", "DELCONSUMER", STREAM, "g", _who),
    _request("XREADGROUP", "GROUP", "g", _who, "COUNT", _counts, "STREAMS", STREAM, ">"),
    _request("XACK", _keys, "g", _ids, _ids), _request("XTRIM", STREAM, "MINID", "=", _ids),
    _request("XTRIM", STREAM, "MINID", "~", _ids, "LIMIT", 100), _request("XDEL", STREAM, _ids),
    _request("DEL", STREAM),
    _request("XCLAIM", STREAM, "g", _who, 0, _ids),
    _request("XCLAIM", STREAM, "g", _who, 0, _ids, _ids, "TIME", 1, "JUSTID"),
    _request("XCLAIM", STREAM, "g", _who, 0, _ids, "TIME", 1, "RETRYCOUNT", 9, "FORCE", "JUSTID"),
    _request("XCLAIM", STREAM, "g", _who, 3_600_000, _ids), _look,
)  # fmt: skip

_ENDED = [
    ("XRANGE", STREAM, "-", "+"), ("XPENDING", STREAM, "g"), ("XPENDING", STREAM, "g", "-", "+", 10), ("HGETALL", HASH),
    ("ZRANGE", ZSET, 0, -1, "WITHSCORES"), ("SMEMBERS", SET), ("GET", TEXT), ("LLEN", LIST),
]  # fmt: skip

_quick = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    """One model for all."""
    return ModelServer()


@pytest.fixture
def version(driver):
    """The server's major version."""
    text = driver.run(plain("INFO", "server")).decode()
    return int(text.partition("redis_version:")[2].partition(".")[0])


def _of_model(model, command):
    reply = model.execute(command)
    return ("error", str(reply).partition(" ")[0]) if isinstance(reply, hiredis.ReplyError) else _read(reply)


def _read(reply):
    if isinstance(reply, list):
        return [_read(part) for part in reply]
    return reply.encode() if isinstance(reply, str) else reply


def _of_server(driver, command):
    try:
        return _read(driver.run(command))
    except StoreError as error:
        text = str(error)
        for code in ("WRONGTYPE", "NOGROUP", "BUSYGROUP"):
            if code in text:
                return ("error", code)
        return ("error", "ERR")


def _comparable(request, answer):
    """Leave out what is a matter of time or of no order."""
    name = request[0]
    if isinstance(answer, tuple):
        return answer
    if name in {"HKEYS", "SMEMBERS"}:
        return sorted(answer)
    if name == "HGETALL":
        return sorted(zip(answer[::2], answer[1::2], strict=True))
    if name == "XPENDING" and len(request) > 3:
        return [[row[0], row[1], row[3]] for row in answer]
    if name == "XINFO":
        rows = [dict(zip(row[::2], row[1::2], strict=True)) for row in answer]
        # Whether a look without an entry makes a consumer is another matter in each version, and nothing here asks.
        return sorted((row[b"name"], row[b"pending"]) for row in rows if row[b"pending"])
    if name == "XADD" and b"-" in (answer or b"") and request[2] == "*":
        return "an id"
    return answer


def _compare(driver, model, version, requests):
    for key in EVERY:
        driver.run(plain("DEL", key))
    model.reset(2_000_000_000_000, version)
    for number, request in enumerate(requests, 1):
        command = plain(*request)
        real, ours = _of_server(driver, command), _of_model(model, command)
        assert _comparable(request, ours) == _comparable(request, real), (
            f"{number}: {request} after {requests[:number]}"
        )


@pytest.mark.parametrize("requests", [_plain, _stream, st.one_of(_plain, _stream)], ids=["plain", "streams", "both"])
def test_requests_are_answered_alike(driver, model, version, requests):
    @_quick
    @given(st.lists(requests, min_size=5, max_size=40))
    def alike(them):
        _compare(driver, model, version, [*([] if requests is _plain else _BEGUN), *them, *_ENDED])

    try:
        alike()
    finally:
        for key in EVERY:
            driver.run(plain("DEL", key))
