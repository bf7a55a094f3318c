"""From annotations to shapes: the one walk over types, which knows all their spellings.

What cannot be sent is refused here, with the path to it and a way out, before anything is served or called.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, Final

import msgspec

from seqrpc.interface import wires
from seqrpc.interface.contents import has_bounds, shapes_in, spelling
from seqrpc.interface.excuses import way_out, why_alike
from seqrpc.interface.fields import fields_of, kind_of
from seqrpc.interface.flags import flag_coding
from seqrpc.interface.hints import NOWHERE, Scope, bases_of, field_hints
from seqrpc.interface.names import DEEPEST, ENDLESS, LONGEST_PATH, MOST_ALIKE, NameReader, refuse, respelled
from seqrpc.interface.service import Service
from seqrpc.interface.shapes import (
    Alias,
    Anything,
    Array,
    BufferShape,
    Coded,
    Constrained,
    Descriptor,
    FixedTuple,
    Kind,
    Map,
    Memory,
    Object,
    ServiceObject,
    Shape,
    Stream,
    Union,
    key_of,
    name_of,
)
from seqrpc.interface.spellings import (
    ARRAYS,
    MAPS,
    MEMORIES,
    QUALIFIERS,
    STREAMS,
    enum_shape,
    literal_shape,
    scalar_shape,
)
from seqrpc.interface.streams import ReceivedStream
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.codings import coding_of


def shape_of(annotation: Any, scope: Scope = NOWHERE, path: str = "") -> Shape:
    """Return the shape of an annotation.

    Args:
        annotation: as it is written.
        scope: what surrounds it.
        path: what it is the annotation of, for errors.

    Raises:
        TypeError: such values cannot be sent; the message says where in it, why, and what would do.
    """
    try:
        reader = _Reader()
        shape = reader.read(annotation, scope, path)
        reader.finish()
    except RecursionError as exc:
        raise TypeError(f"{path}: the annotation has no end") from exc
    return shape


def is_stream(annotation: Any) -> bool:
    """Return whether an annotation is that of a stream: ``AsyncIterator[T]``, ``AsyncGenerator[T]``, ``Stream[T]``."""
    origin = typing.get_origin(_plain(annotation)) or _plain(annotation)
    return _is_among(origin, STREAMS) or (isinstance(origin, type) and issubclass(origin, ReceivedStream))


def _plain(annotation: Any) -> Any:
    """Return an annotation without what is noted beside it, or what it is another name of."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = annotation.__origin__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


SENSITIVE: Final = msgspec.Meta(extra={"sensitive": True})
"""Says of a parameter that its arguments are secret: ``password: Annotated[str, seqrpc.SENSITIVE]``, or the same of a
result. It may also stand deeper, as at a field of a class. What is wrong with arguments of such a method is told
without any part of them, and what its handler raises is logged without what the exceptions say."""


def is_sensitive(shape: Shape) -> bool:
    """Return whether something in it is marked with :data:`SENSITIVE`."""
    return any(isinstance(found, Constrained) and SENSITIVE in found.metas for found in shapes_in(shape))


def is_service(annotation: Any) -> bool:
    """Return whether an annotation is that of a service as a value, which may be of a generic class."""
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Service)


