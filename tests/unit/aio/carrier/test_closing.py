"""How a connection ends at this side: closed or aborted, with what waits."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.descriptors import Lender
from support.packets import fill, receive, receive_to_the_end, send_with
from support.transport import Pair, Recorder, on_transport, queue_one
from support.waiting import turns_of_the_loop

from seqrpc import ConnectionLost


async def test_close_sends_what_waits_and_does_not_reset_the_peer(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    for _ in range(3):
        raw[1].send(b"never read")
    queue_one(transport)
    for number in range(5):
        transport.send_packet(b"%d" % number)
    transport.close()
    transport.close()
    assert transport.is_closing()
    with pytest.raises(ConnectionLost, match="closed"):
        transport.send_packet(b"too late")
    assert recorder.told == ["made"]
    packets = await receive_to_the_end(raw[1])  # fails if there is a reset
    assert packets[-5:] == [b"%d" % number for number in range(5)]
    await recorder.until_told("lost")
    assert recorder.told == ["made", "lost"]
    assert recorder.reason is None
    assert recorder.packets == []


async def test_close_with_nothing_unsent_closes_at_once(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    send_with(raw[1], b"never read", pipe)
    raw[1].send(b"")  # an empty packet among the unread ones, too
    transport.close()
    assert await receive_to_the_end(raw[1]) == []
    await recorder.until_told("lost")
    assert raw[0].fileno() == -1


async def test_what_a_close_throws_away_is_bounded(raw: Pair) -> None:
    raw[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
    assert fill(raw[1], b"x") > 1024
    transport, recorder = on_transport(raw[0])
    transport.close()
    await recorder.until_told("lost")
    with pytest.raises(ConnectionResetError):
        await receive(raw[1])


async def test_abort_does_not_send_what_waits(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    queue_one(transport)
    transport.send_packet(b"never", [Lender(pipe[0])])
    transport.abort()
    transport.abort()
    assert transport.is_closing()
    await recorder.until_told("lost")
    assert recorder.told == ["made", "lost"]
    assert recorder.reason is None
    assert b"never" not in await receive_to_the_end(raw[1])


async def test_abort_ends_a_close_that_waits_for_the_peer(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    queue_one(transport)
    transport.close()
    await turns_of_the_loop()
    assert recorder.told == ["made"]
    transport.abort()
    await recorder.until_told("lost")


async def test_a_transport_may_be_closed_as_it_is_made(raw: Pair) -> None:
    class Closing(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.send_packet(b"bye")
            self.transport.close()

    raw[1].send(b"x")
    _transport, recorder = on_transport(raw[0], Closing())
    await recorder.until_told("lost")
    assert recorder.packets == []
    assert await receive_to_the_end(raw[1]) == [b"bye"]


async def test_no_packet_is_delivered_after_a_close_inside_a_burst(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    recorder.on_packet = lambda _data: transport.close()
    for number in range(3):
        raw[1].send(b"%d" % number)
    await recorder.until_told("lost")
    assert recorder.packets == [b"0"]
