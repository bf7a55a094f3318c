"""Connections over which nothing can be sent any more, before their end was read."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.descriptors import Lender
from support.packets import fill
from support.transport import Pair, Recorder, on_transport, queue_one
from support.waiting import turns_of_the_loop

from seqrpc import ConnectionLost, Limits
from seqrpc.aio.transport import carrier_of


@pytest.mark.parametrize("number", [0, 1, 4, 5], ids=str)
async def test_packets_that_came_before_the_pipe_broke_are_delivered_first(raw: Pair, number: int) -> None:
    transport, recorder = on_transport(raw[0], limits=Limits(max_packets_per_wakeup=4))
    for index in range(number):
        raw[1].send(b"%d" % index)
    raw[1].close()
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            transport.send_packet(b"to nobody")
    await recorder.until_told("lost")
    assert recorder.packets == [b"%d" % index for index in range(number)]


@pytest.mark.parametrize("number", [0, 1, 4, 5], ids=str)
async def test_a_peer_that_stops_reading_but_stays_is_lost_once_its_packets_are_read(raw: Pair, number: int) -> None:
    transport, recorder = on_transport(raw[0], limits=Limits(max_packets_per_wakeup=4))
    for index in range(number):
        raw[1].send(b"%d" % index)
    raw[1].shutdown(socket.SHUT_RD)
    with pytest.raises(ConnectionLost, match="nobody reads"):
        transport.send_packet(b"to nobody")
    await recorder.until_told("lost")
    assert recorder.packets == [b"%d" % index for index in range(number)]
    assert isinstance(recorder.reason, BrokenPipeError)


@pytest.mark.parametrize("inside", [False, True], ids=["before_a_packet", "at_a_packet"])
async def test_a_broken_connection_that_is_not_read_any_more_is_lost(raw: Pair, inside: bool) -> None:
    transport, recorder = on_transport(raw[0])
    for index in range(3):
        raw[1].send(b"%d" % index)
    raw[1].shutdown(socket.SHUT_RD)
    recorder.on_packet = lambda data: transport.pause_reading() if data == b"1" else None
    with pytest.raises(ConnectionLost):
        transport.send_packet(b"to nobody")
    if not inside:
        transport.pause_reading()
    await recorder.until_told("lost")
    await turns_of_the_loop()
    assert recorder.packets == ([b"0", b"1"] if inside else [])
    assert recorder.told == ["made", "lost"]
    assert isinstance(recorder.reason, BrokenPipeError)


async def test_a_reset_connection_that_is_not_read_any_more_is_lost(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    transport.send_packet(b"never read")
    for index in range(3):
        raw[1].send(b"%d" % index)
    raw[1].close()
    recorder.on_packet = lambda data: transport.pause_reading() if data == b"1" else None
    await recorder.until_told("lost")
    assert recorder.packets == [b"0", b"1"]
    assert recorder.told == ["made", "lost"]


@pytest.mark.parametrize("how", ["closed", "closed_and_sent_to", "shut_and_sent_to"])
async def test_a_connection_that_breaks_resumes_writing(raw: Pair, how: str) -> None:
    transport, recorder = on_transport(raw[0], limits=Limits(high_water_bytes=1000, low_water_bytes=100))
    fill(raw[0])
    transport.send_packet(b"x" * 2000)
    assert recorder.told == ["made", "paused"]
    raw[1].send(b"last words")
    if how == "shut_and_sent_to":
        raw[1].shutdown(socket.SHUT_RD)
    else:
        raw[1].close()
    if how != "closed":
        carrier_of(transport).writable()
        assert recorder.told == ["made", "paused", "resumed"]
    await recorder.until_told("resumed")
    assert "lost" not in recorder.told, "it need not wait for room that never comes"
    assert transport.get_write_buffer_size() == 0
    await recorder.until_told("lost")
    assert recorder.packets == [b"last words"]
    assert recorder.told.count("resumed") == recorder.told.count("lost") == 1


async def test_a_protocol_may_end_a_connection_that_breaks_as_writing_is_resumed(raw: Pair) -> None:
    class Ending(Recorder):
        def resume_writing(self) -> None:
            super().resume_writing()
            self.transport.abort()

    transport, recorder = on_transport(raw[0], Ending(), Limits(high_water_bytes=1000, low_water_bytes=100))
    fill(raw[0])
    transport.send_packet(b"x" * 2000)
    raw[1].send(b"last words")
    raw[1].close()
    carrier_of(transport).intake._read_ready()
    await recorder.until_told("lost")
    assert recorder.told == ["made", "paused", "resumed", "lost"]
    assert recorder.packets == []


async def test_a_pipe_that_breaks_while_nothing_is_read_is_lost_at_once(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    transport.pause_reading()
    queue_one(transport)
    transport.send_packet(b"with", [Lender(pipe[0])])
    raw[1].close()
    await recorder.until_told("lost")
    assert isinstance(recorder.reason, OSError)
    assert transport.get_write_buffer_packets() == 0


async def test_reading_may_be_paused_before_the_first_packet(raw: Pair) -> None:
    class Pausing(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    raw[1].send(b"a")
    transport, recorder = on_transport(raw[0], Pausing())
    await turns_of_the_loop()
    assert recorder.packets == []
    transport.resume_reading()
    await recorder.until_packets(1)
    await recorder.end()
