"""What the server, the network or a setting can do wrong: one typed error each, with place and remedy (rule 23)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import threading
import time

import pytest
import redis

from streamwork.errors import ConfigError, StoreError, StoreFull, StoreRejected, StoreUnavailable
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.failures import NoGroup, NoScript, NotPermitted, translated
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from tests.helpers import wait_until
from tests.proxy import DropReplyProxy
from tests.redis.kit import full, outgoing

KINDS = ["sync", "async"]


def ask(kind, url, *commands, deadline_s=5.0, between=None):
    """Run commands on a fresh driver; `between` is called before the last."""
    if kind == "sync":
        driver = SyncDriver(Endpoint(url), ALL_SCRIPTS, deadline_s)
        try:
            for command in commands[:-1]:
                driver.run(command)
            if between is not None:
                between()
            return driver.run(commands[-1])
        finally:
            driver.close()

    async def main():
        driver = AsyncDriver(Endpoint(url), ALL_SCRIPTS, deadline_s)
        try:
            for command in commands[:-1]:
                await driver.run(command)
            if between is not None:
                between()
            return await driver.run(commands[-1])
        finally:
            await driver.close()

    return asyncio.run(main())


def an_enqueue(keys):
    message = outgoing()
    return scripts.enqueue(keys, "s", 1, [message.lane], [1, message.body], 1, 64)


def failure(kind, url, *commands, **options):
    with pytest.raises(StoreError) as caught:
        ask(kind, url, *commands, **options)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_listens(kind, server, proxy):
    proxy.close()
    error = failure(kind, proxy.url, plain("PING"))
    assert type(error) is StoreUnavailable
    assert isinstance(error, StoreUnavailable)
    assert not error.maybe_executed
    assert proxy.where in str(error)
    assert "start it, or correct the URL" in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_the_socket_of_a_stopped_server(kind, server):
    server.stop()
    error = failure(kind, server.url, plain("PING"))
    assert (type(error), error.maybe_executed) == (StoreUnavailable, False)
    assert server.socket_path in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_that_does_not_exist(kind):
    error = failure(kind, "redis://no-such-host.invalid:7/0", plain("PING"))
    assert (type(error), error.maybe_executed) == (StoreUnavailable, False)
    assert "no-such-host.invalid:7" in str(error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("login", [":wrong@", "", "ghost:word@"])
def test_a_wrong_or_missing_password(kind, login, own, proxy):
    own.run(plain("CONFIG", "SET", "requirepass", "right"))
    error = failure(kind, proxy.url.replace("//", f"//{login}"), plain("PING"))
    assert type(error) is NotPermitted
    assert f"{proxy.where} refuses" in str(error)
    assert "check the user" in str(error)
    assert "wrong" not in str(error).replace("WRONGPASS", "")
    assert ask(kind, proxy.url.replace("//", "//:right@"), plain("PING")) == b"PONG"


@pytest.mark.parametrize("kind", KINDS)
def test_a_password_that_is_asked_for_later(kind, own, own_keys, proxy):
    def between():
        own.run(plain("ACL", "SETUSER", "someone", "off"))

    own.run(plain("ACL", "SETUSER", "someone", "on", ">word", "~*", "+@all"))
    url = proxy.url.replace("//", "//someone:word@")
    assert ask(kind, url, plain("PING")) == b"PONG"
    between()
    assert type(failure(kind, url, plain("PING"))) is NotPermitted


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_without_permission(kind, own, own_keys, proxy):
    own.run(plain("ACL", "SETUSER", "reader", "on", ">word", "~*", "+@all", "-xadd"))
    error = failure(kind, proxy.url.replace("//", "//reader:word@"), plain("PING"), an_enqueue(own_keys))
    assert type(error) is StoreRejected
    assert proxy.where in str(error)
    assert own.run(plain("EXISTS", own_keys.lane("1:"))) == 0 or own.run(plain("XLEN", own_keys.lane("1:"))) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_that_is_taken_away_later_is_told_from_a_bad_request(kind, own, own_keys, proxy):
    def between():
        own.run(plain("ACL", "SETUSER", "someone", "-evalsha"))

    own.run(plain("ACL", "SETUSER", "someone", "on", ">word", "~*", "+@all"))
    url = proxy.url.replace("//", "//someone:word@")
    error = failure(kind, url, plain("PING"), an_enqueue(own_keys), between=between)
    assert type(error) is NotPermitted
    assert isinstance(error, StoreRejected)
    assert own.run(plain("EXISTS", own_keys.lane("1:"))) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_script_that_is_flushed_as_soon_as_it_is_loaded_was_not_executed(kind, own, own_keys, monkeypatch):
    class Flushing(SyncDriver):
        def _send(self, commands):
            flush(commands)
            super()._send(commands)

    class AsyncFlushing(AsyncDriver):
        async def _send(self, commands):
            flush(commands)
            return await super()._send(commands)

    def flush(commands):
        if commands[0].script is not None:
            own.run(plain("SCRIPT", "FLUSH"))

    monkeypatch.setitem(globals(), "SyncDriver", Flushing)
    monkeypatch.setitem(globals(), "AsyncDriver", AsyncFlushing)
    error = failure(kind, own.endpoint.url, plain("PING"), an_enqueue(own_keys))
    assert (type(error), error.maybe_executed) == (StoreUnavailable, False)
    assert "SCRIPT FLUSH" in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_the_url_of_a_replica(kind, own, proxy):
    own.run(plain("REPLICAOF", "127.0.0.1", 1))
    error = failure(kind, proxy.url, plain("PING"))
    assert (type(error), error.maybe_executed) == (StoreUnavailable, False)
    assert f"{proxy.where} is a replica of 127.0.0.1:1: give the URL of the master" in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_master_that_becomes_a_replica(kind, own, own_keys, proxy):
    def between():
        own.run(plain("REPLICAOF", "127.0.0.1", 1))

    error = failure(kind, proxy.url, plain("PING"), an_enqueue(own_keys), between=between)
    assert (type(error), error.maybe_executed) == (StoreUnavailable, False)
    assert f"{proxy.where} cannot serve now" in str(error)
    assert "give the URL of the master" in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_replicas(kind, own, own_keys, proxy):
    own.run(plain("CONFIG", "SET", "min-replicas-to-write", 1))
    error = failure(kind, proxy.url, plain("PING"), an_enqueue(own_keys))
    assert (type(error), error.maybe_executed) == (StoreUnavailable, False)
    assert f"{proxy.where} cannot serve now" in str(error)
    assert "min-replicas-to-write" in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_cannot_be_written(kind, start_server, own_keys, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    server = start_server("--dir", str(folder), "--save", "1", "1000000")
    shutil.rmtree(folder)
    own, proxy = SyncDriver(Endpoint(server.url), ()), DropReplyProxy(server.socket_path)
    own.run(plain("BGSAVE"))
    wait_until(lambda: b"rdb_last_bgsave_status:err" in own.run(plain("INFO", "persistence")), "the save to fail")
    error = failure(kind, proxy.url, plain("PING"), an_enqueue(own_keys))
    assert (type(error), error.maybe_executed) == (StoreUnavailable, False)
    assert f"{proxy.where} cannot serve now" in str(error)
    assert "see its log" in str(error)
    proxy.close()
    own.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_server(kind, own, own_keys, proxy):
    with full(own):
        error = failure(kind, proxy.url, plain("PING"), an_enqueue(own_keys))
    assert type(error) is StoreFull
    assert f"{proxy.where} is at maxmemory" in str(error)
    assert "raise it" in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_a_script_keeps_busy(kind, own, proxy, server):
    own.run(plain("CONFIG", "SET", "lua-time-limit", 10))
    caught = []

    def hog():
        driver = SyncDriver(Endpoint(server.url), ())
        try:
            driver.run(plain("EVAL", "while true do end", 0))
        except StoreError as error:
            caught.append(error)
        driver.close()

    thread = threading.Thread(target=hog)
    thread.start()
    try:
        wait_until(lambda: raw(server, "GET x").startswith(b"-BUSY"), "the script to run")
        error = failure(kind, proxy.url, plain("PING"))
    finally:
        raw(server, "SCRIPT KILL")
        thread.join()
    assert (type(error), error.maybe_executed) == (StoreUnavailable, False)
    assert f"{proxy.where} cannot serve now" in str(error)
    assert "runs too long" in str(error)
    assert len(caught) == 1


def raw(server, words):
    """Ask without a driver, whose greeting a busy server refuses."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server.socket_path)
        connection.sendall(words.encode() + b"\r\n")
        return connection.recv(1000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_loads_its_data(kind, start_server):
    # While it loads, a server looks at its clients every 2 MB.
    server = start_server("--key-load-delay", "150000", "--rdbcompression", "no")
    driver = SyncDriver(Endpoint(server.url), ())
    driver.run(plain("EVAL", "for i = 1, 12 do redis.call('SET', 'key' .. i, string.rep('x', 2 ^ 20)) end", 0))
    driver.run(plain("SAVE"))
    driver.close()
    server.stop(signal.SIGKILL)
    seen = []
    looking = threading.Thread(
        target=lambda: seen.append(wait_until(lambda: not_ready(kind, server.url), "LOADING", 5))
    )
    looking.start()
    server.start()  # on this thread: it dies with the thread that started it
    looking.join()
    (error,) = seen
    assert (type(error), error.maybe_executed) == (StoreUnavailable, False)
    assert f"{server.socket_path} cannot serve now: LOADING" in str(error)
    assert "wait until it is ready" in str(error)
    assert ask(kind, server.url, plain("DBSIZE")) == 12


def not_ready(kind, url):
    try:
        ask(kind, url, plain("DBSIZE"))
    except StoreUnavailable as error:
        return error if "LOADING" in str(error) else None
    raise AssertionError("it was ready before anyone could look")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_server_costs_the_deadline_and_no_more(kind, server, own, proxy):
    begun = time.monotonic()
    try:
        error = failure(
            kind,
            proxy.url,
            plain("PING"),
            plain("PING"),
            deadline_s=0.3,
            between=lambda: os.kill(server.pid, signal.SIGSTOP),
        )
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert 0.25 < time.monotonic() - begun < 3
    assert (type(error), error.maybe_executed) == (StoreUnavailable, True)
    assert f"lost Redis at {proxy.where}" in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_type_is_refused_for_good(kind, own, own_keys, proxy):
    own.run(plain("SET", own_keys.lanes, "x"))
    error = failure(kind, proxy.url, plain("HGETALL", own_keys.lanes))
    assert type(error) is StoreRejected
    assert f"{proxy.where} answered: WRONGTYPE" in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_stream_or_group_is_told_apart(kind, own, own_keys, proxy):
    own.run(plain("XADD", own_keys.lane("2:"), "*", "d", "x"))
    for command in (
        plain("XPENDING", own_keys.lane("1:"), "workers"),
        plain("XINFO", "GROUPS", own_keys.lane("1:")),
        scripts.read_new([(own_keys.lane("2:"),)], "w", 1, None),
    ):
        assert type(failure(kind, proxy.url, command)) is NoGroup
    assert ask(kind, proxy.url, plain("XINFO", "GROUPS", own_keys.lane("1:"), if_gone="gone")) == "gone"


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_script_is_not_healed(kind, server):
    assert type(failure(kind, server.url, plain("EVALSHA", "0" * 40, 0))) is NoScript


def test_errors_of_the_redis_package_appear_only_as_cause(proxy):
    proxy.close()
    error = failure("sync", proxy.url, plain("PING"))
    assert not isinstance(error, redis.RedisError)
    assert isinstance(error.__cause__, redis.RedisError)


CODES = [
    ("CLUSTERDOWN", "CLUSTERDOWN Hash slot not served", "no master"),
    ("MASTERDOWN", "MASTERDOWN Link with MASTER is down", "URL of the master"),
    ("TRYAGAIN", "TRYAGAIN Multiple keys request during rehashing of slot", "try again"),
    ("UNBLOCKED", "UNBLOCKED the stream key no longer exists", "try again"),
    ("READONLY", "Error running script (call to f_" + "0" * 40 + "): @user_script:39: @user_script: 39: "
     "-READONLY You can't write against a read only replica.", "URL of the master"),
    ("MISCONF", "Error running script (call to f_" + "0" * 40 + "): @user_script:39: -MISCONF Redis is configured to",
     "see its log"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "text", "remedy"), CODES, ids=[row[0] for row in CODES])
def test_every_code_that_means_not_now_is_sent_again(code, text, remedy):
    error = translated(redis.ResponseError(text), "h:1")
    assert (type(error), error.maybe_executed) == (StoreUnavailable, False)
    assert "h:1" in str(error)
    assert remedy in str(error)


@pytest.mark.parametrize("kind", ["ClusterDownError", "TryAgainError", "MasterDownError", "ReadOnlyError"])
def test_codes_that_the_redis_package_cuts_off_are_known_too(kind):
    words = {"ClusterDownError": "CLUSTERDOWN", "TryAgainError": "TRYAGAIN", "MasterDownError": "MASTERDOWN"}
    parser = redis._parsers.base.BaseParser.parse_error
    error = parser(f"{words.get(kind, 'READONLY')} whatever it says")
    assert type(error).__name__ == kind
    assert type(translated(error, "h:1")) is StoreUnavailable


@pytest.mark.parametrize(
    "text", ["BUSYGROUP Consumer Group name already exists", "BUSYKEY Target key name already exists"]
)
def test_words_that_only_begin_alike_are_not_taken_for_them(text):
    assert type(translated(redis.ResponseError(text), "h:1")) is StoreRejected


@pytest.mark.parametrize(
    "url",
    [
        "http://h/0",
        "redis://h:port/0",
        "h:6379",
        "",
        "redis://:secret@h:x/0",
        "redis://h/abc",
        "redis://h/1/2",
        "redis://h/-1",
        "redis://h/0?password=secret&foo=bar",
        "redis://u:sec?secret@h/x",
        "unix://?db=0",
        "rediss://h?ssl_cert_reqs=foo",
    ],
)
def test_a_url_that_cannot_be_understood(url):
    with pytest.raises(ConfigError, match="is not a Redis URL") as caught:
        Endpoint(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://h", "h:6379"),
        ("redis://h/", "h:6379"),
        ("redis://[::1]:7/3", "::1:7"),
        ("rediss://u:p@h:1/3?ssl_cert_reqs=none", "h:1"),
        ("redis://h?db=2&client_name=me&socket_timeout=3", "h:6379"),
        ("unix://:pw@/tmp/s?db=0", "/tmp/s"),
    ],
)
def test_a_url_that_can(url, where):
    assert Endpoint(url).where == where


def test_an_option_that_is_unknown_is_named():
    with pytest.raises(ConfigError, match="unknown option 'foo'"):
        Endpoint("redis://h/1?foo=bar")


def test_the_password_is_never_shown():
    endpoint = Endpoint("redis://me:secret@nowhere.invalid:7/0")
    assert endpoint.where == "nowhere.invalid:7"
    with pytest.raises(StoreUnavailable) as caught:
        SyncDriver(endpoint, ()).run(plain("PING"))
    assert "secret" not in str(caught.value)
