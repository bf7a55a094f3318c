"""Sockets that are closed with what uses them."""

from __future__ import annotations

import gc
import socket
from typing import Any

import pytest

from seqrpc.blocking.kept import keep


class Owner:
    """Something that uses a socket, and may be in a circle with it."""

    def __init__(self, *socks: socket.socket, discard: bool = False) -> None:
        self.socks = socks
        self.kept = keep(self, *socks, discard=discard)
        self.circle: Any = None


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@pytest.mark.parametrize("in_a_circle", [False, True])
def test_a_socket_goes_with_its_owner_and_without_a_warning(
    in_a_circle: bool, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    with theirs:
        theirs.settimeout(10)
        owner = Owner(ours)
        owner.circle = [owner, ours] if in_a_circle else None
        del owner, ours, pair
        gc.collect()
        assert theirs.recv(1) == b""


def test_several_go_together(pair: tuple[socket.socket, socket.socket]) -> None:
    owner = Owner(*pair)
    del owner
    assert [end.fileno() for end in pair] == [-1, -1]


def test_what_is_closed_by_then_is_left_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    owner = Owner(ours)
    with theirs:
        ours.close()
        del owner
        assert ours.fileno() == -1


def test_a_socket_that_is_taken_back_stays(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs:
        owner = Owner(ours)
        owner.kept.detach()
        del owner
        assert ours.send(b"x") == 1


@pytest.mark.parametrize("discard", [False, True])
def test_what_is_unread_is_thrown_away_where_that_is_asked_for(
    discard: bool, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    with theirs:
        theirs.settimeout(10)
        theirs.send(b"unread")
        owner = Owner(ours, discard=discard)
        del owner
        try:
            came = theirs.recv(1)
        except ConnectionResetError:
            came = b"reset"
        assert came == (b"" if discard else b"reset")
