from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import AS_ROOT, OTHER_UID, in_child
from support.scarcity import no_descriptors

from seqrpc.errors import AddressError, ConnectDenied, ConnectError, NobodyListens, WrongSocketType
from seqrpc.kernel import sockets, systemd
from seqrpc.kernel.addresses import AbstractAddress, Address, FdAddress, PathAddress, SystemdAddress, parse_address
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.platforms import PLATFORM

SEQPACKET = socket.SOCK_SEQPACKET


@contextlib.contextmanager
def listener_at(
    name: str | bytes, kind: socket.SocketKind = SEQPACKET, *, backlog: int | None = 10
) -> Iterator[socket.socket]:
    """A socket bound with nothing but the standard library, as somebody else's would be."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(name)
        if backlog is not None and kind != socket.SOCK_DGRAM:
            sock.listen(backlog)
        yield sock


@pytest.fixture
def listener(socket_path: Path) -> Iterator[socket.socket]:
    with listener_at(os.fspath(socket_path)) as sock:
        yield sock


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """As a program that knows nothing of us would make it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def abstract(name: str) -> AbstractAddress:
    return AbstractAddress(f"seqrpc-test-{os.getpid()}-{name}".encode())


def closed_number() -> int:
    number = os.dup(0)
    os.close(number)
    return number


# making


def test_a_new_socket_is_seqpacket_non_blocking_and_close_on_exec() -> None:
    with sockets.new_socket() as sock:
        assert (sock.family, sock.type) == (socket.AF_UNIX, SEQPACKET)
        assert not sock.getblocking()
        assert not sock.get_inheritable()


@pytest.mark.parametrize("timeout", [None, 0.0, 60.0])
def test_a_socket_with_a_time_out_waits_no_more_and_others_are_left_as_they_are(timeout: float | None) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(timeout)
        sockets.never_wait(sock)
        assert sock.gettimeout() == (timeout and 0.0)


def test_a_pair_s_packets_carry_their_sender_both_ways() -> None:
    ours, theirs = sockets.socket_pair()
    with ours, theirs:
        for one, other in ((ours, theirs), (theirs, ours)):
            assert sockets.names_senders(one)
            other.send(b"x")
            _data, ((level, kind, data),), _flags, _address = one.recvmsg(10, 1000)
            sender = PLATFORM.sender_credentials(level, kind, data)
            assert sender == Credentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())


# adopting


