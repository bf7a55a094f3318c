"""The sockets that somebody listens at."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from seqrpc.cli.listeners import Listener, _is_socket, here, listeners, named
from seqrpc.cli.places import Elsewhere
from seqrpc.cli.whereabouts import Bound
from seqrpc.errors import AddressError
from seqrpc.kernel.addresses import AbstractAddress, PathAddress

HEAD = b"Num       RefCount Protocol Flags    Type St Inode Path\n"


def line(name: bytes, inode: int = 12345, *, flags: str = "00010000", kind: str = "0005") -> bytes:
    return f"0000000000000000: 00000002 00000000 {flags} {kind} 01 {inode} ".encode() + name + b"\n"


def test_only_seqpacket_sockets_that_listen_are_found_once_each() -> None:
    table = HEAD + b"".join(
        [
            line(b"/run/a b.sock", 1),
            line(b"/run/a b.sock", 2),
            line(b"@name"),
            line(b"@name"),
            line(b"@" + b"x" * 108),
            line(b"@"),
            line(b"/run/stream.sock", kind="0001"),
            line(b"/run/connected.sock", flags="00000000"),
            line(b"relative.sock", 3),
            line(b"/run/\xff.sock", 4),
            b"0000000000000000: 00000002 00000000 00010000 0005 01 12345\n",
            line(b"/run/line\nbreak", 5),
        ]
    )
    expected = [
        Bound(1, "/run/a b.sock"),
        AbstractAddress(b"name"),
        Bound(3, "relative.sock"),
        Bound(4, "/run/\udcff.sock"),
        Bound(5, "/run/line"),
    ]
    assert listeners(table) == expected
    assert listeners(table, {1, 2}) == [expected[0], Bound(2, "/run/a b.sock"), *expected[1:]]


def test_a_path_that_begins_with_an_at_sign_is_a_path_where_the_kernel_says_so() -> None:
    assert listeners(HEAD + line(b"@file", 7)) == [AbstractAddress(b"file")]
    assert listeners(HEAD + line(b"@file", 7), {7}) == [Bound(7, "@file")]


def test_what_listens_here_is_found(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"seqrpc-test-{os.getpid()}"
    monkeypatch.chdir(socket_path.parent)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as relative,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream,
    ):
        for sock, address in (
            (one, str(socket_path)),
            (other, f"\0{name}"),
            (relative, "@relative"),
            (stream, f"{socket_path}.stream"),
        ):
            sock.bind(address)
            sock.listen()
        expected = {
            Listener(PathAddress(str(socket_path))),
            Listener(AbstractAddress(name.encode())),
            Listener(PathAddress(str(socket_path.parent / "@relative"))),
        }
        found = here()
        assert expected <= {*found}
        assert f"{socket_path}.stream" not in [str(each.address) for each in found]
        socket_path.unlink()
        (gone,) = [each for each in here() if str(each.address) == str(socket_path)]
        assert gone.remark.startswith("its file is gone")


def test_a_directory_stands_for_the_sockets_in_it(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(socket_path))
        (socket_path.parent / "file").touch()
        directory = str(socket_path.parent)
        assert named([directory, "@x", "/nothing"]) == [
            Listener(PathAddress(str(socket_path))),
            Listener(AbstractAddress(b"x"), is_named=True),
            Listener(PathAddress("/nothing"), is_named=True),
        ]
        assert named([directory, str(socket_path)]) == [Listener(PathAddress(str(socket_path)), is_named=True)]


@pytest.mark.parametrize("text", ["fd:3", "systemd:x", ""])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        named([text])


def test_a_socket_of_another_machine_is_named_as_it_is() -> None:
    (found,) = named(["ssh://host/run/x.sock"])
    assert found == Listener(Elsewhere("host", None, "/run/x.sock"), is_named=True)


def test_what_goes_while_a_directory_is_looked_at_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "gone"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(path))
        with os.scandir(tmp_path) as entries:
            (entry,) = entries
            path.unlink()
            assert not _is_socket(entry)
