"""Peers that do not read what they asked for."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import msgpack
import pytest
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc.aio.accounts import UNSENT_BYTES
from seqrpc.aio.server import hub_of


class Reader(seqrpc.Service):
    @seqrpc.method
    async def read(self) -> bytes:
        return bytes(60_000)

    @seqrpc.method
    async def read_much(self) -> bytes:
        return bytes(1_000_001)


def ask(path: Path, number: int) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.connect(str(path))
    for call_id in range(number):
        peer.send(msgpack.packb([0, call_id, "Reader.read", []]))
    return peer


async def test_one_that_reads_nothing_for_too_long_is_cut_off(socket_path: Path) -> None:
    limits = seqrpc.Limits(unread_timeout=0.2)
    async with asyncio.timeout(PATIENCE), seqrpc.serve(Reader(), socket_path, limits=limits) as server:
        ledger = hub_of(server).ledger
        with ask(socket_path, 30):
            await comes_true(lambda: ledger.total[UNSENT_BYTES] > 0)
            await comes_true(lambda: not server.connections)
        assert ledger.total[UNSENT_BYTES] == 0


async def test_one_that_reads_slowly_is_not(socket_path: Path) -> None:
    limits = seqrpc.Limits(unread_timeout=0.2)
    async with asyncio.timeout(PATIENCE), seqrpc.serve(Reader(), socket_path, limits=limits) as server:
        with ask(socket_path, 30) as peer:
            peer.setblocking(False)
            for _ in range(30):
                data = await asyncio.get_running_loop().sock_recv(peer, 65_536)
                assert len(data) > 60_000
                await asyncio.sleep(0.02)
            assert len(server.connections) == 1
            assert hub_of(server).ledger.total[UNSENT_BYTES] == 0


async def test_who_reads_in_the_end_is_looked_at_no_more(socket_path: Path) -> None:
    async with asyncio.timeout(PATIENCE), seqrpc.serve(Reader(), socket_path) as server:
        with ask(socket_path, 30) as peer:
            await comes_true(lambda: hub_of(server).ledger.total[UNSENT_BYTES] > 0)
            (link,) = hub_of(server)._dispatchers
            assert link.unread_timer is not None
            peer.setblocking(False)
            for _ in range(30):
                await asyncio.get_running_loop().sock_recv(peer, 65_536)
            assert link.unread_timer is None
            link.writing_paused = False
            link._look_unread((0, 0, 0))
            assert link.unread_timer is None


@pytest.mark.parametrize("reads", [False, True], ids=["unread", "read"])
async def test_a_long_answer_is_watched_although_the_kernel_has_it(reads: bool, socket_path: Path) -> None:
    limits = seqrpc.Limits(unread_timeout=0.1)
    async with asyncio.timeout(PATIENCE), seqrpc.serve(Reader(), socket_path, limits=limits) as server:
        ledger = hub_of(server).ledger
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect(str(socket_path))
            peer.send(msgpack.packb([0, 1, "Reader.read_much", []]))
            await comes_true(lambda: ledger.total[UNSENT_BYTES] > 1_000_000)
            (link,) = hub_of(server)._dispatchers
            assert not link.writing_paused
            assert link.unread_timer is not None
            if reads:
                _data, fds, _flags, _address = socket.recv_fds(peer, 65_536, 10)
                os.close(fds[0])
                await comes_true(lambda: link.unread_timer is None)
                assert len(server.connections) == 1
            else:
                await comes_true(lambda: not server.connections)
        await comes_true(lambda: ledger.total[UNSENT_BYTES] == 0)
