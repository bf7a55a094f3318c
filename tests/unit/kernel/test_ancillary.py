from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import struct
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from support.descriptors import same_file
from support.processes import AS_ROOT, OTHER_UID, in_child
from support.waiting import PATIENCE

from seqrpc.kernel import ancillary
from seqrpc.kernel.ancillary import (
    WHOLE,
    Received,
    numbers_in,
    peek,
    plain,
    plain_receiver,
    receiver,
    send,
    take_control,
    waiting_receiver,
)
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all, sender_of
from seqrpc.kernel.linux import Linux
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import MAX_DESCRIPTORS, MAX_PACKET

SO_PASSPIDFD = 76

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def buffer() -> memoryview:
    return memoryview(bytearray(MAX_PACKET + 1))


def receive(
    sock: socket.socket, buffer: memoryview, uid: int | None = None
) -> tuple[int, list[OwnedFd], Credentials | None, bool]:
    """Receive one packet, and own what came with it."""
    size, control, flags, _address = ancillary.receive(sock, buffer)
    fds: list[OwnedFd] = []
    size, sender, lost = take_control(size, control, flags, len(buffer), fds, uid=uid)
    return size, fds, sender, lost


@pytest.mark.parametrize("size", [1, 2, 1000, MAX_PACKET])
def test_a_packet_arrives_whole(size: int, pair: Pair, buffer: memoryview) -> None:
    data = os.urandom(size)
    send(pair[0], data)
    assert receive(pair[1], buffer) == (size, [], None, False)
    assert bytes(buffer[:size]) == data


def test_a_packet_may_be_part_of_somebody_s_memory(pair: Pair, buffer: memoryview, pipe: tuple[int, int]) -> None:
    data = memoryview(b"-from here-")[1:-1]
    send(pair[0], data)
    send(pair[0], data, [pipe[0]])
    for descriptors in (0, 1):
        size, fds, _sender, _lost = receive(pair[1], buffer)
        assert (bytes(buffer[:size]), len(fds)) == (b"from here", descriptors)
        close_all(fds)


def test_packets_stay_apart(pair: Pair, buffer: memoryview) -> None:
    send(pair[0], b"first")
    send(pair[0], b"second")
    assert [receive(pair[1], buffer)[0] for _ in range(2)] == [5, 6]


def test_neither_waits_even_on_a_blocking_socket(pair: Pair, buffer: memoryview) -> None:
    assert pair[0].gettimeout() is None
    with pytest.raises(BlockingIOError):
        receive(pair[0], buffer)

    def fill() -> None:
        while True:
            send(pair[0], b"x" * 10_000)

    with pytest.raises(BlockingIOError):
        fill()


def test_the_end_of_the_connection_has_size_0(pair: Pair, buffer: memoryview) -> None:
    pair[0].close()
    assert receive(pair[1], buffer) == (0, [], None, False)


def test_descriptors_of_an_empty_packet_are_owned_too(pair: Pair, buffer: memoryview, pipe: tuple[int, int]) -> None:
    socket.send_fds(pair[0], [b""], [pipe[0]])
    size, fds, _sender, lost = receive(pair[1], buffer)
    assert (size, len(fds), lost) == (0, 1, False)
    close_all(fds)


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_reads_after_a_reset_either(pair: Pair, pipe: tuple[int, int], count: int) -> None:
    """Whichever call the kernel tells of the reset."""
    pair[0].send(b"unread")
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        ancillary.send(pair[0], b"x", pipe[:count])


