"""What stands in for types that msgspec cannot have: streams, services, unions with a descriptor among them.

A stand-in is a class, for msgspec takes nothing else as a type that it does not know, and so each kind of them is a
metaclass. Its attributes say what it takes the place of. ``isinstance``, which msgspec asks about all that
``dec_hook`` returns, is answered by what the stand-in makes.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from seqrpc.interface.contents import inner_of
from seqrpc.interface.service import RemoteService, Service
from seqrpc.interface.sets import Bounds
from seqrpc.interface.shapes import Array, Coded, Field, Kind, Object, Shape, Wire, name_of
from seqrpc.interface.streams import ReceivedStream, checked
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.kinds import lends_descriptor
from seqrpc.protocol.received import ItemCheck

S = TypeVar("S", bound="StandIn")


class Planned:
    """A type as msgspec takes it, in place of an annotation.

    Args:
        kind: the type.
        shape: what the annotation says; None for what is made of several.
        bounds: what looks for sets in values that are to be converted; None if there are none.
    """

    __slots__ = ("bounds", "kind", "listed", "shape")

    def __init__(self, kind: Any, shape: Shape | None = None, bounds: Bounds | None = None) -> None:
        """Keep all of it."""
        self.kind = kind
        self.shape = shape
        self.bounds = bounds
        self.listed: Planned | None = None
        """A list of such values, once one was wanted."""


class Conversion(Protocol):
    """The conversion that a value is a part of."""

    def convert(self, value: Any, wanted: Planned) -> Any:
        """Return a value that is a part of it as the type that ``wanted`` was planned from."""
        ...

    def item_check(self, wanted: Planned) -> ItemCheck:
        """Return what converts items of a stream; each list of them is a conversion of its own."""
        ...


class Unmade:
    """Stands for what a stand-in would make, where a value is only looked at."""

    __slots__ = ()


UNMADE: Final = Unmade()

TO_LEND: Final = " (seqrpc.OwnedFd.dup makes one of it)"
"""What to say of a result that lends a descriptor, and is none."""


class Apart:
    """Stands, in what was taken apart, for what is one thing: a descriptor, a stream, an object."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        """Hold it."""
        self.value = value


class StandIn(type):
    """A type that takes the place of one that msgspec cannot have."""

    makes: tuple[type, ...] = ()
    """The classes of what it makes."""

    parts: tuple[Planned, ...] = ()
    """The types in it, planned."""

    is_counted = True
    """Whether whoever gets such values converts them in Python, too, and counts them."""

    def __new__(cls: type[S], *_of_what: Any) -> S:
        """Make the class."""
        return type.__new__(cls, cls.__name__, (), {})

    def __init__(cls) -> None:
        """Stand for what all of its kind do."""

    def __instancecheck__(cls, instance: object) -> bool:
        """Return whether it makes such values."""
        return isinstance(instance, (*cls.makes, Unmade))

    def look(cls, value: Any, conversion: Conversion) -> None:
        """Look at a value of this side that is on its way out, taken apart, as :meth:`build` does at what came in."""
        raise NotImplementedError

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return what ``value`` is converted to.

        Raises:
            msgspec.ValidationError: it does not fit.
        """
        raise NotImplementedError


