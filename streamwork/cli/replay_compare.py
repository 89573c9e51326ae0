"""`streamwork replay --compare`: what current code does otherwise, as a table, as JSON or as a page."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.text import Text

from streamwork.app import Streamwork
from streamwork.cli.history import call_text, gap_text
from streamwork.cli.replay_page import page
from streamwork.cli.session import Session
from streamwork.cli.show import console, instant, print_json, table
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import AppNotFound, ReplayRefused
from streamwork.history import HistoryOptions
from streamwork.model.history import HistoryRecord
from streamwork.model.replay import CHANGES, DIFFERENCES, SAME, Compared, Comparison
from streamwork.replay.past import CALLS

# Lines on a screen; --json and --html have all.
_SHOWN, _DIFFS = 20, 5
_STYLES = {"same": "green", "now_succeeds": "green", "now_fails": "bold red", "result_differs": "red"}
MEANS = {
    "same": "ends as it did, with the same result or error",
    "now_succeeds": "had failed, and does not any more",
    "slower": "is slower than --slower allows",
    "result_differs": "returns something else",
    "fails_differently": "fails, with another error or from another place",
    "now_fails": "had succeeded, and fails",
    "incompatible": "the task does not take these arguments any more, or is not declared",
    "not_compared": "could not run, so nothing is known",
}


def compare(
    session: Session, queue: str, filters: HistoryOptions, *, slower: str | None, concurrency: int | None,
    html: str | None, allowed: frozenset[str], most: int, yes: bool, dry_run: bool, as_json: bool, imported: bool,
) -> int:  # fmt: skip
    """Compare; returns the exit status: 1 where something differs that is not allowed, or nothing was there."""
    app = session.app_if_any()
    if app is None:
        raise AppNotFound("--compare runs the app's own code: give --app pkg.mod:app, and no --namespace")
    if dry_run:
        return _dry_run(app, queue, filters, as_json=as_json)
    with ExitStack() as stack:
        told = _ticker(stack) if sys.stderr.isatty() and not as_json else None
        more: dict[str, Any] = {} if concurrency is None else {"concurrency": concurrency}
        try:
            found = app.compare(queue, slower=slower, most=None if yes else most, told=told, **more, **filters)
        except ReplayRefused as error:
            hint = ": give --yes to run them, or --dry-run to see which" if "none of them ran" in str(error) else ""
            raise click.ClickException(f"{error}{hint}") from error
    if html is not None:
        made_at = str(instant(SYSTEM_CLOCK.now_ms()))
        Path(html).write_text(page(found, app.name, made_at, allowed), encoding="utf-8")
    if as_json:
        print_json(_public(found, allowed))
    else:
        _print(found, allowed)
    if not found.total:
        raise click.ClickException(f"no delivery of queue {queue!r} fits: nothing was compared")
    return 1 if found.differences(allowed) else 0


def _dry_run(app: Streamwork, queue: str, filters: HistoryOptions, *, as_json: bool) -> int:
    count = 0
    asked = filters if "state" in filters or "id" in filters else HistoryOptions(**filters, state=CALLS)
    for one in app.history(queue, **asked):
        if not isinstance(one, HistoryRecord):
            continue
        count += 1
        if as_json:
            print_json({"answer": "would run", "id": one.id, "task": one.task, "attempt": one.attempt})
        else:
            text = call_text(one.task, one.args, one.kwargs)
            click.echo(f"{one.id} would run: {text}, attempt {one.attempt}, {one.state} then")
    if not as_json:
        click.echo(f"{count:,} would run")
    return 0


def _ticker(stack: ExitStack) -> Any:
    """Return what counts on the terminal, since nobody knows how many come."""
    status = stack.enter_context(Console(file=sys.stderr).status("comparing"))
    counts = {"all": 0, "other": 0}

    def told(one: Compared) -> None:
        counts["all"] += 1
        counts["other"] += one.change != SAME
        if counts["all"] % 25 == 0:
            status.update(f"compared {counts['all']:,}, {counts['other']:,} of them not the same")

    return told


def _public(found: Comparison, allowed: frozenset[str]) -> dict[str, Any]:
    facts = msgspec.structs.asdict(found)
    different = [msgspec.structs.asdict(one) for one in facts.pop("different")]
    return {**facts, "total": found.total, "differences": found.differences(allowed), "different": different}


def _print(found: Comparison, allowed: frozenset[str]) -> None:
    out = console()
    rows = [
        (Text(change, _STYLES.get(change, "yellow" if change in DIFFERENCES else "")), found.counts[change],
         MEANS[change] + (" (allowed)" if change in allowed else ""))
        for change in CHANGES if found.counts.get(change)
    ]  # fmt: skip
    if rows:
        out.print(table(("change", "deliveries", "what it means"), rows, numbers=("deliveries",)))
    for one in found.different[:_SHOWN]:
        out.print(_line(one), soft_wrap=True)
    if len(found.different) > _SHOWN:
        click.echo(f"… and {len(found.different) - _SHOWN:,} more: --html FILE or --json shows all")
    for one in islice((one for one in found.different if one.diff), _DIFFS):
        click.echo(f"\n{one.id} {call_text(one.task, one.args, one.kwargs)}\n{one.diff}")
    for gap in found.gaps:
        out.print(Text(f"! {gap_text(gap)}", style="bold red"), soft_wrap=True)
    click.echo(f"{found.total:,} compared in {found.took_s:.1f} s{by_text(found)}")


def _line(one: Compared) -> Text:
    line = Text(f"{one.id}  ", "dim").append(f"{one.change:<18}", _STYLES.get(one.change, "yellow"))
    return line.append(call_text(one.task, one.args, one.kwargs)).append(f": {one.note}" if one.note else "")


def by_text(found: Comparison) -> str:
    """Say what of the past was compared, since results go sooner than the journal."""
    parts = []
    if count := found.by.get("size"):
        parts.append(f"{count:,} by the size of the result, which is not kept any more (keep.result_s)")
    if count := found.by.get("result"):
        parts.append(f"{count:,} by the result")
    return f"; {', '.join(parts)}" if parts else ""
