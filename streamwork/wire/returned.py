"""What a task returns: stored, checked against the return annotation where it runs, and read back."""

from __future__ import annotations

import types
from typing import Any

from streamwork.errors import ResultTypeError, WireError
from streamwork.wire import codec

# A value of exactly such a class needs no look at its bytes: whatever is in it fits.
_PLAIN = frozenset({str, int, float, bool, bytes, list, dict, types.NoneType})


class Returned:
    """The result of one task.

    Args:
        hint: The return annotation, resolved.
        what: What it is called in error texts.

    Attributes:
        decode: Reads a result; raises DecodeError.

    Raises:
        ConfigError: No value of this type can be stored.
    """

    __slots__ = ("_check", "_exact", "_what", "decode")

    def __init__(self, hint: Any, what: str) -> None:
        self.decode = codec.unpacker(hint, what)
        self._what = what
        self._exact = types.NoneType if hint is None else hint if isinstance(hint, type) and hint in _PLAIN else None
        # Whoever reads it would find out too, but not that the task is to blame; and nobody may read it.
        self._check = None if hint is Any or hint is object else codec.decoder(codec.storable(hint, what))

    def encode(self, value: object) -> bytes:
        """Encode what the task returned.

        Raises:
            ResultTypeError: It is not of the annotated type; the text names the place in it.
            WireError: It has no stored form.
        """
        try:
            data = codec.pack(value)
        except WireError as error:
            raise WireError(f"{self._what}: {error}") from error
        if self._check is None or type(value) is self._exact:
            return data
        try:
            self._check(data)
        except Exception as error:  # __post_init__ and validators are the user's code
            path, text = codec.explain(error)
            remedy = "correct the value or the return annotation"
            raise ResultTypeError(f"{self._what}{path}: {text}: {remedy}") from error
        return data
