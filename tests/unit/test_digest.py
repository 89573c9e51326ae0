"""Failures that came the same way share a digest, and no others."""

from __future__ import annotations

from streamwork.model.digest import digest_of
from streamwork.model.judge import decide


def inner(text, kind=ValueError):
    if text == "below":
        raise kind(text)
    raise kind(text)


def one(text, kind=ValueError):
    inner(text, kind)


def other(text):
    inner(text)


def digest(function, *args):
    try:
        function(*args)
    except Exception as error:
        return decide(error, 1, ()).digest
    raise AssertionError("it did not raise")


def test_text_and_line_do_not_count_and_the_way_and_the_class_do():
    first = digest(one, "order 7")
    assert len(first) == 12
    assert first == digest(one, "order 8") == digest(one, "below")
    assert len({first, digest(other, "order 7"), digest(one, "x", KeyError), digest_of("ValueError")}) == 4


def test_a_recursion_has_one_digest_however_deep():
    def down(depth):
        return down(depth - 1) if depth else inner("the end")

    assert digest(down, 50) == digest(down, 90)


def test_frames_of_streamwork_do_not_count():
    # The same body runs on a loop, in a thread or in a process of its own, and failed in the same way.
    namespace = {"one": one}
    exec(compile("def ours():\n    one('x')", digest_of.__code__.co_filename, "exec"), namespace)
    assert digest(namespace["ours"]) == digest(one, "x")
