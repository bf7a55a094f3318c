"""Plain data to annotated types, with descriptors, buffers, streams and channels anywhere inside them.

msgspec does the work. It knows none of those; to it :class:`~seqrpc.OwnedFd` is a custom type, which
may not share a union with anything but None. Where an annotation says more (``OwnedFd | str``, a stream of
some type, a service), that part, and the dataclass around it, are swapped for a stand-in that sorts it out in
``dec_hook``.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import operator
import re
import types
import typing
from typing import Annotated, Any, ClassVar, Final, NamedTuple, Union

import msgspec

from seqrpc.errors import InvalidParams, InvalidResult
from seqrpc.interface.service import Service
from seqrpc.interface.sets import SetBounds
from seqrpc.interface.streams import ReceivedStream, checked
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import DEFAULT_LIMITS, MAX_CONVERTED_VALUES

_NATIVE: Final = (bytes, bytearray, memoryview)

_EXACT: Final = (int, str, bool, bytes, type(None))

_STREAMS: Final = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)

_TWO_PATHS: Final = r" - at `\$([^`]*)` - at `([^`]*)`$"
"""The end of an error that has come through a stand-in: the path inside, and the path to it."""

_LONGEST_PART: Final = 500
"""Characters that are kept of the beginning and of the end of an error, which may quote all of what came."""

Plan = Any
"""A type as msgspec takes it, made from an annotation by :func:`plan`."""

Invalid = type[InvalidParams] | type[InvalidResult]
"""Whose fault it is if an item of a stream does not fit."""


class Terms(NamedTuple):
    """What a conversion goes by, besides the type."""

    invalid: Invalid
    """What a stream raises at an item that does not fit."""

    max_other_keys: int = DEFAULT_LIMITS.max_other_keys
    """Elements of a set at most that may be chosen to collide (:mod:`seqrpc.interface.sets`)."""


RESULT: Final = Terms(InvalidResult)


class _AnyInstance(type):
    """Lets msgspec take whatever ``build`` returns: it checks that ``dec_hook`` gave what was wanted."""

    def __instancecheck__(cls, instance: object) -> bool:
        return True


class _StandIn(metaclass=_AnyInstance):
    """Base of the types that stand in for what msgspec cannot have."""

    stands_for: ClassVar[str] = ""

    @classmethod
    def build(cls, value: Any, hook: _Hook) -> Any:
        """Return what ``value`` is converted to, or raise msgspec.ValidationError."""
        raise NotImplementedError


def convert(value: Any, wanted: Plan, terms: Terms = RESULT, hook: _Hook | None = None) -> Any:
    """Return ``value``, as it came off the wire, as the type that ``wanted`` was planned from.

    Args:
        value: plain data, descriptors, buffers, streams and channels.
        wanted: what it is to be.
        terms: how it is converted.
        hook: that of the conversion that this is a part of.

    Raises:
        msgspec.ValidationError: it does not fit; the message says where and why. So does what a class of the
            application's own says in a ValueError or TypeError as it is made (``__post_init__``).
    """
    bounds = _bounds_of(wanted)
    try:
        if bounds:
            bounds.check(value, terms.max_other_keys)
        return msgspec.convert(value, wanted, builtin_types=_NATIVE, dec_hook=hook or _Hook(terms))
    except msgspec.ValidationError as exc:
        text = str(exc)
        short = _cut(text)
        # No name for what is raised: it would be held by this frame, which it holds, and keep what came.
        raise msgspec.ValidationError(re.sub(_TWO_PATHS, r" - at `\2\1`", short)) from (exc if short is text else None)
    except AttributeError as exc:
        if isinstance(exc.obj, Buffer):  # it can be indexed, and msgspec takes it for a map
            raise msgspec.ValidationError("Expected `object`, got `Buffer`") from exc
        raise


@functools.lru_cache(maxsize=4096)
def _bounds_of(wanted: Plan) -> SetBounds:
    return SetBounds(wanted)


def cause_to_tell(exc: Exception) -> Exception | None:
    """Return what tells more of a value that does not fit than the error made of ``exc`` does.

    msgspec's own errors do not: they quote the other side as it is, and a traceback shows causes.
    """
    return None if isinstance(exc, msgspec.ValidationError) else exc


def _cut(text: str) -> str:
    """Return a text that may quote what came, without its middle if it is long: what is wrong, and at the end where."""
    return text if len(text) <= 2 * _LONGEST_PART else f"{text[:_LONGEST_PART]}…{text[-_LONGEST_PART:]}"


def exact_type(planned: Plan) -> type | None:
    """Return the type whose values, and no others of which anything is known, need no conversion to ``planned``.

    None if there is no such type: where values are converted, and where anything goes.
    """
    return planned if planned in _EXACT else None


class _Hook:
    """What msgspec calls for the values of one conversion that it cannot convert itself."""

    __slots__ = ("left", "terms")

    def __init__(self, terms: Terms) -> None:
        """Begin a conversion."""
        self.terms = terms
        self.left = MAX_CONVERTED_VALUES  # values of this conversion, with those inside it

    def __call__(self, wanted: Any, value: Any) -> Any:
        """Return ``value`` as the type ``wanted``."""
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"More than {MAX_CONVERTED_VALUES} values that may be descriptors, streams or services")
        if is_stream(wanted):  # within a Struct, whose fields msgspec reads itself
            wanted = _stand_in_stream(wanted)
        if issubclass(wanted, _StandIn):
            try:
                return wanted.build(value, self)
            except msgspec.ValidationError as exc:
                raise ValueError(str(exc)) from exc  # to this msgspec adds the path
        if isinstance(value, wanted):
            return value
        raise ValueError(_expected("a descriptor" if wanted is OwnedFd else "a buffer", value))


def _expected(what: str, value: Any) -> str:
    return f"Expected {what}, got `{type(value).__name__}`"


# Stand-ins for living values


def is_stream(annotation: Any) -> bool:
    """Return whether an annotation is that of a stream: ``AsyncIterator[T]``, ``AsyncGenerator[T]``, ``Stream[T]``."""
    origin = typing.get_origin(annotation) or annotation
    return origin in _STREAMS or (isinstance(origin, type) and issubclass(origin, ReceivedStream))


def _is_service(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Service)


@functools.cache
def _stand_in_stream(annotation: Any) -> type[_StandIn]:
    """Return what takes a stream and checks its items."""
    arguments = typing.get_args(annotation)
    planned = list[plan(arguments[0])] if arguments else None  # type: ignore[misc] # a plan is a type

    class Streamed(_StandIn):
        stands_for = "a stream"

        @classmethod
        def build(cls, value: Any, hook: _Hook) -> Any:
            if not isinstance(value, ReceivedStream):
                raise msgspec.ValidationError(_expected("a stream", value))
            if planned is None:
                return value
            return checked(value, functools.partial(_check_items, planned, hook.terms))

    return Streamed


def _check_items(planned: Plan, terms: Terms, items: list[Any]) -> list[Any]:
    try:
        converted: list[Any] = convert(items, planned, terms)
    except Exception as exc:  # types of the application's own raise what they like while they are built
        if terms.invalid is InvalidParams and not isinstance(exc, msgspec.ValidationError):
            raise  # it is about the inside, and would cross as the handler's answer
        text = _cut(str(exc)).replace("`$[0]", "`$").removesuffix(" - at `$`")  # it is looked at in a list, by itself
        raise terms.invalid(f"an item of a stream does not fit its annotation: {text}") from cause_to_tell(exc)
    return converted


@functools.cache
def _stand_in_service(cls: type[Service]) -> type[_StandIn]:
    """Return what takes a channel and makes it a proxy."""

    class Held(_StandIn):
        stands_for = "a service"

        @classmethod
        def build(cls, value: Any, hook: _Hook) -> Any:  # noqa: ARG003 - it has no items
            make_proxy = getattr(value, "proxy", None)  # channels are made of connections, and stand higher up
            if make_proxy is None:
                raise msgspec.ValidationError(_expected("a channel", value))
            return make_proxy(held)

    held = cls
    return Held


class _View(_StandIn):
    """Takes a buffer, or plain bytes, as a memoryview."""

    @classmethod
    def build(cls, value: Any, hook: _Hook) -> Any:  # noqa: ARG003 - it has no items
        if not isinstance(value, Buffer | bytes | memoryview):
            raise msgspec.ValidationError(_expected("a buffer or bytes", value))
        return memoryview(value)


def _living(annotation: Any) -> type[_StandIn] | None:
    """Return the stand-in of a type that msgspec cannot have by itself, or None."""
    if is_stream(annotation):
        return _stand_in_stream(annotation)
    if _is_service(annotation):
        return _stand_in_service(annotation)
    return _View if annotation is memoryview else None


def plan(annotation: Any) -> Plan:
    """Return what msgspec converts to in place of ``annotation``.

    Raises:
        TypeError: msgspec cannot convert to it; the message says why.
    """
    planned = type(None) if annotation is None else _plan(annotation, {})
    for unknown in _custom_types(planned):
        if not is_stream(unknown) and not issubclass(unknown, (OwnedFd, Buffer, _StandIn)):
            where = " within a Struct (a dataclass would do)" if _is_service(unknown) else ""
            raise TypeError(f"values of type {unknown.__qualname__} cannot be sent{where}")
    return planned


def has_custom_types(planned: Plan) -> bool:
    """Return whether values of this type may hold streams, descriptors, buffers or services."""
    return bool(_custom_types(planned))


_BOUNDED: Final = (
    msgspec.inspect.BoolType,
    msgspec.inspect.DateTimeType,
    msgspec.inspect.DateType,
    msgspec.inspect.FloatType,
    msgspec.inspect.IntType,
    msgspec.inspect.NoneType,
    msgspec.inspect.TimeDeltaType,
    msgspec.inspect.TimeType,
    msgspec.inspect.UUIDType,
)


def takes_descriptors(planned: Plan) -> bool:
    """Return whether a value of this type may travel with descriptors: it may hold some, or be large (section 5)."""
    return not _is_bounded(msgspec.inspect.type_info(planned))


def _is_bounded(info: Any) -> bool:
    """Return whether values of a type are plain, and all small."""
    if isinstance(info, msgspec.inspect.UnionType):
        return all(map(_is_bounded, info.types))
    if isinstance(info, msgspec.inspect.Metadata):
        return _is_bounded(info.type)
    return isinstance(info, (*_BOUNDED, msgspec.inspect.EnumType, msgspec.inspect.LiteralType))


def types_in(planned: Plan) -> list[Any]:
    """Return what msgspec knows of a type, and of all types in it."""
    found: list[Any] = []
    seen: set[int] = set()
    todo = [msgspec.inspect.type_info(planned)]
    while todo:
        info = todo.pop()
        if id(info) in seen or not isinstance(info, msgspec.Struct):
            continue
        seen.add(id(info))
        found.append(info)
        for child in msgspec.structs.astuple(info):
            todo += child if isinstance(child, tuple) else (child,)
    return found


def _custom_types(planned: Plan) -> list[type]:
    """Return the types in ``planned`` that msgspec leaves to ``dec_hook``."""
    return [
        info.cls
        for info in types_in(planned)
        if isinstance(info, msgspec.inspect.CustomType) or _is_service(getattr(info, "cls", None))
    ]


def _is_custom(annotation: Any) -> bool:
    return annotation in (OwnedFd, Buffer) or _living(annotation) is not None


def _is_mixed(annotation: Any) -> bool:
    """Return whether it is a union of what travels as a descriptor and something besides None."""
    args = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
    is_union = typing.get_origin(annotation) in (Union, types.UnionType)
    return is_union and len(args) > 1 and any(map(_is_custom, args))


def _holds_mixed(annotation: Any, seen: set[Any]) -> bool:
    """Return whether such a union, or a living value, is anywhere inside, through dataclasses too."""
    if _is_mixed(annotation) or _living(annotation) is not None:
        return True
    if _is_dataclass(annotation):
        if annotation in seen:
            return False
        seen.add(annotation)
        hints = typing.get_type_hints(annotation, include_extras=True)
        return any(_holds_mixed(hint, seen) for hint in hints.values())
    return any(_holds_mixed(arg, seen) for arg in typing.get_args(annotation))


def _is_dataclass(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _plan(annotation: Any, within: dict[type, Any]) -> Plan:
    """Swap what msgspec cannot have; ``within`` holds the stand-ins of the dataclasses around it."""
    if not _holds_mixed(annotation, set()):
        return annotation
    living = _living(annotation)
    if living is not None:
        return living
    if _is_dataclass(annotation):
        return within.get(annotation) or _stand_in_dataclass(annotation, within)
    args = typing.get_args(annotation)
    planned = [_plan(arg, within) for arg in args]
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return _plan_union(planned, annotation)
    if typing.get_origin(annotation) is Annotated:
        return Annotated[(planned[0], *annotation.__metadata__)]
    return typing.get_origin(annotation)[tuple(planned)]


def _plan_union(planned: list[Plan], annotation: Any) -> Plan:
    for kind in ("a stream", "a service"):
        if sum(getattr(arg, "stands_for", "") == kind for arg in planned) > 1:
            raise TypeError(f"{annotation} cannot be sent: {kind} does not say which of them it is")
    special = [arg for arg in planned if isinstance(arg, type) and issubclass(arg, (OwnedFd, Buffer, _StandIn))]
    others = [arg for arg in planned if arg not in special]
    if len(special) == 1 and others in ([], [type(None)]):
        return functools.reduce(operator.or_, planned)
    return _stand_in_union(special, functools.reduce(operator.or_, others) if others else None)


def _stand_in_union(special: list[Any], rest: Plan) -> type[_StandIn]:
    class Either(_StandIn):
        @classmethod
        def build(cls, value: Any, hook: _Hook) -> Any:
            if isinstance(value, OwnedFd | Buffer) and type(value) in special:
                return value
            failures: list[str] = []
            choices = (kind for kind in special if kind not in (OwnedFd, Buffer))
            for choice in (*([] if rest is None else [rest]), *choices):
                try:
                    return convert(value, choice, hook=hook)
                except msgspec.ValidationError as exc:
                    failures.append(str(exc))
            raise msgspec.ValidationError("; ".join(failures) or "Expected a descriptor")

    return Either


def _stand_in_dataclass(original: Any, within: dict[type, Any]) -> type[_StandIn]:
    """Return what builds ``original`` from a struct of the same fields."""

    class Built(_StandIn):
        mirror: ClassVar[Any]

        @classmethod
        def build(cls, value: Any, hook: _Hook) -> Any:
            return original(**msgspec.structs.asdict(convert(value, cls.mirror, hook=hook)))

    within[original] = Built  # before its fields, one of which may hold the class itself
    hints = typing.get_type_hints(original, include_extras=True)
    fields = [
        _mirror_field(field, _plan(hints[field.name], within)) for field in dataclasses.fields(original) if field.init
    ]
    Built.mirror = msgspec.defstruct(original.__name__, fields, kw_only=True)
    return Built


def _mirror_field(field: dataclasses.Field[Any], planned: Plan) -> tuple[str, Any, Any]:
    if field.default_factory is not dataclasses.MISSING:
        return field.name, planned, msgspec.field(default_factory=field.default_factory)
    if field.default is not dataclasses.MISSING:
        return field.name, planned, msgspec.field(default_factory=lambda: field.default)
    return field.name, planned, msgspec.field()
