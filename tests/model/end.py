"""The end of a schedule: no more faults, time runs on, and everything that was accepted must come to an end (P2)."""

from __future__ import annotations

from streamwork.store.keys import spec_of

# More than two steps of a clock: what a retry computed with one clock may be due that late by another.
_ROUNDS = 200
# A message that kills its process takes three of them, and a fourth to be set aside; the tenth would be another rule's.
_MORE_PROCESSES = 4
_must_expire = {}


def come_to_an_end(world, actions):
    """Let the world settle; says what is wrong in `world.broken`."""
    for party in (*world.hosts, *world.processes, *world.clients):
        party.wake()
    for process in world.processes:
        if process.host.is_dead and not process.is_dead:
            process.die()
    for driver in world.drivers.values():
        if driver.is_orphan:
            driver.sent.clear()
            driver.is_blocked = False
    world.skew_ms = 0
    most = max(8, len(world.processes) + _MORE_PROCESSES)
    for number in range(_ROUNDS):
        _calm(world, actions)
        if world.broken:
            return
        if _is_over(world):
            break
        _turn(world, actions, number, most)
    else:
        world.broken = f"P2: without an end: {world.server.call('unfinished')}"
    world.broken = world.broken or world.server.call("unowned", _has_ttl)


def _is_over(world):
    return (
        world.server.call("is_over")
        and not world.files
        and not any(client.is_sending for client in world.clients)
        and not any(p.settler.unsent for p in world.processes if not p.is_dead)
    )


def _calm(world, actions):
    """Let everything happen that waits for nothing but its turn."""
    for _ in range(200):
        world.loop.fire()
        if world.shape.ends_early and _is_over(world):
            return
        is_busy = False
        for driver in list(world.drivers.values()):
            if driver.answered or (driver.sent and not driver.is_blocked):
                actions.flush(driver)
                is_busy = True
        for number in range(len(world.hosts)):
            is_busy = actions.signal(number) or is_busy
        for number, process in enumerate(world.processes):
            if process.executors.running and not process.is_dead:
                is_busy = actions.end(number, 0, "S") or is_busy
            is_busy = actions.reap(number) or is_busy
        if world.server.wrong or world.broken:
            world.broken = world.broken or world.server.wrong
            return
        if not is_busy:
            return
    world.broken = "P2: it never comes to rest"


def _turn(world, actions, number, most):
    if not any(not host.is_dead for host in world.hosts):
        world.new_host()
    for host in world.hosts:
        needs_one = world.files or not any(process.serves_all for process in host.processes)
        if needs_one and not host.is_dead and len(world.processes) < most:
            host.fork(world.shape.all_tags)
    world.advance(1_250)
    for host in world.hosts:
        if host.is_dead:
            continue
        host.tick("beat")
        actions.flush(host.keeper.driver)
        for service in ("reaper", "promoter", "restorer") if number % 2 else ("reaper", "promoter"):
            host.tick(service)
        if number % 8 == 7:
            host.tick("maintainer")
    for process in world.processes:
        if not process.is_dead and world.may_audit(process):
            process.audit()


def _has_ttl(key):
    found = _must_expire.get(key, 0)
    if found == 0:
        spec = spec_of(key.decode())
        found = _must_expire[key] = None if spec is None else spec.owner == "expires"
    return found
