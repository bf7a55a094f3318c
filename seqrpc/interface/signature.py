"""What binds arguments and calls functions, made from the description of a service: for the server and for proxies."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from seqrpc.errors import InvalidParams
from seqrpc.interface.arguments import counts_of, misfit
from seqrpc.interface.byclass import ByClass
from seqrpc.interface.contents import exact_type, takes_descriptors
from seqrpc.interface.conversion import WITHHELD, Terms, cause_to_tell, convert
from seqrpc.interface.description import (
    MethodDescription,
    Parameter,
    ServiceDescription,
    Value,
    describe,
    functions_of,
)
from seqrpc.interface.fitting import check_bases
from seqrpc.interface.planning import plan_shape, plan_struct
from seqrpc.interface.service import Service
from seqrpc.interface.shapes import Descriptor
from seqrpc.interface.standins import Planned
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.messages import Params
from seqrpc.text import shown

_PARAMS = Terms(InvalidParams)
_INDEX = r"`\$\[(\d{1,9})\]"

_KIND = "`(null|bool|int|float|str|bytes|array|object|date|datetime|timedelta|uuid|decimal)`"
_TYPES_ONLY = re.compile(rf"Expected {_KIND}, got {_KIND}")  # msgspec's own words, for what has nothing of a value


class MethodSpec:
    """A method, ready to be called or to call: its function, and what its arguments and results are converted to.

    Args:
        description: what the method is.
        function: the method's function in its class.

    Raises:
        TypeError: it cannot be called from elsewhere; the message names the method and the parameter.
    """

    def __init__(self, description: MethodDescription, function: Callable[..., Any]) -> None:
        """Plan what arguments and results are converted to."""
        self.description = description
        self.wire_name = description.wire_name
        self.function = function
        parameters = description.parameters
        planned = [self._plan(parameter.name, parameter) for parameter in parameters]
        self.result = self._plan("the result", description.result)
        self.takes_descriptors = any(takes_descriptors(parameter.shape) for parameter in parameters)
        """Whether an argument may hold descriptors, or be so large that it travels as one."""
        positional = [parameter for parameter in parameters if parameter.by_position]
        self._positional = [parameter.name for parameter in positional]
        self.is_sensitive = description.is_sensitive
        """Whether errors must not quote its arguments, nor the log what its handler raises."""
        self._names = frozenset(parameter.name for parameter in parameters)
        self._required = frozenset(parameter.name for parameter in parameters if parameter.is_required)
        self.counts = counts_of(description)
        """How many arguments by position, and none by name, it takes."""
        self._read_exact(planned[: len(positional)])
        fields = list(map(_field, parameters, planned))
        name = description.name
        self._by_position = plan_struct(name, fields[: len(positional)], array_like=True)
        self._by_name = plan_struct(name, fields, kw_only=True, forbid_unknown_fields=True)

    def _plan(self, name: str, value: Value) -> Planned:
        try:
            return plan_shape(value.shape)
        except TypeError as exc:
            raise TypeError(f"{self.function.__qualname__}: {name}: {exc}") from exc

    def _read_exact(self, planned: list[Planned]) -> None:
        """Find out which arguments by position the function can be given as they came."""
        exact = [OwnedFd if isinstance(one.shape, Descriptor) else exact_type(one.shape) for one in planned]
        may_be_enough = bool(self.counts)
        self.exact = exact if may_be_enough and None not in exact else None
        """The types of arguments by position for which there is nothing to convert; None if that is never so."""
        is_untyped = may_be_enough and all(one.kind is Any for one in planned)
        self.untyped = len(planned) if is_untyped else None
        """How many arguments by position are taken as they come, whatever they are; None if some are looked at."""

    def bind(
        self, params: list[Any] | dict[str, Any], terms: Terms = _PARAMS
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments to call the function with, by position and by name, converted and checked.

        Raises:
            InvalidParams: they do not fit; the message holds the path to the first that does not.
        """
        if self.is_sensitive:
            terms = terms._replace(tells=False)
        try:
            if isinstance(params, dict):
                named = convert(params, self._by_name, terms)
                values = msgspec.structs.asdict(named)
                return tuple(values.pop(name) for name in self._positional), values
            count = len(params)
            if count not in self.counts:
                raise InvalidParams(misfit(self.description, count) or self.wire_name)
            return msgspec.structs.astuple(convert(params, self._by_position, terms)), {}
        except msgspec.ValidationError as exc:
            told = misfit(self.description, 0, params) if isinstance(params, dict) else None
            if self.is_sensitive:
                raise InvalidParams(told or f"{self.wire_name}: {self._untold(str(exc))}") from None
            text = told or f"{self.wire_name}: {self._with_names(str(exc))}"
            raise InvalidParams(text) from cause_to_tell(exc)
        except RecursionError as exc:
            raise InvalidParams(f"{self.wire_name}: the arguments are nested too deeply") from exc

    def _with_names(self, text: str) -> str:
        """Name parameters in the path of an error, in place of ``$`` and indexes."""
        return re.sub(_INDEX, self._name_of_index, text).replace("`$.", "`")

    def _untold(self, text: str) -> str:
        """Return what an error says that quotes nothing: the parameter, and the types if that is all it is about."""
        what, _at, path = text.rpartition(" - at `$")
        found = re.match(r"\[(\d{1,3})\]|\.(\w+)", path)
        where = "an argument"
        if found is not None and found[1] and int(found[1]) < len(self._positional):
            where = f"`{self._positional[int(found[1])]}`"
        elif found is not None and found[2] in self._names:
            where = f"`{found[2]}`"
        if _TYPES_ONLY.fullmatch(what):
            return f"{what} - at {where}"
        return f"{where} does not fit its annotation ({WITHHELD})"

    def _name_of_index(self, match: re.Match[str]) -> str:
        index = int(match[1])  # the text may quote what the caller sent: it may be any number
        return f"`{self._positional[index]}" if index < len(self._positional) else match[0]

    def params(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Params:
        """Return what to send for a call in Python's own way: by position where no name is used, else by name.

        Raises:
            TypeError: they do not fit the parameters, whatever they are.
        """
        if not kwargs and len(args) in self.counts:
            return args
        named = dict(zip(self._positional, args, strict=False)) | kwargs
        if len(named) != len(args) + len(kwargs) or not self._required <= named.keys() <= self._names:
            raise TypeError(misfit(self.description, len(args), kwargs))
        return named


def _field(parameter: Parameter, planned: Planned) -> tuple[str, Planned, Any]:
    if parameter.is_required:
        return parameter.name, planned, msgspec.field()
    # A factory, for msgspec takes no mutable defaults; like Python's own, the object is shared.
    return parameter.name, planned, msgspec.field(default_factory=lambda: parameter.default)


class ServiceSpec:
    """A service, ready to be served or called.

    Args:
        cls: its class.

    Raises:
        TypeError: a method cannot be called from elsewhere, or does not fit what a base of the class declares.
    """

    def __init__(self, cls: Any) -> None:
        """Make the methods ready."""
        self.description: ServiceDescription = describe(cls)
        origin = typing.get_origin(cls) or cls
        if issubclass(origin, Service):
            check_bases(origin)
        functions = {name: function for name, (function, _marks) in functions_of(origin)}
        self.methods = {name: MethodSpec(method, functions[name]) for name, method in self.description.methods.items()}
        """By their names in Python."""


_specs = ByClass(ServiceSpec)


def spec_of(cls: Any) -> ServiceSpec:
    """Return what serves or calls the services of a class, made once.

    Raises:
        TypeError: a method cannot be called from elsewhere.
    """
    return _specs.of(cls)


def params_of(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Params:
    """Return the parameters of a call by name: by position or by name.

    Raises:
        TypeError: they are given both ways, or the name is none.
    """
    if not isinstance(method, str):  # a message with something else would end the connection
        raise TypeError(f"a method is called by its name, as 'Service.method', not by {shown(repr(method))}")
    if args and kwargs:
        raise TypeError(f"{method}: arguments go by position or by name, not both (a proxy takes both)")
    return kwargs or args
