"""Packets on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import io
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from helpers import Lender
from lingering import hidden, lingering
from packets import (
    DEADLINE,
    Recorder,
    comes_true,
    files,
    fill,
    no_room,
    on_transport,
    raw_pair,
    receive,
    receive_to_the_end,
    send_with,
    short_table,
    stalled,
    table_full,
    turns_of_the_loop,
)
from processes import AS_ROOT, OTHER_GID, OTHER_UID, in_child

import seqrpc
from seqrpc import ConnectionLost, Limits, OwnedFd, RemoteProtocolError, SeqpacketProtocol, SeqpacketTransport
from seqrpc.aio import shares
from seqrpc.aio.shares import share_of
from seqrpc.kernel import memfd
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import close_all
from seqrpc.kernel.linux import SO_PASSCRED
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import MAX_UNCLOSED_OF_ONE

as_root = pytest.mark.skipif(not AS_ROOT, reason="needs to become another user")


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two connected ends; the first is meant for a transport."""
    pair = raw_pair()
    yield pair
    for end in pair:
        end.close()


@pytest.fixture
def long_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no turn end for its time, which on a busy machine may be over after one packet."""
    monkeypatch.setattr(shares, "TURN_SECONDS", 60.0)


Pair = tuple[socket.socket, socket.socket]


def same_file(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


def refuse_descriptors(sock: socket.socket) -> None:
    if not PLATFORM.refuse_descriptors(sock):
        pytest.skip("this kernel cannot refuse descriptors")


def queue_one(transport: SeqpacketTransport) -> None:
    """Fill the kernel's buffer until a packet has to wait in the transport's own queue."""
    while not transport.get_write_buffer_packets():
        transport.send_packet(b"filling")


# Packets


async def test_packets_and_their_descriptors_pass_both_ways(raw: Pair, pipe: tuple[int, int]) -> None:
    ends = [on_transport(end)[1] for end in raw]
    for number in (0, 1, 2, 253):
        for here, there in (ends, ends[::-1]):
            with files(number) as fds:
                here.transport.send_packet(b"%d" % number, fds)
            await there.until_packets(len(there.packets) + 1)
            assert there.packets[-1] == b"%d" % number
            assert len(there.fds[-1]) == number
    ends[0].transport.send_packet(b"these", [Lender(fd) for fd in pipe])
    await ends[1].until(lambda: ends[1].packets[-1] == b"these")
    assert [same_file(*fds) for fds in zip((fd.fileno() for fd in ends[1].fds[-1]), pipe, strict=True)] == [True, True]
    for end in ends:
        await end.end()


async def test_descriptors_are_close_on_exec_when_they_arrive(raw: Pair, pipe: tuple[int, int]) -> None:
    _transport, recorder = on_transport(raw[0])
    send_with(raw[1], b"x", pipe)
    await recorder.until_packets(1)
    assert all(fcntl.fcntl(fd.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in recorder.fds[0])
    await recorder.end()


async def test_one_packet_sent_is_one_packet_received(raw: Pair) -> None:
    (here, _), (_, there) = on_transport(raw[0]), on_transport(raw[1])
    packets = [b"a", b"b", b"c" * 65_536, b"d", b"e" * 65_535]
    for packet in packets:
        here.send_packet(packet)
    await there.until_packets(len(packets))
    assert there.packets == packets
    here.abort()
    await there.until_told("lost")


async def test_single_packets_are_received_one_after_the_other(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])
    for number in range(30):
        raw[1].send(b"%d" % number)
        await recorder.until_packets(number + 1)
    for number in range(30, 60):
        raw[1].send(b"%d" % number)
    await recorder.until_packets(60)
    assert recorder.packets == [b"%d" % number for number in range(60)]
    await recorder.end()


async def test_what_cannot_be_a_packet_is_refused_before_anything_is_sent(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    for data in (b"", b"x" * 65_537):
        with pytest.raises(ValueError, match=f"a packet has 1 to 65536 bytes, this one {len(data)}"):
            transport.send_packet(data)
    with files(254) as fds, pytest.raises(ValueError, match="at most 253 descriptors, this one 254"):
        transport.send_packet(b"x", fds)
    with pytest.raises(ValueError, match="own socket"):
        transport.send_packet(b"x", [raw[0]])
    with files(1) as fds:
        fds[0].close()
        with pytest.raises(ValueError, match="closed"):
            transport.send_packet(b"x", fds)
    with pytest.raises(BlockingIOError):
        raw[1].recv(1)
    await recorder.end()


@pytest.mark.parametrize("queued", [False, True])
async def test_what_has_no_descriptor_to_lend_is_refused_before_anything_is_sent(raw: Pair, queued: bool) -> None:
    transport, recorder = on_transport(raw[0])
    if queued:
        queue_one(transport)
    waiting = transport.get_write_buffer_packets()
    with pytest.raises(ValueError, match="BytesIO has no descriptor to send: fileno") as caught:
        transport.send_packet(b"x", [io.BytesIO()])
    assert not isinstance(caught.value, OSError)
    closed = socket.socket()
    closed.close()
    with pytest.raises(ValueError, match="socket has no descriptor to send: it is closed"):
        transport.send_packet(b"x", [closed])
    assert transport.get_write_buffer_packets() == waiting
    await recorder.end()


async def test_a_number_that_is_no_descriptor_fails_that_packet_only(raw: Pair) -> None:
    class Wrong:
        def fileno(self) -> int:
            return 1_000_000

    transport, recorder = on_transport(raw[0])
    with pytest.raises(OSError, match="Bad file descriptor"):
        transport.send_packet(b"x", [Wrong()])
    queue_one(transport)
    with pytest.raises(OSError, match="Bad file descriptor"):
        transport.send_packet(b"x", [Wrong()])
    assert transport.get_write_buffer_packets() == 1
    await recorder.end()


async def test_the_protocol_that_overrides_nothing_closes_descriptors(raw: Pair, pipe: tuple[int, int]) -> None:
    class Plain(SeqpacketProtocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(exc)

    lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    SeqpacketTransport(asyncio.get_running_loop(), raw[0], Plain())
    send_with(raw[1], b"x", pipe)
    raw[1].close()
    assert await lost is None  # the watch on descriptors sees whether they were closed


async def test_a_socket_with_a_timeout_of_its_own_does_not_make_the_loop_wait(raw: Pair) -> None:
    raw[0].settimeout(3600)
    _transport, recorder = on_transport(raw[0])
    raw[1].send(b"a")
    await recorder.until_packets(1)  # the read that follows finds nothing
    assert recorder.packets == [b"a"]
    assert raw[0].gettimeout() == 0
    await recorder.end()


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


async def test_water_marks_can_be_set_as_in_asyncio(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    transport.set_write_buffer_limits()
    assert transport.get_write_buffer_limits() == (16_384, 65_536)
    transport.set_write_buffer_limits(high=400)
    assert transport.get_write_buffer_limits() == (100, 400)
    transport.set_write_buffer_limits(low=100)
    assert transport.get_write_buffer_limits() == (100, 400)
    transport.set_write_buffer_limits(high=0)
    assert transport.get_write_buffer_limits() == (0, 0)
    for wrong in ({"high": 1, "low": 2}, {"low": -1}):
        with pytest.raises(ValueError, match="water marks must be 0 <= low <= high"):
            transport.set_write_buffer_limits(**wrong)
    await recorder.end()


async def test_a_high_mark_below_what_waits_pauses_writing_at_once(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    queue_one(transport)
    transport.set_write_buffer_limits(high=0)
    assert recorder.told == ["made", "paused"]
    await receive(raw[1])
    _other, there = on_transport(raw[1])
    await recorder.until_told("resumed")
    await there.end()
    await recorder.until_told("lost")


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


async def test_nothing_is_read_after_pause_reading(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    assert transport.is_reading()
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    raw[1].send(b"a")
    await turns_of_the_loop()
    assert recorder.packets == []
    assert raw[0].recv(10, socket.MSG_PEEK) == b"a"

    transport.resume_reading()
    transport.resume_reading()
    await recorder.until_packets(1)
    assert recorder.packets == [b"a"]
    await recorder.end()
    transport.resume_reading()
    assert not transport.is_reading(), "a closed transport does not read"


async def test_nothing_is_read_after_pause_reading_inside_a_burst(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    recorder.on_packet = lambda data: transport.pause_reading() if data == b"3" else None
    for number in range(10):
        raw[1].send(b"%d" % number)
    await recorder.until_packets(4)
    await turns_of_the_loop()
    assert recorder.packets == [b"0", b"1", b"2", b"3"]
    transport.resume_reading()
    await recorder.until_packets(10)
    assert recorder.packets == [b"%d" % number for number in range(10)]
    await recorder.end()


async def test_reading_may_be_paused_before_the_first_packet(raw: Pair) -> None:
    class Pausing(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    raw[1].send(b"a")
    transport, recorder = on_transport(raw[0], Pausing())
    await turns_of_the_loop()
    assert recorder.packets == []
    transport.resume_reading()
    await recorder.until_packets(1)
    await recorder.end()


async def test_a_loop_is_kept_awake_after_a_packet_as_long_as_it_is_told_to(raw: Pair) -> None:
    """A loop that does not sleep uses up processor time: more than all the rest of this test does."""

    async def works() -> bool:
        began = time.thread_time()
        for _ in range(20):
            await asyncio.sleep(0.002)
            if time.thread_time() - began > 0.03:
                return True
        return False

    transport, recorder = on_transport(raw[0], limits=Limits(busy_poll_timeout=1))
    assert not await works(), "nothing has come yet"
    for number in (1, 2):
        raw[1].send(b"x")
        await recorder.until_packets(number)
        while not await works():  # on a busy machine another process may have the processor
            assert transport._awake_until > time.monotonic(), "it sleeps too early"
    transport.pause_reading()
    await asyncio.sleep(0)
    assert not await works(), "nobody reads any more"
    await recorder.end()


async def test_a_chatty_peer_does_not_starve_another_connection(raw: Pair) -> None:
    here, there = raw_pair()
    _chatty, busy = on_transport(raw[0], limits=Limits(max_packets_per_wakeup=4))
    _other, calm = on_transport(here)
    seen_before: list[int] = []
    calm.on_packet = lambda _data: seen_before.append(len(busy.packets))
    sent = fill(raw[1], b"x")
    there.send(b"x")
    await calm.until_packets(1)
    assert seen_before[0] <= 4 < sent
    await busy.until_packets(sent)
    await busy.end()
    await calm.end()
    there.close()


@pytest.mark.parametrize("size, most", [(65_536, 1), (30_000, 2), (500, 64)])
@pytest.mark.usefixtures("long_turns")
async def test_large_packets_are_received_in_smaller_bursts(raw: Pair, size: int, most: int) -> None:
    raw[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    _transport, recorder = on_transport(raw[0])
    bursts = [0]

    def count(_data: bytes) -> None:
        if bursts[-1] == 0:
            asyncio.get_running_loop().call_soon(bursts.append, 0)  # runs once this wake-up is over
        bursts[-1] += 1

    recorder.on_packet = count
    sent = fill(raw[1], b"x" * size)
    assert sent > most
    await recorder.until_packets(sent)
    assert max(bursts) <= most
    assert bursts[0] == most
    await recorder.end()


async def test_a_wakeup_ends_after_some_milliseconds_too(raw: Pair) -> None:
    here, there = raw_pair()
    _slow, busy = on_transport(raw[0])
    _other, calm = on_transport(here)
    seen_before: list[int] = []
    busy.on_packet = lambda _data: time.sleep(0.02)  # takes its time, as a policy may
    calm.on_packet = lambda _data: seen_before.append(len(busy.packets))
    for _ in range(128):
        raw[1].send(b"x")
    there.send(b"x")
    await calm.until_packets(1)
    assert seen_before[0] <= 2, "one wake-up of the other, or its first and one more"
    busy.on_packet = lambda _data: None
    await busy.until_packets(128)
    await busy.end()
    await calm.end()
    there.close()


async def test_all_of_one_user_that_read_in_one_turn_of_the_loop_share_its_time(raw: Pair) -> None:
    somebody_else = share_of(2_001)
    here, there = raw_pair()
    _one, first = on_transport(raw[0])
    _two, second = on_transport(here)
    loop = asyncio.get_running_loop()
    slow_in_this_turn: list[bool] = []
    both = 0

    def take_long(_data: bytes) -> None:
        slow_in_this_turn.append(True)
        loop.call_soon(slow_in_this_turn.clear)
        time.sleep(0.006)

    def look(_data: bytes) -> None:
        nonlocal both
        time.sleep(0.000_2)
        both += bool(slow_in_this_turn)

    first.on_packet, second.on_packet = take_long, look
    for _ in range(30):
        raw[1].send(b"x")
        there.send(b"x")
    await first.until_packets(30)
    await second.until_packets(30)
    await first.end()
    await second.end()
    there.close()
    assert somebody_else is share_of(2_001)
    assert both <= 5, "those whose turn it was come before the slow one"


@pytest.mark.usefixtures("long_turns")
async def test_a_wakeup_of_quick_packets_takes_many(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])
    bursts = [0]

    def count(_data: bytes) -> None:
        if bursts[-1] == 0:
            asyncio.get_running_loop().call_soon(bursts.append, 0)
        bursts[-1] += 1

    recorder.on_packet = count
    for _ in range(256):
        raw[1].send(b"x")
    await recorder.until_packets(256)
    assert max(bursts) == 64
    await recorder.end()


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


# Packets that are not whole


def oversized(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
    sock.send(b"x" * 70_000)


async def test_an_oversized_packet_ends_the_connection(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])
    oversized(raw[1])
    raw[1].send(b"x")
    await recorder.until_told("lost")
    assert isinstance(recorder.reason, RemoteProtocolError)
    assert str(recorder.reason) == "a packet has at most 65536 bytes, this one 70000"
    assert recorder.packets == []


class Tolerant(Recorder):
    """Takes what is not whole in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: list[Any] = []

    def packet_truncated(self, size: int) -> bool:
        self.cut.append(size)
        self.news.set()
        return True

    def descriptors_lost(self, data: bytes, credentials: seqrpc.Credentials | None) -> bool:
        assert credentials is not None
        self.cut.append((data, credentials.uid))
        self.news.set()
        return True


