"""The byte layouts of FreeBSD's structures, laid down by hand as a 64-bit little-endian kernel has them."""

from __future__ import annotations

import array
import errno
import socket
import struct
import sys

import pytest

from seqrpc.kernel import freebsd
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.freebsd import FreeBSD, parse_sockcred, parse_xucred

pytestmark = pytest.mark.skipif(
    sys.byteorder != "little" or struct.calcsize("P") != 8, reason="the bytes below are those of LP64, little-endian"
)


def u32(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def xucred(
    *, version: int = 0, uid: int = 1001, count: int = 3, groups: tuple[int, ...] = (1002, 4, 27), pid: int = 4321
) -> bytes:
    filled = groups + (0,) * (16 - len(groups))
    head = u32(version, uid) + count.to_bytes(2, "little", signed=True) + b"\xaa\xaa"  # two bytes of padding
    # The union holds a pointer, so it is aligned to eight bytes, and the pid is its first four.
    return head + u32(*filled) + b"\xbb" * 4 + pid.to_bytes(4, "little", signed=True) + b"\xcc" * 4


def sockcred(*, ids: tuple[int, int, int, int] = (1, 1001, 2, 1002), groups: tuple[int, ...] = (1002, 4)) -> bytes:
    return u32(*ids, len(groups), *groups)


def test_xucred_has_88_bytes() -> None:
    assert len(xucred()) == 88
    assert freebsd._XUCRED_BYTES == 88


def test_xucred() -> None:
    credentials = parse_xucred(xucred())
    assert credentials == Credentials(pid=4321, uid=1001, gid=1002)
    assert credentials is not None
    assert credentials.groups == (4, 27)


def test_xucred_with_all_its_sixteen_groups() -> None:
    credentials = parse_xucred(xucred(count=16, groups=tuple(range(100, 116))))
    assert credentials is not None
    assert credentials.gid == 100
    assert credentials.groups == tuple(range(101, 116))


def test_xucred_of_a_kernel_that_gives_no_pid() -> None:
    assert parse_xucred(xucred(pid=0)) == Credentials(pid=None, uid=1001, gid=1002)
    assert parse_xucred(xucred(pid=-1)) == Credentials(pid=None, uid=1001, gid=1002)
    assert parse_xucred(xucred()[:76]) == Credentials(pid=None, uid=1001, gid=1002)


@pytest.mark.parametrize("number", [65_534, 0xFFFF_FFFF])
def test_xucred_ids_that_mean_nobody_known_are_none(number: int) -> None:
    credentials = parse_xucred(xucred(uid=number, groups=(number, number, 27)))
    assert credentials == Credentials(pid=4321, uid=None, gid=None)
    assert credentials is not None
    assert credentials.groups == (27,)


def test_xucred_of_root_is_root() -> None:
    assert parse_xucred(xucred(uid=0, count=1, groups=(0,))) == Credentials(pid=4321, uid=0, gid=0)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(xucred()[:75], id="short"),
        pytest.param(xucred(version=1), id="another version"),
        pytest.param(xucred(count=0), id="no group, so no gid"),
        pytest.param(xucred(count=17), id="more groups than there is room for"),
        pytest.param(xucred(count=-1), id="a negative count"),
    ],
)
def test_what_is_no_xucred_vouches_for_nobody(data: bytes) -> None:
    assert parse_xucred(data) is None


def test_sockcred_gives_the_effective_ids() -> None:
    credentials = parse_sockcred(sockcred())
    assert credentials == Credentials(pid=None, uid=1001, gid=1002)
    assert credentials is not None
    assert credentials.groups == (1002, 4)


def test_sockcred_without_groups() -> None:
    credentials = parse_sockcred(sockcred(groups=()))
    assert credentials is not None
    assert credentials.groups == ()


@pytest.mark.parametrize("number", [65_534, 0xFFFF_FFFF])
def test_sockcred_ids_that_mean_nobody_known_are_none(number: int) -> None:
    credentials = parse_sockcred(sockcred(ids=(0, number, 0, number), groups=(number, 5)))
    assert credentials == Credentials(pid=None, uid=None, gid=None)
    assert credentials is not None
    assert credentials.groups == (5,)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(sockcred()[:19], id="short"),
        pytest.param(sockcred()[:-1], id="fewer groups than it says"),
        pytest.param(u32(1, 2, 3, 4, 0xFFFF_FFFF), id="a negative count"),
    ],
)
def test_what_is_no_sockcred_vouches_for_nobody(data: bytes) -> None:
    assert parse_sockcred(data) is None


class FreeBSDSocket(socket.socket):
    """A real socket but for the two options at level ``SOL_LOCAL``, which Linux does not have."""

    peer: bytes | None = None
    creds = 0

    def getsockopt(self, level: int, option: int, length: int = 0) -> int | bytes:  # type: ignore[override]
        if level != freebsd.SOL_LOCAL:
            return super().getsockopt(level, option, length)
        if option == freebsd.LOCAL_CREDS:
            return self.creds
        assert option == freebsd.LOCAL_PEERCRED
        if self.peer is None:
            raise OSError(errno.ENOTCONN, "Socket is not connected")
        return self.peer[:length]

    def setsockopt(self, level: int, option: int, value: int) -> None:  # type: ignore[override]
        assert (level, option) == (freebsd.SOL_LOCAL, freebsd.LOCAL_CREDS)
        self.creds = value


def test_peer_credentials_are_those_of_local_peercred() -> None:
    with FreeBSDSocket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.peer = xucred()
        assert FreeBSD().peer_credentials(sock) == Credentials(pid=4321, uid=1001, gid=1002)


def test_a_socket_without_a_peer_has_no_credentials() -> None:
    with FreeBSDSocket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        assert FreeBSD().peer_credentials(sock) is None


def test_asking_for_senders_sets_local_creds() -> None:
    with FreeBSDSocket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        assert not FreeBSD().asks_for_senders(sock)
        FreeBSD().ask_for_senders(sock)
        assert sock.creds == 1
        assert FreeBSD().asks_for_senders(sock)


def test_scm_creds_tells_the_sender() -> None:
    data = sockcred()
    sender = FreeBSD().sender_credentials(socket.SOL_SOCKET, freebsd.SCM_CREDS, data)
    assert sender == Credentials(pid=None, uid=1001, gid=1002)


def test_other_control_messages_tell_of_nobody() -> None:
    data = sockcred()
    assert FreeBSD().sender_credentials(socket.SOL_SOCKET, 4, data) is None
    assert FreeBSD().sender_credentials(freebsd.SOL_LOCAL, freebsd.SCM_CREDS, data) is None
    rights = array.array("i", [1, 2]).tobytes()
    assert FreeBSD().sender_credentials(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights) is None


def test_descriptors_cannot_be_refused() -> None:
    with FreeBSDSocket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        assert FreeBSD().refuse_descriptors(sock) is False
        assert FreeBSD().takes_descriptors(sock) is True
        FreeBSD().accept_descriptors(sock)
        assert FreeBSD().takes_descriptors(sock) is True
