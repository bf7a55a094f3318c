"""MessagePack written in every way that there is, the longest too, and in ways that there are not."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any


class Chance(Random):
    """Chance, and how often a value is written in the shortest way, as most libraries do."""

    shortest = 1.0


@dataclass(frozen=True)
class Ext:
    """A value of an extension type."""

    kind: int
    data: bytes


@dataclass(frozen=True)
class Pairs:
    """A map, in which a key may come twice."""

    pairs: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class Raw:
    """Bytes that stand for themselves."""

    data: bytes


_INTEGERS = (
    (0xCC, "B", 0, 0xFF), (0xD0, "b", -0x80, 0x7F), (0xCD, "H", 0, 0xFFFF), (0xD1, "h", -0x8000, 0x7FFF),
    (0xCE, "I", 0, 0xFFFFFFFF), (0xD2, "i", -0x80000000, 0x7FFFFFFF), (0xCF, "Q", 0, 2**64 - 1),
    (0xD3, "q", -(2**63), 2**63 - 1),
)  # fmt: skip
_TEXTS = ((0xD9, "B"), (0xDA, "H"), (0xDB, "I"))
_BYTES = ((0xC4, "B"), (0xC5, "H"), (0xC6, "I"))
_ARRAYS = ((0xDC, "H"), (0xDD, "I"))
_MAPS = ((0xDE, "H"), (0xDF, "I"))
_EXTS = ((0xC7, "B"), (0xC8, "H"), (0xC9, "I"))
_FIXEXT = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
_MOST = {"B": 0xFF, "H": 0xFFFF, "I": 0xFFFFFFFF}


def spell(chance: Chance, value: Any) -> bytes:
    """Return a value in MessagePack, in one of the ways in which it may be written."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return _headed(chance, len(data), 0xA0, 32, _TEXTS) + data
    if isinstance(value, bytes):
        return _headed(chance, len(value), 0, 0, _BYTES) + value
    if isinstance(value, dict | Pairs):
        pairs = value.pairs if isinstance(value, Pairs) else tuple(value.items())
        parts = [part for pair in pairs for part in pair]
        return _headed(chance, len(pairs), 0x80, 16, _MAPS) + b"".join(spell(chance, part) for part in parts)
    if isinstance(value, list | tuple):
        return _headed(chance, len(value), 0x90, 16, _ARRAYS) + b"".join(spell(chance, part) for part in value)
    spelt: dict[type, Callable[[Chance, Any], bytes]] = {
        int: _integer, float: _float, Ext: _extension, Raw: lambda _chance, raw: bytes(raw.data),
    }  # fmt: skip
    return spelt[type(value)](chance, value)


def _integer(chance: Chance, value: int) -> bytes:
    ways = [(code, letter) for code, letter, least, most in _INTEGERS if least <= value <= most]
    if chance.random() < chance.shortest or not ways:
        if 0 <= value < 128:
            return bytes([value])
        if -32 <= value < 0:
            return bytes([value + 256])
        ways = ways[:1] or [(0xCF, "Q")]
    code, letter = chance.choice(ways)
    return struct.pack(">B" + letter, code, value)


def _float(chance: Chance, value: float) -> bytes:
    if chance.random() > chance.shortest:
        try:
            return struct.pack(">Bf", 0xCA, value)
        except OverflowError:
            pass
    return struct.pack(">Bd", 0xCB, value)


def _headed(chance: Chance, size: int, fix: int, most: int, ways: tuple[tuple[int, str], ...]) -> bytes:
    """Return what stands before so many bytes, or parts."""
    if size < most and chance.random() < chance.shortest:
        return bytes([fix + size])
    fitting = [(code, letter) for code, letter in ways if size <= _MOST[letter]]
    if chance.random() < chance.shortest:
        fitting = fitting[:1]
    code, letter = chance.choice(fitting)
    return struct.pack(">B" + letter, code, size)


def _extension(chance: Chance, value: Ext) -> bytes:
    size = len(value.data)
    if size in _FIXEXT and chance.random() < chance.shortest:
        return struct.pack(">Bb", _FIXEXT[size], value.kind) + value.data
    code, letter = chance.choice(_EXTS)
    return struct.pack(">B" + letter + "b", code, size, value.kind) + value.data


_INTEGERS_OFTEN = [
    0, 1, 2, 7, 31, 32, 127, 128, 255, 256, 65_535, 65_536, -1, -32, -33, -128, -129, 2**31, 2**32 - 1, 2**32,
    2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63),
]  # fmt: skip
_FLOATS_OFTEN = [0.0, -0.0, 1.0, 0.5, 1.1, float("inf"), float("-inf"), float("nan"), 5e-324, 1.7e308]
_STRINGS_OFTEN: list[Any] = [
    "", "a", "text", "é" * 15, "x" * 31, "x" * 32, "\x00", "𝄞",
    "y" * 90, "z" * 255, "z" * 256, "rpc.ping", b"", b"\x00",
    b"bytes", b"\xff" * 31, b"b" * 200, b"b" * 300,
]  # fmt: skip
_KEYS_OFTEN = ["", "a", "b", "key", "a" * 31, "a" * 32, "é", "x", "y"]


