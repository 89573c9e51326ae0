"""Every setting, in one frozen value; the only module that reads the process environment.

Defaults, then ``[tool.streamwork]`` in pyproject.toml, then ``STREAMWORK_*`` variables, then code, then command-line
flags: the later wins.
``STREAMWORK_URL`` sets `url`, ``STREAMWORK_WORKER_SLOTS`` sets `worker.slots`.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from streamwork.errors import ConfigError
from streamwork.settings import (
    BY_QUEUE,
    NAME,
    WEBHOOK,
    ClientConfig,
    Config,
    KeepConfig,
    LivenessConfig,
    TelemetryConfig,
    WorkerConfig,
    by_queue,
    listed,
)

__all__ = [
    "ClientConfig",
    "Config",
    "KeepConfig",
    "LivenessConfig",
    "Loaded",
    "TelemetryConfig",
    "WorkerConfig",
    "load",
    "redis_for_tests",
    "running_test",
    "runtime_dir",
    "setting_names",
    "value_of",
    "variable_of",
]


_ROOMS: dict[str, type[msgspec.Struct]] = {
    "client": ClientConfig, "worker": WorkerConfig, "liveness": LivenessConfig, "keep": KeepConfig,
    "telemetry": TelemetryConfig,
}  # fmt: skip
LOG_LEVELS, LOG_FORMATS = ("debug", "info", "warning", "error", "critical"), ("text", "json")
# The shared table of a process is made before the app, and with it its settings, is known: 3 MB that are not touched.
MOST_SLOTS = 10_000
_LISTS = ("worker.tags", "worker.queues", *BY_QUEUE)
# Names with the prefix that are not settings: read by the tests and the bench only.
_NOT_SETTINGS = ("STREAMWORK_TEST_", "STREAMWORK_BENCH_")
_warned: set[str] = set()
logger = logging.getLogger(__name__)


class Loaded(msgspec.Struct, frozen=True):
    """A config and where each of its values came from (``default``, a file, a variable, ``code`` or ``flag``).

    Attributes:
        config: The settings.
        origins: Setting to origin.
        unknown: What to say of each variable that looks like a setting and is none.
    """

    config: Config
    origins: dict[str, str]
    unknown: tuple[str, ...] = ()


def load(
    overrides: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Loaded:
    """Return the settings for a project folder.

    Args:
        overrides: Dotted names to values, as from code; None values are ignored.
        folder: Where to look for pyproject.toml, itself and upwards; None = the current folder.
        environ: The environment; None = the process's own.
        flags: Like `overrides`, from the command line.

    Raises:
        ConfigError: Unknown name (answered with the nearest), wrong type or an unreadable file. An unknown variable is
            only warned of, once: Kubernetes makes some for each Service, and one named streamwork is nobody's mistake.
    """
    folder = folder or _here()
    environ = os.environ if environ is None else environ
    project = _project(folder)
    values: dict[str, Any] = {"folder": ".streamwork"}
    origins: dict[str, str] = {}
    given = {"code": overrides or {}, "flag": flags or {}}
    for origin, name, value in _layers(given, project, environ):
        _check_name(name, origin)
        values[name] = by_queue(value) if name in BY_QUEUE else value
        origins[name] = origin
    values["folder"] = str((project.parent if project else folder).absolute() / str(values["folder"]))
    nested: dict[str, Any] = {room: {} for room in _ROOMS}
    for name, value in values.items():
        room, _, field = name.rpartition(".")
        (nested[room] if room else nested)[field] = value
    try:
        config = msgspec.convert(nested, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"settings: {error} ({_origin_of(str(error), origins)})") from error
    _check_ranges(config)
    _check_words(config, origins)
    return Loaded(config, {name: origins.get(name, "default") for name in setting_names()}, _unknown(environ))


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(f"the current folder is gone ({error.strerror}): change to one that is there") from error


def setting_names() -> list[str]:
    """Return every setting's dotted name."""
    top = [field for field in Config.__struct_fields__ if field not in _ROOMS]
    return top + [f"{room}.{field}" for room, kind in _ROOMS.items() for field in kind.__struct_fields__]


def value_of(config: Config, name: str) -> Any:
    """Return a setting by its dotted name."""
    room, _, field = name.rpartition(".")
    return getattr(getattr(config, room) if room else config, field)


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return "STREAMWORK_" + name.replace(".", "_").upper()


def runtime_dir() -> str | None:
    """Return the user's runtime folder (``XDG_RUNTIME_DIR``), or None."""
    return os.environ.get("XDG_RUNTIME_DIR")


def redis_for_tests() -> tuple[str | None, str | None]:
    """Return the server that tests use: ``STREAMWORK_TEST_REDIS_URL`` and the binary to start where that is not set.

    The binary is ``STREAMWORK_TEST_REDIS_SERVER``; None looks for one.
    """
    return os.environ.get("STREAMWORK_TEST_REDIS_URL") or None, os.environ.get("STREAMWORK_TEST_REDIS_SERVER") or None


def running_test() -> str | None:
    """Return the test that pytest runs in this process now (``PYTEST_CURRENT_TEST``), or None."""
    return os.environ.get("PYTEST_CURRENT_TEST")


