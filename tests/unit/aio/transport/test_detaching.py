"""Giving the socket back."""

from __future__ import annotations

import socket

import pytest
from support.packets import receive
from support.transport import Pair, on_transport, queue_one
from support.waiting import turns_of_the_loop

from seqrpc import ConnectionLost


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
