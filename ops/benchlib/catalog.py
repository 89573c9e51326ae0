"""The peers: what to install, how to start their workers, and which start each workload uses.

Every peer runs its newest release with the settings its documentation recommends, results kept, quiet logs and
hiredis; uvloop only where its own command line or a documented option uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """One way to start a worker.

    Attributes:
        command: Command line with {bin} (the environment's scripts), {python}, {url}, {ops}.
        slots: Concurrency for adapters that take it from `recorder.SLOTS`; zero where the command says it.
        copies: How many times the command is started.
        env: Further variables, for the worker and, where this variant has a producer of its own, for that too.
    """

    command: str
    slots: int = 0
    copies: int = 1
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PeerSpec:
    """One task system.

    Attributes:
        module: Adapter under `peers/`.
        venv: Name of its virtual environment.
        packages: What pip installs there.
        versions: Distributions whose versions the report names.
        plan: Variants for each workload; a workload that is not named is not run for this peer.
        modes: Settings besides "default" that the adapter knows, chosen as `name:mode`.
        tuned_arguments: Appended to the worker's command in mode "tuned".
        producer: Command of a producer that is not `producer.py`.
        npm: Packages that npm installs.
        restart_tasks: Tasks for W8: enough that most of them are still queued when Redis goes away.
    """

    module: str
    venv: str
    packages: tuple[str, ...]
    versions: tuple[str, ...]
    variants: Mapping[str, Variant]
    plan: Mapping[str, tuple[str, ...]]
    modes: tuple[str, ...] = ()
    tuned_arguments: str = ""
    producer: str = ""
    npm: tuple[str, ...] = ()
    restart_tasks: int = 20_000


def _plan(**variants: str) -> dict[str, tuple[str, ...]]:
    """Spell a plan: W2="one", W4="a b"; W1 and W1b need a drain for their delivery check and take W2b's."""
    plan = {workload: tuple(names.split()) for workload, names in variants.items()}
    plan.setdefault("W6", plan["W2"][:1])
    plan["W1"] = plan["W1b"] = plan["W2b"]
    return plan


_STREAMWORK = "{bin}/streamwork worker --app benchlib.peers.streamwork_:app"
_CELERY = "{bin}/celery -A benchlib.peers.celery_ worker -l ERROR --without-mingle --without-gossip"
_DRAMATIQ = "{bin}/dramatiq benchlib.peers.dramatiq_"
_RQ_POOL = "{bin}/rq worker-pool -q -u {url} -P {ops}"
_HUEY = "{bin}/huey_consumer benchlib.peers.huey_.huey -n -q"
_ARQ = "{bin}/arq benchlib.peers.arq_.WorkerSettings --custom-log-dict benchlib.peers.arq_.LOGGING"
_SAQ = "{bin}/saq benchlib.peers.saq_.settings"
_TASKIQ = "{bin}/taskiq worker --log-level ERROR"
_STREAQ = "{bin}/streaq run benchlib.peers.streaq_:worker"
_DOCKET = "{bin}/docket worker --docket bench --url {url} --tasks benchlib.peers.docket_:tasks --logging-level ERROR"
_BULLMQ = "node {ops}/benchlib/bull/worker.js"


def _taskiq(module: str, modes: tuple[str, ...]) -> PeerSpec:
    worker = f"{_TASKIQ} benchlib.peers.{module}:broker"
    return PeerSpec(
        module=module,
        venv="taskiq",
        packages=("taskiq", "taskiq-redis", "hiredis", "uvloop", "orjson"),
        versions=("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop"),
        variants={
            "w1": Variant(f"{worker} --workers 1"),
            "w2": Variant(f"{worker} --workers 2"),
            "t8": Variant(f"{worker} --workers 1 --max-threadpool-threads 8"),
            "c10": Variant(f"{worker} --workers 1 --max-async-tasks 10"),
        },
        plan=_plan(W2="w1", W2b="w2", W2t="t8", W3="w1", W4="w1", W5="w2", W7="c10", W8="w2"),
        modes=modes,
    )


_DELAYS, _WAITING, _SIGNALS = (
    ("ahead", "live", "cron"),
    ("1,000", "100,000", "1,000,000"),
    ("cancel", "pause", "resume"),
)

CATALOG: dict[str, PeerSpec] = {
    "streamwork": PeerSpec(
        module="streamwork_",
        venv="streamwork",
        packages=(),
        versions=("streamwork", "redis", "hiredis", "msgspec", "uvloop"),
        variants={
            "default": Variant(_STREAMWORK),
            "s500": Variant(f"{_STREAMWORK} --slots 500"),
            "2xs500": Variant(f"{_STREAMWORK} --slots 500 --processes 2"),
            "t8": Variant(f"{_STREAMWORK} --threads 8"),
            "s100": Variant(f"{_STREAMWORK} --slots 100"),
            "2xdefault": Variant(f"{_STREAMWORK} --processes 2"),
            "s10": Variant(f"{_STREAMWORK} --slots 10"),
            "await": Variant(_STREAMWORK, env={"BENCH_API": "async"}),
            "sync": Variant(_STREAMWORK, env={"BENCH_API": "sync"}),
            # What is asked of a worker, not how it is started.
            **dict.fromkeys((*_DELAYS, *_WAITING, *_SIGNALS), Variant(_STREAMWORK)),
        },
        plan={
            **_plan(W2="s500", W2b="2xs500", W2t="t8", W3="await sync", W4="s100", W5="2xdefault", W6="default"),
            "W1c": ("2xs500",),
            "W7": ("s10",),
            "W8": ("2xs500",),
            "D1": _DELAYS,
            "D2": _WAITING,
            "D3": _SIGNALS,
            "H1": _WAITING,
        },
        modes=("unguarded", "limits", "rate", "concurrency", "key", "group", "unique", "telemetry", "telemetry_all"),
        restart_tasks=200_000,
    ),
    "bullmq": PeerSpec(
        module="bullmq_",
        venv="raw",
        packages=("redis", "hiredis", "uvloop", "msgspec"),
        versions=(),
        variants={
            "c100": Variant(_BULLMQ, slots=100),
            "2xc100": Variant(_BULLMQ, slots=100, copies=2),
            "c10": Variant(_BULLMQ, slots=10),
        },
        plan=_plan(W2="c100", W2b="2xc100", W3="c100", W4="c100", W5="2xc100", W7="c10", W8="2xc100"),
        modes=("tuned",),
        producer="node {ops}/benchlib/bull/producer.js",
        npm=("bullmq", "ioredis"),
        restart_tasks=60_000,
    ),
    "repid": PeerSpec(
        module="repid_",
        venv="repid",
        # repid and saq import typing_extensions on 3.11 without asking for it.
        packages=("repid[redis]", "hiredis", "typing_extensions"),
        versions=("repid", "redis", "hiredis"),
        variants={
            "w1": Variant("{python} -m benchlib.peers.repid_", slots=1000),
            "w2": Variant("{python} -m benchlib.peers.repid_", slots=1000, copies=2),
            "c100": Variant("{python} -m benchlib.peers.repid_", slots=100),
            "c10": Variant("{python} -m benchlib.peers.repid_", slots=10),
        },
        plan=_plan(W2="w1", W2b="w2", W2t="w1", W3="w1", W4="c100", W5="w2", W7="c10", W8="w2"),
        modes=("tuned",),
    ),
    "huey": PeerSpec(
        module="huey_",
        venv="huey",
        packages=("huey", "redis", "hiredis"),
        versions=("huey", "redis", "hiredis"),
        variants={
            "t8": Variant(f"{_HUEY} -k thread -w 8"),
            "p4": Variant(f"{_HUEY} -k process -w 4"),
            "t100": Variant(f"{_HUEY} -k thread -w 100"),
            "t10": Variant(f"{_HUEY} -k thread -w 10"),
        },
        plan=_plan(W2="t8", W2b="p4", W2t="t8", W3="t8", W4="t100", W5="p4", W7="t10", W8="p4"),
    ),
    "dramatiq": PeerSpec(
        module="dramatiq_",
        venv="dramatiq",
        packages=("dramatiq[redis]", "hiredis"),
        versions=("dramatiq", "redis", "hiredis"),
        variants={
            "p1t8": Variant(f"{_DRAMATIQ} -p 1 -t 8"),
            "p2t8": Variant(f"{_DRAMATIQ} -p 2 -t 8"),
            "p1t100": Variant(f"{_DRAMATIQ} -p 1 -t 100"),
            "p1t10": Variant(f"{_DRAMATIQ} -p 1 -t 10"),
        },
        plan=_plan(W2="p1t8", W2b="p2t8", W2t="p1t8", W3="p1t8", W4="p1t100", W5="p2t8", W7="p1t10", W8="p2t8"),
        modes=("tuned",),
    ),
    "docket": PeerSpec(
        module="docket_",
        venv="docket",
        packages=("pydocket", "hiredis"),
        versions=("pydocket", "redis", "hiredis"),
        variants={
            "c10": Variant(f"{_DOCKET} --concurrency 10"),
            "2xc10": Variant(f"{_DOCKET} --concurrency 10", copies=2),
            "c50api": Variant("{python} -m benchlib.peers.docket_", slots=50),
            "2xc50api": Variant("{python} -m benchlib.peers.docket_", slots=50, copies=2),
            "c100api": Variant("{python} -m benchlib.peers.docket_", slots=100),
        },
        plan=_plan(W2="c10 c50api", W2b="2xc50api", W3="c10", W4="c100api", W5="2xc10", W7="c10", W8="2xc50api"),
        modes=("tuned",),
        tuned_arguments="--redelivery-timeout 15s",
    ),
    "taskiq_stream": _taskiq("taskiq_stream", ("tuned",)),
    "taskiq_list": _taskiq("taskiq_list", ()),
    "streaq": PeerSpec(
        module="streaq_",
        venv="streaq",
        packages=("streaq", "hiredis", "uvloop"),
        versions=("streaq", "coredis", "hiredis", "anyio", "uvloop"),
        variants={
            "c16": Variant(_STREAQ, slots=16),
            "2xc16": Variant(f"{_STREAQ} --workers 2", slots=16),
            "c100": Variant(_STREAQ, slots=100),
            "2xc100": Variant(f"{_STREAQ} --workers 2", slots=100),
            "c10": Variant(_STREAQ, slots=10),
        },
        plan=_plan(W2="c16", W2b="2xc100", W2t="c16", W3="c16", W4="c100", W5="2xc16", W7="c10", W8="2xc100"),
        modes=("tuned",),
    ),
    "celery": PeerSpec(
        module="celery_",
        venv="celery",
        packages=("celery[redis]", "gevent", "hiredis"),
        versions=("celery", "kombu", "redis", "hiredis", "gevent"),
        variants={
            "prefork1": Variant(f"{_CELERY} -P prefork -c 1"),
            "prefork2": Variant(f"{_CELERY} -P prefork -c 2", env={"BENCH_PREFETCH": "128"}),
            "prefork10": Variant(f"{_CELERY} -P prefork -c 10"),
            "gevent100": Variant(f"{_CELERY} -P gevent -c 100"),
            "threads100": Variant(f"{_CELERY} -P threads -c 100"),
            "threads8": Variant(f"{_CELERY} -P threads -c 8"),
        },
        plan=_plan(
            W2="prefork1",
            W2b="prefork2",
            W2t="threads8",
            W3="prefork1",
            W4="gevent100 threads100",
            W5="prefork2",
            W7="prefork10",
            W8="prefork2",
        ),
        modes=("durable", "tuned"),
    ),
    "rq": PeerSpec(
        module="rq_",
        venv="rq",
        packages=("rq", "hiredis"),
        versions=("rq", "redis", "hiredis"),
        variants={
            "fork1": Variant("{bin}/rq worker -q -u {url} -P {ops} bench"),
            "fork10": Variant(f"{_RQ_POOL} -n 10 bench"),
            "fork100": Variant(f"{_RQ_POOL} -n 100 bench"),
            "simple2": Variant(f"{_RQ_POOL} -n 2 -w rq.worker.SimpleWorker bench"),
        },
        plan=_plan(W2="fork1", W2b="simple2", W3="fork1", W4="fork100", W5="simple2", W7="fork10", W8="simple2"),
        modes=("durable",),
    ),
    "arq": PeerSpec(
        module="arq_",
        venv="arq",
        packages=("arq", "hiredis"),
        versions=("arq", "redis", "hiredis"),
        variants={
            "c10": Variant(_ARQ, slots=10),
            "2xc10": Variant(_ARQ, slots=10, copies=2),
            "c100": Variant(_ARQ, slots=100),
            "2xc100": Variant(_ARQ, slots=100, copies=2),
        },
        plan=_plan(W2="c10", W2b="2xc100", W3="c10", W4="c100", W5="2xc10", W7="c10", W8="2xc100"),
        modes=("tuned",),
    ),
    "saq": PeerSpec(
        module="saq_",
        venv="saq",
        packages=("saq[redis,hiredis]", "typing_extensions"),
        versions=("saq", "redis", "hiredis"),
        variants={
            "c10": Variant(_SAQ, slots=10),
            "c100": Variant(_SAQ, slots=100),
            "2xc10": Variant(f"{_SAQ} --workers 2", slots=10),
        },
        plan=_plan(W2="c10", W2b="2xc10", W3="c10", W4="c100", W5="2xc10", W7="c10", W8="2xc10"),
        modes=("durable", "tuned"),
    ),
}

DEFAULT_PEERS = ("streamwork", "bullmq", "repid", "huey", "dramatiq", "docket")
