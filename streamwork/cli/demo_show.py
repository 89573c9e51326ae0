"""How the demo looks: progress while it runs, and the report at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from streamwork.cli.demo_facts import Facts, Totals

# Without a terminal: a line for each tenth.
_LINES = 10
_MOST_PROBLEMS = 10


@contextmanager
def progress_of(console: Console, total: int) -> Iterator[Callable[[int, str], None]]:
    """Show progress; what is yielded takes (results that have arrived, news or nothing)."""
    if not console.is_terminal:
        yield _lines(console, total)
        return
    columns = (TextColumn("scan"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("scan", total=total)

        def advance(done: int, news: str) -> None:
            bar.update(task, completed=done)
            if news:
                bar.console.print(news, style="bold red")

        yield advance


def _lines(console: Console, total: int) -> Callable[[int, str], None]:
    shown = 0

    def advance(done: int, news: str) -> None:
        nonlocal shown
        if news:
            console.print(news)
        if done * _LINES // total > shown:
            shown = done * _LINES // total
            console.print(f"scan {done}/{total}")

    return advance


def report(console: Console, facts: Facts) -> None:
    """Print the facts, the comparison and the verdict."""
    console.print()
    for name, value in _facts(facts):
        console.print(f"{name:<10} {value}", soft_wrap=True)
    console.print()
    console.print(_comparison(facts))
    console.print()
    for problem in facts.problems[:_MOST_PROBLEMS]:
        console.print(f"FAILED: {problem}", style="red", markup=False, soft_wrap=True)
    if len(facts.problems) > _MOST_PROBLEMS:
        console.print(f"FAILED: and {len(facts.problems) - _MOST_PROBLEMS} more", style="red")
    style = "bold red" if facts.problems else "bold green"
    console.print(f"{facts.lost} lost, {facts.committed_twice} committed twice", style=style)


def _facts(facts: Facts) -> Iterator[tuple[str, str]]:
    elapsed_s = facts.elapsed_ms / 1000
    yield "files", f"{facts.files:,} in {elapsed_s:.1f} s, recovery included; enqueued in {facts.enqueue_ms} ms"
    yield "files/s", f"{facts.files_per_s:,.1f}"
    yield "latency", f"p50 {facts.p50_ms:,} ms, p99 {facts.p99_ms:,} ms, enqueue to result, all enqueued at once"
    killed, survivor = facts.by_worker
    yield "workers", f"1 finished {killed:,} and was killed at result {facts.killed_after:,}; 2 finished {survivor:,}"
    yield "reclaimed", f"{facts.reclaimed} of {facts.held} deliveries that the killed worker held"
    if facts.first_recovered_ms is not None and facts.last_recovered_ms is not None:
        first, last = facts.first_recovered_ms / 1000, facts.last_recovered_ms / 1000
        yield "recovery", f"{first:.1f} s from the kill to the first of them done, {last:.1f} s to the last"


def _comparison(facts: Facts) -> Table:
    table = Table("", "streamwork", "one process", "", title="the same files, counted twice", title_justify="left")
    table.columns[1].justify = table.columns[2].justify = "right"
    for name in Totals.__struct_fields__:
        here, there = getattr(facts.totals, name), getattr(facts.direct, name)
        table.add_row(name, f"{here:,}", f"{there:,}", "equal" if here == there else "DIFFERS")
    table.add_row("seconds", f"{facts.elapsed_ms / 1000:.1f}", f"{facts.direct_ms / 1000:.1f}", "")
    return table
