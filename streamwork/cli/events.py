"""`streamwork events`: what happens to tasks, workers, schedules and queues, as it happens or from a cursor on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
from rich.text import Text

from streamwork.cli.options import examples, names, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import console, instant, plain_json, print_json
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import ConfigError
from streamwork.model.event import Event, EventGap
from streamwork.model.instant import read_instant

_STYLES = {"task.succeeded": "green", "task.dead": "bold red", "task.crashed": "red", "task.retried": "yellow",
           "worker.died": "bold red", "worker.vanished": "bold red", "worker.hung": "bold red"}  # fmt: skip


def _since(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | str | float | None:
    """Read a cursor, which has a colon and a comma or dash behind it, or else an instant."""
    if text is None or text.startswith(":") or ",:" in text:
        return text
    try:
        now_ms = SYSTEM_CLOCK.now_ms()
        return max(0.0, (now_ms - read_instant(text, str(param.opts[-1]), now_ms)) / 1000)
    except ConfigError as error:
        raise click.UsageError(f"{error}; or the cursor of an event", ctx) from error


@click.command(epilog=examples(
    "streamwork events                                  all that is kept, oldest first",
    "streamwork events --follow --type 'worker.*'       workers that start, end, die or hang, from now on",
    "streamwork events --since 1h --type task.dead --queue mail --json",
))  # fmt: skip
@click.option("--since", metavar="TIME|CURSOR", callback=_since, help="From then on, or behind the cursor of an event.")
@click.option("--type", "types", multiple=True, metavar="GLOB", help="Such as 'task.*'; may be given several times.")
@click.option("--queue", "-Q", "queues", metavar="A,B", callback=names("queue"), help="Only what is of these.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="So many at most. [default: all]")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes; begins now unless --since says otherwise.")
@place_options
def events(
    *, since: Any, types: tuple[str, ...], queues: tuple[str, ...] | None, limit: int | None, follow: bool,
    app: str | None, url: str | None, namespace: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what happens to tasks, workers, schedules and queues.

    With --json each line is one object, of the kind "event" or "gap"; its "cursor" goes behind --since, and nothing is
    told twice or left out then, also over a restart of Redis. What is past its retention is told as a gap.
    """
    with Session(app, url, namespace) as session:
        known = session.app_if_any() or session.unbound()
        say = _print_json if as_json else _print
        count = 0
        for one in known.events(since=since, types=types, queues=queues or (), limit=limit, follow=follow):
            say(one)
            count += 1
    if not count and not as_json:
        click.echo("no event fits")


def _print_json(one: Event | EventGap) -> None:
    facts = {name: getattr(one, name) for name in one.__struct_fields__}
    print_json({"kind": "gap" if isinstance(one, EventGap) else "event", **facts})


def _print(one: Event | EventGap) -> None:
    if isinstance(one, EventGap):
        whose = f"of queue {one.queue}" if one.queue else "of workers, schedules and pauses"
        text = f"! events {whose} up to {instant(one.until_ms)} are not kept ({one.why})"
        line = Text(text, "bold red")
    else:
        line = Text(f"{instant(one.at_ms)}  ").append(f"{one.type:<16}", _STYLES.get(one.type, ""))
        words = [one.queue, one.task, one.id, "" if one.id else one.worker, " ".join(one.detail.split())]
        words += [] if one.id else [f"{name}={plain_json(value)}" for name, value in one.facts.items()]
        line.append("  " + "  ".join(word for word in words if word))
    console().print(line, soft_wrap=True)
