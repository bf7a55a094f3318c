"""Listening, closing, and the names that may be listened at."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

import pytest
from support.listening import contents, foreign_server, listen_at, serves
from support.processes import running_child

from seqrpc.errors import AddressError, AddressInUse, ListenError
from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import AbstractAddress, FdAddress, PathAddress
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.listening import adopt_listening, listen
from seqrpc.kernel.platforms import PLATFORM

# listening and closing


def test_it_listens_and_closing_leaves_nothing(socket_path: Path) -> None:
    listening = listen_at(socket_path)
    assert listening.address == PathAddress(os.fspath(socket_path))
    assert not listening.sock.getblocking()
    assert not listening.sock.get_inheritable()
    assert serves(listening, socket_path)
    assert contents(socket_path.parent) == ["test.sock", "test.sock.lock"]
    assert stat.S_IMODE(os.stat(f"{socket_path}.lock").st_mode) == 0o600
    listening.close()
    assert contents(socket_path.parent) == []
    listening.close()


def test_a_path_may_be_relative(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(socket_path.parent)
    for path in ("x", "./x", f"../{socket_path.parent.name}/x"):
        listening = listen_at(path)
        assert serves(listening, path)
        assert contents(socket_path.parent) == ["x", "x.lock"]
        listening.close()
        assert contents(socket_path.parent) == []


def test_a_server_may_change_its_directory_before_it_closes(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(socket_path.parent)
    listening = listen_at("x")
    monkeypatch.chdir("/")
    listening.close()
    assert contents(socket_path.parent) == []


@pytest.mark.parametrize("name_bytes", [107, 108, 250, 251, 255])
def test_a_name_may_be_as_long_as_the_file_system_allows(name_bytes: int, socket_path: Path) -> None:
    name = "n" * name_bytes
    path = socket_path.with_name(name)
    listening = listen_at(path, mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert serves(listening, path)
    assert len(contents(socket_path.parent)) == 2
    assert name in contents(socket_path.parent)
    with pytest.raises(AddressInUse):
        listen_at(path)
    listening.close()
    assert contents(socket_path.parent) == []


def test_a_path_may_have_thousands_of_bytes(socket_path: Path) -> None:
    directory = Path(socket_path.parent, *["d" * 200] * 15)
    directory.mkdir(parents=True)
    for name in ("x", "n" * 255):
        listening = listen_at(directory / name)
        assert serves(listening, directory / name)
        listening.close()
        assert contents(directory) == []


def test_a_long_name_whose_server_was_killed_is_replaced(socket_path: Path) -> None:
    path = socket_path.with_name("n" * 255)
    with running_child(lambda: listen_at(path)):
        pass
    listening = listen_at(path)
    assert serves(listening, path)
    listening.close()
    assert contents(socket_path.parent) == []


def test_a_name_too_long_for_the_file_system_is_an_error(socket_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        listen_at(socket_path.with_name("n" * 256))
    assert contents(socket_path.parent) == []


@pytest.mark.parametrize(
    "path, number, reason",
    [
        (
            "missing/x",
            errno.ENOENT,
            "there is no directory 'missing'; make it first (in a systemd unit: RuntimeDirectory=)",
        ),
        ("x/", errno.EISDIR, "a socket's path ends with a file name"),
        ("file/x", errno.ENOTDIR, "'file' is no directory"),
    ],
)
def test_a_path_where_no_file_can_be_is_an_error_that_says_what_to_do(
    path: str, number: int, reason: str, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(socket_path.parent)
    Path("file").touch()
    Path("x").mkdir()
    with pytest.raises(ListenError) as caught:
        listen_at(path)
    assert caught.value.errno == number
    assert str(caught.value) == f"cannot listen at {path}: {reason}"
    assert caught.value.__suppress_context__  # one traceback for people, not two
    assert contents(socket_path.parent) == ["file", "x"]


def test_abstract_names() -> None:
    address = AbstractAddress(b"seqrpc-test-%d\0\xff" % os.getpid())
    listening = listen(address)
    with sockets.connect(address), listening.sock.accept()[0]:
        pass
    with pytest.raises(AddressInUse, match="is in use: somebody listens there") as caught:
        listen(address)
    assert caught.value.errno == errno.EADDRINUSE
    listening.close()
    listen(address).close()


def test_an_abstract_name_that_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError, match="too long"):
        listen(AbstractAddress(b"x" * 108))


def test_an_inherited_socket_must_listen_and_becomes_non_blocking(socket_path: Path) -> None:
    with foreign_server(socket_path) as server:
        listening = listen(FdAddress(os.dup(server.fileno())))
        assert not listening.sock.getblocking()
        assert serves(listening, socket_path)
        listening.close()
        assert socket_path.exists()
    with sockets.new_socket() as fresh, pytest.raises(AddressError, match=r"fd:\d+: a listening socket was expected"):
        listen(FdAddress(os.dup(fresh.fileno())))


@pytest.mark.parametrize("inherited", [False, True])
def test_descriptors_are_refused_where_they_are_not_wanted(
    inherited: bool, socket_path: Path, pipe: tuple[int, int]
) -> None:
    with contextlib.ExitStack() as stack:
        if inherited:
            server = stack.enter_context(foreign_server(socket_path))
            listening = listen(FdAddress(os.dup(server.fileno())), accept_descriptors=False)
        else:
            listening = listen_at(socket_path, accept_descriptors=False)
        stack.callback(listening.close)
        try:
            kept = listening.sock.getsockopt(socket.SOL_SOCKET, 83)
        except OSError:
            pytest.skip("this kernel has no SO_PASSRIGHTS (Linux 6.16)")
        assert kept == 0
        client = stack.enter_context(sockets.connect(PathAddress(os.fspath(socket_path))))
        stack.enter_context(listening.sock.accept()[0])
        with pytest.raises(PermissionError):
            socket.send_fds(client, [b"x"], [pipe[0]])


def test_a_backlog_no_kernel_takes_is_an_error_that_leaves_nothing(socket_path: Path) -> None:
    with pytest.raises(OverflowError):
        listen_at(socket_path, backlog=2**40)
    assert contents(socket_path.parent) == []


# what others do meanwhile


def test_a_directory_without_its_own_name_in_the_path(socket_path: Path) -> None:
    with OwnedFd(os.open(socket_path.parent, os.O_RDONLY)) as directory:
        path = f"/proc/self/fd/{directory.fileno()}/x"
        listening = listen_at(path)
        assert serves(listening, path)
        listening.close()
    assert contents(socket_path.parent) == []


@pytest.mark.parametrize("adopted", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_what_is_accepted_tells_senders_if_that_is_asked_for(adopted: bool, asked: bool, socket_path: Path) -> None:
    address = PathAddress(os.fspath(socket_path))
    if adopted:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.bind(os.fspath(socket_path))
        sock.listen()
        listening = adopt_listening(sock, address, accept_descriptors=True, pass_credentials=asked)
    else:
        listening = listen(address, pass_credentials=asked)
    with contextlib.closing(listening), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(os.fspath(socket_path))
        with listening.sock.accept()[0] as accepted:
            assert PLATFORM.asks_for_senders(accepted) is asked
