"""The options that pick attempts out of a queue's history; those of `history`, and of what is made of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import click

from streamwork.cli.cancel import checked_id
from streamwork.cli.options import names
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import ConfigError
from streamwork.history import HistoryOptions
from streamwork.model.history import ENDED_AS, FAILED
from streamwork.model.instant import read_instant

F = TypeVar("F", bound=Callable[..., Any])


def past_instant(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | None:
    """Read an option that is an instant; None stays None."""
    if text is None:
        return None
    try:
        at_ms = read_instant(text, str(param.opts[-1]), SYSTEM_CLOCK.now_ms())
    except ConfigError as error:
        raise click.UsageError(str(error), ctx) from error
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def filter_options(command: F) -> F:
    """Add what picks attempts: --since, --until, --task, --state, --tag, --id, --where, --limit."""
    for option in (
        click.option("--limit", type=click.IntRange(1), metavar="N", help="So many at most. [default: all]"),
        click.option(
            "--where", metavar="EXPR", help="Holds for the arguments: \"order_id == 7 and country != 'CH'\"; see below."
        ),
        click.option("--id", "id", metavar="ID", help="Of one task message."),
        click.option("--tag", "tags", metavar="A,B", callback=names("tag"), help="What a worker had to offer."),
        click.option("--state", "state", metavar="A,B", help=f"How it ended: {', '.join(ENDED_AS)}, or {FAILED}."),
        click.option("--task", metavar="GLOB", help="Names such as 'shop.mail.*'; without a dot, the last part."),
        click.option("--until", metavar="TIME", callback=past_instant, help="Ended then or earlier. [default: now]"),
        click.option(
            "--since",
            metavar="TIME",
            callback=past_instant,
            help="Ended then or later: 90s, 15m, 2h, 7d ago, or ISO 8601.",
        ),
    ):
        command = option(command)
    return command


def asked(picked: dict[str, Any]) -> HistoryOptions:
    """Return options as the app takes them, from those of `filter_options`; raises BadParameter for what is no id."""
    found = {name: value for name, value in picked.items() if value is not None}
    if "state" in found:
        found["state"] = [word.strip() for word in found["state"].split(",") if word.strip()]
    if "id" in found:
        found["id"] = checked_id(found["id"])
    return cast(HistoryOptions, found)
