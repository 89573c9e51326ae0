"""Random walks over everything that moves a message with limits: one place per id, never too many, nobody forgotten."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from streamwork.store import healing, scripts
from tests.helpers import state_of, wait_until
from tests.redis.flowkit import Flow, c, g, k, t, u, w
from tests.redis.kit import LANE

OTHER = "0:"
LANES = (LANE, OTHER)
STEPS = 300
# What each limit lets in; the numbers never change on a walk.
MOST = {"c:a": 2, "c:b": 1, "k:a": 1, "k:b": 1, "g:a": 1, "*": 6}
CHOICES = (
    c("c:a", 2), c("c:b"), k("k:a"), k("k:b"), g("g:a", 1.0, 1), g("g:b", 2.0), g("g:c"), t(2000, 2, "t:a"),
    w(3, 20_000, "w:a"), u("u:a"), u("u:b", "r"), u("u:c", "p", 0, 1), u("u:d", "d", 0, 1),
)  # fmt: skip


class Walk:
    """One queue, and what two consumers have in hand."""

    def __init__(self, driver, keys, seed):
        self.flow = Flow(driver, keys)
        self.random = random.Random(seed)
        self.in_hand = []
        self.alive = set()
        self.history = []
        self.flow.run("HSET", keys.flow_state, "*", MOST["*"])
        self.send()

    def step(self):
        """Do one of all that may happen."""
        doings = [self.send] * 4 + [self.read] * 3 + [self.end] * 4 + [self.promote] * 2
        doings += [self.release, self.adopt, self.cancel, self.unkeep, self.begin, self.begin]
        doing = self.random.choice(doings)
        self.history.append(doing.__name__)
        doing()

    def send(self):
        picked = self.random.sample(CHOICES, self.random.randint(1, 3))
        # One of a kind of these at most, as tasks declare them.
        limits = [x for n, x in enumerate(picked) if x[0] not in "gku" or x[0] not in [y[0] for y in picked[:n]]]
        limits.sort(key=lambda x: "kcgtwu".index(x[0]))
        when = self.random.choice(("", "", "", "+0", "+1"))
        messages = [self.flow.limited(*limits, lane=self.random.choice((1, 2)), when=when) for _ in range(2)]
        for message, answer in zip(messages, self.flow.chunk(messages, LANES), strict=True):
            if answer[:1] not in ("=", "!") or not answer:
                self.alive.add(message.task_id)
                if "~" in answer:
                    self.gone(answer.partition("~")[2])

    def gone(self, task_id):
        """Cancel as a sender does that replaces a message."""
        if self.flow.cancel(task_id) == "cancelled":
            self.alive.discard(task_id)

    def read(self):
        self.in_hand += self.flow.read(self.random.choice(("w1", "w2")), 3, self.random.choice(LANES))

    def pick(self):
        return self.in_hand.pop(self.random.randrange(len(self.in_hand))) if self.in_hand else None

    def begin(self):
        delivery = self.pick()
        if delivery and self.flow.begin(delivery) == [1]:
            self.in_hand.append(delivery)

    def end(self):
        delivery = self.pick()
        if delivery:
            op = self.random.choice("SKCEDR")
            self.flow.end(delivery, op)
            if op != "R":
                self.alive.discard(delivery.task_id)

    def promote(self):
        lanes = self.random.choice((LANES, LANES, (LANE,)))
        self.flow.promote(lanes, self.random.choice((1, 100)))

    def release(self):
        delivery = self.pick()
        if delivery:
            assert self.flow.release(delivery) == 1
            self.adopted(delivery)

    def adopted(self, delivery):
        for one in self.flow.driver.run(scripts.adopt(self.flow.keys, delivery.lane, "w1", 1)):
            self.in_hand.append(delivery._replace(consumer="w1", count=one.delivered))

    def adopt(self):
        delivery = self.pick()
        if delivery:
            mine = [d for d in self.in_hand if (d.lane, d.consumer) == (delivery.lane, delivery.consumer)]
            self.in_hand = [d for d in self.in_hand if d not in mine]
            self.flow.driver.run(scripts.take(self.flow.keys, delivery.lane, delivery.consumer, mode="leave"))
            by_entry = {d.entry: d for d in (delivery, *mine)}
            for one in self.flow.driver.run(scripts.adopt(self.flow.keys, delivery.lane, "w2", 100)):
                self.in_hand.append(by_entry[one.entry]._replace(consumer="w2", count=one.delivered))

    def unkeep(self):
        """Trim an entry under its owner and give it away: its message is due."""
        delivery = self.pick()
        if delivery:
            few = healing.Bounds(entries=1)
            self.flow.driver.run(healing.maintain(self.flow.keys, delivery.lane, "99999999999999", 100, 1, few))
            assert self.flow.release(delivery) == 1
            self.adopted(delivery)

    def cancel(self):
        waiting = self.flow.parked() + self.flow.due()
        if waiting:
            self.gone(self.random.choice(waiting))

    def check(self):
        """Hold against what must be true at every step."""
        flow = self.flow
        places = flow.parked() + flow.due()
        for lane in LANES:
            if flow.run("EXISTS", flow.keys.lane(lane)):
                places += flow.on_lane(lane)
        assert sorted(places) == sorted(self.alive), self.history
        members = flow.permits()
        lines = [name for name in flow.lines() for _ in flow.line(name)]
        counted = Counter([*("+" + name for name, _ in members), *("-" + name for name in lines)])
        assert flow.numbers() == counted, self.history
        for name, most in MOST.items():
            assert len([1 for n, _ in members if n == name]) <= most, (name, self.history)
        assert {i for _, i in members} <= self.alive, self.history
        assert set(flow.run("HKEYS", flow.keys.flow)) == {i.encode() for i in self.alive}, self.history
        waiting = flow.lines()
        assert sorted(i for name in waiting for i in flow.line(name)) == flow.parked()
        held = {name: len([1 for n, _ in members if n == name]) for name in waiting}
        for name in waiting & MOST.keys():
            assert held[name] == MOST[name] or flow.run("ZSCORE", flow.keys.wake, name), (name, self.history)
        kept, are = flow.turns()
        assert kept == are, self.history
        for name in waiting:
            if name[0] in "tw" and not held[name]:
                assert flow.run("ZSCORE", flow.keys.wake, name), (name, self.history)

    def finish(self):
        """End all that there is."""
        while self.in_hand:
            delivery = self.in_hand.pop()
            self.flow.end(delivery)
            self.alive.discard(delivery.task_id)

        def look():
            self.flow.promote(LANES)
            for lane in LANES:
                for delivery in self.flow.read("w1", 100, lane):
                    if self.flow.begin(delivery) == [1]:
                        self.flow.end(delivery)
                        self.alive.discard(delivery.task_id)
            return not self.alive

        wait_until(look, lambda: f"all to end: {self.flow.rest()}, {self.flow.lines()}", 20)
        assert self.flow.rest() == {}
        assert sum(state_of(self.flow.driver, self.flow.keys).counts.values()) > 0


@pytest.mark.parametrize("seed", range(20))
def test_a_walk(driver, keys, seed):
    walk = Walk(driver, keys, seed)
    for _ in range(STEPS):
        walk.step()
        walk.check()
    walk.finish()
