"""`streamwork replay --into`: past task messages sent anew, with a progress bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamwork.broker.stats import queue_names
from streamwork.cli.history import call_text
from streamwork.cli.session import Session
from streamwork.cli.show import print_json
from streamwork.errors import ReplayRefused
from streamwork.history import HistoryOptions
from streamwork.model.replay import ReplayCall, Replayed


def into(
    session: Session, queue: str, target: str, filters: HistoryOptions, *, changes: dict[str, Any],
    rate: float | None, pace: str | None, resume: bool, anew: bool, most: int, yes: bool, dry_run: bool,
    as_json: bool, imported: bool,
) -> int:  # fmt: skip
    """Send them anew; returns the exit status: 1 where some were not sent."""
    app = session.app_if_any() or session.unbound()
    if target not in session.ask(queue_names(app.name, app.queues)):
        click.echo(f"streamwork: queue {target!r} is new: a worker has to be told to read it (-Q {target})", err=True)
    bound = None if yes or dry_run else most
    with ExitStack() as stack:
        begun, advance = _bar(stack) if not (dry_run or as_json) and sys.stderr.isatty() else (None, None)

        def told(call: ReplayCall) -> None:
            if advance is not None:
                advance()
            if as_json or dry_run or call.why:
                _tell(call, dry_run=dry_run, as_json=as_json)

        try:
            done = app.replay(
                queue, into=target, changes=changes, rate=rate, pace=pace, dry_run=dry_run, resume=resume, anew=anew,
                most=bound, begun=begun, told=told, **filters,
            )  # fmt: skip
        except ReplayRefused as error:
            hint = ": give --yes to send them, or --dry-run to see which" if "are the most" in str(error) else ""
            raise click.ClickException(f"{error}{hint}") from error
        except KeyboardInterrupt:
            click.echo("streamwork: interrupted; the same command with --resume goes on", err=True)
            raise
    if not as_json:
        _sum_up(done, target, dry_run=dry_run)
    return 1 if done.refused else 0


def _bar(stack: ExitStack) -> tuple[Callable[[int], None], Callable[[], None]]:
    """Return what begins a progress bar, and what moves it."""
    columns = TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    progress = Progress(*columns, console=Console(file=sys.stderr), transient=True)
    bar = progress.add_task("sending", total=None)

    def begun(total: int) -> None:
        progress.update(bar, total=total)
        stack.enter_context(progress)

    return begun, lambda: progress.advance(bar)


def _tell(call: ReplayCall, *, dry_run: bool, as_json: bool) -> None:
    answer = "not sent" if call.why else "would be sent" if dry_run else "sent"
    if as_json:
        facts = {name: getattr(call, name) for name in call.__struct_fields__}
        print_json({"answer": answer, **facts})
        return
    text = call_text(call.task, call.args, call.kwargs)
    click.echo(
        f"{call.id} {answer}: {f'{text}: {call.why}' if call.why else f'{text} to {call.queue}, lane {call.lane}'}"
    )


def _sum_up(done: Replayed, target: str, *, dry_run: bool) -> None:
    before = f", {done.sent_before:,} were before" if done.sent_before else ""
    refused = f", {len(done.refused):,} not" if done.refused else ""
    click.echo(f"{done.sent:,} {'would be sent' if dry_run else 'sent'} to {target}{before}{refused}")