async def test_a_protocol_may_take_an_oversized_packet_in_its_own_way(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0], tolerant := Tolerant())
    oversized(raw[1])
    raw[1].send(b"next")
    await recorder.until_packets(1)
    assert recorder.packets == [b"next"]
    assert tolerant.cut == [70_000]
    await recorder.end()


async def test_lost_descriptors_end_the_connection(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])
    with files(3) as fds:
        send_with(raw[1], b"x", [fd.fileno() for fd in fds])
        with table_full():
            await recorder.until_told("lost")
    assert isinstance(recorder.reason, OSError)
    assert recorder.reason.errno == errno.EMFILE
    assert recorder.packets == []


async def test_a_protocol_may_take_the_loss_of_descriptors_in_its_own_way(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0], tolerant := Tolerant())
    with files(3) as fds:
        numbers = [fd.fileno() for fd in fds]
        send_with(raw[1], b"lost", numbers)
        with table_full():
            await recorder.until(lambda: bool(tolerant.cut))
        send_with(raw[1], b"whole", numbers)
    await recorder.until_packets(1)
    assert recorder.packets == [b"whole"]
    assert len(recorder.fds[0]) == 3
    assert tolerant.cut == [(b"lost", os.getuid())]
    await recorder.end()


# Protocols that fail


