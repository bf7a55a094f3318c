"""What a proxy checks before it sends: that a descriptor has an owner where its parameter says so.

A file lends its descriptor to a message as an OwnedFd does, but type checkers refuse it where OwnedFd is annotated, and
what they refuse is not to pass when it runs.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Annotated, Any

from seqrpc.interface.description import MethodDescription
from seqrpc.interface.types import is_union
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.kinds import lends_descriptor
from seqrpc.protocol.messages import Params

Check = Callable[[Params], None]


def check_of_owners(method: MethodDescription) -> Check | None:
    """Return what checks the arguments of calls of a method; None if nothing in them has to have an owner."""
    wanted = [(parameter.name, kinds) for parameter in method.parameters if (kinds := _kinds_of(parameter.annotation))]
    if not wanted:
        return None
    positions = {parameter.name: index for index, parameter in enumerate(method.parameters)}

    def check(params: Params) -> None:
        """Check the arguments.

        Raises:
            TypeError: one is a file, or lends a descriptor otherwise, where an OwnedFd is wanted.
        """
        for name, kinds in wanted:
            if isinstance(params, dict):
                value = params.get(name)
            else:
                value = params[positions[name]] if positions[name] < len(params) else None
            if lends_descriptor(value) and not isinstance(value, kinds):
                raise TypeError(
                    f"{method.wire_name}: `{name}` is annotated as an OwnedFd, got `{type(value).__name__}`: pass"
                    " seqrpc.OwnedFd.dup(...) of it, which stays yours to close, or use call, which takes any file"
                )

    return check


def _kinds_of(annotation: Any) -> tuple[type, ...]:
    """Return the classes in an annotation that is an OwnedFd, or one among others; else nothing."""
    parts = list(_parts_of(annotation))
    if not any(isinstance(part, type) and issubclass(part, OwnedFd) for part in parts) or Any in parts:
        return ()
    classes = [typing.get_origin(part) or part for part in parts]
    return OwnedFd, *(cls for cls in classes if isinstance(cls, type) and not _is_for_checkers_only(cls))


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
