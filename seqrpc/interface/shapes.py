"""What annotations say, as data: one tree for each, in which all spellings of a type are the same.

A shape says what values are here and what is on the wire in their place. Conversion, ownership of
descriptors, discovery and stubs read shapes; only :mod:`seqrpc.interface.annotations` makes them. Shapes of classes may
hold themselves.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import Any

import msgspec

from seqrpc.protocol.codings import Coding


class Wire(enum.Enum):
    """What a value can be on the wire."""

    NIL = "nil"
    BOOL = "a boolean"
    INT = "an integer"
    FLOAT = "a float"
    STR = "a string"
    BYTES = "bytes"
    TIME = "a timestamp"
    ARRAY = "an array"
    MAP = "a map"
    DESCRIPTOR = "a descriptor"
    STREAM = "a stream"
    CHANNEL = "a channel"
    BUFFER = "a buffer"


class Shape:
    """What an annotation says."""

    __slots__ = ("annotation", "is_respelled")

    wires: frozenset[Wire] = frozenset()
    """What its values can be on the wire."""

    def __init__(self, annotation: Any) -> None:
        """Keep what stood in the source."""
        self.annotation = annotation
        """As it is written, for people."""
        self.is_respelled = False
        """Whether the annotation as it is written says nothing to msgspec."""

    @property
    def parts(self) -> tuple[Shape, ...]:
        """The shapes that it is made of."""
        return ()

    def __eq__(self, other: object) -> bool:
        """Return whether it says the same, however it is written."""
        return key_of(self) == key_of(other) if isinstance(other, Shape) else NotImplemented

    def __hash__(self) -> int:
        """Return what is equal for equal shapes."""
        return hash(type(self))

    def __repr__(self) -> str:
        """Return the kind of shape, and the annotation."""
        return f"<{type(self).__name__} {name_of(self.annotation)}>"


class Scalar(Shape):
    """A value without parts: a number, a text, a moment, an enum's member, a literal.

    Args:
        annotation: the class, or a ``Literal``.
        wires: what it is on the wire.
        is_small: whether a packet always holds one.
    """

    __slots__ = ("is_small", "wires")

    def __init__(self, annotation: Any, wires: Iterable[Wire], *, is_small: bool) -> None:
        """Keep all of it."""
        super().__init__(annotation)
        self.wires = frozenset(wires)
        self.is_small = is_small


class Anything(Shape):
    """Whatever can be sent."""

    __slots__ = ()

    wires = frozenset(Wire)


class Around(Shape):
    """A shape that is on the wire what another one is."""

    __slots__ = ("inner",)

    def __init__(self, annotation: Any, inner: Shape) -> None:
        """Keep both."""
        super().__init__(annotation)
        self.inner = inner

    @property
    def wires(self) -> frozenset[Wire]:  # type: ignore[override] # as its inner shape
        """What its values can be on the wire."""
        return self.inner.wires

    @property
    def parts(self) -> tuple[Shape, ...]:
        """What is on the wire."""
        return (self.inner,)


class Constrained(Around):
    """A shape whose values have bounds, or a note beside it: ``Annotated[...]`` with :class:`msgspec.Meta`."""

    __slots__ = ("metas",)

    def __init__(self, annotation: Any, inner: Shape, metas: tuple[msgspec.Meta, ...]) -> None:
        """Keep all of it."""
        super().__init__(annotation, inner)
        self.metas = metas


class Array(Shape):
    """Any number of values of one shape.

    Args:
        annotation: as it is written.
        kind: the class that is made: list, tuple, set or frozenset.
        item: what is in it.
    """

    __slots__ = ("item", "kind")

    wires = frozenset({Wire.ARRAY})

    def __init__(self, annotation: Any, kind: type, item: Shape) -> None:
        """Keep all of it."""
        super().__init__(annotation)
        self.kind = kind
        self.item = item

    @property
    def parts(self) -> tuple[Shape, ...]:
        """What is in it."""
        return (self.item,)


class FixedTuple(Shape):
    """A tuple of so many values, each with its shape."""

    __slots__ = ("_items",)

    wires = frozenset({Wire.ARRAY})

    def __init__(self, annotation: Any, items: tuple[Shape, ...]) -> None:
        """Keep all of it."""
        super().__init__(annotation)
        self._items = items

    @property
    def parts(self) -> tuple[Shape, ...]:
        """Its items."""
        return self._items


class Map(Shape):
    """A dict."""

    __slots__ = ("key", "value")

    wires = frozenset({Wire.MAP})

    def __init__(self, annotation: Any, key: Shape, value: Shape) -> None:
        """Keep all of it."""
        super().__init__(annotation)
        self.key = key
        self.value = value

    @property
    def parts(self) -> tuple[Shape, ...]:
        """Keys and values."""
        return (self.key, self.value)


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class Field:
    """A field of an object."""

    name: str
    """In Python."""

    wire_name: str
    """The key of the map that is on the wire."""

    shape: Shape
    is_required: bool
    default: Any = msgspec.NODEFAULT
    default_factory: Any = msgspec.NODEFAULT
    init_name: str | None = None
    """What the constructor calls it, or None: it does not take it."""


class Kind(enum.Enum):
    """Kinds of classes with fields."""

    DATACLASS = "dataclass"
    STRUCT = "Struct"
    ATTRS = "class of attrs"
    NAMED_TUPLE = "NamedTuple"
    TYPED_DICT = "TypedDict"


class Object(Shape):
    """An object with fields, of a class of any kind.

    Args:
        annotation: as it is written.
        cls: the class.
        kind: which kind of class it is.
        arguments: the shapes that a generic class is of, in the order of its type variables.
    """

    __slots__ = ("arguments", "cls", "fields", "kind", "wires")

    def __init__(self, annotation: Any, cls: Any, kind: Kind, arguments: tuple[Shape, ...]) -> None:
        """Keep all of it. The fields come later: one of them may hold the object's own shape."""
        super().__init__(annotation)
        self.cls = cls
        self.kind = kind
        self.arguments = arguments
        self.fields: tuple[Field, ...] = ()
        self.wires = frozenset({Wire.ARRAY if self.is_array else Wire.MAP})

    @property
    def is_array(self) -> bool:
        """Whether it is an array on the wire, and no map."""
        return self.kind is Kind.NAMED_TUPLE or (self.kind is Kind.STRUCT and self.cls.__struct_config__.array_like)

    @property
    def tag(self) -> tuple[str, str | int] | None:
        """The field of the wire that tells Structs of a union apart, and what it is; None if there is none."""
        config = self.cls.__struct_config__ if self.kind is Kind.STRUCT else None
        return None if config is None or config.tag is None else (config.tag_field, config.tag)

    @property
    def runs_code(self) -> bool:
        """Whether making one runs code of the application's, besides that of the class's own kind."""
        return self.kind is Kind.ATTRS or hasattr(self.cls, "__post_init__")

    @property
    def parts(self) -> tuple[Shape, ...]:
        """The shapes of its fields."""
        return tuple(field.shape for field in self.fields)


