"""One schedule from one seed: what there is, what happens, and an end in which everything must come to its end."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from tests.model.actions import SERVICES, Actions
from tests.model.client import IDS
from tests.model.end import come_to_an_end
from tests.model.world import World


class Later(NamedTuple):
    """When a message runs: so many ms after it was sent, told as an instant or as a span."""

    ms: int
    is_instant: bool


class Shape(NamedTuple):
    """What there is in a world.

    Attributes:
        version: Major version of the server.
        hosts, clients, messages: How many.
        tags: For each host, the tags of each of its processes.
        lanes: Lane names in use.
        lane_of: The lane of each message.
        poison: Messages that kill their process.
        is_prepared: The lanes are there from the start.
        exact_trim: ``~`` trims all it may, else nothing.
        moods: Which kinds of trouble there are.
        ends_early: It ends with the last message, else when nothing is under way any more.
        later: When those messages run that are not to run at once.
    """

    version: int
    hosts: int
    clients: int
    messages: int
    tags: dict[str, list[frozenset[str]]]
    lanes: list[str]
    lane_of: dict[str, str]
    poison: frozenset[str]
    is_prepared: bool
    exact_trim: bool
    moods: tuple[str, ...]
    ends_early: bool
    later: dict[str, Later]

    @property
    def all_tags(self):
        """What a process must offer to read every lane."""
        return ALL_TAGS

    @property
    def most_entries(self):
        """How long a lane is held back by what is pending: two entries are one too many where copies are kept."""
        return 1 if "keep" in self.moods else 100_000


ALL_TAGS = frozenset({"a", "b"})
MOODS = (
    "net", "crash", "pause", "time", "cancel", "retry", "server", "group", "clock", "flush", "keep", "full", "leave",
)  # fmt: skip
_LANES = (
    ["1:"], ["1:"], ["1:"], ["1:", "2:"], ["1:", "2:"], ["1:", "1:a"], ["1:", "1:a", "2:a,b"], ["1:a", "2:"],
)  # fmt: skip


def shape_of(random, more=()):
    """Draw what there is; `more` are moods that it has in any case."""
    hosts = random.choice((1, 1, 2, 2, 2))
    lanes = random.choice(_LANES)
    tags = {f"h{n + 1}": [ALL_TAGS] * random.choice((1, 1, 2)) for n in range(hosts)}
    if any(lane[2:] for lane in lanes):
        offers = (ALL_TAGS, ALL_TAGS, frozenset("a"), frozenset("b"), frozenset())
        tags = {host: [random.choice(offers) for _ in each] for host, each in tags.items()}
    messages = random.choice((1, 2, 2, 3, 4))
    is_poisoned = random.random() < 0.12 or "poison" in more
    poison = frozenset({random.choice(IDS[:messages])}) if is_poisoned else frozenset()
    moods = tuple(mood for mood in MOODS if random.random() < _LIKELY.get(mood, 0.35) or mood in more)
    later = {}
    if random.random() < 0.2 or "later" in more:
        for task_id in IDS[:messages]:
            if random.random() < 0.6:
                later[task_id] = Later(random.choice((300, 1_500, 4_000)), random.random() < 0.4)
    return Shape(
        random.choice((6, 7)), hosts, random.choice((1, 1, 2)), messages, tags, lanes,
        {task_id: random.choice(lanes) for task_id in IDS[:messages]}, poison, random.random() < 0.8,
        random.random() < 0.5, moods, random.random() < 0.7, later,
    )  # fmt: skip


_LIKELY = {"group": 0.12, "flush": 0.04, "clock": 0.12, "server": 0.15, "keep": 0.2, "full": 0.08, "leave": 0.15}


class Chooser:
    """Proposes what happens next, at random but with an eye for what can."""

    def __init__(self, world, random):
        self.world = world
        self.random = random
        self.faults = [fault for mood in world.shape.moods for fault in _FAULTS.get(mood, ())]
        self.is_shaky = "net" in world.shape.moods
        self.hows = ("S", "S", "S", "F", "R", "R", "K") if "retry" in world.shape.moods else ("S",)

    def next(self):
        """Return an action, which may turn out to be impossible."""
        world, random = self.world, self.random
        dice = random.random()
        if dice < 0.62:
            ready = [
                driver
                for driver in world.drivers.values()
                if driver.answered or (driver.sent and not driver.is_blocked)
            ]
            if ready:
                driver = ready[int(random.random() * len(ready))]
                if driver.answered and (not driver.sent or random.random() < 0.5):
                    return ("hear", driver.name)
                return ("go", driver.name, self._how())
        if dice < 0.76:
            return ("end", self._one(world.processes), int(random.random() * 2), random.choice(self.hows))
        if dice < 0.82 and world.sent < world.shape.messages:
            return ("send", self._one(world.clients), 1 if random.random() < 0.7 else 2)
        if dice < 0.87:
            return ("signal", self._one(world.hosts))
        if dice < 0.91:
            return ("tick", self._one(world.hosts), random.choice(SERVICES))
        if dice < 0.935:
            return ("live", random.choice((1_000, 2_000, 6_000)))
        if self.faults:
            return self._fault()
        return ("tick", self._one(world.hosts), "beat")

    def _one(self, parties):
        return int(self.random.random() * len(parties))

    def _how(self):
        dice = self.random.random()
        if not self.is_shaky:
            return "ok" if dice < 0.85 else "late"
        if dice < 0.75:
            return "ok"
        return "late" if dice < 0.83 else "lost" if dice < 0.91 else "dead" if dice < 0.95 else "part"

    def _fault(self):
        fault = self.random.choice(self.faults)
        return (fault[0], *(part(self) if callable(part) else part for part in fault[1:]))


def _process(chooser):
    return chooser._one(chooser.world.processes)


def _host(chooser):
    return chooser._one(chooser.world.hosts)


def _ms(*choices):
    return lambda chooser: chooser.random.choice(choices)


_FAULTS = {
    "crash": (
        ("kill", _process), ("kill", _process), ("reap", _process), ("reap", _process), ("die", _host), ("fork", _host),
    ),
    "pause": (
        ("pause", "processes", _process), ("pause", "hosts", _host),
        ("wake", "processes", _process), ("wake", "hosts", _host),
        ("lone", _host, _ms(5_000, 7_500, 12_500)), ("lone", _host, _ms(6_250, 7_500, 8_750)),
    ),
    "net": (("deaf", _host),),
    "time": (("time", _ms(300, 1_300, 2_600, 5_200)), ("time", _ms(5_200, 12_000, 31_000)), ("audit", _process)),
    "cancel": (("cancel", lambda c: c._one(c.world.clients), lambda c: c.random.randrange(c.world.shape.messages)),),
    "server": (("restart", _ms(10, 2_000, 5_200)),),
    "group": (("ungroup", _ms(0, 1)),),
    "clock": (("clock", _ms(-60_000, -3_000, 3_000, 60_000)), ("skew", _ms(-60_000, 0, 60_000))),
    "flush": (("flushall",),),
    "keep": (("keep", _host), ("keep", _host), ("live", _ms(3_000))),
    "full": (("memory", lambda c: c.random.random() < 0.7), ("keep", _host)),
    "leave": (("leave", _process), ("time", _ms(3_500)), ("fork", _host), ("reap", _process)),
}  # fmt: skip


class Outcome(NamedTuple):
    """What came of a schedule: its actions, what was wrong (None = nothing), and the commands executed."""

    seed: int
    shape: Shape
    actions: list[tuple]
    wrong: str | None


def run_seed(seed, more=()):
    """Run the schedule of a seed."""
    random = Random(seed)
    shape = shape_of(random, more)
    world = World(shape)
    actions, chooser = Actions(world), Chooser(world, random)
    done = []
    try:
        _go_on(world, actions, chooser, done, random.choice((10, 16, 20, 24, 36)))
    finally:
        world.close()
    return Outcome(seed, shape, done, world.broken)


def _go_on(world, actions, chooser, done, steps):
    for _ in range(steps):
        action = chooser.next()
        if actions.apply(action):
            done.append(action)
        if world.broken:
            return
    come_to_an_end(world, actions)


def replay(shape, done):
    """Run these actions in a world of this shape; those that are impossible are left out."""
    world = World(shape)
    actions = Actions(world)
    try:
        for action in done:
            actions.apply(action)
            if world.broken:
                return world.broken
        come_to_an_end(world, actions)
    finally:
        world.close()
    return world.broken


def kind_of(wrong):
    """What is wrong, without the names in it."""
    return wrong.split(":")[0]


def shrunk(outcome):
    """Return a failing schedule with as few actions as cutting finds."""
    done, kind = list(outcome.actions), kind_of(outcome.wrong)
    size = max(1, len(done) // 2)
    while True:
        at, has_cut = 0, False
        while at < len(done):
            rest = done[:at] + done[at + size :]
            wrong = replay(outcome.shape, rest)
            if wrong is not None and kind_of(wrong) == kind:
                done, has_cut = rest, True
            else:
                at += size
        if size == 1 and not has_cut:
            return outcome._replace(actions=done, wrong=replay(outcome.shape, done))
        size = max(1, size // 2)


def told(outcome):
    """Return a schedule as text."""
    shape = outcome.shape._asdict()
    lines = [f"seed {outcome.seed}: {outcome.wrong}", *(f"  {name} = {value}" for name, value in shape.items())]
    return "\n".join([*lines, *(f"  {number:3} {action}" for number, action in enumerate(outcome.actions, 1))])
