"""A Redis that is down, silent, wrong or refuses: one line with its address and a remedy, status 3, soon."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from tests.faces.conftest import one_line

# The promise is two seconds, of which the connection gets one; a busy machine needs some to start Python. The default
# of the library, which these commands do not use, would be ten and more.
SOON_S = 6.0
COMMANDS = [
    ["status"],
    ["queues"],
    ["workers"],
    ["doctor"],
    ["tasks", "show", "0197a2b4c6d87e1f8a0b1c2d3e4f5a6b"],
    ["tasks", "cancel", "0197a2b4c6d87e1f8a0b1c2d3e4f5a6b"],
]
SENDS = [
    ["enqueue", "add", "1"],
    ["enqueue", "add", "1", "--wait"],
    ["enqueue", "other.task", "--name-only", "--namespace", "n"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_redis_that_is_down(project, command):
    done = project.process(*command, "--url", "redis://127.0.0.1:1", "--json")
    assert done.status == 3
    assert done.err == ""
    assert done.json["error"]["code"] == "redis_unavailable"
    assert done.json["error"]["message"].startswith("no Redis at 127.0.0.1:1 (")
    assert done.json["error"]["message"].endswith("): start it, or correct the URL")
    assert done.seconds < SOON_S


@pytest.mark.parametrize("command", SENDS, ids=" ".join)
def test_a_send_to_a_redis_that_is_away_is_tried_as_long_as_the_settings_say(project, command):
    tries = []

    def refuse(listening):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listening.accept()
                tries.append(peer.close())

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=refuse, args=(listening,))
        thread.start()
        url = "redis://{}:{}".format(*listening.getsockname())
        done = project.process(*command, "--url", url, "--json", STREAMWORK_CLIENT_SEND_TIMEOUT_S="3")
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert done.status == 3
    assert done.json["error"]["code"] == "redis_unavailable"
    assert len(tries) > 1


def test_config_needs_no_redis(project):
    assert project.run("config", "show", "--url", "redis://127.0.0.1:1").status == 0


def test_a_server_that_never_answers_is_given_up_soon(project):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        where = "{}:{}".format(*listening.getsockname())
        for command in (["status"], ["pause", "--queue", "default"]):
            done = project.process(*command, "--url", f"redis://{where}")
            assert done.status == 3
            assert f"no Redis at {where} (Timeout" in one_line(done.err)
            assert done.seconds < SOON_S


def test_a_server_of_another_kind(project):
    def answer(listening):
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            with peer:
                peer.recv(1000)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        where = "{}:{}".format(*listening.getsockname())
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        done = project.run("status", "--url", f"redis://{where}")
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert done.status == 3
    assert f"no Redis at {where} (Protocol error" in one_line(done.err)


@pytest.mark.parametrize("command", [["status"], ["enqueue", "add", "1"], ["worker"]], ids=" ".join)
def test_a_wrong_password_is_refused_and_not_shown(project, server, command):
    private = server()
    private.run("CONFIG", "SET", "requirepass", "geheim")
    url = private.url
    with_password = url.replace("unix://", "unix://:wrongone@")
    for given in (url, with_password):
        done = (project.process if command == ["worker"] else project.run)(*command, "--url", given)
        assert done.status == 3
        line = one_line(done.err)
        assert "refuses the login" in line
        assert line.endswith("check the user and password in the URL")
        assert "wrongone" not in line


def test_a_replica_is_told_from_its_master(project, server):
    master = server()
    replica = server("--replicaof", "127.0.0.1", "1")
    done = project.run("enqueue", "add", "1", "--url", replica.url)
    assert done.status == 3
    assert f"Redis at {replica.socket_path} is a replica of 127.0.0.1:1: give the URL of the master" in one_line(
        done.err
    )
    assert project.run("queues", "--url", master.url).status == 0


def test_a_full_redis_refuses_the_enqueue_with_one_line(project, server):
    done = project.run("enqueue", "add", "1", "--url", server("--maxmemory", "1").url)
    assert done.status == 3
    assert "is at maxmemory: raise it, or let the queues drain" in one_line(done.err)
