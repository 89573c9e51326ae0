"""`streamwork enqueue`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from streamwork.broker.coverage import Unserved, unserved
from streamwork.broker.whereabouts import where_is
from streamwork.cli.arguments import WithNegativeNumbers, full_name, object_of, said_options, value_of
from streamwork.cli.main import status_of
from streamwork.cli.options import examples, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import plain_json, print_json
from streamwork.errors import ConfigError, StoreError, StreamworkError, TaskFailed
from streamwork.handle import Call, Handle
from streamwork.model.state import State


@click.command(
    cls=WithNegativeNumbers,
    epilog=examples(
        "streamwork enqueue resize photo.png 640",
        "streamwork enqueue shop.mail.send_receipt 7 a@b.c --wait --timeout 30",
        "streamwork enqueue report '{\"year\": 2026}' --kwargs '{\"draft\": true}' --priority 8",
        "streamwork enqueue billing.close 2026 --name-only --namespace shop --queue billing --tags gpu",
        "streamwork enqueue report 2026 --at 2026-12-01T06:00+01:00 --expires 864000",
        "id=$(streamwork enqueue resize photo.png) && streamwork tasks show $id",
    ),
)
@click.argument("task")
@click.argument("args", nargs=-1)
@click.option("--kwargs", metavar="JSON", help="Named arguments, a JSON object.")
@said_options
@click.option("--delay", type=click.FloatRange(min=0), metavar="S", help="Run it so long from now, never sooner.")
@click.option("--at", metavar="TIME", help="Run it then: ISO 8601 with a zone, such as 2026-12-01T09:00+01:00.")
@click.option("--expires", type=click.FloatRange(min=0.001), metavar="S", help="Do not begin it later than that.")
@click.option("--name-only", is_flag=True, help="Send by name: the app is not imported and nothing is checked here.")
@click.option(
    "--wait", is_flag=True, help="Wait for the end and print the result; exit 1 if it fails or is not in time."
)
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="S", help="Wait no longer. [default: as long as it takes]"
)
@place_options
def enqueue(task: str, args: Sequence[str], *, wait: bool, timeout: float | None, as_json: bool, **given: Any) -> None:
    """Send a task message and print its id.

    TASK is the task's name, or the part behind its last dot where only one task has it. Each of ARGS is JSON (7, true,
    '"7"', '[1, 2]') or else plain text. Where the app is found, the arguments are checked before anything is sent.
    A Redis that is away is tried for 10 s (client.send_timeout_s).
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout belongs to --wait")
    arguments = [value_of(text) for text in args]
    named = object_of(given["kwargs"])
    with Session(
        given["app"], given["url"], given["namespace"] if not given["name_only"] else _elsewhere(given), sends=True
    ) as session:
        call = _call(session, task, arguments, named, given)
        handle = call.enqueue()
        if not wait:
            print_json(_facts(handle, call)) if as_json else click.echo(handle.id)
            return
        if not as_json:
            click.echo(handle.id, err=True)
        _say_if_unserved(session, handle)
        _wait(session, handle, call, timeout, as_json=as_json)


def _say_if_unserved(session: Session, handle: Handle[Any]) -> None:
    """Say on standard error, at once, that nobody is there who would run it; the wait goes on."""
    try:
        missing: list[Unserved] = session.ask(unserved([(session.keys(handle.queue), handle.lane)]))
    except StoreError:
        return  # the wait itself will tell
    for each in missing:
        click.echo(f"streamwork: waiting, but {each.text}: start one with {each.remedy}", err=True)


def _elsewhere(given: dict[str, Any]) -> str:
    """Return the namespace for --name-only, which imports nothing to learn it."""
    from streamwork.config import load

    name = given["namespace"] or load().config.namespace
    if name is None:
        raise ConfigError("--name-only imports no app: say its name with --namespace or STREAMWORK_NAMESPACE")
    return str(name)


def _call(session: Session, task: str, args: list[Any], kwargs: dict[str, Any], given: dict[str, Any]) -> Call[Any]:
    options = {name: given[name] for name in ("queue", "tags", "priority") if given[name] is not None}
    times = {name: given[name] for name in ("delay", "expires") if given[name] is not None}
    if given["at"] is not None:
        times["run_at"] = _instant(given["at"])
    app = session.app_if_any()
    if app is not None:
        found = app.find(full_name(app, task))
        options |= times
        return (found.options(**options) if options else found).call(*args, **kwargs)
    call = session.unbound().call_elsewhere(task, tuple(args), kwargs, **options)
    call.timing = call.timing.changed(times)
    return call


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        said = f"{text!r} is no time in ISO 8601, such as 2026-12-01T09:00+01:00"
        raise click.BadParameter(said, param_hint="--at") from None


def _facts(handle: Handle[Any], call: Call[Any]) -> dict[str, Any]:
    return {"id": handle.id, "task": call.task_name, "queue": handle.queue, "lane": handle.lane, "entry": handle.entry}


def _wait(session: Session, handle: Handle[Any], call: Call[Any], timeout: float | None, *, as_json: bool) -> None:
    try:
        result = handle.result(timeout=timeout)
    except TaskFailed as error:
        failure = {"type": error.type_name, "message": error.message, "traceback": error.traceback}
        if as_json:
            print_json({**_facts(handle, call), "state": error.state, "failure": failure})
        else:
            click.echo(error.traceback, err=True, nl=not error.traceback.endswith("\n")) if error.traceback else None
            click.echo(f"streamwork: task {call.task_name} is {error.state}: {error}", err=True)
        click.get_current_context().exit(1)
    except StreamworkError as error:
        if not as_json:
            raise  # the id stands on standard error, and in the text
        # It was sent all the same: whoever reads this has to know what to look for.
        told = {"code": error.code, "message": str(error)}
        print_json({**_facts(handle, call), "state": _state(session, handle), "error": told})
        click.get_current_context().exit(status_of(error))
    if as_json:
        print_json({**_facts(handle, call), "state": handle.state(), "result": result})
    else:
        click.echo(plain_json(result))


def _state(session: Session, handle: Handle[Any]) -> State | None:
    """Return where it is now; None where Redis is away, which is not waited for again."""
    try:
        state: State = session.ask(where_is(session.keys(handle.queue), handle))
    except StoreError:
        return None
    return state
