"""Services as they are given to be served: what they are, and what whoever wrote them has probably forgotten."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from typing import Any

from seqrpc.interface.description import MethodDescription
from seqrpc.interface.service import Service
from seqrpc.interface.signature import spec_of
from seqrpc.text import shown

_looked_at: weakref.WeakSet[type] = weakref.WeakSet()


def services_of(given: Service | Iterable[Service]) -> tuple[Service, ...]:
    """Return the objects that are to be served; one may be given by itself.

    Whoever writes no annotation for a parameter is warned, once for each class: whatever callers send is taken there.

    Raises:
        TypeError: what is given is no service, a method cannot be called from elsewhere, or none is marked, so that
            nobody could call it. One that has a lifespan of its own needs no methods.
    """
    is_many = isinstance(given, Iterable) and not isinstance(given, Service | type | str)
    services: tuple[Any, ...] = tuple(given) if is_many else (given,)  # type: ignore[arg-type] # that is looked at now
    for service in services:
        check_service(service)
        _look_at(type(service))
    return services


def check_service(service: object) -> None:
    """Check that something is an object of a service.

    Raises:
        TypeError: it is not; the message says what to do.
    """
    if isinstance(service, Service):
        return
    if isinstance(service, type) and issubclass(service, Service):
        name = service.__name__
        raise TypeError(f"an object of {name} was expected, got the class: write {name}()")
    name = service.__name__ if isinstance(service, type) else type(service).__name__
    raise TypeError(f"an object of a seqrpc.Service was expected, got {shown(repr(service))}, and {name} is none")


def _look_at(cls: type[Service]) -> None:
    """Look at a class that is served for the first time."""
    if cls in _looked_at:
        return
    methods = spec_of(cls).methods
    if not methods and cls.lifespan is Service.lifespan:
        raise TypeError(f"{cls.__name__} has no method that others may call: mark those that they may @seqrpc.method")
    _looked_at.add(cls)
    for name, method in methods.items():
        missing = _unannotated(method.description)
        if missing:
            text = (
                f"{cls.__name__}.{name} takes whatever is sent as {', '.join(missing)}: write the type of each"
                " parameter, or typing.Any if that is meant"
            )
            warnings.warn(text, UserWarning, stacklevel=4)


def _unannotated(method: MethodDescription) -> list[str]:
    return [repr(parameter.name) for parameter in method.parameters if not parameter.is_annotated]
