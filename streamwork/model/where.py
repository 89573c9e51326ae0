"""A small language over the arguments of calls: ``order_id == 7 and (country != 'CH' or not urgent)``.

Operands are names of arguments (``address.city`` looks into a map), numbers, texts in quotes, true, false and null.
Between them stand ==, !=, <, <=, >, >=; comparisons are joined by and, or, not and parentheses. A name alone holds
where its value is not empty, zero, false or null. No comparison holds for a name that the call does not have; the
order of unlike things (a number and a text) never holds. Nothing is called and nothing evaluated as Python.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from streamwork.errors import WhereError

# A person writes a line; deeper nesting than this is a program's mistake, and would end in a RecursionError.
MOST_CHARACTERS, MOST_DEPTH = 1_000, 50

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?!\w))|(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<name>[^\W\d]\w*(?:\.\w+)*)|(?P<sign>==|!=|<=|>=|[<>()\-])|(?P<end>$))",
    re.DOTALL,
)
_CONSTANTS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_HINTS = {"=": "write == for equal", "&": "write and", "|": "write or", "!": "write not, or !="}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t"}
_MISSING: Any = object()

_Values = Mapping[str, Any]
_Read = Callable[[_Values], Any]


class Where:
    """A checked expression.

    Args:
        text: As written.

    Attributes:
        text: The same.
        names: The arguments that it asks for, without what stands behind a dot.

    Raises:
        WhereError: It is no expression of this language; the text says where.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text.strip():
            raise WhereError(f"where={text!r}: give an expression over arguments, such as 'order_id == 7'")
        if len(text) > MOST_CHARACTERS:
            raise WhereError(f"where: {len(text):,} characters, and {MOST_CHARACTERS:,} are the most")
        parser = _Parser(text)
        self.text = text
        self._holds = parser.whole()
        self.names = frozenset(parser.names)

    def __repr__(self) -> str:
        return f"Where({self.text!r})"

    def fits(self, values: Mapping[str, Any]) -> bool:
        """Return whether it holds for these arguments."""
        return _is_true(self._holds(values))


def named(positional: Iterable[Any], keywords: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return arguments by name: as the task names them, and positional ones as ``arg0``, ``arg1``, … too."""
    values = list(positional)
    found: dict[str, Any] = {f"arg{place}": value for place, value in enumerate(values)}
    found.update(zip(names, values, strict=False))
    found.update(keywords)
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self._depth = self._at = 0
        self._next()

    def _next(self) -> None:
        found = _TOKEN.match(self.text, self._at)
        if found is None:
            at = len(self.text) - len(self.text[self._at :].lstrip())
            self._start = at
            raise self._wrong(_HINTS.get(self.text[at], f"{self.text[at : at + 12]!r} has no meaning here"))
        self._kind, self._token = str(found.lastgroup), found[str(found.lastgroup)]
        self._start, self._at = found.start(str(found.lastgroup)), found.end()

    def _wrong(self, why: str) -> WhereError:
        return WhereError(
            f"where {self.text!r}, character {self._start + 1}: {why}; an expression has names of arguments, numbers, "
            "'texts', true, false and null, with ==, !=, <, <=, >, >=, and, or, not and parentheses"
        )

    def _takes(self, *tokens: str) -> str:
        """Go on behind one of these words or signs and return it; empty where another one stands."""
        token = self._token
        if self._kind in ("name", "sign") and token in tokens:
            self._next()
            return token
        return ""

    def whole(self) -> _Read:
        read = self._either()
        if self._kind != "end":
            raise self._wrong(f"{self._token!r} is one too many")
        return read

    def _either(self) -> _Read:
        parts = [self._both()]
        while self._takes("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda values: any(_is_true(part(values)) for part in parts)

    def _both(self) -> _Read:
        parts = [self._not()]
        while self._takes("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda values: all(_is_true(part(values)) for part in parts)

    def _not(self) -> _Read:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise self._wrong(f"nested deeper than {MOST_DEPTH}")
        if self._takes("not"):
            inner = self._not()
            read: _Read = lambda values: not _is_true(inner(values))  # noqa: E731
        else:
            read = self._comparison()
        self._depth -= 1
        return read

    def _comparison(self) -> _Read:
        left = self._operand()
        sign = self._takes("==", "!=", *_ORDERS)
        if not sign:
            return left
        right = self._operand()
        if sign == "==":
            return lambda values: _is_equal(left(values), right(values), wanted=True)
        if sign == "!=":
            return lambda values: _is_equal(left(values), right(values), wanted=False)
        compare = _ORDERS[sign]
        return lambda values: _is_ordered(compare, left(values), right(values))

    def _operand(self) -> _Read:
        kind, token = self._kind, self._token
        if self._takes("("):
            inner = self._either()
            if not self._takes(")"):
                raise self._wrong("a parenthesis is not closed")
            return inner
        is_negative = bool(self._takes("-"))
        if self._kind == "number":
            return _constant(self._number(is_negative))
        if is_negative or kind in ("end", "sign") or token in ("and", "or", "not"):
            raise self._wrong("an argument's name or a value is missing")
        self._next()
        if kind == "text":
            return _constant(_ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), token[1:-1]))
        if token in _CONSTANTS:
            return _constant(_CONSTANTS[token])
        return self._name(token)

    def _number(self, is_negative: bool) -> float:
        token = self._token
        self._next()
        value = int(token) if token.isdigit() else float(token)
        return -value if is_negative else value

    def _name(self, token: str) -> _Read:
        first, *rest = token.split(".")
        self.names.add(first)

        def read(values: _Values) -> Any:
            value = values.get(first, _MISSING)
            for part in rest:
                value = value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING
            return value

        return read


def _constant(value: Any) -> _Read:
    return lambda values: value


def _is_true(value: Any) -> bool:
    return value is not _MISSING and bool(value)


def _is_equal(left: Any, right: Any, *, wanted: bool) -> bool:
    if left is _MISSING or right is _MISSING:
        return False
    # To Python True is 1; who writes `urgent == 1` asks for a number.
    is_equal = isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
    return is_equal is wanted


def _is_ordered(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    is_number = all(isinstance(side, (int, float)) and not isinstance(side, bool) for side in (left, right))
    return (is_number or (isinstance(left, str) and isinstance(right, str))) and compare(left, right)
