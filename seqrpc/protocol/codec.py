"""Values and descriptors to bytes and back: the only msgpack.

On the wire are MessagePack's own types, timestamps, and descriptors (extension type 1, protocol 3.1).
What else Python has (dataclasses, Structs, enums, sets, UUIDs) is taken apart by msgspec on the way
out, and put together again by whoever knows the annotation on the way in.
"""

from __future__ import annotations

import datetime as dt
import functools
from typing import Any, Final

import msgpack
import msgspec

from seqrpc.errors import LocalProtocolError, RemoteProtocolError, TooLarge
from seqrpc.kernel.descriptors import HasFileno, OwnedFd
from seqrpc.limits import DEFAULT_LIMITS, MAX_DESCRIPTORS, MAX_PACKET, Limits
from seqrpc.protocol.depth import check_depth

EXT_DESCRIPTOR: Final = 1

_DEEPEST: Final = 512  # how far inside a message the culprit is looked for: the stack holds 1,000 calls

_MAX_ODD_KEYS: Final = 256  # keys of a map if there are tuples among them: their hashes can be made to collide

_LONGEST_PATH: Final = 200  # characters of a path in an error's text

# How a moment before 1970 or after 2514 begins: only of these can datetime have too few years.
_FAR_TIMESTAMP: Final = b"\xc7\x0c\xff"
_FAR_FIRST: Final = _FAR_TIMESTAMP[0]

_DECODING_ERRORS = (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException)


class _Borrowed:
    """Wraps what has a ``fileno`` while msgspec takes the value around it apart."""

    __slots__ = ("lender",)

    def __init__(self, lender: HasFileno) -> None:
        self.lender = lender


def _wrap(value: object) -> Any:
    """Take what msgspec does not know: a moment, something that lends a descriptor, or what cannot be sent."""
    if isinstance(value, dt.datetime):
        return _plain(value)
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
        self._packer = self._new_packer()
        self._lenders: list[HasFileno] = []
        self._fds: list[OwnedFd] = []
        self._referred = 0
        self._problem = ""
        self._unpack = functools.partial(msgpack.unpackb, ext_hook=self._ext_hook, strict_map_key=False, timestamp=3)

    def encode(self, message: tuple[Any, ...], names: tuple[str, ...] = ()) -> tuple[bytes, list[HasFileno]]:
        """Return the packet of a message, and what lends its descriptors, in the order of their indexes.

        Anything with a ``fileno`` method is sent as a descriptor, borrowed: keep the lenders open
        until the packet has left. ``names`` are what errors call the parts of the message.

        Raises:
            TooLarge: it is longer than :data:`~seqrpc.limits.MAX_PACKET`.
            LocalProtocolError: a value cannot be sent, there are more than 253 descriptors, or it
                is nested deeper than ``max_depth``; the message names the place and the bound.
        """
        lenders: list[HasFileno] = []
        self._lenders = lenders
        try:
            data: bytes = self._packer.pack(message)
            if len(data) > MAX_PACKET:
                raise TooLarge(f"a message holds at most {MAX_PACKET} bytes, this one {len(data)}")
        except Exception as exc:
            self._lenders = []
            self._packer = self._new_packer()  # a packer keeps a buffer as large as the largest it ever filled
            if isinstance(exc, LocalProtocolError | TooLarge):
                raise
            # Values may raise what they like while they are taken apart.
            raise LocalProtocolError(_explain(message, names, exc, min(self._max_depth, _DEEPEST))) from exc
        if lenders:
            self._lenders = []  # kept here, a file would stay open until the next message
        if len(data) > self._max_depth:  # a shorter one has no room for more
            try:
                check_depth(data, self._max_depth)
            except ValueError as exc:
                raise LocalProtocolError(f"cannot send: {exc}") from None
        if _FAR_FIRST in data and _FAR_TIMESTAMP in data:  # looking for one byte first is far quicker
            _check_moments(data)
        return data, lenders

    def _new_packer(self) -> Any:
        return msgpack.Packer(default=self._default, datetime=True)

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
        and sizes are checked before anything is built. Arrays and maps that are keys of a map become tuples,
        a map one of its keys and values by turns.

        Raises:
            RemoteProtocolError: the packet is not exactly one well-formed value.
        """
        try:
            if len(data) > self._max_depth:  # as in encode
                check_depth(data, self._max_depth)
            if fds:
                self._fds = fds
            try:
                value = self._unpack(data)
            except TypeError:  # the key of a map is an array or a map, which Python cannot hash
                self._referred, self._problem = 0, ""
                value = self._unpack(data, object_pairs_hook=_map_of)
        except _DECODING_ERRORS as exc:
            self._settle()
            reason = str(exc) or type(exc).__name__
            raise RemoteProtocolError(f"malformed packet of {len(data)} bytes: {reason}") from exc
        return value, self._settle() if fds or self._problem else None

    def _settle(self) -> str | None:
        """Return what was wrong with the references of a packet, and forget them."""
        problem, came = self._problem, len(self._fds)
        if not problem and self._referred != (1 << came) - 1:
            problem = f"{came} descriptors came, {self._referred.bit_count()} of them are referred to"
        self._fds, self._referred, self._problem = [], 0, ""
        return problem or None

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
        if value.tzinfo is None:
            return value.isoformat()  # not a moment, so not a timestamp
        return dt.datetime.combine(value.date(), value.timetz())  # it was of a subclass, which msgpack does not know
    return msgspec.to_builtins(value, builtin_types=_NATIVE, enc_hook=_wrap)


def _check_moments(data: bytes) -> None:
    """Refuse moments that datetime cannot hold in UTC, and so not at the receiver: ``datetime.min`` east of it."""
    try:
        msgpack.unpackb(data, strict_map_key=False, timestamp=3, object_pairs_hook=list)
    except OverflowError:
        raise LocalProtocolError("cannot send: a moment is before the year 1 or after 9999, in UTC") from None


def _map_of(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return the map, also where keys are arrays or maps."""
    if len(pairs) > _MAX_ODD_KEYS and any(isinstance(key, list | dict) for key, _ in pairs):
        raise ValueError(f"a map whose keys are arrays or maps has at most {_MAX_ODD_KEYS}, this one {len(pairs)}")
    return {_hashable(key): value for key, value in pairs}


