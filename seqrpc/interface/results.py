"""Whether what a handler returns fits its annotation: its caller would notice, and this side is to hear of it first."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from seqrpc.errors import InvalidResult
from seqrpc.interface.conversion import NATIVE
from seqrpc.interface.service import RemoteService, Service
from seqrpc.interface.standins import UNMADE, Plan, ServiceStandIn, StandIn, StreamStandIn, expected
from seqrpc.interface.types import exact_type, is_stream, runs_code, unknown_types
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd


class Something:
    """Stands for what msgspec does not know, such as a descriptor where only numbers should be."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        """Hold it."""
        self.value = value


_A_DESCRIPTOR: Final = OwnedFd.__new__(OwnedFd)
"""Shown to msgspec in place of whatever lends a descriptor."""


_KNOWN: Final = (*NATIVE, Something)

_BASES: Final[dict[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    int: int.__int__,
    float: float.__float__,
    dt.datetime: dt.datetime.isoformat,
}
"""Classes that msgpack sends also where a value is of a subclass, and how it is one of the class itself."""

_AN_OBJECT: Final = re.compile(r"Expected `.*, got `(?!(?:int|float|bool|str|bytes|null|array|object|None)`)\w+`")
"""What msgspec says of an object that it did not take apart, such as one of a subclass."""


def _known(value: object) -> Any:
    """Return what stands for a value that msgspec does not take apart."""
    for base, made in _BASES.items():
        if isinstance(value, base):
            return made(value)
    return Something(value)


class ResultCheck:
    """Looks at results of one method.

    Args:
        name: the method's, on the wire.
        planned: what its results are to be.
    """

    __slots__ = ("_is_plain", "_name", "_planned", "exact")

    def __init__(self, name: str, planned: Plan) -> None:
        """Find out what there is to look at."""
        self._name = name
        self._planned = planned
        self._is_plain = not unknown_types(planned) and not runs_code(planned)
        self.exact = exact_type(planned)
        """The type whose values fit, if there is one; whoever has such a value need not call :meth:`check`."""

    def check(self, result: Any) -> None:
        """Compare a result with its annotation, as its caller will.

        In results that may hold streams, descriptors, buffers or services, or objects of classes that do something as
        they are made (``__post_init__``), it only checks that these objects are of the right class.

        Raises:
            InvalidResult: it does not fit; the message says where and why.
        """
        try:
            if self._is_plain:  # dataclasses and the like are not only of the right class: their fields fit, too
                result = msgspec.to_builtins(result, builtin_types=_KNOWN, enc_hook=_known)
            msgspec.convert(result, self._planned, builtin_types=NATIVE, dec_hook=_fits)
        except msgspec.ValidationError as exc:
            if not self._is_plain and _AN_OBJECT.match(str(exc)):  # on its way it is taken apart, and may fit
                return
            raise InvalidResult(f"{self._name} returned what does not fit its annotation: {exc}") from None
        except Exception:  # noqa: S110 - it cannot be told from here, or not be sent: that will be noticed
            pass


def _fits(wanted: Any, value: Any) -> Any:
    """Return a value of a type that msgspec does not know, if it is what travels as that type."""
    if isinstance(wanted, type) and issubclass(wanted, OwnedFd):
        if not callable(getattr(value, "fileno", None)):
            raise ValueError(expected("a descriptor (an OwnedFd, or a file)", value))  # noqa: TRY004 - msgspec adds the path
        return _A_DESCRIPTOR
    if (isinstance(wanted, StreamStandIn) or is_stream(wanted)) and not hasattr(type(value), "__aiter__"):
        raise ValueError(expected("a stream", value))
    if isinstance(wanted, ServiceStandIn) and not _is_service(value):
        raise ValueError(expected("a service", value))
    if wanted is Buffer and not isinstance(value, Buffer):
        raise ValueError(expected("a buffer", value))
    return UNMADE if isinstance(wanted, StandIn) else value


def _is_service(value: object) -> bool:
    return isinstance(value, Service | RemoteService) or hasattr(value, "proxy")
