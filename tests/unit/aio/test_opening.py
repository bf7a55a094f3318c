"""What is opened by awaiting it, or for the time of a block."""

from __future__ import annotations

from typing import Any

import pytest

import seqrpc
from seqrpc.aio.opening import Opening


class Door:
    """Something that opens and closes."""

    def __init__(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False


async def open_door() -> Door:
    return Door()


async def open_nothing() -> Door:
    raise OSError("it is stuck")


async def test_what_is_awaited_is_whose_awaits_it() -> None:
    opening = Opening(open_door, "house.open")
    first, second = await opening, await opening
    assert first is not second
    assert [first.is_open, second.is_open] == [True, True]


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_opened_for_a_block_is_closed_at_its_end(fails: bool) -> None:
    doors = []
    try:
        async with Opening(open_door, "house.open") as door:
            doors.append(door)
            assert door.is_open
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert [door.is_open for door in doors] == [False]


async def test_a_block_is_not_entered_where_opening_fails() -> None:
    with pytest.raises(OSError, match="it is stuck"):
        async with Opening(open_nothing, "house.open"):
            pytest.fail("nothing is open")
    with pytest.raises(OSError, match="it is stuck"):
        await Opening(open_nothing, "house.open")


async def test_one_that_is_dropped_unopened_says_so_and_one_that_failed_does_not() -> None:
    with pytest.warns(
        RuntimeWarning, match=r"^house\.open\(\.\.\.\) was never awaited, and nothing was opened: "
    ) as told:
        Opening(open_door, "house.open")
    assert len(told) == 1
    with pytest.raises(OSError, match="it is stuck"):
        await Opening(open_nothing, "house.open")


async def test_who_takes_it_for_what_it_opens_is_told() -> None:
    opening: Any = Opening(open_door, "house.open")
    with pytest.raises(AttributeError, match=r"house\.open\(\.\.\.\) is not open yet, and has no 'is_open'"):
        _ = opening.is_open
    with pytest.raises(TypeError, match=r"^house\.open\(\.\.\.\) is entered by 'async with', not by 'with'$"), opening:
        pytest.fail("nothing is open")
    await opening


async def test_one_that_is_in_a_block_opens_nothing_more() -> None:
    ours, theirs = seqrpc.socket_pair()
    theirs.close()
    opening = seqrpc.connect(sock=ours)
    async with opening:
        with pytest.raises(RuntimeError, match=r"connect\(\.\.\.\) is in a block already, which closes what it opened"):
            await opening.__aenter__()
