"""What every party of the model has, and the settings of all."""

from __future__ import annotations

from collections import deque

from streamwork import Streamwork
from streamwork.config import Config
from streamwork.settings import ClientConfig, KeepConfig, WorkerConfig
from tests.model.driver import ModelDriver
from tests.model.server import KEYS

NAMESPACE, QUEUE = KEYS.namespace, KEYS.queue
# Shorter than the defaults, in the same order: what is late, what is looked for again, what is history.
CONFIG = Config(
    worker=WorkerConfig(slots=2, queues=(QUEUE,)),
    client=ClientConfig(deadline_s=2.0, send_timeout_s=3.0, resend_s=4.0),
    keep=KeepConfig(history_s=("2",)),
)
AUDIT_MS = 5_000
DRAIN_S = 1.0
APP = Streamwork(NAMESPACE, "redis://127.0.0.1:1/0")


@APP.task(name="work", queue=QUEUE)
async def work():
    """Whatever it does is the scheduler's choice."""


# Parts that belong to one party; what the whole process shares stays as it is.
_OURS = ("streamwork.worker", "streamwork.broker", "tests.model.process", "tests.model.host")


class Party:
    """What has threads and a fate of its own: a process, a supervisor, a client."""

    def __init__(self, world, name):
        self.world = world
        self.name_here = name
        self.is_dead = self.is_paused = False
        self.stalled = deque()
        self.drivers = []

    def make_driver(self, role, deadline_s):
        """Return a connection of this party."""
        driver = ModelDriver(self.world, f"{self.name_here}.{role}", deadline_s * 1000)
        self.drivers.append(driver)
        self.world.drivers[driver.name] = driver
        return driver

    def die(self):
        """SIGKILL: no code runs any more; what was sent may still be executed."""
        self.is_dead = True
        self.stalled.clear()
        for driver in self.drivers:
            driver.is_orphan = True
            driver.answered.clear()

    def tear(self):
        """Break the circles of references, when the world is over."""
        for driver in self.drivers:
            driver.__dict__.clear()
        for part in list(self.__dict__.values()):
            if getattr(part, "__dict__", None) and part.__class__.__module__.startswith(_OURS):
                part.__dict__.clear()
        self.__dict__.clear()

    def wake(self):
        """SIGCONT: what has come meanwhile is heard before any deadline."""
        self.is_paused = False
        for driver in self.drivers:
            while driver.answered:
                self.world.deliver(driver)
        while self.stalled and not self.is_paused:
            go, value, thread = self.stalled.popleft()
            thread._step(go, value)
