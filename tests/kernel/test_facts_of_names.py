"""What Linux does with the names of sockets: binding, connecting, files, locks; none of our code."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import AS_ROOT, OTHER_UID, in_child, running_child

SEQPACKET = socket.SOCK_SEQPACKET

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root may become another user")


def new_socket(kind: socket.SocketKind = SEQPACKET) -> socket.socket:
    return socket.socket(socket.AF_UNIX, kind)


@contextlib.contextmanager
def listener_at(name: str | Path, kind: socket.SocketKind = SEQPACKET, backlog: int = 5) -> Iterator[socket.socket]:
    with new_socket(kind) as sock:
        sock.bind(os.fspath(name))
        if kind != socket.SOCK_DGRAM:
            sock.listen(backlog)
        yield sock


def connect_fails(path: str | Path) -> int:
    with new_socket() as sock:
        return sock.connect_ex(os.fspath(path))


# connecting


def test_a_full_backlog_refuses_at_once_and_nothing_is_in_progress(socket_path: Path) -> None:
    """What waits for the socket to be writable, as for TCP, is told at once that it is."""
    with listener_at(socket_path, backlog=0), new_socket() as first, new_socket() as second:
        first.connect(os.fspath(socket_path))
        second.setblocking(False)
        with pytest.raises(BlockingIOError) as caught:
            second.connect(os.fspath(socket_path))
        assert caught.value.errno == errno.EAGAIN
        poll = select.poll()
        poll.register(second, select.POLLOUT)
        ((_fd, events),) = poll.poll(0)
        assert events & select.POLLOUT
        assert second.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            second.getpeername()


def test_a_backlog_of_n_holds_n_and_one(socket_path: Path) -> None:
    with listener_at(socket_path, backlog=2), contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(new_socket())
            sock.setblocking(False)
            sock.connect(os.fspath(socket_path))
        last = stack.enter_context(new_socket())
        last.setblocking(False)
        with pytest.raises(BlockingIOError):
            last.connect(os.fspath(socket_path))


def test_connecting_succeeds_before_anyone_accepts(socket_path: Path) -> None:
    with listener_at(socket_path) as listener, new_socket() as client:
        client.connect(os.fspath(socket_path))
        client.send(b"early")
        with listener.accept()[0] as accepted:
            assert accepted.recv(10) == b"early"


def test_a_listener_that_closes_ends_those_it_never_accepted(socket_path: Path) -> None:
    with new_socket() as client:
        with listener_at(socket_path):
            client.connect(os.fspath(socket_path))
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(10) == b""
        assert client.recv(10) == b""


def test_the_file_of_a_dead_socket_stays_and_refuses(socket_path: Path) -> None:
    with listener_at(socket_path):
        pass
    assert socket_path.is_socket()
    assert connect_fails(socket_path) == errno.ECONNREFUSED


def test_a_bound_socket_that_does_not_listen_refuses_like_a_dead_one(socket_path: Path) -> None:
    with new_socket() as sock:
        sock.bind(os.fspath(socket_path))
        assert connect_fails(socket_path) == errno.ECONNREFUSED


def test_what_is_no_socket_refuses_like_a_dead_one(socket_path: Path) -> None:
    socket_path.touch()
    assert connect_fails(socket_path) == errno.ECONNREFUSED


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_live_socket_of_another_type_has_an_error_of_its_own(kind: socket.SocketKind, socket_path: Path) -> None:
    with listener_at(socket_path, kind):
        assert connect_fails(socket_path) == errno.EPROTOTYPE
    assert connect_fails(socket_path) == errno.ECONNREFUSED


def test_a_socket_of_another_type_that_does_not_listen_yet_shows_its_type(socket_path: Path) -> None:
    with new_socket(socket.SOCK_STREAM) as sock:
        sock.bind(os.fspath(socket_path))
        assert connect_fails(socket_path) == errno.EPROTOTYPE


@needs_root
def test_connecting_needs_write_permission_on_the_file(socket_path: Path) -> None:
    socket_path.parent.chmod(0o755)
    with listener_at(socket_path):
        socket_path.chmod(0o455)
        assert in_child(lambda: connect_fails(socket_path), uid=OTHER_UID) == errno.EACCES
        socket_path.chmod(0o002)
        in_child(lambda: new_socket().connect(os.fspath(socket_path)), uid=OTHER_UID)


def test_so_acceptconn_tells_a_listener(socket_path: Path) -> None:
    with new_socket() as sock:
        sock.bind(os.fspath(socket_path))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0
        sock.listen()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


# long names


def test_a_name_has_107_bytes_and_a_nul_or_108_without(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(socket_path.parent)
    with listener_at("n" * 107):
        pass
    with pytest.raises(OSError, match="too long"), listener_at("n" * 109):
        pass


def test_a_long_name_is_bound_and_reached_through_its_directory_s_descriptor(socket_path: Path) -> None:
    directory = os.open(socket_path.parent, os.O_PATH | os.O_DIRECTORY)
    through = f"/proc/self/fd/{directory}/x"
    with listener_at(through) as listener:
        assert socket_path.with_name("x").is_socket()
        assert listener.getsockname() == through  # which means nothing to anybody else
        with new_socket() as client:
            client.connect(through)
    os.close(directory)


def test_a_socket_file_is_reached_through_an_o_path_descriptor_of_itself(socket_path: Path) -> None:
    with listener_at(socket_path):
        file = os.open(socket_path, os.O_PATH)
        with new_socket() as client:
            client.connect(f"/proc/self/fd/{file}")
        os.close(file)


def test_opening_a_socket_file_without_o_path_is_an_error(socket_path: Path) -> None:
    with listener_at(socket_path), pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        os.open(socket_path, os.O_RDONLY)


def test_a_socket_is_reached_by_a_hard_link_after_its_first_name_is_gone(socket_path: Path) -> None:
    other = socket_path.with_name("other")
    with listener_at(socket_path), new_socket() as client:
        os.link(socket_path, other)
        socket_path.unlink()
        client.connect(os.fspath(other))


def test_linking_never_replaces(socket_path: Path) -> None:
    other = socket_path.with_name("other")
    other.touch()
    with listener_at(socket_path), pytest.raises(FileExistsError):
        os.link(socket_path, other)


# files


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_mode_of_the_socket_s_own_inode_less_the_umask_is_the_file_s(mask: int, socket_path: Path) -> None:
    before = os.umask(mask)
    try:
        for mode in (0o600, 0o660, 0o777):
            with new_socket() as sock:
                os.fchmod(sock.fileno(), mode)
                sock.bind(os.fspath(socket_path))
            assert stat.S_IMODE(socket_path.stat().st_mode) == mode & ~mask
            socket_path.unlink()
    finally:
        os.umask(before)


def test_fchmod_after_bind_does_not_reach_the_file(socket_path: Path) -> None:
    with new_socket() as sock:
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(os.fspath(socket_path))
        os.fchmod(sock.fileno(), 0o666)
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["file", "directory", "dangling link", "dead socket"])
def test_binding_never_replaces_or_follows(kind: str, socket_path: Path) -> None:
    if kind == "file":
        socket_path.touch()
    elif kind == "directory":
        socket_path.mkdir()
    elif kind == "dangling link":
        socket_path.symlink_to(socket_path.with_name("target"))
    else:
        with listener_at(socket_path):
            pass
    with new_socket() as sock, pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        sock.bind(os.fspath(socket_path))
    assert os.listdir(socket_path.parent) == [socket_path.name]


def test_while_a_socket_is_open_no_other_file_gets_the_number_of_its_inode(socket_path: Path) -> None:
    """So device and inode tell one's own file from a successor's, also after one's own was removed."""
    with listener_at(socket_path):
        number = socket_path.stat().st_ino
        socket_path.unlink()
        others = [socket_path.with_name(str(index)) for index in range(50)]
        for other in others:
            other.touch()
        assert number not in [other.stat().st_ino for other in others]


