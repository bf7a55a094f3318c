"""Asking many sockets at once."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.desk import both
from support.sync import Thread, served

import seqrpc
from seqrpc.cli.asking import AT_ONCE, Sighting, ask, ask_all
from seqrpc.cli.endings import ABSENT, FAILED, LATE, OK, REFUSED
from seqrpc.kernel.addresses import PathAddress, parse_address


@contextmanager
def answering(path: Path, *answers: Any) -> Iterator[PathAddress]:
    """Listen, and answer the calls of the first that connects."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(path))
        sock.listen()

        def work() -> None:
            connected, _address = sock.accept()
            with connected:
                for answer in answers:
                    _kind, number, _method, _params, *_options = msgpack.unpackb(connected.recv(65_536))
                    connected.send(msgpack.packb([1, number, *answer]))
                connected.recv(65_536)

        thread = Thread(work)
        yield PathAddress(str(path))
        thread.result()


def test_a_server_tells_what_it_is_and_how_many_are_connected(socket_path: Path) -> None:
    with served(socket_path, both()), seqrpc.blocking.connect(socket_path) as other:
        other.call("rpc.ping")
        sighting = ask(parse_address(str(socket_path)), 5)
    expected = Sighting(PathAddress(str(socket_path)), OK, "", os.getuid(), os.getpid(), ("Desk", "Other"), 1)
    assert sighting == expected
    assert sighting.answers


@pytest.mark.parametrize(
    "answers, expected",
    [
        ([[["rpc.MethodNotFound", "no", None], None]], (OK, "tells nothing of itself", None, None)),
        ([[["rpc.PermissionDenied", "no", None], None]], (REFUSED, "rpc.PermissionDenied: no", None, None)),
        ([[["x.Other", "\x1b", None], None]], (FAILED, "x.Other: \\x1b", None, None)),
        ([[None, 7], [["rpc.PermissionDenied", "no", None], None]], (OK, "", (), None)),
        ([[None, {"x-seqrpc": 7}], [None, 8]], (OK, "", (), None)),
        (
            [[None, {"x-seqrpc": {"services": [{"name": "A"}, 7, {"name": 8}]}}], [None, {"connections_open": True}]],
            (OK, "", ("A",), None),
        ),
        ([[None, {"x-seqrpc": {"services": 8}}], [None, {"connections_open": 3}]], (OK, "", (), 2)),
    ],
)
def test_whatever_is_answered_is_told(socket_path: Path, answers: Any, expected: Any) -> None:
    with answering(socket_path, *answers) as address:
        sighting = ask(address, 10)
    assert (sighting.status, sighting.remark, sighting.services, sighting.connections) == expected


def test_nobody_and_no_answer_are_told_apart(socket_path: Path) -> None:
    assert ask(PathAddress(str(socket_path)), 1).status == ABSENT
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(socket_path))
        sock.listen()
        sighting = ask(PathAddress(str(socket_path)), 0.05)
    assert (sighting.status, sighting.answers) == (LATE, False)


def test_silent_sockets_hold_up_nobody(socket_path: Path) -> None:
    """Those who never answer are asked beside the one who does, and not one after the other."""
    silent = [Path(f"{socket_path}.{number}") for number in range(AT_ONCE + 6)]
    with ExitStack() as opened:
        for path in silent:
            sock = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            sock.bind(str(path))
            sock.listen()
        opened.enter_context(served(socket_path, both()))
        began = time.monotonic()
        sightings = ask_all([PathAddress(str(path)) for path in [*silent, socket_path]], 0.5)
        took = time.monotonic() - began
    assert [sighting.status for sighting in sightings] == [LATE] * len(silent) + [OK]
    assert took < 0.5 * len(silent) / 2


def test_there_may_be_nobody_to_ask() -> None:
    assert ask_all([], 1) == []
