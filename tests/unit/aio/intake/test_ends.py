"""How a connection ends, and how its socket is passed on."""

from __future__ import annotations

import errno
import os

from support.descriptors import owned
from support.packets import send_with
from support.transport import Pair, on_transport, queue_one

from seqrpc import Limits, OwnedFd
from seqrpc.aio.transport import carrier_of

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
    with owned(1) as fds:
        os.dup2(fds[0].fileno(), raw[0].fileno())
    carrier_of(transport).intake._read_ready()
    await recorder.until_told("lost")
    assert isinstance(recorder.reason, OSError)
    assert recorder.reason.errno == errno.ENOTSOCK


# Passing the socket on
