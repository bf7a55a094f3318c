"""Whom Linux names as the peer of a socket and as the sender of a packet; none of our code."""

from __future__ import annotations

import ctypes
import os
import re
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import AS_ROOT, OTHER_GID, OTHER_UID, in_child, running_child

SEQPACKET = socket.SOCK_SEQPACKET
SO_PEERGROUPS, SO_PEERPIDFD, SO_PASSPIDFD = 59, 77, 76
CLONE_NEWUSER, CLONE_NEWPID = 0x1000_0000, 0x2000_0000

Pair = tuple[socket.socket, socket.socket]
Ids = tuple[int, int, int]

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root may become another user")


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def listener(socket_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, SEQPACKET) as sock:
        sock.bind(os.fspath(socket_path))
        os.chmod(socket_path, 0o666)
        os.chmod(socket_path.parent, 0o755)
        sock.listen(5)
        yield sock


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, SEQPACKET)
    sock.connect(os.fspath(path))
    return sock


def ids(data: bytes) -> Ids:
    pid, uid, gid = struct.unpack("iII", data)
    return pid, uid, gid


def peer(sock: socket.socket) -> Ids:
    return ids(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))


def sender(sock: socket.socket) -> Ids:
    _data, ((level, kind, data),), _flags, _address = sock.recvmsg(100, 1000)
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
    return ids(data)


def overflow_ids() -> tuple[int, int]:
    uid, gid = (int(Path("/proc/sys/kernel", name).read_text()) for name in ("overflowuid", "overflowgid"))
    return uid, gid


def me() -> Ids:
    return os.getpid(), os.geteuid(), os.getegid()


def unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def may_unshare(flags: int) -> bool:
    def work() -> bool:
        try:
            unshare(flags)
        except OSError:
            return False
        return True

    return in_child(work)


# the peer of a connection


@needs_root
def test_an_accepted_socket_names_who_connected_at_that_time(listener: socket.socket, socket_path: Path) -> None:
    def work() -> int:
        with connect(socket_path) as sock:
            os.setresuid(0, 0, 0)
            sock.send(b"as root now")
        return os.getpid()

    pid = in_child(work, uid=OTHER_UID, gid=OTHER_GID)
    with listener.accept()[0] as accepted:
        assert peer(accepted) == (pid, OTHER_UID, OTHER_GID)


@needs_root
def test_the_effective_ids_count_for_a_connection(listener: socket.socket, socket_path: Path) -> None:
    def work() -> None:
        os.setresgid(1, OTHER_GID, 2)
        os.setresuid(1, OTHER_UID, 2)
        connect(socket_path).close()

    in_child(work)
    with listener.accept()[0] as accepted:
        assert peer(accepted)[1:] == (OTHER_UID, OTHER_GID)


def test_a_connecting_socket_names_who_called_listen(socket_path: Path) -> None:
    """Under socket activation that is the service manager, whoever serves."""
    with socket.socket(socket.AF_UNIX, SEQPACKET) as listener:
        in_child(lambda: listener.bind(os.fspath(socket_path)))

        def work() -> int:
            listener.listen(5)
            return os.getpid()

        pid = in_child(work)
        with connect(socket_path) as client, listener.accept()[0]:
            assert peer(client)[0] == pid


@needs_root
def test_a_listener_that_becomes_another_user_is_still_named_as_it_was(socket_path: Path) -> None:
    def work() -> tuple[Ids, Ids]:
        with socket.socket(socket.AF_UNIX, SEQPACKET) as listener:
            listener.bind(os.fspath(socket_path))
            listener.listen(5)
            before = me()
            os.chmod(socket_path, 0o666)
            os.chmod(socket_path.parent, 0o755)
            os.setresuid(OTHER_UID, OTHER_UID, 0)
            with connect(socket_path) as client:
                return before, peer(client)

    before, seen = in_child(work)
    assert seen == before


@needs_root
def test_both_ends_of_a_pair_name_its_maker_whoever_holds_them(pair: Pair) -> None:
    assert peer(pair[0]) == peer(pair[1]) == me()
    assert in_child(lambda: peer(pair[0]), uid=OTHER_UID) == me()


@needs_root
def test_groups_are_a_snapshot_of_their_own(listener: socket.socket, socket_path: Path) -> None:
    in_child(lambda: connect(socket_path).close(), uid=OTHER_UID, groups=[27, 4, 65_000])
    with listener.accept()[0] as accepted:
        data = accepted.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1000)
        assert sorted(struct.unpack("3I", data)) == [4, 27, 65_000]


def test_a_pidfd_names_the_peer_for_good(listener: socket.socket, socket_path: Path) -> None:
    with running_child(lambda: connect(socket_path)), listener.accept()[0] as accepted:
        try:
            pidfd = accepted.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        except OSError:
            pytest.skip("this kernel has no SO_PEERPIDFD (Linux 6.5)")
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(0) == []
    assert poll.poll(0) != []  # it ended, and the descriptor knows
    os.close(pidfd)


def test_a_socket_without_a_peer_names_pid_0_and_ids_minus_one() -> None:
    with socket.socket(socket.AF_UNIX, SEQPACKET) as sock:
        assert peer(sock) == (0, 0xFFFF_FFFF, 0xFFFF_FFFF)


