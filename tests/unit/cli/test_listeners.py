"""The sockets that somebody listens at."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from seqrpc.cli.listeners import here, listeners, named
from seqrpc.errors import AddressError
from seqrpc.kernel.addresses import AbstractAddress, PathAddress

HEAD = b"Num       RefCount Protocol Flags    Type St Inode Path\n"


def line(name: bytes, *, flags: str = "00010000", kind: str = "0005") -> bytes:
    return f"0000000000000000: 00000002 00000000 {flags} {kind} 01 12345 ".encode() + name + b"\n"


def test_only_seqpacket_sockets_that_listen_are_found_once_each() -> None:
    table = HEAD + b"".join(
        [
            line(b"/run/a b.sock"),
            line(b"/run/a b.sock"),
            line(b"@name"),
            line(b"@" + b"x" * 108),
            line(b"@"),
            line(b"/run/stream.sock", kind="0001"),
            line(b"/run/connected.sock", flags="00000000"),
            line(b"relative.sock"),
            line(b"/proc/self/fd/5/x.sock"),
            line(b"/run/\xff.sock"),
            b"0000000000000000: 00000002 00000000 00010000 0005 01 12345\n",
            line(b"/run/line\nbreak"),
        ]
    )
    assert listeners(table) == [
        PathAddress("/run/a b.sock"),
        AbstractAddress(b"name"),
        PathAddress("/run/\udcff.sock"),
        PathAddress("/run/line"),
    ]


def test_what_listens_here_is_found(socket_path: Path) -> None:
    name = f"seqrpc-test-{os.getpid()}"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream,
    ):
        for sock, address in ((one, str(socket_path)), (other, f"\0{name}"), (stream, f"{socket_path}.stream")):
            sock.bind(address)
            sock.listen()
        found = here()
        assert {PathAddress(str(socket_path)), AbstractAddress(name.encode())} <= set(found)
        assert PathAddress(f"{socket_path}.stream") not in found


def test_a_directory_stands_for_the_sockets_in_it(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(socket_path))
        (socket_path.parent / "file").touch()
        directory = str(socket_path.parent)
        assert named([directory, "@x", str(socket_path), "/nothing"]) == [
            PathAddress(str(socket_path)),
            AbstractAddress(b"x"),
            PathAddress("/nothing"),
        ]


@pytest.mark.parametrize("text", ["fd:3", "systemd:x", ""])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        named([text])