def plain_value(chance: Chance, depth: int = 0) -> Any:
    """Return a value such as calls have: most are small."""
    kind = chance.randrange(16 if depth < 4 else 11)
    if kind < 10:
        kinds = [_INTEGERS_OFTEN] * 4 + [_STRINGS_OFTEN] * 3 + [[None, True, False]] * 2 + [_FLOATS_OFTEN]
        return chance.choice(kinds[kind])
    if kind == 10:
        return rare_value(chance)
    if kind < 14:
        if chance.random() < 0.15:
            return [chance.choice([0, 1, -1, 300, "a", None])] * chance.choice([15, 16, 17])
        return [plain_value(chance, depth + 1) for _ in range(chance.choice([0, 1, 1, 2, 3]))]
    return {chance.choice(_KEYS_OFTEN): plain_value(chance, depth + 1) for _ in range(chance.choice([0, 1, 1, 2, 3]))}


def _timestamps(chance: Chance) -> list[Any]:
    """Return timestamps of 32, 64 and 96 bits, the last two with good and bad nanoseconds."""
    nanoseconds = chance.choice([5, 10**9 - 1, 10**9])
    return [
        Ext(-1, struct.pack(">I", chance.getrandbits(32))), Ext(-1, struct.pack(">I", 5)), Ext(-1, struct.pack(">Q",
        5)),
        Ext(-1, struct.pack(">Q", chance.getrandbits(34) | nanoseconds << 34)), Ext(-1, b"abc"),
        Ext(-1, struct.pack(">Iq", chance.choice([0, 10**9]), chance.choice([0, -1, 2**62, -(2**37)]))),
    ]  # fmt: skip


def _references(chance: Chance) -> list[Any]:
    return [
        Ext(chance.choice([0, 1, 2, 3, 4, 5, 127, -2, -128]), chance.choice([b"", b"\0", b"\1", b"\0" * 17])),
        1.5,
        1.5,
    ]


def _odd_keys(chance: Chance) -> list[Any]:
    keys = [1, None, True, 1.5, b"k", ["l"], float("nan"), Ext(-1, b"\0\0\0\1"), {"a": 1}, "\x00"]
    return [Pairs(((chance.choice(keys), 1),)), Pairs((("a", 1), ("a", 2))), Pairs(((1, 1), (1.0, 2), (True, 3)))]


def _deep(chance: Chance) -> list[Any]:
    many = chance.choice([5, 6, 7, 8, 8, 8, 20, 60, 61, 62, 63, 64, 100, 300])
    return [Raw(b"\x91" * many + b"\xc0"), Raw(b"\x81\xa1a" * min(many, 64) + b"\xc0")]


def _long(chance: Chance) -> list[Any]:
    size = chance.choice([200, 240, 250, 260, 1000, 4000, 4095, 4096, 4097, 5000, 60_000])
    return ["x" * size, b"x" * size, [0] * size, {f"k{number}": number for number in range(size % 300)}]


def _short_floats(_chance: Chance) -> list[Any]:
    return [Raw(b"\xca" + struct.pack(">f", number)) for number in (1.5, 0.1, -0.0, float("nan"), 3.4e38)]


def _no_values(_chance: Chance) -> list[Any]:
    """Return texts that are no UTF-8, surrogates, counts that are not kept, a byte that means nothing, and nothing."""
    texts = [b"\xa1\xff", b"\xa3\xed\xa0\x80", b"\xa2\xc3\x28", b"\xd9\x02\xc0\x80", b"\xa1\xc3"]
    counts = [
        b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
        b"\xdc\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01", b"\xde\x00\x10", b"\xd9\xff", b"\xc1", b"",
    ]  # fmt: skip
    return [Raw(data) for data in (*texts, *counts)]


_RARE = [_timestamps, _references, _odd_keys, _odd_keys, _deep, _long, _long, _short_floats, _short_floats]


def rare_value(chance: Chance) -> Any:
    """Return a value, or seldom bytes in the place of one, such as only few would send."""
    return chance.choice(chance.choice(_RARE if chance.random() < 0.95 else [_no_values])(chance))


def mutated(chance: Chance, data: bytes, other: bytes) -> bytes:
    """Return a packet with something changed in it; ``other`` may lend a part."""
    made = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        kind = chance.randrange(8)
        place = chance.randrange(len(made)) if made else 0
        if kind == 0 and made:
            made[place] ^= 1 << chance.randrange(8)
        elif kind == 1 and made:
            made[place] = chance.choice([0, 1, 0x80, 0x90, 0xC0, 0xC1, 0xC2, 0xC3, 0xCA, 0xCB, 0xCC, 0xD4, 0xFF, 0xDF])
        elif kind == 2:
            del made[place:]
        elif kind == 3:
            made += chance.choice([b"\0", b"\xc0", b"\xc1", other])
        elif kind == 4:
            made[place:place] = bytes([chance.randrange(256)])
        elif kind == 5:
            del made[place : place + chance.choice([1, 2, 4])]
        elif kind == 6 and other:
            start = chance.randrange(len(other))
            made[place:place] = other[start : start + chance.randrange(1, 12)]
        else:
            made[:4] = made[: chance.randrange(5)]
    return bytes(made[:65_536]) or b"\xc0"
