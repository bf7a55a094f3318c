from __future__ import annotations

import errno
import gc
import os
import socket
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from support.packets import fill
from support.processes import AS_ROOT, OTHER_UID, in_child
from support.scarcity import jammed

from seqrpc import ConnectionLost, Execution
from seqrpc.calls.sending import Sending
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.pieces import Content
from seqrpc.protocol.outbox import Outbox, Packet

Pair = tuple[socket.socket, socket.socket]


class Sender(Sending):
    """Remembers what it is to watch for, and what its owner is told."""

    def __init__(self, sock: socket.socket) -> None:
        self.watches: list[str] = []
        self.told: list[Any] = []
        super().__init__(sock, self, Outbox())

    def _watch(self) -> None:
        self.watches.append("room")

    def _watch_later(self) -> None:
        self.watches.append("later")

    def _unwatch(self) -> None:
        self.watches.append("nothing")

    def too_long(self, data: Content) -> tuple[bytes, OwnedFd] | None:
        self.told.append(("too long", len(data)))
        return None

    def writable(self) -> None:
        raise AssertionError("nobody watches here")

    def refused(self, packet: Packet, reason: Exception) -> None:
        self.told.append(("refused", packet.data, type(reason)))

    def broke(self, reason: OSError) -> None:
        self.told.append(("broke", reason.errno))
        self.drop()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with pair[0], pair[1]:
        yield pair


def drained(sock: socket.socket) -> list[bytes]:
    """Return what is there, but for what filled the socket."""
    packets = []
    while True:
        try:
            packets.append(sock.recv(100_000, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return [packet for packet in packets if not packet.startswith(b"xxx")]


def test_a_packet_goes_at_once_where_there_is_room(pair: Pair, pipe: tuple[int, int]) -> None:
    sender = Sender(pair[0])
    sender.send(Packet(b"plain", []))
    own = OwnedFd.dup(pipe[0])
    sender.send(Packet(b"own", [own]))
    sender.send(Packet(b"lent", [], [pipe[0]]))
    assert own.closed
    assert [pair[1].recv(100) for _ in range(3)] == [b"plain", b"own", b"lent"]
    assert sender.watches == sender.told == []


def test_what_finds_no_room_waits_in_its_order(pair: Pair, pipe: tuple[int, int]) -> None:
    sender = Sender(pair[0])
    fill(pair[0])
    lent = os.dup(pipe[0])
    sender.send(Packet(b"first", [], [lent]))
    os.close(lent)  # it was duplicated
    sender.send(Packet(b"second", []))
    assert sender.watches == ["room", "room"]
    assert not sender.flush()
    assert drained(pair[1]) == []
    assert sender.flush()
    assert sender.watches[-1] == "nothing"
    assert drained(pair[1]) == [b"first", b"second"]


def test_a_flush_ends_when_its_time_is_up(pair: Pair) -> None:
    sender = Sender(pair[0])
    fill(pair[0])
    for data in (b"one", b"two", b"three"):
        sender.send(Packet(data, []))
    drained(pair[1])
    assert not sender.flush(until=0)
    assert drained(pair[1]) == [b"one"], "something goes, however little time there is"
    assert sender.watches == ["room"] * 4  # whoever flushed may not have been woken by a watch
    assert sender.flush()
    assert drained(pair[1]) == [b"two", b"three"]


def test_memory_files_leave_while_little_may_wait(pair: Pair) -> None:
    usual = pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    sender = Sender(pair[0])
    sender.send(Packet(b"narrow", [], narrow=True))
    assert pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < usual
    sender.send(Packet(b"wide", []))
    assert pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == usual


def test_a_packet_that_is_refused_at_once_is_the_caller_s_to_hear_of(pair: Pair, pipe: tuple[int, int]) -> None:
    sender = Sender(pair[0])
    own = OwnedFd.dup(pipe[0])
    closed = os.dup(pipe[0])
    os.close(closed)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        sender.send(Packet(b"x", [own], [closed]))
    assert own.closed
    assert sender.told == []


def test_a_packet_that_is_too_long_for_the_kernel_is_offered_another_way(pair: Pair) -> None:
    sender = Sender(pair[0])
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        sender.send(Packet(b"x" * 1_000_000, []))
    assert sender.told == [("too long", 1_000_000)]


def test_that_nobody_reads_is_told_to_the_owner_and_to_the_caller(pair: Pair) -> None:
    sender = Sender(pair[0])
    pair[1].close()
    with pytest.raises(ConnectionLost) as caught:
        sender.send(Packet(b"x", []))
    assert caught.value.execution is Execution.DID_NOT_RUN
    assert sender.told == [("broke", errno.EPIPE)]


def test_that_nobody_reads_what_waited_is_told_to_the_owner(pair: Pair) -> None:
    sender = Sender(pair[0])
    fill(pair[0])
    for data in (b"one", b"two"):
        sender.send(Packet(data, []))
    pair[1].close()
    assert sender.flush()
    assert sender.told == [("broke", errno.EPIPE)]
    assert not sender.outbox.packets


def test_what_waited_and_is_refused_is_told_to_the_owner_and_the_next_goes(pair: Pair, pipe: tuple[int, int]) -> None:
    sender = Sender(pair[0])
    fill(pair[0])
    own = OwnedFd.dup(pipe[0])
    sender.send(Packet(b"bad", [own]))
    own.close()
    sender.send(Packet(b"good", []))
    drained(pair[1])
    assert sender.flush()
    ((told, data, _reason),) = sender.told
    assert (told, data) == ("refused", b"bad")
    assert drained(pair[1]) == [b"good"]


def test_what_waits_can_be_dropped(pair: Pair, pipe: tuple[int, int]) -> None:
    sender = Sender(pair[0])
    fill(pair[0])
    own = OwnedFd.dup(pipe[0])
    sender.send(Packet(b"with", [own]))
    sender.drop()
    assert own.closed
    assert sender.watches == ["room", "nothing"]
    assert sender.flush()


@pytest.mark.skipif(not AS_ROOT, reason="needs to become another user")
def test_what_waited_and_finds_no_room_in_the_kernel_is_tried_again_later() -> None:
    """Too many descriptors under way: a bound of the kernel for users that are not root (unix(7), ETOOMANYREFS)."""

    def work() -> tuple[list[str], str]:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sender = Sender(pair[0])
        with jammed() as jam, OwnedFd.dup(0) as file:
            fill(pair[0])
            sender.send(Packet(b"with", [OwnedFd.dup(0)]))
            drained(pair[1])
            assert not sender.flush()
            try:
                Sender(pair[0]).send(Packet(b"now", [], [file.fileno()]))
            except OSError as exc:
                refused = errno.errorcode[exc.errno or 0]
            jam.close()  # the kernel drops what was under way there
            assert sender.flush()
        return sender.watches, refused

    assert in_child(work, uid=OTHER_UID) == (["room", "nothing", "later", "nothing"], "ETOOMANYREFS")


def test_nothing_but_the_outbox_holds_a_packet_that_waits(pair: Pair, pipe: tuple[int, int]) -> None:
    class Heavy(Packet):
        """Can be referred to weakly."""

        __slots__ = ("__weakref__",)

    sender = Sender(pair[0])
    fill(pair[0])
    gc.collect()
    gc.disable()
    try:
        packet = Heavy(b"x" * 30_000, [])
        gone = weakref.ref(packet)
        sender.send(packet)
        assert sender.watches == ["room"]
        sender.outbox.drop()
        del packet
        assert gone() is None
    finally:
        gc.enable()
