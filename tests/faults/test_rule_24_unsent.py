"""Rule 24: what Redis does not take is bounded, and outlives the worker that had to end."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamwork import spool
from streamwork.config import WorkerConfig
from streamwork.worker import bounds
from streamwork.worker.drain import Hand
from streamwork.worker.settle import MOST_UNSENT_BYTES
from tests.apps import life
from tests.faults.proof import must_fail
from tests.faults.unguarded import module_without


def to_read(module, unsent=0, unsent_bytes=0):
    """Return how much a process with ten slots asks for, while so much waits to be written."""
    settler, executors = SimpleNamespace(unsent=unsent, unsent_bytes=unsent_bytes), SimpleNamespace(queued=0)
    return module.Bounds(WorkerConfig(slots=10), Hand(), settler, executors, 0).to_read()


def few(module):
    assert to_read(module, unsent=19) == 10
    assert to_read(module, unsent=20) == 0, "it reads on, and outcomes pile up"


def light(module):
    assert to_read(module, unsent_bytes=64 * 1024 * 1024 - 1) == 10
    assert to_read(module, unsent_bytes=MOST_UNSENT_BYTES) == 0, "it reads on, and memory fills up"


BOUNDS = {"unsent_bound": (few, "outcomes pile up"), "unsent_bytes_bound": (light, "memory fills up")}


@pytest.mark.parametrize("name", BOUNDS)
def test_nothing_is_read_while_much_waits_to_be_written(name):
    BOUNDS[name][0](bounds)


@pytest.mark.parametrize("name", BOUNDS)
def test_without_the_bound_it_reads_on(name):
    scenario, match = BOUNDS[name]
    must_fail(name, match, scenario, module_without("streamwork.worker.bounds", name))


def ended_without_redis(start_server, start, notes, app, without=()):
    """A body ends while Redis is away, and then its worker has to."""
    server = start_server("--appendonly", "yes", "--appendfsync", "always")
    app.configure({"url": server.url})
    worker = start("tests.apps.life:app", redis_url=server.url, drain_timeout_s=0.3, without=without)
    handle = app.task(name=life.hold.name)(life.hold.function).enqueue(notes.path, "x")
    notes.until(1)
    server.stop()
    notes.go()
    worker.signal()
    assert worker.wait() == 3, "the status does not say that finished work was not written"
    server.start()
    start("tests.apps.life:app", redis_url=server.url, without=without)
    assert handle.result(timeout=20) == (1, 0)
    assert len(notes.runs()) == 1, "finished work is lost with its worker, and runs again"


def test_finished_work_outlives_its_worker(start_server, start, notes, app):
    ended_without_redis(start_server, start, notes, app)


DAEMONS = {"spool": "runs again", "spool_settled": "runs again", "spool_status": "the status does not say"}


@pytest.mark.parametrize("name", DAEMONS)
def test_without_the_spool_it_runs_again(start_server, start, notes, app, name):
    must_fail(name, DAEMONS[name], ended_without_redis, start_server, start, notes, app, without=(name,))


def on_disk(module, folder, monkeypatch):
    """Only a power cut would show it, so what is looked at is the call."""
    synced, real = [], os.fsync

    def fsync(number):
        synced.append((Path(f"/proc/self/fd/{number}").readlink(), list(module.files(folder, "n"))))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    path = module.write(folder, "n", [])
    assert synced == [(path.with_suffix(".draft"), [])], "it has its name before it is on the disk"


def test_a_spool_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    on_disk(spool, tmp_path, monkeypatch)


def test_without_fsync_it_may_not_be(tmp_path, monkeypatch):
    module = module_without("streamwork.spool", "spool_fsync")
    must_fail("spool_fsync", "before it is on the disk", on_disk, module, tmp_path, monkeypatch)