class _Reader(NameReader):
    """Reads one annotation, and knows what it has read of it."""

    def __init__(self) -> None:
        super().__init__()
        self._unions: dict[Any, Union] = {}
        self._objects: dict[Any, Object] = {}  # also those whose fields are not read yet
        self._depth = 0
        self._around: tuple[Any, ...] = ()  # the generic classes that what is being read is in
        self._unread: list[Callable[[], None]] = []  # fields of objects: of many classes, each may lead to the next
        self._unchecked: list[Callable[[], None]] = []  # what asks for fields

    def finish(self) -> None:
        """Read the fields of the objects in what was read, and check what depends on them."""
        for read in self._unread:  # which grows
            read()
        for check in self._unchecked:
            check()

    def read(self, annotation: Any, scope: Scope, path: str) -> Shape:
        """Return the shape of an annotation, or of a part of one."""
        self._depth += 1
        try:
            if self._depth > DEEPEST:
                refuse(path[:LONGEST_PATH], ENDLESS)
            return self._read(annotation, scope, path)
        finally:
            self._depth -= 1

    def _read(self, annotation: Any, scope: Scope, path: str) -> Shape:
        for read in (self._read_name, self._read_form):
            shape = read(annotation, scope, path)
            if shape is not None:
                return shape
        origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
        return (
            self._read_container(annotation, origin, arguments, scope, path)
            or self._read_living(annotation, origin, arguments, scope, path)
            or self._read_leaf(annotation, path)
            or self._read_object(annotation, origin, arguments, scope, path)
            or refuse(path, way_out(annotation))
        )

    def _read_form(self, annotation: Any, scope: Scope, path: str) -> Shape | None:
        """Return the shape of a form of the typing module, which is no class."""
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._read_annotated(annotation, scope, path)
        if _is_among(origin, QUALIFIERS):
            return self.read(arguments[0], scope, path)
        if origin is typing.Literal:
            return literal_shape(annotation) or refuse(path, way_out(annotation))
        if origin in (typing.Union, types.UnionType):
            return self.union(annotation, [self.read(argument, scope, path) for argument in arguments], path)
        supertype = getattr(annotation, "__supertype__", None)  # of a NewType
        if annotation is None or supertype is not None:
            return self.read(supertype or type(None), scope, path)
        return None

    # What consists of others

    def _read_annotated(self, annotation: Any, scope: Scope, path: str) -> Shape:
        inner = self.read(annotation.__origin__, scope, path)
        metas = tuple(meta for meta in annotation.__metadata__ if isinstance(meta, msgspec.Meta))
        if not metas:
            return inner
        shape = Constrained(annotation, inner, metas)
        if any(has_bounds(meta) for meta in metas) and isinstance(
            inner, Stream | ServiceObject | Union | Alias | Coded
        ):
            refuse(path, f"bounds cannot be checked on {name_of(inner.annotation)}: write them beside what is in it")
        return shape

    def union(self, annotation: Any, choices: Sequence[Shape], path: str) -> Shape:
        flat: dict[Any, Shape] = {}
        for choice in choices:
            for part in choice.parts if isinstance(choice, Union) else (choice,):
                if isinstance(part, Alias) and part.target is None:
                    refuse(path, f"{name_of(part.annotation)} is a union of itself")
                flat.setdefault(key_of(part), part)
        within = {
            key_of(part)
            for choice in flat.values()
            if isinstance(choice, Alias) and isinstance(choice.target, Union)
            for part in choice.target.parts
        }
        kept = tuple(choice for key, choice in flat.items() if key not in within)
        if len(kept) == 1:
            return kept[0]
        is_respelled = any(choice.is_respelled for choice in choices)
        key = (is_respelled, *(key for key in flat if key not in within))
        known = self._unions.get(key)  # a grammar of many classes has one in each field
        if known is not None:
            return known
        alike = wires.look_alike(kept)
        if alike is not None:
            one, other, wire = alike
            refuse(
                path,
                why_alike(name_of(one.annotation), name_of(other.annotation), wire, have_tags=_have_tags(one, other)),
            )
        union = self._unions[key] = Union(annotation, kept)
        union.is_respelled = is_respelled
        return union

    def _read_container(
        self, annotation: Any, origin: Any, arguments: tuple[Any, ...], scope: Scope, path: str
    ) -> Shape | None:
        if origin is tuple:
            return self._read_tuple(annotation, arguments, scope, path)
        if _is_among(origin, ARRAYS):
            kind, is_known = ARRAYS[origin]
            item = self.read(arguments[0] if arguments else Any, scope, f"{path}[]")
            array = self._array(annotation, kind, item, path)
            return array if is_known else respelled(array)
        if _is_among(origin, MAPS):
            key, value = arguments or (Any, Any)
            shape = Map(annotation, self.read(key, scope, f"{path}'s keys"), self.read(value, scope, f"{path}[]"))
            self._check_later(wires.why_no_key, shape.key, path, "cannot be the key of a map: send a list of pairs")
            return shape
        return None

    def _read_tuple(self, annotation: Any, arguments: tuple[Any, ...], scope: Scope, path: str) -> Shape:
        if annotation is tuple or annotation is typing.Tuple:  # noqa: UP006 - the one that is written with a capital
            return Array(annotation, tuple, Anything(Any))
        if len(arguments) == 2 and arguments[1] is ...:
            return self._array(annotation, tuple, self.read(arguments[0], scope, f"{path}[]"), path)
        items = (self.read(argument, scope, f"{path}[{index}]") for index, argument in enumerate(arguments))
        return FixedTuple(annotation, tuple(items))

    def _array(self, annotation: Any, kind: type, item: Shape, path: str) -> Array:
        if kind in (set, frozenset):
            self._check_later(wires.why_not_hashable, item, path, "cannot be in a set: send a list")
        return Array(annotation, kind, item)

    def _check_later(self, why_not: Callable[[Shape], str | None], shape: Shape, path: str, text: str) -> None:
        def check() -> None:
            reason = why_not(shape)
            if reason:
                refuse(path, f"{reason}, and {text}")

        self._unchecked.append(check)

    # What is called, read or mapped

    def _read_living(
        self, annotation: Any, origin: Any, arguments: tuple[Any, ...], scope: Scope, path: str
    ) -> Shape | None:
        if is_stream(annotation):
            return Stream(annotation, self.read(arguments[0] if arguments else Any, scope, f"{path}[]"))
        if is_service(annotation):
            bound = tuple(spelling(self.read(argument, scope, path)) for argument in arguments)
            return ServiceObject(origin[bound] if bound else annotation)
        if annotation is OwnedFd:
            return Descriptor(annotation)
        if annotation is Buffer:
            return BufferShape(annotation)
        return Memory(annotation) if _is_among(annotation, MEMORIES) else None

    # What has no parts, and what has fields

    def _read_leaf(self, annotation: Any, path: str) -> Shape | None:
        if annotation is Any:
            return Anything(annotation)
        if annotation is object:
            return respelled(Anything(annotation))
        scalar = scalar_shape(annotation)
        if scalar is not None or not isinstance(annotation, type):
            return scalar
        coding = coding_of(annotation)
        if coding is not None and coding.kind is annotation:
            coded = Coded(annotation, coding, shape_of(coding.wire_type))
            coded.is_respelled = kind_of(annotation) is not None or issubclass(annotation, enum.Enum)
            return coded
        if issubclass(annotation, enum.Flag):
            try:
                return respelled(Coded(annotation, flag_coding(annotation), shape_of(int)))
            except TypeError as exc:
                refuse(path, str(exc))
        return enum_shape(annotation) if issubclass(annotation, enum.Enum) else None

    def _read_object(
        self, annotation: Any, cls: Any, arguments: tuple[Any, ...], scope: Scope, path: str
    ) -> Shape | None:
        kind = kind_of(cls)
        if kind is None:
            return None
        read = tuple(self.read(argument, scope, path) for argument in arguments)
        key = (cls, *map(key_of, read))
        known = self._objects.get(key)
        if known is not None:
            return known
        if arguments and self._around.count(cls) > MOST_ALIKE:
            refuse(path[:LONGEST_PATH], ENDLESS)
        shape = self._objects[key] = Object(annotation, cls, kind, read)
        bases = bases_of(cls, arguments, scope)
        around = (*self._around, cls) if arguments else self._around
        self._unread.append(lambda: self._read_fields_of(shape, bases, around, path))
        if kind is Kind.TYPED_DICT and any(bases[base].bindings for base in bases if base is not cls):
            shape.is_respelled = True  # msgspec knows no bases of it
        return shape

    def _read_fields_of(self, shape: Object, bases: dict[type, Scope], around: tuple[Any, ...], path: str) -> None:
        self._around = around
        cls = shape.cls
        try:
            hints = field_hints(cls, bases)
        except Exception as exc:  # annotations that are text hold any expression
            raise TypeError(
                f"{path}: an annotation of {cls.__qualname__} cannot be resolved: {exc} (only names at the top of"
                " a module are known)"
            ) from exc
        try:
            fields = fields_of(cls, shape.kind)
        except TypeError as exc:
            refuse(path, str(exc))
        for field in fields:
            hint, inside = hints.get(field.name, (Any, NOWHERE))
            if shape.kind is Kind.TYPED_DICT:
                field.is_required = _is_required(hint, default=field.is_required)
                shape.is_respelled |= typing.get_origin(hint) is typing.Annotated  # which may be around NotRequired
            field.shape = self.read(hint, inside, f"{path}.{field.name}")
        shape.fields = fields


def _have_tags(*shapes: Shape) -> bool:
    return all(isinstance(shape, Object) and shape.tag is not None for shape in shapes)


def _is_among(origin: Any, table: Collection[Any]) -> bool:
    return isinstance(origin, Hashable) and origin in table


def _is_required(hint: Any, *, default: bool) -> bool:
    """Return whether a key of a TypedDict has to be there, which the class itself does not know of texts."""
    origin = typing.get_origin(hint)
    if origin in (typing.Required, typing.NotRequired):
        return origin is typing.Required
    return _is_required(hint.__origin__, default=default) if origin is typing.Annotated else default
