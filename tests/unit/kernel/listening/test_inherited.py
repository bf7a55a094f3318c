"""What one process listens with, and another inherits."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from support.descriptors import refuse_descriptors
from support.listening import SEQPACKET, contents, listen_at, serves

from seqrpc.errors import AddressError, AddressInUse, ListenError
from seqrpc.kernel.addresses import AbstractAddress, Address, FdAddress, PathAddress
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.listening import ListeningSocket, Offer, adopt_listening, inherit, listen
from seqrpc.kernel.platforms import PLATFORM


def offered(listening: ListeningSocket) -> tuple[Offer, list[OwnedFd]]:
    offer, fds = listening.offer()
    return offer, [OwnedFd.dup(fd) for fd in fds]


def heir(listening: ListeningSocket, address: Address, **asked: Any) -> ListeningSocket:
    every = {"mode": None, "group": None, "accept_descriptors": True, "pass_credentials": False, **asked}
    return inherit(*offered(listening), address, **every)


@pytest.fixture
def address(socket_path: Path) -> PathAddress:
    return PathAddress(os.fspath(socket_path))


def test_an_heir_that_gives_up_leaves_everything_as_it_was(address: PathAddress, socket_path: Path) -> None:
    first = listen(address)
    heir(first, address).close()
    assert serves(first, socket_path)
    assert contents(socket_path.parent) == ["test.sock", "test.sock.lock"]
    first.close()
    assert contents(socket_path.parent) == []


def test_what_is_an_heir_s_stays_when_the_first_lets_go(address: PathAddress, socket_path: Path) -> None:
    first = listen(address, mode=0o620, group=os.getgid())
    second = heir(first, address, mode=0o620, group=os.getgid())
    first.is_anothers = True
    second.renew(10)
    first.close()
    first.close()
    assert serves(second, socket_path)
    with pytest.raises(AddressInUse):
        listen(address)
    third = heir(second, address, mode=0o620, group=os.getgid())
    second.is_anothers = True
    second.close()
    third.renew(10)
    third.close()
    assert contents(socket_path.parent) == []


def test_a_path_may_be_written_otherwise(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = listen_at(socket_path)
    monkeypatch.chdir(socket_path.parent)
    heir(first, PathAddress("test.sock")).close()
    first.close()


def test_an_abstract_name_is_inherited() -> None:
    address = AbstractAddress(f"seqrpc-{os.getpid()}-heir".encode())
    first = listen(address)
    second = heir(first, address)
    first.is_anothers = True
    first.close()
    second.renew(10)
    second.close()
    listen(address).close()


def test_a_socket_that_others_made_is_inherited(socket_path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX, SEQPACKET)
    sock.bind(os.fspath(socket_path))
    sock.listen()
    address = FdAddress(sock.fileno())
    first = adopt_listening(sock, address, accept_descriptors=True)
    second = heir(first, address)
    second.renew(10)
    first.close()
    second.close()
    assert contents(socket_path.parent) == ["test.sock"]


def test_whether_descriptors_are_taken_changes_once_it_is_the_heir_s(address: PathAddress, socket_path: Path) -> None:
    first = listen(address)
    refuse_descriptors(first.sock)
    second = heir(first, address)
    assert not PLATFORM.takes_descriptors(first.sock)
    second.renew(10)
    assert PLATFORM.takes_descriptors(first.sock)
    third = heir(second, address, accept_descriptors=False)
    assert PLATFORM.takes_descriptors(first.sock)
    third.renew(10)
    assert not PLATFORM.takes_descriptors(first.sock)
    for listening in (first, second):
        listening.is_anothers = True
    for listening in (first, second, third):
        listening.close()


@pytest.mark.parametrize("asked", [{"mode": 0o660}, {"pass_credentials": True}, {"mode": 0o660, "group": 0}])
def test_nothing_may_be_asked_that_is_not_so(asked: dict[str, Any], address: PathAddress) -> None:
    first = listen(address)
    with pytest.raises(AddressError, match=r"neither address nor mode=.*test\.sock is served otherwise"):
        heir(first, address, **asked)
    first.close()


def test_another_name_is_not_inherited(address: PathAddress) -> None:
    first = listen(AbstractAddress(f"seqrpc-{os.getpid()}-one".encode()))
    with pytest.raises(AddressError, match="-one is served otherwise"):
        heir(first, AbstractAddress(f"seqrpc-{os.getpid()}-two".encode()))
    with pytest.raises(AddressError, match="no lock came"):
        heir(first, address, mode=first.offer()[0].mode & 0o700 or None)
    first.close()


def test_another_path_is_not_inherited(address: PathAddress, socket_path: Path) -> None:
    first = listen(address)
    other = PathAddress(f"{address.path}2")
    (socket_path.parent / "test.sock2.lock").touch()
    with pytest.raises(AddressInUse, match=r"test\.sock2 is not what the process that serves it has locked"):
        heir(first, other)
    with pytest.raises(ListenError, match="there is no directory"):
        heir(first, PathAddress("/nowhere/at/all.sock"))
    first.close()


def test_a_lock_that_is_none_is_no_claim(address: PathAddress) -> None:
    first = listen(address)
    asked: dict[str, Any] = {"mode": None, "group": None, "accept_descriptors": True, "pass_credentials": False}
    lock_file = f"{address.path}.lock"

    offer, fds = offered(first)
    fds.pop().close()
    with OwnedFd(os.open(lock_file, os.O_RDWR)) as unlocked:
        with pytest.raises(AddressInUse, match="has locked"):
            inherit(offer, [*fds, OwnedFd.dup(unlocked)], address, **asked)
        with pytest.raises(BlockingIOError):
            fcntl.flock(unlocked.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    offer, fds = offered(first)
    fds.pop().close()
    with pytest.raises(ListenError):
        inherit(offer, [*fds, OwnedFd(os.open(lock_file, os.O_PATH))], address, **asked)
    first.close()


def test_what_does_not_listen_is_not_inherited(address: PathAddress) -> None:
    offer = Offer(os.fsencode(address.path), False, 0o600, None, (0, 0))
    asked: dict[str, Any] = {"mode": None, "group": None, "accept_descriptors": True, "pass_credentials": False}
    with pytest.raises(AddressError, match="no listening socket came"):
        inherit(offer, [], address, **asked)
    with pytest.raises(AddressError, match="not a socket"):
        inherit(offer, [OwnedFd(os.open(os.devnull, os.O_RDONLY))], address, **asked)
    one, other = socket.socketpair(socket.AF_UNIX, SEQPACKET)
    with other, pytest.raises(AddressError, match="this one does not listen"):
        inherit(offer, [OwnedFd(one.detach())], address, **asked)
