"""Who has the path already."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
from pathlib import Path

import pytest
from support.listening import SEQPACKET, contents, foreign_server, listen_at, needs_root, refused, same, serves
from support.processes import OTHER_UID, in_child, running_child

from seqrpc.errors import ListenError
from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import PathAddress


def test_a_second_server_is_told(socket_path: Path) -> None:
    listening = listen_at(socket_path)
    before = socket_path.stat()
    refused(socket_path, "this process serves it")
    in_child(lambda: refused(socket_path, "another process holds its lock"))
    assert same(before, socket_path.stat())
    assert serves(listening, socket_path)
    listening.close()


def test_another_way_to_the_same_directory_is_the_same_path(socket_path: Path) -> None:
    link = socket_path.with_name("link")
    link.symlink_to(".")
    listening = listen_at(socket_path)
    refused(link / socket_path.name, "this process serves it")
    listening.close()


@pytest.mark.parametrize("kind", [SEQPACKET, socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("name", ["test.sock", "n" * 200])
def test_a_live_socket_of_any_type_is_left_alone(kind: socket.SocketKind, name: str, socket_path: Path) -> None:
    path = socket_path.with_name(name)
    with foreign_server(socket_path, kind):
        socket_path.rename(path)
        before = path.stat()
        refused(path, "is in use")
        assert same(before, path.stat())
        assert contents(socket_path.parent) == [name]


def test_a_live_stream_socket_that_does_not_listen_yet_is_left_alone(socket_path: Path) -> None:
    with foreign_server(socket_path, socket.SOCK_STREAM, backlog=None):
        refused(socket_path, "is in use")
        assert socket_path.exists()


def test_a_live_socket_with_a_full_backlog_is_left_alone(socket_path: Path) -> None:
    with foreign_server(socket_path, backlog=0) as server, sockets.connect(PathAddress(os.fspath(socket_path))):
        before = socket_path.stat()
        refused(socket_path, "is in use: Resource temporarily unavailable")
        assert same(before, socket_path.stat())
        server.accept()[0].close()


@needs_root
def test_a_live_socket_of_another_user_is_left_alone(socket_path: Path) -> None:
    socket_path.parent.chmod(0o777)
    with foreign_server(socket_path):
        socket_path.chmod(0o600)
        before = socket_path.stat()
        in_child(lambda: refused(socket_path, "is in use: Permission denied"), uid=OTHER_UID)
        assert same(before, socket_path.stat())
        assert contents(socket_path.parent) == ["test.sock"]


@needs_root
def test_a_live_server_of_another_user_is_left_alone(socket_path: Path) -> None:
    socket_path.parent.chmod(0o777)
    listening = listen_at(socket_path)
    in_child(lambda: refused(socket_path, "the lock beside it belongs to another user"), uid=OTHER_UID)
    assert serves(listening, socket_path)
    listening.close()
    assert contents(socket_path.parent) == []


@needs_root
def test_a_directory_that_may_not_be_written_to_is_an_error(socket_path: Path) -> None:
    socket_path.parent.chmod(0o755)

    def work() -> str:
        with pytest.raises(ListenError, match="permission denied: this user may not make files in '") as caught:
            listen_at(socket_path)
        return str(caught.value.errno)

    assert in_child(work, uid=OTHER_UID) == str(errno.EACCES)


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling link", "link to a live socket", "fifo"])
def test_what_is_no_socket_is_left_alone(kind: str, socket_path: Path) -> None:
    target = socket_path.with_name("target")
    with contextlib.ExitStack() as stack:
        if kind == "file":
            socket_path.write_text("content")
        elif kind == "directory":
            socket_path.mkdir()
        elif kind == "link":
            target.touch()
            socket_path.symlink_to(target)
        elif kind == "dangling link":
            socket_path.symlink_to(target)
        elif kind == "link to a live socket":
            stack.enter_context(foreign_server(target))
            socket_path.symlink_to(target)
        else:
            os.mkfifo(socket_path)
        before = socket_path.lstat()
        refused(socket_path, "exists and is no socket; it was left alone")
        assert same(before, socket_path.lstat())
        assert f"{socket_path.name}.lock" not in contents(socket_path.parent)


def test_a_link_to_a_dead_socket_is_left_alone(socket_path: Path) -> None:
    target = socket_path.with_name("target")
    with foreign_server(target):
        pass
    socket_path.symlink_to(target)
    refused(socket_path, "is no socket")
    assert contents(socket_path.parent) == ["target", "test.sock"]


@pytest.mark.parametrize("kind", [SEQPACKET, socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("name", ["test.sock", "n" * 200])
def test_a_stale_socket_of_any_type_is_replaced(kind: socket.SocketKind, name: str, socket_path: Path) -> None:
    path = socket_path.with_name(name)
    with foreign_server(socket_path, kind):
        socket_path.rename(path)
    listening = listen_at(path)
    assert serves(listening, path)
    listening.close()
    assert contents(socket_path.parent) == []


def test_a_server_that_was_killed_is_replaced(socket_path: Path) -> None:
    with running_child(lambda: listen_at(socket_path, mode=0o666)) as pid:
        refused(socket_path, "another process holds its lock")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert contents(socket_path.parent) == ["test.sock", "test.sock.lock"]
        listening = listen_at(socket_path)
    assert serves(listening, socket_path)
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    listening.close()
    assert contents(socket_path.parent) == []


def test_a_lock_that_is_a_link_is_not_followed(socket_path: Path) -> None:
    target = socket_path.with_name("target")
    os.symlink(target, f"{socket_path}.lock")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        listen_at(socket_path)
    assert not target.exists()
