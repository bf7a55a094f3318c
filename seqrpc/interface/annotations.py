"""From annotations to shapes: the one walk over types, which knows all their spellings.

What cannot be sent is refused here, with the path to it and a way out, before anything is served or called.
"""

from __future__ import annotations

import enum
import sys
import types
import typing
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, Final, NoReturn

import msgspec

from seqrpc.interface import wires
from seqrpc.interface.contents import inner_of, spelling
from seqrpc.interface.excuses import way_out, why_alike
from seqrpc.interface.fields import fields_of, kind_of
from seqrpc.interface.flags import flag_coding
from seqrpc.interface.hints import NOWHERE, Scope, bases_of, field_hints, resolve
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

_BOUNDS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")

_LONGEST_PATH: Final = 60  # characters

_DEEPEST: Final = 60  # levels of containers and names; a message has no more

_MOST_ALIKE: Final = 8
"""Generic classes, or aliases, of one kind that may be in each other, each bound to something else."""

_ENDLESS: Final = "it is nested without an end: write a class that does not hold more and more of itself"


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


def is_service(annotation: Any) -> bool:
    """Return whether an annotation is that of a service as a value, which may be of a generic class."""
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Service)


class _Reader:
    """Reads one annotation, and knows what it has read of it."""

    def __init__(self) -> None:
        self._unions: dict[Any, Union] = {}
        self._objects: dict[Any, Object] = {}  # also those whose fields are not read yet
        self._aliases: dict[Any, Alias] = {}  # those that are being read
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
            if self._depth > _DEEPEST:
                _refuse(path[:_LONGEST_PATH], _ENDLESS)
            return self._read(annotation, scope, path)
        finally:
            self._depth -= 1

    def _read(self, annotation: Any, scope: Scope, path: str) -> Shape:
        for read in (self._read_variable, self._read_text, self._read_alias, self._read_form):
            shape = read(annotation, scope, path)
            if shape is not None:
                return shape
        origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
        return (
            self._read_container(annotation, origin, arguments, scope, path)
            or self._read_living(annotation, origin, arguments, scope, path)
            or self._read_leaf(annotation, path)
            or self._read_object(annotation, origin, arguments, scope, path)
            or _refuse(path, way_out(annotation))
        )

    def _read_form(self, annotation: Any, scope: Scope, path: str) -> Shape | None:
        """Return the shape of a form of the typing module, which is no class."""
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._read_annotated(annotation, scope, path)
        if _is_among(origin, QUALIFIERS):
            return self.read(arguments[0], scope, path)
        if origin is typing.Literal:
            return literal_shape(annotation) or _refuse(path, way_out(annotation))
        if origin in (typing.Union, types.UnionType):
            return self._union(annotation, [self.read(argument, scope, path) for argument in arguments], path)
        supertype = getattr(annotation, "__supertype__", None)  # of a NewType
        if annotation is None or supertype is not None:
            return self.read(supertype or type(None), scope, path)
        return None

    # What stands for another type

    def _read_variable(self, annotation: Any, scope: Scope, path: str) -> Shape | None:
        if annotation is typing.Self:
            if scope.itself is None:
                _refuse(path, "there is no class here that Self could mean")
            return _respelled(self.read(*scope.itself, path))
        if not isinstance(annotation, typing.TypeVar):
            return None
        if annotation in scope.bindings:
            return self.read(*scope.bindings[annotation], path)
        if annotation.__constraints__:
            choices = [self.read(choice, scope, path) for choice in annotation.__constraints__]
            return _respelled(self._union(annotation, choices, path))
        has_default = getattr(annotation, "has_default", None)
        if has_default is not None and has_default():
            return _respelled(self.read(annotation.__default__, scope, path))  # type: ignore[attr-defined] # since 3.13
        return Anything(annotation) if annotation.__bound__ is None else self.read(annotation.__bound__, scope, path)

    def _read_text(self, annotation: Any, scope: Scope, path: str) -> Shape | None:
        if isinstance(annotation, typing.ForwardRef):
            annotation = annotation.__forward_arg__
        if not isinstance(annotation, str):
            return None

        def target() -> Shape:
            try:
                meant = resolve(annotation, scope)
            except Exception as exc:  # the text may be any expression
                text = f"{annotation!r} cannot be resolved: {exc} (only names at the top of a module are known)"
                raise TypeError(f"{path}: {text}") from exc
            return self.read(meant, scope, path)

        return _respelled(self._named(annotation, ("text", annotation, id(scope)), path, target))

    def _read_alias(self, annotation: Any, scope: Scope, path: str) -> Shape | None:
        origin = typing.get_origin(annotation) or annotation
        if type(origin).__name__ != "TypeAliasType":  # of typing, since 3.12, or of typing_extensions
            return None
        arguments = typing.get_args(annotation)
        bindings = {name: (one, scope) for name, one in zip(origin.__type_params__, arguments, strict=False)}
        inside = Scope({**scope.names, **_names_around(origin)}, bindings, scope.itself)
        key = (origin, *(key_of(self.read(argument, scope, path)) for argument in arguments))
        if sum(known[0] is origin for known in self._aliases) > _MOST_ALIKE:
            _refuse(path[:_LONGEST_PATH], _ENDLESS)
        return self._named(annotation, key, path, lambda: self.read(origin.__value__, inside, path))

    def _named(self, annotation: Any, key: Any, path: str, target: Callable[[], Shape]) -> Shape:
        """Return what a name stands for, which may be something with the same name in it."""
        if key in self._aliases:
            return _respelled(self._aliases[key])
        alias = self._aliases[key] = Alias(annotation)
        try:
            shape = target()
        finally:
            del self._aliases[key]
        if not alias.is_respelled:  # nothing in it refers to it
            return shape
        if inner_of(shape) is alias:
            _refuse(path, f"{name_of(annotation)} stands for itself")
        alias.target = shape
        return alias

    def _read_annotated(self, annotation: Any, scope: Scope, path: str) -> Shape:
        inner = self.read(annotation.__origin__, scope, path)
        metas = tuple(meta for meta in annotation.__metadata__ if isinstance(meta, msgspec.Meta))
        if not metas:
            return inner
        shape = Constrained(annotation, inner, metas)
        if any(_has_bounds(meta) for meta in metas) and isinstance(
            inner, Stream | ServiceObject | Union | Alias | Coded
        ):
            _refuse(path, f"bounds cannot be checked on {name_of(inner.annotation)}: write them beside what is in it")
        return shape

    # What consists of others

    def _union(self, annotation: Any, choices: Sequence[Shape], path: str) -> Shape:
        flat: dict[Any, Shape] = {}
        for choice in choices:
            for part in choice.parts if isinstance(choice, Union) else (choice,):
                if isinstance(part, Alias) and part.target is None:
                    _refuse(path, f"{name_of(part.annotation)} is a union of itself")
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
            _refuse(
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
            return array if is_known else _respelled(array)
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
                _refuse(path, f"{reason}, and {text}")

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
            return _respelled(Anything(annotation))
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
                return _respelled(Coded(annotation, flag_coding(annotation), shape_of(int)))
            except TypeError as exc:
                _refuse(path, str(exc))
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
        if arguments and self._around.count(cls) > _MOST_ALIKE:
            _refuse(path[:_LONGEST_PATH], _ENDLESS)
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
            _refuse(path, str(exc))
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


def _respelled(shape: Shape) -> Shape:
    """Mark a shape as one whose annotation says nothing to msgspec."""
    shape.is_respelled = True
    return shape


def _names_around(alias: Any) -> dict[str, Any]:
    return vars(sys.modules.get(getattr(alias, "__module__", None) or "", object))


def _has_bounds(meta: msgspec.Meta) -> bool:
    return any(getattr(meta, name) is not None for name in _BOUNDS)


def _refuse(path: str, text: str) -> NoReturn:
    raise TypeError(f"{path}: {text}" if path else text)
