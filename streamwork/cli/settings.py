"""`streamwork config show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec
from rich.text import Text

from streamwork.cli.options import app_option, examples, json_option, url_option
from streamwork.cli.session import Session
from streamwork.cli.show import console, masked, print_json
from streamwork.config import load, setting_names, value_of, variable_of


@click.group(epilog=examples("streamwork config show"))
def config() -> None:
    """Every setting, its value and where it comes from."""


@config.command(short_help="Each setting, its value and its origin.", epilog=examples(
    "streamwork config show",
    "streamwork config show worker              names that begin so",
    "streamwork config show --json | jq 'map(select(.origin != \"default\"))'",
))  # fmt: skip
@click.argument("prefix", default="")
@app_option
@url_option
@json_option
def show(prefix: str, *, app: str | None, url: str | None, as_json: bool) -> None:
    """Show each setting: its value, where it comes from, and the variable that sets it.

    Later origins beat earlier ones: default, pyproject.toml ([tool.streamwork]), environment, code (what the app was
    made with), flag. Secrets in URLs are masked. No Redis is needed.
    """
    with Session(app, url) as session:
        found = session.app_if_any()
    flags = {"app": app, "url": url}
    loaded = load(found.overrides if found is not None else {}, flags=flags)
    rows = [
        {"name": name, "value": _shown(name, value_of(loaded.config, name)), "origin": loaded.origins[name],
         "variable": variable_of(name)}
        for name in setting_names()
        if name.startswith(prefix)
    ]  # fmt: skip
    if not rows:
        raise click.BadParameter(f"no setting begins with {prefix!r}", param_hint="PREFIX")
    if as_json:
        print_json(rows)
        return
    cells = [
        [row["name"], _text(row["value"]) or "–", _origin(row["origin"], row["variable"]), row["variable"]]
        for row in rows
    ]
    _print(cells)


def _print(rows: list[list[str]]) -> None:
    """Print columns; the values come last, since nothing may break a path or a URL that someone wants to copy."""
    out = console()
    whole = [["setting", "value", "from", "variable"], *rows]
    widths = [max(len(row[at]) for row in whole) for at in range(4)]
    has_variables = sum(widths) + 6 <= out.width
    for number, (name, value, origin, variable) in enumerate(whole):
        cells = f"{name:<{widths[0]}}  {origin:<{widths[2]}}  "
        cells += f"{variable:<{widths[3]}}  {value}" if has_variables else value
        out.print(Text(cells.rstrip(), style="" if number else "bold"), soft_wrap=True)
    if not has_variables:
        out.print(Text("\nThe variable of worker.slots is STREAMWORK_WORKER_SLOTS, and so on.", style="dim"))


def _origin(origin: str, variable: str) -> str:
    if origin == variable:
        return "variable"
    return Path(origin).name if "/" in origin else origin


def _shown(name: str, value: Any) -> Any:
    if name == "dead_webhook" and value is not None:
        parts = urlsplit(value)  # what stands behind its host is often its password
        return f"{parts.scheme}://{parts.hostname}/***"
    return masked(value) if name == "url" and value is not None else value


def _text(value: Any) -> str | None:
    if isinstance(value, (tuple, list)):
        return ", ".join(value)
    return value if isinstance(value, str) or value is None else msgspec.json.encode(value).decode()
