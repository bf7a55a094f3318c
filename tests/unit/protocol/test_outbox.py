"""What waits to be sent, without a socket to send it over: whoever drives an outbox says how it went."""

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.descriptors import Lender, owned
from support.scarcity import table_full

from seqrpc.kernel import memfd
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd, sender_of
from seqrpc.kernel.pieces import Content, Pieces
from seqrpc.limits import DEFAULT_LIMITS, MAX_DESCRIPTORS, MAX_PACKET
from seqrpc.protocol.outbox import Outbox, Packet, Verdict, judge, lending

FULL = BlockingIOError(errno.EAGAIN, "full")


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def no_way(_data: Content) -> None:
    """Know no other way for what is too long."""


class Spilling:
    """Makes memory files of what is too long."""

    def __init__(self, short: bytes = b"short") -> None:
        self.short = short
        self.files: list[OwnedFd] = []
        self.lengths: list[int] = []

    def __call__(self, data: Content) -> tuple[bytes, OwnedFd]:
        self.lengths.append(len(data))
        self.files.append(memfd.sealed("spilled", data))
        return self.short, self.files[-1]


@pytest.fixture
def spilling() -> Iterator[Spilling]:
    spilling = Spilling()
    yield spilling
    assert all(file.closed for file in spilling.files), "they are the packet's"


def failing(exc: Exception) -> Any:
    def spill(_data: Content) -> tuple[bytes, OwnedFd]:
        raise exc

    return spill


class Told(Packet):
    """Says what became of it."""

    def __init__(self, data: bytes, told: list[str]) -> None:
        super().__init__(data, [], weight=len(data))
        self.told = told

    def sent(self) -> None:
        self.told.append(f"{self.data!r} sent")

    def unsent(self) -> None:
        self.told.append(f"{self.data!r} unsent")


# Packets


def test_what_is_lent_is_told_by_number_and_stays_its_owners() -> None:
    with owned(2) as fds:
        packet = lending(b"data", fds, no_way)

        assert packet.data == b"data"
        assert list(packet.numbers()) == [fd.fileno() for fd in fds]
        assert not packet.narrow
        assert packet.weight == 4
        packet.sent()
        assert [fd.closed for fd in fds] == [False, False]


def test_a_packet_that_is_kept_has_duplicates_which_it_closes() -> None:
    for end in (Packet.sent, Packet.unsent):
        with owned(1) as (fd,):
            packet = lending(b"data", [fd], no_way)
            packet.keep(1001)
            (number,) = packet.numbers()

            assert number != fd.fileno()
            assert os.path.sameopenfile(number, fd.fileno())
            (duplicate,) = packet.fds
            assert sender_of(duplicate) == 1001
            end(packet)
            assert duplicate.closed


def test_what_cannot_be_duplicated_leaves_nothing(spilling: Spilling) -> None:
    with owned(1) as fds:
        packet = lending(b"x" * (MAX_PACKET + 1), fds, spilling)
        with table_full(), pytest.raises(OSError, match="Too many open files"):
            packet.keep(None)
        assert packet.fds == []


@pytest.mark.parametrize(
    "data, lenders, why",
    [
        (b"", 0, "a packet has 1 to 65536 bytes, this one 0"),
        (b"x" * (MAX_PACKET + 1), 0, "a packet has 1 to 65536 bytes, this one 65537"),
        (Pieces([b"in", b"pieces"]), 0, "a packet has 1 to 65536 bytes, this one 8"),
        (b"x", MAX_DESCRIPTORS + 1, "a packet carries at most 253 descriptors, this one 254"),
        (b"x" * (MAX_PACKET + 1), MAX_DESCRIPTORS, "a packet carries at most 253 descriptors, this one 254"),
    ],
)
def test_what_cannot_be_a_packet_is_refused(data: Content, lenders: int, why: str) -> None:
    with owned(1) as (fd,), pytest.raises(ValueError, match=why):
        lending(data, [fd] * lenders, no_way)


