"""`streamwork queues`, `workers` and `status`: exact counts, and who works."""

from __future__ import annotations

import json
import signal

import pytest

from streamwork.broker.coverage import unserved as unserved_of
from streamwork.broker.stats import overview, queue_names, queue_stats
from streamwork.broker.steps import aask, ask
from streamwork.clock import SYSTEM_CLOCK
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from tests.faces.conftest import one_line
from tests.helpers import body_of, seed, wait_until


@pytest.fixture
def keys(namespace):
    return QueueKeys(namespace, "default")


def read(driver, keys, consumer, lane="1:", count=100):
    return driver.run(
        plain("XREADGROUP", "GROUP", "workers", consumer, "COUNT", count, "STREAMS", keys.lane(lane), ">")
    )


def test_counts_are_exact_through_a_life(driver, keys):
    seed(driver, keys, *(body_of("t") for _ in range(7)))
    seed(driver, keys, body_of("t"), lane="3:gpu")
    seed(driver, keys, body_of("later"), due_at_ms=SYSTEM_CLOCK.now_ms() + 60_000)
    read(driver, keys, "me", count=3)
    read(driver, keys, "you", count=2)
    stats = ask(driver, queue_stats(keys))
    assert (stats.waiting, stats.running, stats.scheduled, stats.dead) == (3, 5, 1, 0)
    assert stats.in_hand == {"me": 3, "you": 2}
    assert [(lane.lane, lane.tags, lane.waiting, lane.running) for lane in stats.lanes] == [
        ("1:", [], 2, 5),
        ("3:gpu", ["gpu"], 1, 0),
    ]
    assert 55_000 < stats.next_at_ms - SYSTEM_CLOCK.now_ms() <= 60_000
    assert 0 <= stats.oldest_ms < 60_000


def test_what_was_given_back_waits(driver, keys):
    seed(driver, keys, body_of("t"), body_of("t"))
    (_, rows) = read(driver, keys, "me")[0]
    driver.run(plain("XCLAIM", keys.lane("1:"), "workers", "returned", 0, rows[0][0], "TIME", 1, "JUSTID"))
    stats = ask(driver, queue_stats(keys))
    assert (stats.waiting, stats.running, stats.in_hand) == (1, 1, {"me": 1})


def test_a_lost_group_and_garbage_are_survived(driver, keys):
    seed(driver, keys, body_of("t"))
    driver.run(plain("XADD", keys.lane("1:"), "*", "x", "y"))
    read(driver, keys, "me")
    assert ask(driver, queue_stats(keys)).waiting == 0  # not below zero, though garbage was never counted as added
    driver.run(plain("XGROUP", "DESTROY", keys.lane("1:"), "workers"))
    stats = ask(driver, queue_stats(keys))
    assert (stats.waiting, stats.running) == (1, 0)
    assert stats.lanes[0].has_group is False


async def _asked_on_a_loop(url, keys):
    driver = AsyncDriver(Endpoint(url), ())
    try:
        return await aask(driver, queue_stats(keys))
    finally:
        await driver.close()


def test_threads_and_loops_get_the_same_answer(driver, keys, redis_url):
    import asyncio

    seed(driver, keys, body_of("t"), body_of("t"))
    read(driver, keys, "me", count=1)
    found = asyncio.run(_asked_on_a_loop(redis_url, keys))
    assert (found.waiting, found.running) == (1, 1)
    again = ask(driver, queue_stats(keys))
    assert [found.lanes, found.in_hand] == [again.lanes, again.in_hand]


def test_several_queues_take_the_rounds_of_one(driver, namespace):
    rounds = 0

    class Counting:
        def run_all(self, commands):
            nonlocal rounds
            rounds += 1
            return driver.run_all(commands)

    names = [f"q{number}" for number in range(5)]
    for name in names:
        seed(driver, QueueKeys(namespace, name), body_of("t"))
    seen = ask(Counting(), overview(namespace, names))
    assert [(queue.queue, queue.waiting) for queue in seen.queues] == [(name, 1) for name in names]
    assert rounds <= 6


