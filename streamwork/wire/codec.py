"""Values to msgpack and back to the annotated types.

msgspec does the work; this module adds what it lacks (paths, complex numbers, IP addresses, subclasses of the
built-in scalars, pydantic models), refuses unusable annotations when they are declared, and words the errors.

What travels is the plain form: a set is an array and a dataclass a map, so only a typed reader gets them back.
Reading is strict: an int may stand for a float, a str never for an int.
"""

from __future__ import annotations

import collections.abc
import ipaddress
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

import msgspec
import msgspec.inspect

from streamwork.errors import ConfigError, DecodeError, WireError

_REMEDY = "use built-in types, a dataclass, a msgspec.Struct or a pydantic model"

# Classes whose str() is the whole value and whose constructor takes it back.
_TEXT_TYPES = (
    PurePath,
    complex,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
)
_SCALARS = (str, int, float, bytes)
_CONTAINERS = (
    list,
    set,
    frozenset,
    tuple,
    dict,
    collections.abc.Sequence,
    collections.abc.Collection,
    collections.abc.Set,
    collections.abc.Mapping,
)


def pack(value: object) -> bytes:
    """Encode a value as msgpack.

    Raises:
        WireError: The value, or something inside it, has no stored form; the text names the class and the remedy.
    """
    try:
        return fast_encode(value)
    except Exception as error:  # model_dump and properties are the user's code and raise what they like
        raise _unstorable(error, value) from error


def unpacker(hint: Any, what: str = "value") -> Callable[[bytes], Any]:
    """Build the function that reads one value of an annotated type.

    Args:
        hint: Any annotation with its names resolved; `Any` gives the plain form.
        what: What is read, for error texts.

    The returned function raises DecodeError, naming the field, for bytes that are malformed or of another type.

    Raises:
        ConfigError: No value of this type can be stored.
    """
    decode = decoder(storable(hint, what))

    def unpack(data: bytes) -> Any:
        try:
            return decode(data)
        except Exception as error:  # __post_init__ and validators are the user's code
            path, text = explain(error)
            raise DecodeError(f"{what}{path}: {text}") from error

    return unpack


def decoder(hint: Any) -> Callable[[bytes], Any]:
    """Build the bare msgspec decoder of a type that `storable` returned, or of a tuple of such types."""
    return msgspec.msgpack.Decoder(hint, dec_hook=_rebuild).decode


def storable(hint: Any, what: str) -> Any:
    """Return the annotation in the form that `decoder` takes.

    Raises:
        ConfigError: No value of this type can be stored; the text begins with `what`.
    """
    try:
        hint = _adapt(hint)
        msgspec.msgpack.Decoder(hint, dec_hook=_rebuild)
        custom = list(_custom_types(msgspec.inspect.type_info(hint), set()))
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error
    except Exception as error:  # msgspec raises TypeError, NameError and what the annotation itself raises
        raise ConfigError(f"{what}: its annotation cannot be used: {error}") from error
    for class_ in custom:
        if problem := _class_problem(class_):
            raise ConfigError(f"{what}: {problem}")
    return hint


def explain(error: Exception) -> tuple[str, str]:
    """Split what a decoder raised into the place (`[1].lines[0]`, may be empty) and a plain text."""
    text = str(error)
    path = ""
    if isinstance(error, msgspec.ValidationError):
        if found := re.fullmatch(r"(.*) - at (`key` in )?`\$(.*?)`", text, re.DOTALL):
            text = found[1] + (" (as a key)" if found[2] else "")
            path = found[3]
    elif isinstance(error, msgspec.DecodeError):
        text = f"malformed msgpack ({text})"
    else:
        text = f"{type(error).__name__}: {text}"
    if text.startswith("Expected "):
        text = text.replace("`", "")
    if text.startswith(("Expected ", "Invalid ", "Object ")):
        text = text[0].lower() + text[1:].replace("`", "'")
    return path, text


class _Unchecked(type):
    """Lets msgspec accept any member of a union where it insists on an instance of the class standing for it."""

    def __instancecheck__(cls, instance: object) -> bool:
        return True


class _TextUnion(metaclass=_Unchecked):
    """Stands for a union with paths or the like in it, which msgspec does not take.

    A str goes to the first member, as written, that accepts it: `Path | str` gives a Path, `str | Path` a str.
    """

    members: ClassVar[tuple[Any, ...]]
    others: ClassVar[Any]

    @classmethod
    def read(cls, value: object) -> object:
        """Convert a plain value to one of the members; raise ValueError if none takes it."""
        for member in cls.members if isinstance(value, str) else (cls.others,):
            try:
                return msgspec.convert(value, member, dec_hook=_rebuild)
            except msgspec.ValidationError:
                continue
        raise ValueError(f"Expected `{cls.__name__}`, got `{_wire_name(value)}`")


