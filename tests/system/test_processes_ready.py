"""Processes of ``executor="process"`` in real workers: there before any task, and only where one may come."""

from __future__ import annotations

import os
import signal

from streamwork.model.state import State
from tests.apps import early
from tests.helpers import wait_until
from tests.runtime.kit import pool_pids
from tests.system.kit import is_gone

CORES = os.cpu_count()


def test_a_ready_worker_has_its_processes_before_any_task_and_a_killed_one_gets_them_again(start, send):
    worker = start("tests.apps.early:app")
    (child,) = worker.children
    pids = pool_pids(child)
    assert len(pids) == CORES
    assert send(early.where_in_process).result(timeout=20) in pids

    os.kill(child, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, pids)), "they end with the worker process")
    (child,) = wait_until(lambda: [one for one in worker.children if one != child], "it is replaced")
    wait_until(lambda: len(pool_pids(child)) == CORES, "its processes are there before any task", 20)
    assert send(early.where_in_process).result(timeout=20) in pool_pids(child)


def test_a_worker_of_queues_without_such_a_task_has_no_process(start, send):
    worker = start("tests.apps.early:app", queues="plain")
    (child,) = worker.children
    assert send(early.where).result(timeout=20) == child
    assert pool_pids(child) == set()


def test_other_tasks_run_while_processes_import_and_ready_is_said_behind_it(start, send, tmp_path):
    gate = tmp_path / "gate"
    worker = start("tests.apps.early:app", ready=False, environ={"STREAMWORK_TEST_GATE": str(gate)})
    assert send(early.where).result(timeout=20) in worker.children
    boxed = send(early.where_in_process)
    assert "worker ready" not in worker.text()
    gate.touch()
    worker.until("worker ready")
    assert boxed.wait(20)
    assert boxed.state() == State.SUCCEEDED
