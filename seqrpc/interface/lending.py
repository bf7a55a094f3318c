"""What a proxy checks before it sends: that a descriptor has an owner where its parameter says so.

A file lends its descriptor to a message as an OwnedFd does, but type checkers refuse it where OwnedFd is annotated, and
what they refuse is not to pass when it runs.
"""

from __future__ import annotations

import collections
import collections.abc
import functools
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final

from seqrpc.interface.description import MethodDescription
from seqrpc.interface.types import is_union
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.kinds import lends_descriptor
from seqrpc.protocol.messages import Params

Check = Callable[[Params], None]

Finder = Callable[[Any], object]
"""Returns what lends a descriptor in a value and has no owner, or None."""

_PLAIN: Final = (list, tuple, set, frozenset, collections.deque)
_MAPS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def check_of_owners(method: MethodDescription) -> Check | None:
    """Return what checks the arguments of calls of a method; None if nothing in them has to have an owner.

    It looks at arguments and into lists, tuples, sets and dicts. The fields of objects are the affair of whoever makes
    the object, as they are for type checkers.
    """
    wanted = [
        (index, parameter.name, find)
        for index, parameter in enumerate(method.parameters)
        if (find := _finder(parameter.annotation)) is not None
    ]
    if not wanted:
        return None

    def check(params: Params) -> None:
        """Check the arguments.

        Raises:
            TypeError: one is a file, or lends a descriptor otherwise, where an OwnedFd is wanted.
        """
        for index, name, find in wanted:
            if isinstance(params, dict):
                found = find(params.get(name))
            else:
                found = find(params[index]) if index < len(params) else None
            if found is not None:
                raise TypeError(
                    f"{method.wire_name}: `{name}` is annotated with OwnedFd, got `{type(found).__name__}`: pass"
                    " seqrpc.OwnedFd.dup(...) of it, which stays yours to close, or use call, which takes any file"
                )

    return check


def _finder(annotation: Any, within: tuple[Any, ...] = ()) -> Finder | None:
    """Return what finds lenders without an owner in values of an annotation; None if there need not be owners.

    Where an annotation is ``within`` itself, it looks no further.
    """
    parts = _parts_of(annotation)
    if Any in parts or object in parts or annotation in within:
        return None
    within = (*within, annotation)
    finders = [_finder_in(part, within) for part in parts if typing.get_args(part)]
    if any(isinstance(part, type) and issubclass(part, OwnedFd) for part in parts):
        classes = [typing.get_origin(part) or part for part in parts]
        kinds = (OwnedFd, *(cls for cls in classes if isinstance(cls, type) and not _is_for_checkers_only(cls)))
        finders.append(functools.partial(_itself, kinds))
    return _first_of([find for find in finders if find is not None])


def _finder_in(container: Any, within: tuple[Any, ...]) -> Finder | None:
    """Return what finds them in a container; None if there need not be any, or it is not known for one."""
    origin, arguments = typing.get_origin(container), typing.get_args(container)
    if origin in _MAPS:
        find = _finder(arguments[1], within)
        return None if find is None else functools.partial(_among_values, find)
    if isinstance(origin, type) and (origin in _PLAIN or any(issubclass(kind, origin) for kind in _PLAIN)):
        find = _first_of([one for argument in arguments if (one := _finder(argument, within)) is not None])
        return None if find is None else functools.partial(_among, find)
    return None


def _first_of(finders: list[Finder]) -> Finder | None:
    if len(finders) < 2:
        return finders[0] if finders else None
    return lambda value: next((found for find in finders if (found := find(value)) is not None), None)


def _itself(kinds: tuple[type, ...], value: Any) -> object:
    return value if lends_descriptor(value) and not isinstance(value, kinds) else None


def _among(find: Finder, value: Any) -> object:
    return _first_in(find, value) if isinstance(value, _PLAIN) else None


def _among_values(find: Finder, value: Any) -> object:
    return _first_in(find, value.values()) if isinstance(value, dict) else None


def _first_in(find: Finder, values: Iterable[Any]) -> object:
    return next((found for one in values if (found := find(one)) is not None), None)


def _is_for_checkers_only(cls: type) -> bool:
    """Return whether a class is for type checkers: nothing can be said of an object by it."""
    return getattr(cls, "_is_protocol", False) and not getattr(cls, "_is_runtime_protocol", False)


def _parts_of(annotation: Any) -> list[Any]:
    """Return what an annotation consists of: itself, or if it is a union, what that is of."""
    for name in ("__supertype__", "__value__"):  # of a NewType, and of ``type X = ...``
        if hasattr(annotation, name):
            return _parts_of(getattr(annotation, name))
    if typing.get_origin(annotation) is Annotated:
        return _parts_of(typing.get_args(annotation)[0])
    if is_union(annotation):
        return [part for one in typing.get_args(annotation) for part in _parts_of(one)]
    return [annotation]
