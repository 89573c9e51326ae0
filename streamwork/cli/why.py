"""`streamwork tasks why`."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from streamwork.broker.stats import queue_names
from streamwork.broker.why import Reason
from streamwork.broker.why import why as reasons_of
from streamwork.cli.cancel import checked_id
from streamwork.cli.options import examples, only_option, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import console, print_json
from streamwork.store.keys import QueueKeys


@click.command(short_help="Why it is not running.", epilog=examples(
    "streamwork tasks why 0197a2b4c6d87e1f8a0b1c2d3e4f5a6b",
    "streamwork tasks why $id --json | jq -r '.reasons[].code'",
))  # fmt: skip
@click.argument("task_id", metavar="ID")
@only_option
@place_options
@click.pass_context
def why(ctx: click.Context, /, task_id: str, only: tuple[str, ...] | None, *, as_json: bool, **place: Any) -> None:
    """Say why a task message is not running, and what to do: every reason that holds now.

    Such as: its queue or task is paused, no live worker offers its tags, all slots are busy, it is to be tried again at
    a time, no worker knows its task. Or where it runs, or how it ended. Exit status 1 if there is no trace of it.
    """
    task_id = checked_id(task_id)
    with Session(**place) as session:
        namespace, app = session.namespace(), session.app_if_any()
        found = only or session.ask(queue_names(namespace, app.queues if app is not None else ()))
        reasons: list[Reason] = session.ask(reasons_of([QueueKeys(namespace, name) for name in found], task_id))
    if as_json:
        print_json({"id": task_id, "reasons": reasons})
    else:
        for reason in reasons:
            out = console()
            out.print(Text.assemble((reason.code, "bold"), f"  {reason.text}"), soft_wrap=True)
            if reason.remedy:
                out.print(Text(f"  {reason.remedy}"), soft_wrap=True)
    ctx.exit(1 if reasons[0].code == "never_seen" else 0)
