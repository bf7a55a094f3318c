"""How deep a message is nested, and whether its sizes are true, found out before anything is built of it.

A glance settles nearly all messages. msgpack's own C code steps over the others and builds nothing of them; its stack
for arrays and maps is filled up beforehand, so that just ``max_depth`` places are left.
"""

from __future__ import annotations

import functools
import struct
from typing import Final, NamedTuple

import msgpack

from seqrpc.limits import MAX_PACKET

# All bytes that begin no array or map. A packet has at most as many arrays and maps as bytes are left when these are
# taken out. If few are left, the depth is settled without a closer look, and so are the sizes if the packet is short:
# none can promise more values than the packet has bytes (msgpack's rule), each of them a place in a list.
_NO_CONTAINER: Final = bytes(byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF))

_MAX_PROMISED: Final = 2 * MAX_PACKET  # values that all arrays of a packet may promise unseen: 1 MiB of empty places

_FEW: Final = 64  # values of a large message that are stepped over here: most have few, and stepping in C copies them

_MOST_FILLING: Final = 1 << 16  # arrays inside one another, more than the stack of any msgpack holds


def check_depth(data: bytes | memoryview, max_depth: int) -> None:
    """Check that no array or map of the message lies deeper than ``max_depth``, and that none is cut.

    What follows the first value is not looked at.

    Raises:
        ValueError: it is deeper, or ends too early; the message names the bound.
    """
    size = len(data)
    if size <= max_depth:  # no room for more, and the promises of so few bytes are small enough
        return
    if isinstance(data, bytes) and size <= MAX_PACKET:
        if is_shallow(data, max_depth):
            return
    elif few_values(data, max_depth) is not None:
        return
    _step_over(data, max_depth)


def is_shallow(packet: bytes, max_depth: int) -> bool:
    """Return whether a packet has so few arrays and maps that nothing can be wrong with their depth and sizes."""
    containers = len(packet.translate(None, _NO_CONTAINER))
    return containers <= max_depth and containers * len(packet) <= _MAX_PROMISED


def possible_containers(data: bytes | memoryview) -> int:
    """Return how many arrays and maps a message may have: at least as many as it has, and no more than it has bytes."""
    if few_values(data, _FEW) is not None:
        return _FEW
    return len(bytes(data).translate(None, _NO_CONTAINER))


def check_whole(data: bytes) -> None:
    """Check that bytes are exactly one value, without making it.

    Raises:
        ValueError: they are less, or more.
    """
    stepper = msgpack.Unpacker(max_buffer_size=0, read_size=len(data) + 1)
    stepper.feed(data)
    try:
        stepper.skip()
    except msgpack.OutOfData:
        raise ValueError("incomplete: it ends too early") from None
    except (ValueError, msgpack.UnpackException):
        raise ValueError("a byte in it begins no value, or it is nested too deeply") from None
    if stepper.tell() != len(data):
        raise ValueError("extra data: bytes are left over")


def _step_over(data: bytes | memoryview, max_depth: int) -> None:
    filling = b"\x91" * max(0, _stack_places() - max_depth)
    stepper = msgpack.Unpacker(max_buffer_size=0, read_size=len(filling) + len(data))
    stepper.feed(filling)
    stepper.feed(data)
    try:
        stepper.skip()
    except msgpack.StackError:
        raise ValueError(f"arrays and maps are nested deeper than max_depth ({max_depth})") from None
    except msgpack.OutOfData:
        raise ValueError(f"it promises more than its {len(data)} bytes hold") from None
    except (ValueError, msgpack.UnpackException):
        raise ValueError("a byte in it begins no value") from None


@functools.cache
def _stack_places() -> int:
    """Return how many arrays inside one another msgpack steps over: 1,024 as it is built now."""
    least, most = 0, _MOST_FILLING
    while least < most:
        middle = (least + most + 1) // 2
        stepper = msgpack.Unpacker(max_buffer_size=0, read_size=_MOST_FILLING)
        stepper.feed(b"\x91" * (middle - 1) + b"\x90")
        try:
            stepper.skip()
        except msgpack.StackError:
            most = middle - 1
        else:
            least = middle
    return least


_HEADS: Final = {
    # first byte: how the length is written, and what comes before the content besides it
    0xC4: (struct.Struct(">B"), 0),  # bin
    0xC5: (struct.Struct(">H"), 0),
    0xC6: (struct.Struct(">I"), 0),
    0xC7: (struct.Struct(">B"), 1),  # ext: its type
    0xC8: (struct.Struct(">H"), 1),
    0xC9: (struct.Struct(">I"), 1),
    0xD9: (struct.Struct(">B"), 0),  # str
    0xDA: (struct.Struct(">H"), 0),
    0xDB: (struct.Struct(">I"), 0),
}
_FIXED: Final = {
    **dict.fromkeys((*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3), 1),  # fixint, nil, false, true
    **{0xA0 + length: 1 + length for length in range(32)},  # fixstr
    0xCA: 5,
    0xCB: 9,
    0xCC: 2,
    0xCD: 3,
    0xCE: 5,
    0xCF: 9,
    0xD0: 2,
    0xD1: 3,
    0xD2: 5,
    0xD3: 9,  # numbers
    **{0xD4 + exponent: 2 + (1 << exponent) for exponent in range(5)},  # fixext
}


class Place(NamedTuple):
    """Where a value lies in a message; an array's or a map's ends before what it holds."""

    first_byte: int
    start: int
    end: int


def few_values(data: bytes | memoryview, most: int, size: int | None = None) -> list[Place] | None:
    """Return where the values of a message are, arrays and maps among them.

    None if the message is cut, or has more than a few values, or more than ``most``: it is then to be looked at in C.

    Args:
        data: the message, or how it begins.
        most: values.
        size: bytes that it has, if there are more than those: the last value may then end behind them, and each of the
            others begins among them.
    """
    places: list[Place] = []
    position, missing = 0, 1
    for _ in range(min(_FEW, most)):
        if position >= len(data):
            return None
        start, byte = position, data[position]
        missing -= 1
        if byte in _FIXED:
            position += _FIXED[byte]
        elif byte in _HEADS:
            form, extra = _HEADS[byte]
            if position + 1 + form.size > len(data):
                return None
            position += 1 + form.size + extra + form.unpack_from(data, position + 1)[0]
        elif 0x80 <= byte <= 0x9F:  # fixmap, fixarray
            position += 1
            missing += (byte & 0x0F) * (2 if byte < 0x90 else 1)
        else:  # a long array or map, or no value at all
            return None
        places.append(Place(byte, start, position))
        if not missing:
            return places if position <= (len(data) if size is None else size) else None
    return None
