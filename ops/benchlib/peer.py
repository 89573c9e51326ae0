"""A peer in one run: its environment, its producer, its versions."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchlib import sink
from benchlib.catalog import CATALOG, PeerSpec, Variant
from benchlib.settings import CHECKOUT, OPS, BenchError, home, logs

_MARK = "BENCH "
_VERSIONS = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def venv_folder(name: str) -> Path:
    """Return where the virtual environment `name` lives."""
    return home() / f"venv-{name}"


def npm_folder() -> Path:
    """Return where npm puts the packages of node peers."""
    return home() / "npm"


def parse_marked(output: bytes, source: str, log: Path) -> Any:
    """Return the JSON of the one marked line that producers and floors print.

    Raises:
        BenchError: There is no such line: the program failed, and `log` says how.
    """
    for line in output.decode(errors="replace").splitlines():
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
    raise BenchError(f"{source} failed: see {log}")


def clean_environment(port: int, records: Path | None, burn_loops: int) -> dict[str, str]:
    """Return the variables every measured process gets; what would configure streamwork from outside is dropped."""
    unwanted = ("STREAMWORK_", "BENCH_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    kept.update(
        BENCH_URL=f"redis://127.0.0.1:{port}/0",
        BENCH_BURN_LOOPS=str(burn_loops),
        PYTHONPATH=str(OPS),
        PYTHONUNBUFFERED="1",
        # Bytecode is kept, or every start would compile, but not in the checkout.
        PYTHONPYCACHEPREFIX=str(home() / "bytecode"),
        PYTHONWARNINGS="ignore",
        NODE_PATH=str(npm_folder() / "node_modules"),
    )
    if records is not None:
        kept["BENCH_RECORDS"] = str(records)
    return kept


def hot_guards() -> tuple[str, ...]:
    """Return the guards of this checkout that do work for each task message."""
    if str(CHECKOUT) not in sys.path:
        sys.path.append(str(CHECKOUT))
    from tests.faults.guards import HOT

    return HOT


class Peer:
    """A task system under test, in one of its modes."""

    def __init__(self, label: str, burn_loops: int) -> None:
        name, _, mode = label.partition(":")
        self.label = label
        self.name = name
        self.mode = mode or "default"
        self.spec: PeerSpec = CATALOG[name]
        self._burn_loops = burn_loops
        self.venv = venv_folder(self.spec.venv)

    def variant(self, name: str) -> Variant:
        """Return the named way to start a worker."""
        return self.spec.variants[name]

    def variants_for(self, workload: str) -> tuple[str, ...]:
        """Return the variants that `workload` measures; empty when the peer cannot do it."""
        return tuple(self.spec.plan.get(workload, ()))

    def words(self, command: str, port: int) -> list[str]:
        """Return a command line of the catalog as words."""
        filled = command.format(
            bin=self.venv / "bin",
            python=self.venv / "bin" / "python",
            url=f"redis://127.0.0.1:{port}/0",
            ops=OPS,
        )
        return shlex.split(filled)

    def worker_words(self, variant: Variant, port: int) -> list[str]:
        """Return the command line of a worker."""
        words = self.words(variant.command, port)
        if self.mode == "tuned":
            words += shlex.split(self.spec.tuned_arguments)
        elif self.mode == "unguarded":
            # What the protocol's guards cost: the same worker without them, from this checkout's tests.
            words[:1] = [*self.words("{python} -m tests.faults.unguarded", port), ",".join(hot_guards())]
        return words

    def environment(self, port: int, records: Path | None, variant: Variant | None = None) -> dict[str, str]:
        """Return the variables of a worker or producer."""
        variables = clean_environment(port, records, self._burn_loops)
        variables["BENCH_MODE"] = self.mode
        if self.name == "streamwork":
            variables["STREAMWORK_URL"] = variables["BENCH_URL"]
            variables.update(sink.variables(self.mode))
            if self.mode == "unguarded":
                variables["PYTHONPATH"] = os.pathsep.join((str(OPS), str(CHECKOUT)))
        if variant is not None:
            variables.update(variant.env)
            variables["BENCH_SLOTS"] = str(variant.slots)
        return variables

    def produce(
        self, port: int, action: str, *, variant: Variant | None = None, timeout_s: float = 180.0, **flags: object
    ) -> dict[str, Any]:
        """Run the peer's producer and return the figures it prints.

        Raises:
            BenchError: The producer failed or took longer than `timeout_s`.
        """
        words = self.words(self.spec.producer or "{python} -m benchlib.producer", port)
        words += [action, "--peer", self.spec.module]
        return self._figures(words, action, self.environment(port, None, variant), timeout_s, flags)

    def steer(self, port: int, action: str, records: Path, *, timeout_s: float = 180.0, **flags: object) -> Any:
        """Run an action of `steering.py`, which only streamwork has, and return the figures it prints.

        Raises:
            BenchError: It failed or took longer than `timeout_s`.
        """
        words = [*self.words("{python} -m benchlib.steering", port), action]
        return self._figures(words, action, self.environment(port, records), timeout_s, flags)

    def _figures(
        self, words: list[str], action: str, environment: dict[str, str], timeout_s: float, flags: dict[str, object]
    ) -> dict[str, Any]:
        for name, value in flags.items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}", str(value)]
        log = logs() / f"{self.name}-producer.log"
        with log.open("ab") as errors:
            try:
                finished = subprocess.run(
                    words,
                    check=False,
                    env=environment,
                    cwd=OPS,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    timeout=timeout_s,
                )
            except subprocess.TimeoutExpired:
                raise BenchError(f"{self.label} producer: no end within {timeout_s:.0f} s, see {log}") from None
        figures: dict[str, Any] = parse_marked(finished.stdout, f"{self.label} producer ({action})", log)
        return figures

    def versions(self) -> dict[str, str]:
        """Return the versions of what is measured."""
        found: dict[str, str] = {}
        for package in self.spec.npm[:1]:
            manifest = npm_folder() / "node_modules" / package / "package.json"
            found[package] = json.loads(manifest.read_text())["version"]
            node = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True)
            found["node"] = node.stdout.strip()
        if self.spec.versions:
            words = [str(self.venv / "bin" / "python"), "-c", _VERSIONS, *self.spec.versions]
            found.update(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout or "{}"))
        return found