class StreamStandIn(StandIn):
    """Takes a stream and has its items converted."""

    makes = (ReceivedStream,)

    def __init__(cls, item: Planned) -> None:
        """Stand for a stream of such items."""
        cls.parts = (item,)

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return the stream itself."""
        if not isinstance(value, ReceivedStream):
            raise msgspec.ValidationError(expected("a stream", value))
        return value if cls.parts[0].kind is Any else checked(value, conversion.item_check(cls.parts[0]))

    def look(cls, value: Any, conversion: Conversion) -> None:  # noqa: ARG002 - whoever reads it looks at the items
        """Look whether it can be read."""
        if not hasattr(type(_one(value)), "__aiter__"):
            raise msgspec.ValidationError(expected("a stream", value))


class ServiceStandIn(StandIn):
    """Takes a channel and makes it a proxy."""

    makes = (RemoteService,)

    def __init__(cls, service: Any) -> None:
        """Stand for objects of ``service``, a class that may have its type variables bound."""
        cls.service = service

    def build(cls, value: Any, conversion: Conversion) -> Any:  # noqa: ARG002 - it has no parts
        """Return a proxy."""
        make_proxy = getattr(value, "proxy", None)  # channels are made of connections, on a higher floor
        if make_proxy is None:
            raise msgspec.ValidationError(expected("a channel", value))
        return make_proxy(cls.service)

    def look(cls, value: Any, conversion: Conversion) -> None:  # noqa: ARG002 - as above
        """Look whether it can be called."""
        one = _one(value)
        if not isinstance(one, Service | RemoteService) and not hasattr(one, "proxy"):
            raise msgspec.ValidationError(expected("a service", value))


class MemoryStandIn(StandIn):
    """Takes a buffer, or plain bytes, as a memoryview."""

    makes = (memoryview,)

    def build(cls, value: Any, conversion: Conversion) -> Any:  # noqa: ARG002 - it has no parts
        """Return a view."""
        if not isinstance(value, Buffer | bytes | bytearray | memoryview):
            raise msgspec.ValidationError(expected("a buffer or bytes", value))
        return memoryview(value)

    def look(cls, value: Any, conversion: Conversion) -> None:
        """Look whether it is memory."""
        cls.build(_one(value), conversion)


class UnionStandIn(StandIn):
    """Takes what fits one of several types, which msgspec cannot have in a union."""

    makes = (object,)  # one of the types may be any

    def __init__(cls, choices: Sequence[tuple[frozenset[Wire], Planned]]) -> None:
        """Stand for a union: each choice with what it can be on the wire, in the order in which they are tried."""
        cls.choices = choices
        cls.parts = tuple(planned for _wires, planned in choices)
        tags = [_tag_of(planned) for planned in cls.parts]
        cls.tags = tuple(tag if sum(map(bool, tags)) > 1 else None for tag in tags)
        """Of each choice the name of the field that says that it is meant, and what is in it then."""

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return the value as the first type that it fits."""
        wire = _wire_of(value)
        return cls._convert(value, [wire in wires for wires, _planned in cls.choices], conversion)

    def look(cls, value: Any, conversion: Conversion) -> None:
        """Look whether it fits one of the types."""
        cls._convert(value, [True] * len(cls.parts), conversion)

    def _convert(cls, value: Any, may_be: Sequence[bool], conversion: Conversion) -> Any:
        failures: list[str] = []
        for planned, tag, may in zip(cls.parts, cls.tags, may_be, strict=True):
            if not may or not _has_tag(value, tag):
                continue
            try:
                return conversion.convert(value, planned)
            except (msgspec.ValidationError, ValueError, TypeError) as exc:  # what is registered raises them, too
                failures.append(str(exc))
        if len(failures) == 1:
            raise msgspec.ValidationError(failures[0])
        names = " | ".join(name_of(planned.shape.annotation) for planned in cls.parts if planned.shape)
        way_out = TO_LEND if isinstance(value, Apart) and lends_descriptor(value.value) else ""
        raise msgspec.ValidationError(f"{expected(f'`{names}`', value)}{way_out}")


class MapStandIn(StandIn):
    """Takes a map whose keys msgspec would leave as they came."""

    makes = (dict,)

    def __init__(cls, whole: Planned, keys: Planned, values: Planned) -> None:
        """Stand for a dict: as it comes, and lists of its keys, and of its values."""
        cls.whole = whole
        cls.parts = (keys, values)

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return a dict."""
        conversion.convert(value, cls.whole)  # in which sets, and as many keys as may be, are looked for
        try:
            keys, values = (
                conversion.convert(list(some), planned)
                for some, planned in zip((value, value.values()), cls.parts, strict=True)
            )
        except msgspec.ValidationError as exc:
            raise msgspec.ValidationError(_INDEX.sub("`$[...]", str(exc))) from exc
        return dict(zip(keys, values, strict=True))

    def look(cls, value: Any, conversion: Conversion) -> None:
        """Look at the keys and the values."""
        if not isinstance(value, dict):
            raise msgspec.ValidationError(expected("`object`", value))
        for some, planned in zip((value, value.values()), cls.parts, strict=True):
            conversion.convert(list(some), planned)


class SetStandIn(StandIn):
    """Takes a set that may have in it what is a tuple here, and an array on the wire, where nothing says so."""

    def __init__(cls, native: Planned) -> None:
        """Stand for a set; msgspec makes it, once there are tuples for arrays."""
        assert isinstance(native.shape, Array)
        cls.makes = (native.shape.kind,)
        cls.parts = (native,)

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return the set."""
        if not isinstance(value, list | tuple):
            raise msgspec.ValidationError(expected("`array`", value))
        try:
            return conversion.convert([_with_tuples(item) for item in value], cls.parts[0])
        except TypeError as exc:  # from msgspec, as it puts them together
            raise msgspec.ValidationError(f"Expected what has a hash, got what has none ({exc})") from exc

    def look(cls, value: Any, conversion: Conversion) -> None:
        """Look at what is in it."""
        cls.build(value, conversion)


