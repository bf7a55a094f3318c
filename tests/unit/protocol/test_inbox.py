"""What a receive call gave, told apart."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator

import pytest
from support.packets import raw_pair, send_with

from seqrpc.kernel import ancillary
from seqrpc.kernel.ancillary import WHOLE
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all, sender_of
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.inbox import BUFFER_BYTES, Inbox, Trouble, hides_packets, receive_buffer

US = Credentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
SOMEBODY = Credentials(pid=1, uid=1001, gid=1002)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = raw_pair()
    with ours, theirs:
        yield ours, theirs


def take(inbox: Inbox, sock: socket.socket, fds: list[OwnedFd]) -> tuple[int, Credentials | None, Trouble | None]:
    size, control, flags, _address = ancillary.receive(sock, receive_buffer())
    return inbox.take(size, control, flags, fds)


def test_a_packet_is_in_the_buffer_and_its_descriptors_are_the_callers(pair: Pair, pipe: tuple[int, int]) -> None:
    send_with(pair[1], b"data", pipe)
    fds: list[OwnedFd] = []

    assert take(Inbox(uid=1001), pair[0], fds) == (4, None, None)
    assert bytes(receive_buffer()[:4]) == b"data"
    assert [sender_of(fd) for fd in fds] == [1001, 1001]
    assert [os.path.sameopenfile(fd.fileno(), end) for fd, end in zip(fds, pipe, strict=True)] == [True, True]
    close_all(fds)


def test_the_sender_is_the_peer_where_packets_do_not_tell(pair: Pair) -> None:
    pair[1].send(b"data")
    inbox = Inbox(SOMEBODY)
    assert inbox.uid == SOMEBODY.uid
    assert take(inbox, pair[0], []) == (4, SOMEBODY, None)


def test_the_sender_is_who_the_packet_says_where_it_does(pair: Pair) -> None:
    PLATFORM.ask_for_senders(pair[0])
    pair[1].send(b"data")
    inbox = Inbox(names_senders=True)
    assert take(inbox, pair[0], []) == (4, US, None)
    assert inbox.peer is None


def test_a_kernel_that_tells_once_is_believed_from_then_on(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(PLATFORM), "credentials_come_once", True)
    inbox = Inbox(names_senders=True)
    PLATFORM.ask_for_senders(pair[0])
    pair[1].send(b"data")
    assert take(inbox, pair[0], []) == (4, US, None)
    assert inbox.uid == US.uid
    assert inbox.take(4, [], WHOLE, []) == (4, US, None), "this one does not tell"


@pytest.mark.parametrize("with_fds", [False, True])
def test_an_empty_packet_is_the_end_and_its_descriptors_are_closed(
    pair: Pair, pipe: tuple[int, int], with_fds: bool
) -> None:
    if with_fds:
        send_with(pair[1], b"", pipe)
    else:
        pair[1].close()
    fds: list[OwnedFd] = []
    assert take(Inbox(), pair[0], fds) == (0, None, Trouble.END)
    assert fds == []


def test_a_packet_that_is_too_long_is_told_with_its_size_and_its_descriptors_are_closed(
    pair: Pair, pipe: tuple[int, int]
) -> None:
    for size in (MAX_PACKET + 1, MAX_PACKET + 1000):
        send_with(pair[1], b"x" * size, pipe)
        fds: list[OwnedFd] = []
        assert take(Inbox(), pair[0], fds) == (size, None, Trouble.TOO_LONG)
        assert fds == []


def test_a_packet_whose_descriptors_were_lost_is_told(pair: Pair, pipe: tuple[int, int]) -> None:
    send_with(pair[1], b"data", pipe)
    _data, control, flags, _address = pair[0].recvmsg(10, socket.CMSG_LEN(4))  # room for one of two
    fds: list[OwnedFd] = []
    assert Inbox().take(4, control, flags, fds) == (4, None, Trouble.DESCRIPTORS_LOST)
    assert fds == []


def test_a_reset_hides_packets_and_other_failures_do_not() -> None:
    assert hides_packets(OSError(errno.ECONNRESET, "reset"))
    assert not hides_packets(OSError(errno.EBADF, "closed"))


def test_each_thread_has_one_buffer() -> None:
    assert receive_buffer() is receive_buffer()
    assert len(receive_buffer()) == BUFFER_BYTES == MAX_PACKET + 1
    found: list[memoryview] = []
    thread = threading.Thread(target=lambda: found.append(receive_buffer()))
    thread.start()
    thread.join()
    assert found[0] is not receive_buffer()
