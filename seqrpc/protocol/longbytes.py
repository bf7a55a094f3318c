"""Long bytes on their way through a message: not copied to put it together, nor to take it apart.

Memory that is fresh costs more than what is copied into it, for the kernel clears it page by page. So bytes that no
packet can hold are written to the message's memory file from where the caller has them, and read from it into the
very object that the receiver gets: one copy on each side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from seqrpc.kernel.pieces import Pieces
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.depth import Place, few_values

EXT_TAKEN: Final = -128
"""The extension type that stands, in what :func:`take_long_bytes` returns, for bytes that were taken out."""

_TAKEN_HEAD: Final = bytes((0xD4, EXT_TAKEN & 0xFF))
_EXT_TYPE_AT: Final = {0xC7: 2, 0xC8: 3, 0xC9: 5, **dict.fromkeys(range(0xD4, 0xD9), 1)}

_BIN_32: Final = b"\xc6"  # and four bytes with the length: how what is longer than a packet begins
_BIN_32_HEAD: Final = 5
_NO_BYTES: Final = b"\xc4\x00"

_LEVELS: Final = 2  # the message, and the arguments in it: what lies deeper is packed as everything is


def has_long_bytes(values: Iterable[Any]) -> bool:
    """Return whether one of a few values, or of a few named ones, is bytes that no packet can hold."""
    # A loop is quicker than a generator, and each message passes here.
    for value in values.values() if type(values) is dict else values:
        if type(value) is bytes and len(value) > MAX_PACKET:
            return True
    return False


def pack_in_pieces(packer: Any, message: Any) -> Pieces:
    """Return a message as ``packer`` encodes it; long bytes in it, and in its arrays and maps, are left as they are.

    Every third part is such bytes, the one before it their head.

    Args:
        packer: msgpack's, empty, and without ``autoreset``.
        message: an array.
    """
    parts: list[bytes | memoryview] = []
    _pack(packer, message, parts, _LEVELS)
    parts.append(packer.bytes())
    return Pieces(parts)


def _pack(packer: Any, value: Any, parts: list[bytes | memoryview], levels: int) -> None:
    kind = type(value)
    if kind is bytes and len(value) > MAX_PACKET:
        parts += packer.bytes(), _BIN_32 + len(value).to_bytes(4, "big"), value
        packer.reset()
    elif levels and (kind is tuple or kind is list):
        packer.pack_array_header(len(value))
        for item in value:
            _pack(packer, item, parts, levels - 1)
    elif levels and kind is dict:
        packer.pack_map_header(len(value))
        for key, item in value.items():
            packer.pack(key)
            _pack(packer, item, parts, levels - 1)
    else:
        packer.pack(value)


def without_long_bytes(pieces: Pieces) -> bytes:
    """Return what :func:`pack_in_pieces` made with its long bytes empty: as deep, and with as many values."""
    return _NO_BYTES.join(pieces.parts[::3])


def take_long_bytes(
    data: bytes | memoryview, most: int, read: Callable[[int, int], bytes], size: int | None = None
) -> tuple[bytes | memoryview, list[bytes]]:
    """Return a message with an :data:`EXT_TAKEN`, which holds an index, in place of each long bytes; and these.

    If it has none, or is cut, or has more than a few values or more than ``most``, it is returned as it is.

    Args:
        data: the message, whatever it holds, or how it begins.
        most: how many values it may have.
        read: returns so many bytes of the message from a position on.
        size: bytes that it has, if there are more than those. Behind them may be long bytes alone, else it is returned
            as it is, too.
    """
    parts: list[bytes | memoryview] = []
    taken: list[bytes] = []
    done = 0
    places = few_values(data, most, size) or []
    found: list[tuple[int, int]] = []
    for place in places:
        first_byte, start, end = place
        if first_byte == _BIN_32[0] and end - start - _BIN_32_HEAD > MAX_PACKET:
            found.append((start, end))
        elif end > len(data) or (first_byte in _EXT_TYPE_AT and _is_taken(data, place)):
            return data, taken  # in the second case it has one of its own, which is unknown
    if not found or (size is not None and places[-1].end != size):
        return data, taken
    for start, end in found:
        parts += data[done:start], _TAKEN_HEAD, bytes((len(taken),))
        taken.append(read(start + _BIN_32_HEAD, end - start - _BIN_32_HEAD))
        done = end
    parts.append(data[done:])
    return b"".join(parts), taken


def _is_taken(data: bytes | memoryview, place: Place) -> bool:
    return data[place.start + _EXT_TYPE_AT[place.first_byte]] == EXT_TAKEN & 0xFF
