"""Every setting, in one frozen value; the only module that reads the process environment.

Defaults, then ``[tool.streamwork]`` in pyproject.toml, then ``STREAMWORK_*`` variables, then code, then command-line
flags: the later wins.
``STREAMWORK_URL`` sets `url`, ``STREAMWORK_WORKER_SLOTS`` sets `worker.slots`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from streamwork.errors import ConfigError


class ClientConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this process talks to Redis.

    Attributes:
        connect_timeout_s: Seconds for one attempt to connect; 1 s fails fast and is long for a network.
        deadline_s: Seconds for one answer before a connection is given up.
        send_timeout_s: Seconds that an enqueue keeps trying to reach a Redis that is away; 0 = one try.
        resend_s: Seconds after the first try in which a lost answer is asked for again; the sender's mark outlives it.
        max_body_bytes: Largest task message; Redis is no blob store and 1 MB already costs it milliseconds.
        max_lanes: Distinct (priority level, tag set) pairs per queue.
    """

    connect_timeout_s: float = 1.0
    deadline_s: float = 10.0
    send_timeout_s: float = 10.0
    resend_s: float = 60.0
    max_body_bytes: int = 1_048_576
    max_lanes: int = 64


class WorkerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a worker runs.

    Attributes:
        tags: What this worker offers.
        queues: Which queues it reads; empty = all that the app's tasks use.
        slots: Deliveries in hand at once per process; no more are read.
        threads: Threads for sync tasks per process; 0 = as many as slots, started when needed.
        processes: Worker processes under one supervisor.
        drain_timeout_s: Seconds that SIGTERM leaves running tasks.
        max_tasks: Deliveries after which a process is replaced; 0 = never.
        max_memory_mb: Resident memory above which a process is replaced; 0 = no bound.
        block_s: Longest wait in one blocking read; 2 s bounds what a lost wake-up costs (rule 6).
        hung_after_s: A process whose loop has not turned for so long is killed; 0 = never (rule 19).
        bell_fleet: Consumers of a queue from which idle ones wait on the doorbell: since Redis 7.2 every XADD re-runs
            each blocked read, 0.14 ms at 100 clients and 1.4 ms at 1,000.
        max_starve_s: A lane that waits behind higher ones is looked at at least this often (rule 7).
    """

    tags: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    slots: int = 100
    threads: int = 0
    processes: int = 1
    drain_timeout_s: float = 30.0
    max_tasks: int = 0
    max_memory_mb: int = 0
    block_s: float = 2.0
    hung_after_s: float = 60.0
    bell_fleet: int = 100
    max_starve_s: float = 10.0


class LivenessConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How soon the dead are noticed.

    Attributes:
        ttl_s: Life of a liveness key. A SIGKILLed worker's tasks run elsewhere within 2 x ttl_s; 0.5 at least.
    """

    ttl_s: float = 5.0

    @property
    def ttl_ms(self) -> int:
        """Life of a liveness key, ms."""
        return int(self.ttl_s * 1000)

    @property
    def beat_s(self) -> float:
        """Seconds between beats: four fit into one life, so three may be lost."""
        return self.ttl_s / 4

    @property
    def pulse_ms(self) -> int:
        """Life of the reaper's pulse: TTL − 2 beats, the longest that still lapses before a live worker's key (rule 14)."""
        return int(self.ttl_s * 500)

    @property
    def reap_s(self) -> float:
        """Seconds between reaper ticks: 0.38 TTL leaves a standby a quarter of the pulse to take over before it lapses."""
        return self.ttl_s * 0.38

    @property
    def near_ms(self) -> int:
        """What is left of the pulse when a standby takes over: half of the slack between tick and pulse, ms."""
        return int((self.pulse_ms - self.reap_s * 1000) / 2)


class KeepConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long things are kept.

    Attributes:
        result_s: Results; 0 = none are written.
        history_s: Settled entries and the journal; 0 = for ever.
    """

    result_s: float = 86_400.0
    history_s: float = 7 * 86_400.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings.

    Attributes:
        url: Redis; None = the embedded server of this project folder.
        app: ``package.module:attribute`` of the app, for the command line.
        namespace: Name of the app, for commands that run where it cannot be imported.
        redis_server: Binary for the embedded server; None = search.
        folder: Where the embedded server keeps its data; `load` makes it absolute, from the folder of the pyproject.toml
            that has a ``[tool.streamwork]``, else from the current one, so that all users of a project meet there.
        log_level: Of the worker's log lines: debug, info, warning, error or critical.
        log_format: Of the same: ``text`` or ``json``, one object per line.
    """

    url: str | None = None
    app: str | None = None
    namespace: str | None = None
    redis_server: str | None = None
    folder: str = ".streamwork"
    log_level: str = "info"
    log_format: str = "text"
    client: ClientConfig = ClientConfig()
    worker: WorkerConfig = WorkerConfig()
    liveness: LivenessConfig = LivenessConfig()
    keep: KeepConfig = KeepConfig()


