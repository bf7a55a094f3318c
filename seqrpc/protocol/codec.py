"""Values and descriptors to bytes and back: the only msgpack.

On the wire are MessagePack's own types, timestamps, and descriptors (extension type 1, protocol 3.1).
What else Python has (dataclasses, Structs, enums, sets, UUIDs) is taken apart by msgspec on the way
out, and put together again by whoever knows the annotation on the way in.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgpack
import msgspec

from seqrpc.errors import LocalProtocolError, RemoteProtocolError, TooLarge
from seqrpc.kernel.descriptors import HasFileno, OwnedFd
from seqrpc.limits import DEFAULT_LIMITS, MAX_DESCRIPTORS, MAX_PACKET, Limits
from seqrpc.protocol.depth import check_depth

EXT_DESCRIPTOR: Final = 1

_DEEPEST: Final = 512  # arrays and maps that msgpack packs inside one another

_DECODING_ERRORS = (ValueError, TypeError, OverflowError, msgpack.UnpackException)
_ENCODING_ERRORS = (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError)


class _Borrowed:
    """Wraps what has a ``fileno`` while msgspec takes the value around it apart."""

    __slots__ = ("lender",)

    def __init__(self, lender: HasFileno) -> None:
        self.lender = lender


def _wrap(value: object) -> _Borrowed:
    """Take what msgspec does not know: it is something that lends a descriptor, or cannot be sent."""
    if hasattr(value, "fileno"):
        return _Borrowed(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent")


_NATIVE = (bytes, bytearray, memoryview, dt.datetime, OwnedFd, _Borrowed)


class Codec:
    """Encodes and decodes whole packets. It keeps no state between packets; use one from one thread.

    Args:
        limits: ``max_depth`` is used.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """Make the parts that are used for every packet."""
        self._max_depth = limits.max_depth
        self._packer = msgpack.Packer(default=self._default, datetime=True)
        self._lenders: list[HasFileno] = []
        self._fds: list[OwnedFd] = []
        self._referred = 0
        self._problem = ""

    def encode(self, message: tuple[Any, ...], names: tuple[str, ...] = ()) -> tuple[bytes, list[HasFileno]]:
        """Return the packet of a message, and what lends its descriptors, in the order of their indexes.

        Anything with a ``fileno`` method is sent as a descriptor, borrowed: keep the lenders open
        until the packet has left. ``names`` are what errors call the parts of the message.

        Raises:
            TooLarge: it is longer than :data:`~seqrpc.limits.MAX_PACKET`.
            LocalProtocolError: a value cannot be sent, there are more than 253 descriptors, or it
                is nested deeper than ``max_depth``; the message names the place and the bound.
        """
        lenders = self._lenders = []
        try:
            data = self._packer.pack(message)
        except LocalProtocolError:
            self._packer.reset()
            raise
        except _ENCODING_ERRORS as exc:
            self._packer.reset()
            raise LocalProtocolError(_explain(message, names, exc)) from exc
        if len(data) > MAX_PACKET:
            raise TooLarge(f"a message holds at most {MAX_PACKET} bytes, this one {len(data)}")
        try:
            check_depth(data, self._max_depth)
        except ValueError as exc:
            raise LocalProtocolError(f"cannot send: {exc}") from None
        return data, lenders

    def _default(self, value: Any) -> Any:
        """Return something that msgpack knows in place of ``value``, which it does not."""
        if isinstance(value, _Borrowed):
            value = value.lender
        if hasattr(value, "fileno"):
            if len(self._lenders) == MAX_DESCRIPTORS:
                raise LocalProtocolError(f"a message holds at most {MAX_DESCRIPTORS} descriptors, this one more")
            self._lenders.append(value)
            return msgpack.ExtType(EXT_DESCRIPTOR, bytes((len(self._lenders) - 1,)))
        return _plain(value)

    def decode(self, data: bytes, fds: list[OwnedFd]) -> tuple[Any, str | None]:
        """Return the value of a packet, and what is wrong with its references to ``fds`` or None.

        The value refers to the objects in ``fds``, which stay the caller's, whatever happens. Depth
        and sizes are checked before anything is built.

        Raises:
            RemoteProtocolError: the packet is not exactly one well-formed value.
        """
        try:
            check_depth(data, self._max_depth)
            self._fds = fds
            self._referred = 0
            self._problem = ""
            value = msgpack.unpackb(data, ext_hook=self._ext_hook, strict_map_key=False, timestamp=3)
        except _DECODING_ERRORS as exc:
            reason = str(exc) or type(exc).__name__
            raise RemoteProtocolError(f"malformed packet of {len(data)} bytes: {reason}") from exc
        problem = self._problem
        if not problem and self._referred != (1 << len(fds)) - 1:
            problem = f"{len(fds)} descriptors came, {self._referred.bit_count()} of them are referred to"
        return value, problem or None

    def _ext_hook(self, kind: int, data: bytes) -> OwnedFd | None:
        """Resolve a reference to a descriptor; what is wrong is remembered, for unknown kinds may do as they like."""
        if kind != EXT_DESCRIPTOR:
            problem = f"unknown extension type {kind}"
        elif len(data) != 1:
            problem = f"a reference to a descriptor has 1 byte, this one {len(data)}"
        elif data[0] >= len(self._fds):
            problem = f"descriptor {data[0]} is referred to, but {len(self._fds)} came"
        elif self._referred >> data[0] & 1:
            problem = f"descriptor {data[0]} is referred to twice"
        else:
            self._referred |= 1 << data[0]
            return self._fds[data[0]]
        self._problem = self._problem or problem
        return None


def _plain(value: Any) -> Any:
    """Return what msgpack knows in place of a value that it does not."""
    if isinstance(value, dt.datetime):
        return value.isoformat()  # no time zone: not a moment, so not a timestamp
    return msgspec.to_builtins(value, builtin_types=_NATIVE, enc_hook=_wrap)


def _explain(message: tuple[Any, ...], names: tuple[str, ...], exc: Exception) -> str:
    """Say where in the message the value is that cannot be sent."""
    for name, value in zip(names, message, strict=False):
        found = _find(value, name, 0)
        if found is not None:
            return f"cannot send {found[0]}: {found[1]}"
    return f"cannot send: {str(exc) or type(exc).__name__}"


def _find(value: Any, path: str, depth: int) -> tuple[str, str] | None:
    """Return the path to the first value that cannot be packed by itself, and the reason."""
    if depth > _DEEPEST:
        return path, "it is nested too deeply, or holds itself"
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            found = _find(item, f"{path}[{key!r}]", depth + 1)
            if found is None and isinstance(value, dict):
                found = _find(key, f"{path}'s key {key!r}", depth + 1)
            if found is not None:
                return found
        return None
    try:
        msgpack.Packer(default=_plain_or_lent, datetime=True).pack(value)
    except _ENCODING_ERRORS as exc:
        if isinstance(value, int):
            return path, f"integers have at most 64 bits, this one has {value.bit_length()}"
        return path, str(exc) or type(exc).__name__
    return None


def _plain_or_lent(value: Any) -> Any:
    return None if hasattr(value, "fileno") or isinstance(value, _Borrowed) else _plain(value)
