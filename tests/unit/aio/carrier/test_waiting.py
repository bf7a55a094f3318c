"""Packets that wait to be sent."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from support.descriptors import same_file
from support.packets import fill, receive
from support.scarcity import table_full
from support.transport import Pair, as_root, on_transport, queue_one
from support.waiting import turns_of_the_loop

from seqrpc import Limits, OwnedFd

# Waiting to be sent


async def test_packets_that_must_wait_keep_duplicates_of_their_descriptors(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    queue_one(transport)
    for number in range(5):
        lent = OwnedFd(os.dup(pipe[0]))
        transport.send_packet(b"with %d" % number, [lent])
        lent.close()  # it was only borrowed
    transport.send_packet(b"last")
    _other, there = on_transport(raw[1])
    await there.until(lambda: there.packets[-1:] == [b"last"])
    assert there.packets[-6:-1] == [b"with %d" % number for number in range(5)]
    assert all(same_file(fds[0].fileno(), pipe[0]) for fds in there.fds[-6:-1])
    assert set(there.packets[:-6]) == {b"filling"}
    assert transport.get_write_buffer_size() == 0
    assert transport.get_write_buffer_packets() == 0
    await there.end()
    await recorder.until_told("lost")


async def test_writing_is_paused_above_the_high_mark_and_resumed_at_the_low_one(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0], limits=Limits(high_water_bytes=1000, low_water_bytes=100))
    assert transport.get_write_buffer_limits() == (100, 1000)
    fill(raw[0])
    transport.send_packet(b"x" * 1000)
    assert recorder.told == ["made"], "at the mark is not above it"
    transport.send_packet(b"x")
    assert recorder.told == ["made", "paused"]
    transport.send_packet(b"x" * 10_000)
    assert recorder.told == ["made", "paused"], "told once"
    assert transport.get_write_buffer_size() == 11_001

    _other, there = on_transport(raw[1])
    await recorder.until_told("resumed")
    assert transport.get_write_buffer_size() <= 100
    await there.until(lambda: b"x" * 10_000 in there.packets)
    assert recorder.told == ["made", "paused", "resumed"]
    await there.end()
    await recorder.until_told("lost")


async def test_writing_stays_paused_between_the_marks(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0], limits=Limits(high_water_bytes=60_000, low_water_bytes=100))
    fill(raw[0], b"x" * 50_000)
    for _ in range(20):
        transport.send_packet(b"y" * 50_000)
    before = transport.get_write_buffer_size()
    while transport.get_write_buffer_size() == before:
        await receive(raw[1])
        await turns_of_the_loop(2)
    assert recorder.told == ["made", "paused"]
    await recorder.end()


async def test_descriptors_that_cannot_be_kept_fail_their_packet_only(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    fill(raw[0], b"x")
    lent = [OwnedFd(os.dup(pipe[0])) for _ in range(3)]
    for _ in ("with an empty queue", "with one that is not"):
        packets = transport.get_write_buffer_packets()
        with table_full(), pytest.raises(OSError, match="Too many open files"):
            transport.send_packet(b"with", lent)
        assert transport.get_write_buffer_packets() == packets
        transport.send_packet(b"queued")
    _other, there = on_transport(raw[1])
    await there.until(lambda: there.packets.count(b"queued") == 2)
    assert b"with" not in there.packets
    for fd in lent:
        fd.close()
    await there.end()
    await recorder.until_told("lost")


# Reading


@as_root
async def test_sending_what_waits_lets_others_go_on_after_some_milliseconds(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    sent = fill(raw[0])
    for _ in range(20_000):
        transport.send_packet(b"y")
    raw[0].setsockopt(socket.SOL_SOCKET, 32, 1 << 28)  # SO_SNDBUFFORCE: there is room for all of them at once
    left = [transport.get_write_buffer_packets()]

    def look() -> None:
        left.append(transport.get_write_buffer_packets())
        if left[-1]:
            asyncio.get_running_loop().call_soon(look)

    look()
    assert raw[1].recv(2000)  # one of those that filled it: there is room now
    received = [await receive(raw[1]) for _ in range(sent - 1 + 20_000)]
    assert received.count(b"y") == 20_000
    assert {20_000, 0} < set(left), "the loop went round while some were sent and others waited"
    await recorder.end()