def _adapt(hint: Any) -> Any:
    """Rewrite what msgspec does not know into what it does."""
    if hint is object:
        return Any
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return Annotated[(_adapt(inner[0]), *inner[1:])]
    if origin is Union or origin is types.UnionType:
        return _adapt_union(tuple(map(_adapt, inner)))
    if collections.abc.Iterable in (origin, hint):
        return list[_adapt(inner[0])] if inner else list  # type: ignore[misc]
    if origin in _CONTAINERS and inner:
        return origin[tuple(map(_adapt, inner))]
    return hint


def _adapt_union(members: tuple[Any, ...]) -> Any:
    texts = [member for member in members if isinstance(member, type) and issubclass(member, _TEXT_TYPES)]
    others = [member for member in members if member not in texts]
    if not texts or (len(texts) == 1 and others in ([], [types.NoneType])):
        return Union[members]  # noqa: UP007 - built from a tuple
    rest = Union[tuple(others)] if others else types.NoneType  # noqa: UP007
    storable(rest, "in the union")
    name = " | ".join(member.__name__ if isinstance(member, type) else str(member) for member in members)
    return _Unchecked(name, (_TextUnion,), {"members": members, "others": rest})


def _custom_types(node: object, seen: set[int]) -> Iterator[type]:
    """Yield the classes inside a type that msgspec leaves to our hooks; types may contain themselves."""
    if isinstance(node, msgspec.inspect.CustomType):
        yield node.cls
    elif isinstance(node, tuple):
        for item in node:
            yield from _custom_types(item, seen)
    elif isinstance(node, (msgspec.inspect.Type, msgspec.inspect.Field)) and id(node) not in seen:
        seen.add(id(node))
        for name in node.__struct_fields__:
            yield from _custom_types(getattr(node, name), seen)


def _class_problem(class_: type) -> str | None:
    if class_ is object or issubclass(class_, (_TextUnion, *_TEXT_TYPES, *_SCALARS)):
        return None
    if _is_model(class_):
        if hasattr(class_, "model_validate") and _pydantic_version() >= (2, 11):
            return None
        return f"{class_.__name__} needs pydantic 2.11 or newer"
    return f"values of class {class_.__name__} cannot be stored: {_REMEDY}"


def _plain(value: Any) -> Any:
    """Turn what msgspec cannot encode into what it can (its `enc_hook`)."""
    if isinstance(value, _TEXT_TYPES):
        return str(value)
    if _is_model(type(value)):
        return value.model_dump(mode="python", round_trip=True)
    # Unbound, so that an overriding __str__ or __int__ cannot change the value.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, bytes):
        return bytes(memoryview(value))
    if type(value).__module__ == "pydantic.networks" and hasattr(value, "unicode_string"):
        return value.unicode_string()
    raise WireError(f"a value of class {type(value).__qualname__} cannot be stored: {_REMEDY}")


def _rebuild(class_: Any, value: Any) -> Any:
    """Turn a plain value into a class that msgspec does not know (its `dec_hook`)."""
    if class_ is object:
        return value
    if issubclass(class_, _TextUnion):
        return class_.read(value)
    if _is_model(class_):
        return _validate_model(class_, value)
    wanted = str if issubclass(class_, _TEXT_TYPES) else next(base for base in _SCALARS if issubclass(class_, base))
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise ValueError(f"Expected `{wanted.__name__}`, got `{_wire_name(value)}`")
    return class_(value)


def _validate_model(class_: Any, value: object) -> Any:
    try:
        # Stored under field names; a caller by name may write the aliases.
        return class_.model_validate(value, by_name=True, by_alias=True)
    except ValueError as error:
        details = getattr(error, "errors", None)
        if details is None:
            raise
        lines = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ") for item in details())
        raise ValueError(f"not a valid {class_.__name__}: {'; '.join(lines)}") from error


def _is_model(class_: type) -> bool:
    """Tell pydantic models; a program that never imported pydantic has none."""
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return base is not None and issubclass(class_, base)


def _pydantic_version() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", sys.modules["pydantic"].VERSION)[:2])


def _wire_name(value: object) -> str:
    return {list: "array", dict: "object", type(None): "None"}.get(type(value), type(value).__name__)


def _unstorable(error: Exception, value: object) -> WireError:
    if isinstance(error, WireError):
        return error
    if isinstance(error, OverflowError) and "serialize ints" in str(error):
        return WireError("an integer beyond 64 bits cannot be stored: pass it as a str or a Decimal")
    if isinstance(error, UnicodeEncodeError):
        return WireError("text with lone surrogates is not valid UTF-8 and cannot be stored: pass bytes")
    if isinstance(error, RecursionError):
        return WireError("a value that is nested too deeply, or contains itself, cannot be stored")
    return WireError(f"a value of class {type(value).__qualname__} cannot be stored: {type(error).__name__}: {error}")


# The bare encoder, for callers that word their own errors.
fast_encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
