"""What a task's function says about itself: name, resolved annotations, its kind, where its context goes."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Never,
    NoReturn,
    ParamSpecArgs,
    ParamSpecKwargs,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from streamwork.errors import ConfigError

_MAINS = ("__main__", "__mp_main__")  # what is run, and what a spawned process of multiprocessing makes of it


def describe(
    function: Callable[..., Any], name: str, localns: Mapping[str, Any] | None
) -> tuple[list[inspect.Parameter], Any]:
    """Return the parameters with their annotations resolved, and the return annotation; Any where there is none.

    Raises:
        ConfigError: The function cannot be inspected, or an annotation names what is not known.
    """
    target: Any = function
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.isroutine(target) and not hasattr(target, "__annotations__"):
        target = type(target).__call__
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(target, localns=None if localns is None else dict(localns), include_extras=True)
    except NameError as error:
        raise ConfigError(_unresolved(target, name, error)) from error
    except Exception as error:  # annotations are the user's code
        raise ConfigError(f"{name} cannot be a task: {error}") from error
    parameters = [
        parameter.replace(annotation=_plain(hints.get(parameter.name, Any)))
        for parameter in signature.parameters.values()
    ]
    result = hints.get("return", Any)
    return parameters, None if result in (NoReturn, Never) else result


def is_async(function: Callable[..., Any], name: str) -> bool:
    """Tell whether calling the function gives an awaitable.

    Raises:
        ConfigError: It is a generator, which has no result to store.
    """
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the class's method is wanted, not a truth value
    for body in (function, call):
        if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
            raise ConfigError(f"{name} cannot be a task: it is a generator; return a list instead")
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def find_context(
    parameters: Sequence[inspect.Parameter], context_type: type | None, name: str
) -> tuple[str | None, int | None]:
    """Return the context parameter's name and its position, None for one that only goes by name.

    Raises:
        ConfigError: There are several, or the one cannot be given reliably.
    """
    found = [parameter for parameter in parameters if _takes(parameter.annotation, context_type)]
    if not found or context_type is None:
        return None, None
    parameter = found[0]
    if len(found) > 1:
        names = ", ".join(item.name for item in found)
        raise ConfigError(f"{name}: only one parameter can take the {context_type.__name__}, not {names}")
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise ConfigError(f"{name}: the {context_type.__name__} needs a plain parameter, not *{parameter.name}")
    if parameter.kind is parameter.KEYWORD_ONLY:
        return parameter.name, None
    index = parameters.index(parameter)
    if parameter.kind is parameter.POSITIONAL_ONLY and any(
        before.default is not before.empty for before in parameters[:index]
    ):
        # Without the optional ones before it, it has no position to be passed at.
        raise ConfigError(f"{name}: the positional-only {parameter.name!r} must come before parameters with defaults")
    return parameter.name, index


def default_name(function: Callable[..., Any]) -> str:
    """Return ``module.function``, with the module named as a worker imports it, however this program was started.

    Raises:
        ConfigError: It has no name of its own, as partials and callable instances.
    """
    try:
        module, name = function.__module__, function.__qualname__
    except AttributeError:
        raise ConfigError(f"{function!r} has no name of its own: give one with @app.task(name=...)") from None
    return f"{_module_name(module)}.{name}".replace("<locals>.", "")


def _plain(hint: Any) -> Any:
    """Return a usable annotation: `*args: P.args` of a decorator without wraps says nothing."""
    return Any if isinstance(hint, (ParamSpecArgs, ParamSpecKwargs)) else hint


def _takes(hint: Any, context_type: type | None) -> bool:
    if context_type is None:
        return False
    origin = get_origin(hint)
    if origin is Annotated:
        return _takes(get_args(hint)[0], context_type)
    if origin is Union or origin is types.UnionType:
        return any(_takes(member, context_type) for member in get_args(hint))
    class_ = origin or hint
    return isinstance(class_, type) and issubclass(class_, context_type)


def _unresolved(target: Any, name: str, error: NameError) -> str:
    missing = error.name or str(error)
    places = [
        "the return annotation" if parameter == "return" else f"the annotation of parameter {parameter!r}"
        for parameter, text in getattr(target, "__annotations__", {}).items()
        if isinstance(text, str) and re.search(rf"\b{re.escape(missing)}\b", text)
    ]
    where = places[0] if places else "an annotation"
    return (
        f"{name}: {where} names {missing!r}, which is not known in module {getattr(target, '__module__', '?')}: "
        "import or define it at module level, neither inside a function nor under TYPE_CHECKING"
    )


def _module_name(name: str) -> str:
    module = sys.modules.get(name)
    if name in _MAINS:
        spec = getattr(module, "__spec__", None)  # of python -m; a plain script has none
        name = "main" if spec is None else spec.name
    path = getattr(module, "__file__", None)
    if path is not None and "." not in name:
        name = _dotted(Path(path).absolute())
    return name.removesuffix(".__main__")


def _dotted(file: Path) -> str:
    # Inside a package a file has one name, whether it was run, or imported from within the folder or from above.
    parts, folder = [file.stem], file.parent
    while folder.name and (folder / "__init__.py").is_file():
        parts.append(folder.name)
        folder = folder.parent
    if parts[0] == "__init__" and len(parts) > 1:
        del parts[0]
    return ".".join(reversed(parts))