class Failing(Recorder):
    """Raises in one of its methods."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def fail(self, where: str) -> None:
        if where == self.where:
            raise LookupError(where)

    def packet_received(self, data: bytes, fds: list[OwnedFd], credentials: seqrpc.Credentials | None) -> None:
        self.fail("packet_received")

    def packet_truncated(self, size: int) -> bool:
        self.fail("packet_truncated")
        return False

    def descriptors_lost(self, data: bytes, credentials: seqrpc.Credentials | None) -> bool:
        self.fail("descriptors_lost")
        return False

    def eof_received(self) -> None:
        self.fail("eof_received")

    def pause_writing(self) -> None:
        self.fail("pause_writing")

    def resume_writing(self) -> None:
        self.fail("resume_writing")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.fail("connection_lost")


async def _provoke(where: str, transport: SeqpacketTransport, peer: socket.socket) -> None:
    """Make the transport call the method that fails."""
    with files(2) as fds:
        if where in ("packet_received", "descriptors_lost"):
            send_with(peer, b"x", [fd.fileno() for fd in fds])
        elif where == "packet_truncated":
            oversized(peer)
        elif where in ("pause_writing", "resume_writing"):
            transport.set_write_buffer_limits(high=0)
            fill(transport.get_extra_info("socket"))
            transport.send_packet(b"x")
            if where == "resume_writing":
                while transport.get_write_buffer_packets():
                    await receive(peer)
                    await turns_of_the_loop(2)
        else:
            peer.close()
        if where == "descriptors_lost":
            with table_full():
                await turns_of_the_loop()


@pytest.mark.parametrize(
    "where",
    [
        "packet_received",
        "packet_truncated",
        "descriptors_lost",
        "eof_received",
        "pause_writing",
        "resume_writing",
        "connection_lost",
    ],
)
async def test_an_exception_of_a_protocol_costs_its_connection_only(
    raw: Pair, where: str, loop_errors: list[dict[str, Any]]
) -> None:
    here, there = raw_pair()
    _transport, calm = on_transport(here)
    transport, recorder = on_transport(raw[0], Failing(where))
    await _provoke(where, transport, raw[1])
    await recorder.until_told("lost")
    await turns_of_the_loop()

    assert [str(context["exception"]) for context in loop_errors] == [where]
    assert raw[0].fileno() == -1
    if where != "connection_lost":
        assert str(recorder.reason) == where
        assert loop_errors[0]["protocol"] is recorder
        assert loop_errors[0]["transport"] is transport
    loop_errors.clear()

    there.send(b"x")
    await calm.until_packets(1)
    await calm.end()
    there.close()


async def test_a_protocol_that_fails_as_it_is_made_leaves_nothing_behind(raw: Pair, pipe: tuple[int, int]) -> None:
    class Unmade(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            queue_one(self.transport)
            self.transport.send_packet(b"with", [Lender(pipe[0])])
            raise LookupError

    recorder = Unmade()
    raw[1].send(b"x")
    with pytest.raises(LookupError):
        on_transport(raw[0], recorder)
    await turns_of_the_loop()
    assert recorder.packets == []
    assert recorder.told == ["made"]
    assert recorder.transport.get_write_buffer_packets() == 0
    raw[0].close()


# Packets that are too long


class Spilling(Recorder):
    """Lets what is too long go as a memory file, as connections do."""

    def __init__(self, failure: OSError | None = None) -> None:
        super().__init__()
        self.failure = failure

    def packet_too_long(self, data: memfd.Content) -> tuple[bytes, OwnedFd]:
        if self.failure is not None:
            raise self.failure
        return b"%d bytes" % len(data), memfd.sealed("spilled", data)


def content(fd: OwnedFd) -> bytes:
    """Return what a memory file holds."""
    return os.pread(fd.fileno(), 1_000_000, 0)


def make_room_for_little(sock: socket.socket) -> None:
    """Let the kernel find packets of some thousand bytes too long: EMSGSIZE."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5_000)


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


