"""Rule 28: the maintainer frees what is held for task messages that are nowhere any more, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.store.limiting import sweep
from streamwork.worker import sweeper
from streamwork.worker.member import QueueFacts
from tests.faults.proof import must_fail
from tests.faults.unguarded import files_of, module_without
from tests.redis.flowkit import c, g, t, u, w
from tests.redis.kit import LANE

HOUR = 3_600_000_000
NOBODY = "f" * 32


def swept(flow, what, names, lane=""):
    return flow.driver.run(sweep(flow.keys, what, names, lane))


def waiting(flow):
    flow.send(c())
    for ids in (flow.send(c())[0], flow.send(c(), when="+9000000")[0]):
        assert swept(flow, "flow", ids) == 0, "who waits is taken for lost"


def moved_on(flow):
    ids, _ = flow.send(c())
    assert swept(flow, "flow", ids, "3:gpu") == 0, "who has moved on is taken for lost"


def running(flow):
    ids, _ = flow.send(c())
    flow.read()
    assert swept(flow, "flow", ids, LANE) == 0, "who runs is taken for lost"


def unread(flow):
    ids, _ = flow.send(c())
    assert swept(flow, "flow", ids, LANE) == 0, "who was not read yet is taken for lost"


def being_restored(flow):
    ids, _ = flow.send(c())
    flow.read()
    flow.run("XGROUP", "DESTROY", flow.keys.lane(LANE), "workers")
    flow.run("XGROUP", "CREATE", flow.keys.lane(LANE), "workers", "$")
    flow.run("HSET", flow.keys.restoring, LANE, "0-0 0-0")
    assert swept(flow, "flow", ids, LANE) == 0, "who is about to be restored is taken for lost"


def names(flow):
    ids, _ = flow.send(u())
    assert swept(flow, "unique", [b"u:x"]) == 0, "the name of who is there is free"
    assert flow.owner() == ids[0]


def spans(flow):
    ids, _ = flow.send(u(ms=9_000_000))
    (delivery,) = flow.read()
    flow.end(delivery)
    assert swept(flow, "unique", [b"u:x"]) == 0, "the name is free before its time"
    assert flow.owner() == ids[0]


def buckets(flow):
    flow.send(t(HOUR), w(1, HOUR), count=2)
    (delivery,) = flow.read()
    assert flow.begin(delivery) == [1]
    assert swept(flow, "rates", flow.run("HKEYS", flow.keys.rates)) == 0, "spent tokens are there again"


def windows(flow):
    flow.send(w(5, HOUR))
    (delivery,) = flow.read()
    assert flow.begin(delivery) == [1]
    flow.run("HSET", flow.keys.rates, "w:x", "0 1 1")
    assert swept(flow, "rates", [b"w:x"]) == 1
    assert flow.run("EXISTS", flow.keys.starts) == 0, "a window that is over has left its starts behind"


def right_number(flow):
    flow.send(c(most=3), count=2)
    swept(flow, "counts", [2_000])
    assert flow.numbers() == {"+c:x": 2}, "a number is changed that was right"


def corrected(flow):
    flow.send(c(most=2))
    flow.run("HSET", flow.keys.permits, "+c:x", 2)
    ids, _ = flow.send(c(most=2))
    assert swept(flow, "counts", [2_000])
    assert flow.parked() == [], "there is room, and nobody hears of it"
    assert ids


def right_line(flow):
    flow.send(c(), count=2)
    swept(flow, "counts", [2_000])
    assert flow.numbers() == {"+c:x": 1, "-c:x": 1}, "a number is changed that was right"


def wrong_line(flow):
    """A line is said to have somebody in it."""
    flow.send(c(most=3))
    flow.run("HSET", flow.keys.permits, "-c:x", 1)
    swept(flow, "counts", [2_000])
    ids, _ = flow.send(c(most=3))
    assert flow.on_lane()[1:] == ids, "it waits behind nobody"


def right_turns(flow):
    flow.run("HSET", flow.keys.flow_state, "*", 1)
    flow.send(g(), count=3)
    ((field, value), *_) = [flow.run("HGETALL", flow.keys.turns)]
    flow.run("HSET", flow.keys.turns, field, b"7 " + value.split()[1], "c:x\0" + "8\0", "1 0")
    swept(flow, "counts", [2_000])
    assert flow.run("HGETALL", flow.keys.turns) == [field, value], "turns of nobody are kept for ever"


SCRIPT = {
    "sweep_counts_turns": (right_turns, "kept for ever"),
    "sweep_counts_lines": (wrong_line, "behind nobody"),
    "sweep_counts_who_waits": (right_line, "that was right"),
    "sweep_counts_compared": (right_number, "that was right"),
    "sweep_counts_wake": (corrected, "nobody hears of it"),
    "sweep_spares_waiting": (waiting, "who waits is taken"),
    "sweep_spares_moved": (moved_on, "who has moved on is taken"),
    "sweep_spares_running": (running, "who runs is taken"),
    "sweep_spares_unread": (unread, "who was not read yet is taken"),
    "sweep_waits_for_healing": (being_restored, "to be restored is taken"),
    "sweep_spares_names": (names, "is free"),
    "sweep_spares_spans": (spans, "before its time"),
    "sweep_spares_rates": (buckets, "are there again"),
    "sweep_forgets_starts": (windows, "left its starts behind"),
}


@pytest.mark.parametrize("name", SCRIPT)
def test_who_is_there_keeps_what_it_holds(own_flow, name):
    SCRIPT[name][0](own_flow)


@pytest.mark.parametrize("name", SCRIPT)
def test_without_a_look_at_that_it_does_not(own_flow, name):
    scenario, match = SCRIPT[name]
    must_fail(name, match, scenario, own_flow)


def on_duty(flow, connected, times, without=()):
    """Let the maintainer look so often; returns when it would look again, in s, None = some time."""

    async def main():
        driver = connected()
        module = module_without("streamwork.worker.sweeper", *without) if without else sweeper
        queue = QueueFacts(flow.keys)
        queue.on_duty = True
        service = module.Sweeper(driver, queue)
        try:
            return [await service.tick() for _ in range(times)][-1]
        finally:
            await driver.close()

    return asyncio.run(main())


def lost_messages(flow, connected, without=()):
    ids, _ = flow.send(c(), count=2)
    flow.run("DEL", flow.keys.lane(LANE))
    on_duty(flow, connected, 1, without)
    assert flow.holders("c:x") == ids[1:], "the permit of a lost message is held for ever"


def lost_names(flow, connected, without=()):
    flow.send(c())
    flow.run("HSET", flow.keys.unique, "u:x", f"{NOBODY} 0")
    on_duty(flow, connected, 1, without)
    assert flow.owner() is None, "a name of nobody is kept for ever"


def full_buckets(flow, connected, without=()):
    flow.send(c())
    flow.run("HSET", flow.keys.rates, "t:x", "0 1 1")
    on_duty(flow, connected, 1, without)
    assert flow.run("EXISTS", flow.keys.rates) == 0, "a bucket that nobody needs is kept for ever"


def very_many(flow, connected, without=()):
    """What lives may fill whatever is looked at first."""
    (owner,), _ = flow.send(c())
    living = [part for n in range(700) for part in (f"u:living{n}", f"{owner} 0")]
    lost = [part for n in range(300) for part in (f"u:lost{n}", f"{NOBODY} 0")]
    flow.run("HSET", flow.keys.unique, *living, *lost)
    on_duty(flow, connected, 12, without)
    assert flow.run("HLEN", flow.keys.unique) == 700, "what is behind the first few is never looked at"


def many_slots(flow, connected, without=()):
    flow.run("HSET", flow.keys.consumers, "w1", '{"slots": 20}', "w2", '{"slots": 30}')
    flow.send(g())
    on_duty(flow, connected, 1, without)
    flow.send(g(), count=59)
    assert len(flow.on_lane()) == 60, "slots stay empty while groups wait"


def slots_of_others(flow, connected, without=()):
    flow.run("HSET", flow.keys.consumers, "w1", '{"slots": 20, "tags": ["gpu"]}', "w2", '{"slots": 30}')
    message = flow.limited(g(), window="*gpu")
    flow.chunk([message], ["1:gpu"])
    on_duty(flow, connected, 1, without)
    assert flow.run("HGET", flow.keys.flow_state, "*gpu") == b"40", "slots that cannot take it count as places"


def tags_of_nobody(flow, connected, without=()):
    """A message that nobody can run has no permit that its group could use otherwise."""
    flow.run("HSET", flow.keys.consumers, "w1", '{"slots": 5}')
    flow.chunk([flow.limited(g(most=1), window="*gpu")], ["1:gpu"])
    (delivery,) = flow.read(lane="1:gpu")
    flow.end(delivery)
    on_duty(flow, connected, 1, without)
    flow.chunk([flow.limited(g(most=1), window="*gpu")], ["1:gpu"])
    ids, _ = flow.send(g(most=1))
    assert flow.on_lane() == ids, "what nobody can run keeps others out"


def wrong_number(flow, connected, without=()):
    """Somebody has set a number by hand, and all permits are said to be taken."""
    ids, _ = flow.send(c(most=3))
    flow.run("HSET", flow.keys.permits, "+c:x", 3)
    waits, _ = flow.send(c(most=3))
    on_duty(flow, connected, 3, without)
    assert flow.holders("c:x") == sorted(ids + waits), "a number that is wrong keeps all out for ever"


def many_lost(flow, connected, without=()):
    """One look does not see all that was lost with a lane."""
    flow.chunk([flow.limited(c(most=900)) for _ in range(900)])
    flow.run("DEL", flow.keys.lane(LANE))
    assert on_duty(flow, connected, 1, without) is not None, "others wait for their places for 20 s"


SERVICE = {
    "sweep_counts_again": (wrong_number, "keeps all out"),
    "swept_soon": (many_lost, "for 20 s"),
    "swept_messages": (lost_messages, "of a lost message is held"),
    "swept_names": (lost_names, "of nobody is kept"),
    "swept_rates": (full_buckets, "is kept for ever"),
    "sweep_goes_round": (very_many, "is never looked at"),
    "window_by_slots": (many_slots, "stay empty"),
    "window_by_tags": (slots_of_others, "count as places"),
    "window_for_nobody": (tags_of_nobody, "keeps others out"),
}


@pytest.mark.parametrize("name", SERVICE)
def test_what_is_held_for_nobody_is_freed(own_flow, connected, name):
    SERVICE[name][0](own_flow, connected)


@pytest.mark.parametrize("name", SERVICE)
def test_without_the_look_of_the_maintainer_it_is_not(own_flow, connected, name):
    scenario, match = SERVICE[name]
    assert files_of([name]) == {"streamwork/worker/sweeper.py"}
    with pytest.raises(AssertionError, match=match):
        scenario(own_flow, connected, without=(name,))
