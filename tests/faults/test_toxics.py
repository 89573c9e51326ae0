"""The proxy that faults are made with does what it says, each way by itself, on connections that live."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest

from streamwork.config import redis_for_tests
from streamwork.testing.server import PrivateServer
from tests.helpers import wait_until
from tests.proxy import REPLIES, REQUESTS
from tests.toxics import ToxicProxy

PING, PONG = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"
_ESTABLISHED_RETRANSMITS = 2  # where tcp_info has them


@pytest.fixture(scope="module")
def server():
    with PrivateServer(redis_for_tests()[1]) as server:
        yield server


@pytest.fixture
def proxy(server):
    proxy = ToxicProxy(server.socket_path, seed=7)
    yield proxy
    proxy.close()


@pytest.fixture
def connect(proxy):
    """Open a connection through the proxy."""
    opened = []

    def connect():
        opened.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=10))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def ask(connection, request=PING, size=None):
    """Return the answer of so many bytes, or less where the connection ended."""
    connection.sendall(request)
    return receive(connection, size or len(PONG))


def receive(connection, size):
    found = b""
    while len(found) < size and (more := connection.recv(size - len(found))):
        found += more
    return found


def receive_all(connection):
    while ask(connection) == PONG:
        pass
    connection.recv(1)


def echo(size):
    """Return (request, its answer) of about so many bytes each."""
    text = b"x" * size
    return b"*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\n" % (size, text), b"$%d\r\n%b\r\n" % (size, text)


def test_without_toxics_everything_passes_and_is_counted(proxy, connect):
    request, answer = echo(100_000)
    assert ask(connect(), request, len(answer)) == answer
    whole = (len(request), len(answer))  # counted when it is passed on, and the reader may be faster than that
    wait_until(lambda: (proxy.counts[REQUESTS].passed, proxy.counts[REPLIES].passed) == whole, "all is counted")
    assert proxy.connections == 1


@pytest.mark.parametrize("way", [REQUESTS, REPLIES])
def test_latency_makes_one_way_late_and_switches_on_a_live_connection(proxy, connect, way):
    connection = connect()
    assert ask(connection) == PONG
    proxy.set(way, latency_s=0.2, jitter_s=0.05)
    began_s = time.monotonic()
    assert ask(connection) == PONG
    assert time.monotonic() - began_s >= 0.15
    other = REPLIES if way == REQUESTS else REQUESTS
    assert proxy.counts[way].late_s >= 0.14
    assert proxy.counts[other].late_s == 0
    proxy.set()
    before = proxy.counts[way].late_s
    assert ask(connection) == PONG
    assert proxy.counts[way].late_s == before


def test_jitter_keeps_the_order(proxy, connect):
    connection = connect()
    proxy.set(jitter_s=0.02)
    for n in range(50):
        connection.sendall(b"*2\r\n$4\r\nECHO\r\n$2\r\n%02d\r\n" % n)
        time.sleep(0.001)  # so that they are chunks of their own
    assert receive(connection, 50 * 8) == b"".join(b"$2\r\n%02d\r\n" % n for n in range(50))


def test_the_same_seed_cuts_the_same_pieces(server):
    def pieces(seed):
        proxy = ToxicProxy(server.socket_path, seed)
        proxy.set(REQUESTS, slice_bytes=9)
        try:
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
                request, answer = echo(2_000)
                assert ask(connection, request, len(answer)) == answer
                return proxy.counts[REQUESTS].pieces
        finally:
            proxy.close()

    assert pieces(1) == pieces(1)
    assert len({pieces(seed) for seed in range(1, 5)}) > 1


def test_bandwidth_lets_pass_no_more_than_it_says(proxy, connect):
    request, answer = echo(20_000)
    proxy.set(REPLIES, bytes_per_s=50_000)
    began_s = time.monotonic()
    assert ask(connect(), request, len(answer)) == answer
    assert time.monotonic() - began_s >= 20_000 / 50_000
    assert proxy.counts[REQUESTS].pieces == 1


def test_slices_arrive_whole_from_tiny_pieces(proxy, connect):
    request, answer = echo(500)
    proxy.set(slice_bytes=3)
    assert ask(connect(), request, len(answer)) == answer
    for way, size in ((REQUESTS, len(request)), (REPLIES, len(answer))):
        assert proxy.counts[way].passed == size
        assert proxy.counts[way].pieces >= size / 3


def test_what_is_held_comes_later(proxy, connect):
    connection = connect()
    proxy.set(REQUESTS, is_held=True)
    connection.sendall(PING)
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    proxy.set()
    connection.settimeout(10)
    assert receive(connection, len(PONG)) == PONG


@pytest.mark.parametrize("way", [REQUESTS, REPLIES])
def test_what_is_swallowed_never_comes_and_new_connections_work(proxy, connect, way):
    connection = connect()
    proxy.set(way, swallows=True)
    connection.sendall(PING)
    wait_until(lambda: proxy.counts[way].swallowed, "it is swallowed")
    assert (proxy.counts[REQUESTS].passed > 0) == (way == REPLIES)
    proxy.set()
    assert ask(connect()) == PONG
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        ask(connection)


def test_a_connection_is_reset_after_its_bytes_in_mid_answer(proxy, connect):
    connection = connect()
    proxy.set(REPLIES, closes_after=(10, 20))
    with pytest.raises(ConnectionResetError):
        receive_all(connection)
    assert 10 <= proxy.counts[REPLIES].passed <= 20
    assert proxy.counts[REPLIES].closed == 1
    proxy.set()
    assert ask(connect()) == PONG


def test_a_cut_is_a_reset(proxy, connect):
    connection = connect()
    assert ask(connection) == PONG
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    connection = connect()
    assert ask(connection) == PONG
    proxy.cut(is_orderly=True)
    assert connection.recv(1) == b""


def test_a_lost_reply_was_executed_and_a_lost_request_was_not(proxy, connect):
    incr = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n"
    first = int(ask(connect(), incr, 4)[1:])
    proxy.lose_reply(lambda request: request[0] == b"INCR", 2)
    connection = connect()
    assert int(ask(connection, incr, 4)[1:]) == first + 1
    with pytest.raises(ConnectionResetError):
        ask(connection, incr, 4)
    proxy.lose_request(lambda request: request[0] == b"INCR", 1)
    with pytest.raises(ConnectionResetError):
        ask(connect(), incr, 4)
    assert int(ask(connect(), incr, 4)[1:]) == first + 3


def test_dropped_packets_are_sent_again_by_the_kernel_and_arrive_when_they_may(proxy, connect):
    connection = connect()
    assert ask(connection) == PONG
    proxy.drop_packets()
    connection.sendall(PING)
    wait_until(lambda: proxy.resent() >= 2, "the kernel sends it again, and again")
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
    assert struct.unpack_from("B", info, _ESTABLISHED_RETRANSMITS)[0] >= 2
    with socket.socket() as other:
        other.settimeout(0.3)
        with pytest.raises(TimeoutError):
            other.connect(("127.0.0.1", proxy.port))
    proxy.pass_packets()
    assert receive(connection, len(PONG)) == PONG
    assert ask(connect()) == PONG


def test_connections_leave_no_threads_behind(proxy, connect):
    def threads():
        return [one for one in threading.enumerate() if one.name == "drop-reply-proxy"]

    before = len(threads())
    for _ in range(5):
        assert ask(connect()) == PONG
    proxy.cut()
    wait_until(lambda: len(threads()) <= before, "their threads end")
