"""`streamwork dead retry`, `purge` and `edit`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from streamwork.broker.dead import PURGE, RETRY, Deed
from streamwork.cli.arguments import value_of
from streamwork.cli.cancel import checked_id
from streamwork.cli.dead_options import asked_of, dead_options, queues_of
from streamwork.cli.history import call_text
from streamwork.cli.options import examples, only_option, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import print_json
from streamwork.dead import DeadOptions
from streamwork.errors import DeadLetterRefused
from streamwork.model.dead import DeadRecord

_DEEDS = {"retry": RETRY, "purge": PURGE}
_DONE = {"retry": "retried", "purge": "purged"}


def _deed_options(command: Any) -> Any:
    for option in (
        click.option("--dry-run", is_flag=True, help="Only print what would happen to which."),
        click.option("--yes", is_flag=True, help="Do it to all that fit; not needed where their ids are given."),
        click.option("--all", "all_", is_flag=True, help="All there are, where no filter says which."),
    ):
        command = option(command)
    return command


@click.command(short_help="Let them run again, in a new round.", epilog=examples(
    "streamwork dead retry 0197a2b4c6d87e1f8a0b1c2d3e4f5a6b",
    "streamwork dead retry --task send_receipt --since 2h --dry-run    then --yes instead",
    "streamwork dead retry -Q mail --all --yes",
))  # fmt: skip
@click.argument("ids", metavar="[ID]...", nargs=-1)
@dead_options
@_deed_options
@only_option
@place_options
def retry(ids: tuple[str, ...], **given: Any) -> None:
    """Let dead letters run again, at once and under their ids.

    Each begins a new round: its attempts are counted anew, its result is cleared, and it asks for its limits again. Its
    history stays. With --json each line is one object. Exit status 1 if one was not retried: it is not there, has
    expired, cannot be read, or another message has its unique= name.
    """
    _do("retry", ids, given)


@click.command(short_help="Free them for good.", epilog=examples(
    "streamwork dead purge 0197a2b4c6d87e1f8a0b1c2d3e4f5a6b",
    "streamwork dead purge --until 30d --dry-run                       then --yes instead",
))  # fmt: skip
@click.argument("ids", metavar="[ID]...", nargs=-1)
@dead_options
@_deed_options
@only_option
@place_options
def purge(ids: tuple[str, ...], **given: Any) -> None:
    """Free dead letters for good, with the results that say so; history stays, and notes who did it.

    With --json each line is one object. Exit status 1 if one was not purged, such as one that is not there.
    """
    _do("purge", ids, given)


def _do(name: str, ids: tuple[str, ...], given: dict[str, Any]) -> None:
    all_, yes, dry_run = given.pop("all_"), given.pop("yes"), given.pop("dry_run")
    only, as_json = given.pop("only"), given.pop("as_json")
    place = {key: given.pop(key) for key in ("app", "url", "namespace")}
    given["id"] = (*given["id"], *ids)
    options = asked_of(given)
    if not options and not all_:
        raise click.UsageError(f"say which: ids, filters such as --task and --since, or --all to {name} them all")
    with Session(**place) as session:
        queues = queues_of(session, only)
        if not (yes or dry_run or "id" in options):
            count = sum(1 for _ in _each(session, queues, _DEEDS[name], options, dry_run=True))
            raise click.UsageError(f"{count:,} fit: give --yes to {name} them, or --dry-run to see which")
        done, refused, missing = 0, 0, set(options.get("id") or ())
        for record, why in _each(session, queues, _DEEDS[name], options, dry_run=dry_run):
            missing.discard(record.id)
            done, refused = done + (not why), refused + bool(why)
            _tell(name, record, why, dry_run=dry_run, as_json=as_json)
    if not as_json:
        would = f"would be {_DONE[name]}" if dry_run else _DONE[name]
        click.echo(f"{done:,} {would}" + (f", {refused:,} not" if refused else ""))
    if missing:
        raise click.ClickException(
            f"no such dead letter in {', '.join(queues) or 'any queue'}: {', '.join(sorted(missing))}"
        )
    if refused:
        raise click.exceptions.Exit(1)


def _each(
    session: Session, queues: list[str], deed: Deed, options: DeadOptions, *, dry_run: bool
) -> Iterator[tuple[DeadRecord, str]]:
    app = session.app_if_any() or session.unbound()
    for queue in queues:
        yield from app.each_dead(queue, deed, options, dry_run=dry_run)


def _tell(name: str, record: DeadRecord, why: str, *, dry_run: bool, as_json: bool) -> None:
    answer = "refused" if why else ("would be " if dry_run else "") + _DONE[name]
    in_round = record.round + 1 if name == "retry" else record.round
    if as_json:
        facts = {"id": record.id, "queue": record.queue, "task": record.task, "round": in_round}
        print_json({**facts, "answer": answer, "why": why})
        return
    call = call_text(record.task, record.args, record.kwargs)
    where = f"on {record.queue}, lane {record.lane or '?'}"
    click.echo(
        f"{record.id} {answer}: {why or call + ' ' + where + (f', round {in_round}' if name == 'retry' else '')}"
    )


@click.command(short_help="Give one other arguments; it stays dead until it is retried.", epilog=examples(
    "streamwork dead edit $id --set to=me@x.org --set order_id=7 && streamwork dead retry $id",
    "streamwork dead edit $id --set arg0=7               a positional one of a task that is not declared here",
))  # fmt: skip
@click.argument("task_id", metavar="ID")
@click.option("--set", "changes", metavar="NAME=VALUE", multiple=True, required=True, help="VALUE is JSON, or text.")
@click.option("--dry-run", is_flag=True, help="Check it, and print what would change.")
@only_option
@place_options
def edit(
    task_id: str, changes: tuple[str, ...], only: tuple[str, ...] | None, *, dry_run: bool, as_json: bool, **place: Any
) -> None:
    """Give a dead letter other arguments, checked against the task where the app declares it.

    What changed and who did it stands in the history. Its limits stay those it was sent with. Exit status 1 if there
    is no such dead letter, 2 if the arguments do not fit.
    """
    task_id = checked_id(task_id)
    said = dict(change(text) for text in changes)
    with Session(**place) as session:
        app = session.app_if_any() or session.unbound()
        looked = queues_of(session, only)
        before = next((found for queue in looked for found in app.dead(queue, id=task_id)), None)
        if before is None:
            raise DeadLetterRefused(f"there is no dead letter {task_id} in {', '.join(looked) or 'any queue'}")
        after = app.with_changes(before, said) if dry_run else app.edit_dead(task_id, said, before.queue)
    answer = "would be edited" if dry_run else "edited"
    texts = [call_text(each.task, each.args, each.kwargs) for each in (before, after)]
    if as_json:
        print_json({
            "id": task_id, "queue": before.queue, "task": before.task, "answer": answer,
            "before": {"args": before.args, "kwargs": before.kwargs},
            "after": {"args": after.args, "kwargs": after.kwargs},
        })  # fmt: skip
    else:
        click.echo(f"{task_id} {answer}: {texts[0]} -> {texts[1]}")


def change(text: str) -> tuple[str, Any]:
    """Return the name and the value of NAME=VALUE; raises BadParameter."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise click.BadParameter(f"{text!r}: give NAME=VALUE, such as to=me@x.org", param_hint="--set")
    return name, value_of(value)
