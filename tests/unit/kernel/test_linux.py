from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import AS_ROOT, OTHER_GID, OTHER_UID, in_child, running_child

from seqrpc.kernel import linux
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.linux import OVERFLOW_GID, OVERFLOW_UID, Linux, LinuxPeer, parse_ucred, read_overflow_ids

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root may become another user")

LINUX = Linux()
OVERFLOW = 65_534
MINUS_ONE = 0xFFFF_FFFF


@pytest.fixture
def listener(socket_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(os.fspath(socket_path))
        os.chmod(socket_path, 0o666)
        os.chmod(socket_path.parent, 0o755)
        sock.listen(5)
        yield sock


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def ucred(pid: int, uid: int, gid: int) -> bytes:
    return struct.pack("iII", pid, uid, gid)


def ids_of(credentials: Credentials | None) -> tuple[int | None, int | None, int | None]:
    assert credentials is not None
    return credentials.pid, credentials.uid, credentials.gid


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(os.fspath(path))
    return sock


# ids


def test_overflow_ids_are_the_kernel_s() -> None:
    expected = tuple(int(Path("/proc/sys/kernel", name).read_text()) for name in ("overflowuid", "overflowgid"))
    assert expected == (OVERFLOW_UID, OVERFLOW_GID)


def test_overflow_ids_without_proc_are_the_kernel_s_default(monkeypatch: pytest.MonkeyPatch, socket_path: Path) -> None:
    assert read_overflow_ids() == (OVERFLOW_UID, OVERFLOW_GID)
    monkeypatch.setattr(linux, "_KERNEL", str(socket_path.parent / "nothing here"))
    assert read_overflow_ids() == (OVERFLOW, OVERFLOW)


def test_ucred() -> None:
    assert parse_ucred(ucred(10, 20, 30)) == (10, 20, 30)
    assert parse_ucred(ucred(1, 0, 0)) == (1, 0, 0)


def test_unknown_ids_are_none() -> None:
    uid, gid = OVERFLOW_UID, OVERFLOW_GID
    assert parse_ucred(ucred(0, uid, gid)) == (None, None, None)
    assert parse_ucred(ucred(-1, MINUS_ONE, MINUS_ONE)) == (None, None, None)
    assert parse_ucred(ucred(7, uid, 8)) == (7, None, 8)
    assert parse_ucred(ucred(7, 8, gid)) == (7, 8, None)


@pytest.mark.parametrize("data", [b"", ucred(1, 2, 3)[:-1], ucred(1, 2, 3) + b"\0"])
def test_what_is_no_ucred_vouches_for_nobody(data: bytes) -> None:
    assert parse_ucred(data) is None


# the peer of a connection


def test_a_client_of_the_same_process(listener: socket.socket, socket_path: Path) -> None:
    with connect(socket_path) as client, listener.accept()[0] as accepted:
        for sock in (client, accepted):
            credentials = LINUX.peer_credentials(sock)
            assert ids_of(credentials) == (os.getpid(), os.geteuid(), os.getegid())


@needs_root
def test_a_client_of_another_user(listener: socket.socket, socket_path: Path) -> None:
    def work() -> int:
        with connect(socket_path):
            return os.getpid()

    pid = in_child(work, uid=OTHER_UID, gid=OTHER_GID, groups=[4, 27])
    with listener.accept()[0] as accepted:
        credentials = LINUX.peer_credentials(accepted)
        assert ids_of(credentials) == (pid, OTHER_UID, OTHER_GID)
        assert credentials is not None
        assert credentials.groups == (4, 27)


@needs_root
def test_a_client_called_nobody_is_unknown(listener: socket.socket, socket_path: Path) -> None:
    def work() -> int:
        with connect(socket_path):
            return os.getpid()

    pid = in_child(work, uid=OVERFLOW, gid=OVERFLOW, groups=[4, OVERFLOW, 27])
    with listener.accept()[0] as accepted:
        credentials = LINUX.peer_credentials(accepted)
        assert ids_of(credentials) == (pid, None, None)
        assert credentials is not None
        assert credentials.groups == (4, 27)


@pytest.mark.parametrize("count", [0, 1, 256, 257, 65_536])
@needs_root
def test_groups_of_any_number(count: int, listener: socket.socket, socket_path: Path) -> None:
    groups = range(100_000, 100_000 + count)
    in_child(lambda: connect(socket_path).close(), uid=OTHER_UID, groups=groups)
    with listener.accept()[0] as accepted:
        assert LinuxPeer(accepted).groups() == tuple(groups)


def test_a_socket_without_a_peer_has_no_credentials() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        assert LINUX.peer_credentials(sock) is None
        assert LinuxPeer(sock).groups() is None
        assert LinuxPeer(sock).pidfd() is None


def test_a_closed_socket_has_no_credentials(pair: tuple[socket.socket, socket.socket]) -> None:
    peer = LinuxPeer(pair[0])
    pair[0].close()
    assert LINUX.peer_credentials(pair[0]) is None
    assert peer.groups() is None
    assert peer.pidfd() is None
    assert peer.security_label() is None


def test_pidfd_names_the_peer_and_is_close_on_exec(listener: socket.socket, socket_path: Path) -> None:
    with running_child(lambda: connect(socket_path)) as pid, listener.accept()[0] as accepted:
        pidfd = LinuxPeer(accepted).pidfd()
        if pidfd is None:
            pytest.skip("this kernel has no SO_PEERPIDFD (Linux 6.5)")
        with pidfd:
            info = Path(f"/proc/self/fdinfo/{pidfd.fileno()}").read_text()
            assert f"Pid:\t{pid}\n" in info
            assert fcntl.fcntl(pidfd.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC


class LabelledSocket(socket.socket):
    """A real socket of a kernel whose security module gives labels."""

    label = b""

    def getsockopt(self, level: int, option: int, length: int = 0) -> int | bytes:  # type: ignore[override]
        assert (level, option) == (socket.SOL_SOCKET, linux.SO_PEERSEC)
        if len(self.label) > length:
            raise OSError(errno.ERANGE, "Numerical result out of range")
        return self.label


@pytest.mark.parametrize(
    "label, expected",
    [
        (b"unconfined_u:unconfined_r:unconfined_t:s0\0", "unconfined_u:unconfined_r:unconfined_t:s0"),
        (b"unconfined", "unconfined"),
        (b"\xff\0", "\\xff"),
        (b"x" * 1025, None),
    ],
)
def test_security_label(label: bytes, expected: str | None) -> None:
    with LabelledSocket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.label = label
        assert LinuxPeer(sock).security_label() == expected


def test_security_label_of_this_kernel(pair: tuple[socket.socket, socket.socket]) -> None:
    try:
        expected = Path("/proc/self/attr/current").read_text().rstrip("\0\n")
    except OSError:  # no security module that labels processes
        assert LinuxPeer(pair[0]).security_label() is None
    else:
        assert LinuxPeer(pair[0]).security_label() in (expected, None)


def test_machines_with_numbers_of_their_own_get_less(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linux, "_GENERIC", False)
    assert LinuxPeer(pair[0]).groups() is None
    assert LinuxPeer(pair[0]).pidfd() is None
    assert LINUX.refuse_descriptors(pair[0]) is False
    assert LINUX.takes_descriptors(pair[0]) is True
    assert ids_of(LINUX.peer_credentials(pair[0])) == (os.getpid(), os.geteuid(), os.getegid())


# the sender of a packet


def receive_sender(sock: socket.socket) -> Credentials | None:
    _data, control, _flags, _address = sock.recvmsg(10, 1000)
    ((level, kind, data),) = control
    return LINUX.sender_credentials(level, kind, data)


def test_asking_for_senders(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    assert not LINUX.asks_for_senders(ours)
    LINUX.ask_for_senders(ours)
    assert LINUX.asks_for_senders(ours)
    assert not LINUX.asks_for_senders(theirs)
    theirs.send(b"x")
    assert ids_of(receive_sender(ours)) == (os.getpid(), os.geteuid(), os.getegid())


@needs_root
def test_the_sender_on_a_pair_is_who_sends_not_who_made_it(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    LINUX.ask_for_senders(ours)

    def work() -> int:
        theirs.send(b"x")
        return os.getpid()

    pid = in_child(work, uid=OTHER_UID, gid=OTHER_GID)
    sender = receive_sender(ours)
    assert ids_of(sender) == (pid, OTHER_UID, OTHER_GID)
    assert sender is not None
    assert sender.groups is None


@needs_root
def test_a_sender_called_nobody_with_the_pid_of_another_namespace_is_no_sender() -> None:
    uid, gid = OVERFLOW_UID, OVERFLOW_GID
    assert LINUX.sender_credentials(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, ucred(0, uid, gid)) is None


def test_packets_sent_before_anyone_asked_tell_of_nobody(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.send(b"x")
    LINUX.ask_for_senders(ours)
    assert receive_sender(ours) is None


def test_other_control_messages_tell_of_nobody() -> None:
    data = ucred(1, 2, 3)
    assert LINUX.sender_credentials(socket.SOL_SOCKET, socket.SCM_RIGHTS, data) is None
    assert LINUX.sender_credentials(socket.IPPROTO_IP, socket.SCM_CREDENTIALS, data) is None
    assert LINUX.sender_credentials(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, data[:-1]) is None


# refusing descriptors


def test_refused_descriptors_fail_at_the_sender(
    pair: tuple[socket.socket, socket.socket], pipe: tuple[int, int]
) -> None:
    ours, theirs = pair
    assert LINUX.takes_descriptors(ours)
    if not LINUX.refuse_descriptors(ours):
        assert LINUX.takes_descriptors(ours)
        pytest.skip("this kernel has no SO_PASSRIGHTS (Linux 6.16)")
    assert not LINUX.takes_descriptors(ours)
    assert LINUX.takes_descriptors(theirs)
    with pytest.raises(PermissionError):
        socket.send_fds(theirs, [b"x"], [pipe[0]])
    theirs.send(b"no descriptor, no trouble")
    assert ours.recv(100) == b"no descriptor, no trouble"
    for _ in range(2):
        LINUX.accept_descriptors(ours)
        assert LINUX.takes_descriptors(ours)


def test_a_kernel_that_cannot_refuse_says_so() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:  # which has no SO_PASSRIGHTS on any kernel
        assert LINUX.refuse_descriptors(sock) is False
        assert LINUX.takes_descriptors(sock) is True


def test_what_a_listener_accepts_takes_descriptors_only_if_the_listener_does(
    listener: socket.socket, socket_path: Path
) -> None:
    with connect(socket_path) as client, listener.accept()[0] as accepted:
        assert LINUX.takes_descriptors(accepted)
        assert LINUX.takes_descriptors(client)
    if not LINUX.refuse_descriptors(listener):
        pytest.skip("this kernel has no SO_PASSRIGHTS (Linux 6.16)")
    with connect(socket_path) as client, listener.accept()[0] as accepted:
        assert not LINUX.takes_descriptors(accepted)
        assert LINUX.takes_descriptors(client)
