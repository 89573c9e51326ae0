"""The broker's tests once more, against a Redis container, where an engine and an image are at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

IMAGE = os.environ.get("STREAMWORK_TEST_REDIS_IMAGE", "redis:7-alpine")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def container_url():
    """A Redis in a container."""
    # Asked through the command line: the SDK leaves its socket open when there is no engine.
    try:
        found = subprocess.run(
            ["docker", "image", "inspect", IMAGE], capture_output=True, text=True, timeout=30, check=False
        )
    except FileNotFoundError:
        pytest.skip("no Docker here")
    if found.returncode:
        pytest.skip(f"no Docker engine with the image {IMAGE} here: {found.stderr.strip()[:120]}")
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    container = DockerContainer(IMAGE).with_exposed_ports(6379)
    container.waiting_for(LogMessageWaitStrategy("Ready to accept connections"))
    with container:
        yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"


@pytest.mark.container
def test_the_broker_keeps_its_rules_on_a_container(container_url):
    """Every test of scripts, drivers and senders passes against the container's Redis."""
    environment = {**os.environ, "STREAMWORK_TEST_REDIS_URL": container_url}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "tests/redis"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
