"""A function's signature, made once per task into the encoders and decoders that fit it.

Arguments travel as one msgpack array, positional as far as they go, and a map of names for the rest. The first byte
of an array of up to 15 items tells its length and so picks the decoder: a call is one encode, one lookup, one decode.
"""

from __future__ import annotations

import enum
import functools
import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, NamedTuple, TypedDict

import msgspec

from streamwork.errors import ArgumentError, DecodeError, WireError
from streamwork.wire import codec
from streamwork.wire.annotations import describe, find_context, is_async
from streamwork.wire.returned import Returned

_Decode = Callable[[bytes], Any]
_Shape = tuple[int, tuple[str, ...]]  # how many positional arguments, which names

# msgpack: 0x90 | length of an array, 0x80 | length of a map, in one byte up to 15.
_FIXARRAY, _FIXMAP, _FIX_MAX, _NIL = 0x90, 0x80, 15, b"\xc0"
_SHAPES_MAX = 256  # with *args every count is a shape of its own
_NO_FILL: Any = object()
_split_array = codec.decoder(list[msgspec.Raw])
_split_map = codec.decoder(dict[str, msgspec.Raw])


def pack_call(args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[bytes, bytes | None]:
    """Encode the arguments of a task that is known by name only; nothing is checked before a worker decodes them.

    Raises:
        WireError: An argument has no stored form.
    """
    return codec.pack(tuple(args)), codec.pack(dict(kwargs)) if kwargs else None


class _Positional(NamedTuple):
    name: str
    hint: Any
    fill: Any  # what stands in a gap before a later argument, or _NO_FILL


class TaskSignature:
    """How one task's arguments and result are stored, checked and read back.

    Args:
        function: The task's body, plain or `async def`; decorated ones need `functools.wraps`.
        name: The task's name in error texts; None takes the function's.
        context_type: A parameter annotated with this class (plain, subscripted or optional) is no argument: `inject`
            gives it. None injects nothing.
        localns: Further names for annotations, such as the locals of the function that declares the task.

    Attributes:
        context_parameter: Name of the injected parameter, or None.
        shape: The parameters but that one, as `inspect` has them.
        is_async: Whether a call returns an awaitable.
        encode_result: Stores a result, checked by the return annotation; raises ResultTypeError or WireError.
        decode_result: Reads a result by the return annotation; raises DecodeError.

    Raises:
        ConfigError: An annotation cannot be resolved or stored, or the function is a generator.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        context_type: type | None = None,
        localns: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.is_async = is_async(function, self.name)
        parameters, result = describe(function, self.name, localns)
        self.context_parameter, self._context_index = find_context(parameters, context_type, self.name)
        parameters = [parameter for parameter in parameters if parameter.name != self.context_parameter]
        self.shape = inspect.Signature(parameters)
        self._read_parameters(parameters)
        returned = Returned(result, f"result of {self.name}")
        self.encode_result, self.decode_result = returned.encode, returned.decode
        self._complete: dict[int, _Decode] = {}  # first byte of the array → decoder of a call without names
        self._by_count: dict[int, _Decode] = {}
        self._shapes: set[_Shape] = set()  # known to fit
        self._orders: dict[_Shape, tuple[str, ...]] = {}  # how names given become positions

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bytes, bytes | None]:
        """Encode a call's arguments, after checking them with the decoder that the worker will use.

        Returns:
            A msgpack array of the positional arguments, and a map of the others or None if there are none.
            Arguments given by name become positional unless one before them is missing whose default has no plain
            form: then they keep their names, and the worker's function uses its own default.

        Raises:
            ArgumentError: They do not fit the signature, or one of them cannot be stored.
        """
        if kwargs and (order := self._orders.get((len(args), tuple(kwargs)))) is not None:
            args, kwargs = (*args, *[kwargs[name] for name in order]), {}
        if not kwargs:
            try:
                data = codec.fast_encode(args)
                self._complete[data[0]](data)
                return data, None
            except Exception:  # noqa: BLE001, S110 - whatever it was, the way below accepts it or says it better
                pass
        self._check_shape(args, kwargs)
        positional, named = self._arrange(args, kwargs)
        # Nothing was filled in and nothing kept its name: the next call of this shape need not be arranged.
        if kwargs and not named and len(positional) == len(args) + len(kwargs) and len(self._orders) < _SHAPES_MAX:
            names = tuple(parameter.name for parameter in self._positional[len(args) : len(positional)])
            self._orders[len(args), tuple(kwargs)] = names
        packed = self._pack(positional, named)
        self.decode(*packed)
        return packed

    def decode(
        self, args: bytes | msgspec.Raw, kwargs: bytes | msgspec.Raw | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read a call's arguments back, typed; parameters with defaults that were not given stay out.

        Args:
            args: A msgpack array.
            kwargs: A msgpack map; nil or None means no names. Positional parameters may stand in it too, as in
                messages sent by name without importing the task.

        Raises:
            ArgumentError: They do not fit the signature.
            DecodeError: The bytes are not msgpack, or not an array and a map of names.
        """
        if args.__class__ is not bytes:
            args = bytes(args)
        try:
            if kwargs is None or (kwargs := bytes(kwargs)) == _NIL:
                return self._complete[args[0]](args), {}
            named = self._decode_named(kwargs)
            count = args[0] - _FIXARRAY
            # The decoder of names skips those it does not know: then the lengths differ.
            if kwargs[0] - _FIXMAP == len(named) and (count, tuple(named)) in self._shapes:
                return self._by_count[count](args), named
        except Exception:  # noqa: BLE001, S110 - as in encode
            pass
        return self._decode_checked(args, kwargs)

    def inject(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], context: object
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return decoded arguments with the context in its place; unchanged if the function takes none."""
        name, index = self.context_parameter, self._context_index
        if name is None:
            return args, kwargs
        if index is None or len(args) < index:
            return args, {**kwargs, name: context}
        return (*args[:index], context, *args[index:]), kwargs

    def _read_parameters(self, parameters: Sequence[inspect.Parameter]) -> None:
        self._positional: list[_Positional] = []
        self._index: dict[str, int] = {}  # positional parameters that may be given by name
        self._by_name: dict[str, _Decode] = {}
        self._named_hints: dict[str, Any] = {}
        self._rest_name, self._rest_hint, self._rest_named = "", None, codec.decoder(Any)
        self._open_names = False
        for parameter in parameters:
            hint = codec.storable(parameter.annotation, f"parameter {parameter.name!r} of {self.name}")
            decode = codec.decoder(hint)
            if parameter.kind is parameter.VAR_POSITIONAL:
                self._rest_name, self._rest_hint = parameter.name, hint
            elif parameter.kind is parameter.VAR_KEYWORD:
                self._rest_named, self._open_names = decode, True
            else:
                if parameter.kind is not parameter.POSITIONAL_ONLY:
                    self._by_name[parameter.name], self._named_hints[parameter.name] = decode, hint
                if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                    self._index[parameter.name] = len(self._positional)
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    self._positional.append(_Positional(parameter.name, hint, _fill(parameter.default, decode)))

    def _check_shape(self, args: Sized, kwargs: Mapping[str, Any]) -> None:
        shape = (len(args), tuple(kwargs))
        if shape in self._shapes:
            return
        try:
            if self.context_parameter in kwargs:
                raise TypeError(f"got an unexpected keyword argument {self.context_parameter!r}")
            self.shape.bind(*range(len(args)), **kwargs)
        except TypeError as error:
            raise ArgumentError(
                f"{self.name}() {error}{self._strangers(kwargs, str(error))}; it takes {self.shape}"
            ) from None
        # Names of one's own choosing must not pile up in memory.
        if not self._open_names and len(self._shapes) < _SHAPES_MAX:
            self._shapes.add(shape)

    def _strangers(self, kwargs: Mapping[str, Any], said: str) -> str:
        """Name what is not a parameter, beside what Python found first."""
        names = [name for name in kwargs if name not in self._by_name and repr(name) not in said]
        if self._open_names or not names:
            return ""
        return f", and there is no {', '.join(map(repr, names))}"

    def _arrange(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Move arguments given by name to their positions, as far as the gaps before them can be filled."""
        named = dict(kwargs)
        values = list(args)
        last = max((self._index.get(name, -1) for name in named), default=-1)
        for parameter in self._positional[len(args) : last + 1]:
            given = parameter.name in named and parameter.name in self._index
            value = named.pop(parameter.name) if given else parameter.fill
            if value is _NO_FILL:
                break
            values.append(value)
        return tuple(values), named

    def _pack(self, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[bytes, bytes | None]:
        try:
            return codec.fast_encode(positional), codec.fast_encode(named) if named else None
        except Exception:
            for label, value in [*((self._label(i), item) for i, item in enumerate(positional)), *named.items()]:
                try:
                    codec.pack(value)
                except WireError as error:
                    raise ArgumentError(f"argument {label!r} of {self.name}: {error}") from error
            raise

    @functools.cached_property
    def _decode_named(self) -> _Decode:
        """One decoder for any of the parameters that may be given by name."""
        return codec.decoder(TypedDict("Named", self._named_hints, total=False))  # type: ignore[operator]

    def _decode_checked(self, args: bytes, kwargs: bytes | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        items = self._read(_split_array, args, None)
        named = {} if kwargs in (None, _NIL) else self._read(_split_map, kwargs, None)
        self._check_shape(items, named)
        count = len(items)
        if count <= _FIX_MAX:
            decode = self._tuple_decoder(count)
            if not named:
                self._complete[_FIXARRAY | count] = decode
        return self._decode_positional(items), {
            name: self._read(self._by_name.get(name, self._rest_named), raw, name) for name, raw in named.items()
        }

    def _tuple_decoder(self, count: int) -> _Decode:
        decode = self._by_count.get(count)
        if decode is None:
            hints = [parameter.hint for parameter in self._positional[:count]]
            hints += [self._rest_hint] * (count - len(hints))
            decode = self._by_count[count] = codec.decoder(tuple[tuple(hints)])  # type: ignore[misc]
        return decode

    def _decode_positional(self, items: list[msgspec.Raw]) -> tuple[Any, ...]:
        fixed = len(self._positional)
        if len(items) <= max(fixed, _FIX_MAX):
            return tuple(self._read(self._tuple_decoder(len(items)), _join(items), 0))
        head = self._read(self._tuple_decoder(fixed), _join(items[:fixed]), 0)
        rest = codec.decoder(tuple[self._rest_hint, ...])  # type: ignore[name-defined]
        return (*head, *self._read(rest, _join(items[fixed:]), fixed))

    def _read(self, decode: _Decode, data: bytes, place: int | str | None) -> Any:
        """Decode; `place` says what the data is: a parameter's name, the first of several, or the whole."""
        try:
            return decode(data)
        except Exception as error:  # __post_init__ and validators are the user's code
            path, text = codec.explain(error)
            if place is None or type(error) in (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise DecodeError(f"arguments of {self.name}: {text}") from error
            if isinstance(place, str):
                place = place + path
            elif found := re.match(r"\[(\d+)\](.*)", path, re.DOTALL):
                place = self._label(place + int(found[1])) + found[2]
            else:
                raise ArgumentError(f"arguments of {self.name}: {text}") from error
            raise ArgumentError(f"argument {place!r} of {self.name}: {text}") from error

    def _label(self, index: int) -> str:
        fixed = len(self._positional)
        return self._positional[index].name if index < fixed else f"{self._rest_name}[{index - fixed}]"


def _fill(default: Any, decode: _Decode) -> Any:
    """Return a default that may be stored in its place: an immutable value that reads back as itself."""
    if type(default) in (types.NoneType, bool, int, float, str, bytes) or isinstance(default, enum.Enum):
        try:
            if decode(codec.pack(default)) == default:
                return default
        except Exception:  # noqa: BLE001, S110 - it is not of its parameter's type; the function's own affair
            pass
    return _NO_FILL


def _join(items: Sequence[msgspec.Raw]) -> bytes:
    """Put encoded items back into one array."""
    count = len(items)
    head = bytes((_FIXARRAY | count,)) if count <= _FIX_MAX else b"\xdd" + count.to_bytes(4, "big")
    return head + b"".join(items)
