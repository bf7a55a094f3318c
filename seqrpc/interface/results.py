"""Whether what a handler returns fits its annotation: its caller would notice, and this side is to hear of it first."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable
from typing import Any, Final

import msgspec

from seqrpc.errors import InvalidResult
from seqrpc.interface.contents import LIVING, exact_type, shapes_in
from seqrpc.interface.conversion import NATIVE, OneByOne
from seqrpc.interface.exhaustion import Exhausted
from seqrpc.interface.glances import glance_type
from seqrpc.interface.planning import plan_shape
from seqrpc.interface.service import RemoteService, Service
from seqrpc.interface.shapes import Coded, Kind, Object, Shape
from seqrpc.interface.standins import TO_LEND, UNMADE, Apart, Planned, StandIn, expected
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.codings import coding_of
from seqrpc.protocol.kinds import lends_descriptor
from seqrpc.protocol.received import ItemCheck
from seqrpc.protocol.values import SCALARS

_A_DESCRIPTOR: Final = OwnedFd.__new__(OwnedFd)
"""Shown to msgspec in place of whatever lends a descriptor."""

_PASSED: Final = (*NATIVE, Apart)

_BASES: Final[dict[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    int: int.__int__,
    float: float.__float__,
    dt.datetime: dt.datetime.isoformat,
}
"""Classes that msgpack sends also where a value is of a subclass, and how it is one of the class itself."""


class ResultCheck:
    """Looks at results of one method.

    Args:
        name: the method's, on the wire.
        planned: what its results are to be.
    """

    __slots__ = ("_class", "_glance", "_is_plain", "_name", "_planned", "exact")

    def __init__(self, name: str, planned: Planned) -> None:
        """Find out what there is to look at."""
        shape = planned.shape
        assert shape is not None
        self._name = name
        self._glance = glance_type(shape)
        self._planned = plan_shape(shape, looking=True)
        self._is_plain = not any(isinstance(found, LIVING) or _is_taken_apart_here(found) for found in shapes_in(shape))
        self._class = shape.cls if isinstance(shape, Object) else None
        self.exact = exact_type(shape)
        """The type whose values fit, if there is one; whoever has such a value need not call :meth:`check`."""

    def check(self, result: Any) -> None:
        """Compare a result with its annotation, as its caller will.

        What it would be sent as is looked at, and no object of the application's is made of it. Items of streams are
        for their readers to look at.

        Raises:
            InvalidResult: it does not fit; the message says where and why.
        """
        if self._glance is not None and (self._class is None or type(result) is self._class):
            try:
                msgspec.convert(result, self._glance, builtin_types=NATIVE, from_attributes=True)
            except Exception:  # noqa: S110 - then it is taken apart
                pass
            else:
                return
        looking = _Looking()
        try:
            if self._is_plain:
                apart = msgspec.to_builtins(result, builtin_types=_PASSED, enc_hook=looking.known)
            else:
                apart = looking.apart(result)
            looking.convert(apart, self._planned)
        except (msgspec.ValidationError, Exhausted) as exc:
            text = str(exc).replace(f"`{Apart.__name__}`", f"`{' or '.join(sorted(looking.unknown))}`")
            raise InvalidResult(f"{self._name} returned what does not fit its annotation: {text}") from None
        except Exception:  # noqa: S110 - it cannot be told from here, or not be sent: that will be noticed
            pass


class _Looking(OneByOne):
    """Looks at one result, and at what is in it."""

    __slots__ = ("unknown",)

    def __init__(self) -> None:
        """Begin."""
        super().__init__()
        self.unknown: set[str] = set()  # the names of the classes of what was not taken apart

    def item_check(self, wanted: Planned) -> ItemCheck:
        """Look at no item."""
        raise NotImplementedError

    def one(self, wanted: Any, value: Any) -> Any:
        """Look at a value of a type that msgspec does not know; return something of this type."""
        if isinstance(wanted, StandIn):
            wanted.look(value, self)
            return UNMADE
        one = value.value if isinstance(value, Apart) else value
        if isinstance(one, wanted):
            return _A_DESCRIPTOR if wanted is OwnedFd else one
        text = expected("an OwnedFd" if wanted is OwnedFd else "a buffer", value)
        raise ValueError(f"{text}{TO_LEND}" if lends_descriptor(one) else text)

    def known(self, value: Any) -> Any:
        """Return what is sent in place of a value that msgspec does not take apart."""
        coding = coding_of(type(value))
        if coding is not None:
            return coding.encode(value)
        for base, made in _BASES.items():
            if isinstance(value, base):
                return made(value)
        return self._whole(value)

    def _whole(self, value: Any) -> Apart:
        self.unknown.add(type(value).__name__)
        return Apart(value)

    def apart(self, value: Any) -> Any:
        """Return a value taken apart as it will be sent, but for what travels as a descriptor."""
        if type(value) in SCALARS or isinstance(value, NATIVE):
            return value
        if isinstance(value, list | tuple):
            return [self.apart(item) for item in value]
        if isinstance(value, dict):
            return {_as_key(self.apart(key)): self.apart(item) for key, item in value.items()}
        return self._part_apart(value)

    def _part_apart(self, value: Any) -> Any:
        """Return what has no parts of its own, or fields."""
        from seqrpc.protocol.flattening import Borrowed, flatten  # noqa: PLC0415 - it needs msgpack, as only senders do

        if isinstance(value, Borrowed):
            value = value.value
            if isinstance(value, list | tuple | dict):
                return self.apart(value)
        if _travels(value):
            return self._whole(value)
        for base, made in _BASES.items():
            if isinstance(value, base):
                return made(value)
        try:
            return self.apart(flatten(value))
        except TypeError:
            return self._whole(value)


def _is_taken_apart_here(shape: Shape) -> bool:
    """Return whether msgspec takes values apart in another way than the encoder does, at this level."""
    if isinstance(shape, Object):
        return shape.kind is Kind.ATTRS  # of which it leaves out private fields
    return isinstance(shape, Coded) and not issubclass(shape.coding.kind, enum.Flag)


def _as_key(value: Any) -> Any:
    return tuple(map(_as_key, value)) if isinstance(value, list) else value


def _travels(value: Any) -> bool:
    """Return whether a value is sent as a descriptor; this side's channels are known by what they have."""
    kind = type(value)
    return (
        isinstance(value, OwnedFd | Buffer | Service | RemoteService)
        or hasattr(kind, "__aiter__")
        or hasattr(kind, "proxy")
        or lends_descriptor(value)
    )