def test_sending_to_nobody_is_an_error_and_no_signal(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        send(pair[0], b"x")


@pytest.mark.parametrize("excess", [1, 1000])
def test_a_packet_that_was_cut_shows_its_true_size(excess: int, pair: Pair) -> None:
    small = memoryview(bytearray(10))
    send(pair[0], b"x" * (10 + excess))
    assert receive(pair[1], small) == (10 + excess, [], None, False)
    assert bytes(small) == b"x" * 9 + b"\0", "a packet that fills the buffer is cut, too"


def test_a_packet_that_fills_the_buffer_is_not_cut(pair: Pair) -> None:
    send(pair[0], b"x" * 10)
    assert receive(pair[1], memoryview(bytearray(10)))[0] == 10


def test_a_cut_packet_is_seen_where_the_kernel_does_not_tell_its_size(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ancillary, "RECEIVE_FLAGS", ancillary.RECEIVE_FLAGS & ~socket.MSG_TRUNC)  # as on FreeBSD
    small = memoryview(bytearray(10))
    send(pair[0], b"x" * 11)
    assert receive(pair[1], small) == (10, [], None, False)


# sockets that take no descriptors


def plain_one(sock: socket.socket, buffer: memoryview) -> Callable[[], Received]:
    receive_size = plain_receiver(sock, buffer)
    return lambda: plain(receive_size(), len(buffer))


@pytest.mark.parametrize("make", [receiver, plain_one])
def test_every_receiver_shows_at_a_glance_that_a_packet_came_whole_and_alone(make: Any, pair: Pair) -> None:
    small = memoryview(bytearray(10))
    receive_one = make(pair[1], small)
    for size in (1, 9):
        send(pair[0], b"x" * size)
        assert receive_one()[:3] == (size, [], WHOLE)
        assert bytes(small[:size]) == b"x" * size
    with pytest.raises(BlockingIOError):
        receive_one()


@pytest.mark.parametrize("make", [receiver, plain_one])
@pytest.mark.parametrize("size", [10, 11, 1000])
def test_every_receiver_tells_of_a_packet_that_is_too_long_and_of_its_true_size(
    make: Any, size: int, pair: Pair
) -> None:
    small = memoryview(bytearray(10))
    send(pair[0], b"x" * size)
    received, control, flags, _address = make(pair[1], small)()
    assert flags != WHOLE
    assert take_control(received, control, flags, 10, []) == (size, None, False)


@pytest.mark.parametrize("make", [receiver, plain_one])
def test_every_receiver_tells_of_empty_packets_and_of_the_end(make: Any, pair: Pair, buffer: memoryview) -> None:
    receive_one = make(pair[1], buffer)
    pair[0].send(b"")
    assert receive_one()[:2] == (0, [])
    pair[0].close()
    assert receive_one()[:2] == (0, [])


@pytest.mark.parametrize("make", [receiver, plain_one])
@pytest.mark.parametrize("size", [10, 11])
def test_every_receiver_tells_of_a_packet_that_is_too_long_where_the_kernel_does_not_tell_its_size(
    make: Any, size: int, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RECEIVE_FLAGS", "_PLAIN_FLAGS"):
        monkeypatch.setattr(ancillary, name, getattr(ancillary, name) & ~socket.MSG_TRUNC)  # as on FreeBSD
    send(pair[0], b"x" * size)
    received, control, flags, _address = make(pair[1], memoryview(bytearray(10)))()
    assert flags != WHOLE
    assert take_control(received, control, flags, 10, []) == (10, None, False)


def test_descriptors_that_come_where_none_are_taken_are_the_kernel_s_to_close(
    pair: Pair, buffer: memoryview, pipe: tuple[int, int]
) -> None:
    """They were sent before they were refused; the end of the pipe shows that nobody has them any more."""
    reader, writer = os.pipe()
    with OwnedFd(reader):
        with OwnedFd(writer):
            send(pair[0], b"x", [writer])
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)  # on its way
        assert plain_receiver(pair[1], buffer)() == 1
        assert os.read(reader, 1) == b""


# descriptors


@pytest.mark.parametrize("count", [0, 1, 2, MAX_DESCRIPTORS])
def test_descriptors_arrive_in_order_owned_and_close_on_exec(
    count: int, pair: Pair, buffer: memoryview, pipe: tuple[int, int]
) -> None:
    sent = [pipe[number % 2] for number in range(count)]
    send(pair[0], b"x", sent)
    size, fds, sender, lost = receive(pair[1], buffer)
    assert (size, len(fds), sender, lost) == (1, count, None, False)
    assert all(same_file(fd.fileno(), original) for fd, original in zip(fds, sent, strict=True))
    assert {fcntl.fcntl(fd.fileno(), fcntl.F_GETFD) for fd in fds} <= {fcntl.FD_CLOEXEC}
    close_all(fds)


def test_sending_borrows(pair: Pair, buffer: memoryview, pipe: tuple[int, int]) -> None:
    send(pair[0], b"x", [pipe[0]])
    os.fstat(pipe[0])
    close_all(receive(pair[1], buffer)[1])
    os.fstat(pipe[0])


def test_one_descriptor_more_is_refused_and_nothing_is_sent(
    pair: Pair, buffer: memoryview, pipe: tuple[int, int]
) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        send(pair[0], b"x", [pipe[0]] * (MAX_DESCRIPTORS + 1))
    with pytest.raises(BlockingIOError):
        receive(pair[1], buffer)


def test_a_closed_descriptor_is_refused_and_nothing_is_sent(
    pair: Pair, buffer: memoryview, pipe: tuple[int, int]
) -> None:
    closed = os.dup(pipe[0])
    os.close(closed)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        send(pair[0], b"x", [pipe[0], closed])
    with pytest.raises(BlockingIOError):
        receive(pair[1], buffer)


@pytest.mark.parametrize("room", [0, 1])
def test_when_the_table_is_full_the_list_is_empty_and_it_says_so(
    room: int, pair: Pair, buffer: memoryview, pipe: tuple[int, int]
) -> None:
    send(pair[0], b"x", [pipe[0]] * 3)
    probe = os.dup(pipe[0])
    os.close(probe)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + room, hard))  # the lowest free number, and room after it
    try:
        received = receive(pair[1], buffer)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert received == (1, [], None, True)
    send(pair[0], b"alive")
    assert receive(pair[1], buffer) == (5, [], None, False)