class Union(Shape):
    """One of several shapes, which can be told apart on the wire."""

    __slots__ = ("_choices", "wires")

    def __init__(self, annotation: Any, choices: tuple[Shape, ...]) -> None:
        """Keep all of it."""
        super().__init__(annotation)
        self._choices = choices
        self.wires = frozenset[Wire]().union(*(choice.wires for choice in choices))

    @property
    def parts(self) -> tuple[Shape, ...]:
        """The choices."""
        return self._choices


class Alias(Shape):
    """A type that was given a name, and that holds itself: ``type Json = dict[str, Json] | list[Json] | str | ...``."""

    __slots__ = ("target",)

    def __init__(self, annotation: Any) -> None:
        """Begin; the target comes once it has been read."""
        super().__init__(annotation)
        self.target: Shape | None = None

    @property
    def wires(self) -> frozenset[Wire]:  # type: ignore[override] # as its target
        """What its values can be on the wire; nothing as long as that is not known."""
        return frozenset() if self.target is None else self.target.wires

    @property
    def parts(self) -> tuple[Shape, ...]:
        """What it is."""
        return () if self.target is None else (self.target,)


class Coded(Around):
    """An object of a class that travels as something else.

    Args:
        annotation: the class.
        coding: how its objects travel.
        inner: the shape of what is on the wire.
    """

    __slots__ = ("coding",)

    def __init__(self, annotation: Any, coding: Coding, inner: Shape) -> None:
        """Keep all of it."""
        super().__init__(annotation, inner)
        self.coding = coding


class Descriptor(Shape):
    """An open file: :class:`~seqrpc.OwnedFd`."""

    __slots__ = ()

    wires = frozenset({Wire.DESCRIPTOR})


class BufferShape(Shape):
    """Memory that travels as a descriptor: :class:`~seqrpc.Buffer`."""

    __slots__ = ()

    wires = frozenset({Wire.BUFFER})


class Memory(Shape):
    """A buffer, or plain bytes, as a memoryview."""

    __slots__ = ()

    wires = frozenset({Wire.BUFFER, Wire.BYTES})


class Stream(Shape):
    """Values that come one after the other."""

    __slots__ = ("item",)

    wires = frozenset({Wire.STREAM})

    def __init__(self, annotation: Any, item: Shape) -> None:
        """Keep all of it."""
        super().__init__(annotation)
        self.item = item

    @property
    def parts(self) -> tuple[Shape, ...]:
        """What its items are."""
        return (self.item,)


class ServiceObject(Shape):
    """An object of a service, which is called and not copied.

    Args:
        annotation: the class, or one with its type variables bound.
    """

    __slots__ = ()

    wires = frozenset({Wire.CHANNEL})


def name_of(annotation: Any) -> str:
    """Return how an annotation is written, for people: without the modules of classes."""
    if annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__qualname__.removeprefix("builtins.").split("<locals>.")[-1]
    text = str(annotation).replace("typing.", "").replace("collections.abc.", "")
    return text.replace("pathlib._local.", "pathlib.")  # where 3.13 has its classes


def key_of(shape: Shape) -> Any:
    """Return what is equal for shapes that say the same."""
    if isinstance(shape, Object):
        return (shape.cls, *map(key_of, shape.arguments))
    if isinstance(shape, Alias):
        return id(shape)
    if isinstance(shape, Array):
        return (shape.kind, key_of(shape.item))
    if isinstance(shape, Constrained):
        return (key_of(shape.inner), *map(repr, shape.metas))
    if shape.parts and not isinstance(shape, Coded):
        return (type(shape), *map(key_of, shape.parts))
    return (type(shape), shape.annotation)
