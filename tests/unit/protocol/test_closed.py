"""Where a closed descriptor is, among what cannot be sent because of it."""

from __future__ import annotations

import dataclasses
import io
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.closed import closed_in


@dataclasses.dataclass
class Reply:
    name: str
    fd: Any


@pytest.fixture
def closed() -> OwnedFd:
    fd = OwnedFd.dup(0)
    fd.close()
    return fd


@pytest.fixture
def opened() -> Iterator[OwnedFd]:
    with OwnedFd.dup(0) as fd:
        yield fd


def test_the_path_to_the_first_that_is_closed_is_told(closed: OwnedFd, opened: OwnedFd) -> None:
    assert closed_in(closed, "result") == "result: the descriptor is closed"
    assert closed_in((opened, closed), "params") == "params[1]: the descriptor is closed"
    assert closed_in({"a": [opened, {"b": closed}]}, "params") == "params['a'][1]['b']: the descriptor is closed"
    assert closed_in(Reply("x", closed), "result") == "result.fd: the descriptor is closed"


def test_what_is_no_owned_descriptor_says_it_in_its_own_words(opened: OwnedFd) -> None:
    with tempfile.TemporaryFile() as file, socket.socket() as sock:
        assert closed_in([file, sock, opened, 5, None, "x"], "params") is None
    assert closed_in([1, file], "params") == "params[1]: I/O operation on closed file"
    assert closed_in([sock], "params") == "params[0]: the socket is closed"
    assert closed_in([io.StringIO()], "params") is None, "it never had one"
    fd = OwnedFd.dup(0)
    OwnedFd(fd.detach()).close()
    assert closed_in(fd, "params") == "params: the descriptor is detached"


def test_where_too_much_is_to_be_looked_at_nothing_is_told(closed: OwnedFd) -> None:
    assert closed_in([*([1] * 20_000), closed], "params") is None
