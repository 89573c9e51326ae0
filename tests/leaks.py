"""What a test may not leave in Redis: keys without a TTL or an owner, and members of messages that have ended."""

from __future__ import annotations

from streamwork.model.state import State
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys, queues, spec_of
from streamwork.testing.plugin import scan
from streamwork.wire.message import decode_journal


def leaked(driver, namespace):
    """Return one line for each thing that stays without a reason."""
    found, names, broken = [], set(), set()
    keys = sorted({key for batch in scan(driver, namespace) for key in batch} - {queues(namespace)})
    told = iter(driver.run_all([plain(command, key) for key in keys for command in ("PTTL", "TYPE")]))
    for key, ttl_ms, kind in zip(keys, told, told, strict=True):
        names.add(key.partition("}")[0].partition(":")[2])
        if ttl_ms == -2:
            continue  # it expired since the scan
        spec = spec_of(key)
        if spec is None:
            found.append(f"{key}: not in streamwork/store/keys.py")
        elif ttl_ms == -1 and spec.owner == "expires":
            found.append(f"{key}: no TTL ({spec.freed_by})")
        elif kind.decode() not in (spec.kind, "none"):
            found.append(f"{key}: a {kind.decode()} where keys.py says {spec.kind}")
            broken.add(key.partition("}")[0].partition(":")[2])  # its members cannot be read
    for name in sorted(names - broken - {""}):  # those of the namespace belong to no queue
        found += left_of_ended(driver, QueueKeys(namespace, name))
    return found


def held(driver, keys):
    """Return what limits still hold of a queue in which everything has ended."""
    names = ("flow", "permits", "parked", "parked_body", "turns")
    sizes = {name: driver.run(plain("EXISTS", getattr(keys, name))) for name in names}
    owned = driver.run(plain("HVALS", keys.unique))
    found = [f"{getattr(keys, name)}: nobody is left, and something is held" for name in names if sizes[name]]
    return found + [f"{keys.unique}: {owner.decode()} has ended" for owner in owned if owner.endswith(b" 0")]


def left_of_ended(driver, keys):
    """Return the members that belong to messages which will not run again."""
    last, entries = {}, set()
    for _, fields in driver.run(plain("XRANGE", keys.journal, "-", "+")):
        record = decode_journal(fields[1])
        last[record.id] = record.state
        entries.add(f"{record.lane}/{record.entry.decode()}")
    ended = {task_id for task_id, state in last.items() if state in {s.value for s in State if s.is_end}}
    found = []
    for hash_name in ("due_body", "moved", "cancelled", "flow", "parked_body"):
        left = {name.decode() for name in driver.run(plain("HKEYS", getattr(keys, hash_name)))}
        key = getattr(keys, hash_name)
        found += [f"{key}: {task_id} has ended ({last[task_id]})" for task_id in sorted(left & ended)]
    due = {name.decode() for name in driver.run(plain("ZRANGE", keys.due, 0, -1))}
    found += [f"{keys.due}: {task_id} has ended ({last[task_id]})" for task_id in sorted(due & ended)]
    for key in (keys.suspects, keys.kept):
        places = {name.decode() for name in driver.run(plain("HKEYS", key))}
        found += [f"{key}: {place} was settled" for place in sorted(places & entries)]
    for index, bodies in ((keys.due, keys.due_body), (keys.dead, keys.dead_body)):
        one = set(driver.run(plain("ZRANGE", index, 0, -1)))
        other = set(driver.run(plain("HKEYS", bodies)))
        found += [f"{index} and {bodies} differ in {task_id.decode()}" for task_id in sorted(one ^ other)]
    return found
