"""`streamwork history export` and `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

from streamwork.archive.files import Format, create, read
from streamwork.archive.form import VERSION, Header
from streamwork.broker.imported import batches, forget, take
from streamwork.cli.filters import asked, filter_options
from streamwork.cli.options import examples, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import instant, print_json
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import ConfigError
from streamwork.model.history import HistoryRecord
from streamwork.model.instant import read_span
from streamwork.store.commands import plain
from streamwork.store.keys import checked_name, queues

# What is looked at for a month is looked at; the file stays.
_KEEP = "30d"


@click.command("export", short_help="Write it to a file, so that it outlives Redis.", epilog=examples(
    "streamwork history export mail --since 7d -o mail.jsonl",
    "streamwork history export mail --state failed --format parquet -o failed.parquet",
    "streamwork history export mail | gzip > mail.jsonl.gz",
))  # fmt: skip
@click.argument("queue", metavar="[QUEUE]", default="default")
@click.option("--format", "kind", type=click.Choice(("jsonl", "parquet")), default="jsonl", help="[default: jsonl]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Where to; it is there once it is whole. [default: standard output]",
)  # fmt: skip
@filter_options
@place_options
def export(
    queue: str, *, kind: str, output: Path | None, app: str | None, url: str | None, namespace: str | None,
    as_json: bool, **picked: Any,
) -> None:  # fmt: skip
    """Write what came of each attempt to a file: all of a queue, or what fits.

    JSON lines have a header, one object per attempt or gap with the stored message beside its arguments, and a last
    line that says how many there are. Parquet has one row each and needs `pip install 'streamwork[parquet]'`.
    """
    with Session(app, url, namespace) as session:
        found = (session.app_if_any() or session.unbound()).history(queue, **asked(picked))
        words = {name: str(value) for name, value in picked.items() if value is not None}
        header = Header(VERSION, session.namespace(), queue, SYSTEM_CLOCK.now_ms(), words)
        writer, count = create(output, cast(Format, kind), header), 0
        try:
            for one in found:
                writer.write(one)
                count += isinstance(one, HistoryRecord)
            writer.finish()
        except BaseException:
            writer.give_up()
            raise
    if output is not None and as_json:
        print_json({"queue": queue, "file": str(output), "format": kind, "attempts": count})
    elif output is not None:
        click.echo(f"{count:,} attempts of {queue} are in {output}")


def _span(ctx: click.Context, param: click.Parameter, text: str) -> int:
    try:
        return read_span(text, str(param.opts[0]))
    except ConfigError as error:
        raise click.UsageError(str(error), ctx) from error


@click.command("import", short_help="Take a file back, to look at it with --imported.", epilog=examples(
    "streamwork history import mail.jsonl",
    "streamwork history import failed.parquet --queue old-mail --keep 7d",
    "streamwork history old-mail --imported --state failed",
))  # fmt: skip
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--queue", metavar="NAME", help="Beside the history of this queue. [default: the one it is of]")
@click.option("--keep", "keep_ms", default=_KEEP, callback=_span, metavar="SPAN", help=f"So long. [default: {_KEEP}]")
@click.option("--replace", is_flag=True, help="Drop what was imported into the queue before.")
@place_options
def import_(
    file: Path, *, queue: str | None, keep_ms: int, replace: bool, app: str | None, url: str | None,
    namespace: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Take an exported file back into Redis, beside what happens there; `streamwork history QUEUE --imported` reads it.

    Nothing of it runs, and nothing of what is there changes. Records that were imported before are left out; several
    files go from the oldest to the newest. A file of another version, or one that is cut short, is refused.
    """
    was, found = read(file)
    for _ in found:  # all of it is looked at before anything is taken
        pass
    name, taken, known = checked_name("queue", queue or was.queue), 0, 0
    with Session(app, url, namespace) as session:
        keys = session.keys(name)
        if replace:
            session.ask(forget(keys))
        for batch in batches(read(file).found):
            answer = session.ask(take(keys, batch, keep_ms))
            taken, known = taken + answer.taken, known + answer.known
        session.driver.run(plain("SADD", queues(keys.namespace), name))
    if as_json:
        print_json({"queue": name, "file": str(file), "taken": taken, "known": known, "header": was})
        return
    click.echo(
        f"{taken:,} attempts imported into {name}"
        f" (of {was.namespace}/{was.queue}, exported at {instant(was.exported_at_ms)})"
        + (f", {known:,} were there" if known else "")
    )
    click.echo(f"look at them with `streamwork history {name} --imported`")
