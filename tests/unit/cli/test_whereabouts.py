"""Where the file of a socket is."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.processes import AS_ROOT

from seqrpc.cli.whereabouts import Bound, Whereabouts, files_of_listeners, found_in, located, owners_of

LISTEN = """
import os, socket, sys
directory, path, then = sys.argv[1:]
os.chdir(directory)
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
    sock.bind(path)
    sock.listen()
    exec(then)
    print(os.fstat(sock.fileno()).st_ino, flush=True)
    sys.stdin.read()
"""


@contextmanager
def listening(directory: Path, path: str, then: str = "") -> Iterator[tuple[Bound, int]]:
    """Have another process listen at a path relative to a directory; yield its socket, and its number."""
    argv = [sys.executable, "-c", LISTEN, str(directory), path, then]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line
        yield Bound(int(line), path), process.pid
        assert process.stdin is not None
        process.stdin.close()


def found(bound: Bound) -> Whereabouts:
    files = files_of_listeners()
    assert bound.inode in files
    (place,) = located([bound], files)
    assert located([bound], {})[0].remark == place.remark
    return place


def test_an_absolute_path_is_where_it_says(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with listening(tmp_path, path) as (bound, _pid):
        assert found(bound) == Whereabouts(path)


def test_a_relative_path_begins_where_its_process_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with listening(tmp_path, "a/../sock") as (bound, _pid):
        assert found(bound) == Whereabouts(str(tmp_path / "sock"))


def test_a_relative_path_may_begin_where_this_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(tmp_path, "sock", "os.chdir('/')") as (bound, _pid):
        assert found(bound) == Whereabouts(
            "sock", "bound to a relative path: nobody tells where it begins, or its file is gone"
        )
        monkeypatch.chdir(tmp_path)
        assert found(bound) == Whereabouts(str(tmp_path / "sock"))


def test_another_socket_of_that_name_is_not_taken_for_it(tmp_path: Path) -> None:
    with (
        listening(tmp_path, "sock", f"os.rename('sock', 'old'); os.mkdir({str(tmp_path / 'b')!r})") as (bound, _pid),
        listening(tmp_path, "sock") as (other, _other_pid),
    ):
        assert bound.inode != other.inode
        files = files_of_listeners()
        assert located([bound], files)[0].remark
        assert located([other], files) == [Whereabouts(str(tmp_path / "sock"))]


def test_a_file_that_is_gone_or_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with listening(tmp_path, path, f"os.unlink({path!r})") as (bound, _pid):
        assert found(bound).remark.startswith("its file is gone")
        with listening(tmp_path, path) as (other, _other_pid):
            files = files_of_listeners()
            assert located([bound, other], files) == [Whereabouts(path), Whereabouts(path)]  # asked once, and answered


@pytest.mark.skipif(not AS_ROOT, reason="only root can make a mount namespace")
def test_a_path_of_another_mount_namespace_leads_through_its_process(tmp_path: Path) -> None:
    unshare = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.unshare(0x20000) == 0, ctypes.get_errno()\n"  # CLONE_NEWNS
        "assert libc.mount(b'none', b'/', None, 0x44000, None) == 0\n"  # MS_REC | MS_PRIVATE
        f"assert libc.mount(b'none', {str(tmp_path).encode()!r}, b'tmpfs', 0, None) == 0\n"
        "sock.close()\n"
        "sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"sock.bind({str(tmp_path / 'inner')!r})\n"
        "sock.listen()\n"
    )
    with listening(tmp_path, str(tmp_path / "outer"), unshare) as (outer, pid):
        path = str(tmp_path / "inner")
        assert not os.path.exists(path)
        bound = Bound(outer.inode, path)
        assert found(bound) == Whereabouts(f"/proc/{pid}/root{path}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(found(bound).path)


def test_where_this_user_may_not_look_is_left_to_who_asks(tmp_path: Path) -> None:
    if not AS_ROOT:
        pytest.skip("only root can become another user")
    path = str(tmp_path / "sock")
    tmp_path.chmod(0o700)
    with listening(tmp_path, path) as (bound, _pid):
        script = (
            "import os, sys; from seqrpc.cli.whereabouts import Bound, located, owners_of; os.setresuid(*[54321] * 3);"
            f"bound = Bound({bound.inode}, {path!r});"
            "print(located([bound], {})[0], owners_of({bound.inode}))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{Whereabouts(path)} {{}}\n"


def test_the_process_of_a_socket_is_found(tmp_path: Path) -> None:
    with listening(tmp_path, "sock") as (bound, pid):
        assert owners_of({bound.inode}) == {bound.inode: [pid]}


def test_what_the_kernel_answers_is_read_as_far_as_it_is_that() -> None:
    def message(kind: int, attributes: bytes = b"") -> bytes:
        content = struct.pack("=BBBBIII", 1, 5, 10, 0, 99, 0, 0) + attributes if kind == 20 else b"\0\0\0\0"
        return struct.pack("=IHHII", 16 + len(content), kind, 0, 1, 0) + content

    name = struct.pack("=HH", 7, 0) + b"ab\0\0"
    files: dict[int, int] = {}
    assert found_in(message(20, name + struct.pack("=HHII", 12, 1, 42, 7)), files)
    assert files == {99: 42}
    assert found_in(message(20, struct.pack("=HH", 0, 3)), files)
    for end in (message(2), message(3), struct.pack("=IHHII", 0, 20, 0, 0, 0)):
        assert not found_in(end, files)
    with pytest.raises(struct.error):
        found_in(b"x", files)


def test_without_such_a_kernel_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_NETLINK")
    assert files_of_listeners() == {}
