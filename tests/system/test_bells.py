"""A large fleet waits on doorbells instead of blocked reads (rule 6)."""

from __future__ import annotations

from streamwork.store.commands import plain
from tests.apps import basic
from tests.helpers import wait_until


def blocked_by(driver, command):
    """How many clients wait in this command now."""
    clients = driver.run(plain("CLIENT", "LIST")).decode().splitlines()
    return sum(f"cmd={command}" in client and "flags=b" in client for client in clients)


def test_idle_workers_of_a_large_fleet_wait_on_a_bell_and_work_when_it_rings(
    spawn_worker, namespace, redis_url, driver
):
    """From `worker.bell_fleet` consumers on nobody blocks in XREADGROUP, and every message still runs."""
    basic_app = type(basic.app)(namespace, url=redis_url)
    call = basic_app.call_elsewhere
    basic_app.call("tests.apps.basic.add", 1, 1).enqueue().state()
    for _ in range(2):
        spawn_worker(settings={"worker.bell_fleet": 1, "worker.slots": 3})
    wait_until(lambda: blocked_by(driver, "blpop") >= 2, "both workers wait on the bell")
    assert blocked_by(driver, "xreadgroup") == 0
    handles = basic_app.enqueue_many(call("tests.apps.basic.add", (number, 1), {}) for number in range(200))
    assert [handle.result(timeout=20) for handle in handles] == [number + 1 for number in range(200)]
    # One at a time: each is a ring for an idle fleet.
    for number in range(5):
        assert call("tests.apps.basic.add", (number, 2), {}).enqueue().result(timeout=10) == number + 2
    basic_app.close()
