"""What a service is, as data: read once from its class, for all who want to know it and not to call it.

A description has what is written in the class and nothing that does something: discovery, stubs, proxies of any kind
and command lines read it. Types are shapes (:mod:`seqrpc.interface.shapes`); what converts arguments is made from them,
and stands beside it, in :mod:`seqrpc.interface.signature`.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from seqrpc.errors import RpcError
from seqrpc.interface.annotations import is_sensitive, is_stream, shape_of
from seqrpc.interface.byclass import ByClass
from seqrpc.interface.contents import holds_descriptors, inner_of, may_be_large, spelling
from seqrpc.interface.functions import Runs, served, way_of
from seqrpc.interface.hints import NOWHERE, Scope, bases_of, function_hints
from seqrpc.interface.policy import Policy
from seqrpc.interface.service import Marks, PlainService, Service, marks_of, served_function
from seqrpc.interface.shapes import Anything, ServiceObject, Shape, Stream
from seqrpc.interface.spellings import PLAIN_STREAMS

_P = inspect.Parameter
_NO_MARKS = Marks(None, oneway=False)
_UNSAID: Final = (Any, NOWHERE)


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """What a call takes or gives, by its annotation."""

    annotation: Any
    """As it is written, with what :data:`typing.Annotated` adds; Any where nothing is."""

    shape: Shape
    """What the annotation says, with type variables bound, and names resolved."""

    is_annotated: bool = True
    """Whether an annotation is written there, or in a method that this one overrides."""

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream."""
        return isinstance(inner_of(self.shape), Stream)

    @property
    def item_type(self) -> Any:
        """The annotation of a stream's items.

        Raises:
            TypeError: it is no stream.
        """
        shape = inner_of(self.shape)
        if not isinstance(shape, Stream):
            raise TypeError(f"{self.annotation!r} is no stream, and has no items")
        return spelling(shape.item)

    @property
    def holds_descriptors(self) -> bool:
        """Whether there may be descriptors, buffers, streams or services in it."""
        return holds_descriptors(self.shape)

    @property
    def may_be_large(self) -> bool:
        """Whether it may be too long for a packet, apart from what travels as a descriptor."""
        return may_be_large(self.shape)


class Parameter(Value, frozen=True, kw_only=True):
    """A parameter of a method."""

    name: str

    default: Any
    """What it is if it is not given, or :data:`msgspec.NODEFAULT`: it has to be given."""

    by_position: bool
    """Whether Python takes it by position."""

    by_name: bool
    """Whether Python takes it by name; on the wire each has a name."""

    @property
    def is_required(self) -> bool:
        """Whether it has to be given."""
        return self.default is msgspec.NODEFAULT


class MethodDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A method of a service."""

    name: str
    wire_name: str
    doc: str
    """Its docstring without indentation, or nothing."""

    parameters: tuple[Parameter, ...]
    """In the order in which they are written, without the first, which is the object."""

    result: Value
    runs: Runs
    oneway: bool
    """Whether it is called without waiting for an answer."""

    idempotent: bool
    """Whether running it twice does no more than running it once, so that it may be called again."""

    allow: Policy | None
    """Who may call it, or None: what the service says."""

    errors: tuple[type[RpcError], ...] = ()
    """Those that its handler raises on purpose, as it declares them."""

    @property
    def is_sensitive(self) -> bool:
        """Whether an argument of it, or its result, is or holds what is not to be told."""
        return any(is_sensitive(value.shape) for value in (*self.parameters, self.result))

    @property
    def streams(self) -> bool:
        """Whether calling it gives a stream, without ``await``."""
        return self.result.is_stream and self.runs is not Runs.COROUTINE


class ServiceDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A service."""

    name: str
    """What it is called on the wire."""

    doc: str
    """The docstring of its class without indentation, or nothing."""

    methods: Mapping[str, MethodDescription]
    """By their names in Python, in alphabetical order."""

    policy: Policy | None
    """Who may call its methods where they do not say, or None: what the server says."""

    bases: tuple[str, ...]
    """The names on the wire of the services that its class is made of, the nearest first."""


