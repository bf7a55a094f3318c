"""Faults: to which packet they happen, and who hears of it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import pytest
from support.descriptors import owned
from support.packets import readable, receive, send_with

from seqrpc.testing import Packet, faulty_pair


async def test_which_packets_are_told_in_several_ways() -> None:
    seen: list[Packet] = []

    def third(packet: Packet) -> bool:
        seen.append(packet)
        return packet.number == 3

    ways: list[tuple[Any, int | None, list[int]]] = [
        (None, 1, [0]),
        (1, 1, [0]),
        (2, 1, [1]),
        (2, 2, [1, 2]),
        (None, None, [0, 1, 2, 3, 4]),
        ("3", 5, [3]),
        (third, 1, [2]),
    ]
    for which, times, lost in ways:
        async with faulty_pair() as pair:
            fault = pair.to_server.drop(which, times=times)
            for number in range(5):
                pair.client.send(str(number).encode())
            pair.client.send(b"")
            arrived = [await receive(pair.server) for _ in range(6 - len(lost))]
            assert arrived == [str(number).encode() for number in range(5) if number not in lost] + [b""]
            assert fault.count == len(lost)
    assert seen[:3] == [Packet(1, b"0", 0), Packet(2, b"1", 0), Packet(3, b"2", 0)]


async def test_to_a_packet_happens_what_was_told_first() -> None:
    async with faulty_pair() as pair:
        first, second = pair.to_server.drop(), pair.to_server.drop()
        for data in (b"1", b"2", b"3"):
            pair.client.send(data)
        assert await receive(pair.server) == b"3"
        assert (first.count, second.count) == (1, 1)
        first = pair.to_server.drop(times=None)
        pair.client.send(b"4")
        await first.happened()
        first.stop()
        pair.client.send(b"5")
        assert await receive(pair.server) == b"5"


async def test_those_told_by_number_count_from_the_same_packet_on() -> None:
    async with faulty_pair() as pair:
        faults = [pair.to_server.drop(1), pair.to_server.drop(2), pair.to_server.drop("3"), pair.to_server.drop(4)]
        for data in (b"1", b"2", b"3", b"4", b"5"):
            pair.client.send(data)
        assert await receive(pair.server) == b"5"
        assert [fault.count for fault in faults] == [1, 1, 1, 1]


async def test_so_do_those_of_sending() -> None:
    async with faulty_pair() as pair:
        faults = [pair.to_server.fail(errno.ENOBUFS, 1), pair.to_server.fail(errno.EMSGSIZE, 2)]
        for number in (errno.ENOBUFS, errno.EMSGSIZE):
            with pytest.raises(OSError, match=os.strerror(number)):
                pair.client.send(b"in vain")
        pair.client.send(b"3")
        assert await receive(pair.server) == b"3"
        assert [fault.count for fault in faults] == [1, 1]


async def test_of_what_happens_to_other_packets_only_those_count_that_it_could_happen_to() -> None:
    async with faulty_pair() as pair:
        lost, cut = pair.to_server.drop("lost", times=2), pair.to_server.cut_control(2)
        with owned(1) as fds:
            pair.client.send(b"lost, without any")
            send_with(pair.client, b"lost", [fds[0].fileno()])
            send_with(pair.client, b"second", [fds[0].fileno()])
        await readable(pair.server)
        assert socket.recv_fds(pair.server, 100, 1)[:2] == (b"second", [])
        assert (lost.count, cut.count) == (2, 1)


@pytest.mark.parametrize("which", [0, -1, 1.5, b"one", True])
async def test_what_tells_no_packet_is_refused(which: Any) -> None:
    async with faulty_pair() as pair:
        with pytest.raises(ValueError, match="a packet is told by its number from 1 on, a text or a function, got"):
            pair.to_server.drop(which)


async def test_one_that_is_released_before_it_happens_never_does() -> None:
    async with faulty_pair() as pair:
        held = pair.to_server.hold()
        held.release()
        pair.client.send(b"1")
        assert await receive(pair.server) == b"1"
        assert held.count == 0


async def test_release_may_be_called_from_another_thread() -> None:
    async with faulty_pair() as pair:
        stopped = pair.to_server.stop_reading()
        pair.client.send(b"1")
        await asyncio.to_thread(stopped.release)
        assert await receive(pair.server) == b"1"


async def test_who_waits_for_what_never_happens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqrpc.testing.faults._PATIENCE", 0.01)
    async with faulty_pair() as pair:
        fault = pair.to_server.drop(times=5)
        pair.client.send(b"1")
        await fault.happened()
        with pytest.raises(TimeoutError, match="the fault happened 1 times, and not 2"):
            await fault.happened(2)