@needs_root
def test_users_of_another_user_namespace_appear_as_the_overflow_ids(listener: socket.socket, socket_path: Path) -> None:
    if not may_unshare(CLONE_NEWUSER):
        pytest.skip("user namespaces are turned off here")
    in_child(lambda: connect(socket_path).close(), uid=OTHER_UID)

    def work() -> Ids:
        unshare(CLONE_NEWUSER)
        with listener.accept()[0] as accepted:
            return peer(accepted)

    assert in_child(work)[1:] == overflow_ids()


@needs_root
def test_a_process_of_an_outer_pid_namespace_appears_as_pid_0(listener: socket.socket, socket_path: Path) -> None:
    if not may_unshare(CLONE_NEWPID):
        pytest.skip("pid namespaces are turned off here")

    def work() -> Ids:
        unshare(CLONE_NEWPID)

        def inside() -> Ids:
            with listener.accept()[0] as accepted:
                return peer(accepted)

        return in_child(inside)

    with connect(socket_path):
        assert in_child(work)[0] == 0


# the sender of a packet


@needs_root
def test_passcred_names_the_true_sender_on_a_pair(pair: Pair) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def work() -> int:
        pair[1].send(b"x")
        return os.getpid()

    pid = in_child(work, uid=OTHER_UID, gid=OTHER_GID)
    assert sender(pair[0]) == (pid, OTHER_UID, OTHER_GID)
    pair[1].send(b"x")
    assert sender(pair[0]) == me()


@needs_root
def test_the_real_ids_count_for_a_packet(pair: Pair) -> None:
    """Unlike those of a connection."""
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def work() -> None:
        os.setresgid(OTHER_GID, 1, 2)
        os.setresuid(OTHER_UID, 1, 2)
        pair[1].send(b"x")

    in_child(work)
    assert sender(pair[0])[1:] == (OTHER_UID, OTHER_GID)


def test_packets_sent_before_passcred_was_set_name_nobody(pair: Pair) -> None:
    pair[1].send(b"x")
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    assert sender(pair[0]) == (0, *overflow_ids())


def test_a_privileged_sender_may_name_another_and_others_may_not(pair: Pair) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def send_as(uid: int) -> bool:
        forged = struct.pack("iII", os.getpid(), uid, uid)
        try:
            pair[1].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, forged)])
        except PermissionError:
            return False
        return True

    if not AS_ROOT:
        assert not send_as(0)
        return
    assert send_as(OTHER_UID)
    assert sender(pair[0])[1:] == (OTHER_UID, OTHER_UID)
    assert not in_child(lambda: send_as(0), uid=OTHER_UID + 1)


def test_passcred_on_a_listener_is_inherited(listener: socket.socket, socket_path: Path) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with connect(socket_path) as client, listener.accept()[0] as accepted:
        client.send(b"x")
        assert sender(accepted) == me()


@needs_root
def test_passcred_on_a_listener_names_whoever_sends_not_who_connected(
    listener: socket.socket, socket_path: Path
) -> None:
    """Also of packets that are sent before the connection is accepted."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with connect(socket_path) as client:
        in_child(lambda: client.send(b"x"), uid=OTHER_UID, gid=OTHER_GID)
        with listener.accept()[0] as accepted:
            assert sender(accepted)[1:] == (OTHER_UID, OTHER_GID)
            in_child(lambda: client.send(b"x"), uid=OTHER_UID, gid=OTHER_GID)
            assert sender(accepted)[1:] == (OTHER_UID, OTHER_GID)
            client.send(b"x")
            assert sender(accepted) == me()
            assert peer(accepted) == me()


def test_passcred_gives_an_unnamed_socket_a_name_of_five_digits_when_it_sends(pair: Pair) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    assert ours.getsockname() == ""
    ours.send(b"x")
    name = ours.getsockname()
    assert isinstance(name, bytes)
    assert re.fullmatch(rb"\0[0-9a-f]{5}", name)
    assert theirs.getpeername() == name


def test_the_holder_of_one_end_of_a_pair_may_give_it_any_free_name(pair: Pair, socket_path: Path) -> None:
    """So the name of a peer tells nothing about whether it is a listener's."""
    pair[1].bind(os.fspath(socket_path))
    assert pair[0].getpeername() == os.fspath(socket_path)
    assert pair[0].getsockname() == ""


def test_a_pair_cannot_be_made_to_listen(pair: Pair, socket_path: Path) -> None:
    pair[1].bind(os.fspath(socket_path))
    with pytest.raises(OSError, match="Invalid argument"):
        pair[1].listen()


def test_passpidfd_adds_a_pidfd_of_the_sender(pair: Pair) -> None:
    try:
        pair[0].setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
    except OSError:
        pytest.skip("this kernel has no SO_PASSPIDFD (Linux 6.5)")
    pair[1].send(b"x")
    _data, ((level, kind, data),), _flags, _address = pair[0].recvmsg(100, 1000, socket.MSG_CMSG_CLOEXEC)
    assert (level, kind) == (socket.SOL_SOCKET, 4)
    (pidfd,) = struct.unpack("i", data)
    assert f"Pid:\t{os.getpid()}\n" in Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    os.close(pidfd)
