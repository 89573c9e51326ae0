"""finish.lua: the block that frees what a message owned, run here by a script that includes nothing else."""

from __future__ import annotations

import itertools

import pytest

from streamwork.store.commands import Script, call_script, plain

OWNED = ("moved", "suspects", "cancelled", "kept")


class Finishing(Script):
    """`finish` with its flags as they come."""

    @property
    def source(self):
        return super().source + (
            b"\nfinish({moved = KEYS[1], suspects = KEYS[2], cancelled = KEYS[3], kept = KEYS[4]},"
            b" ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4] == '1', ARGV[5] == '1', ARGV[6] == '1')"
        )


FINISHING = Finishing("finish")


def finish(driver, keys, *flags):
    """Run the block for the message `a` at the place `1:/1-1`, with the flags moved, suspect, marked, kept."""
    driver.run(plain("SCRIPT", "LOAD", FINISHING.source))
    names = [getattr(keys, name) for name in OWNED]
    driver.run(call_script(FINISHING, names, ("a", "1:/1-1", *map(int, flags)), lambda reply: reply))


@pytest.fixture
def owned(driver, keys):
    """Let two messages own something in every hash."""
    for name, fields in zip(OWNED, (("a", "b"), ("1:/1-1", "1:/1-2")) * 2, strict=True):
        for field in fields:
            driver.run(plain("HSET", getattr(keys, name), field, "x"))


@pytest.mark.parametrize("flags", list(itertools.product((False, True), repeat=4)), ids=str)
def test_what_the_flags_name_is_freed_and_nothing_else(driver, keys, owned, flags):
    finish(driver, keys, *flags)
    left = {name: sorted(driver.run(plain("HKEYS", getattr(keys, name)))) for name in OWNED}
    mine = {"moved": b"a", "suspects": b"1:/1-1", "cancelled": b"a", "kept": b"1:/1-1"}
    others = {"moved": b"b", "suspects": b"1:/1-2", "cancelled": b"b", "kept": b"1:/1-2"}
    for name, is_freed in zip(OWNED, flags, strict=True):
        assert left[name] == ([others[name]] if is_freed else [mine[name], others[name]])


def test_a_message_that_owns_nothing_is_no_error(driver, keys):
    finish(driver, keys, True, True, True, True)
    assert [driver.run(plain("EXISTS", getattr(keys, name))) for name in OWNED] == [0, 0, 0, 0]
