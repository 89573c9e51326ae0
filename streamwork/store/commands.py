"""Operations on Redis as values: what to send and how to read the answer, without any input or output.

One `Command` serves both drivers, so nothing is written twice for sync and async. Every command made in this package
may be sent again after a lost reply, unless `resend` says otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import resources
from typing import Any, Generic, TypeVar

import hiredis

T = TypeVar("T")
Arg = str | bytes | int | float


class Script:
    """One Lua file of this package; its header documents KEYS, ARGV, Returns and why it must be atomic."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def source(self) -> bytes:
        """The file's text, preceded by the blocks it includes (``-- include: name``).

        Blocks that are joined by ``+`` wait in a function ``open_<first>``: to make 50 functions takes Redis longer
        than a small script that needs none of them.
        """
        return compose(self.name, _read).encode()

    @cached_property
    def sha(self) -> str:
        """What EVALSHA calls it."""
        return hashlib.sha1(self.source).hexdigest()  # noqa: S324 - Redis names scripts so

    def __repr__(self) -> str:
        return f"Script({self.name})"


def blocks_of(text: str) -> list[list[str]]:
    """Return the names of the blocks that a script's text includes; those that wait for `open_<first>` together."""
    return [line.partition(":")[2].strip().split("+") for line in text.splitlines() if line.startswith("-- include:")]


def compose(name: str, read: Callable[[str], str]) -> str:
    """Return a script with all that it includes; `read` finds a file's text by its name without `.lua`."""
    text = read(name)
    made = []
    for first, *rest in blocks_of(text):
        block = "\n".join(map(read, [first, *rest]))
        if rest:
            block = f"local {first}\nlocal function open_{first}()\n{block}\nreturn {first}\nend\n"
        made.append(block)
    return "\n".join([*made, text])


def _read(name: str) -> str:
    return (resources.files(__package__) / "lua" / f"{name}.lua").read_text()


# What a command answers has no value of its own that could say "raise instead".
RAISE: Any = object()


class Command(Generic[T]):
    """One request to Redis.

    Attributes:
        args: The whole request as Redis gets it.
        read: Turns the raw reply (bytes, ints, lists) into the answer.
        script: Set when the request is an EVALSHA, so that a driver can load it after NOSCRIPT.
        if_gone: The answer where the stream or its group does not exist; RAISE = that is an error.
    """

    __slots__ = ("args", "if_gone", "read", "script")

    def __init__(
        self, args: Sequence[Arg], read: Callable[[Any], T], script: Script | None = None, *, if_gone: Any = RAISE
    ) -> None:
        self.args = args
        self.read = read
        self.script = script
        self.if_gone = if_gone

    def __repr__(self) -> str:
        name = self.script.name if self.script else str(self.args[0])
        return f"Command({name}, {len(self.args)} args)"


def packed(commands: Sequence[Command[Any]]) -> bytes:
    """Return requests as they go over the wire, in one piece.

    redis-py's asyncio side packs in Python, which took a third of a worker's time; hiredis does it in C.
    """
    # Their stub says a tuple of one member and means any.
    return b"".join([hiredis.pack_command(tuple(command.args)) for command in commands])  # type: ignore[arg-type]


def raw(reply: Any) -> Any:
    """Read a reply as it is."""
    return reply


def plain(*args: Arg, read: Callable[[Any], Any] = raw, if_gone: Any = RAISE) -> Command[Any]:
    """Return a command that is not a script."""
    return Command(args, read, if_gone=if_gone)


def call_script(script: Script, keys: Sequence[str], args: Sequence[Arg], read: Callable[[Any], T]) -> Command[T]:
    """Return an EVALSHA of a script with its declared keys."""
    return Command(("EVALSHA", script.sha, len(keys), *keys, *args), read, script)
