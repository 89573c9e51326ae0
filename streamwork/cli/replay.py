"""`streamwork replay`: past task messages sent anew, one run here, or current code compared with what came of them."""

from __future__ import annotations

from typing import Any

import click

from streamwork.cli.bury import change
from streamwork.cli.cancel import checked_id
from streamwork.cli.filters import asked, filter_options
from streamwork.cli.options import examples, place_options
from streamwork.cli.replay_compare import compare
from streamwork.cli.replay_here import here
from streamwork.cli.replay_into import into
from streamwork.cli.session import Session
from streamwork.errors import ConfigError
from streamwork.ids import task_id_at_ms
from streamwork.model.replay import CHANGES, SAME

# More than this is not done without --yes.
MOST = 100
# Which options belong to which of the three.
_OF = {
    "--into": ("changes", "rate", "pace", "resume", "anew"),
    "--here": ("debug", "attempt"),
    "--compare": ("slower", "concurrency", "html", "allow"),
}


def _mode_options(command: Any) -> Any:
    for option in (
        click.option("--dry-run", is_flag=True, help="Only print exactly what would happen."),
        click.option("--yes", is_flag=True, help=f"Also where more than {MOST} fit."),
        click.option("--imported", is_flag=True, help="Of files that were imported, not of what happened here."),
        click.option("--allow", metavar="A,B", help=f"Differences that are meant: {', '.join(CHANGES[1:-1])}."),
        click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="Write the report as one page."),
        click.option("--concurrency", type=click.IntRange(1), metavar="N", help="Bodies at a time. [default: 8]"),
        click.option("--slower", metavar="X", help="Slower by more than 2x, or 200ms, counts as a difference."),
        click.option("--attempt", type=click.IntRange(1), metavar="N", help="Which one. [default: the last that ran]"),
        click.option("--pdb", "debug", is_flag=True, help="A debugger at the first line of the body."),
        click.option("--anew", is_flag=True, help="Begin another one although one was interrupted."),
        click.option("--resume", is_flag=True, help="Go on with the same replay that was interrupted."),
        click.option(
            "--pace", metavar="FACTOR", help="1x = as far apart as they were made, 10x, or max. [default: max]"
        ),
        click.option("--rate", type=float, metavar="N", help="So many a second at most."),
        click.option("--set", "changes", metavar="NAME=VALUE", multiple=True, help="Another value; JSON, or text."),
        click.option("--compare", "is_compared", is_flag=True, help="Run current code over them, send nothing."),
        click.option("--here", is_flag=True, help="Run one in this process, send nothing."),
        click.option("--into", metavar="QUEUE", help="Send them anew, to this queue."),
    ):
        command = option(command)
    return command


@click.command(short_help="The past again.", epilog=examples(
    "streamwork replay mail --since 2h --state failed --into mail --dry-run     then without it",
    "streamwork replay mail --task send_receipt --into trial --set to=me@x.org --rate 50",
    "streamwork replay mail --since 1d --into trial --pace 10x --yes            as it came, ten times faster",
    "streamwork replay 0197a2b4c6d87e1f8a0b1c2d3e4f5a6b --here --pdb",
    "streamwork replay mail --since 7d --compare --yes --html report.html",
))  # fmt: skip
@click.argument("what", metavar="[QUEUE|ID]", default="default")
@_mode_options
@filter_options
@click.option("-Q", "--queue", "named", metavar="NAME", help="The queue of ID. [default: default]")
@place_options
@click.pass_context
def replay(ctx: click.Context, /, what: str, named: str | None, **given: Any) -> int:
    """Take what history keeps and do one of three things with it; `streamwork history` has the same filters.

    --into QUEUE enqueues each message anew, with a new id and its own arguments. What was sent is noted in .streamwork,
    so that the same command with --resume goes on after an interruption and sends nothing twice.

    --here runs one past delivery in this process: its arguments, attempt and context, without any time limit.

    --compare runs the code as it is now over all of them (how calls ended: succeeded, skipped, dead) and compares it
    with what is recorded; exit status 1 if something differs that is not allowed with --allow. Results are compared
    while they are kept (keep.result_s), later only their size.

    With --here and --compare nothing is written to Redis and what the bodies send is captured. Whatever else they do
    (files, mail, other databases) they really do again: ctx.replay tells them, as "here" or "compare".
    """
    mode = _mode(ctx, given)
    task_id, queue = _place(ctx, what, named, given)
    place = {name: given.pop(name) for name in ("app", "url", "namespace")}
    options: dict[str, Any] = {name: given.pop(name) for name in ("as_json", "dry_run", "yes", "imported")}
    special = {name: given.pop(name) for names in _OF.values() for name in names}
    target, _, _ = given.pop("into"), given.pop("here"), given.pop("is_compared")
    filters = asked(given)
    if task_id:
        filters["id"] = task_id
    if options["imported"]:
        filters["imported"] = True
    with Session(**place) as session:
        if mode == "--here":
            if not task_id:
                raise click.UsageError("--here runs one delivery: give its ID", ctx)
            return here(session, queue, task_id, **{name: special[name] for name in _OF[mode]}, **options)
        if mode == "--compare":
            allowed = _allowed(special.pop("allow"))
            chosen = {name: special[name] for name in _OF[mode] if name != "allow"}
            return compare(session, queue, filters, most=MOST, allowed=allowed, **chosen, **options)
        chosen = {name: special[name] for name in _OF[mode] if name != "changes"}
        changes = dict(change(text) for text in special["changes"])
        return into(session, queue, target, filters, most=MOST, changes=changes, **chosen, **options)


def _mode(ctx: click.Context, given: dict[str, Any]) -> str:
    """Return which of the three is asked for; options of another one are refused, or they would be ignored."""
    flags = {"--into": given["into"], "--here": given["here"], "--compare": given["is_compared"]}
    modes = [name for name, value in flags.items() if value]
    if len(modes) != 1:
        raise click.UsageError("say one of --into QUEUE (send anew), --here (run one) and --compare (run all)", ctx)
    for mode, names in _OF.items():
        wrong = [name for name in names if mode != modes[0] and given[name] not in (None, False, ())]
        if wrong:
            flag = {"changes": "--set", "debug": "--pdb"}.get(wrong[0], f"--{wrong[0]}")
            raise click.UsageError(f"{flag} belongs to {mode}, not to {modes[0]}", ctx)
    return modes[0]


def _place(ctx: click.Context, what: str, named: str | None, given: dict[str, Any]) -> tuple[str, str]:
    """Return the id, if one was given, and the queue."""
    if task_id_at_ms(what.replace("-", "").lower()) is not None:
        if given["id"] is not None:
            raise click.UsageError("an ID and --id are one too many", ctx)
        return checked_id(what), named or "default"
    if named is not None:
        raise click.UsageError("-Q says the queue of an ID; give QUEUE alone", ctx)
    return (checked_id(given.pop("id")) if given["id"] is not None else ""), what


def _allowed(text: str | None) -> frozenset[str]:
    words = frozenset(word.strip().replace("-", "_") for word in (text or "").split(",") if word.strip())
    for word in sorted(words):
        if word not in CHANGES or word == SAME:
            raise ConfigError(f"--allow {word!r}: differences are {', '.join(CHANGES[1:-1])}")
    return words
