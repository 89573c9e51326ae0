"""Numbers of real workers: what Prometheus is answered, and what a real OTLP receiver gets."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from streamwork.telemetry.meters import METRICS
from tests.apps import basic
from tests.helpers import wait_until
from tests.otlp import Receiver


@pytest.fixture
def port():
    """A port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def scrape(port):
    """Ask as Prometheus does; returns {(sample, its labels): value}."""

    def ask(accept="text/plain"):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    return ask


def samples(text):
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text) for sample in family.samples
    }  # fmt: skip


def run_some(send, count=5):
    for handle in [send(basic.add, n, 1) for n in range(count)]:
        handle.result(timeout=20)


ADD = basic.add.name
ENDED = ("streamwork_attempts_total", "default", "succeeded", ADD)


def test_prometheus_gets_the_numbers_of_all_processes_together(start, send, port, scrape):
    start("tests.apps.basic:app", processes=2, slots=3, args=("--metrics-port", str(port)))
    handles = [send(basic.steer, "skip"), send(basic.steer, "reject")]
    run_some(send)
    for handle in handles:
        handle.wait(timeout=10)
    wait_until(lambda: samples(scrape()).get(ENDED) == 5, scrape)
    found = samples(scrape())
    assert found["streamwork_attempts_total", "default", "skipped", basic.steer.name] == 1
    assert found["streamwork_attempts_total", "default", "dead", basic.steer.name] == 1
    assert found["messaging_client_consumed_messages_total", "default", ADD] == 5
    assert found["messaging_process_duration_seconds_count", "default", ADD] == 5
    assert found["messaging_process_duration_seconds_bucket", "+Inf", "default", ADD] == 5
    assert found["streamwork_wait_duration_seconds_count", "default", ADD] == 5
    assert (found["streamwork_processes",], found["streamwork_slots",], found["streamwork_slots_busy",]) == (2, 6, 0)
    assert (found["streamwork_queue_messages", "default", "dead"], found["streamwork_redis_up",]) == (1, 1)


def test_what_a_process_counted_outlives_it(start, send, port, scrape):
    worker = start("tests.apps.basic:app", args=("--metrics-port", str(port)))
    run_some(send)
    wait_until(lambda: samples(scrape()).get(ENDED) == 5, scrape)
    (child,) = worker.children
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: worker.children not in ([], [child]), "another process")
    run_some(send, 2)
    wait_until(lambda: samples(scrape()).get(ENDED) == 7, scrape)
    assert samples(scrape())["streamwork_slots",] == 100


def test_a_process_that_is_forked_later_does_not_keep_the_port(start, send, port, scrape):
    worker = start("tests.apps.basic:app", args=("--metrics-port", str(port)))
    os.kill(worker.children[0], signal.SIGKILL)
    run_some(send, 1)
    (child,) = worker.children
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    (inode,) = [line[9] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"]
    held = {os.readlink(fd) for fd in Path(f"/proc/{child}/fd").iterdir()}  # noqa: PTH115 - "socket:[…]" is no path
    assert f"socket:[{inode}]" not in held


def test_the_text_is_what_prometheus_and_openmetrics_say_it_is(start, send, port, scrape):
    start("tests.apps.basic:app", args=("--metrics-port", str(port)))
    run_some(send)
    wait_until(lambda: samples(scrape()).get(ENDED) == 5, scrape)
    families = {family.name: family for family in text_string_to_metric_families(scrape())}
    assert {family.name: family.type for family in families.values()} == {
        metric.prometheus_name: metric.kind for metric in METRICS.values()
    }
    assert all(family.documentation for family in families.values())
    modern = list(openmetrics.text_string_to_metric_families(scrape("application/openmetrics-text; version=1.0.0")))
    assert {family.name for family in modern} == set(families)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH (Debian: apt install prometheus)")
def test_promtool_has_nothing_to_say(start, send, port, scrape):
    start("tests.apps.basic:app", args=("--metrics-port", str(port)))
    run_some(send)
    wait_until(lambda: samples(scrape()).get(ENDED) == 5, scrape)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_redis_that_is_away_is_a_number_too(start, send, server, port, scrape):
    start("tests.apps.basic:app", redis_url=server.url, args=("--metrics-port", str(port)))
    assert samples(scrape())["streamwork_redis_up",] == 1
    server.stop()
    found = samples(scrape())
    assert found["streamwork_redis_up",] == 0
    assert not [key for key in found if key[0].startswith("streamwork_queue")]


@pytest.mark.parametrize(
    ("request_", "status"), [("GET / HTTP/1.1", 404), ("POST /metrics HTTP/1.1", 405), ("HEAD /metrics HTTP/1.1", 200)]
)
def test_other_requests_are_told_so(start, port, request_, status):
    start("tests.apps.basic:app", args=("--metrics-port", str(port)))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"{request_}\r\nHost: x\r\n\r\n".encode())
        answer = http.client.HTTPResponse(client, method=request_.split()[0])
        answer.begin()
        assert answer.status == status


def test_a_port_that_is_taken_ends_the_worker_with_a_word(start, port):
    with socket.create_server(("0.0.0.0", port)):
        worker = start("tests.apps.basic:app", args=("--metrics-port", str(port)), ready=False)
        assert worker.process.wait(20) != 0
    assert f"telemetry.metrics_port (--metrics-port) 0.0.0.0:{port} cannot be listened on" in worker.text()


def test_without_the_setting_nothing_listens(start, port):
    start("tests.apps.basic:app")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_an_otlp_receiver_gets_the_numbers_of_each_process(start, send):
    receiver = Receiver()
    try:
        settings = {
            "STREAMWORK_TELEMETRY_METRICS": "otlp", "STREAMWORK_TELEMETRY_PUSH_S": "0.2",
            "STREAMWORK_TELEMETRY_OTLP_ENDPOINT": receiver.url,
        }  # fmt: skip
        worker = start("tests.apps.basic:app", processes=2, environ=settings)
        wait_until(lambda: len({instance for instance, _ in receiver.metrics}) == 2, "both have told")
        run_some(send)
        worker.signal()
        assert worker.process.wait(20) == 0, worker.text()
        found = receiver.metrics
        ended = [point for (_, name), metric in found.items() if name == "streamwork.attempts"
                 for point in metric.sum.data_points]  # fmt: skip
        assert sum(point.as_int for point in ended) == 5
        facts = {one.key: one.value.string_value for one in ended[0].attributes}
        assert facts == {
            "messaging.system": "streamwork", "messaging.destination.name": "default", "streamwork.task": ADD,
            "streamwork.outcome": "succeeded",
        }  # fmt: skip
        durations = [metric for (_, name), metric in found.items() if name == "messaging.process.duration"]
        assert sum(point.count for metric in durations for point in metric.histogram.data_points) == 5
        metric = durations[0]
        assert (metric.unit, metric.histogram.aggregation_temporality) == ("s", AGGREGATION_TEMPORALITY_CUMULATIVE)
        point = metric.histogram.data_points[0]
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        assert sum(point.bucket_counts) == point.count
    finally:
        receiver.close()
