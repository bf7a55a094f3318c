"""What a proxy checks before it sends: that a descriptor has an owner where its parameter says so.

A file lends its descriptor to a message as an OwnedFd does, but type checkers refuse it where OwnedFd is annotated, and
what they refuse is not to pass when it runs.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final

from seqrpc.interface.contents import choices_of
from seqrpc.interface.description import MethodDescription
from seqrpc.interface.shapes import (
    Anything,
    Array,
    BufferShape,
    Descriptor,
    FixedTuple,
    Map,
    Memory,
    Object,
    ServiceObject,
    Shape,
)
from seqrpc.interface.signature import MethodSpec
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.kinds import lends_descriptor
from seqrpc.protocol.messages import Params

Check = Callable[[Params], None]

Finder = Callable[[Any], object]
"""Returns what lends a descriptor in a value and has no owner, or None."""

_ARRAYS: Final = (list, tuple, set, frozenset)


def check_of_owners(method: MethodDescription) -> Check | None:
    """Return what checks the arguments of calls of a method; None if nothing in them has to have an owner.

    It looks at arguments and into lists, tuples, sets and dicts. The fields of objects are the affair of whoever makes
    the object, as they are for type checkers.
    """
    wanted = _wanted(method)
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


def with_owners(spec: MethodSpec, calling: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``calling``, the method of a proxy that calls ``spec``, or what looks at the arguments before it calls it.

    Raises (what is returned):
        TypeError: a file, or what lends a descriptor otherwise, is where an OwnedFd is wanted.
    """
    check = check_of_owners(spec.description)
    if check is None:
        return calling
    most, place = spec.counts.stop - 1, _only_place(spec.description)

    def checked(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        # Nearly always there are all arguments, by position, with an owner in the only place for one.
        if kwargs or len(args) != most or place is None or type(args[place]) is not OwnedFd:
            check(spec.params(args, kwargs))
        return calling(self, *args, **kwargs)

    return checked


def _only_place(method: MethodDescription) -> int | None:
    """Return the position of the only parameter that has to have an owner; None if there are more, or it has none."""
    wanted = _wanted(method)
    return wanted[0][0] if len(wanted) == 1 and method.parameters[wanted[0][0]].by_position else None


def _wanted(method: MethodDescription) -> list[tuple[int, str, Finder]]:
    """Return of each parameter that has to have owners its place, its name, and what finds others."""
    return [
        (index, parameter.name, find)
        for index, parameter in enumerate(method.parameters)
        if (find := _finder(parameter.shape)) is not None
    ]


def _finder(shape: Shape, within: tuple[Shape, ...] = ()) -> Finder | None:
    """Return what finds lenders without an owner in values of a shape; None if there need not be owners.

    Where a shape is ``within`` itself, it looks no further.
    """
    if any(shape is outer for outer in within):
        return None
    choices = choices_of(shape)
    if any(isinstance(choice, Anything) for choice in choices):
        return None
    within = (*within, shape)
    finders = [find for choice in choices if (find := _finder_in(choice, within)) is not None]
    if any(isinstance(choice, Descriptor) for choice in choices):
        finders.append(functools.partial(_itself, tuple(map(_class_of, choices))))
    return _first_of(finders)


def _class_of(choice: Shape) -> type:
    """Return the class whose objects may lend descriptors where a choice of a union says so."""
    if isinstance(choice, BufferShape | Memory):
        return Buffer
    if isinstance(choice, Object):
        return dict if typing.is_typeddict(choice.cls) else typing.cast("type", choice.cls)
    if isinstance(choice, ServiceObject):
        return typing.get_origin(choice.annotation) or typing.cast("type", choice.annotation)
    return OwnedFd


def _finder_in(container: Shape, within: tuple[Shape, ...]) -> Finder | None:
    """Return what finds them in a container; None if there need not be any, or it is none."""
    if isinstance(container, Map):
        find = _finder(container.value, within)
        return None if find is None else functools.partial(_among_values, find)
    if isinstance(container, Array | FixedTuple):
        find = _first_of([one for part in container.parts if (one := _finder(part, within)) is not None])
        return None if find is None else functools.partial(_among, find)
    return None


def _first_of(finders: list[Finder]) -> Finder | None:
    if len(finders) < 2:
        return finders[0] if finders else None
    return lambda value: next((found for find in finders if (found := find(value)) is not None), None)


def _itself(kinds: tuple[type, ...], value: Any) -> object:
    return value if lends_descriptor(value) and not isinstance(value, kinds) else None


def _among(find: Finder, value: Any) -> object:
    return _first_in(find, value) if isinstance(value, _ARRAYS) else None


def _among_values(find: Finder, value: Any) -> object:
    return _first_in(find, value.values()) if isinstance(value, dict) else None


def _first_in(find: Finder, values: Iterable[Any]) -> object:
    return next((found for one in values if (found := find(one)) is not None), None)