def test_what_has_no_descriptor_to_lend_is_refused() -> None:
    closed = socket.socket()
    closed.close()
    with pytest.raises(ValueError, match="socket has no descriptor to send: it is closed"):
        lending(b"x", [closed], no_way)
    with pytest.raises(ValueError, match="StringIO has no descriptor to send: "):
        lending(b"x", [io.StringIO()], no_way)


def test_the_socket_itself_cannot_be_sent_over_it() -> None:
    with owned(2) as fds, pytest.raises(ValueError, match="own socket"):
        lending(b"x", fds, no_way, own=fds[1].fileno())


def test_what_is_too_long_goes_the_other_way(spilling: Spilling) -> None:
    with owned(1) as (fd,):
        packet = lending(b"x" * (MAX_PACKET + 1), [fd], spilling)

        assert packet.data == b"short"
        assert list(packet.numbers()) == [spilling.files[0].fileno(), fd.fileno()]
        assert packet.narrow
        assert packet.weight == MAX_PACKET + 1
        packet.sent()


def test_a_way_that_is_too_long_itself_is_refused_and_leaves_nothing() -> None:
    spilling = Spilling(short=b"")
    with pytest.raises(ValueError, match="this one 0"):
        lending(b"x" * (MAX_PACKET + 1), [], spilling)
    assert spilling.files[0].closed


def test_why_there_is_no_other_way_is_raised() -> None:
    with pytest.raises(OSError, match="No space left"):
        lending(b"x" * (MAX_PACKET + 1), [], failing(error(errno.ENOSPC)))


def test_memory_that_leaves_counts() -> None:
    with Buffer.allocate(10_000) as buffer, owned(1) as (fd,):
        packet = lending(b"data", [fd, buffer], no_way)

        assert packet.narrow
        assert packet.weight == 10_004


# What to do with what was not sent


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    "exc, verdict",
    [
        (FULL, Verdict.WAIT),
        (InterruptedError(errno.EINTR, "interrupted"), Verdict.WAIT),
        (error(errno.EPIPE), Verdict.BROKEN),
        (error(errno.ECONNRESET), Verdict.BROKEN),
        (error(errno.ENOTCONN), Verdict.BROKEN),
        (error(errno.ECONNABORTED), Verdict.BROKEN),
        (error(errno.ENOMEM), Verdict.LATER),
        (error(errno.ETOOMANYREFS), Verdict.LATER),
        (error(errno.ENOBUFS), Verdict.LATER),
        (error(errno.EMSGSIZE), Verdict.REFUSED),
        (error(errno.EPERM), Verdict.REFUSED),
        (ValueError("what it lends is closed"), Verdict.REFUSED),
    ],
)
def test_what_the_kernel_says_tells_what_to_do(exc: Exception, verdict: Verdict, kept: bool) -> None:
    packet = lending(b"x" * 100, [], no_way)
    if kept:
        packet.keep(None)
    assert judge(packet, exc, no_way) == (verdict, exc)


def test_a_bad_number_is_the_lenders_fault_until_it_is_duplicated() -> None:
    exc = error(errno.EBADF)
    packet = lending(b"x", [], no_way)
    assert judge(packet, exc, no_way) == (Verdict.REFUSED, exc)
    packet.keep(None)
    assert judge(packet, exc, no_way) == (Verdict.BROKEN, exc)


@pytest.mark.parametrize("number", [errno.EMSGSIZE, errno.ENOBUFS])
def test_what_the_kernel_finds_too_long_is_shortened(number: int, spilling: Spilling) -> None:
    packet = lending(b"x" * 100, [], spilling)
    exc = error(number)

    assert judge(packet, exc, spilling) == (Verdict.AGAIN, exc)
    assert packet.data == b"short"
    assert packet.narrow
    assert spilling.lengths == [100]
    verdict, _reason = judge(packet, exc, spilling)
    assert verdict is (Verdict.REFUSED if number == errno.EMSGSIZE else Verdict.LATER), "it is short already"
    packet.unsent()


