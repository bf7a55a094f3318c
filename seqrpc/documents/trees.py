"""What a document says, as data: methods, interfaces, and types as trees. Whatever reads documents reads these.

A tree says what an annotation says, as :mod:`seqrpc.interface.shapes` do of classes that are at hand; here there are
only their names. All texts in it are as they came from the other side: whoever shows them has to escape them
(:func:`seqrpc.text.shown`), and names need be no identifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec


class Type(msgspec.Struct, frozen=True):
    """What values are; what it is exactly, its subclass says."""

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types that it is made of; what :class:`Ref` refers to is not among them."""
        return ()


class Anything(Type, frozen=True):
    """Whatever can be sent: ``Any``."""


class Scalar(Type, frozen=True):
    """A value without parts."""

    name: str
    """``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, ``bytearray``, ``datetime``, ``date``, ``time``,
    ``timedelta``, ``UUID``, ``Decimal``; or ``UnsetType``: a field with it in its union may be left out."""


class LiteralOf(Type, frozen=True):
    """One of some values."""

    values: tuple[str | int | bool | None, ...]


class ListOf(Type, frozen=True):
    """Any number of values of one type."""

    kind: Literal["list", "set", "frozenset", "tuple"]
    item: Type

    @property
    def parts(self) -> tuple[Type, ...]:
        """What is in it."""
        return (self.item,)


class TupleOf(Type, frozen=True):
    """A tuple of so many values, each with its type."""

    items: tuple[Type, ...]

    @property
    def parts(self) -> tuple[Type, ...]:
        """Its items."""
        return self.items


class MapOf(Type, frozen=True):
    """A dict."""

    key: Type
    value: Type

    @property
    def parts(self) -> tuple[Type, ...]:
        """Keys and values."""
        return (self.key, self.value)


class UnionOf(Type, frozen=True):
    """One of several types."""

    choices: tuple[Type, ...]

    @property
    def parts(self) -> tuple[Type, ...]:
        """The choices."""
        return self.choices


class Ref(Type, frozen=True):
    """A type that has a name: it stands in :attr:`Document.schemas`, where it is surely found."""

    name: str


class Coded(Type, frozen=True):
    """An object of a class that travels as something else: a path, an address, a class of the server's own."""

    class_name: str
    inner: Type
    """What is on the wire."""

    @property
    def parts(self) -> tuple[Type, ...]:
        """What is on the wire."""
        return (self.inner,)


class Descriptor(Type, frozen=True):
    """An open file: ``OwnedFd``."""


class BufferType(Type, frozen=True):
    """Memory that travels as a descriptor: ``Buffer``."""


class Memory(Type, frozen=True):
    """A buffer, or plain bytes: ``memoryview``."""


class StreamOf(Type, frozen=True):
    """Values that come one after the other."""

    item: Type

    @property
    def parts(self) -> tuple[Type, ...]:
        """What its items are."""
        return (self.item,)


class ObjectOf(Type, frozen=True):
    """An object of a service, which is called and not copied."""

    interface: str
    """Its key in :attr:`Document.interfaces`, where it is surely found."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is noted beside a type, as :class:`msgspec.Meta` has it; None is not noted."""

    ge: int | float | None = None
    gt: int | float | None = None
    le: int | float | None = None
    lt: int | float | None = None
    multiple_of: int | float | None = None
    pattern: str | None = None
    min_length: int | None = None
    """Of characters, bytes, items or entries."""
    max_length: int | None = None
    tz: bool | None = None
    """Whether a datetime or time has to have a time zone, or must have none."""
    sensitive: bool = False
    """Whether values are secret."""
    title: str | None = None
    description: str | None = None
    examples: tuple[Any, ...] = ()
    """In their JSON form."""


class Constrained(Type, frozen=True):
    """A type whose values have bounds, or a note beside it."""

    inner: Type
    bounds: Bounds

    @property
    def parts(self) -> tuple[Type, ...]:
        """What has the bounds."""
        return (self.inner,)


class Default(msgspec.Struct, frozen=True, kw_only=True):
    """What a parameter or a field is that is not given."""

    value: Any = None
    """In the JSON form of what is on the wire; None also if it has none, which :attr:`words` says."""

    words: str | None = None
    """What the other side's Python writes, for people, where there is no JSON form; else None."""

    is_factory: bool = False
    """Whether it is made anew each time, as an empty list or dict."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a class."""

    name: str
    """In Python, as far as the document says it."""

    wire_name: str
    """The key of the map that is on the wire."""

    type: Type
    required: bool
    default: Default | None = None
    """None: it is required, or nobody says what it is if it is not given."""

    in_init: bool = True
    """Whether the constructor takes it."""


