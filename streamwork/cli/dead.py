"""`streamwork dead`: the dead letters, and all that is known of one."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from streamwork.broker.lookup import find_task
from streamwork.broker.taskview import TaskView
from streamwork.cli.bury import edit, purge, retry
from streamwork.cli.cancel import checked_id
from streamwork.cli.dead_options import asked_of, dead_options, queues_of
from streamwork.cli.history import call_text
from streamwork.cli.options import examples, only_option, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import console, instant, print_json, span, table
from streamwork.clock import SYSTEM_CLOCK
from streamwork.model.dead import DeadRecord
from streamwork.model.history import DONE_TO_DEAD
from streamwork.wire.message import JournalRecord

# With less room the id goes to a line of its own.
_WIDE = 120


@click.group(
    epilog=examples(
        "streamwork dead list --since 2h --task 'shop.mail.*'",
        "streamwork dead retry --task send_receipt --where 'order_id == 7' --dry-run",
    )
)
def dead() -> None:
    """Look at task messages that will not run again by themselves; retry, edit or purge them."""


dead.add_command(retry)
dead.add_command(edit)
dead.add_command(purge)


@dead.command("list", short_help="Which there are, the oldest first.", epilog=examples(
    "streamwork dead list                                 of all queues",
    "streamwork dead list -Q mail --since 2h --reason failed,quarantined",
    "streamwork dead list --where \"to == 'a@b.c'\" --json | jq -r .id",
))  # fmt: skip
@dead_options
@only_option
@place_options
def list_(
    only: tuple[str, ...] | None, *, app: str | None, url: str | None, namespace: str | None, as_json: bool,
    **picked: Any,
) -> None:  # fmt: skip
    """List dead letters, the oldest first; all, or those that fit. With --json each line is one object."""
    options, count = asked_of(picked), 0
    with Session(app, url, namespace) as session:
        found, out = queues_of(session, only), console()
        for queue in found:
            for record in (session.app_if_any() or session.unbound()).dead(queue, **options):
                print_json(public(record)) if as_json else _print_line(out, record, with_queue=len(found) > 1)
                count += 1
    if not count and not as_json:
        click.echo("no dead letter fits" if options else "no dead letters")


def public(record: DeadRecord) -> dict[str, Any]:
    """Return a dead letter as it is shown: all but the stored bytes."""
    return {name: getattr(record, name) for name in record.__struct_fields__ if name != "letter"}


def _print_line(out: Console, record: DeadRecord, *, with_queue: bool) -> None:
    where = f"{record.queue}  " if with_queue else ""
    line = Text(f"{instant(record.died_at_ms) or '–'}  ")
    line.append(f"{record.reason:<12}  ", "bold red").append(where, "dim")
    call, error = call_text(record.task, record.args, record.kwargs), f": {_error(record)}"
    is_wide = out.width >= _WIDE
    lines = [line.append(f"{record.id}  ", "dim").append(call + error) if is_wide else line.append(call)]
    if not is_wide:
        lines.append(Text(f"    {record.id}{error}", style="dim"))
    for each in lines:
        if sys.stdout.isatty():
            each.truncate(out.width, overflow="ellipsis")
        out.print(each, soft_wrap=True)


def _error(record: DeadRecord) -> str:
    return " ".join(f"{record.error_type}: {record.error}".split())


@dead.command(short_help="All that is known of one: failure, traceback, attempts.", epilog=examples(
    "streamwork dead show 0197a2b4c6d87e1f8a0b1c2d3e4f5a6b",
    "streamwork dead show $id --json | jq -r .traceback",
))  # fmt: skip
@click.argument("task_id", metavar="ID")
@only_option
@place_options
def show(
    task_id: str, only: tuple[str, ...] | None, *, app: str | None, url: str | None, namespace: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Show a dead letter: its call, why it is dead, what was raised, and each attempt with its time and worker.

    For one that killed its process the error says how that ended: its signal or exit status. Exit status 1 if there is
    no such dead letter.
    """
    task_id = checked_id(task_id)
    with Session(app, url, namespace) as session:
        looked = queues_of(session, only)
        record = next(
            (
                found
                for queue in looked
                for found in (session.app_if_any() or session.unbound()).dead(queue, id=task_id)
            ),
            None,
        )
        if record is None:
            raise click.ClickException(
                f"there is no dead letter {task_id} in {', '.join(looked) or 'any queue: there is none'} "
                "(streamwork tasks show finds what is not dead)"
            )
        view: TaskView | None = session.ask(find_task([session.keys(record.queue)], task_id))
    attempts = view.journal if view is not None else []
    if as_json:
        print_json({**public(record), "attempts": [_attempt(each) for each in attempts]})
    else:
        _print(console(), record, attempts)


def _attempt(record: JournalRecord) -> dict[str, Any]:
    return {
        name: getattr(record, name)
        for name in ("state", "round", "attempt", "crashes", "started_at_ms", "ended_at_ms", "detail", "error_type")
    } | {"worker": record.consumer}


def _print(out: Console, record: DeadRecord, attempts: list[JournalRecord]) -> None:
    out.print(Text.assemble((record.task or "unreadable message", "bold"), f" {record.id} ", ("dead", "bold red")))
    age = span(max(0, SYSTEM_CLOCK.now_ms() - record.died_at_ms))
    facts = [
        ("call", call_text(record.task, record.args, record.kwargs)),
        ("queue", f"{record.queue}, lane {record.lane or '?'}"),
        ("died", f"{instant(record.died_at_ms) or '?'}, {age} ago: {record.reason}"),
        ("run", _runs(record)),
        ("expires", instant(record.expires_at_ms)),
        ("repeats", record.replay_of),
        ("failure", "" if record.traceback.rstrip().endswith(_error(record)) else _error(record)),
    ]
    for name, value in facts:
        if value:
            out.print(Text.assemble((f"{name:<9} ", "dim"), value), soft_wrap=True)
    if attempts:
        out.print()
        out.print(_table(attempts))
    if record.traceback:
        out.print()
        out.print(Text(record.traceback.rstrip()), soft_wrap=True)


def _runs(record: DeadRecord) -> str:
    said = [f"{record.attempt}"]
    if record.round > 1:
        said.append(f"in round {record.round}")
    if record.crashes:
        said.append(f"and {record.crashes} crashed")
    if record.lost:
        said.append(f"and {record.lost} vanished with their worker")
    return ", ".join(said)


def _table(attempts: list[JournalRecord]) -> Any:
    rows = []
    for each in attempts:
        is_run = each.state not in DONE_TO_DEAD
        took = span(each.ended_at_ms - each.started_at_ms) if each.started_at_ms else None
        started = instant(each.started_at_ms)
        rows.append([
            instant(each.ended_at_ms), each.state, each.round, each.attempt if is_run else None, started, took,
            each.consumer, " ".join(each.detail.split()),
        ])  # fmt: skip
    return table(
        ["ended", "as", "round", "run", "began", "took", "by", "detail"], rows, numbers=("round", "run", "took")
    )