def test_a_denied_descriptor_makes_the_list_empty(pipe: tuple[int, int]) -> None:
    """Linux 7.3 marks a descriptor that a security module denied by a negative number in its place."""
    first, second = os.dup(pipe[0]), os.dup(pipe[1])
    fds: list[OwnedFd] = []
    rights = array("i", [first, -errno.EACCES, second]).tobytes()
    complete = ancillary._own_descriptors([(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], fds)
    assert not complete
    assert [fd.fileno() for fd in fds] == [first, second]
    close_all(fds)


def test_a_packet_with_a_denied_descriptor_closes_the_others(
    pair: Pair, buffer: memoryview, pipe: tuple[int, int]
) -> None:
    class Denying(socket.socket):
        def recvmsg_into(self, *args: Any) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
            size, ((level, kind, data),), flags, address = super().recvmsg_into(*args)
            return size, [(level, kind, data + array("i", [-errno.EACCES]).tobytes())], flags, address

    send(pair[0], b"x", [pipe[0]])
    with Denying(fileno=os.dup(pair[1].fileno())) as sock:
        assert receive(sock, buffer) == (1, [], None, True)


def test_rights_that_end_in_half_a_number_are_read_as_far_as_they_go(pipe: tuple[int, int]) -> None:
    number = os.dup(pipe[0])
    fds: list[OwnedFd] = []
    rights = array("i", [number]).tobytes() + b"\1\2"
    assert ancillary._own_descriptors([(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], fds)
    assert [fd.fileno() for fd in fds] == [number]
    close_all(fds)


def test_an_interrupt_in_the_middle_leaves_nothing_open(pair: Pair, buffer: memoryview, pipe: tuple[int, int]) -> None:
    """Ctrl-C while the sender is read; the fixture that looks for open descriptors is the judge."""
    Linux().ask_for_senders(pair[1])
    send(pair[0], b"x", [pipe[0], pipe[1]])

    def interrupt(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_name == "_read_sender":
            raise KeyboardInterrupt

    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            receive(pair[1], buffer)
    finally:
        sys.setprofile(None)


# senders


def test_the_sender_is_told_where_it_was_asked_for(pair: Pair, buffer: memoryview, pipe: tuple[int, int]) -> None:
    Linux().ask_for_senders(pair[1])
    send(pair[0], b"x", [pipe[0]])
    size, fds, sender, lost = receive(pair[1], buffer)
    assert (size, len(fds), lost) == (1, 1, False)
    assert sender == Credentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
    close_all(fds)


@pytest.mark.skipif(not AS_ROOT, reason="only root may become another user")
def test_each_packet_has_its_own_sender(pair: Pair, buffer: memoryview) -> None:
    Linux().ask_for_senders(pair[1])
    send(pair[0], b"x")

    def work() -> int:
        send(pair[0], b"y")
        return os.getpid()

    pid = in_child(work, uid=OTHER_UID)
    assert receive(pair[1], buffer)[2] == Credentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
    assert receive(pair[1], buffer)[2] == Credentials(pid=pid, uid=OTHER_UID, gid=OTHER_UID)


def test_there_is_room_for_all_descriptors_and_a_sender_and_a_pidfd(
    pair: Pair, buffer: memoryview, pipe: tuple[int, int]
) -> None:
    """Somebody else may have set SO_PASSPIDFD on a socket we inherit: its pidfds are closed as they come."""
    Linux().ask_for_senders(pair[1])
    try:
        pair[1].setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
    except OSError:
        pytest.skip("this kernel has no SO_PASSPIDFD (Linux 6.5)")
    send(pair[0], b"x", [pipe[0]] * MAX_DESCRIPTORS)
    size, fds, sender, lost = receive(pair[1], buffer)
    assert (size, len(fds), lost) == (1, MAX_DESCRIPTORS, False)
    assert sender == Credentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
    close_all(fds)


def test_a_pidfd_that_could_not_be_made_is_passed_over() -> None:
    control = [(socket.SOL_SOCKET, ancillary._SCM_PIDFD, struct.pack("i", -errno.ESRCH))]
    assert ancillary._own_descriptors(control, [])


def test_control_data_of_other_levels_holds_no_descriptors() -> None:
    fds: list[OwnedFd] = []
    assert ancillary._own_descriptors([(socket.IPPROTO_IP, socket.SCM_RIGHTS, struct.pack("i", 0))], fds)
    assert fds == []


def test_what_comes_without_control_data_but_cut_is_lost(pair: Pair, buffer: memoryview) -> None:
    """A table so full that not one descriptor fits leaves no control data at all, only the flag."""

    class NoRoom(socket.socket):
        def recvmsg_into(self, buffers: Any, _ancbufsize: int, flags: int) -> Any:  # type: ignore[override]
            return super().recvmsg_into(buffers, 0, flags)

    socket.send_fds(pair[0], [b"x"], [pair[0].fileno()])
    with NoRoom(fileno=os.dup(pair[1].fileno())) as sock:
        assert receive(sock, buffer) == (1, [], None, True)


def test_an_unknown_control_message_does_not_hide_the_sender() -> None:
    ucred = struct.pack("iII", 1, 2, 3)
    control = [
        (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, ucred),
        (socket.SOL_SOCKET, 3, b"a security label"),
    ]
    assert ancillary._read_sender(control) == Credentials(pid=1, uid=2, gid=3)


# Whose descriptors they are, and looking before they come


def test_descriptors_are_known_to_be_of_who_sent_them(pair: Pair, buffer: memoryview, pipe: tuple[int, int]) -> None:
    send(pair[0], b"x", pipe)
    _size, fds, _sender, _lost = receive(pair[1], buffer)
    assert [sender_of(fd) for fd in fds] == [None, None]
    close_all(fds)
    send(pair[0], b"x", pipe)
    _size, fds, _sender, _lost = receive(pair[1], buffer, 1001)
    assert [sender_of(fd) for fd in fds] == [1001, 1001]
    close_all(fds)
    PLATFORM.ask_for_senders(pair[1])
    send(pair[0], b"x", pipe)
    _size, fds, sender, _lost = receive(pair[1], buffer, 1001)
    assert sender is not None
    assert [sender_of(fd) for fd in fds] == [sender.uid, sender.uid]
    close_all(fds)


@pytest.mark.parametrize("names_senders", [False, True])
def test_a_look_tells_what_is_there_and_receives_nothing(
    pair: Pair, buffer: memoryview, pipe: tuple[int, int], names_senders: bool
) -> None:
    if names_senders:
        PLATFORM.ask_for_senders(pair[1])
    with pytest.raises(BlockingIOError):
        peek(pair[1], names_senders=names_senders)
    before = set(os.listdir("/proc/self/fd"))
    send(pair[0], b"plain")
    send(pair[0], b"with", pipe)
    send(pair[0], b"")
    socket.send_fds(pair[0], [b""], [pipe[0]])
    looks = []
    for expected in (b"plain", b"with", b"", b""):
        for _ in range(2):
            came, brings, sender = peek(pair[1], names_senders=names_senders)
            assert (sender is not None) == names_senders
            assert CLOSER.wait_idle(PATIENCE)  # who sent it is not known
            assert set(os.listdir("/proc/self/fd")) == before
        looks.append((came, brings))
        size, fds, _sender, _lost = receive(pair[1], buffer)
        assert bytes(buffer[:size]) == expected
        close_all(fds)
    assert looks == [(True, False), (True, True), (names_senders, False), (True, True)]
    pair[0].close()
    assert peek(pair[1], names_senders=names_senders) == (False, False, None)


# Receivers that wait


def test_a_waiting_receiver_waits_for_a_packet(pair: Pair, buffer: memoryview) -> None:
    receive_one = waiting_receiver(pair[1], buffer)
    thread = threading.Thread(target=send, args=(pair[0], b"late"))
    thread.start()
    size, control, flags, _address = receive_one()
    thread.join()
    assert (size, control, flags) == (4, [], WHOLE)
    assert bytes(buffer[:4]) == b"late"


def test_a_waiting_receiver_returns_when_the_socket_s_own_time_is_up(pair: Pair, buffer: memoryview) -> None:
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 1000))
    with pytest.raises(BlockingIOError):
        waiting_receiver(pair[1], buffer)()


def test_a_waiting_receiver_does_not_wait_on_a_socket_that_somebody_made_non_blocking(
    pair: Pair, buffer: memoryview
) -> None:
    os.set_blocking(pair[1].fileno(), False)
    with pytest.raises(BlockingIOError):
        waiting_receiver(pair[1], buffer)()


# What nobody owns yet


def test_the_numbers_of_all_that_came_are_told(pair: Pair, buffer: memoryview, pipe: tuple[int, int]) -> None:
    PLATFORM.ask_for_senders(pair[1])
    send(pair[0], b"x", pipe)
    _size, control, _flags, _address = ancillary.receive(pair[1], buffer)
    numbers = numbers_in(control)
    assert [same_file(number, original) for number, original in zip(numbers, pipe, strict=True)] == [True, True]
    for number in numbers:
        os.close(number)
    assert numbers_in([]) == []


def test_numbers_of_denied_descriptors_and_of_other_levels_are_no_descriptors() -> None:
    rights = array("i", [7, -errno.EACCES, 8]).tobytes()
    control = [
        (socket.SOL_SOCKET, socket.SCM_RIGHTS, rights),
        (socket.SOL_SOCKET, ancillary._SCM_PIDFD, struct.pack("i", 9)),
        (socket.SOL_SOCKET, ancillary._SCM_PIDFD, struct.pack("i", -errno.ESRCH)),
        (socket.IPPROTO_IP, socket.SCM_RIGHTS, struct.pack("i", 0)),
        (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("iII", 1, 2, 3)),
    ]
    assert numbers_in(control) == [7, 8, 9]