def test_what_brings_all_the_descriptors_there_can_be_is_not_shortened(spilling: Spilling) -> None:
    with owned(1) as (fd,):
        packet = lending(b"x" * 100, [fd] * MAX_DESCRIPTORS, spilling)
        assert judge(packet, error(errno.EMSGSIZE), spilling)[0] is Verdict.REFUSED
    assert spilling.files == []


def test_why_it_cannot_be_shortened_is_the_reason_unless_it_waited() -> None:
    exc, why = error(errno.EMSGSIZE), error(errno.ENOSPC)
    packet = lending(b"x" * 100, [], no_way)
    assert judge(packet, exc, failing(why)) == (Verdict.REFUSED, why)
    packet.keep(None)
    assert judge(packet, exc, failing(why)) == (Verdict.REFUSED, exc)
    mistake = RuntimeError("a mistake")
    assert judge(packet, exc, failing(mistake)) == (Verdict.REFUSED, mistake)


# Outboxes


def test_packets_leave_in_their_order() -> None:
    told: list[str] = []
    outbox = Outbox()
    assert outbox.first is None
    one, two = Told(b"one", told), Told(b"three", told)
    outbox.add(one)
    outbox.add(two)

    assert outbox.first is one
    assert outbox.unsent_bytes == 8
    outbox.sent()
    assert outbox.first is two
    assert outbox.unsent_bytes == 5
    outbox.sent()
    assert outbox.first is None
    assert outbox.unsent_bytes == 0
    assert told == ["b'one' sent", "b'three' sent"]


def test_a_packet_that_is_refused_is_dropped_and_one_that_waits_stays() -> None:
    told: list[str] = []
    outbox = Outbox()
    packet = Told(b"one", told)
    outbox.add(packet)

    assert outbox.failed(FULL, no_way) == (Verdict.WAIT, FULL)
    assert outbox.first is packet
    refusal = error(errno.EPERM)
    assert outbox.failed(refusal, no_way) == (Verdict.REFUSED, refusal)
    assert outbox.first is None
    assert told == ["b'one' unsent"]


def test_what_is_dropped_is_told_and_what_is_forgotten_is_not() -> None:
    told: list[str] = []
    outbox = Outbox()
    outbox.add(Told(b"one", told))
    outbox.add(Told(b"two", told))
    outbox.drop()
    assert told == ["b'one' unsent", "b'two' unsent"]
    assert outbox.unsent_bytes == 0
    packet = Told(b"three", told)
    outbox.add(packet)

    assert outbox.forget() == [packet]
    assert not outbox.packets
    assert outbox.unsent_bytes == 0
    assert len(told) == 2


def test_whoever_sends_pauses_above_the_high_mark_and_goes_on_at_the_low_one() -> None:
    outbox = Outbox(high=10, low=4)
    paused = []
    for _ in range(3):
        outbox.add(Packet(b"x" * 4, [], weight=4))
        paused.append(outbox.begins_pause())
    assert paused == [False, False, True]
    assert not outbox.begins_pause(), "it was told"
    going = []
    for _ in range(3):
        outbox.sent()
        going.append(outbox.ends_pause())
    assert going == [False, True, False]


def test_water_marks_can_be_set_as_in_asyncio() -> None:
    outbox = Outbox()
    assert (outbox.low, outbox.high) == (DEFAULT_LIMITS.low_water_bytes, DEFAULT_LIMITS.high_water_bytes)
    for given, marks in [
        ((1000, None), (250, 1000)),
        ((None, 1000), (1000, 4000)),
        ((1000, 500), (500, 1000)),
        ((None, None), (DEFAULT_LIMITS.high_water_bytes // 4, DEFAULT_LIMITS.high_water_bytes)),
    ]:
        outbox.set_marks(*given)
        assert (outbox.low, outbox.high) == marks
    with pytest.raises(ValueError, match="water marks must be 0 <= low <= high, got low 2 and high 1"):
        outbox.set_marks(1, 2)


def test_a_packet_has_the_descriptors_of_its_own_as_they_are_when_it_is_sent() -> None:
    lender = Lender(3)
    packet = Packet(b"x", [lender])
    assert list(packet.numbers()) == [3]
    lender.fd = 4
    assert list(packet.numbers()) == [4]
