"""`streamwork tasks cancel`."""

from __future__ import annotations

from typing import Any

import click

from streamwork.broker.lookup import UNDECODABLE, find_task
from streamwork.broker.stats import queue_names
from streamwork.broker.taskview import TaskView
from streamwork.broker.whereabouts import cancelling
from streamwork.cli.options import examples, only_option, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import print_json
from streamwork.ids import task_id_at_ms
from streamwork.model.state import State
from streamwork.store.keys import QueueKeys


def checked_id(text: str) -> str:
    """Return a task id as it is stored; raises BadParameter."""
    if text.startswith(UNDECODABLE):
        return text
    task_id = text.replace("-", "").lower()
    if task_id_at_ms(task_id) is None:
        raise click.BadParameter(f"{text!r} is not a task id: 32 hex digits, the 13th is a 7", param_hint="ID")
    return task_id


def find(session: Session, task_id: str, only: tuple[str, ...] | None) -> TaskView:
    """Look for a task message in all queues, or in some; raises ClickException where there is no trace of it."""
    namespace, app = session.namespace(), session.app_if_any()
    found = only or session.ask(queue_names(namespace, app.queues if app is not None else ()))
    view: TaskView | None = session.ask(find_task([QueueKeys(namespace, name) for name in found], task_id))
    if view is None:
        looked = ", ".join(found) or "any queue: there is none"
        raise click.ClickException(
            f"no trace of task message {task_id} in {looked} of {namespace!r}: "
            "it was never sent there, or its result and history are past their retention"
        )
    return view


@click.command(short_help="Keep it from running; --terminate ends a run, too.", epilog=examples(
    "streamwork tasks cancel 0197a2b4c6d87e1f8a0b1c2d3e4f5a6b",
    "streamwork tasks cancel $id --terminate    end it where it runs now",
))  # fmt: skip
@click.argument("task_id", metavar="ID")
@click.option("--terminate", is_flag=True, help="End a run that goes on: cancel it, or kill its process.")
@only_option
@place_options
def cancel(task_id: str, *, terminate: bool, only: tuple[str, ...] | None, as_json: bool, **place: Any) -> None:
    """Cancel one task message.

    What waits for its time will not run. What is on a lane is dropped by the worker that reads it next. What runs is
    not tried again if it fails; with --terminate its run is ended too, wherever it is: an async body is cancelled, a
    process killed, a thread left behind. What ends before that counts. Exit status 1 if it has ended otherwise.
    """
    with Session(**place) as session:
        view = find(session, checked_id(task_id), only)
        keep_ms = int(max(session.config.keep.result_s, 60) * 1000)
        steps = cancelling(session.keys(view.queue), view, "cli", keep_ms, terminate=terminate)
        answer: str = session.ask(steps)
        if answer == "ended" and view.state == State.CANCELLED:
            answer = "cancelled"
    if answer == "ended":
        raise click.ClickException(f"task message {view.id} has ended, and not by a cancel (streamwork tasks show)")
    if as_json:
        print_json({"id": view.id, "queue": view.queue, "answer": answer, "terminate": terminate})
    elif answer == "cancelled":
        click.echo(f"{view.id} cancelled")
    else:
        what = "a worker drops it, or ends its run" if terminate else "a worker drops it, unless it runs and succeeds"
        click.echo(f"{view.id} requested: {what}")
