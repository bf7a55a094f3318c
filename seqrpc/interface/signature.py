"""One description of a service, made from its class: for the server, the proxy and the policy alike."""

from __future__ import annotations

import inspect
import re
import typing
import weakref
from collections.abc import AsyncIterator, Callable
from itertools import compress
from typing import Any

import msgspec

from seqrpc.errors import InvalidParams
from seqrpc.interface.conversion import Terms, cause_to_tell, convert
from seqrpc.interface.planning import plan
from seqrpc.interface.policy import Policy
from seqrpc.interface.service import Marks, Service, marks_of
from seqrpc.interface.standins import Plan
from seqrpc.interface.types import exact_type, is_stream, takes_descriptors

_P = inspect.Parameter
_NO_MARKS = Marks(None, oneway=False)
_PARAMS = Terms(InvalidParams)
_INDEX = r"`\$\[(\d{1,3})\]"


class MethodSpec:
    """A method: its name on the wire, its function, what it takes and gives, and whom it admits.

    Raises:
        TypeError: it cannot be called from elsewhere; the message names the method and the parameter.
    """

    def __init__(self, service_name: str, name: str, function: Callable[..., Any], marks: Marks) -> None:
        """Read the function's annotations."""
        self.name = name
        self.wire_name = f"{service_name}.{name}"
        self.function = function
        self.allow = marks.allow
        self.oneway = marks.oneway
        self.is_coroutine = inspect.iscoroutinefunction(function)
        self.is_generator = inspect.isasyncgenfunction(function)
        where = function.__qualname__
        if inspect.isgeneratorfunction(function):
            raise TypeError(f"{where}: a generator that streams is written 'async def'")
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except Exception as exc:  # annotations that are text hold any expression
            raise TypeError(f"{where}: an annotation cannot be resolved: {exc}") from exc
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters or parameters[0].kind not in (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD):
            raise TypeError(f"{where}: the first parameter of a method is its object, usually 'self'")
        self._read_parameters(where, parameters[1:], hints)
        self._read_result(where, hints.get("return", Any))

    def _read_result(self, where: str, annotation: Any) -> None:
        streams = is_stream(annotation)
        if self.is_generator and not streams:
            if annotation is not Any:
                raise TypeError(f"{where}: the result of a generator is AsyncIterator[...], not {annotation!r}")
            annotation, streams = AsyncIterator[Any], True
        if streams and self.oneway:
            raise TypeError(f"{where}: a stream is an answer, and oneway methods have none")
        self.streams = streams and not self.is_coroutine
        """Whether calling it gives a stream, without ``await``."""
        self.result = self._plan(where, "the result", annotation)

    def _read_parameters(self, where: str, parameters: list[inspect.Parameter], hints: dict[str, Any]) -> None:
        for parameter in parameters:
            if parameter.kind in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD):
                raise TypeError(f"{where}: parameters have names on the wire; '{parameter}' has none")
        planned = [self._plan(where, p.name, hints.get(p.name, Any)) for p in parameters]
        fields = [_field(p, one) for p, one in zip(parameters, planned, strict=True)]
        self.takes_descriptors = any(map(takes_descriptors, planned))
        """Whether an argument may hold descriptors, or be so large that it travels as one."""
        positional = [p for p in parameters if p.kind is not _P.KEYWORD_ONLY]
        self._positional = [p.name for p in positional]
        self._required = sum(p.default is _P.empty for p in positional)
        self._keyword_required = [p.name for p in parameters[len(positional) :] if p.default is _P.empty]
        self._read_exact(planned[: len(positional)])
        self._by_position = msgspec.defstruct(self.name, fields[: len(positional)], array_like=True)
        self._by_name = msgspec.defstruct(self.name, fields, kw_only=True, forbid_unknown_fields=True)

    def _read_exact(self, planned: list[Plan]) -> None:
        """Find out of what types arguments by position are for which there is nothing to convert."""
        exact = [exact_type(one) for one in planned if one is not Any]
        self._exact = None if self._keyword_required or None in exact else exact
        # Where anything goes no type is looked at; most methods say what they take, and need not be asked which.
        self._looked_at = tuple(one is not Any for one in planned) if Any in planned else None

    @staticmethod
    def _plan(where: str, name: str, annotation: Any) -> Plan:
        try:
            return plan(annotation)
        except (TypeError, NameError) as exc:
            raise TypeError(f"{where}: {name}: {exc}") from exc

    def bind(
        self, params: list[Any] | dict[str, Any], terms: Terms = _PARAMS
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments to call the function with, by position and by name, converted and checked.

        Raises:
            InvalidParams: they do not fit; the message holds the path to the first that does not.
        """
        if type(params) is list and len(params) == len(self._positional):
            looked_at = params if self._looked_at is None else compress(params, self._looked_at)
            if self._exact == [*map(type, looked_at)]:
                return tuple(params), {}
        try:
            if isinstance(params, dict):
                named = convert(params, self._by_name, terms)
                values = msgspec.structs.asdict(named)
                return tuple(values.pop(name) for name in self._positional), values
            count = len(params)
            if not self._required <= count <= len(self._positional) or self._keyword_required:
                raise self._wrong_count(count)
            return msgspec.structs.astuple(convert(params, self._by_position, terms)), {}
        except msgspec.ValidationError as exc:
            text = f"{self.wire_name}: {self._with_names(str(exc))}"
            raise InvalidParams(text) from cause_to_tell(exc)
        except RecursionError as exc:
            raise InvalidParams(f"{self.wire_name}: the arguments are nested too deeply") from exc

    def _wrong_count(self, count: int) -> InvalidParams:
        missing = [*self._positional[count : self._required], *self._keyword_required]
        if missing:
            return InvalidParams(f"{self.wire_name}: missing argument `{missing[0]}`")
        return InvalidParams(f"{self.wire_name}: takes at most {len(self._positional)} arguments, got {count}")

    def _with_names(self, text: str) -> str:
        """Name parameters in the path of an error, in place of ``$`` and indexes."""
        return re.sub(_INDEX, self._name_of_index, text).replace("`$.", "`")

    def _name_of_index(self, match: re.Match[str]) -> str:
        index = int(match[1])  # the text may quote what the caller sent: it may be any number
        return f"`{self._positional[index]}" if index < len(self._positional) else match[0]

    def params(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | dict[str, Any]:
        """Return what to send for a call in Python's own way: by position where that is enough, else by name.

        Raises:
            TypeError: too many by position, or one of them twice.
        """
        if not kwargs:
            return args
        if len(args) > len(self._positional):
            raise TypeError(f"{self.wire_name} takes {len(self._positional)} positional arguments, got {len(args)}")
        named = dict(zip(self._positional, args, strict=False))
        for name, value in kwargs.items():
            if name in named:
                raise TypeError(f"{self.wire_name} got the argument {name!r} twice")
            named[name] = value
        return named


def _field(parameter: inspect.Parameter, planned: Plan) -> tuple[str, Any, Any]:
    if parameter.default is _P.empty:
        return parameter.name, planned, msgspec.field()
    # A factory, for msgspec takes no mutable defaults; like Python's own, the object is shared.
    return parameter.name, planned, msgspec.field(default_factory=lambda: parameter.default)


class ServiceSpec:
    """A service: its name on the wire, its methods by name, and whom it admits where they do not say."""

    def __init__(self, cls: type) -> None:
        """Read a class: of a :class:`~seqrpc.Service` the marked methods, of any other the public functions."""
        is_service = issubclass(cls, Service)
        self.name = cls.service_name if issubclass(cls, Service) else cls.__name__
        self.policy: Policy | None = cls.service_policy if issubclass(cls, Service) else None
        self.methods: dict[str, MethodSpec] = {}
        for name in dir(cls):
            function = inspect.getattr_static(cls, name)
            marks = marks_of(cls, name) if is_service else _NO_MARKS
            if marks is None or function is None or (not is_service and name.startswith("_")):
                continue
            if not inspect.isfunction(function):
                if not is_service:
                    continue
                raise TypeError(f"{cls.__qualname__}.{name}: only plain methods can be called, not {function!r}")
            self.methods[name] = MethodSpec(self.name, name, function, marks)


_specs: weakref.WeakKeyDictionary[type, ServiceSpec] = weakref.WeakKeyDictionary()


def describe(cls: type) -> ServiceSpec:
    """Return the description of a class, made once.

    Raises:
        TypeError: a method cannot be called from elsewhere.
    """
    spec = _specs.get(cls)
    if spec is None:
        spec = _specs[cls] = ServiceSpec(cls)
    return spec
