"""Receiving with care, while there is no room for more descriptors of somebody's."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from support.lingering import start_thread
from support.packets import raw_pair, send_with
from support.scarcity import no_room, short_table, stalled
from support.waiting import PATIENCE, comes_true, happens, turns_of_the_loop

from seqrpc.aio import gate as module
from seqrpc.aio.gate import Gate
from seqrpc.kernel.ancillary import Received, take_control
from seqrpc.kernel.closing import CLOSER, Closer
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import MAX_UNCLOSED_OF_ONE
from seqrpc.protocol.inbox import Inbox

UID = 1001


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CLOSER, "_start_thread", start_thread)


class Told:
    """What a gate tells."""

    def __init__(self) -> None:
        self.reopened = 0
        self.arrived: list[tuple[Received | OSError, bytes]] = []
        self.news = asyncio.Event()

    def reopen(self) -> None:
        self.reopened += 1
        self.news.set()

    def arrive(self, received: Received | OSError, data: bytes) -> None:
        self.arrived.append((received, data))
        self.news.set()


@asynccontextmanager
async def gated(*, names_senders: bool = False) -> AsyncIterator[tuple[Gate, Told, socket.socket, socket.socket]]:
    ours, theirs = raw_pair()
    if names_senders:
        PLATFORM.ask_for_senders(ours)
    told = Told()
    inbox = Inbox(uid=UID, names_senders=names_senders)
    gate = Gate(asyncio.get_running_loop(), ours, inbox, reopened=told.reopen, arrived=told.arrive)
    with ours, theirs:
        yield gate, told, ours, theirs


async def test_it_is_open_where_there_is_room(pipe: tuple[int, int]) -> None:
    async with gated() as (gate, _told, _ours, theirs):
        assert gate.is_open(), "nothing is there"
        send_with(theirs, b"x", pipe)
        assert gate.is_open()
        assert not gate.leave()


async def test_a_reset_is_for_whoever_asks(pipe: tuple[int, int]) -> None:
    async with gated() as (gate, told, ours, theirs):
        ours.send(b"nobody reads this")
        send_with(theirs, b"with", pipe)
        theirs.close()
        with pytest.raises(ConnectionResetError):
            gate.is_open()
        assert not gate.shut
        assert gate.is_open()
        assert told.arrived == []


async def test_packets_without_descriptors_pass_and_those_with_some_wait_for_room(pipe: tuple[int, int]) -> None:
    async with gated() as (gate, told, ours, theirs):
        theirs.send(b"plain")
        send_with(theirs, b"with", pipe)
        with no_room(UID) as lifted:
            assert gate.is_open()
            ours.recv(10)
            assert not gate.is_open()
            assert not gate.is_open()
            assert gate.shut
            await turns_of_the_loop()
            assert told.reopened == 0
            lifted.set()
            await happens(lambda: told.reopened > 0, told.news)
        assert told.reopened == 1
        assert gate.is_open()


@pytest.mark.parametrize("whose", ["theirs", "somebody's"])
async def test_whose_room_it_is_tells_the_packet_where_it_does(pipe: tuple[int, int], whose: str) -> None:
    async with gated(names_senders=True) as (gate, told, _ours, theirs):
        send_with(theirs, b"with", pipe)
        with no_room(os.getuid() if whose == "theirs" else UID) as lifted:
            assert gate.is_open() == (whose != "theirs")
            lifted.set()
            if gate.shut:
                await happens(lambda: told.reopened > 0, told.news)


async def test_threads_that_could_not_be_started_are_asked_for_again(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(work: Callable[..., object], args: tuple[object, ...]) -> None:
        tries.append(1)
        if len(tries) < 5:
            raise RuntimeError("can't start new thread")
        start_thread(work, args)

    tries: list[int] = []
    closer = Closer(start)
    monkeypatch.setattr(module, "CLOSER", closer)
    monkeypatch.setattr(module, "_TEND_SECONDS", 0.001)
    async with gated() as (gate, told, _ours, theirs):
        closer.put_all([(-1, lambda: None, UID)] * MAX_UNCLOSED_OF_ONE)
        send_with(theirs, b"with", pipe)
        assert not gate.is_open()
        await happens(lambda: told.reopened > 0, told.news)
        assert len(tries) >= 5
        assert gate.is_open()
        assert not gate.leave()
        assert gate._tending is None
    assert closer.wait_idle(PATIENCE)


async def test_whoever_has_left_is_told_nothing(pipe: tuple[int, int]) -> None:
    async with gated() as (gate, told, _ours, theirs):
        send_with(theirs, b"with", pipe)
        with no_room(UID) as lifted:
            assert not gate.is_open()
            assert not gate.leave()
            lifted.set()
        gate._reopen()  # as a thread may have asked the loop to before
        await turns_of_the_loop()
        assert told.reopened == 0


async def test_where_the_table_is_short_a_packet_is_received_elsewhere(pipe: tuple[int, int]) -> None:
    async with gated() as (gate, told, _ours, theirs):
        send_with(theirs, b"with", pipe)
        with short_table():
            assert not gate.is_open()
            assert gate.receives
            await happens(lambda: bool(told.arrived), told.news)
        assert not gate.shut
        assert not gate.receives
        received, data = told.arrived[0]
        assert data == b"with"
        assert not isinstance(received, OSError)
        fds: list[OwnedFd] = []
        size, control, flags, _address = received
        assert take_control(size, control, flags, 100, fds) == (4, None, False)
        assert len(fds) == 2
        close_all(fds)


async def test_a_failure_to_receive_elsewhere_is_told(pipe: tuple[int, int]) -> None:
    async with gated() as (gate, told, ours, theirs):
        send_with(theirs, b"with", pipe)
        with short_table(), stalled(UID) as lifted:
            assert not gate.is_open()
            ours.recv(10)  # somebody was quicker
            lifted.set()
            await happens(lambda: bool(told.arrived), told.news)
        assert isinstance(told.arrived[0][0], OSError)
        assert told.arrived[0][1] == b""


async def test_what_is_received_elsewhere_for_one_who_left_is_closed(pipe: tuple[int, int]) -> None:
    async with gated() as (gate, told, ours, theirs):
        send_with(theirs, b"with", pipe)
        with short_table(), stalled(UID) as lifted:
            assert not gate.is_open()
            assert gate.leave()
            lifted.set()
            await comes_true(lambda: ours.fileno() < 0)
        assert told.arrived == []
        assert theirs.recv(10) == b""


@pytest.mark.parametrize("left", [True, False])
def test_what_is_received_elsewhere_after_the_loop_is_closed_is_dropped(pipe: tuple[int, int], left: bool) -> None:
    ours, theirs = raw_pair()
    loop = asyncio.new_event_loop()
    told = Told()
    gate = Gate(loop, ours, Inbox(uid=UID), reopened=told.reopen, arrived=told.arrive)
    send_with(theirs, b"with", pipe)
    with short_table(), stalled(UID) as lifted:
        assert not gate.is_open()
        loop.close()
        if left:
            gate.leave()
        lifted.set()
        assert CLOSER.wait_idle(PATIENCE)
    assert told.arrived == []
    ours.close()
    theirs.close()


def test_room_after_the_loop_is_closed_is_told_to_nobody(pipe: tuple[int, int]) -> None:
    ours, theirs = raw_pair()
    loop = asyncio.new_event_loop()
    told = Told()
    gate = Gate(loop, ours, Inbox(uid=UID), reopened=told.reopen, arrived=told.arrive)
    send_with(theirs, b"with", pipe)
    with no_room(UID), ours, theirs:
        assert not gate.is_open()
        loop.close()