def _layers(
    given: Mapping[str, Mapping[str, Any]], project: Path | None, environ: Mapping[str, str]
) -> Iterator[tuple[str, str, Any]]:
    if project is not None:
        for name, value in _flat(_table(project) or {}).items():
            yield str(project), name, value
    by_variable = {variable_of(name): name for name in setting_names()}
    for variable, text in environ.items():
        setting = by_variable.get(variable)
        if setting is not None and text:  # empty is how compose files and CI pass on a variable that is not set
            yield variable, setting, listed(text) if setting in _LISTS else text
    for origin, settings in given.items():
        for name, value in settings.items():
            if value is not None:
                yield origin, name, value


def _unknown(environ: Mapping[str, str]) -> tuple[str, ...]:
    ours = {variable_of(name) for name in setting_names()}
    found = [
        name
        for name in environ
        if name.startswith("STREAMWORK_") and name not in ours and not name.startswith(_NOT_SETTINGS)
    ]
    texts = {name: f"unknown variable {name}{_nearest(name, ours)}" for name in sorted(found)}
    for text in [text for name, text in texts.items() if name not in _warned]:
        logger.warning(text)
    _warned.update(texts)
    return tuple(texts.values())


def _project(folder: Path) -> Path | None:
    folder = folder.absolute()
    path = next((p / "pyproject.toml" for p in (folder, *folder.parents) if (p / "pyproject.toml").is_file()), None)
    return path if path is not None and _table(path) is not None else None


def _table(path: Path) -> dict[str, Any] | None:
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
        table: dict[str, Any] | None = tool.get("streamwork")
        if not isinstance(table, dict | None):
            raise ConfigError(f"{path}: [tool.streamwork] is a table of settings, not {table!r}")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return table


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        is_room = isinstance(value, dict) and prefix + name not in _LISTS
        flat.update(_flat(value, f"{prefix}{name}.") if is_room else {prefix + name: value})
    return flat


def _check_name(name: str, origin: str) -> None:
    names = setting_names()
    if name not in names:
        raise ConfigError(f"unknown setting {name!r} in {origin}{_nearest(name, names)}")


def _nearest(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f": did you mean {close[0]}?" if close else ""


def _origin_of(message: str, origins: Mapping[str, str]) -> str:
    named = [origin for name, origin in origins.items() if message.rstrip("`").endswith("$." + name)]
    return f"set by {named[0]}" if named else "see streamwork config show"


def _check_ranges(config: Config) -> None:
    worker = config.worker
    for name, value, least in (
        ("worker.slots", worker.slots, 1),
        ("worker.processes", worker.processes, 1),
        ("worker.threads", worker.threads, 0),
        ("worker.drain_timeout_s", worker.drain_timeout_s, 0),
        ("worker.block_s", worker.block_s, 0.05),
        ("liveness.ttl_s", config.liveness.ttl_s, 0.5),
        ("keep.result_s", config.keep.result_s, 0),
        ("client.max_body_bytes", config.client.max_body_bytes, 1),
        ("client.connect_timeout_s", config.client.connect_timeout_s, 0.01),
        ("client.deadline_s", config.client.deadline_s, 0.1),
        ("client.send_timeout_s", config.client.send_timeout_s, 0),
        ("client.resend_s", config.client.resend_s, 0),
        ("client.max_lanes", config.client.max_lanes, 1),
        ("worker.max_tasks", worker.max_tasks, 0),
        ("worker.max_memory_mb", worker.max_memory_mb, 0),
        ("worker.hung_after_s", worker.hung_after_s, 0),
        ("worker.bell_fleet", worker.bell_fleet, 0),
        ("worker.max_starve_s", worker.max_starve_s, 0.1),
    ):
        if not least <= value < math.inf:  # also refuses nan, which compares as false
            raise ConfigError(f"{name} = {value}: {least} at least, and finite")
    if worker.slots > MOST_SLOTS:
        raise ConfigError(f"worker.slots = {worker.slots}: {MOST_SLOTS} at most in one process; use more processes")


def _check_words(config: Config, origins: Mapping[str, str]) -> None:
    names = [("worker.tags", tag) for tag in config.worker.tags] + [("worker.queues", q) for q in config.worker.queues]
    for setting, name in names + ([("namespace", config.namespace)] if config.namespace is not None else []):
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{setting} {name!r} (set by {origins.get(setting, 'default')}): use 1-100 letters, digits, "
                "'_', '.' or '-', starting with a letter or digit"
            )
    for setting, (pattern, words) in BY_QUEUE.items():
        for text in value_of(config, setting):
            queue, is_named, number = text.rpartition("=")
            if not re.fullmatch(pattern, number) or (is_named and not _is_queue(queue)):
                raise ConfigError(
                    f"{setting} {text!r} (set by {origins.get(setting, 'default')}): "
                    f"give {words} for all queues, and name=number for one of its own"
                )
    if config.dead_webhook is not None and not WEBHOOK.fullmatch(config.dead_webhook):
        origin = origins.get("dead_webhook", "default")
        raise ConfigError(f"dead_webhook (set by {origin}): give a URL such as https://example.org/dead")
    for name, word, known in (
        ("log_level", config.log_level, LOG_LEVELS),
        ("log_format", config.log_format, LOG_FORMATS),
    ):
        if word not in known:
            raise ConfigError(f"{name} = {word!r}{_nearest(word, known) or ': use ' + ', '.join(known)}")


def _is_queue(name: str) -> bool:
    return name == "*" or NAME.fullmatch(name) is not None
