"""What is opened by awaiting it, or for the time of a block."""

from __future__ import annotations

import pytest

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
    opening = Opening(open_door)
    first, second = await opening, await opening
    assert first is not second
    assert [first.is_open, second.is_open] == [True, True]


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_opened_for_a_block_is_closed_at_its_end(fails: bool) -> None:
    doors = []
    try:
        async with Opening(open_door) as door:
            doors.append(door)
            assert door.is_open
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert [door.is_open for door in doors] == [False]


async def test_a_block_is_not_entered_where_opening_fails() -> None:
    with pytest.raises(OSError, match="it is stuck"):
        async with Opening(open_nothing):
            pytest.fail("nothing is open")
    with pytest.raises(OSError, match="it is stuck"):
        await Opening(open_nothing)
