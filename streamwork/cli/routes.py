"""`streamwork routes list` and `routes test`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from rich.text import Text

from streamwork.app import Streamwork
from streamwork.cli.arguments import WithNegativeNumbers, full_name, object_of, said_options, value_of
from streamwork.cli.options import app_option, examples, json_option
from streamwork.cli.session import Session
from streamwork.cli.show import console, listing, print_json
from streamwork.errors import AppNotFound
from streamwork.model.lane import lane_name
from streamwork.routes import Placed, Route

_MARKS = {"matched": ("✓", "green"), "not matched": ("✗", "dim"), "not asked": ("·", "dim")}


@click.group(epilog=examples("streamwork routes list", "streamwork routes test send_receipt 7 a@b.c"))
def routes() -> None:
    """Where calls go: the rules of app.route, in the order in which they are looked at."""


@routes.command("list", short_help="The rules, in their order.", epilog=examples(
    "streamwork routes list",
    "streamwork routes list --json | jq -r '.[].name'",
))  # fmt: skip
@json_option
@app_option
def list_(*, app: str | None, as_json: bool) -> None:
    """List the rules in the order in which they are looked at: the first that fits counts. Redis is not asked."""
    with Session(app) as session:
        found = _app(session).routes
        if as_json:
            print_json([route.facts() for route in found])
        elif not found:
            console().print(Text("no route: every call goes where its task says", style="dim"))
        else:
            rows = [[route.name, _conditions(route), _changes(route)] for route in found]
            console().print(listing(["route", "where a call is", "it gets"], rows))


@routes.command(
    cls=WithNegativeNumbers,
    short_help="Which rule a call meets, and where it goes.",
    epilog=examples(
        "streamwork routes test send_receipt 7 a@b.c",
        "streamwork routes test resize photo.png --kwargs '{\"width\": 4000}' --priority 3",
        "streamwork routes test resize photo.png --json | jq -r .queue",
    ),
)
@click.argument("task")
@click.argument("args", nargs=-1)
@click.option("--kwargs", metavar="JSON", help="Named arguments, a JSON object.")
@said_options
@json_option
@app_option
def test(task: str, args: Sequence[str], *, app: str | None, as_json: bool, kwargs: str | None, **said: Any) -> None:
    """Say where a call of TASK with ARGS would go, which rule says so, and why the others do not. Nothing is sent.

    --queue, --tags and --priority stand for options(...): what a caller says goes before any rule.
    """
    given = {name: value for name, value in said.items() if value is not None}
    with Session(app) as session:
        found = _app(session)
        task_ = found.find(full_name(found, task))
        task_ = task_.options(**given) if given else task_
        packed = task_.signature.encode(tuple(map(value_of, args)), object_of(kwargs))
        placed = found.rules.explain(task_.asked(packed))
    if as_json:
        print_json({
            "task": task_.name, "queue": placed.queue, "tags": sorted(placed.tags), "priority": placed.priority,
            "lane": lane_name(placed.priority, placed.tags), "route": placed.route, "kept": placed.kept,
            "tried": [{"route": each.route.name, "outcome": each.outcome, "why": each.why} for each in placed.tried],
        })  # fmt: skip
    else:
        _print(task_.name, placed)


def _app(session: Session) -> Streamwork:
    app = session.app_if_any()
    if app is None:
        raise AppNotFound("routes belong to an app, and none is found here: name it with --app MODULE:NAME")
    return app


def _print(task: str, placed: Placed) -> None:
    out = console()
    tags = f" with tags {{{', '.join(sorted(placed.tags))}}}" if placed.tags else ""
    why = f"by route {placed.route}" if placed.route else "as its task and its caller say: no route fits"
    out.print(Text.assemble((task, "bold"), f" → queue {placed.queue}{tags}, priority {placed.priority} ({why})"))
    for name in placed.kept:
        out.print(Text(f"  {name} stays as the caller said"))
    for tried in placed.tried:
        mark, style = _MARKS[tried.outcome]
        reason = f": {tried.why}" if tried.why else ""
        out.print(Text(f"{mark} {tried.route.name}  {tried.outcome}{reason}", style=style), soft_wrap=True)


def _conditions(route: Route) -> str:
    found = [route.task, f"name ~ {route.match}" if route.match else ""]
    found += [f"{name} ~ {pattern}" for name, pattern in route.where.items()]
    found.append(f"{route.facts()['when']}(…)" if route.when is not None else "")
    return ", ".join(filter(None, found))


def _changes(route: Route) -> str:
    found = [f"queue {route.queue}" if route.queue else ""]
    found.append(f"tags {{{', '.join(route.tags)}}}" if route.tags is not None else "")
    found.append(f"priority {route.priority}" if route.priority is not None else "")
    found.append(f"priority {route.boost:+d}" if route.boost else "")
    return ", ".join(filter(None, found))
