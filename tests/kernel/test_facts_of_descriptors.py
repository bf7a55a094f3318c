"""What Linux does with descriptors in packets; raw sockets only, none of our code."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import resource
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.processes import AS_ROOT, in_child

Pair = tuple[socket.socket, socket.socket]

SO_PASSRIGHTS = 83
CLOEXEC = socket.MSG_CMSG_CLOEXEC
UID_OF_ITS_OWN = 100_000 + os.getpid()  # descriptors under way are counted for each user


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def receive(sock: socket.socket, flags: int = CLOEXEC, *, room: int = 253) -> tuple[bytes, list[int], int]:
    data, control, flags_out, _address = sock.recvmsg(100_000, socket.CMSG_SPACE(room * 4), flags)
    fds = array.array("i")
    for level, kind, content in control:
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        fds.frombytes(content)
    return data, list(fds), flags_out


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def off(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        pytest.skip("this kernel has no SO_PASSRIGHTS (Linux 6.16)")


def test_253_descriptors_go_in_one_packet_and_254_do_not(pair: Pair, pipe: tuple[int, int]) -> None:
    socket.send_fds(pair[0], [b"x"], [pipe[0]] * 253)
    _data, fds, flags = receive(pair[1])
    assert (len(fds), flags & socket.MSG_CTRUNC) == (253, 0)
    close_all(fds)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        socket.send_fds(pair[0], [b"x"], [pipe[0]] * 254)
    with pytest.raises(BlockingIOError):
        pair[1].recv(1, socket.MSG_DONTWAIT)


@pytest.mark.parametrize("room", [0, 2])
def test_a_full_table_shows_only_as_msg_ctrunc_and_the_rest_is_gone(
    room: int, pair: Pair, pipe: tuple[int, int]
) -> None:
    socket.send_fds(pair[0], [b"data"], [pipe[0]] * 3)
    lowest = os.dup(pipe[0])
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + room, hard))
    try:
        data, fds, flags = receive(pair[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (data, len(fds), bool(flags & socket.MSG_CTRUNC)) == (b"data", room, True)
    close_all(fds)
    with pytest.raises(BlockingIOError):
        pair[1].recv(1, socket.MSG_DONTWAIT)


def test_a_short_control_buffer_shows_as_msg_ctrunc(pair: Pair, pipe: tuple[int, int]) -> None:
    socket.send_fds(pair[0], [b"x"], [pipe[0]] * 3)
    _data, fds, flags = receive(pair[1], room=0)
    assert (fds, bool(flags & socket.MSG_CTRUNC)) == ([], True)


def test_close_on_exec_is_set_at_receipt_only_if_asked_for(pair: Pair, pipe: tuple[int, int]) -> None:
    for flags, expected in ((CLOEXEC, fcntl.FD_CLOEXEC), (0, 0)):
        socket.send_fds(pair[0], [b"x"], [pipe[0]])
        _data, (fd,), _flags = receive(pair[1], flags)
        assert fcntl.fcntl(fd, fcntl.F_GETFD) == expected
        program = f"import os; os.fstat({fd})"
        ran = subprocess.run(
            [sys.executable, "-S", "-c", program], close_fds=False, stderr=subprocess.DEVNULL, check=False
        )
        assert (ran.returncode == 0) is (expected == 0)
        os.close(fd)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="known of the versions before")
def test_recv_fds_of_the_standard_library_ignores_its_flags(pair: Pair, pipe: tuple[int, int]) -> None:
    socket.send_fds(pair[0], [b"x"], [pipe[0]])
    _data, (fd,), _flags, _address = socket.recv_fds(pair[1], 10, 1, CLOEXEC)
    assert fcntl.fcntl(fd, fcntl.F_GETFD) == 0
    os.close(fd)


def test_peeking_clones_the_descriptors(pair: Pair, pipe: tuple[int, int]) -> None:
    socket.send_fds(pair[0], [b"x"], [pipe[0]])
    _data, peeked, _flags = receive(pair[1], CLOEXEC | socket.MSG_PEEK)
    _data, received, _flags = receive(pair[1])
    assert len({pipe[0], *peeked, *received}) == 3
    close_all(peeked + received)


def test_two_blocks_of_rights_in_one_packet_count_as_one(pair: Pair, pipe: tuple[int, int]) -> None:
    block = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", pipe))
    pair[0].sendmsg([b"x"], [block, block])
    _data, control, _flags, _address = pair[1].recvmsg(10, 1000, CLOEXEC)
    assert len(control) == 1
    fds = array.array("i", control[0][2])
    assert len(fds) == 4
    close_all(fds)


@pytest.mark.skipif(not AS_ROOT, reason="only root may become another user")
def test_descriptors_under_way_are_bounded_for_each_user(pipe: tuple[int, int]) -> None:
    def work() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            socket.send_fds(ours, [b"x"], [pipe[0]] * 101)
            with pytest.raises(OSError, match=os.strerror(errno.ETOOMANYREFS)):
                socket.send_fds(ours, [b"x"], [pipe[0]])
            theirs.recvmsg(1)  # without room for control data: they are dropped, and count no more
            socket.send_fds(ours, [b"x"], [pipe[0]])

    in_child(work, uid=UID_OF_ITS_OWN)


def test_a_packet_in_flight_keeps_the_file_open(pair: Pair) -> None:
    reader, writer = os.pipe()
    socket.send_fds(pair[0], [b"x"], [writer])
    os.close(writer)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    assert poll.poll(0) == []  # no end of file yet
    pair[1].close()  # and with it what was never received
    assert poll.poll(0) == [(reader, select.POLLHUP)]
    os.close(reader)


def test_a_passed_descriptor_shares_offset_and_flags(pair: Pair, socket_path: Path) -> None:
    socket_path.write_bytes(b"0123456789")
    with open(socket_path, "rb", buffering=0) as file:
        socket.send_fds(pair[0], [b"x"], [file.fileno()])
        _data, (fd,), _flags = receive(pair[1])
        assert file.read(3) == b"012"
        assert os.read(fd, 3) == b"345"
        os.set_blocking(fd, False)
        assert not os.get_blocking(file.fileno())
        os.close(fd)


def test_epoll_follows_the_open_file_not_the_number(pair: Pair) -> None:
    """A watched descriptor that is closed while a passed one lives goes on giving events."""
    reader, writer = os.pipe()
    socket.send_fds(pair[0], [b"x"], [reader])
    with select.epoll() as epoll:
        epoll.register(reader, select.EPOLLIN)
        os.close(reader)
        os.write(writer, b"x")
        assert epoll.poll(0) == [(reader, select.EPOLLIN)]
        pair[1].close()
        assert epoll.poll(0) == []
    os.close(writer)


def test_passrights_is_on_by_default_and_a_listener_s_setting_is_inherited(
    socket_path: Path, pipe: tuple[int, int]
) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):
        off(client)
        client.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 1)
        assert listener.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 1
        off(listener)
        listener.bind(os.fspath(socket_path))
        listener.listen()
        client.connect(os.fspath(socket_path))
        with pytest.raises(PermissionError):  # before it is accepted, too
            socket.send_fds(client, [b"x"], [pipe[0]])
        with listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 0
            with pytest.raises(PermissionError):
                socket.send_fds(client, [b"x"], [pipe[0]])
            client.send(b"without")
            assert accepted.recv(100) == b"without"
            socket.send_fds(accepted, [b"x"], [pipe[0]])  # the other way nothing was turned off
            close_all(receive(client)[1])


def test_passrights_turned_off_lets_those_under_way_arrive_all_the_same(pair: Pair, pipe: tuple[int, int]) -> None:
    socket.send_fds(pair[0], [b"x"], [pipe[0]])
    off(pair[1])
    _data, fds, _flags = receive(pair[1])
    assert len(fds) == 1
    close_all(fds)


def test_an_open_socket_can_be_sent_over_itself_and_closing_frees_it(pair: Pair) -> None:
    socket.send_fds(pair[0], [b"x"], [pair[0].fileno()])
    _data, (fd,), _flags = receive(pair[1])
    assert os.path.sameopenfile(fd, pair[0].fileno())
    os.close(fd)
