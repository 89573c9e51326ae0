"""`streamwork history`: what came of each attempt, filtered, as it is stored in Redis."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from streamwork.cli.archive import export, import_
from streamwork.cli.filters import asked, filter_options
from streamwork.cli.options import examples, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import console, instant, plain_json, print_json, span
from streamwork.history import HistoryOptions
from streamwork.model.history import HistoryGap, HistoryRecord

_STYLES = {"succeeded": "green", "dead": "bold red", "retried": "yellow", "crashed": "red", "cancelled": "yellow"}
# With less room the id goes to a line of its own.
_WIDE = 120


class _WithDefault(click.Group):
    """A group that takes whatever is none of its commands for the arguments of `show`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the line."""
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["show", *args])


@click.group(cls=_WithDefault)
def history() -> None:
    """Show what came of each attempt."""


history.add_command(export)
history.add_command(import_)


@history.command(short_help="What came of each attempt.", epilog=examples(
    "streamwork history                                   all of `default` that is kept, oldest first",
    "streamwork history mail --since 2h --state failed    dead, retried or crashed in the last two hours",
    "streamwork history mail --task send_receipt --where \"order_id == 7 and to != 'a@b.c'\"",
    "streamwork history mail --reverse --limit 20         the newest first",
    "streamwork history mail --follow --json              what ends from now on, a JSON object a line",
))  # fmt: skip
@click.argument("queue", metavar="[QUEUE]", default="default")
@filter_options
@click.option("--reverse", is_flag=True, help="Newest first.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes; begins now unless --since says otherwise.")
@click.option("--imported", is_flag=True, help="Of files that were imported, not of what happened here.")
@place_options
def show(
    queue: str, *, reverse: bool, follow: bool, imported: bool, app: str | None, url: str | None, namespace: str | None,
    as_json: bool, **picked: Any,
) -> None:  # fmt: skip
    """Show what came of each attempt of a queue, in the order in which they ended.

    An expression of --where has names of arguments (arg0, arg1, … for positional ones of tasks that are not declared
    here), numbers, 'texts', true, false and null, with ==, !=, <, <=, >, >=, and, or, not and parentheses.

    What is past its retention (keep.history_s, keep.history_most) is told as a gap. With --json each line is one
    object, of the kind "attempt" or "gap". Exit status 1 where nothing is kept of --id.

    `streamwork history export` writes it to a file, `streamwork history import` takes one back.
    """
    options = HistoryOptions(reverse=reverse, follow=follow, imported=imported, **asked(picked))
    with Session(app, url, namespace) as session:
        found = (session.app_if_any() or session.unbound()).history(queue, **options)
        print_one, count = _print_json if as_json else _Lines(console()).print, 0
        for one in found:
            print_one(one)
            count += isinstance(one, HistoryRecord)
    if not count and "id" in options:
        raise click.ClickException(f"no attempt of task message {options['id']} in queue {queue!r} fits")
    if not count and not as_json:
        click.echo("no attempt fits")


def _print_json(one: HistoryRecord | HistoryGap) -> None:
    print_json(public(one))


def public(one: HistoryRecord | HistoryGap) -> dict[str, Any]:
    """Return a record as it is shown: all but the stored bytes."""
    facts = {name: getattr(one, name) for name in one.__struct_fields__ if name != "body"}
    return {"kind": "gap" if isinstance(one, HistoryGap) else "attempt", **facts}


class _Lines:
    """Prints records one by one, since nobody knows how many come; a new day is a line of its own."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._day = ""
        self._is_wide = out.width >= _WIDE

    def print(self, one: HistoryRecord | HistoryGap) -> None:
        day, _, clock = str(instant(one.until_ms if isinstance(one, HistoryGap) else one.ended_at_ms)).partition(" ")
        if isinstance(one, HistoryGap):
            self._out.print(Text(f"! {gap_text(one)}", style="bold red"), soft_wrap=True)
            return
        if day != self._day:
            self._day = day
            self._out.print(Text(f"{day} (UTC)", style="dim"))
        took = span(one.ended_at_ms - one.started_at_ms) if one.started_at_ms else ""
        line = Text(f"{clock.rstrip('Z')}  ")
        line.append(f"{one.state:<9}", _STYLES.get(one.state, "")).append(f"  {took or '':>7}  ")
        call, detail = _call(one), " ".join(one.detail.split())
        if self._is_wide:
            line.append(f"{one.id}  ", "dim").append(call + (f": {detail}" if detail else ""))
        else:
            line.append(call)
        self._print(line)
        if not self._is_wide:
            self._print(Text(f"              {one.id}{f'  {detail}' if detail else ''}", style="dim"))

    def _print(self, line: Text) -> None:
        if sys.stdout.isatty():
            line.truncate(self._out.width, overflow="ellipsis")
        self._out.print(line, soft_wrap=True)


def gap_text(gap: HistoryGap) -> str:
    """Say what is missing, from when to when, and why."""
    what = f"arguments of lane {gap.lane}" if gap.what == "arguments" else "attempts"
    since = f" from {instant(gap.since_ms)}" if gap.since_ms else ""
    went = f": trimmed at {instant(gap.trimmed_at_ms)} ({gap.why})" if gap.trimmed_at_ms else ""
    return f"{what}{since} up to {instant(gap.until_ms)} are not kept{went}"


def _call(record: HistoryRecord) -> str:
    said = [f"round {record.round}"] if record.round > 1 else []
    said += [f"run {record.attempt}"] if record.attempt > 1 else []
    return call_text(record.task, record.args, record.kwargs) + (f" ({', '.join(said)})" if said else "")


def call_text(task: str, args: list[Any] | None, kwargs: dict[str, Any]) -> str:
    """Return a call as people write it, whatever of it is known."""
    if args is None:
        return f"{task or 'unreadable message'}(…)"
    said = [*map(_value, args), *(f"{name}={_value(value)}" for name, value in kwargs.items())]
    return f"{task}({', '.join(said)})"


def _value(value: Any) -> str:
    return repr(value) if isinstance(value, str) else plain_json(value)
