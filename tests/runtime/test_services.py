"""What a supervisor repeats, tick by tick: beat, reaper, promoter, maintainer, control and the keeper of them all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from streamwork.broker.coverage import registered
from streamwork.broker.steps import ask
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import load
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.worker.control import Control
from streamwork.worker.homes import Address
from streamwork.worker.keeper import Keeper
from streamwork.worker.liveness import Beat, Reaper
from streamwork.worker.member import QueueFacts
from streamwork.worker.registrar import Registrar
from streamwork.worker.slot_table import SlotTable
from streamwork.worker.upkeep import Maintainer, Promoter
from tests.helpers import await_until, body_of, seed
from tests.redis.kit import bell, owners, read, settle, signals
from tests.runtime.kit import FakeMember

CONFIG = load({"liveness.ttl_s": 1.0, "worker.block_s": 0.05}, environ={}).config
TTL_MS = CONFIG.liveness.ttl_ms


@pytest.fixture
def queue(keys):
    facts = QueueFacts(keys)
    facts.lanes = ["1:"]
    return facts


@pytest.fixture
def ticking(connected):
    """Run a coroutine with a driver of its loop."""

    def run(main):
        async def all_of_it():
            driver = connected()
            try:
                return await main(driver)
            finally:
                await driver.close()

        return asyncio.run(all_of_it())

    return run


def alive(driver, keys, consumer, ttl_ms=60_000):
    driver.run(scripts.register(keys, consumer, b"{}", ttl_ms))


def off_grace(driver, keys):
    driver.run(plain("DEL", keys.grace))


def test_a_beat_renews_everyone_and_tells_them(driver, keys, queue, ticking):
    members = {name: FakeMember(name) for name in ("a", "b")}
    for name in members:
        alive(driver, keys, name, 50)
    sent_at_ms = SYSTEM_CLOCK.steady_ms()

    async def main(own):
        beat = Beat(own, CONFIG, [queue], members)
        assert await beat.tick() == CONFIG.liveness.ttl_s / 4
        assert beat.beaten_at_ms >= sent_at_ms

    ticking(main)
    assert [driver.run(plain("PTTL", keys.alive(name))) > TTL_MS / 2 for name in members] == [True, True]
    assert [member.told for member in members.values()] == [["beaten"], ["beaten"]]


def test_a_member_that_cannot_hear_makes_nobody_else_deaf(driver, keys, queue, ticking):
    class Deaf(FakeMember):
        def beaten(self, at_ms):
            raise TypeError("closed")

    members = {"a": Deaf("a"), "b": FakeMember("b")}
    for name in members:
        alive(driver, keys, name, 50)
    ticking(lambda own: Beat(own, CONFIG, [queue], members).tick())
    assert members["b"].told == ["beaten"]


def test_a_table_that_was_closed_takes_a_late_beat_for_nothing():
    table = SlotTable(1)
    table.close()
    table.beat_at_ms = 5
    assert (table.beat_at_ms, table.started()) == (0, [])


def test_a_process_that_dies_while_it_is_registered_is_taken_off_the_list(driver, keys, connected):
    class Dying(FakeMember):
        is_dead = is_leaving = False

        def registration(self):
            self.is_dead = True
            return b"{}"

    async def main():
        async with keeping(keys, connected) as keeper:

            async def hand_over(member, mode, evidence, started):
                await keeper.remove(member, mode=mode, evidence=evidence, started=started)

            async def of(address):
                return SimpleNamespace(keeper=keeper, hand_over=hand_over)

            registrar = Registrar(SimpleNamespace(of=of), lambda work: None, burst=False)
            dying = Dying("dying")
            await registrar.register(dying, Address(keys.namespace, (keys.queue,), CONFIG), lambda: False)
            assert keeper.members == {}
            assert driver.run(plain("HKEYS", keys.consumers)) == []
            assert not driver.run(plain("EXISTS", keys.alive("dying")))

    asyncio.run(main())


def test_a_lapsed_member_is_revived_and_one_that_was_taken_is_fenced_and_let_go(driver, keys, queue, ticking):
    lapsed, taken = FakeMember("lapsed"), FakeMember("taken")
    members = {"lapsed": lapsed, "taken": taken}
    for name in members:
        alive(driver, keys, name)
        driver.run(plain("DEL", keys.alive(name)))
    driver.run(plain("HDEL", keys.consumers, "taken"))
    ticking(lambda own: Beat(own, CONFIG, [queue], members).tick())
    assert (lapsed.told, taken.told, set(members)) == (["beaten"], ["fenced"], {"lapsed"})
    assert driver.run(plain("EXISTS", keys.alive("lapsed"), keys.alive("taken"))) == 1


def test_the_last_claim_outlives_a_lapse_and_a_new_member_s_is_said_with_its_first_beat(driver, keys, queue, ticking):
    old, new = FakeMember("old"), FakeMember("new")
    old.claimed_at_ms = new.claimed_at_ms = SYSTEM_CLOCK.steady_ms() - 50_000
    members = {"old": old}

    def seen(member):
        """Whether it is alive, and whether its claim is told, by another clock than it was noted by."""
        found = ask(driver, registered(keys))[member.name]
        claimed_at_ms = SYSTEM_CLOCK.now_ms() - SYSTEM_CLOCK.steady_ms() + member.claimed_at_ms
        return found.is_alive, abs(found.claimed_at_ms - claimed_at_ms) < 1_000

    async def main(own):
        beat = Beat(own, CONFIG, [queue], members)
        alive(driver, keys, "old")
        await beat.tick()
        assert seen(old) == (True, True)
        driver.run(plain("DEL", keys.alive("old")))
        assert seen(old) == (False, True)
        await beat.tick()
        assert seen(old) == (True, True)
        alive(driver, keys, "new")
        members["new"] = new
        await beat.tick()
        assert seen(new) == (True, True)

    ticking(main)
    assert 0 < driver.run(plain("PTTL", keys.claimed("old"))) <= 3_600_000


def test_a_reaper_waits_for_grace_then_takes_who_is_dead_and_nobody_else(driver, keys, queue, ticking):
    for name in ("dead", "alive", "mine"):
        alive(driver, keys, name)
        seed(driver, keys, body_of("t", name))
        read(driver, keys, name)
    driver.run(plain("DEL", keys.alive("dead"), keys.alive("mine")))

    async def main(own):
        reaper = Reaper(own, CONFIG, queue, {"mine": FakeMember("mine")}, "me")
        await reaper.tick()  # the pulse had lapsed: nobody beat, so nobody is dead yet
        assert {owner for owner, _ in owners(driver, keys).values()} == {"dead", "alive", "mine"}
        await reaper.tick()
        assert {owner for owner, _ in owners(driver, keys).values()} == {"dead", "alive", "mine"}  # grace
        off_grace(driver, keys)
        assert await reaper.tick() == CONFIG.liveness.reap_s
        assert queue.on_duty

    ticking(main)
    assert sorted(owner for owner, _ in owners(driver, keys).values()) == ["alive", "mine", "returned"]
    # 1 = the test's own seed, 2 = the reaper: one bell holds one token.
    assert bell(driver, keys) == 1
    assert ("returned", "1:") in signals(driver, keys)
    assert driver.run(plain("SMEMBERS", keys.returned)) == [b"1:"]
    assert sorted(driver.run(plain("HKEYS", keys.consumers))) == [b"alive", b"mine"]


def test_who_comes_back_before_the_second_look_is_not_taken(driver, keys, queue, ticking):
    alive(driver, keys, "w1")
    seed(driver, keys, body_of("t"))
    read(driver, keys, "w1")

    async def main(own):
        reaper = Reaper(own, CONFIG, queue, {}, "me")
        await reaper.tick()
        off_grace(driver, keys)
        for _ in range(3):
            # What a clock that is set back and right again does: lives renewed in between end, the pulse does not.
            driver.run(plain("DEL", keys.alive("w1")))
            assert await reaper.tick() == 1.2 * CONFIG.liveness.beat_s  # it looks again soon
            assert driver.run(scripts.revive(keys, "w1", 60_000)) == "revived"  # the next beat
            assert await reaper.tick() == CONFIG.liveness.reap_s

    ticking(main)
    assert {owner for owner, _ in owners(driver, keys).values()} == {"w1"}


def test_a_reaper_finds_a_dead_consumer_that_is_not_registered_and_removes_emptied_ones(driver, keys, queue, ticking):
    seed(driver, keys, body_of("t"))
    read(driver, keys, "stray")
    read(driver, keys, "empty")

    async def main(own):
        reaper = Reaper(own, CONFIG, queue, {}, "me")
        await reaper.tick()
        off_grace(driver, keys)
        await reaper.tick()
        assert await reaper.tick() == CONFIG.liveness.reap_s
        assert [owner for owner, _ in owners(driver, keys).values()] == ["returned"]
        # One BLOCK and a second after its death, since a read of the dead could still make the name again.
        names = {"stray", "empty"}

        async def are_gone():
            await reaper.tick()
            rows = await own.run(plain("XINFO", "CONSUMERS", keys.lane("1:"), "workers"))
            return not names & {row[1].decode() for row in rows}

        began_ms = SYSTEM_CLOCK.steady_ms()
        await await_until(are_gone, "the emptied consumers are removed")
        assert SYSTEM_CLOCK.steady_ms() - began_ms > 900

    ticking(main)


def test_a_second_reaper_stands_by_and_takes_over_before_the_pulse_lapses(driver, keys, queue, ticking):
    other = QueueFacts(keys)

    async def main(own):
        first, second = Reaper(own, CONFIG, queue, {}, "one"), Reaper(own, CONFIG, other, {}, "two")
        await first.tick()
        off_grace(driver, keys)
        pause_s = await second.tick()
        assert (queue.on_duty, other.on_duty) == (True, False)
        assert 0 < pause_s < CONFIG.liveness.pulse_ms / 1000

        async def took_over():
            await second.tick()
            return other.on_duty

        await await_until(took_over, "the standby is on duty")
        assert driver.run(plain("EXISTS", keys.grace)) == 0  # it never lapsed

    ticking(main)


def test_a_promoter_moves_what_is_due_and_sleeps_exactly_until_the_next(driver, keys, queue, look, ticking):
    now_ms = SYSTEM_CLOCK.now_ms()
    seed(driver, keys, body_of("t", 1), due_at_ms=now_ms - 1)
    seed(driver, keys, body_of("t", 2), due_at_ms=now_ms + 5_000)

    async def main(own):
        promoter = Promoter(own, queue)
        # The lane does not exist yet: it is learnt from the message.
        queue.lanes = []
        assert await promoter.tick() <= 0.05
        pause_s = await promoter.tick()
        assert 4 < pause_s <= 5.002

    ticking(main)
    assert (len(look().lanes["1:"]), len(look().due)) == (1, 1)


def test_a_promoter_comes_again_at_once_while_there_is_more_and_rarely_when_there_is_nothing(
    driver, keys, queue, ticking
):
    seed(driver, keys, body_of("t"))  # makes the lane
    for n in range(Promoter.BATCH + 5):
        seed(driver, keys, body_of("t", n), due_at_ms=1)

    async def main(own):
        promoter = Promoter(own, queue)
        assert [await promoter.tick() for _ in range(2)] == [0.0, Promoter.interval_s]

    ticking(main)
    assert driver.run(plain("ZCARD", keys.due)) == 0


def test_a_maintainer_trims_settled_history_only_on_duty(driver, keys, queue, ticking):
    # Redis trims whole nodes of 100 entries.
    seed(driver, keys, *(body_of("t", n) for n in range(350)))
    for delivery in read(driver, keys, "c")[:250]:
        settle(driver, keys, delivery)
    config = load({"keep.history_s": 0.001}, environ={}).config

    async def main(own):
        maintainer = Maintainer(own, config, queue)
        await maintainer.tick()
        assert driver.run(plain("XLEN", keys.lane("1:"))) == 350
        queue.on_duty = True
        await maintainer.tick()

    ticking(main)
    assert 100 < driver.run(plain("XLEN", keys.lane("1:"))) < 200
    assert len(owners(driver, keys)) == 100
    assert driver.run(plain("HGET", keys.low, "1:")) is not None


def test_control_hears_every_signal_and_refreshes_first_and_garbage_does_not_deafen_it(driver, keys, connected):
    heard, refreshed = [], []

    async def main():
        own = connected(Control.BLOCK_MS / 1000 + 5)

        async def refresh():
            refreshed.append(len(heard))

        control = Control(own, keys, lambda event, value: heard.append((event, value)), refresh)
        listening = asyncio.create_task(control.run())
        await await_until(lambda: refreshed, "it looked at what there is")
        driver.run(plain("XADD", keys.control, "*", "what", "ever"))
        driver.run(plain("XADD", keys.control, "*", "e", b"\xff", "v", "x"))
        seed(driver, keys, body_of("t"))
        await await_until(lambda: ("lane", "1:") in heard, lambda: f"it heard of the lane: {heard}")
        own.drop("test")
        await await_until(lambda: len(refreshed) == 2, "it looked again after the break")
        driver.run(plain("XADD", keys.control, "*", "e", "cancel", "v", "id"))
        await await_until(lambda: ("cancel", "id") in heard, lambda: f"it hears again: {heard}")
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await own.close()

    asyncio.run(main())
    assert refreshed[0] == 0


@asynccontextmanager
async def keeping(keys, connected, config=CONFIG):
    keeper = Keeper(keys.namespace, config, [keys.queue], connected, "supervisor")
    await keeper.start()
    try:
        yield keeper
    finally:
        await keeper.stop()


def test_a_lane_that_is_told_of_while_a_list_is_on_its_way_is_kept(keys, connected):
    async def main():
        async with keeping(keys, connected) as keeper:
            (queue,) = keeper.queues
            asked = asyncio.create_task(keeper._refresh(queue))
            await asyncio.sleep(0)  # it is asked for, and the answer is of before the lane was made
            keeper._heard(queue, "lane", "1:")
            await asked
            kept = list(queue.lanes)
            await keeper._refresh(queue)
            return kept, queue.lanes

    assert asyncio.run(main()) == (["1:"], [])


def test_a_keeper_keeps_its_members_alive_and_tells_them_everything(driver, keys, connected):
    member = FakeMember("member")

    async def main():
        async with keeping(keys, connected) as keeper:
            await keeper.add(member, b"{}")
            assert keeper.is_beating
            driver.run(plain("PEXPIRE", keys.alive("member"), 300))
            await await_until(lambda: driver.run(plain("PTTL", keys.alive("member"))) > 300, "it beats")
            seed(driver, keys, body_of("t"), lane="2:gpu")
            await await_until(
                lambda: ("lanes", "default", ("2:gpu",), 1) in member.told, lambda: f"lanes: {member.told}"
            )
            (delivery,) = read(driver, keys, "other", lane="2:gpu")
            driver.run(scripts.release(keys, "2:gpu", "other", [(delivery.entry, delivery.count)]))
            await await_until(
                lambda: ("returned", "default", "2:gpu") in member.told, lambda: f"returned: {member.told}"
            )
            driver.run(plain("XADD", keys.control, "*", "e", "cancel", "v", "some-id"))
            await await_until(lambda: ("cancel", "default", ("some-id",)) in member.told, "cancel")
            driver.run(plain("XADD", keys.control, "*", "e", "terminate", "v", "some-id"))
            await await_until(lambda: ("terminate", "default", ("some-id",)) in member.told, "terminate")
            seed(driver, keys, body_of("t", 2), lane="2:gpu", due_at_ms=1)
            driver.run(plain("XADD", keys.control, "*", "e", "due", "v", "1"))
            await await_until(lambda: driver.run(plain("ZCARD", keys.due)) == 0, "the promoter was woken")
            assert await keeper.remove(member, mode="leave") == 0
            assert driver.run(plain("EXISTS", keys.alive("member"))) == 0
            assert driver.run(plain("HLEN", keys.consumers)) == 0
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_who_comes_later_is_told_what_was_cancelled_before_and_which_runs_are_to_be_ended(driver, keys, connected):
    member = FakeMember("member")
    driver.run(plain("HSET", keys.cancelled, "marked", "me", "ended", "me terminate"))

    async def main():
        async with keeping(keys, connected) as keeper:
            await keeper.add(member, b"{}")
            cancelled = {one for kind, *rest in member.told if kind == "cancel" for one in rest[1]}
            assert cancelled == {"marked", "ended"}
            assert ("terminate", "default", ("ended",)) in member.told
            assert ("terminate", "default", ("marked",)) not in member.told
            await keeper.remove(member, mode="leave")

    asyncio.run(main())
    driver.run(plain("DEL", keys.cancelled))


@pytest.mark.parametrize(("mode", "crashes"), [("dead", {"first": "1,0,boom"}), ("leave", {})])
def test_a_member_that_ends_hands_over_what_it_had_and_only_what_had_started_is_blamed(
    driver, keys, connected, mode, crashes
):
    seed(driver, keys, *(body_of("t", n) for n in range(250)))
    first = read(driver, keys, "member")[0]
    member = FakeMember("member")
    places = {f"1:/{first.entry.decode()}": "first"}

    async def main():
        async with keeping(keys, connected) as keeper:
            await keeper.add(member, b"{}")
            started = {"default": [("1:", first.entry)]} if mode == "dead" else {}
            assert await keeper.remove(member, mode=mode, evidence="boom", started=started) == 250
            assert "member" not in keeper.members

    asyncio.run(main())
    assert {owner for owner, _ in owners(driver, keys).values()} == {"returned"}
    suspects = driver.run(plain("HGETALL", keys.suspects))
    found = {places[name.decode()]: value.decode() for name, value in zip(suspects[::2], suspects[1::2], strict=True)}
    assert found == crashes
    names = [row[1] for row in driver.run(plain("XINFO", "CONSUMERS", keys.lane("1:"), "workers"))]
    assert names == [b"returned"]