def _with_tuples(value: Any) -> Any:
    """Return plain data with tuples for arrays, as for keys of maps; a message bounds how deep it is."""
    if isinstance(value, list | tuple):
        return tuple(map(_with_tuples, value))
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return value


class ObjectStandIn(StandIn):
    """Takes the fields of an object, some of which msgspec cannot convert by itself, and makes it."""

    def __init__(cls, shape: Object) -> None:
        """Stand for objects of a class. Their fields come later: one of them may hold the class itself."""
        cls.original = shape.cls
        cls.kind = shape.kind
        cls.fields: tuple[Field, ...] = shape.fields
        cls.makes = (dict if shape.kind is Kind.TYPED_DICT else shape.cls,)

    def mirror(cls, mirrored: Planned) -> None:
        """Take a Struct with the same fields, in the same order."""
        cls.parts = (mirrored,)

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return an object of the class."""
        values = msgspec.structs.astuple(conversion.convert(value, cls.parts[0]))
        given: dict[str, Any] = {}
        later: dict[str, Any] = {}
        for field, one in zip(cls.fields, values, strict=True):
            if one is msgspec.UNSET:
                continue
            if field.init_name is None:
                later[field.name] = one
            else:
                given[field.init_name] = one
        made = cls.original(**given)
        for name, one in later.items():
            object.__setattr__(made, name, one)
        return made

    def look(cls, value: Any, conversion: Conversion) -> None:
        """Look at the fields."""
        conversion.convert(value, cls.parts[0])


class AliasStandIn(StandIn):
    """Takes what a type is that holds itself, and is no class."""

    makes = (object,)

    def name(cls, target: Planned) -> None:
        """Take what it is."""
        cls.parts = (target,)

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return it as what it is."""
        return conversion.convert(value, cls.parts[0])

    def look(cls, value: Any, conversion: Conversion) -> None:
        """Look at it as what it is."""
        conversion.convert(value, cls.parts[0])


class CodedStandIn(StandIn):
    """Takes what is on the wire in place of an object, and makes the object of it."""

    def __init__(cls, shape: Coded, inner: Planned) -> None:
        """Stand for objects of a class."""
        cls.coding = shape.coding
        cls.makes = (shape.coding.kind,)
        cls.parts = (inner,)

    def build(cls, value: Any, conversion: Conversion) -> Any:
        """Return the object."""
        return cls.coding.decode(conversion.convert(value, cls.parts[0]))

    def look(cls, value: Any, conversion: Conversion) -> None:
        """Look at what is sent in its place, or at the object itself."""
        if isinstance(value, cls.coding.kind):
            return
        conversion.convert(value, cls.parts[0])


_INDEX: Final = re.compile(r"`\$\[\d+\]")

_WIRES: Final[tuple[tuple[tuple[type, ...], Wire], ...]] = (
    ((type(None),), Wire.NIL),
    ((bool,), Wire.BOOL),
    ((int,), Wire.INT),
    ((float,), Wire.FLOAT),
    ((str,), Wire.STR),
    ((Buffer,), Wire.BUFFER),
    ((bytes, bytearray, memoryview), Wire.BYTES),
    ((dt.datetime,), Wire.TIME),
    ((list, tuple), Wire.ARRAY),
    ((dict,), Wire.MAP),
    ((OwnedFd,), Wire.DESCRIPTOR),
    ((ReceivedStream,), Wire.STREAM),
)


def _wire_of(value: Any) -> Wire:
    """Return what a value was on the wire."""
    return next((wire for kinds, wire in _WIRES if isinstance(value, kinds)), Wire.CHANNEL)


def _tag_of(planned: Planned) -> tuple[str, str | int] | None:
    shape = None if planned.shape is None else inner_of(planned.shape)
    return shape.tag if isinstance(shape, Object) else None


def _has_tag(value: Any, tag: tuple[str, str | int] | None) -> bool:
    """Return whether a map or an array may be meant for the Struct with a tag; what is neither may be for any."""
    if tag is None or not isinstance(value, dict | list | tuple):
        return True
    name, wanted = tag
    found = value.get(name) if isinstance(value, dict) else value[0] if value else None
    return type(found) is type(wanted) and found == wanted


def _one(value: Any) -> Any:
    """Return a value that was left as one thing."""
    return value.value if isinstance(value, Apart) else value


def expected(what: str, value: Any) -> str:
    """Return what to say of a value that is something else."""
    return f"Expected {what}, got `{type(_one(value)).__name__}`"
