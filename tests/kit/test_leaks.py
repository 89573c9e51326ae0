"""The fixture that watches the others: what it finds, and that it finds nothing where all is in order."""

from __future__ import annotations

import pytest

from streamwork.store.commands import plain
from streamwork.store.keys import KEYS, QueueKeys, spec_of
from streamwork.testing import run_until_idle
from tests.helpers import body_of, seed
from tests.leaks import leaked


@pytest.fixture
def keys(namespace):
    return QueueKeys(namespace, "default")


@pytest.fixture
def ended(app):
    """The id of a task message that has ended."""

    @app.task
    async def noop() -> None: ...

    handle = noop.enqueue()
    run_until_idle(app)
    return handle.id


def test_nothing_is_found_after_ordinary_use(driver, namespace, keys, ended):
    seed(driver, keys, body_of("later"), due_at_ms=9_999_999_999_999)
    assert leaked(driver, namespace) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (lambda k, _: ("SET", f"{k.tag}:novelty", "1"), "not in streamwork/store/keys.py"),
        (lambda k, _: ("SET", k.alive("x"), "1"), "no TTL"),
        (lambda k, _: ("SET", k.result("x"), "1"), "no TTL"),
        (lambda k, _: ("SADD", k.moved, "1"), "a set where keys.py says hash"),
        (lambda k, i: ("HSET", k.moved, i, "1:\n1-0"), "has ended (succeeded)"),
        (lambda k, i: ("HSET", k.cancelled, i, "me"), "has ended (succeeded)"),
        (lambda k, _: ("HSET", k.suspects, "1:/1-0", "1,0,x"), None),
        (lambda k, i: ("ZADD", k.due, "5", i), "has ended (succeeded)"),
        (lambda k, _: ("ZADD", k.dead, "5", "x"), "differ in x"),
        (lambda k, _: ("HSET", k.due_body, "x", "b"), "differ in x"),
    ],
)
def test_what_stays_without_a_reason_is_found(driver, namespace, keys, ended, command, words):
    asked = command(keys, ended)
    driver.run(plain(*asked))
    found = leaked(driver, namespace)
    driver.run(plain("DEL", asked[1]))
    if words is None:
        assert found == []
    else:
        assert any(words in line for line in found), found


def test_a_suspicion_of_a_settled_entry_is_found(driver, namespace, keys, ended):
    ((entry, _),) = driver.run(plain("XRANGE", keys.lane("1:"), "-", "+"))
    driver.run(plain("HSET", keys.suspects, f"1:/{entry.decode()}", "1,0,x"))
    found = leaked(driver, namespace)
    driver.run(plain("DEL", keys.suspects))
    assert found == [f"{keys.suspects}: 1:/{entry.decode()} was settled"]


def test_every_key_that_the_code_can_name_is_in_the_table(keys):
    fixed = {name: getattr(keys, name) for name in keys.__slots__ if name not in {"namespace", "queue", "tag"}}
    fixed["result_prefix"] += "x"
    methods = [name for name, value in vars(QueueKeys).items() if callable(value) and not name.startswith("_")]
    made = [getattr(keys, name)("1:gpu") for name in methods]
    assert len(made) > 5
    specs = [spec_of(key) for key in [*fixed.values(), *made]]
    assert None not in specs
    assert {spec.pattern for spec in specs} == {spec.pattern for spec in KEYS}
