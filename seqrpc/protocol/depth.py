"""How deep a packet is nested, and whether its sizes are true, found out before anything is built of it."""

from __future__ import annotations

import re
import struct
from typing import Final

from seqrpc.limits import MAX_PACKET

# All bytes but the first ones of arrays and maps. A packet has at most as many arrays and maps as bytes are left
# without these, so a short rest settles the depth without looking closer, and the sizes too if the packet is short:
# none can promise more values than the packet has bytes (msgpack's rule), each of them a place in a list.
_NO_CONTAINER: Final = bytes(byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF))

_MAX_PROMISED: Final = 2 * MAX_PACKET  # values that all arrays of a packet may promise unseen: 1 MiB of empty places

# Long runs of small scalars are passed over at once: (first bytes, bytes of each). Possessive (++), for what could be
# given back would be remembered, more than a megabyte of it for a packet.
_RUNS: Final = {
    first: (re.compile(pattern, re.DOTALL), size)
    for firsts, pattern, size in (
        ((*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3), rb"[\x00-\x7f\xe0-\xff\xc0\xc2\xc3]++", 1),
        ((0xCC,), rb"(?:\xcc.)++", 2),
        ((0xCD,), rb"(?:\xcd..)++", 3),
        ((0xCE,), rb"(?:\xce.{4})++", 5),
        ((0xCA,), rb"(?:\xca.{4})++", 5),
        ((0xCB,), rb"(?:\xcb.{8})++", 9),
        ((0xCF,), rb"(?:\xcf.{8})++", 9),
        ((0xD1,), rb"(?:\xd1..)++", 3),
    )
    for first in firsts
}


def _scalar_sizes() -> list[int]:
    """Return for each first byte the size of the scalar it begins, 0 where that needs a closer look."""
    sizes = [0] * 256
    for byte in (*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3):
        sizes[byte] = 1  # fixint, nil, false, true
    for byte in range(0xA0, 0xC0):
        sizes[byte] = 1 + (byte & 0x1F)  # fixstr
    for byte, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8), (0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        sizes[byte] = 1 + size  # integers
    sizes[0xCA], sizes[0xCB] = 5, 9  # floats
    for exponent in range(5):
        sizes[0xD4 + exponent] = 2 + (1 << exponent)  # fixext
    return sizes


_SIZES: Final = _scalar_sizes()

# First bytes of what says its length: how the length is written, and what comes before the content besides it.
_LENGTHS: Final = {
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
_CONTAINERS: Final = {
    0xDC: (struct.Struct(">H"), 1),  # array
    0xDD: (struct.Struct(">I"), 1),
    0xDE: (struct.Struct(">H"), 2),  # map: two values an entry
    0xDF: (struct.Struct(">I"), 2),
}


def check_depth(data: bytes, max_depth: int) -> None:
    """Check that no array or map of the packet lies deeper than ``max_depth``, and that none is cut.

    What follows the first value is not looked at.

    Raises:
        ValueError: it is deeper, or ends too early; the message names the bound.
    """
    if len(data) <= max_depth:  # no room for more, and the promises of so few bytes are small enough
        return
    containers = len(data.translate(None, _NO_CONTAINER))
    if containers > max_depth or containers * len(data) > _MAX_PROMISED:
        try:
            _walk(data, max_depth)
        except (IndexError, struct.error):
            raise ValueError("it ends in the middle of a value") from None


def _walk(data: bytes, max_depth: int) -> None:
    """Step over the first value of ``data``."""
    end = len(data)
    position = 0
    missing = 1  # values still to come at this depth
    outer: list[int] = []  # the same for the arrays and maps around it
    while True:
        while not missing:
            if not outer:
                return
            missing = outer.pop()
        byte = data[position]
        run = _RUNS.get(byte) if missing > 8 else None
        if run is not None:
            pattern, size = run
            match = pattern.match(data, position, min(end, position + missing * size))
            if match is not None:
                missing -= (match.end() - position) // size
                position = match.end()
                continue
        missing -= 1
        size = _SIZES[byte]
        if size:
            position += size
        elif byte in _LENGTHS:
            form, extra = _LENGTHS[byte]
            position += 1 + form.size + extra + form.unpack_from(data, position + 1)[0]
        else:
            position, inner = _enter(data, position)
            outer.append(missing)
            missing = inner
            if len(outer) > max_depth:
                raise ValueError(f"arrays and maps are nested deeper than max_depth ({max_depth})")
        if position + missing > end:
            raise ValueError(f"it promises more than its {end} bytes hold")


def _enter(data: bytes, position: int) -> tuple[int, int]:
    """Return where the content of an array or map begins, and how many values it has."""
    byte = data[position]
    if byte <= 0x8F:
        return position + 1, 2 * (byte & 0x0F)
    if byte <= 0x9F:
        return position + 1, byte & 0x0F
    if byte not in _CONTAINERS:
        raise ValueError(f"{byte:#04x} begins no value")
    form, values = _CONTAINERS[byte]
    return position + 1 + form.size, values * form.unpack_from(data, position + 1)[0]
