"""Arguments that a method cannot take, whatever they are: told in Python's words, to callers here and elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from seqrpc.interface.description import MethodDescription, Parameter
from seqrpc.text import offered, shown

_MOST_LISTED: Final = 150  # characters of the list of parameters

_MOST_NAME: Final = 100  # characters of a name that somebody made up

_MOST_MISSING: Final = 5  # missing arguments that are named


def counts_of(method: MethodDescription) -> range:
    """Return how many arguments by position, and none by name, a method takes."""
    positional = [parameter for parameter in method.parameters if parameter.by_position]
    if any(parameter.is_required for parameter in method.parameters[len(positional) :]):
        return range(0)
    return range(sum(parameter.is_required for parameter in positional), len(positional) + 1)


def misfit(method: MethodDescription, count: int, names: Collection[str] = ()) -> str | None:
    """Return why a method cannot be called with such arguments, on one line; None if it can.

    Args:
        method: what is called.
        count: how many arguments are given by position.
        names: of those that are given by name; they may be whatever somebody made up.
    """
    reason = _reason(method.parameters, count, names, tells=not method.is_sensitive)
    return None if reason is None else f"{method.wire_name}({_listed(method.parameters)}) {reason}"


def _reason(parameters: Sequence[Parameter], count: int, names: Collection[str], *, tells: bool) -> str | None:
    positional = [parameter.name for parameter in parameters if parameter.by_position]
    if count > len(positional):
        return f"takes {_number(len(positional), 'argument')} by position, and got {count}"
    given, known = {*positional[:count]}, {parameter.name for parameter in parameters}
    for name in names:
        if name not in known and not tells:  # somebody may have put there what is secret
            return "got an unexpected argument"
        if name not in known:
            return f"got an unexpected argument '{shown(name, _MOST_NAME)}'{offered(name, known)}"
        if name in given:
            return f"got the argument {name!r} twice: by position and by name"
    required = [parameter.name for parameter in parameters if parameter.is_required]
    missing = [name for name in required if name not in given and name not in names]
    if not missing:
        return None
    shortened = ", ".join([*map(repr, missing[:_MOST_MISSING]), *["..."][: len(missing) > _MOST_MISSING]])
    return f"is missing {_number(len(missing), 'required argument')}: {shortened}"


def _number(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _listed(parameters: Iterable[Parameter]) -> str:
    """Return parameters as Python writes them, without annotations and defaults, which are not for everybody to see."""
    parts, are_named = [], False
    for parameter in parameters:
        if not parameter.by_position and not are_named:
            are_named = True
            parts.append("*")
        parts.append(parameter.name if parameter.is_required else f"{parameter.name}=...")
    return shown(", ".join(parts), _MOST_LISTED)