async def test_what_the_kernel_finds_too_long_is_refused_if_the_protocol_has_no_other_way(raw: Pair) -> None:
    make_room_for_little(raw[0])
    transport, recorder = on_transport(raw[0])
    with files(1) as fds:
        for lent in ([], fds):
            with pytest.raises(OSError, match="Message too long"):
                transport.send_packet(b"y" * 60_000, lent)
    transport.send_packet(b"next")
    assert await receive(raw[1]) == b"next"
    await recorder.end()


async def test_what_is_too_long_and_holds_all_the_descriptors_there_can_be_is_refused(raw: Pair) -> None:
    make_room_for_little(raw[0])
    transport, recorder = on_transport(raw[0], Spilling())
    with files(253) as fds:
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


# A socket that takes no descriptors


async def accepted(path: Path, *, takes_descriptors: bool) -> Pair:
    """Return what a listener accepts, and the client's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        if not takes_descriptors:
            refuse_descriptors(listener)
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(os.fspath(path))
        client.setblocking(False)
        return listener.accept()[0], client


@contextmanager
def functions_called() -> Iterator[set[str]]:
    """Collect the names of the C functions that this thread calls."""
    names: set[str] = set()

    def look(_frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            names.add(argument.__name__)

    sys.setprofile(look)
    try:
        yield names
    finally:
        sys.setprofile(None)


async def test_a_socket_is_read_the_quick_way_if_it_neither_takes_descriptors_nor_asks_for_senders(
    socket_path: Path, raw: Pair
) -> None:
    pairs = [await accepted(Path(f"{socket_path}{takes}"), takes_descriptors=takes) for takes in (False, True)]
    refuse_descriptors(raw[0])
    ways = []
    for sock, client in (*pairs, raw):  # the last, a pair, asks for senders
        _transport, recorder = on_transport(sock)
        with functions_called() as names:
            client.send(b"x")
            await recorder.until_packets(1)
        assert recorder.packets == [b"x"]
        assert recorder.senders[0] is not None
        assert recorder.senders[0].pid == os.getpid()
        ways.append("recv_into" in names)
        await recorder.end()
        client.close()
    assert ways == [True, False, False]


@pytest.mark.parametrize("takes_descriptors", [False, True])
async def test_what_is_no_packet_is_told_whether_descriptors_are_taken_or_not(
    takes_descriptors: bool, socket_path: Path
) -> None:
    async def connected(name: str) -> tuple[Tolerant, socket.socket]:
        path = Path(f"{socket_path}{name}")
        sock, client = await accepted(path, takes_descriptors=takes_descriptors)
        on_transport(sock, tolerant := Tolerant())
        return tolerant, client

    recorder, client = await connected("a")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
    for size in (1, 65_536, 65_537, 70_000, 2):
        client.send(b"x" * size)
    client.close()
    await recorder.until_told("lost")
    assert [len(packet) for packet in recorder.packets] == [1, 65_536, 2]
    assert recorder.cut == [65_537, 70_000]
    assert recorder.told == ["made", "eof", "lost"]
    assert recorder.reason is None

    recorder, client = await connected("b")
    client.send(b"")
    client.send(b"after the end")
    await recorder.until_told("lost")
    assert recorder.told == ["made", "eof", "lost"]
    assert recorder.packets == []
    client.close()


# Peers that take no descriptors


async def test_a_peer_that_takes_no_descriptors_refuses_that_packet_only(raw: Pair, pipe: tuple[int, int]) -> None:
    refuse_descriptors(raw[1])
    transport, recorder = on_transport(raw[0])
    with files(1) as fds, pytest.raises(PermissionError):
        transport.send_packet(b"with", fds)
    transport.send_packet(b"without")
    assert await receive(raw[1]) == b"without"
    await recorder.end()


async def _refused_in_queue(
    raw: Pair, failed: Callable[[OSError], None] | None
) -> tuple[SeqpacketTransport, Recorder, Recorder]:
    transport, recorder = on_transport(raw[0])
    refuse_descriptors(raw[1])
    queue_one(transport)
    with files(1) as fds:
        transport.send_packet(b"with", fds, failed)
    transport.send_packet(b"without")
    return transport, recorder, on_transport(raw[1])[1]


async def test_a_queued_packet_that_is_refused_is_told_and_the_next_ones_go_on(raw: Pair) -> None:
    refused: list[OSError] = []
    _transport, recorder, there = await _refused_in_queue(raw, refused.append)
    await there.until(lambda: there.packets[-1:] == [b"without"])
    assert b"with" not in there.packets
    assert [exc.errno for exc in refused] == [errno.EPERM]
    await there.end()
    await recorder.until_told("lost")


async def test_a_queued_packet_that_is_refused_ends_the_connection_if_nobody_is_to_be_told(raw: Pair) -> None:
    _transport, recorder, there = await _refused_in_queue(raw, None)
    await recorder.until_told("lost")
    assert isinstance(recorder.reason, PermissionError)
    await there.until_told("lost")
    assert b"without" not in there.packets


async def test_whoever_is_told_of_a_refusal_may_send_something_else(raw: Pair) -> None:
    def send_more(exc: OSError) -> None:
        transport.send_packet(b"instead")
        queue_one(transport)

    transport, recorder = on_transport(raw[0])
    refuse_descriptors(raw[1])
    queue_one(transport)
    with files(1) as fds:
        transport.send_packet(b"with", fds, send_more)
    _other, there = on_transport(raw[1])
    await there.until(lambda: b"instead" in there.packets and not transport.get_write_buffer_packets())
    assert b"with" not in there.packets
    await there.end()
    await recorder.until_told("lost")


async def test_whoever_is_told_of_a_refusal_may_end_the_connection(raw: Pair) -> None:
    def end(exc: OSError) -> None:
        recorder.transport.abort()

    _transport, recorder, there = await _refused_in_queue(raw, end)
    await recorder.until_told("lost")
    assert recorder.reason is None
    await there.until_told("lost")


async def test_whoever_is_told_of_a_refusal_and_fails_costs_the_connection(
    raw: Pair, loop_errors: list[dict[str, Any]]
) -> None:
    def fail(exc: OSError) -> None:
        raise LookupError

    _transport, recorder, there = await _refused_in_queue(raw, fail)
    await recorder.until_told("lost")
    assert [type(context["exception"]) for context in loop_errors] == [LookupError]
    loop_errors.clear()
    await there.until_told("lost")


# Too many descriptors under way: a bound of the kernel for users that are not root (unix(7), ETOOMANYREFS)


def _as_other_user(story: Callable[[Pair, Pair], Any]) -> Any:
    """Run a story in a child of another user who may have 80 descriptors under way, 64 of them being so already."""

    def work() -> Any:
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
        pair, jam = raw_pair(), raw_pair()
        with files(1) as fds:
            for _ in range(2):
                send_with(jam[0], b"x", [fds[0].fileno()] * 50)
        result = asyncio.run(story(pair, jam))
        for end in (*pair, *jam):
            end.close()
        return result

    return in_child(work, uid=OTHER_UID)


@as_root
def test_a_packet_that_the_kernel_has_no_room_for_is_refused_at_once() -> None:
    async def story(pair: Pair, jam: Pair) -> str:
        transport, recorder = on_transport(pair[0])
        with files(1) as fds:
            try:
                transport.send_packet(b"with", fds)
            except OSError as exc:
                result = errno.errorcode[exc.errno or 0]
            else:
                result = "sent"
        await recorder.end()
        return result

    assert _as_other_user(story) == "ETOOMANYREFS"


@as_root
def test_a_queued_packet_that_the_kernel_has_no_room_for_is_tried_again() -> None:
    async def story(pair: Pair, jam: Pair) -> tuple[bool, list[bytes], int]:
        transport, recorder = on_transport(pair[0])
        queue_one(transport)
        with files(1) as fds:
            transport.send_packet(b"with", fds)
        transport.send_packet(b"after")
        _other, there = on_transport(pair[1])
        await comes_true(lambda: transport.get_write_buffer_packets() == 2 and not transport._writing)
        waited = b"with" not in there.packets
        jam[1].close()  # the kernel drops what was under way there
        await there.until(lambda: there.packets[-1:] == [b"after"])
        result = waited, there.packets[-2:], len(there.fds[-2])
        await there.end()
        await recorder.until_told("lost")
        return result

    assert _as_other_user(story) == (True, [b"with", b"after"], 1)


@as_root
def test_a_connection_may_end_while_a_packet_is_to_be_tried_again() -> None:
    async def story(pair: Pair, jam: Pair) -> list[str]:
        transport, recorder = on_transport(pair[0])
        queue_one(transport)
        with files(1) as fds:
            transport.send_packet(b"with", fds)
        _other, there = on_transport(pair[1])
        await comes_true(lambda: transport.get_write_buffer_packets() == 1 and not transport._writing)
        transport.abort()
        await there.until_told("lost")
        again = asyncio.Event()
        asyncio.get_running_loop().call_later(0.03, again.set)  # after the transport's own timer
        await again.wait()
        return recorder.told

    assert _as_other_user(story) == ["made", "lost"]


# Who is there


async def test_packets_on_a_pair_tell_of_their_true_sender(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    assert transport.get_extra_info("credentials") is None
    assert transport.get_extra_info("connected_uid") == os.getuid(), "who made it"
    raw[1].send(b"mine")
    await recorder.until_packets(1)
    assert recorder.senders == [seqrpc.Credentials(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())]
    await recorder.end()


@as_root
async def test_packets_on_a_pair_tell_of_their_true_sender_in_another_process(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])

    def send() -> int:
        raw[1].send(b"theirs")
        return os.getpid()

    raw[1].send(b"before")
    pid = in_child(send, uid=OTHER_UID, gid=OTHER_GID)
    raw[1].send(b"after")
    await recorder.until_packets(3)
    assert [(sender.pid, sender.uid, sender.gid) for sender in recorder.senders if sender] == [
        (os.getpid(), 0, 0),
        (pid, OTHER_UID, OTHER_GID),
        (os.getpid(), 0, 0),
    ]
    await recorder.end()


async def test_a_kernel_that_names_the_sender_once_is_believed_from_then_on(
    raw: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So FreeBSD does it (``LOCAL_CREDS``); here the asking is ended after the first packet."""
    monkeypatch.setattr(type(PLATFORM), "credentials_come_once", True)
    transport, recorder = on_transport(raw[0])
    raw[1].send(b"first")
    await recorder.until_packets(1)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 0)
    raw[1].send(b"second")
    await recorder.until_packets(2)
    assert recorder.senders[0] is not None
    assert recorder.senders[1] == recorder.senders[0]
    await recorder.end()


