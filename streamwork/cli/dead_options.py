"""The options that pick dead letters, and the queues that they are looked for in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from streamwork.broker.stats import queue_names
from streamwork.cli.cancel import checked_id
from streamwork.cli.filters import past_instant
from streamwork.cli.options import names
from streamwork.cli.session import Session
from streamwork.dead import DeadOptions
from streamwork.model.dead import REASONS

F = TypeVar("F", bound=Callable[..., Any])


def dead_options(command: F) -> F:
    """Add what picks dead letters: --since, --until, --task, --reason, --tag, --id, --where, --limit."""
    for option in (
        click.option("--limit", type=click.IntRange(1), metavar="N", help="So many of a queue at most. [default: all]"),
        click.option(
            "--where", metavar="EXPR", help="Holds for the arguments: \"order_id == 7 and country != 'CH'\"."
        ),
        click.option("--id", "id", metavar="ID", multiple=True, help="Of this task message; may be given again."),
        click.option("--tag", "tags", metavar="A,B", callback=names("tag"), help="What a worker has to offer."),
        click.option("--reason", "--state", "reason", metavar="A,B", help=f"Why: {', '.join(REASONS)}."),
        click.option("--task", metavar="GLOB", help="Names such as 'shop.mail.*'; without a dot, the last part."),
        click.option("--until", metavar="TIME", callback=past_instant, help="Died then or earlier. [default: now]"),
        click.option(
            "--since", metavar="TIME", callback=past_instant,
            help="Died then or later: 90s, 15m, 2h, 7d ago, or ISO 8601.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def asked_of(picked: dict[str, Any]) -> DeadOptions:
    """Return options as the app takes them, from those of `dead_options`; raises BadParameter for what is no id."""
    found = {name: value for name, value in picked.items() if value not in (None, ())}
    if "reason" in found:
        found["reason"] = [word.strip() for word in found["reason"].split(",") if word.strip()]
    if "id" in found:
        found["id"] = [checked_id(text) for text in found["id"]]
    return cast(DeadOptions, found)


def queues_of(session: Session, only: tuple[str, ...] | None) -> list[str]:
    """Return the queues to look into: those that were named, or all there are."""
    app = session.app_if_any()
    return list(only or session.ask(queue_names(session.namespace(), app.queues if app is not None else ())))