def describe(cls: Any) -> ServiceDescription:
    """Return the description of a class, made once.

    Args:
        cls: of a :class:`~seqrpc.Service` the marked methods are described, of any other class the public functions,
            as marked as they are.
            The type variables of a generic class may be bound: ``Store[User]``.

    Raises:
        TypeError: a method cannot be called from elsewhere, or takes or gives what cannot be sent.
    """
    return _described.of(cls)


def _describe(described: Any) -> ServiceDescription:
    cls = typing.get_origin(described) or described
    scopes = bases_of(cls, typing.get_args(described))
    services = [base for base in cls.__mro__ if issubclass(base, Service) and base is not Service]
    name = cls.service_name if issubclass(cls, Service) else cls.__name__
    methods = {
        attribute: _describe_method(name, attribute, *found, _hints_as_described(cls, attribute, scopes))
        for attribute, found in functions_of(cls)
    }
    for method in methods.values():
        _check_stand_in(cls, method)
    return ServiceDescription(
        name=name,
        doc=inspect.cleandoc(cls.__doc__ or ""),
        methods=MappingProxyType(methods),
        policy=cls.service_policy if issubclass(cls, Service) else None,
        bases=tuple(base.service_name for base in services if base is not cls),
    )


_described = ByClass(_describe)


def functions_of(cls: type) -> Iterator[tuple[str, tuple[Callable[..., Any], Marks]]]:
    """Yield the functions of a class that can be called from elsewhere, by name, with what is marked on them.

    Raises:
        TypeError: one is marked that is no plain method.
    """
    is_service = issubclass(cls, Service)
    for name in dir(cls):
        if is_service:
            marks = marks_of(cls, name)
            function = None if marks is None else served_function(cls, name)
        else:
            marks, function = _NO_MARKS, None if name.startswith("_") else inspect.getattr_static(cls, name)
        if marks is not None and inspect.isfunction(function):
            yield name, (served(function), marks if is_service else marks_of(cls, name) or _NO_MARKS)


def _check_stand_in(cls: type, method: MethodDescription) -> None:
    """Check that a method is on the object itself what it is on a proxy, as far as one of them streams."""
    if method.streams and inspect.iscoroutinefunction(inspect.getattr_static(cls, method.name)):
        where = f"{cls.__qualname__}.{method.name}"
        raise TypeError(
            f"{where}: it streams, which does not show where it is defined: annotate its result as a stream, with names"
            " that are defined before it"
        )


Hints = Mapping[str, tuple[Any, Scope]]
"""Annotations by the names of parameters, and ``return``, with what surrounds each."""


def _hints_of(cls: type, name: str, scopes: Mapping[type, Scope]) -> Hints:
    """Return the annotations of a method; what it does not say itself, the methods say that it overrides.

    Raises:
        TypeError: an annotation cannot be resolved.
    """
    hints: dict[str, tuple[Any, Scope]] = {}
    for base in cls.__mro__:
        found: Any = vars(base).get(name)
        function = served(getattr(found, "__func__", found))
        if base in scopes and inspect.isfunction(function):
            try:
                hints = {**function_hints(function, scopes[base]), **hints}
            except Exception as exc:  # annotations that are text hold any expression
                text = f"an annotation cannot be resolved: {exc} (only names at the top of its module are known)"
                raise TypeError(f"{function.__qualname__}: {text}") from exc
    return hints


def _hints_as_described(cls: type, name: str, scopes: Mapping[type, Scope]) -> Hints:
    """Return the annotations of a method, with what streams in the spelling of services.

    An interface of plain functions says ``Iterator[int]`` where a service says ``AsyncIterator[int]``.
    """
    hints = _hints_of(cls, name, scopes)
    if issubclass(cls, Service) and not issubclass(cls, PlainService):
        return hints
    return {parameter: (_as_stream(annotation), scope) for parameter, (annotation, scope) in hints.items()}


