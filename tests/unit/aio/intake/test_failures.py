"""Packets that are not whole, and protocols that fail."""

from __future__ import annotations

import os

from support.descriptors import owned
from support.packets import send_with
from support.scarcity import table_full
from support.transport import Pair, Tolerant, on_transport, oversized

# Packets that are not whole


async def test_a_protocol_may_take_an_oversized_packet_in_its_own_way(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0], tolerant := Tolerant())
    oversized(raw[1])
    raw[1].send(b"next")
    await recorder.until_packets(1)
    assert recorder.packets == [b"next"]
    assert tolerant.cut == [70_000]
    await recorder.end()


async def test_a_protocol_may_take_the_loss_of_descriptors_in_its_own_way(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0], tolerant := Tolerant())
    with owned(3) as fds:
        numbers = [fd.fileno() for fd in fds]
        send_with(raw[1], b"lost", numbers)
        with table_full():
            await recorder.until(lambda: bool(tolerant.cut))
        send_with(raw[1], b"whole", numbers)
    await recorder.until_packets(1)
    assert recorder.packets == [b"whole"]
    assert len(recorder.fds[0]) == 3
    assert tolerant.cut == [(b"lost", os.getuid())]
    await recorder.end()


# Protocols that fail