def test_adopt_gives_the_socket_close_on_exec_and_its_mode_left_alone(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    number = os.dup(pair[0].fileno())
    os.set_inheritable(number, True)
    with sockets.adopt(OwnedFd(number), "fd:7") as sock:
        assert (sock.fileno(), sock.family, sock.type) == (number, socket.AF_UNIX, SEQPACKET)
        assert not sock.get_inheritable()
        assert os.get_blocking(number)


def test_where_no_socket_can_be_made_connecting_fails_as_it_does_elsewhere(tmp_path: Path) -> None:
    address = PathAddress(str(tmp_path / "socket"))
    with (
        no_descriptors(),
        pytest.raises(ConnectError, match=r"cannot connect to .*: Too many open files") as got,
    ):
        sockets.connect(address)
    assert got.value.errno == errno.EMFILE


def test_adopt_closes_what_is_no_socket(pipe: tuple[int, int]) -> None:
    with pytest.raises(AddressError, match="fd:7: the descriptor is not a socket"):
        sockets.adopt(OwnedFd.dup(pipe[0]), "fd:7")


def test_adopt_says_what_is_not_open() -> None:
    number = closed_number()
    with pytest.raises(AddressError, match="fd:7: the descriptor is not open"):
        sockets.adopt(OwnedFd(number), "fd:7")


@pytest.mark.parametrize(
    "family, kind, shown",
    [
        (socket.AF_UNIX, socket.SOCK_STREAM, "SOCK_STREAM"),
        (socket.AF_UNIX, socket.SOCK_DGRAM, "SOCK_DGRAM"),
        (socket.AF_INET, socket.SOCK_STREAM, "AF_INET"),
    ],
)
def test_adopt_closes_a_socket_of_another_kind(
    family: socket.AddressFamily, kind: socket.SocketKind, shown: str
) -> None:
    with socket.socket(family, kind) as sock:
        number = os.dup(sock.fileno())
    with pytest.raises(AddressError, match=rf"fd:7: a Unix socket of type SOCK_SEQPACKET was expected, got .*{shown}"):
        sockets.adopt(OwnedFd(number), "fd:7")


def test_is_connected_seqpacket_borrows_and_looks_at_all_of_it(
    listener: socket.socket, pair: tuple[socket.socket, socket.socket], pipe: tuple[int, int]
) -> None:
    def is_connected(fd: int) -> bool:
        with OwnedFd.dup(fd) as owned:
            result = sockets.is_connected_seqpacket(owned)
            assert os.fstat(owned.fileno()), "it was borrowed"
        return result

    stream = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as fresh, stream[0], stream[1]:
        assert is_connected(pair[0].fileno())
        assert not is_connected(fresh.fileno())
        assert not is_connected(listener.fileno())
        assert not is_connected(stream[0].fileno())
        assert not is_connected(pipe[0])

        pair[0].close()
        assert is_connected(pair[1].fileno()), "its end is to be read yet"


def test_who_waits_to_be_accepted_is_seen(listener: socket.socket) -> None:
    assert not sockets.somebody_waits(listener)
    with sockets.new_socket() as caller:
        caller.connect(listener.getsockname())
        assert sockets.somebody_waits(listener)
        listener.accept()[0].close()
        assert not sockets.somebody_waits(listener)


def test_is_listening(listener: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
    assert sockets.is_listening(listener)
    assert not sockets.is_listening(pair[0])


@pytest.mark.parametrize("text", ["/run/x", "@x"])
def test_only_fd_and_systemd_addresses_are_inherited(text: str) -> None:
    assert sockets.inherited_socket(parse_address(text)) is None


def test_fd_and_systemd_addresses_are_inherited(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [os.dup(pair[0].fileno()) for _ in range(2)]
    monkeypatch.setitem(systemd._passed, "name", [numbers[1]])
    addresses: list[Address] = [FdAddress(numbers[0]), SystemdAddress("name")]
    for number, address in zip(numbers, addresses, strict=True):
        sock = sockets.inherited_socket(address)
        assert sock is not None
        with sock:
            assert sock.fileno() == number


# connecting


@pytest.mark.parametrize("relative", [False, True])
def test_connect_to_a_path(
    relative: bool, listener: socket.socket, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(socket_path.parent)
    path = socket_path.name if relative else os.fspath(socket_path)
    with sockets.connect(PathAddress(path)) as client, listener.accept()[0] as accepted:
        assert not client.getblocking()
        assert not client.get_inheritable()
        client.send(b"hello")
        assert accepted.recv(10) == b"hello"


@pytest.mark.parametrize("length", [107, 108, 255])
def test_connect_to_a_name_of_any_length(length: int, socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "n" * length
    monkeypatch.chdir(socket_path.parent)
    with listener_at("short") as listener:
        os.rename("short", name)
        for path in (name, f"./{name}", f"{socket_path.parent}/{name}"):
            with sockets.connect(PathAddress(path)), listener.accept()[0] as accepted:
                assert accepted.getpeername() == ""


def test_connect_to_a_path_of_thousands_of_bytes(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = Path(socket_path.parent, *["d" * 200] * 15)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    with listener_at("x") as listener:
        with sockets.connect(PathAddress(f"{deep}/x")), listener.accept()[0]:
            pass
        with pytest.raises(ConnectError, match="there is no such file"):
            sockets.connect(PathAddress(f"{deep}/y"))


def test_connect_through_a_symbolic_link(listener: socket.socket, socket_path: Path) -> None:
    for link in ("link", "l" * 200):
        linked = socket_path.with_name(link)
        linked.symlink_to(socket_path)
        with sockets.connect(PathAddress(os.fspath(linked))), listener.accept()[0]:
            pass


def test_connect_to_an_abstract_name_of_arbitrary_bytes() -> None:
    for address in (abstract("a"), AbstractAddress(os.urandom(100) + b"\0/\xff"), AbstractAddress(os.urandom(107))):
        with listener_at(b"\0" + address.name) as listener, sockets.connect(address), listener.accept()[0]:
            pass


def test_connect_to_an_inherited_socket_is_that_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    with sockets.connect(FdAddress(os.dup(pair[0].fileno()))) as sock:
        sock.send(b"hello")
        assert pair[1].recv(10) == b"hello"


def test_an_inherited_socket_must_be_connected(listener: socket.socket) -> None:
    with pytest.raises(AddressError, match=r"fd:\d+: a connected socket was expected, this one listens") as caught:
        sockets.connect(FdAddress(os.dup(listener.fileno())))
    assert caught.value.__suppress_context__  # one traceback for people, not two
    with sockets.new_socket() as fresh, pytest.raises(AddressError, match="this one is not connected"):
        sockets.connect(FdAddress(os.dup(fresh.fileno())))


def fails_to_connect(path: str | Path, kind: type[ConnectError], number: int, reason: str) -> None:
    with pytest.raises(ConnectError) as caught:
        sockets.connect(PathAddress(os.fspath(path)))
    assert (type(caught.value), caught.value.errno) == (kind, number)
    assert str(caught.value).startswith(f"cannot connect to {path}: {reason}")
    assert caught.value.__suppress_context__  # one traceback for people, not two


@pytest.mark.parametrize("name", ["test.sock", "n" * 200])
def test_nobody_to_connect_to_is_told_with_the_reason(name: str, socket_path: Path, pipe: tuple[int, int]) -> None:
    path = socket_path.with_name(name)
    fails_to_connect(path, NobodyListens, errno.ENOENT, "there is no such file")
    fails_to_connect(path / "x", NobodyListens, errno.ENOENT, "there is no such file")
    path.touch()
    fails_to_connect(path, WrongSocketType, errno.ECONNREFUSED, "the file there is not a socket")
    fails_to_connect(path / "x", ConnectError, errno.ENOTDIR, "a part of the path is no directory")
    path.unlink()
    path.mkdir()
    fails_to_connect(path, WrongSocketType, errno.ECONNREFUSED, "the file there is not a socket")
    path.rmdir()
    os.mkfifo(path)
    fails_to_connect(path, WrongSocketType, errno.ECONNREFUSED, "the file there is not a socket")
    path.unlink()
    path.symlink_to(path)
    fails_to_connect(path, ConnectError, errno.ELOOP, os.strerror(errno.ELOOP))


def test_a_dead_socket_is_told_as_such(socket_path: Path) -> None:
    with listener_at(os.fspath(socket_path)):
        pass
    fails_to_connect(socket_path, NobodyListens, errno.ECONNREFUSED, "nobody listens there")
    os.rename(socket_path, long := socket_path.with_name("n" * 200))
    fails_to_connect(long, NobodyListens, errno.ECONNREFUSED, "nobody listens there")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_of_another_type_is_told_as_such(kind: socket.SocketKind, socket_path: Path) -> None:
    with listener_at(os.fspath(socket_path), kind):
        fails_to_connect(
            socket_path, WrongSocketType, errno.EPROTOTYPE, "the socket there is not of type SOCK_SEQPACKET"
        )


@pytest.mark.skipif(not AS_ROOT, reason="only root may become another user")
def test_a_socket_that_may_not_be_written_to_is_told_as_such(listener: socket.socket, socket_path: Path) -> None:
    socket_path.chmod(0o600)
    socket_path.parent.chmod(0o755)
    reason = "permission denied: this needs write permission on the socket file, for which the daemon's mode= and"
    in_child(lambda: fails_to_connect(socket_path, ConnectDenied, errno.EACCES, reason), uid=OTHER_UID)


def test_an_abstract_name_that_nobody_has_is_told_as_such() -> None:
    address = abstract("nobody")
    with pytest.raises(NobodyListens, match=f"cannot connect to {address}: nobody listens there") as caught:
        sockets.connect(address)
    assert caught.value.errno == errno.ECONNREFUSED


def test_a_name_longer_than_the_kernel_s_is_an_error_and_nothing_stays_open() -> None:
    with pytest.raises(ConnectError, match="too long") as caught:
        sockets.connect(AbstractAddress(b"x" * 108))
    assert caught.value.errno == errno.EIO


def test_text_that_is_no_path_is_an_error_and_nothing_stays_open() -> None:
    with pytest.raises(UnicodeEncodeError):
        sockets.connect(PathAddress("\ud800"))


def test_a_file_that_goes_away_while_it_is_explained_counts_as_a_socket(socket_path: Path) -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    assert "nobody listens there" in str(sockets._explain(refused, PathAddress(os.fspath(socket_path))))


def test_a_full_backlog_means_try_again_and_nothing_is_in_progress(socket_path: Path) -> None:
    address = PathAddress(os.fspath(socket_path))
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listener_at(os.fspath(socket_path), backlog=0))
        stack.enter_context(sockets.connect(address))
        with pytest.raises(BlockingIOError):
            sockets.connect(address)
        listener.accept()[0].close()
        stack.enter_context(sockets.connect(address))


def test_other_kernels_have_neither_abstract_names_nor_long_paths(
    monkeypatch: pytest.MonkeyPatch, socket_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", "freebsd14")
    with pytest.raises(AddressError, match="@x: abstract names exist on Linux only"):
        sockets.abstract_name(AbstractAddress(b"x"))
    long = socket_path.with_name("n" * 200)
    fails_to_connect(long, ConnectError, errno.ENAMETOOLONG, "paths of sockets have less than 108 bytes here")


def test_fits_counts_bytes_and_the_final_nul() -> None:
    assert sockets.fits("x" * 107)
    assert not sockets.fits("x" * 108)
    assert sockets.fits("ü" * 53)
    assert not sockets.fits("ü" * 54)


# who is told by what


def test_both_ends_of_a_connection_are_told_by_the_socket(listener: socket.socket, socket_path: Path) -> None:
    with sockets.connect(PathAddress(os.fspath(socket_path))) as client, listener.accept()[0] as accepted:
        assert not sockets.names_senders(client)
        assert not sockets.names_senders(accepted)
        PLATFORM.ask_for_senders(accepted)
        assert sockets.names_senders(accepted)
        assert not sockets.names_senders(client)


def test_both_ends_of_an_abstract_connection_are_told_by_the_socket() -> None:
    address = abstract("told")
    with listener_at(b"\0" + address.name) as listener, sockets.connect(address) as client, listener.accept()[0] as end:
        assert not sockets.names_senders(client)
        assert not sockets.names_senders(end)


def test_a_pair_is_told_by_packets(pair: tuple[socket.socket, socket.socket]) -> None:
    assert sockets.names_senders(pair[0])
    assert sockets.names_senders(pair[1])


def test_a_pair_with_names_that_the_kernel_gave_it_is_told_by_packets(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    PLATFORM.ask_for_senders(ours)
    ours.send(b"x")
    assert ours.getsockname() != ""  # autobind
    assert sockets.names_senders(ours)
    assert sockets.names_senders(theirs)


def test_an_inherited_end_cannot_be_fooled_by_the_name_of_its_peer(
    pair: tuple[socket.socket, socket.socket], socket_path: Path
) -> None:
    """Who holds the other end may bind it to a path; it would then pass for the pair's maker."""
    ours, theirs = pair
    theirs.bind(os.fspath(socket_path))
    with sockets.connect(FdAddress(os.dup(ours.fileno()))) as sock:
        assert sock.getpeername() == os.fspath(socket_path)
        assert sockets.names_senders(sock)


def test_an_inherited_socket_that_was_accepted_is_told_by_the_socket(
    listener: socket.socket, socket_path: Path
) -> None:
    """As by a service manager that accepts and starts one process for each connection."""
    with sockets.connect(PathAddress(os.fspath(socket_path))), listener.accept()[0] as accepted:
        inherited = os.dup(accepted.fileno())
        with sockets.connect(FdAddress(inherited)) as sock:
            assert not sockets.names_senders(sock)


def test_a_child_program_inherits_an_end_by_number() -> None:
    program = """
import sys
from seqrpc.kernel.addresses import parse_address
from seqrpc.kernel.sockets import connect
with connect(parse_address(sys.argv[1])) as sock:
    sock.send(b"from the child")
"""
    ours, theirs = sockets.socket_pair()
    with ours:
        with theirs:
            command = [sys.executable, "-c", program, f"fd:{theirs.fileno()}"]
            with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as child:
                assert child.wait(30) == 0
        data, ((_level, _kind, ucred),), _flags, _address = ours.recvmsg(100, 1000)
        sender = PLATFORM.sender_credentials(_level, _kind, ucred)
        assert data == b"from the child"
        assert sender is not None
        assert sender.pid == child.pid


def test_a_number_that_does_not_fit_is_left_to_whoever_owns_it(pipe: tuple[int, int]) -> None:
    """A program told the wrong number must not close the event loop's own descriptors."""
    stream, other = socket.socketpair()
    with stream, other:
        for fd in (*pipe, stream.fileno()):
            with pytest.raises(AddressError):
                sockets.inherited_socket(FdAddress(fd))

            assert os.fstat(fd)


def test_a_number_that_is_not_open_is_a_clear_error() -> None:
    with OwnedFd.dup(0) as fd:
        number = fd.fileno()

    with pytest.raises(AddressError, match=f"fd:{number}: the descriptor is not open"):
        sockets.inherited_socket(FdAddress(number))


def test_little_waits_in_a_narrow_socket_and_as_much_as_ever_in_a_wide_one() -> None:
    for usual in (None, 100_000):
        ours, theirs = sockets.socket_pair()
        with ours, theirs:
            if usual is not None:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, usual)
            before = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            room = sockets.SendRoom(ours)
            counts = []
            for narrow in (True, True, False, False):
                room.change(narrow=narrow)
                assert room.narrow is narrow
                sent = 0
                with contextlib.suppress(BlockingIOError):
                    while True:
                        ours.send(b"x", socket.MSG_DONTWAIT)
                        sent += 1
                counts.append(sent)
            assert 0 < counts[0] < 10
            assert counts[2] > counts[0]
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == before


def test_a_socket_has_a_name_if_somebody_chose_one_for_either_end(socket_path: Path) -> None:
    ours, theirs = sockets.socket_pair()
    with ours, theirs:
        theirs.send(b"so that the kernel names it")
        assert not sockets.is_named(ours)
        assert not sockets.is_named(theirs)
    ours, theirs = sockets.socket_pair()
    with ours, theirs:
        theirs.bind(os.fspath(socket_path))
        assert sockets.is_named(ours)
        assert sockets.is_named(theirs)
