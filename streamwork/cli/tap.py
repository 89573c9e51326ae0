"""`streamwork tap`: what comes onto the lanes of a queue, printed, or given to a program of the user's."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

import click
from rich.text import Text

from streamwork.cli.filters import past_instant
from streamwork.cli.history import call_text
from streamwork.cli.options import examples, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import console, instant, print_json, to_json
from streamwork.model.tap import TapGap, TapMessage

# What a program gets to end in by itself once its standard input is closed.
_END_S = 10.0


@click.command(epilog=examples(
    "streamwork tap mail --group look                        every message that comes, until Ctrl-C",
    "streamwork tap mail --group shadow -- ./replay.py       each as a JSON line on its standard input",
    "streamwork tap mail --group audit --since 1h --limit 100 --json",
    "streamwork tap mail --group look --remove",
))  # fmt: skip
@click.argument("queue")
@click.argument("command", metavar="[-- CMD...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--group", required=True, metavar="NAME", help="Name of the tap; its readers share what comes.")
@click.option("--since", metavar="TIME", callback=past_instant, help="A new tap begins then. [default: now]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="So many messages at most. [default: no end]")
@click.option("--remove", is_flag=True, help="Remove the tap at once, instead of a day after its last use.")
@place_options
def tap(
    queue: str, command: tuple[str, ...], *, group: str, since: datetime | None, limit: int | None, remove: bool,
    app: str | None, url: str | None, namespace: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Read along what comes onto the lanes of a queue, without taking it from its workers.

    Each message goes to CMD's standard input, or is printed, as one JSON object a line: id, task, args, kwargs, lane,
    tags, attempt and more, "kind": "message". A retry comes anew, with another attempt. What the retention took before
    it was read is a line of "kind": "gap" that says how many. Each message comes once at most: what was on its way when
    CMD ends is not told again. A tap that nobody reads for a day is removed.

    Where CMD ends, so does this: with 0 as it did, else with 1.
    """
    with Session(app, url, namespace) as session:
        known = session.app_if_any() or session.unbound()
        if remove:
            if not known.untap(queue, group=group):
                raise click.ClickException(f"no tap {group!r} on queue {queue!r}")
            click.echo(f"tap {group} is removed")
            return
        heard = known.tap(queue, group=group, since=since, limit=limit)
        if command:
            with _program(command) as write:
                for one in heard:
                    write(one)
            return
        say = _print_json if as_json else _print
        for one in heard:
            say(one)


class _Ended(Exception):
    """The program has ended."""


@contextmanager
def _program(command: tuple[str, ...]) -> Iterator[Callable[[TapMessage | TapGap], None]]:
    """Run a program while its block lasts; gives what writes one line to it."""
    try:
        child = subprocess.Popen(command, stdin=subprocess.PIPE)
    except OSError as error:
        raise click.ClickException(f"{command[0]}: {error.strerror or error}") from error
    assert child.stdin is not None
    line = child.stdin

    def write(one: TapMessage | TapGap) -> None:
        try:
            line.write(to_json(public(one)) + b"\n")
            line.flush()
        except BrokenPipeError:
            raise _Ended from None

    def on_child(_number: int, _frame: FrameType | None) -> None:
        if child.poll() is not None:  # else it was another one, such as what starts the embedded Redis
            raise _Ended

    before = signal.signal(signal.SIGCHLD, on_child)
    try:
        on_child(signal.SIGCHLD, None)  # it may have ended already
        yield write
    except _Ended:
        pass
    finally:
        signal.signal(signal.SIGCHLD, before)
        _end(child)
    if child.returncode:
        raise click.ClickException(f"{command[0]} ended with status {child.returncode}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Close a program's standard input and wait for its end, `_END_S` at most."""
    assert child.stdin is not None
    try:
        child.stdin.close()
    except BrokenPipeError:
        pass
    try:
        child.wait(_END_S)
    except subprocess.TimeoutExpired:
        child.terminate()
        child.wait()


def public(one: TapMessage | TapGap) -> dict[str, Any]:
    """Return what was heard as it is shown: all but the stored bytes."""
    facts = {name: getattr(one, name) for name in one.__struct_fields__ if name != "body"}
    return {"kind": "gap" if isinstance(one, TapGap) else "message", **facts}


def _print_json(one: TapMessage | TapGap) -> None:
    print_json(public(one))


def _print(one: TapMessage | TapGap) -> None:
    if isinstance(one, TapGap):
        why = f" ({one.why})" if one.why else ""
        line = Text(f"! {one.missed:,} messages of lane {one.lane} were gone before they were read{why}", "bold red")
    else:
        line = Text(f"{instant(one.enqueued_at_ms)}  ").append(f"{one.id}  ", "dim")
        line.append(call_text(one.task, one.args, one.kwargs))
        line.append(f" (run {one.attempt})" if one.attempt > 1 else "")
    console().print(line, soft_wrap=True)
