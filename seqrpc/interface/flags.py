"""Flags: enums whose members are combined. Of each combination that is ever made, Python keeps an object for ever."""

from __future__ import annotations

import enum
import functools
import operator
from typing import Any, Final

from seqrpc.protocol.codings import Coding

_MOST_KEPT: Final = 16
"""Bits of the flags whose combinations may all be kept: at some hundred bytes each, 65,536 take some ten megabytes."""


def flag_coding(cls: type[enum.Flag]) -> Coding:
    """Return how members and combinations of flags travel: as their number.

    Combinations with bits that no member has are refused, whatever the class itself thinks of them: a peer could have
    one kept for each number.

    Raises:
        TypeError: there are more bits than that all combinations could be kept, and the class is no IntFlag; or a
            member is negative.
    """
    values = [int(member.value) for member in cls.__members__.values()]  # iteration leaves out those of several bits
    known = functools.reduce(operator.or_, values, 0)
    if known < 0:
        raise TypeError(f"{cls.__qualname__} has a negative member, which has all bits: write the bits that are meant")
    if known.bit_count() <= _MOST_KEPT:
        decode = functools.partial(_combination, cls, known)
    elif issubclass(cls, enum.IntFlag):
        decode = functools.partial(_forgotten, cls, known)
    else:
        raise TypeError(
            f"{cls.__qualname__} has {known.bit_count()} bits, and Python would keep each of their combinations that"
            f" comes: make it an IntFlag, or have {_MOST_KEPT} at most"
        )
    return Coding(kind=cls, wire_type=int, encode=_number, decode=decode)


def _number(member: enum.Flag) -> int:
    number: int = member.value
    return number


def _combination(cls: type[enum.Flag], known: int, value: int) -> Any:
    if value < 0 or value & ~known:
        raise ValueError(f"Invalid value {value}: {cls.__qualname__} has the bits {known:#x}")
    return cls(value)


def _forgotten(cls: type[enum.IntFlag], known: int, value: int) -> Any:
    """Return a combination that is kept by nobody else; being an integer it is equal to any other of its value."""
    is_member = value in cls._value2member_map_
    made = _combination(cls, known, value)
    if not is_member:
        cls._value2member_map_.pop(value, None)
    return made
