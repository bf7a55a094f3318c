"""Water marks."""

from __future__ import annotations

import pytest
from support.packets import receive
from support.transport import Pair, on_transport, queue_one


async def test_water_marks_can_be_set_as_in_asyncio(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    transport.set_write_buffer_limits()
    assert transport.get_write_buffer_limits() == (16_384, 65_536)
    transport.set_write_buffer_limits(high=400)
    assert transport.get_write_buffer_limits() == (100, 400)
    transport.set_write_buffer_limits(low=100)
    assert transport.get_write_buffer_limits() == (100, 400)
    transport.set_write_buffer_limits(high=0)
    assert transport.get_write_buffer_limits() == (0, 0)
    for wrong in ({"high": 1, "low": 2}, {"low": -1}):
        with pytest.raises(ValueError, match="water marks must be 0 <= low <= high"):
            transport.set_write_buffer_limits(**wrong)
    await recorder.end()


async def test_a_high_mark_below_what_waits_pauses_writing_at_once(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    queue_one(transport)
    transport.set_write_buffer_limits(high=0)
    assert recorder.told == ["made", "paused"]
    await receive(raw[1])
    _other, there = on_transport(raw[1])
    await recorder.until_told("resumed")
    await there.end()
    await recorder.until_told("lost")
