"""The right to an address before anybody can connect there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from seqrpc.errors import AddressInUse, ConnectError
from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import AbstractAddress, Address, FdAddress, PathAddress
from seqrpc.kernel.listening import ListeningSocket, claim, listen


def claimed(address: Address) -> ListeningSocket:
    return claim(address, mode=None, group=None, accept_descriptors=True, pass_credentials=False)


def test_a_claimed_path_has_no_file_before_it_is_listened_on(socket_path: Path) -> None:
    address = PathAddress(os.fspath(socket_path))
    listening = claimed(address)
    assert os.listdir(socket_path.parent) == ["test.sock.lock"]
    with pytest.raises(AddressInUse):
        claimed(address)
    listening.listen()
    sockets.connect(address).close()
    listening.close()
    assert os.listdir(socket_path.parent) == []


def test_a_claimed_path_that_is_given_up_leaves_nothing(socket_path: Path) -> None:
    claimed(PathAddress(os.fspath(socket_path))).close()
    assert os.listdir(socket_path.parent) == []


def test_a_path_that_somebody_serves_cannot_be_claimed_and_a_stale_file_goes(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as foreign:
        foreign.bind(os.fspath(socket_path))
        foreign.listen()
        with pytest.raises(AddressInUse, match="somebody listens there"):
            claimed(PathAddress(os.fspath(socket_path)))
        assert os.listdir(socket_path.parent) == ["test.sock"]
    listening = claimed(PathAddress(os.fspath(socket_path)))
    assert os.listdir(socket_path.parent) == ["test.sock.lock"]
    listening.close()


def test_who_takes_a_claimed_path_all_the_same_keeps_it(socket_path: Path) -> None:
    listening = claimed(PathAddress(os.fspath(socket_path)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as foreign:
        foreign.bind(os.fspath(socket_path))
        foreign.listen()
        with pytest.raises(AddressInUse):
            listening.listen()
        listening.close()
        assert os.listdir(socket_path.parent) == ["test.sock"]


def test_a_claimed_abstract_name_is_taken_and_refuses_connections() -> None:
    address = AbstractAddress(f"seqrpc-claim-{os.getpid()}".encode())
    listening = claimed(address)
    with pytest.raises(AddressInUse):
        listen(address)
    with pytest.raises(ConnectError, match="nobody listens there"):
        sockets.connect(address)
    listening.listen()
    sockets.connect(address).close()
    listening.close()
    listen(address).close()


def test_an_inherited_socket_listens_already_and_keeps_its_backlog(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(os.fspath(socket_path))
        made.listen(0)
        listening = claimed(FdAddress(made.detach()))
    listening.listen()
    address = PathAddress(os.fspath(socket_path))
    with sockets.connect(address), pytest.raises(BlockingIOError):
        sockets.connect(address)
    listening.close()
