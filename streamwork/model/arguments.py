"""Arguments in their plain form with some of them changed, as people name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def changed(
    args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str], changes: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return arguments with some of them changed; what was not given before is given by name.

    Args:
        args, kwargs: As they are.
        names: Of the task's positional parameters; empty where it is not declared here.
        changes: By these names, or as ``arg0``, ``arg1``, … for positional ones.
    """
    new_args, new_kwargs = list(args), dict(kwargs)
    places = {name: at for at, name in enumerate(names)}
    for name, value in changes.items():
        at = places.get(name, int(name[3:]) if name.startswith("arg") and name[3:].isdecimal() else len(new_args))
        if at < len(new_args):
            new_args[at] = value
        else:
            new_kwargs[name] = value
    return new_args, new_kwargs