def test_queues_are_known_by_what_was_sent_and_by_the_app(project, driver, namespace):
    assert ask(driver, queue_names(namespace)) == []
    assert [row["queue"] for row in project.run("queues", "--json").json] == ["default", "mail"]
    project.run("enqueue", "add", "1", "--queue", "extra")
    assert ask(driver, queue_names(namespace)) == ["extra"]
    done = project.run("queues", "--json")
    assert [(row["queue"], row["waiting"]) for row in done.json] == [("default", 0), ("extra", 1), ("mail", 0)]
    assert [row["queue"] for row in project.run("queues", "-Q", "extra", "--json").json] == ["extra"]


def test_a_queue_that_nobody_knows_is_status_1_and_the_nearest(project, driver, namespace):
    done = project.run("queues", "-Q", "mial")
    assert (done.status, done.out) == (1, "")
    assert f"no queue 'mial' in {namespace!r}: did you mean mail?" in one_line(done.err)
    assert "there are default, mail" in one_line(project.run("queues", "-Q", "default,zzz").err)
    assert "there are default, mail" in project.run("queues", "-Q", "zzz", "--json").json["error"]["message"]
    seed(driver, QueueKeys(namespace, "zzz"), body_of("t"))  # sent, and its announcement was lost
    assert [row["waiting"] for row in project.run("queues", "-Q", "zzz", "--json").json] == [1]


def test_the_command_line_counts_every_end(project, worker):
    worker("--tags", "backend", settings={"worker.slots": 5})
    for args in (["add", "1"], ["add", "2"], ["boom", "milk"], ["nap", "60"], ["flaky"], ["send", "a@b.c"]):
        assert project.run("enqueue", *args).status == 0

    def counted():
        rows = {row["queue"]: row for row in project.run("queues", "--json").json}
        found = {
            name: rows["default"][name] for name in ("waiting", "running", "scheduled", "dead", "succeeded", "retried")
        }
        return (found, rows["mail"]["succeeded"]) == (
            {"waiting": 0, "running": 1, "scheduled": 1, "dead": 1, "succeeded": 2, "retried": 1}, 1,
        )  # fmt: skip

    wait_until(counted, lambda: project.run("queues").out)
    text = project.run("queues", "--lanes").out
    assert "6–8" in text
    assert "backend" in text
    done = project.run("status", "--json")
    assert (done.status, done.err) == (0, "")
    (shown,) = done.json["workers"]
    assert (shown["in_hand"], shown["slots"], shown["tags"], shown["alive"]) == (1, 5, ["backend"], True)
    assert shown["queues"] == ["default", "mail"]
    assert done.json["redis"]["version"].startswith(("Redis", "Valkey"))
    assert done.json["redis"]["embedded"] is False
    text = project.run("status").out
    assert shown["worker"].rpartition("-")[0] in text  # host and pid of the supervisor, which the log names too
    assert "1 / 5" in text
    assert project.run("workers", "--json").json[0]["consumer"] == shown["consumer"]


def test_a_worker_that_died_is_shown_as_silent(project, worker, driver, keys):
    started = worker(settings={"liveness.ttl_s": 1})
    started.kill()
    wait_until(lambda: project.run("workers", "--json").json[0]["alive"] is False, "its liveness to lapse")
    assert "silent" in project.run("workers").out


def test_a_worker_that_left_is_not_shown(project, worker):
    started = worker()
    assert len(project.run("workers", "--json").json) == 1
    started.signal(signal.SIGTERM)
    assert started.wait() == 0
    assert project.run("workers", "--json").json == []
    assert "no worker: start one with `streamwork worker`" in project.run("workers").out


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_tables_fit_the_terminal_and_lose_no_name_or_number(project, worker, driver, namespace, width):
    worker("-Q", "default")
    name = "billing.monthly_close"
    keys = QueueKeys(namespace, name)
    seed(driver, keys, *(body_of("t") for _ in range(1_234)), lane="3:gpu,large")
    driver.run(plain("HSET", keys.counts, "succeeded", 1_234_567, "skipped", 12_345, "cancelled", 1_111, "retried", 77))
    driver.run(plain("SADD", "{" + namespace + "}:queues", name))
    for command in (["queues"], ["queues", "--lanes"], ["status"], ["workers"]):
        done = project.run(*command, COLUMNS=str(width))
        lines = [line for line in done.out.splitlines() if "redis.sock" not in line and "/s" not in line]
        assert max(map(len, lines)) <= width, done.out
        assert "…" not in done.out
        if command != ["workers"]:
            assert name in done.out
            assert "1,234" in done.out
    for value in ("1,234,567", "12,345", "1,111", "77"):
        assert value in project.run("queues", COLUMNS=str(width)).out


