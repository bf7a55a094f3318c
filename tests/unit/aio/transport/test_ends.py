"""How a connection ends, and how its socket is passed on."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest
from support.descriptors import Lender, files
from support.packets import fill, receive, receive_to_the_end, send_with
from support.transport import Pair, Recorder, on_transport, queue_one
from support.waiting import turns_of_the_loop

from seqrpc import ConnectionLost, Limits, OwnedFd

# Ends


async def test_the_end_of_the_connection_is_told(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])
    raw[1].send(b"last words")
    raw[1].close()
    await recorder.until_told("lost")
    assert recorder.told == ["made", "eof", "lost"]
    assert recorder.packets == [b"last words"]
    assert recorder.reason is None
    assert raw[0].fileno() == -1


async def test_an_empty_packet_is_the_end_and_its_descriptors_are_closed(raw: Pair, pipe: tuple[int, int]) -> None:
    _transport, recorder = on_transport(raw[0])
    send_with(raw[1], b"", pipe)
    raw[1].send(b"too late")
    await recorder.until_told("lost")
    assert recorder.told == ["made", "eof", "lost"]
    assert recorder.packets == []


async def test_packets_that_came_before_a_reset_are_delivered_first(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0], limits=Limits(max_packets_per_wakeup=2))
    transport.send_packet(b"never read")
    for number in range(5):
        raw[1].send(b"%d" % number)
    raw[1].close()
    await recorder.until_told("lost")
    assert recorder.packets == [b"%d" % number for number in range(5)]
    assert isinstance(recorder.reason, ConnectionResetError)


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
        transport._write_ready()
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
    transport._read_ready()
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


async def test_packets_that_wait_for_a_peer_that_goes_are_dropped(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    queue_one(transport)
    lent = OwnedFd(os.dup(pipe[0]))
    transport.send_packet(b"with", [lent])
    lent.close()
    raw[1].close()
    await recorder.until_told("lost")
    assert transport.get_write_buffer_size() == 0


async def test_an_error_of_the_socket_ends_the_connection(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    transport.pause_reading()  # libuv ends the process if it meets what comes now
    with files(1) as fds:
        os.dup2(fds[0].fileno(), raw[0].fileno())
    transport._read_ready()
    await recorder.until_told("lost")
    assert isinstance(recorder.reason, OSError)
    assert recorder.reason.errno == errno.ENOTSOCK


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


# Passing the socket on


async def test_a_detached_socket_is_the_callers_and_nobody_is_told(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    transport.send_packet(b"before")
    assert transport.detach() is raw[0]
    raw[1].send(b"after")
    transport.close()
    transport.abort()
    await turns_of_the_loop()
    assert recorder.told == ["made"]
    assert recorder.packets == []
    assert raw[0].recv(10) == b"after"
    assert await receive(raw[1]) == b"before"
    assert transport.is_closing()
    assert not transport.is_reading()
    with pytest.raises(ConnectionLost, match="closed"):
        transport.send_packet(b"x")
    assert transport.detach() is None, "it has none any more"

    again, recorder = on_transport(raw[0])  # what comes later comes to its next owner
    raw[1].send(b"again")
    await recorder.until_packets(1)
    assert recorder.packets == [b"again"]
    await recorder.end()
    assert again.detach() is None


async def test_a_socket_with_packets_that_wait_is_not_detached(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    queue_one(transport)
    assert transport.detach() is None
    assert not transport.is_closing()
    await receive(raw[1])
    while transport.get_write_buffer_packets():
        await receive(raw[1])
        await turns_of_the_loop(2)
    assert transport.detach() is raw[0]
    assert recorder.told == ["made"]


async def test_a_broken_socket_is_not_detached(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    raw[1].shutdown(socket.SHUT_RD)
    with pytest.raises(ConnectionLost):
        transport.send_packet(b"to nobody")
    assert transport.detach() is None
    await recorder.until_told("lost")