async def test_a_connected_socket_tells_who_connected_and_its_names(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(socket_path))
        listener.listen()
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(os.fspath(socket_path))
        sock, _ = listener.accept()
    transport, recorder = on_transport(sock)
    assert transport.get_extra_info("socket") is sock
    assert transport.get_extra_info("sockname") == os.fspath(socket_path)
    assert transport.get_extra_info("peername") == ""
    assert transport.get_extra_info("something else", 7) == 7
    me = seqrpc.Credentials(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())
    assert transport.get_extra_info("credentials") == me
    peer.send(b"x")
    await recorder.until_packets(1)
    assert recorder.senders == [me]
    await recorder.end()
    peer.close()


async def test_another_protocol_may_take_over(raw: Pair) -> None:
    transport, first = on_transport(raw[0])
    second = Recorder()
    assert transport.get_protocol() is first
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    raw[1].send(b"x")
    await second.until_packets(1)
    assert first.packets == []
    with pytest.raises(TypeError, match="a SeqpacketProtocol was expected, got Protocol"):
        transport.set_protocol(asyncio.Protocol())
    transport.abort()
    await second.until_told("lost")


async def test_the_representation_shows_the_state(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    fd = raw[0].fileno()
    assert repr(transport) == f"<SeqpacketTransport open fd={fd} queued=0>"
    queue_one(transport)
    transport.close()
    assert repr(transport) == f"<SeqpacketTransport closing fd={fd} queued=7>"
    transport.abort()
    assert repr(transport) == f"<SeqpacketTransport closed fd={fd} queued=0>"
    await recorder.until_told("lost")


# Where there is no room for more descriptors


async def test_packets_with_descriptors_wait_while_the_sender_s_are_being_closed(
    raw: Pair, pipe: tuple[int, int]
) -> None:
    _transport, recorder = on_transport(raw[0])
    here, there = raw_pair()
    _other, friend = on_transport(here)
    with no_room(os.getuid()) as lifted:
        raw[1].send(b"plain")
        raw[1].send(b"plain")
        send_with(raw[1], b"with", pipe)
        raw[1].send(b"after it")
        await recorder.until_packets(2)
        there.send(b"x")
        await friend.until_packets(1)
        await turns_of_the_loop(50)
        assert recorder.packets == [b"plain", b"plain"]
        lifted.set()
        await recorder.until_packets(4)
    assert recorder.packets == [b"plain", b"plain", b"with", b"after it"]
    assert len(recorder.fds[2]) == 2
    await recorder.end()
    await friend.end()
    there.close()


async def test_descriptors_of_many_packets_are_not_taken_in_at_once(raw: Pair) -> None:
    class Closing(Recorder):
        most = 0

        def packet_received(self, data: bytes, fds: list[OwnedFd], credentials: Credentials | None) -> None:
            close_all(fds)
            self.most = max(self.most, len(CLOSER._inbox) + CLOSER._unclosed())
            super().packet_received(data, [], credentials)

    recorder = Closing()
    on_transport(raw[0], recorder)
    with socket.socket() as sock:
        for _ in range(40):  # all of them at once would be 10,000
            send_with(raw[1], b"x", [sock.fileno()] * 253)
    await recorder.until_packets(40)
    assert recorder.most <= 2 * MAX_UNCLOSED_OF_ONE + 253
    await recorder.end()


@pytest.mark.parametrize("how", ["closed", "paused", "gone"])
async def test_a_connection_may_end_while_its_packets_wait_for_room(raw: Pair, pipe: tuple[int, int], how: str) -> None:
    transport, recorder = on_transport(raw[0])
    with no_room(os.getuid()) as lifted:
        raw[1].send(b"plain")
        send_with(raw[1], b"with", pipe)
        await recorder.until_packets(1)
        await turns_of_the_loop()
        if how == "closed":
            transport.close()
            await recorder.until_told("lost")
            assert CLOSER._hopeful == {}
        elif how == "paused":
            transport.pause_reading()
            transport.resume_reading()
            transport.pause_reading()
        else:
            raw[1].close()
            await turns_of_the_loop()
            assert "lost" not in recorder.told
        lifted.set()
        if how == "gone":
            await recorder.until_told("lost")
            assert recorder.packets == [b"plain", b"with"]
        elif how == "paused":
            assert CLOSER.wait_idle(DEADLINE)
            await turns_of_the_loop()
            assert recorder.packets == [b"plain"]
            transport.resume_reading()
            await recorder.until_packets(2)
    await recorder.end()


async def test_what_came_before_the_pipe_broke_waits_for_room_too(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    with no_room(os.getuid()) as lifted:
        raw[1].send(b"plain")
        send_with(raw[1], b"with", pipe)
        raw[1].send(b"last")
        raw[1].shutdown(socket.SHUT_RD)
        with pytest.raises(ConnectionLost):
            transport.send_packet(b"x")
        await recorder.until_packets(1)
        await turns_of_the_loop(50)
        assert recorder.packets == [b"plain"]
        lifted.set()
        await recorder.until_told("lost")
    assert recorder.packets == [b"plain", b"with", b"last"]
    await recorder.end()


async def test_where_the_table_is_short_packets_with_descriptors_are_received_elsewhere(
    raw: Pair, pipe: tuple[int, int]
) -> None:
    _transport, recorder = on_transport(raw[0])
    with short_table():
        raw[1].send(b"plain")
        send_with(raw[1], b"with", pipe)
        raw[1].send(b"after it")
        send_with(raw[1], b"again", [pipe[0]])
        await recorder.until_packets(4)
    assert recorder.packets == [b"plain", b"with", b"after it", b"again"]
    assert [len(fds) for fds in recorder.fds] == [0, 2, 0, 1]
    await recorder.end()


@as_root
async def test_descriptors_that_find_no_number_are_waited_for_elsewhere(raw: Pair) -> None:
    protocol = Tolerant()
    on_transport(raw[0], protocol)
    here, there = raw_pair()
    _other, friend = on_transport(here)
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(lingering(60))
        with hidden(made.make()) as outer:
            send_with(raw[1], b"lost", [outer.fileno()])
        raw[1].send(b"after it")
        stack.enter_context(short_table(left=0))
        for number in range(100):
            there.send(b"x")
            await friend.until_packets(number + 1)
        assert protocol.packets == []
        made.release()
        await protocol.until_packets(1)
    assert protocol.cut == [(b"lost", os.getuid())]
    assert protocol.packets == [b"after it"]
    await protocol.end()
    await friend.end()
    there.close()


@pytest.mark.parametrize("then", ["resumed", "closed", "lost"])
async def test_reading_may_be_paused_while_a_packet_is_received_elsewhere(
    raw: Pair, pipe: tuple[int, int], then: str
) -> None:
    transport, recorder = on_transport(raw[0])
    with short_table(), stalled(os.getuid()) as lifted:
        send_with(raw[1], b"with", pipe)
        raw[1].send(b"after it")
        await comes_true(lambda: transport._gate is not None and transport._gate.shut)
        transport.pause_reading()
        lifted.set()
        await comes_true(lambda: transport._arrived is not None)
        await turns_of_the_loop()
        assert recorder.packets == []
        if then == "resumed":
            transport.resume_reading()
            await recorder.until_packets(2)
            assert [len(fds) for fds in recorder.fds] == [2, 0]
        elif then == "closed":
            transport.close()
            await recorder.until_told("lost")
        else:
            transport.abort()
            await recorder.until_told("lost")
    await recorder.end()


async def test_a_connection_may_end_while_a_packet_is_received_elsewhere(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    with short_table(), stalled(os.getuid()) as lifted:
        send_with(raw[1], b"with", pipe)
        await comes_true(lambda: transport._gate is not None and transport._gate.receives)
        transport.abort()
        await recorder.until_told("lost")
        assert raw[0].fileno() >= 0
        lifted.set()
        await comes_true(lambda: raw[0].fileno() < 0)
    assert recorder.packets == []


async def test_a_failure_elsewhere_is_one_of_the_socket(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    with short_table(), stalled(os.getuid()) as lifted:
        send_with(raw[1], b"with", pipe)
        await comes_true(lambda: transport._gate is not None and transport._gate.receives)
        raw[0].recv(10)  # somebody was quicker
        lifted.set()
        await comes_true(lambda: transport._gate is not None and not transport._gate.shut)
        raw[1].send(b"next")
        await recorder.until_packets(1)
    assert recorder.packets == [b"next"]
    await recorder.end()


async def test_a_protocol_that_fails_over_what_was_received_elsewhere_costs_its_connection(
    raw: Pair, pipe: tuple[int, int], loop_errors: list[dict[str, Any]]
) -> None:
    _transport, recorder = on_transport(raw[0])
    recorder.on_packet = lambda _data: 1 / 0  # type: ignore[assignment]
    with short_table():
        send_with(raw[1], b"with", pipe)
        await recorder.until_told("lost")
    assert [type(context["exception"]) for context in loop_errors] == [ZeroDivisionError]
    loop_errors.clear()
    await recorder.end()
