"""What Linux does with packets on a SEQPACKET socket; raw sockets only, none of our code."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import termios
from collections.abc import Iterator

import pytest
from support.packets import fill
from support.processes import AS_ROOT, ChildFailed, in_child

Pair = tuple[socket.socket, socket.socket]

SO_ATTACH_FILTER = 26
CLONE_NEWNET = 0x4000_0000


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_packets_are_never_merged_or_split(pair: Pair) -> None:
    sizes = [1, 1, 1000, 65_536, 1]
    for size in sizes:
        pair[0].send(b"x" * size)
    assert [len(pair[1].recv(200_000)) for _ in sizes] == sizes


def test_msg_eor_is_accepted_and_not_reported(pair: Pair) -> None:
    pair[0].send(b"x", socket.MSG_EOR)
    _data, _control, flags, _address = pair[1].recvmsg(10)
    assert flags & socket.MSG_EOR == 0


def test_an_empty_packet_reads_like_the_end(pair: Pair) -> None:
    pair[0].send(b"")
    data, _control, flags, _address = pair[1].recvmsg(10)
    assert (data, flags) == (b"", 0)
    pair[0].close()
    data, _control, flags, _address = pair[1].recvmsg(10)
    assert (data, flags) == (b"", 0)


def test_an_empty_packet_may_carry_descriptors(pair: Pair, pipe: tuple[int, int]) -> None:
    socket.send_fds(pair[0], [b""], [pipe[0]])
    data, fds, _flags, _address = socket.recv_fds(pair[1], 10, 10)
    assert (data, len(fds)) == (b"", 1)
    os.close(fds[0])


def test_a_short_buffer_cuts_the_packet_and_the_rest_is_gone(pair: Pair) -> None:
    pair[0].send(b"0123456789")
    pair[0].send(b"next")
    data, _control, flags, _address = pair[1].recvmsg(4)
    assert data == b"0123"
    assert flags & socket.MSG_TRUNC
    assert pair[1].recv(100) == b"next"


def test_msg_trunc_as_an_input_gives_the_true_size(pair: Pair) -> None:
    pair[0].send(b"x" * 5000)
    size, _control, flags, _address = pair[1].recvmsg_into([bytearray(10)], 0, socket.MSG_TRUNC)
    assert size == 5000
    assert flags & socket.MSG_TRUNC


def test_msg_trunc_as_an_input_changes_nothing_for_a_packet_that_fits(pair: Pair) -> None:
    pair[0].send(b"x" * 10)
    size, _control, flags, _address = pair[1].recvmsg_into([bytearray(10)], 0, socket.MSG_TRUNC)
    assert (size, flags & socket.MSG_TRUNC) == (10, 0)


def test_the_largest_packet_is_the_sender_s_buffer_less_32_bytes(pair: Pair) -> None:
    sender, receiver = pair
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # which has no effect
    largest = sender.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - 32
    sender.send(b"x" * largest)
    assert len(receiver.recv(100_000)) == largest
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        sender.send(b"x" * (largest + 1))


def test_a_packet_of_64_kib_fits_into_default_buffers(pair: Pair) -> None:
    pair[0].send(b"x" * 65_536)
    assert len(pair[1].recv(65_537)) == 65_536


def test_a_full_socket_turns_writable_only_when_three_quarters_are_read(pair: Pair) -> None:
    sender, receiver = pair
    sent = fill(sender, b"x" * 100)
    poll = select.poll()
    poll.register(sender, select.POLLOUT)
    read = 0
    while not poll.poll(0):
        receiver.recv(100)
        read += 1
    assert 0.70 * sent < read < 0.80 * sent


def test_sends_succeed_past_the_point_where_the_socket_stops_being_writable(pair: Pair) -> None:
    sender, _receiver = pair
    poll = select.poll()
    poll.register(sender, select.POLLOUT)
    writable = 0
    while poll.poll(0):
        sender.send(b"x" * 100)
        writable += 1
    assert fill(sender, b"x" * 100) > writable


@pytest.mark.skipif(not AS_ROOT, reason="only root may make a network namespace")
def test_max_dgram_qlen_does_not_bound_a_connection() -> None:
    def work() -> int:
        if ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
            return -1
        try:
            with open("/proc/sys/net/unix/max_dgram_qlen", "w", encoding="ascii") as file:
                file.write("1")
        except OSError:  # as in a container whose /proc/sys is read-only
            return -1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            return fill(ours, b"x")

    sent = in_child(work)
    if sent < 0:
        pytest.skip("network namespaces cannot be made here")
    assert sent > 100


def test_what_is_queued_is_charged_to_the_sender_s_buffer_not_the_receiver_s(pair: Pair) -> None:
    default = fill(pair[0], b"x" * 100)
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    assert fill(pair[1], b"x" * 100) < default / 5


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_sending_to_nobody_raises_sigpipe_on_streams_only(kind: socket.SocketKind) -> None:
    def work() -> int:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        theirs.close()
        with ours, pytest.raises(BrokenPipeError) as caught:
            ours.send(b"x")
        return caught.value.errno or 0

    if kind == socket.SOCK_SEQPACKET:
        assert in_child(work) == errno.EPIPE
    else:
        with pytest.raises(ChildFailed, match="SIGPIPE"):
            in_child(work)


def test_closing_with_unread_input_resets_the_other_end_once_and_before_what_is_queued(pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(b"an answer")
    ours.send(b"never read")
    theirs.close()
    with pytest.raises(ConnectionResetError):
        ours.recv(100)
    assert ours.recv(100) == b"an answer"
    assert ours.recv(100) == b""
    assert ours.recv(100) == b""


def test_the_reset_may_also_come_out_of_a_send(pair: Pair) -> None:
    """Then reading meets it no more: whoever sends first must read on as well."""
    ours, theirs = pair
    theirs.send(b"an answer")
    ours.send(b"never read")
    theirs.close()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        ours.send(b"one more")
    received = []
    for _ in range(3):
        try:
            received.append(ours.recv(100))
        except ConnectionResetError:
            received.append(b"reset")
    assert [packet for packet in received if packet != b"reset"][:2] == [b"an answer", b""]


def test_closing_with_everything_read_is_a_quiet_end(pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(b"an answer")
    theirs.close()
    assert ours.recv(100) == b"an answer"
    assert ours.recv(100) == b""


def test_a_filter_may_drop_a_packet_and_the_sender_hears_of_success(pair: Pair) -> None:
    ours, theirs = pair
    instruction = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: keep 0 bytes
    kept = ctypes.create_string_buffer(instruction, len(instruction))
    program = struct.pack("HP", 1, ctypes.addressof(kept))
    theirs.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    assert ours.send(b"x") == 1
    with pytest.raises(BlockingIOError):
        theirs.recv(100, socket.MSG_DONTWAIT)


def test_a_packet_is_sent_whole_or_not_at_all_when_the_buffer_is_full(pair: Pair) -> None:
    sender, receiver = pair
    sent = fill(sender, b"x" * 10_000)
    with pytest.raises(BlockingIOError):
        sender.send(b"y" * 20_000, socket.MSG_DONTWAIT)
    assert [receiver.recv(30_000) for _ in range(sent)] == [b"x" * 10_000] * sent
    with pytest.raises(BlockingIOError):
        receiver.recv(1, socket.MSG_DONTWAIT)


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 500])
def test_a_packet_that_is_unread_counts_for_more_than_512_bytes_however_short_it_is(pair: Pair, data: bytes) -> None:
    sender, receiver = pair

    def unread() -> int:
        return int(struct.unpack("i", fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)))[0])

    sent = 0
    while sent < 100:
        sender.send(data, socket.MSG_EOR)
        sent += 1
        assert unread() >= 512 * sent
    for left in reversed(range(100)):
        receiver.recv(1000)
        assert unread() >= 512 * left
    assert unread() == 0
