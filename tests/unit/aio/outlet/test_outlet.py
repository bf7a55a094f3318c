"""An outlet by itself: what it sends, keeps and tells its owner."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from support.descriptors import is_open, owned
from support.packets import fill, raw_pair, receive
from support.waiting import comes_true, happens, turns_of_the_loop

from seqrpc import ConnectionLost
from seqrpc.aio.outlet import Outlet
from seqrpc.kernel import memfd
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.pieces import Content
from seqrpc.limits import KEPT_FILE_BYTES, KEPT_FILES
from seqrpc.protocol.outbox import Outbox, Packet, lending


class Owner:
    """Does what an owner does, and remembers what it was told."""

    def __init__(self) -> None:
        self.outlet: Outlet
        self.writable_at = 0
        self.reasons: list[Exception] = []
        self.refusals: list[tuple[Packet, Exception]] = []
        self.news = asyncio.Event()

    def too_long(self, data: Content) -> tuple[bytes, OwnedFd]:
        return b"short", memfd.sealed("long", data)

    def writable(self) -> None:
        self.writable_at += 1
        self.outlet.flush()
        self.news.set()

    def refused(self, packet: Packet, reason: Exception) -> None:
        self.refusals.append((packet, reason))

    def broke(self, reason: OSError) -> None:
        self.reasons.append(reason)
        self.outlet.drop()


@asynccontextmanager
async def outlet() -> AsyncIterator[tuple[Outlet, Owner, socket.socket, socket.socket]]:
    ours, theirs = raw_pair()
    owner = Owner()
    owner.outlet = Outlet(asyncio.get_running_loop(), ours, owner, Outbox())
    with ours, theirs:
        yield owner.outlet, owner, ours, theirs
        owner.outlet.drop()


def packet(outlet_owner: Owner, data: bytes = b"data", fds: list[OwnedFd] | None = None) -> Packet:
    return lending(data, fds or [], outlet_owner.too_long)


async def test_what_there_is_room_for_is_sent_at_once() -> None:
    async with outlet() as (it, owner, _ours, theirs):
        with owned(1) as fds:
            it.send(packet(owner, fds=fds))
            assert not fds[0].closed
        assert not it.outbox.packets
        assert not it.watching
        _data, received, _flags, _address = socket.recv_fds(theirs, 10, 2)
        assert len(received) == 1
        os.close(received[0])
        assert owner.writable_at == 0


async def test_what_must_wait_is_sent_when_there_is_room_in_its_order() -> None:
    async with outlet() as (it, owner, ours, theirs):
        filled = fill(ours)
        with owned(1) as fds:
            it.send(packet(owner, b"one", fds))
            it.send(packet(owner, b"two"))
        assert len(it.outbox.packets) == 2
        assert it.watching
        for _ in range(filled):
            theirs.recv(2000)
        await happens(lambda: not it.outbox.packets, owner.news)
        assert not it.watching
        data, received, _flags, _address = socket.recv_fds(theirs, 10, 2)
        assert (data, len(received)) == (b"one", 1)
        os.close(received[0])
        assert await receive(theirs) == b"two"


async def test_what_is_not_flushed_in_time_goes_on_later() -> None:
    async with outlet() as (it, owner, ours, theirs):
        filled = fill(ours)
        it.send(packet(owner, b"at once"))
        it.send(packet(owner, b"later"))
        for _ in range(filled):
            theirs.recv(2000)
        assert not it.flush(until=0.0)
        assert await receive(theirs) == b"at once"
        assert it.watching
        assert it.flush()
        assert await receive(theirs) == b"later"


@pytest.mark.parametrize("waits", [False, True])
async def test_a_peer_that_went_is_told(waits: bool) -> None:
    async with outlet() as (it, owner, ours, theirs):
        if waits:
            fill(ours)
            it.send(packet(owner, b"before"))
        theirs.close()
        if waits:
            await happens(lambda: bool(owner.reasons), owner.news)
        else:
            with pytest.raises(ConnectionLost, match="nobody reads the connection any more: Broken pipe"):
                it.send(packet(owner))
        assert [type(reason) for reason in owner.reasons] == [BrokenPipeError]
        assert not it.outbox.packets
        assert not it.watching


async def test_what_is_refused_at_once_is_raised_and_later_is_told() -> None:
    async with outlet() as (it, owner, ours, theirs):
        with pytest.raises(OSError, match="Bad file descriptor"):
            it.send(Packet(b"data", [], [9_999]))
        assert owner.refusals == []
        with owned(1) as (fd,):
            waiting = Packet(b"data", [fd])
            it.outbox.add(waiting)
            fd.close()
            it.outbox.add(Packet(b"next", []))
            assert it.flush()
        ((refused, reason),) = owner.refusals
        assert refused is waiting
        assert isinstance(reason, ValueError)
        assert await receive(theirs) == b"next"
        assert ours.fileno() >= 0


async def test_a_failure_that_was_met_elsewhere_is_taken_as_ones_own() -> None:
    async with outlet() as (it, _owner, ours, theirs):
        fill(ours)
        it.outbox.add(Packet(b"data", []))
        assert not it.failed(BlockingIOError())
        assert it.watching
        it.drop()
        it.outbox.add(Packet(b"data", []))
        theirs.close()
        assert it.failed(BrokenPipeError(32, "gone"))
        assert not it.outbox.packets


async def test_what_the_kernel_has_no_room_for_is_tried_again_and_by_then_may_be_gone() -> None:
    async with outlet() as (it, owner, _ours, theirs):
        it.outbox.add(Packet(b"data", []))
        assert not it.failed(OSError(12, "no memory"))
        assert not it.watching
        await happens(lambda: not it.outbox.packets, owner.news)
        assert await receive(theirs) == b"data"
        it.outbox.add(Packet(b"data", []))
        assert not it.failed(OSError(12, "no memory"))
        it.drop()
        before = owner.writable_at
        await asyncio.sleep(0.03)
        await turns_of_the_loop()
        assert owner.writable_at == before


async def test_little_waits_while_memory_leaves() -> None:
    async with outlet() as (it, owner, ours, theirs):
        usual = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        it.send(packet(owner, b"x" * 70_000))
        assert it.room.narrow
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < usual
        data, received, _flags, _address = socket.recv_fds(theirs, 10, 2)
        assert (data, len(received)) == (b"short", 1)
        close_all([OwnedFd(fd) for fd in received])
        it.send(packet(owner))
        assert not it.room.narrow
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == usual


async def test_what_is_shortened_is_sent_again_at_once() -> None:
    async with outlet() as (it, owner, ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5_000)
        it.send(packet(owner, b"x" * 20_000))
        it.outbox.add(Packet(b"x" * 20_000, []))
        while not it.flush():
            data, received, _flags, _address = socket.recv_fds(theirs, 10, 2)
            assert (data, len(received)) == (b"short", 1)
            close_all([OwnedFd(fd) for fd in received])
        assert owner.refusals == []


SIZE = 200_000


@asynccontextmanager
async def keeping_outlet() -> AsyncIterator[tuple[Outlet, list[int], Callable[..., None]]]:
    """Yield an outlet that keeps, the numbers of the memory files that were sent over it, and what sends one."""
    files: list[int] = []
    ours, theirs = raw_pair()
    owner = Owner()

    def spill(data: Content) -> tuple[bytes, OwnedFd]:
        file = memfd.sealed("long", data)
        files.append(file.fileno())
        return b"short", file

    def send(size: int = SIZE) -> None:
        it.send(lending(b"x" * size, [], spill))
        _data, received, _flags, _address = socket.recv_fds(theirs, 10, 2)
        os.close(received[0])

    it = owner.outlet = Outlet(asyncio.get_running_loop(), ours, owner, Outbox(), keeps=True)
    with ours, theirs:
        yield it, files, send
        it.drop()
    assert not any(map(is_open, files))


async def test_the_memory_file_of_a_message_is_kept_until_the_next_was_sent() -> None:
    async with keeping_outlet() as (_it, files, send):
        send()
        assert is_open(files[0])
        send()
        assert files[0] != files[1]
        assert not is_open(files[0])
        assert is_open(files[1])


async def test_if_no_other_follows_it_is_kept_for_a_moment_only() -> None:
    async with keeping_outlet() as (_it, files, send):
        send()
        await asyncio.sleep(0)
        send()  # the timer of the first finds another one, and waits for that
        await comes_true(lambda: not is_open(files[1]))
        send()
        await comes_true(lambda: not is_open(files[2]))


@pytest.mark.parametrize("size", [100_000, KEPT_FILE_BYTES + 1])
async def test_one_that_is_short_or_very_long_is_not_kept(size: int) -> None:
    async with keeping_outlet() as (_it, files, send):
        send(size)
        assert not is_open(files[0])


async def test_all_outlets_together_keep_few() -> None:
    async with AsyncExitStack() as stack:
        sent = [await stack.enter_async_context(keeping_outlet()) for _ in range(KEPT_FILES + 3)]
        for _it, _files, send in sent:
            send()
        assert [is_open(files[0]) for _it, files, _send in sent] == [True] * KEPT_FILES + [False] * 3
        for _it, files, send in sent:
            send()
            files.reverse()
        assert [is_open(files[0]) for _it, files, _send in sent] == [True] * KEPT_FILES + [False] * 3
        sent[0][0].drop()
        sent[-1][2]()
        assert is_open(sent[-1][1][-1])


async def test_what_is_kept_is_let_go_with_the_rest_and_in_a_forked_child() -> None:
    async with keeping_outlet() as (it, files, send):
        send()
        it.drop()
        assert not is_open(files[0])
        send()
        assert it.let_go_in_child() == []
        assert not is_open(files[1])


async def test_a_copy_in_a_forked_child_forgets_what_waits() -> None:
    async with outlet() as (it, owner, ours, _theirs):
        fill(ours)
        waiting = packet(owner)
        it.send(waiting)
        asyncio.get_running_loop().remove_writer(ours.fileno())  # it is the parent's there
        assert it.let_go_in_child() == [waiting]
        assert not it.outbox.packets
        assert it.flush()


def test_what_waits_may_be_dropped_when_the_loop_is_closed() -> None:
    loop = asyncio.new_event_loop()
    ours, theirs = raw_pair()
    owner = Owner()
    it = owner.outlet = Outlet(loop, ours, owner, Outbox())
    fill(ours)
    it.send(packet(owner))
    loop.close()
    it.drop()
    assert not it.watching
    ours.close()
    theirs.close()
