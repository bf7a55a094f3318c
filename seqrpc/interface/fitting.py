"""Whether a service fits what it is made of: whoever calls it as one of its bases is to find what that one declares.

Its bases are other services, Protocols, abstract classes, and plain classes that serve as interfaces. Type checkers see
most of this, but not what is served and how.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from seqrpc.interface.description import MethodDescription, Parameter, Value, describe
from seqrpc.interface.functions import served
from seqrpc.interface.service import Service, marks_of
from seqrpc.interface.shapes import Anything


def check_bases(cls: type[Service]) -> None:
    """Check that a service takes the calls that its bases take.

    What a Protocol declares, and what is abstract in a class that is no service, has to be served. A method that
    overrides another, or implements it, has to have its parameters, none besides that has to be given, and is to be
    called in the same way. A parameter has to take whatever that one's may be on the wire, and a result to give nothing
    else.

    Raises:
        TypeError: it does not fit; the message names the methods of both.
    """
    methods = describe(cls).methods
    for base in cls.__mro__[1:]:
        declared_there = dict(_declared_in(base))
        # An abstract class of which nothing is served is for use in the program alone.
        is_interface = _is_protocol(base) or any(name in methods for name in declared_there)
        for name, function in declared_there.items():
            method = methods.get(name)
            if method is None:
                if is_interface and _must_be_served(base, function):
                    raise TypeError(_not_served(cls, base, name))
                continue
            if base is not _definer(cls, name):
                declared = _description_of(base, name, function)
                why = None if declared is None else _objection(declared, method, is_service=issubclass(base, Service))
                if why is not None:
                    raise TypeError(f"{cls.__qualname__}.{name} does not fit {base.__qualname__}.{name}: {why}")


def misfits(cls: Any, interface: Any) -> list[str]:
    """Return why a class does not take the calls that another declares, a line for each method; nothing if it does.

    It need not derive from that one.

    Raises:
        TypeError: one declares what cannot be sent.
    """
    own, declared = describe(cls).methods, describe(interface).methods
    served_here = isinstance(cls, type) and issubclass(cls, Service)
    is_service = served_here and isinstance(interface, type) and issubclass(interface, Service)
    wrong = []
    for name, method in declared.items():
        if name in own:
            if not served_here:  # it is called in the program alone, where marks say nothing
                marks = {"oneway": own[name].oneway, "idempotent": own[name].idempotent}
                method = msgspec.structs.replace(method, **marks)  # noqa: PLW2901 - as it counts here
            why = _objection(method, own[name], is_service=is_service)
        elif served_here and hasattr(cls, name):
            why = "it is not served: mark it with @seqrpc.method"
        else:
            why = "it is missing"
        if why is not None:
            wrong.append(f"{name}: {why}")
    return wrong


def _declared_in(base: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the functions that a class itself declares for others to call."""
    for name, attribute in list(vars(base).items()):  # what is found out about a class is kept in it
        function = served(attribute)
        if issubclass(base, Service):
            is_meant = marks_of(base, name) is not None
        else:
            is_meant = not name.startswith("_") and not hasattr(Service, name)  # close is never called from elsewhere
        if is_meant and inspect.isfunction(function) and function.__module__ != "typing":  # as what @overload leaves
            yield name, function


def _must_be_served(base: type, function: Callable[..., Any]) -> bool:
    if issubclass(base, Service):  # where what is not marked is its own affair
        return False
    return getattr(function, "__isabstractmethod__", False) or (_is_protocol(base) and _is_stub(function))


def _is_stub(function: Callable[..., Any]) -> bool:
    """Return whether a function has no body that does anything: ``...``, or ``raise NotImplementedError``."""
    looks_at_something = any(step.opname.startswith("LOAD_FAST") for step in dis.get_instructions(function))
    return not looks_at_something and set(function.__code__.co_names) <= {"NotImplementedError"}


def _is_protocol(base: type) -> bool:
    return bool(vars(base).get("_is_protocol", False))


def _definer(cls: type, name: str) -> type:
    return next(base for base in cls.__mro__ if name in vars(base))