class Tag(msgspec.Struct, frozen=True):
    """What tells the classes of a union apart on the wire."""

    field: str
    value: str | int


class Fields(Type, frozen=True, kw_only=True):
    """A class with fields."""

    kind: Literal["dataclass", "struct", "attrs", "typeddict", "namedtuple"]
    fields: tuple[Field, ...]
    title: str = ""
    description: str = ""
    is_array: bool = False
    """Whether it is an array on the wire, and no map: the fields in their order."""

    tag: Tag | None = None
    forbids_unknown: bool = False
    """Whether a field that it does not have is an error."""

    omits_defaults: bool = False
    """Whether a field that is its default is not sent."""

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types of its fields."""
        return tuple(field.type for field in self.fields)


class EnumOf(Type, frozen=True, kw_only=True):
    """An enum: its members have names and values, all integers or all strings."""

    members: tuple[tuple[str, str | int], ...]
    base: Literal["", "int", "str"] = ""
    """Whether its members are numbers or texts themselves: an ``IntEnum``, a ``StrEnum``."""

    title: str = ""
    description: str = ""


class FlagOf(Type, frozen=True, kw_only=True):
    """Flags, which are combined; on the wire they are a number."""

    members: tuple[tuple[str, int], ...]
    is_int: bool = False
    """Whether it is an ``IntFlag``."""

    title: str = ""
    description: str = ""


class AliasOf(Type, frozen=True):
    """Another name of a type, which may have itself in it; only in :attr:`Document.schemas`."""

    target: Type

    @property
    def parts(self) -> tuple[Type, ...]:
        """What it stands for."""
        return (self.target,)


class Param(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a method."""

    name: str
    type: Type
    required: bool
    positional_only: bool = False
    keyword_only: bool = False
    default: Default | None = None
    """None: it is required, or nobody says what it is if it is not given."""

    annotated: bool = True
    """Whether its type is written at the other side."""

    schema: Mapping[str, Any] = {}
    """As it came, for those who fill forms and completions."""

    @property
    def has_default(self) -> bool:
        """Whether its default is known."""
        return self.default is not None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error that a method declares."""

    code: str
    """As ``bank.InsufficientFunds``; of other OpenRPC servers the message."""

    number: int | None = None
    """The code that OpenRPC wants, which is not on the wire of seqrpc."""

    description: str = ""


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """A method."""

    name: str
    """On the wire: ``Logs.follow``."""

    params: tuple[Param, ...]
    result: Type | None
    """None: there is no answer; it is one-way."""

    summary: str = ""
    description: str = ""
    """What the docstring says after the summary."""

    errors: tuple[Failure, ...] = ()
    oneway: bool = False
    idempotent: bool = False
    sensitive: bool = False
    streams: bool = False
    """Whether it gives a stream by itself: it is called without ``await``."""

    allowed: bool | None = None
    """Whether the one who asked for the document may call it; None where it does not say."""

    rule: str = ""
    """Who may call it, in words."""

    param_structure: Literal["either", "by-name", "by-position"] = "either"

    @property
    def service(self) -> str:
        """The name of the service: what is before the last dot; nothing if there is none."""
        return self.name.rpartition(".")[0]

    @property
    def short_name(self) -> str:
        """The name of the method in Python."""
        return self.name.rpartition(".")[2]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service: what its methods are, :attr:`Document.methods` says."""

    name: str
    description: str = ""
    bases: tuple[str, ...] = ()
    """The names of the services that its class is made of."""


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """What objects can do that are given away."""

    name: str
    """On the wire."""

    methods: tuple[Method, ...]
    description: str = ""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document."""

    title: str
    version: str
    description: str = ""
    services: tuple[Service, ...]
    """In alphabetical order, each that has a method, and those without any that the document names."""

    methods: tuple[Method, ...]
    interfaces: Mapping[str, Interface]
    schemas: Mapping[str, Type]
    """What has a name: :class:`Fields`, :class:`EnumOf`, :class:`FlagOf`, and all else as :class:`AliasOf`."""

    of_seqrpc: bool = True
    """Whether it is one of seqrpc's; others say nothing of streams, descriptors and objects."""

    def methods_of(self, service: str) -> tuple[Method, ...]:
        """Return the methods of a service, by its name."""
        return tuple(method for method in self.methods if method.service == service)