def _hashable(key: Any) -> Any:
    """Return a key with its arrays and maps made into tuples, which are no deeper than they were."""
    if isinstance(key, list):
        return tuple([_hashable(item) for item in key])
    if isinstance(key, dict):
        return tuple([part for name, item in key.items() for part in (name, _hashable(item))])
    return key


def _explain(message: tuple[Any, ...], names: tuple[str, ...], exc: Exception, deepest: int) -> str:
    """Say where in the message the value is that cannot be sent."""
    try:
        for name, value in zip(names, message, strict=False):
            found = _find(value, name, deepest)
            if found is not None:
                path, reason = found
                return f"cannot send {path if len(path) <= _LONGEST_PATH else path[:_LONGEST_PATH] + '…'}: {reason}"
    except Exception as another:
        exc = another
    return f"cannot send: {str(exc) or type(exc).__name__}"


def _find(value: Any, path: str, deepest: int) -> tuple[str, str] | None:
    """Return the path to the first value that cannot be packed by itself, and the reason."""
    if isinstance(value, dict | list | tuple):
        if not deepest:
            return path, "it is nested too deeply, or holds itself"
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            found = _find(item, f"{path}[{key!r}]", deepest - 1)
            if found is None and isinstance(value, dict):
                found = _find(key, f"{path}'s key {key!r}", deepest - 1)
            if found is not None:
                return found
        return None
    try:
        msgpack.Packer(default=_plain_or_lent, datetime=True).pack(value)
    except Exception as exc:
        if isinstance(value, int):
            return path, f"integers have at most 64 bits, this one has {value.bit_length()}"
        return path, str(exc) or type(exc).__name__
    return None


def _plain_or_lent(value: Any) -> Any:
    return None if hasattr(value, "fileno") or isinstance(value, _Borrowed) else _plain(value)