def test_a_mode_and_a_group_are_given_through_an_o_path_descriptor(socket_path: Path) -> None:
    with listener_at(socket_path):
        file = os.open(socket_path, os.O_PATH | os.O_NOFOLLOW)
        os.chmod(f"/proc/self/fd/{file}", 0o640)
        os.chown(f"/proc/self/fd/{file}", -1, os.getegid())
        assert stat.S_IMODE(os.fstat(file).st_mode) == 0o640
        os.close(file)


def test_an_abstract_name_is_free_again_as_soon_as_its_socket_is_closed() -> None:
    name = f"\0seqrpc-test-{os.getpid()}"
    for _ in range(2):
        in_use = pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE))
        with listener_at(name), new_socket() as second, in_use:
            second.bind(name)


# locks


def lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise
    return fd


def test_a_lock_belongs_to_the_open_file_so_one_process_cannot_have_it_twice(socket_path: Path) -> None:
    fd = lock(socket_path)
    with pytest.raises(BlockingIOError):
        lock(socket_path)
    os.close(fd)
    os.close(lock(socket_path))


def test_a_lock_goes_with_its_process(socket_path: Path) -> None:
    with running_child(lambda: lock(socket_path)) as pid:
        with pytest.raises(BlockingIOError):
            lock(socket_path)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(lock(socket_path))


def test_a_forked_child_shares_the_lock(socket_path: Path) -> None:
    fd = lock(socket_path)
    in_child(lambda: os.close(fd))
    with pytest.raises(BlockingIOError):
        lock(socket_path)
    with running_child(lambda: None):
        os.close(fd)
        with pytest.raises(BlockingIOError):
            lock(socket_path)
    os.close(lock(socket_path))


def test_removing_the_file_does_not_let_the_lock_go_but_makes_it_worthless(socket_path: Path) -> None:
    first = os.open(socket_path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    waiting = os.open(socket_path, os.O_RDWR)
    socket_path.unlink()
    with pytest.raises(BlockingIOError):
        fcntl.flock(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
    second = lock(socket_path)
    assert os.fstat(second).st_ino != os.fstat(waiting).st_ino
    for fd in (first, waiting, second):
        os.close(fd)