def _as_stream(annotation: Any) -> Any:
    """Return an annotation with its plain streams, also those within it, as asynchronous ones."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if any(kind is (origin or annotation) for kind in PLAIN_STREAMS):
        return AsyncIterator[_as_stream(arguments[0]) if arguments else Any]  # type: ignore[misc] # known when it runs
    inner = tuple(_as_stream(argument) for argument in arguments)
    if all(new is old for new, old in zip(inner, arguments, strict=True)):
        return annotation
    if origin in (typing.Union, types.UnionType):
        return typing.Union[inner]  # noqa: UP007 - of types that are known when it runs
    return typing.Annotated[inner] if origin is typing.Annotated else origin[inner]


def _describe_method(
    service: str, name: str, function: Callable[..., Any], marks: Marks, hints: Hints
) -> MethodDescription:
    where = function.__qualname__
    if inspect.isgeneratorfunction(function) and not is_stream(hints.get("return", _UNSAID)[0]):
        raise TypeError(f"{where}: a generator that streams is written 'async def'")
    runs = way_of(function)
    return MethodDescription(
        name=name,
        wire_name=f"{service}.{name}",
        doc=inspect.cleandoc(function.__doc__ or ""),
        parameters=_parameters(where, function, hints),
        result=_result(where, hints, runs, oneway=marks.oneway),
        runs=runs,
        oneway=marks.oneway,
        idempotent=marks.idempotent,
        allow=marks.allow,
        errors=marks.errors,
    )


def _parameters(where: str, function: Callable[..., Any], hints: Hints) -> tuple[Parameter, ...]:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind not in (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD):
        raise TypeError(f"{where}: the first parameter of a method is its object, usually 'self'")
    first = parameters[0].name
    if first != "self" and _is_data(*hints.get(first, _UNSAID)):
        names = ", ".join(parameter.name for parameter in parameters)
        text = f"the first parameter of a method is its object, and this is `{first}`"
        raise TypeError(f"{where}: {text}: write {function.__name__}(self, {names})")
    for parameter in parameters[1:]:
        if parameter.kind in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD):
            bare = parameter.replace(annotation=_P.empty)
            raise TypeError(f"{where}: parameters have names on the wire; '{bare}' has none: take a list, or a dict")
    return tuple(_parameter(where, parameter, hints) for parameter in parameters[1:])


def _is_data(annotation: Any, scope: Scope) -> bool:
    """Return whether an annotation is of an argument, and could not be of the object whose method it is."""
    try:
        return not isinstance(shape_of(annotation, scope), Anything | ServiceObject)
    except TypeError:
        return False


def _parameter(where: str, parameter: inspect.Parameter, hints: Hints) -> Parameter:
    annotation, scope = hints.get(parameter.name, _UNSAID)
    return Parameter(
        name=parameter.name,
        annotation=annotation,
        shape=shape_of(annotation, scope, f"{where}: {parameter.name}"),
        is_annotated=parameter.name in hints,
        default=msgspec.NODEFAULT if parameter.default is _P.empty else parameter.default,
        by_position=parameter.kind is not _P.KEYWORD_ONLY,
        by_name=parameter.kind is not _P.POSITIONAL_ONLY,
    )


def _result(where: str, hints: Hints, runs: Runs, *, oneway: bool) -> Value:
    is_generator = runs is Runs.GENERATOR
    annotation, scope = hints.get("return", (AsyncIterator[Any] if is_generator else Any, NOWHERE))
    shape = shape_of(annotation, scope, f"{where}: the result")
    value = Value(annotation=annotation, shape=shape, is_annotated="return" in hints)
    if is_generator and not value.is_stream:
        raise TypeError(f"{where}: the result of a generator is AsyncIterator[...], not {annotation!r}")
    if oneway and value.is_stream:
        raise TypeError(f"{where}: a stream is an answer, and oneway methods have none")
    return value
