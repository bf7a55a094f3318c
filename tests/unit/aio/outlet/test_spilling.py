"""Packets that are too long."""

from __future__ import annotations

import errno
import os

import pytest
from support.descriptors import Lender, owned, same_file
from support.packets import fill, receive
from support.transport import Pair, Recorder, make_room_for_little, on_transport, queue_one

from seqrpc import OwnedFd
from seqrpc.kernel import memfd
from seqrpc.kernel.pieces import Content


class Spilling(Recorder):
    """Lets what is too long go as a memory file, as connections do."""

    def __init__(self, failure: OSError | None = None) -> None:
        super().__init__()
        self.failure = failure

    def packet_too_long(self, data: Content) -> tuple[bytes, OwnedFd]:
        if self.failure is not None:
            raise self.failure
        return b"%d bytes" % len(data), memfd.sealed("spilled", data)


def content(fd: OwnedFd) -> bytes:
    """Return what a memory file holds."""
    return os.pread(fd.fileno(), 1_000_000, 0)


@pytest.mark.parametrize("data", [b"x" * 65_537, memoryview(b"x" * 65_537)], ids=["bytes", "memoryview"])
async def test_what_is_longer_than_a_packet_goes_as_the_protocol_says(
    raw: Pair, pipe: tuple[int, int], data: bytes | memoryview
) -> None:
    (here, _), (_, there) = on_transport(raw[0], Spilling()), on_transport(raw[1])
    here.send_packet(data)
    here.send_packet(data, [Lender(fd) for fd in pipe])
    await there.until_packets(2)
    assert there.packets == [b"65537 bytes"] * 2
    assert [len(fds) for fds in there.fds] == [1, 3]
    assert [content(fds[0]) for fds in there.fds] == [b"x" * 65_537] * 2
    assert all(same_file(*ends) for ends in zip((fd.fileno() for fd in there.fds[1][1:]), pipe, strict=True))
    await there.end()
    here.abort()


async def test_what_the_kernel_finds_too_long_goes_as_the_protocol_says(raw: Pair, pipe: tuple[int, int]) -> None:
    make_room_for_little(raw[0])
    (here, _), (_, there) = on_transport(raw[0], Spilling()), on_transport(raw[1])
    here.send_packet(b"y" * 60_000)
    here.send_packet(b"z" * 60_000, [Lender(pipe[0])])
    await there.until_packets(2)
    assert there.packets == [b"60000 bytes"] * 2
    assert [content(fds[0]) for fds in there.fds] == [b"y" * 60_000, b"z" * 60_000]
    assert same_file(there.fds[1][1].fileno(), pipe[0])
    await there.end()
    here.abort()


async def test_what_is_too_long_and_holds_all_the_descriptors_there_can_be_is_refused(raw: Pair) -> None:
    make_room_for_little(raw[0])
    transport, recorder = on_transport(raw[0], Spilling())
    with owned(253) as fds:
        with pytest.raises(ValueError, match="at most 253 descriptors, this one 254"):
            transport.send_packet(b"x" * 70_000, fds)
        with pytest.raises(OSError, match="Message too long"):
            transport.send_packet(b"x" * 60_000, fds)
    with pytest.raises(BlockingIOError):
        raw[1].recv(1)
    await recorder.end()


@pytest.mark.parametrize("length", [60_000, 70_000])
async def test_a_protocol_that_cannot_make_a_packet_short_refuses_that_packet_only(raw: Pair, length: int) -> None:
    make_room_for_little(raw[0])
    transport, recorder = on_transport(raw[0], Spilling(OSError(errno.EMFILE, os.strerror(errno.EMFILE))))
    with pytest.raises(OSError, match="Too many open files"):
        transport.send_packet(b"x" * length)
    transport.send_packet(b"next")
    assert await receive(raw[1]) == b"next"
    await recorder.end()


async def test_a_queued_packet_that_the_kernel_finds_too_long_keeps_its_place(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0], Spilling())
    queue_one(transport)
    transport.send_packet(b"1" * 60_000)
    transport.send_packet(b"2" * 60_000, [Lender(pipe[0])])
    transport.send_packet(b"3" * 70_000, [Lender(pipe[1])])
    transport.send_packet(b"4")
    make_room_for_little(raw[0])
    _other, there = on_transport(raw[1])
    await there.until(lambda: there.packets[-1:] == [b"4"])
    assert there.packets[-4:] == [b"60000 bytes", b"60000 bytes", b"70000 bytes", b"4"]
    assert [[content(fds[0])[:1], len(fds)] for fds in there.fds[-4:-1]] == [[b"1", 1], [b"2", 2], [b"3", 2]]
    assert [same_file(there.fds[-3][1].fileno(), pipe[0]), same_file(there.fds[-2][1].fileno(), pipe[1])] == [True] * 2
    assert transport.get_write_buffer_size() == 0
    await there.end()
    await recorder.until_told("lost")


async def test_a_queued_packet_that_cannot_be_made_short_is_told_of_what_the_kernel_said(raw: Pair) -> None:
    refused: list[OSError] = []
    transport, recorder = on_transport(raw[0], Spilling(OSError(errno.EMFILE, "no more")))
    queue_one(transport)
    transport.send_packet(b"x" * 60_000, (), refused.append)
    transport.send_packet(b"next")
    make_room_for_little(raw[0])
    _other, there = on_transport(raw[1])
    await there.until(lambda: there.packets[-1:] == [b"next"])
    assert [exc.errno for exc in refused] == [errno.EMSGSIZE]
    await there.end()
    await recorder.until_told("lost")


async def test_a_queued_packet_weighs_what_its_memory_file_holds(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0], Spilling())
    fill(raw[0], b"x")
    transport.send_packet(b"x" * 1_000_000)
    assert transport.get_write_buffer_size() == 1_000_000
    assert recorder.told == ["made", "paused"]
    _other, there = on_transport(raw[1])
    await recorder.until_told("resumed")
    assert transport.get_write_buffer_size() == 0
    await there.until(lambda: there.packets[-1:] == [b"1000000 bytes"])
    await there.end()
    await recorder.until_told("lost")


async def test_queued_memory_files_go_with_the_connection(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0], Spilling())
    fill(raw[0], b"x")
    for _ in range(3):
        transport.send_packet(b"x" * 70_000)
    transport.abort()
    await recorder.until_told("lost")  # the watch on descriptors sees whether they were closed
