"""Keys of maps that are chosen: numbers that CPython's dictionaries find only after looking at thousands of others.

A dictionary of ``2**bits`` places looks for a key with hash ``h`` first at ``i = h % 2**bits``, and while somebody else
is there goes on to ``i = (5 * i + 1 + perturb) % 2**bits``, where ``perturb`` begins as ``h`` and loses five bits each
time. Once it is 0 all keys go round in one circle. The hash of a small integer is the integer. So the first keys here
are what fills a long arc of that circle, and the rest, larger by a few bits, are those that find their first five
places taken and come into the circle where the arc begins: each walks along nearly all of it. Nothing here needs the
secret of ``PYTHONHASHSEED``, which is in the hashes of strings and byte strings alone.
"""

from __future__ import annotations

import functools
import random
import struct

_SHIFT = 5  # PERTURB_SHIFT of CPython's dictobject.c
_MORE_BITS = 11  # of a chosen key beyond those of the table: five looks until it is in the circle

# The hash of a tuple is xxHash without a secret (tupleobject.c).
_PRIME_1 = 11_400_714_785_074_694_791
_PRIME_2 = 14_029_467_366_897_019_727
_PRIME_5 = 2_870_177_450_012_600_261
_WORD = (1 << 64) - 1
_MOST = (1 << 61) - 2  # the hash of an integer that is not larger is the integer


@functools.cache
def chosen_integers(bits: int, filled: int, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the integers that fill an arc of ``filled`` places of ``2**bits``, and ``count`` that walk along it.

    All of them together must make a dictionary of ``2**bits`` places: more than a third, and less than two.
    """
    mask = (1 << bits) - 1
    places: dict[int, int] = {}
    place = 0
    for number in range(filled):
        places[place] = number
        place = (5 * place + 1) & mask
    chance = random.Random(7)
    walking: dict[int, None] = {}
    early = filled // 8
    while len(walking) < count:
        key = chance.getrandbits(bits + _MORE_BITS)
        place, perturb = key & mask, key
        while perturb and place in places:
            perturb >>= _SHIFT
            place = (5 * place + perturb + 1) & mask
        if not perturb and places.get(place, filled) < early and key > mask:
            walking[key] = None
    return tuple(places), tuple(walking)


@functools.cache
def chosen_pairs(count: int) -> tuple[tuple[int, int], ...]:
    """Return pairs of integers that are tuples of the same hash."""
    inverse = pow(_PRIME_2, -1, 1 << 64)
    pairs: list[tuple[int, int]] = []
    first = 0
    while len(pairs) < count:
        first += 1
        lane = (_PRIME_5 + first * _PRIME_2) & _WORD
        lane = ((lane << 31) | (lane >> 33)) & _WORD
        lane = lane * _PRIME_1 & _WORD
        (second,) = struct.unpack("q", struct.pack("Q", (1 - lane) * inverse & _WORD))
        if -_MOST <= second <= _MOST and second != -1:
            pairs.append((first, second))
    return tuple(pairs)
