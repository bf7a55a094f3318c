"""Combinations of flags, and how many of them are kept."""

from __future__ import annotations

import contextlib
import enum
from typing import Any

import msgspec
import pytest

from seqrpc.errors import InvalidParams
from seqrpc.interface.conversion import convert
from seqrpc.interface.flags import flag_coding
from seqrpc.interface.methods import method
from seqrpc.interface.planning import plan
from seqrpc.interface.service import Service
from seqrpc.interface.signature import spec_of


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    ALL = 3


class Loose(enum.IntFlag):
    ONE = 1
    FOUR = 4


class Keeping(enum.Flag, boundary=enum.FlagBoundary.KEEP):
    ONE = 1


class Gap(enum.IntFlag):
    HIGH = 1 << 40


Wide: Any = enum.IntFlag("Wide", {f"BIT{number}": 1 << number for number in range(17)})  # type: ignore[misc]
TooWide: Any = enum.Flag("TooWide", {f"BIT{number}": 1 << number for number in range(17)})  # type: ignore[misc]


@pytest.mark.parametrize(
    "kind, number", [(Access, 0), (Access, 1), (Access, 3), (Loose, 5), (Keeping, 1), (Gap, 1 << 40), (Wide, 3)]
)
def test_members_and_combinations_travel_as_their_number(kind: Any, number: int) -> None:
    coding = flag_coding(kind)
    assert (coding.kind, coding.wire_type) == (kind, int)
    made = coding.decode(number)
    assert made == kind(number)
    assert type(made) is kind
    assert coding.encode(made) == number
    assert convert(number, plan(kind)) == made


@pytest.mark.parametrize(
    "kind, number",
    [(Access, 4), (Access, -1), (Loose, 2), (Loose, -1), (Loose, 1 << 63), (Keeping, 2), (Gap, 1), (Wide, 1 << 17)],
)
def test_unknown_bits_are_refused_whatever_the_class_would_do(kind: Any, number: int) -> None:
    with pytest.raises(ValueError, match=f"Invalid value {number}: {kind.__name__} has the bits 0x"):
        flag_coding(kind).decode(number)
    with pytest.raises(msgspec.ValidationError, match="Invalid value"):
        convert([number], plan(list[kind]))
    for wrong in ("READ", True, 1.0, None):
        with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
            convert(wrong, plan(kind))


def test_what_comes_is_not_kept() -> None:
    for kind in (Access, Loose, Keeping):
        planned, before = plan(kind), None
        for number in range(1_000):
            for chosen in (number, number << 40, -number - 1):
                with contextlib.suppress(msgspec.ValidationError):
                    convert(chosen, planned)
            before = len(kind._value2member_map_) if number == 10 else before
        assert len(kind._value2member_map_) == before
    planned, before = plan(Wide), len(Wide._value2member_map_)
    assert [convert(number, planned) for number in range(2_000)] == list(range(2_000))
    assert len(Wide._value2member_map_) == before
    assert convert(1, planned) is Wide.BIT0  # type: ignore[attr-defined]


def test_of_too_many_bits_all_combinations_would_be_kept() -> None:
    with pytest.raises(TypeError, match=r"TooWide has 17 bits, .*: make it an IntFlag, or have 16 at most"):
        flag_coding(TooWide)
    with pytest.raises(TypeError, match="TooWide has 17 bits"):
        plan(list[TooWide])


class Files(Service):
    @method
    async def open(self, access: Access, also: dict[Access, set[Loose]] | None = None) -> Access:
        return access


def test_flags_are_found_among_arguments() -> None:
    bind = spec_of(Files).methods["open"].bind
    assert bind([3]) == ((Access.READ | Access.WRITE, None), {})
    assert bind([0, {3: [1, 5]}])[0][1] == {Access.ALL: {Loose.ONE, Loose.ONE | Loose.FOUR}}
    with pytest.raises(InvalidParams, match=r"Files\.open: Invalid value 8: Access has the bits 0x3 - at `access`"):
        bind([8])
    with pytest.raises(InvalidParams, match="Invalid value 2: Loose"):
        bind([1, {1: [2]}])


class Mask(enum.Flag):
    LOW = 1
    HIGH = 0xF0
    ALL = 0xF1


class Sign(enum.IntFlag):
    ALL = -1


def test_members_of_several_bits_are_members() -> None:
    coding = flag_coding(Mask)
    for member in (Mask.HIGH, Mask.ALL, Mask.LOW):
        assert coding.decode(member.value) is member
    with pytest.raises(ValueError, match="Invalid value 256: Mask has the bits 0xf1"):
        coding.decode(256)


def test_a_member_that_has_all_bits_is_refused() -> None:
    with pytest.raises(TypeError, match="Sign has a negative member"):
        flag_coding(Sign)
