"""Structured log lines: ``time level sentence key=value …``, or one JSON object per line.

The facts are what the caller gave as ``extra=``, so any library's handler gets them too. A task's facts come first.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from textwrap import indent
from typing import Any, TextIO

import msgspec

from streamwork.telemetry.last_lines import Keeper, LastLines

# Whatever a record has beyond these came in as `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FIRST = ("task_id", "task", "queue", "attempt")
# Packages that tell of each connection and file event at info.
_TALKATIVE = ("asyncio", "redis", "watchfiles")

# Set where traces are on: says (trace id, span id) of what goes on where a line is written.
trace_of: Callable[[], tuple[str, str] | None] | None = None

_json = msgspec.json.Encoder(enc_hook=repr).encode


class LineFormatter(logging.Formatter):
    """One line per record; only a traceback, which is text for people, takes more: the record's own, or a fact's."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        found = facts_of(record)
        told = str(found.pop("traceback", ""))  # a text that came from elsewhere, such as why a task is dead
        facts = "".join(f" {name}={_shown(value)}" for name, value in found.items())
        line = f"{_time(record)} {record.levelname.lower():<7} {' '.join(_sentence(record).splitlines())}{facts}"
        return "\n".join(part for part in (line, indent(told.rstrip(), "    "), _trace(self, record)) if part)


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, message, logger, the facts, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line: dict[str, Any] = {
            "time": _time(record), "level": record.levelname.lower(), "message": _sentence(record),
            "logger": record.name,
        }  # fmt: skip
        line.update((name, value) for name, value in facts_of(record).items() if name not in line)
        trace = _trace(self, record)
        if trace:
            line["traceback"] = trace
        return _json(line).decode()


def set_up(level: str, format_: str, stream: TextIO | None = None) -> None:
    """Send the log lines of this process to a stream, those of user code included.

    Args:
        level: ``debug`` … ``critical``; talkative libraries are heard from ``warning`` on.
        format_: ``text`` or ``json``.
        stream: None = standard error.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ == "json" else LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    # Ours stay in this form, whatever an app does to the root logger when it is imported.
    ours = logging.getLogger("streamwork")
    ours.handlers[:] = [handler]
    ours.propagate = False


def keep_last(lines: LastLines) -> None:
    """Note what is logged in this process from now on, user code included, where its supervisor can read it."""
    root, ours = logging.getLogger(), logging.getLogger("streamwork")
    keeper = Keeper(lines, LineFormatter())
    for logger in (root, *([] if ours.propagate else [ours])):
        logger.addHandler(keeper)


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was given as ``extra=``, a task's facts first, without those that are empty, and the trace."""
    extra = {name: value for name, value in vars(record).items() if name not in _OWN and value not in ("", None, [])}
    first = {name: extra.pop(name) for name in _FIRST if name in extra}
    ids = None if trace_of is None else trace_of()
    if ids is not None:
        extra.setdefault("trace_id", ids[0])
        extra.setdefault("span_id", ids[1])
    return {**first, **extra}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sentence(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError) as error:  # the arguments do not fit the text: say what there is
        return f"{record.msg} {record.args!r} ({error})"


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(map(_shown, value))
    text = str(value)
    # Quotes where a space or a line break would make two facts of one.
    return _json(text).decode() if not text or any(c.isspace() or c in '"=' for c in text) else text


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)
