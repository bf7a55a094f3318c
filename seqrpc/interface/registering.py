"""How an application says what objects of its own classes travel as."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final, TypeVar

from seqrpc.interface.annotations import is_service, is_stream, shape_of
from seqrpc.interface.contents import holds_living
from seqrpc.interface.spellings import scalar_shape
from seqrpc.protocol.codings import Coding, register

T = TypeVar("T")

_AS_THEY_ARE: Final = (int, float, str, bytes, bytearray, memoryview, list, tuple, dict, dt.datetime)
"""What is sent without a look at its class."""


def register_type(cls: type[T], *, wire_type: Any, encode: Callable[[T], Any], decode: Callable[[Any], T]) -> None:
    """Have objects of a class travel as something else, in this program, wherever they stand.

    Objects of the class, and of its subclasses, are sent as what ``encode`` returns. Where the class is annotated, what
    comes is converted to ``wire_type``, and ``decode`` makes the object of it. Do this once, beside the class: what was
    sent or described before keeps to what it was. ::

        seqrpc.register_type(Money, wire_type=str, encode=str, decode=Money.parse)

    Both sides have to know the class, or one of them works with what is on the wire. Paths and the addresses of
    :mod:`ipaddress` need no registration.

    Args:
        cls: the class.
        wire_type: the annotation of what is on the wire, which may not travel as a descriptor.
        encode: returns what is sent in place of an object.
        decode: returns the object for what came. A ValueError or TypeError says that it does not fit: in an argument
            the caller gets rpc.InvalidParams **with its text**, in a result InvalidResult.

    Raises:
        TypeError: the class is none, or travels as it is, or ``wire_type`` cannot be sent.
        ValueError: it is known already how objects of the class travel.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_type() takes a class, got {cls!r}")
    base = next((base for base in _AS_THEY_ARE if issubclass(cls, base)), None)
    if base is not None or is_service(cls) or is_stream(cls) or scalar_shape(cls) is not None:
        what = "as it is" if base in (None, cls) else f"as the {base.__name__} that it is"
        raise TypeError(f"{cls.__qualname__} travels {what}, and cannot be registered")
    for name, function in (("encode", encode), ("decode", decode)):
        if not callable(function):
            raise TypeError(f"register_type({cls.__qualname__}, {name}=...) takes a function, got {function!r}")
    shape = shape_of(wire_type, path=f"register_type({cls.__qualname__}, wire_type=...)")
    if holds_living(shape):
        raise TypeError(f"register_type({cls.__qualname__}, wire_type=...) takes plain data, got {wire_type!r}")
    register(Coding(kind=cls, wire_type=wire_type, encode=encode, decode=decode))
