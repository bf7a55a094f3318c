"""What is left to Python where plain packets are taken by something native: the same comes of it, in the same order."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.daemons import RawClient, raw_client
from support.descriptors import owned
from support.packets import wire
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc.aio.connection import link_of
from seqrpc.aio.link import Link
from seqrpc.aio.shares import Share
from seqrpc.aio.transport import carrier_of
from seqrpc.kernel.closing import CLOSER

pytestmark = pytest.mark.skipif(seqrpc.__twin__ != "native", reason="nothing is native here")


class Desk(seqrpc.Service):
    """Takes what is plain, and what is not."""

    def __init__(self) -> None:
        self.link: Link | None = None

    @seqrpc.method
    async def echo(self, value: int) -> int:
        self.link = link_of(seqrpc.current_call().connection)
        return value

    @seqrpc.method
    async def take(self, file: seqrpc.OwnedFd) -> bool:
        return os.fstat(file.fileno()).st_size >= 0


@pytest.fixture
async def desk(socket_path: Path) -> AsyncIterator[tuple[Desk, RawClient]]:
    service = Desk()
    async with seqrpc.serve(service, socket_path):
        with raw_client(socket_path) as client:
            await client.send(0, 0, "Desk.echo", [0])
            assert await client.receive() == [1, 0, None, 0]
            yield service, client


def link_at(service: Desk) -> Link:
    assert service.link is not None
    return service.link


async def answers(client: RawClient, count: int) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for _ in range(count):
        _kind, call_id, error, result = await client.receive()
        found[call_id] = error or result
    return found


async def test_descriptors_between_plain_packets_come_with_theirs(desk: tuple[Desk, RawClient]) -> None:
    _service, client = desk
    with owned(1) as fds:
        for call_id in range(1, 61, 2):
            client.sock.send(wire(0, call_id, "Desk.echo", [call_id]))
            packet = wire(0, call_id + 1, "Desk.take", [])[:-1] + b"\x91\xd4\x01\x00"
            socket.send_fds(client.sock, [packet], [fds[0].fileno()])
        found = await answers(client, 60)
    assert found == {call_id: call_id if call_id % 2 else True for call_id in range(1, 61)}


async def test_as_many_bytes_as_a_wakeup_may_take_are_taken_and_then_the_rest(desk: tuple[Desk, RawClient]) -> None:
    _service, client = desk
    with owned(1) as fds:
        for call_id in range(1, 7):  # each is refused, but read: it is long, and brings what nobody wants
            packet = wire(0, call_id, "Desk.take", [])[:-1] + b"\x92\xd4\x01\x00\xda\x3a\x98" + b"x" * 15_000
            socket.send_fds(client.sock, [packet], [fds[0].fileno()])
    found = await answers(client, 6)
    assert {error[0] for error in found.values()} == {"rpc.InvalidParams"}


async def test_packets_before_a_reset_are_taken_and_then_the_connection_ends(socket_path: Path) -> None:
    service = Desk()
    async with seqrpc.serve(service, socket_path):
        with raw_client(socket_path) as client:
            for call_id in range(5):
                client.sock.send(wire(0, call_id, "Desk.echo", [call_id]))
            await comes_true(lambda: service.link is not None)
            client.sock.send(wire(0, 9, "Desk.echo", [9]))
        link = link_at(service)  # answers were left unread, so that the end is a reset
        await comes_true(lambda: link.closed)


async def test_an_error_of_the_socket_ends_the_connection(desk: tuple[Desk, RawClient]) -> None:
    service, _client = desk
    link = link_at(service)
    carrier = carrier_of(link.transport)
    link.transport.pause_reading()  # libuv ends the process if it meets what comes now
    with owned(1) as fds:
        os.dup2(fds[0].fileno(), link.transport.get_extra_info("socket").fileno())
    carrier.intake.is_reading = True
    lane = carrier.intake.lane
    assert lane is not None
    lane.ready()
    await comes_true(lambda: link.closed)
    assert isinstance(link._reason, OSError)
    assert link._reason.errno == errno.ENOTSOCK


@pytest.mark.parametrize("lone", [0, 3])
async def test_whoever_has_had_its_share_is_read_as_without(lone: int, desk: tuple[Desk, RawClient]) -> None:
    service, client = desk
    intake = carrier_of(link_at(service).transport).intake
    assert isinstance(intake._share, Share)
    intake._share.crowded = True  # it is asked, and finds the turn new
    intake._round = -1
    intake._lone_wakeups = lone
    for call_id in range(1, 9):
        client.sock.send(wire(0, call_id, "Desk.echo", [call_id]))
    assert await answers(client, 8) == {call_id: call_id for call_id in range(1, 9)}


async def test_while_there_is_little_room_descriptors_come_one_packet_a_wakeup(
    desk: tuple[Desk, RawClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    _service, client = desk
    monkeypatch.setattr(CLOSER, "careful", True)
    with owned(1) as fds:
        for call_id in range(1, 5):
            packet = wire(0, call_id, "Desk.take", [])[:-1] + b"\x91\xd4\x01\x00"
            socket.send_fds(client.sock, [packet], [fds[0].fileno()])
        assert await answers(client, 4) == dict.fromkeys(range(1, 5), True)


async def test_the_end_is_told_behind_plain_packets(desk: tuple[Desk, RawClient]) -> None:
    service, client = desk
    link = link_at(service)
    client.sock.send(wire(0, 1, "Desk.echo", [1]))
    client.sock.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(PATIENCE):
        await link.wait_lost()
