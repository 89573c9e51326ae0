"""Run everything that was asked for, interleaved: round by round, workload by workload, peer after peer."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchlib import ceilings, costs, faults, install, latency, spans, steered, throughput
from benchlib.catalog import CATALOG
from benchlib.peer import Peer
from benchlib.server import PrivateRedis
from benchlib.settings import BenchError, Options, logs, say
from benchlib.throughput import Arena, Figures

SINGLE: dict[str, Callable[[Arena, Peer, str], Figures]] = {
    "W3": latency.run,
    "W4": spans.run_sleep,
    "W5": spans.run_burn,
    "W6": costs.run,
    "D1": steered.run_delays,
    "D2": steered.run_waiting,
    "D3": steered.run_signals,
    "H1": steered.run_history,
}
FAULTS: dict[str, Callable[[Options, Peer, str, int], Figures]] = {"W7": faults.run_kill, "W8": faults.run_restart}

# W7 sleeps almost all the time; six workers at once still leave the processors idle.
_KILLS_AT_ONCE = 6
_KILL_STAGGER_S = 2.5
_SPOKEN = (
    "status",
    "rate",
    "ideal_pct",
    "start_p50",
    "start_p99",
    "result_p50",
    "result_p99",
    "early",
    "p50",
    "p99",
    "max",
    "tick_us",
    "promoted_us",
    "rest_ms_s",
    "idle_mib",
    "idle_cmds_s",
    "client_cmds_per_task",
    "reads_per_task",
    "all_restarted_s",
    "first_after_s",
    "last_after_s",
    "missing",
    "dup",
    "error",
)


def _spoken(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


class Bench:
    """One invocation: its runs, as they come in."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._burn_loops = spans.calibrate_burn()
        self._peers: list[Peer] = []
        self.report: dict[str, Any] = {
            "peers": list(options.peers),
            "workloads": list(options.workloads),
            "rounds": options.rounds,
            "tasks": options.tasks,
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
            "machine": f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}",
            "versions": {},
            "runs": [],
        }

    def run(self) -> dict[str, Any]:
        """Install what is missing, run, and return the report."""
        self._prepare()
        with PrivateRedis(self._options.port, logs()) as server:
            with server.connect() as probe:
                self.report["machine"] += f", Redis {probe.info('server')['redis_version']}"
            arena = Arena(self._options, server, self._burn_loops)
            for number in range(self._options.rounds):
                self._round(arena, number)
        if "W7" in self._options.workloads:
            self._kills()
        if "W8" in self._options.workloads:
            for peer, variant in self._variants("W8"):
                self._fault("W8", peer, variant, self._options.port + 1)
        self.report["finished"] = time.strftime("%Y-%m-%d %H:%M:%S")
        self._save()
        return self.report

    def _prepare(self) -> None:
        if self._options.floor:
            install.ensure("raw", install.RAW, upgrade=self._options.upgrade)
        for label in self._options.peers:
            peer = Peer(label, self._burn_loops)
            try:
                install.ensure(peer.name, CATALOG[peer.name], upgrade=self._options.upgrade)
            except BenchError as error:
                self.keep("install", label, "", 0, {"error": str(error)})
                continue
            self._peers.append(peer)
            self.report["versions"][peer.name] = peer.versions()

    def _round(self, arena: Arena, number: int) -> None:
        for step in throughput.STEPS:
            self._step(arena, step, number)
        for workload, measure in SINGLE.items():
            if workload in self._options.workloads:
                self._ceilings(arena, [workload], number)
                for peer, variant in self._variants(workload):
                    with self._guard(workload, peer.label, variant, number) as keep:
                        keep(workload, variant, measure(arena, peer, variant))

    def _step(self, arena: Arena, step: throughput.Step, number: int) -> None:
        asked = [name for name in (step.fill_workload, step.drain_workload) if name in self._options.workloads]
        if not asked:
            return
        self._ceilings(arena, asked, number)
        counts = [len(throughput.variants_of(self._options, step, peer)) for peer in self._peers]
        for position in range(max(counts, default=0)):
            for peer, count in zip(self._peers, counts, strict=True):
                if position < count:
                    with self._guard(asked[-1], peer.label, "", number) as keep:
                        for workload, variant, figures in throughput.run_step(arena, step, peer, position):
                            keep(workload, variant, figures)

    def _ceilings(self, arena: Arena, workloads: list[str], number: int) -> None:
        for workload in workloads if self._options.floor else ():
            for ceiling in ceilings.CEILINGS.get(workload, ()):
                with self._guard(workload, ceiling.label, "", number) as keep:
                    keep(workload, "", ceilings.run(arena, ceiling))

    def _variants(self, workload: str) -> Iterator[tuple[Peer, str]]:
        """Yield peers and variants with every peer's first variant before anyone's second."""
        most = max((len(peer.variants_for(workload)) for peer in self._peers), default=0)
        for position in range(most):
            for peer in self._peers:
                variants = peer.variants_for(workload)
                if position < len(variants):
                    yield peer, variants[position]

    def _kills(self) -> None:
        # A pool, not bare threads: Thread.join interrupted by a signal takes the thread for finished (bpo-45274).
        with ThreadPoolExecutor(_KILLS_AT_ONCE) as pool:
            try:
                futures = []
                for offset, (peer, variant) in enumerate(self._variants("W7")):
                    futures.append(pool.submit(self._fault, "W7", peer, variant, self._options.port + 20 + offset))
                    time.sleep(_KILL_STAGGER_S)
                wait(futures)
            except BaseException:
                # The threads hold servers and workers: they must unwind, and soon.
                faults.CANCELLED.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _fault(self, workload: str, peer: Peer, variant: str, port: int) -> None:
        with self._guard(workload, peer.label, variant, 0) as keep:
            keep(workload, variant, FAULTS[workload](self._options, peer, variant, port))

    @contextmanager
    def _guard(self, workload: str, label: str, variant: str, number: int) -> Iterator[Callable[..., None]]:
        """Turn the failure of one run into a line of the report: the others go on."""

        def keep(measured: str, started_as: str, figures: Figures) -> None:
            self.keep(measured, label, started_as, number, figures)

        try:
            yield keep
        except Exception as error:  # one system's failure must not end the comparison
            text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
            self.keep(workload, label, variant, number, {"error": text})

    def keep(self, workload: str, label: str, variant: str, number: int, figures: Figures) -> None:
        """Add one run to the report, tell the user, and save."""
        run = {"workload": workload, "peer": label, "variant": variant, "round": number, **figures}
        run["load"] = round(os.getloadavg()[0], 2)
        with self._lock:
            self.report["runs"].append(run)
            self._save()
        spoken = " ".join(f"{key}={_spoken(figures[key])}" for key in _SPOKEN if figures.get(key) is not None)
        say(f"round {number + 1} {workload:<4} {label:<18} {variant:<10} {spoken}")

    def _save(self) -> None:
        target: Path | None = self._options.json_path
        if target is not None:
            partial = target.with_name(target.name + ".partial")
            partial.write_text(json.dumps(self.report, indent=1))
            partial.replace(target)