def test_columns_without_anything_in_them_go_first(project, driver, namespace):
    seed(driver, QueueKeys(namespace, "default"), body_of("t"))
    head, *rows = project.run("queues", COLUMNS="60").out.splitlines()
    assert head.split()[:2] == ["queue", "waiting"]
    assert "oldest" in head
    assert "retried" not in head
    assert rows[0].startswith("default ")
    assert "retried" in project.run("queues", COLUMNS="120").out


def unserved(project):
    return project.run("status", "--json").json["unserved"]


def test_what_nobody_alive_takes_is_said(project, worker):
    for args in (["send", "a"], ["send", "b"], ["add", "1", "--priority", "9"], ["add", "2"]):
        project.run("enqueue", *args)
    mail = {"queue": "mail", "tags": ["backend"], "waiting": 2}
    text = "no live worker offers tags {backend} on queue mail"
    assert unserved(project) == [
        {"queue": "default", "tags": [], "waiting": 2, "text": "no live worker reads queue default"},
        {**mail, "text": text},
    ]
    started = worker()
    wait_until(lambda: unserved(project) == [{**mail, "text": text}], lambda: project.run("status").out)
    for command in ("status", "queues"):
        shown = project.run(command).out
        assert f"! 2 waiting: {text}\n  start one: streamwork worker -Q mail --tags backend\n" in shown
        assert "queue default" not in shown
    lanes = {row["queue"]: row["lanes"] for row in project.run("queues", "--json").json}
    assert [lane["is_served"] for lane in lanes["mail"]] == [False]
    assert all(lane["is_served"] for lane in lanes["default"])
    worker("--tags", "backend,gpu")
    wait_until(lambda: unserved(project) == [], lambda: project.run("status").out)
    assert "no live worker" not in project.run("queues").out
    assert started.process.poll() is None


def test_a_worker_that_died_serves_nobody(project, worker):
    started = worker(settings={"liveness.ttl_s": 1})
    project.run("enqueue", "nap", "60")
    started.kill()
    project.run("enqueue", "add", "1")
    wait_until(lambda: [each["queue"] for each in unserved(project)] == ["default"], "its liveness to lapse")


def test_a_lane_that_a_stranger_wrote_hides_no_other(driver, keys):
    seed(driver, keys, body_of("t"))
    driver.run(plain("HSET", keys.lanes, "foo", "1", b"\xff:", "1"))
    assert [lane.lane for lane in ask(driver, queue_stats(keys)).lanes] == ["1:"]
    driver.run(plain("HDEL", keys.lanes, "foo", b"\xff:"))


@pytest.mark.parametrize("text", ["not json", "[]", '{"tags": 7}'])
def test_a_consumer_in_an_unknown_form_is_believed_to_serve(driver, keys, text):
    driver.run(plain("HSET", keys.consumers, "w1", text))
    assert [each.text for each in ask(driver, unserved_of([(keys, "1:gpu")]))] == [
        "no live worker offers tags {gpu} on queue default"
    ]
    driver.run(plain("SET", keys.alive("w1"), "1", "PX", 60_000))
    assert ask(driver, unserved_of([(keys, "1:gpu")])) == []
    driver.run(plain("UNLINK", keys.consumers))


def test_a_namespace_is_enough_without_an_app(bare, driver, keys, redis_url, namespace):
    seed(driver, keys, body_of("t"))
    driver.run(plain("SADD", "{" + namespace + "}:queues", "default"))
    done = bare.run("queues", "--namespace", namespace, "--url", redis_url, "--json")
    assert (done.status, [row["waiting"] for row in json.loads(done.out)]) == (0, [1])


def test_a_bad_eviction_policy_is_on_the_first_screen(project, server):
    url = server("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru").url
    assert "! eviction policy is allkeys-lru" in project.run("status", "--url", url).out


def test_the_first_line_of_status_is_one_line(project):
    first, *_ = project.run("status", COLUMNS="60").out.splitlines()
    assert " · up " in first
    assert first.endswith(("KiB", "MiB"))
