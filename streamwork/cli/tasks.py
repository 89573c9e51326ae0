"""`streamwork tasks show`, and the group of it, `tasks why` and `tasks cancel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.text import Text

from streamwork.broker.coverage import Unserved, unserved
from streamwork.broker.lookup import (
    AFTER_MS,
    BEFORE_MS,
    MOST_ENTRIES,
    MOST_RECORDS,
)
from streamwork.broker.taskview import TaskView
from streamwork.cli.cancel import cancel, checked_id, find
from streamwork.cli.options import examples, only_option, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import console, instant, plain_json, print_json, span, table
from streamwork.cli.why import why
from streamwork.clock import SYSTEM_CLOCK
from streamwork.model.state import State

_COLOURS = {State.SUCCEEDED: "green", State.DEAD: "bold red", State.RUNNING: "cyan", State.CANCELLED: "yellow"}
# A longer value is for --json.
_LONGEST = 2_000


@click.group(
    epilog=examples(
        "streamwork tasks show 019f…", "streamwork tasks why 019f…", "streamwork tasks cancel 019f… --terminate"
    )
)
def tasks() -> None:
    """Look at one task message by its id, or cancel it."""


@tasks.command(short_help="State, arguments, result or failure, history.", epilog=examples(
    "streamwork tasks show 0197a2b4c6d87e1f8a0b1c2d3e4f5a6b",
    "streamwork tasks show $id -Q mail          look into one queue only",
    "streamwork tasks show $id --json | jq .failure.traceback -r",
))  # fmt: skip
@click.argument("task_id", metavar="ID")
@only_option
@place_options
@click.pass_context
def show(ctx: click.Context, /, task_id: str, only: tuple[str, ...] | None, *, as_json: bool, **place: Any) -> None:
    """Show one task message: state, arguments, where it is, result or failure, and what came of each run.

    There is no index of ids: what waits for its time, is dead or has a result is found by key, an entry on a lane
    around the time in the id (5 s before to 65 s after, 50,000 entries a lane), its history in the journal from then on
    (100,000 records). Exit status 1 if there is no trace of it.
    """
    with Session(**place) as session:
        view = find(session, checked_id(task_id), only)
        missing: list[Unserved] = []
        waits = bool(view.lane) and view.state in (State.WAITING, State.CANCELLING) and not view.consumer
        if waits:
            missing = session.ask(unserved([(session.keys(view.queue), view.lane)]))
        if as_json:
            print_json({**_facts(view), "is_served": not missing if waits else None})
        else:
            _print(view, missing)


tasks.add_command(why)
tasks.add_command(cancel)


def _facts(view: TaskView) -> dict[str, Any]:
    facts = {name: getattr(view, name) for name in view.__struct_fields__}
    facts["failure"] = None
    if view.failure is not None:
        facts["failure"] = {name: getattr(view.failure, name) for name in view.failure.__struct_fields__}
    facts["journal"] = [
        {name: getattr(record, name) for name in record.__struct_fields__ if name not in ("version", "id")}
        | {"entry": record.entry.decode(errors="replace")}
        for record in view.journal
    ]
    return facts


def _print(view: TaskView, missing: Sequence[Unserved]) -> None:
    out, now_ms = console(), SYSTEM_CLOCK.now_ms()
    out.print(
        Text.assemble(
            (view.task or "unreadable message", "bold"), " ", view.id, " ", (view.state, _COLOURS.get(view.state, ""))
        )
    )
    for name, value in _lines(view, now_ms):
        if value:
            _print_fact(out, name, value[:_LONGEST])
    for each in missing:
        out.print(Text(f"! {each.text}", style="bold red"))
        out.print(Text(f"  start one: {each.remedy}"))
    if view.journal:
        out.print()
        _print_journal(out, view)
    if view.failure is not None and view.failure.traceback:
        out.print()
        out.print(Text(view.failure.traceback.rstrip()), soft_wrap=True)
    if not view.is_whole:
        out.print(Text(
            f"Not all was looked at: {MOST_ENTRIES:,} entries a lane from {BEFORE_MS // 1000} s before to "
            f"{AFTER_MS // 1000} s after the id's time, {MOST_RECORDS:,} journal records.", style="dim",
        ))  # fmt: skip


def _print_fact(out: Console, name: str, value: str) -> None:
    """Print a value behind its name, wrapped between words and below itself."""
    lines = Text(value, overflow="fold").wrap(out, max(20, out.width - 10))
    for number, line in enumerate(lines):
        out.print(Text.assemble((f"{'' if number else name:<9} ", "dim"), line), soft_wrap=True)


def _print_journal(out: Console, view: TaskView) -> None:
    """Print one line for each delivery; what does not fit, and who it was, is in --json."""
    rows: list[list[Any]] = []
    today, before = str(instant(view.created_at_ms))[:10], ""
    for record in view.journal:
        ended = str(instant(record.ended_at_ms)).rstrip("Z").removeprefix(f"{today} ")
        took = span(record.ended_at_ms - record.started_at_ms) if record.started_at_ms else None
        rows.append([ended, record.state, record.attempt, took, _detail(view, record.detail, before)])
        before = record.detail
    names = ["ended (UTC)", "as", "run", "took", "detail"]
    used = sum(max(len(str(cell)) for cell in (name, *(row[at] for row in rows))) for at, name in enumerate(names[:-1]))
    room = max(10, out.width - used - 2 * (len(names) - 1))
    for row in rows:
        row[-1] = row[-1] if len(row[-1]) <= room else row[-1][: room - 1] + "…"
    out.print(table(names, rows, numbers=("run", "took")))


def _detail(view: TaskView, detail: str, before: str) -> str:
    text, failure = " ".join(detail.split()), " ".join(_failure(view).split())
    if failure:
        text = text.replace(failure, "the failure")
    return "the same" if text and detail == before and "the failure" not in text else text


def _failure(view: TaskView) -> str:
    return f"{view.failure.type_name}: {view.failure.message}".strip() if view.failure is not None else ""


def _lines(view: TaskView, now_ms: int) -> list[tuple[str, str | None]]:
    age = (
        f"{instant(view.created_at_ms)}, {span(max(0, now_ms - view.created_at_ms))} ago"
        if view.created_at_ms
        else None
    )
    failure = _failure(view)
    if view.failure is not None and view.failure.traceback.rstrip().endswith(failure):
        failure = ""  # it is the last line of what is printed below
    worker = view.worker
    where = f"{view.consumer} ({worker.get('host')}:{worker.get('pid')})" if worker else view.consumer
    held = view.journal[-1].detail if view.journal and view.journal[-1].state == "deferred" else None
    return [
        ("sent", age),
        ("sent by", f"task message {view.parent}" if view.parent else None),
        ("repeats", f"task message {view.replay_of}" if view.replay_of else None),
        ("call", _call(view)),
        ("queue", f"{view.queue}, lane {view.lane or '?'}" + (f", entry {view.entry}" if view.entry else "")),
        ("run", _runs(view)),
        ("due", _due(view.run_at_ms, now_ms)),
        ("held", held if view.state == State.SCHEDULED else None),
        ("worker" if view.state in (State.RUNNING, State.CANCELLING) else "ran on", where),
        ("cancel", _cancel(view)),
        ("died", f"{instant(view.died_at_ms)}: {view.reason}" if view.died_at_ms else None),
        ("failure", failure),
        ("result", plain_json(view.result) if view.state == State.SUCCEEDED else None),
    ]


def _cancel(view: TaskView) -> str | None:
    if not view.cancel_asked:
        return None
    if view.terminate_asked:
        return "asked for, and that a run is ended"
    return (
        "asked for: it is not tried again" if view.state == State.RUNNING else "asked for: a worker has yet to drop it"
    )


def _due(at_ms: int | None, now_ms: int) -> str | None:
    if not at_ms:
        return None
    if at_ms < now_ms:
        return f"{instant(at_ms)}, {span(now_ms - at_ms)} ago: no live worker sends it on"
    return f"{instant(at_ms)}, in {span(at_ms - now_ms)}"


def _runs(view: TaskView) -> str | None:
    """Say which run it is, was or will be; nothing where it never began."""
    runs = view.state == State.RUNNING or (view.state == State.CANCELLING and view.consumer)
    began = runs or view.crashes or any(record.started_at_ms for record in view.journal)
    if not began:
        return None
    comes = " comes" if view.state in (State.WAITING, State.SCHEDULED) else ""
    in_round = f" in round {view.round}" if view.round > 1 else ""
    return f"{view.attempt}{in_round}{comes}" + (f", and {view.crashes} crashed" if view.crashes else "")


def _call(view: TaskView) -> str:
    if view.args is None:
        return "not kept"
    named = [f"{name}={_literal(value)}" for name, value in view.kwargs.items()]
    return f"{view.task.rpartition('.')[2]}({', '.join([*map(_literal, view.args), *named])})"


def _literal(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        return repr(value)
