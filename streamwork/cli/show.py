"""How facts are shown: tables that fit the terminal, spans people read, and JSON."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from streamwork.errors import StreamworkError
from streamwork.wire.codec import pack, unpacker

_anything = unpacker(Any)
# A pipe has no width: wide enough that no program has to read folded cells.
_WIDTH_WITHOUT_TERMINAL = 200


def console() -> Console:
    """Return standard output, as wide as the terminal."""
    width = shutil.get_terminal_size((_WIDTH_WITHOUT_TERMINAL, 50)).columns
    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """Print one JSON document; values without a JSON form appear as text."""
    click.echo(to_json(value).decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Sequence[str] = ()) -> Table:
    """Return a table.

    Args:
        columns: Headings; the first column and those of numbers are never folded.
        rows: Cells; None and "" are shown as a dash.
        numbers: Headings of columns that are aligned right.
    """
    found = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        is_number = name in numbers
        found.add_column(
            name, justify="right" if is_number else "left", no_wrap=is_number or not place, overflow="fold"
        )
    for row in rows:
        found.add_row(*map(_text, row))
    return found


def listing(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers: Sequence[str] = (), spare: Sequence[str] = ()
) -> RenderableType:
    """Return a table that fits the terminal without a cut or folded word.

    Where it would not fit, columns without anything in them (also zeros) are left out, from the right, and then the
    spare ones. Where that is not enough, each row is shown as lines below its first cell.
    """
    width, shown = console().width, list(range(len(columns)))
    empty = [at for at in shown[:0:-1] if all(not isinstance(row[at], Text) and not row[at] for row in rows)]
    for at in (*empty, *(columns.index(name) for name in spare)):
        if _least_width(columns, rows, shown, numbers) <= width:
            break
        shown = [other for other in shown if other != at]
    if _least_width(columns, rows, shown, numbers) > width:
        return Group(*(_block([columns[at] for at in shown], [row[at] for at in shown], width) for row in rows))
    return table([columns[at] for at in shown], [[row[at] for at in shown] for row in rows], numbers=numbers)


def _least_width(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], shown: Sequence[int], numbers: Sequence[str]
) -> int:
    widths = []
    for at in shown:
        cells = [columns[at], *(_text(row[at]).plain for row in rows)]
        is_whole = at == 0 or columns[at] in numbers
        widths.append(max(len(part) for cell in cells for part in ([cell] if is_whole else cell.split() or [""])))
    return sum(widths) + 2 * (len(widths) - 1)


def _block(names: Sequence[str], row: Sequence[Any], width: int) -> Text:
    lines, line = [], ""
    for name, cell in zip(names[1:], row[1:], strict=True):
        fact = f"{name} {_text(cell).plain}"
        if line and len(line) + 3 + len(fact) > width - 2:
            lines.append(line)
            line = ""
        line = f"{line} · {fact}" if line else fact
    facts = "".join(f"\n  {each}" for each in (*lines, line) if each)
    return Text.assemble((_text(row[0]).plain, "bold"), facts, overflow="fold")


def _text(cell: Any) -> Text:
    return cell if isinstance(cell, Text) else Text(_cell(cell))


def _cell(value: Any) -> str:
    if value is None or value in ("", [], ()):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def span(ms: float | None) -> str | None:
    """Return a span as people say it: ``850 ms``, ``12 s``, ``3 min``, ``5.2 h``, ``8 d``."""
    if ms is None:
        return None
    if ms < 1_000:
        return f"{ms:.0f} ms"
    for unit_ms, name, below in ((1_000, "s", 120), (60_000, "min", 120), (3_600_000, "h", 48)):
        if ms / unit_ms < below:
            return f"{ms / unit_ms:.3g} {name}"
    return f"{ms / 86_400_000:.0f} d"


def instant(at_ms: int | None) -> str | None:
    """Return an instant in UTC, to the millisecond."""
    if not at_ms:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")


def size(count: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def masked(url: str) -> str:
    """Return a URL without its password, wherever it stands in it."""
    password = ""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        pass  # not a URL: the patterns below still catch what looks like one
    if password:
        url = url.replace(f":{password}@", ":***@")
    url = re.sub(r"(://[^/@:]*:)[^@]*@", r"\1***@", url)
    return re.sub(r"([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&#]*", r"\1***", url, flags=re.IGNORECASE)


def to_json(value: Any) -> bytes:
    """Return JSON of anything: typed values in their stored form, bytes as base64, the rest as its repr."""
    try:
        return msgspec.json.encode(value, enc_hook=_stored_form)
    except (TypeError, ValueError, msgspec.MsgspecError):
        return msgspec.json.encode(repr(value))


def _stored_form(value: Any) -> Any:
    try:
        return _anything(pack(value))
    except StreamworkError:
        return repr(value)


def plain_json(value: Any) -> str:
    """Return a value as one line for people: texts as they are, the rest as JSON."""
    return value if isinstance(value, str) else to_json(value).decode()


def json_of(text: str) -> Any:
    """Read JSON; raises ValueError for what is not (NaN neither)."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
