"""What stands in for types that msgspec cannot have: streams, services, unions with a descriptor among them.

A stand-in is a class, for msgspec takes nothing else as a type that it does not know, and so each kind of them is a
metaclass. Its attributes say what it takes the place of. ``isinstance``, which msgspec asks about all that
``dec_hook`` returns, is answered by what the stand-in makes.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, TypeVar

import msgspec

from seqrpc.interface.service import RemoteService, Service
from seqrpc.interface.streams import ReceivedStream, checked
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.received import ItemCheck

S = TypeVar("S", bound="StandIn")

Plan = Any
"""A type as msgspec takes it, made from an annotation by :func:`seqrpc.interface.planning.plan`."""


class Conversion(Protocol):
    """The conversion that a value is a part of."""

    def convert(self, value: Any, wanted: Plan) -> Any:
        """Return a value that is a part of it as the type that ``wanted`` was planned from."""
        ...

    def item_check(self, wanted: Plan) -> ItemCheck:
        """Return what converts items of a stream; each list of them is a conversion of its own."""
        ...


class Unmade:
    """Stands for what a stand-in would make, where a value is only looked at."""

    __slots__ = ()


UNMADE: Final = Unmade()


class StandIn(type):
    """A type that takes the place of one that msgspec cannot have."""

    makes: tuple[type, ...] = ()
    """The classes of what it makes."""

    parts: tuple[Plan, ...] = ()
    """The types in it, planned."""

    def __new__(cls: type[S], *_of_what: Any) -> S:
        """Make the class."""
        return type.__new__(cls, cls.__name__, (), {})

    def __init__(cls) -> None:
        """Stand for what all of its kind do."""

    def __instancecheck__(cls, instance: object) -> bool:
        """Return whether it makes such values."""
        return isinstance(instance, (*cls.makes, Unmade))

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return what ``value`` is converted to.

        Raises:
            msgspec.ValidationError: it does not fit.
        """
        raise NotImplementedError


class StreamStandIn(StandIn):
    """Takes a stream and has its items converted."""

    makes = (ReceivedStream,)

    def __init__(cls, item_type: Any, planned: Plan) -> None:
        """Stand for a stream of ``item_type``, which is Any where items are left as they come."""
        cls.item_type = item_type
        cls.parts = (planned,)

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return the stream itself."""
        if not isinstance(value, ReceivedStream):
            raise msgspec.ValidationError(expected("a stream", value))
        return value if cls.item_type is Any else checked(value, conversion.item_check(cls.parts[0]))


class ServiceStandIn(StandIn):
    """Takes a channel and makes it a proxy."""

    makes = (RemoteService,)

    def __init__(cls, service: type[Service]) -> None:
        """Stand for objects of ``service``."""
        cls.service = service

    def build(cls, value: Any, conversion: Conversion) -> Any:  # noqa: ARG002 - it has no parts
        """Return a proxy."""
        make_proxy = getattr(value, "proxy", None)  # channels are made of connections, on a higher floor
        if make_proxy is None:
            raise msgspec.ValidationError(expected("a channel", value))
        return make_proxy(cls.service)


class MemoryStandIn(StandIn):
    """Takes a buffer, or plain bytes, as a memoryview."""

    makes = (memoryview,)

    def build(cls, value: Any, conversion: Conversion) -> Any:  # noqa: ARG002 - it has no parts
        """Return a view."""
        if not isinstance(value, Buffer | bytes | memoryview):
            raise msgspec.ValidationError(expected("a buffer or bytes", value))
        return memoryview(value)


class UnionStandIn(StandIn):
    """Takes what fits one of several types, of which at least one travels as a descriptor."""

    makes = (object,)  # one of the types may be any

    def __init__(cls, carriers: tuple[type, ...], choices: tuple[Plan, ...]) -> None:
        """Stand for a union.

        Args:
            carriers: those of :class:`OwnedFd` and :class:`Buffer` that are among its types.
            choices: its other types, planned, in the order in which they are tried.
        """
        cls.carriers = carriers
        cls.choices = choices
        cls.parts = (*carriers, *choices)

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return the value as the first type that it fits."""
        if isinstance(value, OwnedFd | Buffer) and type(value) in cls.carriers:
            return value
        failures: list[str] = []
        for choice in cls.choices:
            try:
                return conversion.convert(value, choice)
            except msgspec.ValidationError as exc:
                failures.append(str(exc))
        raise msgspec.ValidationError("; ".join(failures) or "Expected a descriptor")


class DataclassStandIn(StandIn):
    """Takes the fields of a dataclass, some of which msgspec cannot convert by itself, and makes it."""

    def __init__(cls, original: type) -> None:
        """Stand for a dataclass. Its fields come later: one of them may hold the class itself."""
        cls.original = original
        cls.makes = (original,)

    def mirror(cls, fields: list[tuple[str, Plan, Any]]) -> None:
        """Take the fields: name, planned type, and what :func:`msgspec.field` says of its default."""
        cls.parts = (msgspec.defstruct(cls.original.__name__, fields, kw_only=True),)

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return an object of the dataclass."""
        return cls.original(**msgspec.structs.asdict(conversion.convert(value, cls.parts[0])))


def expected(what: str, value: Any) -> str:
    """Return what to say of a value that is something else."""
    return f"Expected {what}, got `{type(value).__name__}`"