_ROOMS: dict[str, type[msgspec.Struct]] = {
    "client": ClientConfig, "worker": WorkerConfig, "liveness": LivenessConfig, "keep": KeepConfig,
}  # fmt: skip
LOG_LEVELS, LOG_FORMATS = ("debug", "info", "warning", "error", "critical"), ("text", "json")
# The shared table of a process is made before the app, and with it its settings, is known: 3 MB that are not touched.
MOST_SLOTS = 10_000
# Names with the prefix that are not settings: read by the tests and the bench only.
_NOT_SETTINGS = ("STREAMWORK_TEST_", "STREAMWORK_BENCH_")


class Loaded(msgspec.Struct, frozen=True):
    """A config and where each of its values came from (``default``, a file, a variable, ``code`` or ``flag``)."""

    config: Config
    origins: dict[str, str]


def load(
    overrides: Mapping[str, Any] | None = None, folder: Path | None = None, environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Loaded:  # fmt: skip
    """Return the settings for a project folder.

    Args:
        overrides: Dotted names to values, as from code; None values are ignored.
        folder: Where to look for pyproject.toml, itself and upwards; None = the current folder.
        environ: The environment; None = the process's own.
        flags: Like `overrides`, from the command line.

    Raises:
        ConfigError: Unknown name (answered with the nearest), wrong type or an unreadable file.
    """
    folder = folder or Path.cwd()
    project = _project(folder)
    values: dict[str, Any] = {"folder": ".streamwork"}
    origins: dict[str, str] = {}
    given = {"code": overrides or {}, "flag": flags or {}}
    for origin, name, value in _layers(given, project, os.environ if environ is None else environ):
        _check_name(name, origin)
        values[name] = value
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
    return Loaded(config, {name: origins.get(name, "default") for name in setting_names()})


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


def _layers(given: Mapping[str, Mapping[str, Any]], project: Path | None, environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    if project is not None:
        for name, value in _flat(_table(project)).items():
            yield str(project), name, value
    by_variable = {variable_of(name): name for name in setting_names()}
    for variable, text in environ.items():
        if variable.startswith("STREAMWORK_") and not variable.startswith(_NOT_SETTINGS):
            setting = by_variable.get(variable)
            if setting is None:
                raise ConfigError(f"unknown variable {variable}{_nearest(variable, by_variable)}")
            yield variable, setting, text.split(",") if setting in ("worker.tags", "worker.queues") else text
    for origin, settings in given.items():
        for name, value in settings.items():
            if value is not None:
                yield origin, name, value


def _project(folder: Path) -> Path | None:
    folder = folder.absolute()
    path = next((p / "pyproject.toml" for p in (folder, *folder.parents) if (p / "pyproject.toml").is_file()), None)
    return path if path is not None and _table(path) else None


def _table(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text()).get("tool", {}).get("streamwork", {})
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return table


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
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
        ("worker.slots", worker.slots, 1), ("worker.processes", worker.processes, 1), ("worker.threads", worker.threads, 0),
        ("worker.drain_timeout_s", worker.drain_timeout_s, 0), ("worker.block_s", worker.block_s, 0.05),
        ("liveness.ttl_s", config.liveness.ttl_s, 0.5), ("keep.result_s", config.keep.result_s, 0),
        ("client.max_body_bytes", config.client.max_body_bytes, 1), ("client.connect_timeout_s", config.client.connect_timeout_s, 0.01),
    ):  # fmt: skip
        if value < least:
            raise ConfigError(f"{name} = {value}: {least} at least")
    if worker.slots > MOST_SLOTS:
        raise ConfigError(f"worker.slots = {worker.slots}: {MOST_SLOTS} at most in one process; use more processes")
    for name, word, known in (("log_level", config.log_level, LOG_LEVELS), ("log_format", config.log_format, LOG_FORMATS)):
        if word not in known:
            raise ConfigError(f"{name} = {word!r}{_nearest(word, known) or ': use ' + ', '.join(known)}")
