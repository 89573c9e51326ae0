"""`streamwork replay ID --here`: one past delivery in this process."""

from __future__ import annotations

import bdb
import sys
from typing import Any

import click
import msgspec

from streamwork.broker.history import check_queue
from streamwork.cli.history import call_text
from streamwork.cli.session import Session
from streamwork.cli.show import plain_json, print_json, span
from streamwork.errors import AppNotFound, WireError
from streamwork.model.replay import Ran
from streamwork.replay.here import find_past
from streamwork.wire.codec import unpacker

_anything = unpacker(Any)
_FINE = ("succeeded", "skipped")


def here(
    session: Session, queue: str, task_id: str, *, debug: bool, attempt: int | None, dry_run: bool, as_json: bool,
    yes: bool, imported: bool,
) -> int:  # fmt: skip
    """Run it; returns the exit status: 1 where it does not succeed."""
    app = session.app_if_any()
    if app is None:
        raise AppNotFound("--here runs the app's own code: give --app pkg.mod:app, and no --namespace")
    session.ask(check_queue(session.keys(queue), app.queues))
    record = find_past(app, queue, task_id, attempt, imported=imported)
    app.find(record.task)
    call = call_text(record.task, record.args, record.kwargs)
    if dry_run:
        _tell_dry(record, call, as_json=as_json)
        return 0
    if not as_json:
        click.echo(f"{call}: attempt {record.attempt} of {task_id}, which was {_then(record)}")
        sys.stdout.flush()
    try:
        ran = app.replay_here(task_id, queue, attempt=record.attempt, debug=debug, imported=imported)
    except bdb.BdbQuit:
        raise click.Abort from None
    if as_json:
        print_json({**msgspec.structs.asdict(ran), "id": task_id, "attempt": record.attempt, "result": _result(ran)})
    else:
        _print(ran)
    return 0 if ran.state in _FINE else 1


def _then(record: Any) -> str:
    detail = " ".join(record.detail.split())
    return f"{record.state}: {detail}" if detail else str(record.state)


def _tell_dry(record: Any, call: str, *, as_json: bool) -> None:
    if as_json:
        names = ("id", "task", "attempt", "args", "kwargs")
        print_json({"answer": "would run", **{name: getattr(record, name) for name in names}})
    else:
        click.echo(f"{call}: attempt {record.attempt} of {record.id} would run here; it was {_then(record)}")


def _result(ran: Ran) -> Any:
    try:
        return _anything(ran.result) if ran.result else None
    except WireError:
        return None


def _print(ran: Ran) -> None:
    if ran.traceback:
        click.echo(ran.traceback.rstrip())
    detail = f" with {plain_json(_result(ran))}" if ran.result else f": {ran.detail}" if ran.detail else ""
    click.echo(f"{ran.state} after {span(ran.took_ms)}{detail}")
    for sent in ran.sends:
        click.echo(f"captured, not sent: {call_text(sent.task, sent.args, sent.kwargs)} to {sent.queue}")
