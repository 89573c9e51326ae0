"""`streamwork pause` and `streamwork resume`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from streamwork.broker.pausing import set_mark
from streamwork.cli.options import examples, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import print_json
from streamwork.errors import QueueNotFound, TaskNotFound
from streamwork.model.pausing import mark_of
from streamwork.pausing import known_queue, known_task
from streamwork.store.keys import checked_name

F = TypeVar("F", bound=Callable[..., Any])


def _what_options(command: F) -> F:
    for option in (
        click.option(
            "--group", metavar="G", help="A group, all that is sent with group=G; on all queues, or on --queue."
        ),
        click.option("--task", metavar="NAME", help="A task; with --queue, on that queue only."),
        click.option("--queue", "-Q", metavar="Q", help="A whole queue."),
    ):
        command = option(command)
    return command


@click.command(epilog=examples(
    "streamwork pause --queue mail --reason 'the provider is down'",
    "streamwork pause --task send_receipt",
    "streamwork pause --group tenant-7",
    "streamwork resume --task send_receipt",
))  # fmt: skip
@_what_options
@click.option("--reason", default="", metavar="TEXT", help="Shown by status and doctor.")
@place_options
def pause(*, reason: str, **given: Any) -> None:
    """Let nothing more of a queue, a task or a group begin, until `streamwork resume`.

    What runs goes on, and sending works. Workers hear of it at once, and those that start later, too. What waits for a
    paused queue stays where it is; what comes up of a paused task is set aside, which counts as no attempt. A paused
    group gets no turns: what it has on a lane already begins, the rest waits in its line.
    """
    _apply(given, reason)


@click.command(epilog=examples("streamwork resume --queue mail", "streamwork resume --task send_receipt --json"))
@_what_options
@place_options
def resume(**given: Any) -> None:
    """Let a queue, a task or a group go on, at once."""
    _apply(given, None)


def _apply(given: dict[str, Any], reason: str | None) -> None:
    queue: str | None = given["queue"]
    task: str | None = given["task"]
    group: str | None = given["group"]
    if queue is None and task is None and group is None:
        raise click.UsageError("say what: --queue, --task or --group")
    if task is not None and group is not None:
        raise click.UsageError("--task and --group: give one of them")
    with Session(given["app"], given["url"], given["namespace"]) as session:
        app = session.app_if_any()
        known = app.queues if app is not None else []
        try:
            if task is not None and app is not None:
                task = session.ask(known_task(app, task))
            if queue is not None:
                session.ask(known_queue(session.namespace(), known, checked_name("queue", queue)))
        except (TaskNotFound, QueueNotFound) as error:
            raise click.ClickException(str(error)) from error
        mark = mark_of(task, group)
        changed: dict[str, bool] = session.ask(set_mark(session.namespace(), known, queue, mark, reason))
    if given["as_json"]:
        what = {"queue": queue, "task": task, "group": group, "paused": reason is not None}
        print_json({**what, "queues": sorted(changed), "changed": sorted(name for name in changed if changed[name])})
        return
    named = f"task {task}" if task else f"group {group}" if group else f"queue {queue}"
    state = "paused" if reason is not None else "resumed"
    before = "" if any(changed.values()) else " already" if reason is not None else ": it was not paused"
    where = f" on {', '.join(sorted(changed)) or 'no queue: nothing was ever sent'}" if task or group else ""
    click.echo(f"{named} is{before} {state}{where}" if reason is not None else f"{named} is {state}{where}{before}")
