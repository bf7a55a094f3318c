"""Classes that travel as something else: paths and network addresses, and those that an application registers.

On the wire they are what MessagePack has, usually a string. Encoders ask here what to send in place of an object;
whoever converts by annotation asks here what to expect, and how the object is made of it.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from seqrpc.limits import MAX_PATH_BYTES

_PATHS: Final = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath")

_ADDRESSES: Final = ("IPv4Address", "IPv4Network", "IPv4Interface", "IPv6Address", "IPv6Network", "IPv6Interface")


class Coding(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """How objects of a class travel."""

    kind: type
    """The class; objects of its subclasses are sent in the same way."""

    wire_type: Any
    """The annotation of what is on the wire."""

    encode: Callable[[Any], Any]
    """Returns what is sent in place of an object."""

    decode: Callable[[Any], Any]
    """Returns the object for what came, which fits ``wire_type``; what does not fit all the same is a ValueError."""

    family: str = ""
    """Texts of two families, neither of them unnamed, are never alike."""


_registered: dict[type, Coding] = {}


def register(coding: Coding) -> None:
    """Have objects of a class travel in this way from now on.

    Raises:
        ValueError: they travel in another one.
    """
    kind = coding.kind
    for known in _registered:
        if known is not kind and (known.__module__, known.__qualname__) == (kind.__module__, kind.__qualname__):
            del _registered[known]  # its module was loaded anew
            break
    if kind in _registered or _known(kind) is not None:
        raise ValueError(f"how {kind.__qualname__} travels is known already")
    _registered[kind] = coding
    _search.cache_clear()


@functools.lru_cache(maxsize=4096)
def _search(kind: Any) -> Coding | None:
    for base in kind.__mro__:
        coding = _registered.get(base) or _known(base)
        if coding is not None:
            return coding
    return None


coding_of = cast("Callable[[type], Coding | None]", _search)
"""Returns how objects of a class travel, by the nearest class that says it; None if they have no coding."""


def _known(kind: type) -> Coding | None:
    """Return how a class of the standard library travels. Their modules are not loaded for the sake of this."""
    name = kind.__name__
    if name in _PATHS and getattr(sys.modules.get("pathlib"), name, None) is kind:
        return Coding(kind=kind, wire_type=str | bytes, encode=_path_to_wire, decode=functools.partial(_path, kind))
    if name in _ADDRESSES and getattr(sys.modules.get("ipaddress"), name, None) is kind:
        return Coding(kind=kind, wire_type=str, encode=str, decode=kind, family=name[:4])
    return None


def _path_to_wire(path: os.PathLike[str]) -> str | bytes:
    """Return a path as a string or, if its bytes are not UTF-8, as these bytes (os.fsencode)."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def _path(kind: type, name: str | bytes) -> Any:
    size = len(name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape"))
    if size > MAX_PATH_BYTES:
        raise ValueError(f"a path has at most {MAX_PATH_BYTES} bytes, got {size}")
    text = os.fsdecode(name)
    if "\0" in text:
        raise ValueError("a path has no null characters")
    return kind(text)
