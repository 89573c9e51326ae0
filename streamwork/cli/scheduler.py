"""`streamwork scheduler`: what a supervisor does for its queues, without any worker process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import click

from streamwork.app import Streamwork
from streamwork.broker.resend import backoff_s
from streamwork.cli.discovery import load_app, locate
from streamwork.cli.options import app_option, examples, log_options, url_option
from streamwork.config import load
from streamwork.errors import StoreUnavailable
from streamwork.ids import random_id
from streamwork.outage import Outage
from streamwork.telemetry import logs
from streamwork.worker.homes import Address, Home, Homes

logger = logging.getLogger(__name__)


@click.command(epilog=examples(
    "streamwork scheduler                            beside workers that come and go",
    "streamwork scheduler --app shop.tasks:app --json",
))  # fmt: skip
@app_option
@url_option
@log_options
@click.pass_context
def scheduler(ctx: click.Context, /, *, as_json: bool, **given: Any) -> None:
    """Fire schedules and promote what is due, until told to stop; run no task.

    Every worker does this too, so it is needed only where at times no worker is there. Any number may run: each
    occurrence is sent once. It also gives the work of dead workers back and keeps history. SIGTERM and Ctrl-C end it
    (0 and 130); a Redis that is away is waited for.
    """
    flags = {name: value for name, value in given.items() if value is not None}
    if as_json:
        flags["log_format"] = "json"
    config = load(flags=flags).config
    logs.set_up(config.log_level, config.log_format, sys.stdout if as_json else sys.stderr)
    here = Path.cwd()
    app = load_app(locate(config.app, here), here)
    app.configure(flags)
    ctx.exit(asyncio.run(_run(app)))


async def _run(app: Streamwork) -> int:
    loop, ending, status = asyncio.get_running_loop(), asyncio.Event(), [0]

    def interrupted() -> None:
        status[0] = 130
        ending.set()

    loop.add_signal_handler(signal.SIGINT, interrupted)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        loop.add_signal_handler(number, ending.set)
    outage = Outage()
    homes = Homes(f"{socket.gethostname()}-{os.getpid()}-{random_id(24)}", outage)
    address = Address(app.name, tuple(app.queues), app.config)
    home = await _open(homes, address, ending)
    if home is not None:
        home.keeper.declare(app.declared_schedules())
        facts = {"app": app.name, "redis": f"{home.server} at {home.endpoint.where}", "queues": app.queues}
        logger.info("scheduler ready", extra=facts)
        await ending.wait()
        logger.info("stopping")
    await homes.close()
    return status[0]


async def _open(homes: Homes, address: Address, ending: asyncio.Event) -> Home | None:
    tries = 0
    while not ending.is_set():
        try:
            return await homes.of(address)
        except StoreUnavailable as error:
            if not tries:
                logger.warning("waiting for Redis", extra={"error": str(error)})
            tries += 1
            try:
                async with asyncio.timeout(backoff_s(tries)):
                    await ending.wait()
            except TimeoutError:
                pass
    return None
