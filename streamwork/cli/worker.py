"""`streamwork worker`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from streamwork.app import Streamwork
from streamwork.cli.discovery import load_app, locate
from streamwork.cli.options import app_option, examples, log_options, names, url_option
from streamwork.config import load
from streamwork.telemetry import logs
from streamwork.worker.supervisor import Supervisor


@click.command(epilog=examples(
    "streamwork worker                               all queues of the app found here",
    "streamwork worker --tags backend,gpu            also what needs backend, gpu or both",
    "streamwork worker -Q mail --slots 10            one queue, ten task messages at a time",
    "streamwork worker --processes 4 --max-tasks 10000 --max-memory 500",
    "streamwork worker --metrics-port 9300           with numbers for Prometheus",
    "streamwork worker --burst                       do what is there, then exit",
    "streamwork worker --reload --log-level debug    while developing",
))  # fmt: skip
@app_option
@click.option("--tags", metavar="A,B", callback=names("tag"), help="What this worker offers. [default: nothing]")
@click.option(
    "-Q",
    "--queues",
    metavar="A,B",
    callback=names("queue"),
    help="Queues to read. [default: all that the app's tasks use]",
)
@click.option("--slots", type=int, metavar="N", help="Task messages in hand at once, per process. [default: 100]")
@click.option(
    "--threads", type=int, metavar="N", help="Threads for sync tasks, per process. [default: as many as slots]"
)
@click.option("--processes", type=int, metavar="N", help="Worker processes. [default: 1]")
@click.option(
    "--burst",
    is_flag=True,
    help="End when nothing is left that this worker can take now: what is paused, needs other tags or is due later, "
    "retries too, is left.",
)
@click.option("--reload", is_flag=True, help="Start anew when a Python file below this folder changes.")
@click.option(
    "--drain-timeout", type=float, metavar="S", help="Seconds that running tasks get after SIGTERM. [default: 30]"
)
@click.option("--max-tasks", type=int, metavar="N", help="Replace a process after N task messages. [default: never]")
@click.option("--max-memory", type=int, metavar="MB", help="Replace a process that grows beyond this. [default: never]")
@click.option(
    "--metrics-port", type=int, metavar="P", help="Answer Prometheus on this port: GET /metrics. [default: do not]"
)
@url_option
@log_options
@click.pass_context
def worker(ctx: click.Context, /, *, burst: bool, reload: bool, as_json: bool, **given: Any) -> None:
    """Run tasks until told to stop.

    SIGTERM (SIGHUP, SIGQUIT) and Ctrl-C: read no more, finish what runs within the drain timeout, give the rest back,
    exit 0 (130 after Ctrl-C, 3 if finished work had to be kept in files because Redis was away). Once more: stop now. A
    Redis that is away is waited for, with --burst for as long as an enqueue waits. Flags beat what the app says in
    code, the environment and pyproject.toml.
    """
    _open_streams()
    flags = {_SETTINGS[name]: value for name, value in given.items()}
    if as_json:
        flags["log_format"] = "json"
    config = load(flags=flags).config
    logs.set_up(config.log_level, config.log_format, sys.stdout if as_json else sys.stderr)
    here = Path.cwd()
    targets = locate(config.app, here)

    def find_app() -> Streamwork:
        app = load_app(targets, here)
        app.configure(flags)
        return app

    ctx.exit(Supervisor(find_app, config, burst=burst, reload=reload).run())


def _open_streams() -> None:
    """Put the null device where a standard stream was closed (``>&-``): else the next socket takes its number."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r", closefd=False))


# Parameter of the command to setting.
_SETTINGS = {
    "app": "app",
    "tags": "worker.tags",
    "queues": "worker.queues",
    "slots": "worker.slots",
    "threads": "worker.threads",
    "processes": "worker.processes",
    "drain_timeout": "worker.drain_timeout_s",
    "max_tasks": "worker.max_tasks",
    "max_memory": "worker.max_memory_mb",
    "metrics_port": "telemetry.metrics_port",
    "url": "url",
    "log_level": "log_level",
    "log_format": "log_format",
}