def _not_served(cls: type, base: type, name: str) -> str:
    where = f"{cls.__qualname__}.{name}"
    if _definer(cls, name) is base:
        return f"{where} is missing, and {base.__qualname__} declares it: write it, with @seqrpc.method"
    return f"{where} is not served, and {base.__qualname__} declares it: mark it with @seqrpc.method"


def _description_of(base: type, name: str, function: Callable[..., Any]) -> MethodDescription | None:
    """Return what a base says of one of its methods; None if nobody could call it as that."""
    if issubclass(base, Service):
        return describe(base).methods.get(name)
    names = {"__module__": base.__module__, "__type_params__": getattr(base, "__type_params__", ())}
    marked = vars(base).get(name, function)  # the marks are on what stands in for a function
    alone = type(base.__name__, (), {**names, name: marked})  # others of the class may be no methods that can be called
    try:
        return describe(alone).methods[name]
    except TypeError:
        if _must_be_served(base, function) and not _is_generic(base):
            raise
        return None


def _is_generic(base: type) -> bool:
    """Return whether a class has type variables, of which more is known in classes that bind them."""
    return bool(getattr(base, "__parameters__", ()))


def _objection(base: MethodDescription, own: MethodDescription, *, is_service: bool) -> str | None:
    """Return why calls of ``base`` cannot be made of ``own``, or None."""
    if own.streams and base.result.is_stream and not base.streams:
        return "it streams, and that one is awaited for its stream; without a yield 'def' declares one, not 'async def'"
    says_whether_oneway = is_service or base.oneway
    if (own.streams, own.oneway) != (base.streams, base.oneway if says_whether_oneway else own.oneway):
        return f"it {_way_of(own)}, and that one {_way_of(base)}"
    if base.idempotent and not own.idempotent:  # a proxy of the base would call it again
        return "that one is idempotent=True, and it is not"
    strange = _strange(own.result, base.result)
    if strange is not None:
        return f"its result may be {strange}, and that of that one not"
    return _objection_to_all(base, own)


def _objection_to_all(base: MethodDescription, own: MethodDescription) -> str | None:
    """Return why the parameters of a method do not take those of a base, or None."""
    given = {parameter.name: parameter for parameter in own.parameters}
    positions = [parameter.name for parameter in own.parameters if parameter.by_position]
    for index, wanted in enumerate(base.parameters):
        name = wanted.name if wanted.by_name else next(iter(positions[index : index + 1]), wanted.name)
        if name not in given:
            return f"it has no parameter `{name}`"
        if wanted.by_position and name not in positions[index : index + 1]:
            return f"its parameter `{name}` is not the {_ordinal(index)} by position"
        why = _objection_to(wanted, given.pop(name))
        if why is not None:
            return f"its parameter `{name}` {why}"
    required = [parameter.name for parameter in given.values() if parameter.is_required]
    return f"its parameter `{required[0]}` has to be given, and that one has none of the name" if required else None


def _objection_to(base: Parameter, own: Parameter) -> str | None:
    """Return why a parameter does not take what that of a base takes, or None."""
    if base.by_name and not own.by_name:
        return "is not taken by name"
    if own.is_required and not base.is_required:
        return "has to be given"
    strange = _strange(base, own)
    return None if strange is None else f"does not take {strange}, and that of that one does"


def _strange(given: Value, taken: Value) -> str | None:
    """Return something that one value may be on the wire and the other not; None where nothing is known of one."""
    if isinstance(given.shape, Anything) or isinstance(taken.shape, Anything):
        return None
    if _has_variables(given.annotation) or _has_variables(taken.annotation):
        return None
    return min((wire.value for wire in given.shape.wires - taken.shape.wires), default=None)


def _has_variables(annotation: Any) -> bool:
    return isinstance(annotation, TypeVar) or bool(getattr(annotation, "__parameters__", ()))


def _way_of(method: MethodDescription) -> str:
    return "streams" if method.streams else "is one-way" if method.oneway else "gives one answer"


def _ordinal(index: int) -> str:
    return ("first", "second", "third")[index] if index < 3 else f"{index + 1}th"
