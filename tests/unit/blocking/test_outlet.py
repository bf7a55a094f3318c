from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.packets import fill
from support.processes import AS_ROOT, OTHER_UID, in_child
from support.scarcity import jammed

from seqrpc.blocking.outlet import Outlet
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.pieces import Content
from seqrpc.protocol.outbox import Outbox, Packet


class Owner:
    """Is told nothing here."""

    def too_long(self, data: Content) -> tuple[bytes, OwnedFd] | None:
        raise AssertionError

    def writable(self) -> None:
        raise AssertionError

    def refused(self, packet: Packet, reason: Exception) -> None:
        raise AssertionError

    def broke(self, reason: OSError) -> None:
        raise AssertionError


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with pair[0], pair[1]:
        yield pair


def make(sock: socket.socket) -> Outlet:
    return Outlet(sock, Owner(), Outbox())


def empty(sock: socket.socket) -> None:
    while True:
        try:
            sock.recv(100_000, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return


def test_what_goes_at_once_needs_no_watching(pair: tuple[socket.socket, socket.socket]) -> None:
    outlet = make(pair[0])
    outlet.send(Packet(b"x", []))
    assert (outlet.waits, outlet.wants_room, outlet.retry_at) == (False, False, None)


def test_what_waits_wants_room_until_it_is_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    outlet = make(pair[0])
    fill(pair[0])
    outlet.send(Packet(b"x", []))
    assert (outlet.waits, outlet.wants_room, outlet.retry_at) == (True, True, None)
    assert not outlet.flush()
    assert outlet.wants_room
    empty(pair[1])
    assert outlet.flush()
    assert (outlet.waits, outlet.wants_room, outlet.retry_at) == (False, False, None)


@pytest.mark.skipif(not AS_ROOT, reason="needs to become another user")
def test_what_the_kernel_has_no_room_for_is_tried_again_later_and_not_when_the_socket_has_room() -> None:
    def work() -> list[Any]:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        outlet = make(pair[0])
        with jammed():
            fill(pair[0])
            outlet.send(Packet(b"with", [OwnedFd.dup(0)]))
            empty(pair[1])
            before = time.monotonic_ns()
            seen = [outlet.flush(), outlet.waits, outlet.wants_room]
            assert outlet.retry_at is not None
            seen.append(0 < outlet.retry_at - before < 1_000_000_000)
        return [*seen, outlet.flush(), outlet.retry_at]

    assert in_child(work, uid=OTHER_UID) == [False, True, False, True, True, None]


@pytest.mark.skipif(not AS_ROOT, reason="needs to become another user")
def test_what_is_tried_again_and_finds_no_room_is_no_longer_tried_by_the_clock() -> None:
    def work() -> list[Any]:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        outlet = make(pair[0])
        with jammed():
            fill(pair[0])
            outlet.send(Packet(b"with", [OwnedFd.dup(0)]))
            empty(pair[1])
            assert not outlet.flush()
            assert outlet.retry_at is not None
        fill(pair[0])
        seen = [outlet.flush(), outlet.wants_room, outlet.retry_at]
        empty(pair[1])
        return [*seen, outlet.flush()]

    assert in_child(work, uid=OTHER_UID) == [False, True, None, True]
