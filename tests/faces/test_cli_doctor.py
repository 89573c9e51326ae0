"""`streamwork doctor`: each judgement by table, and the whole on real servers."""

from __future__ import annotations

import pytest

from streamwork.broker import checkup as c
from streamwork.broker.info import eviction_warning, parse_info, server_name
from streamwork.cli import doctor as doctor_command
from streamwork.store.scripts import ALL_SCRIPTS
from tests.faces.conftest import one_line

MB = 1_048_576
NOTHING_MISSING = [["x"]] * 5
ALL_LOADED = [1] * len(ALL_SCRIPTS)


def verdicts(done):
    return {check["name"]: check["verdict"] for check in done.json["checks"]}


@pytest.mark.parametrize(
    ("check", "verdict", "words"),
    [
        (c.version({"redis_version": "7.0.15"}, NOTHING_MISSING), "ok", "Redis 7.0.15"),
        (c.version({"redis_version": "6.2.0"}, NOTHING_MISSING), "ok", "Redis 6.2.0"),
        (c.version({"redis_version": "6.0.16"}, NOTHING_MISSING), "failure", "6.2 or newer"),
        (c.version({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, NOTHING_MISSING), "ok", "Valkey 8.0.1"),
        (c.version({"redis_version": "7.0.0"}, [None, *NOTHING_MISSING[1:]]), "failure", "without XAUTOCLAIM"),
        (c.protocol(ALL_LOADED), "ok", f"{len(ALL_SCRIPTS)} of {len(ALL_SCRIPTS)} scripts"),
        (c.protocol([0, *ALL_LOADED[1:]]), "failure", "SCRIPT LOAD"),
        (c.durability({"aof_enabled": "1"}, is_embedded=False), "ok", "append-only file"),
        (c.durability({"aof_enabled": "0"}, is_embedded=False), "warning", "set appendonly yes"),
        (
            c.durability({"aof_enabled": "1", "aof_last_write_status": "err"}, is_embedded=False),
            "failure",
            "disk full?",
        ),
        (c.durability({"rdb_last_bgsave_status": "err"}, is_embedded=False), "failure", "snapshot failed"),
        (c.durability({"aof_enabled": "1", "loading": "1"}, is_embedded=False), "warning", "loading"),
        (c.eviction({"maxmemory_policy": "noeviction"}), "ok", "noeviction"),
        (c.eviction({"maxmemory_policy": "allkeys-lru"}), "failure", "set maxmemory-policy noeviction"),
        (c.eviction({"maxmemory_policy": "volatile-ttl"}), "failure", "volatile-ttl"),
        (c.room({"used_memory": str(10 * MB), "maxmemory": str(100 * MB)}), "ok", "10.0 of 100.0 MiB (10%)"),
        (c.room({"used_memory": str(86 * MB), "maxmemory": str(100 * MB)}), "warning", "trimmed early"),
        (c.room({"used_memory": str(100 * MB), "maxmemory": str(100 * MB)}), "failure", "nothing can be enqueued"),
        (c.room({"used_memory": str(MB), "maxmemory": "0"}), "note", "no maxmemory"),
        (c.clock(1_000, 999, 1_001), "ok", "no difference, answers in 2 ms"),
        (c.clock(1_000, 1_400, 1_400), "ok", "Redis is 400 ms behind"),
        (c.clock(3_001, 1_000, 1_001), "warning", "Redis is 2,000 ms ahead"),
        (c.clock(0, 60_000, 60_001), "failure", "synchronise"),
        (c.clock(1_050, 1_000, 1_100), "warning", "move closer"),
        (c.replicas({"role": "master", "connected_slaves": "2"}, {}), "ok", "master, 2 replicas"),
        (c.replicas({"role": "slave"}, {}), "failure", "URL of the master"),
        (c.replicas({"role": "master"}, {"cluster_enabled": "1"}), "failure", "single master"),
        (c.connections({"connected_clients": "81", "maxclients": "100"}), "warning", "81 of 100"),
        (c.connections({"connected_clients": "80", "maxclients": "100"}), "ok", "80 of 100"),
    ],
    ids=lambda value: value.name if isinstance(value, c.Check) else "",
)
def test_judgements(check, verdict, words):
    assert check.verdict == verdict
    assert words in f"{check.found} {check.remedy}"
    assert bool(check.remedy) is (verdict != "ok")


def test_info_is_read():
    assert parse_info(b"# Server\r\nredis_version:7.0.15\r\nos:a:b\r\n\r\n") == {"redis_version": "7.0.15", "os": "a:b"}
    assert server_name({}) == "Redis of unknown version"
    assert eviction_warning({}) == ""


def test_a_healthy_server_is_status_0(project, server):
    url = server("--appendonly", "yes", "--maxmemory", "100mb").url
    done = project.run("doctor", "--url", url, "--json")
    assert (done.status, done.err) == (0, "")
    assert done.json["ok"] is True
    found = verdicts(done)
    assert found.pop("workers") == "note"
    assert set(found.values()) == {"ok"}
    assert list(found) == [
        "app", "redis", "version", "protocol", "persistence", "eviction", "memory", "clock", "replication",
        "connections",
    ]  # fmt: skip
    text = project.run("doctor", "--url", url).out
    assert "all is well" in text
    assert "9 tasks on default, mail" in text


def test_warnings_alone_are_status_0(project, server):
    done = project.run("doctor", "--url", server().url, "--json")
    assert done.status == 0
    assert verdicts(done)["persistence"] == "warning"


def test_an_eviction_policy_is_status_1_and_says_what_to_do(project, server):
    url = server("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru").url
    done = project.run("doctor", "--url", url)
    assert done.status == 1
    assert "eviction policy is allkeys-lru" in done.out
    assert "→ set maxmemory-policy noeviction" in done.out
    assert project.run("doctor", "--url", url, "--json").json["ok"] is False


def test_a_broken_app_is_a_failure_and_the_server_is_looked_at_all_the_same(project):
    project.write("tasks.py", "import streamwork\n1 / 0\n")
    done = project.run("doctor", "--json")
    assert done.status == 1
    assert (verdicts(done)["app"], verdicts(done)["version"]) == ("failure", "ok")
    assert "tasks.py:2: ZeroDivisionError" in done.json["checks"][0]["found"]


def test_without_an_app_the_server_is_looked_at(bare, redis_url):
    done = bare.run("doctor", "--url", redis_url, "--json")
    assert done.status == 0
    assert verdicts(done)["app"] == "note"


def test_a_replica_is_told_apart(project, server):
    done = project.run("doctor", "--url", server("--replicaof", "127.0.0.1", "1").url)
    assert done.status == 3
    assert "is a replica of 127.0.0.1:1: give the URL of the master" in one_line(done.err)


def test_the_embedded_server_is_in_order(bare):
    done = bare.process("doctor", "--json")
    assert done.status == 0, done
    found = {check["name"]: check for check in done.json["checks"]}
    assert found["redis"]["found"] == f"embedded, in {bare.folder}/.streamwork"
    assert found["persistence"]["verdict"] == found["eviction"]["verdict"] == "ok"


def test_variables_that_look_like_settings_are_a_warning(project):
    done = project.run("doctor", "--json", STREAMWORK_PORT="tcp://10.0.0.1:6379", STREAMWORK_WORKER_SLOT="3")
    found = [check["found"] for check in done.json["checks"] if check["name"] == "settings"]
    assert len(found) == 2
    assert found[0].startswith("unknown variable STREAMWORK_PORT")
    assert found[1] == "unknown variable STREAMWORK_WORKER_SLOT: did you mean STREAMWORK_WORKER_SLOTS?"
    assert verdicts(done)["settings"] == "warning"
    assert (done.status, done.json["ok"]) == (0, True)


def found(done, name):
    return [
        (check["verdict"], check["found"], check["remedy"]) for check in done.json["checks"] if check["name"] == name
    ]


def test_a_queue_that_nobody_takes_from_is_a_warning(project, worker):
    assert found(project.run("doctor", "--json"), "workers") == [
        ("note", "none is alive", "start one: streamwork worker")
    ]
    project.run("enqueue", "add", "1")
    assert found(project.run("doctor", "--json"), "workers") == [
        ("warning", "1 waiting: no live worker reads queue default", "start one: streamwork worker")
    ]
    worker()
    missing = "no live worker offers tags {backend} on queue mail"
    remedy = "start one: streamwork worker -Q mail --tags backend"
    assert found(project.run("doctor", "--json"), "workers") == [("warning", missing, remedy)]
    project.run("enqueue", "send", "a@b.c")
    assert found(project.run("doctor", "--json"), "workers") == [("warning", f"1 waiting: {missing}", remedy)]
    text = project.run("doctor").out
    assert missing in text
    assert "all is well" not in text
    assert text.splitlines()[-1] in ("2 warnings", "1 warning")  # whether its Redis persists is not the point here
    worker("--tags", "backend")
    assert [check[0] for check in found(project.run("doctor", "--json"), "workers")] == ["ok"]


def test_a_lifespan_that_is_none_is_a_failure(project, namespace):
    project.write(
        "tasks.py",
        f"from streamwork import Streamwork\napp = Streamwork({namespace!r})\n"
        "async def pool():\n    yield 1\napp.lifespan_of = pool\n",
    )
    done = project.run("doctor", "--json")
    assert done.status == 1
    ((verdict, what, remedy),) = found(done, "lifespan")
    assert (verdict, what) == ("failure", "pool makes no async context manager")
    assert "contextlib.asynccontextmanager" in remedy


def test_what_a_good_lifespan_and_one_task_look_like(project, namespace):
    project.write(
        "tasks.py",
        "from contextlib import asynccontextmanager\nfrom streamwork import Streamwork\n"
        f"app = Streamwork({namespace!r})\n@app.lifespan\n@asynccontextmanager\nasync def pool():\n    yield 1\n"
        "@app.task\ndef one() -> None: ...\n",
    )
    done = project.run("doctor", "--json")
    assert (done.status, found(done, "lifespan")) == (0, [])
    assert found(done, "app") == [("ok", f"{namespace}: 1 task on default", "")]


def test_process_tasks_without_their_package_are_a_failure(project, namespace, monkeypatch):
    project.write(
        "tasks.py",
        f"from streamwork import Streamwork\napp = Streamwork({namespace!r})\n"
        "@app.task(executor='process')\ndef parse(n: int) -> int:\n    return n\n",
    )
    assert found(project.run("doctor", "--json"), "processes") == []
    monkeypatch.setattr(doctor_command, "find_spec", lambda name: None)
    done = project.run("doctor", "--json")
    assert done.status == 1
    assert found(done, "processes") == [
        ("failure", "executor='process' of tasks.parse needs the package pebble",
         "pip install '<path to the clone>[process]'"),
    ]  # fmt: skip
