"""The beginning of a message: its kind, its id, its method. It is read before anything is made of the rest."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgpack

from seqrpc.errors import RemoteProtocolError
from seqrpc.kernel.pieces import Content, Pieces
from seqrpc.protocol import messages
from seqrpc.protocol.messages import NOTIFY, REQUEST, RESPONSE, SPILLED

METHOD_BYTES: Final = 4_096
"""Bytes that hold the name of a method, too, if it is one that exists."""

_PLAIN_ARRAYS: Final = range(0x92, 0xA0)  # fixarray of two elements and more
_FIXSTR: Final = range(0xA0, 0xC0)
_STR_8: Final = 0xD9
_LONGEST: Final = 0x7FFF_FFFF  # bytes of a text: if not all of it is here, that shows by itself
_UINTS: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4}  # and their bytes


class Head(NamedTuple):
    """How a message begins; ``call_id`` and ``method`` are None where its kind has none."""

    size: int
    """The elements of its array."""

    kind: int
    call_id: int | None
    method: str | None


def read_head(data: bytes | memoryview, size: int | None = None) -> Head:
    """Return the head of a message, from its first bytes.

    Args:
        data: the message, or its first :data:`METHOD_BYTES`.
        size: how many bytes it has, if there are more than those. The name of a method that goes on after them is ""
            here: no method has one so long.

    Raises:
        RemoteProtocolError: it begins like no message; the text says what was expected.
    """
    try:
        if data[0] in _PLAIN_ARRAYS and data[1] <= NOTIFY:
            head = _read_plain(data)
            if head is not None:
                return head
        elif data[0] in _PLAIN_ARRAYS and data[1] == SPILLED:  # which has neither id nor method in its head
            return Head(data[0] & 0x0F, SPILLED, None, None)
    except (IndexError, UnicodeDecodeError):  # the long way says what is wrong
        pass
    return _read_any(data, len(data) if size is None else size)


def _read_plain(data: bytes | memoryview) -> Head | None:
    """Return the head of a request, an answer or a notification that is written as everybody writes it, or None."""
    kind, position, call_id = data[1], 2, None
    if kind != NOTIFY:
        first, position = data[2], 3
        if first < 0x80:
            call_id = first
        elif first in _UINTS:
            position += _UINTS[first]
            call_id = int.from_bytes(data[3:position], "big")
        else:
            return None
        if kind == RESPONSE:
            return Head(data[0] & 0x0F, kind, call_id, None)
    first = data[position]
    if first in _FIXSTR:
        start, length = position + 1, first & 0x1F
    elif first == _STR_8:
        start, length = position + 2, data[position + 1]
    else:
        return None
    name = data[start : start + length]
    return Head(data[0] & 0x0F, kind, call_id, str(name, "utf-8")) if len(name) == length else None


def _read_any(data: bytes | memoryview, size: int) -> Head:
    # No part of a head is an array or a map: none is made, for whoever sent it may be anybody.
    reader = msgpack.Unpacker(
        max_buffer_size=max(1, len(data)), max_str_len=_LONGEST, max_array_len=0, max_map_len=0, max_ext_len=0
    )
    reader.feed(data)
    call_id = method = None
    try:
        elements = reader.read_array_header()
        kind = messages.kind_of([reader.unpack()] if elements else [])
        if kind in (REQUEST, RESPONSE):
            call_id = messages.check_call_id(reader.unpack())
        if kind in (REQUEST, NOTIFY):
            method = messages.check_method(_unpack_method(reader, data, size))
    except msgpack.OutOfData:
        raise RemoteProtocolError(f"malformed packet of {size} bytes: it ends within its head") from None
    except (ValueError, msgpack.UnpackException):
        raise RemoteProtocolError(f"malformed packet of {size} bytes: it begins like no message") from None
    return Head(elements, kind, call_id, method)


def _unpack_method(reader: msgpack.Unpacker, data: bytes | memoryview, size: int) -> Any:
    try:
        return reader.unpack()
    except msgpack.OutOfData:
        if size > len(data):
            return ""
        raise


def head_of(data: Content) -> Head | None:
    """Return the head of a message that is about to be sent or thrown away, None if it has none that makes sense."""
    begin = data.parts[0] if isinstance(data, Pieces) else data  # long bytes come after the head
    try:
        return read_head(bytes(begin[:METHOD_BYTES]), len(data))
    except RemoteProtocolError:
        return None
