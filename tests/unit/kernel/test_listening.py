from __future__ import annotations

import contextlib
import errno
import grp
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from processes import AS_ROOT, OTHER_GID, OTHER_UID, fork_as_a_library_does, in_child, running_child, save_coverage

from seqrpc.errors import AddressError, AddressInUse
from seqrpc.kernel import listening as module
from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import AbstractAddress, FdAddress, PathAddress
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.listening import ListeningSocket, adopt_listening, listen
from seqrpc.kernel.platforms import PLATFORM

SEQPACKET = socket.SOCK_SEQPACKET

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root may become another user or give files away")


def listen_at(path: str | Path, **options: Any) -> ListeningSocket:
    return listen(PathAddress(os.fspath(path)), **options)


def serves(listening: ListeningSocket, path: str | Path) -> bool:
    """Whether a client at ``path`` reaches this very server."""
    with sockets.connect(PathAddress(os.fspath(path))) as client:
        client.send(b"hello")
        with listening.sock.accept()[0] as accepted:
            return accepted.recv(10) == b"hello"


def contents(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def foreign_server(
    path: Path, kind: socket.SocketKind = SEQPACKET, *, backlog: int | None = 5
) -> Iterator[socket.socket]:
    """A server that knows nothing of our locks."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(os.fspath(path))
        if backlog is not None and kind != socket.SOCK_DGRAM:
            sock.listen(backlog)
        yield sock


@contextlib.contextmanager
def meanwhile(function: str, act: Callable[[], object]) -> Iterator[list[str]]:
    """Do something right before the first call of the built-in ``function``, as another process might."""
    done: list[str] = []

    def watch(_frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and argument.__name__ == function and not done:
            done.append(function)
            sys.setprofile(None)
            act()

    sys.setprofile(watch)
    try:
        yield done
    finally:
        sys.setprofile(None)
    assert done == [function]


def same(before: os.stat_result, after: os.stat_result) -> bool:
    return [before.st_ino, before.st_mode, before.st_uid, before.st_gid, before.st_ctime_ns] == [
        after.st_ino,
        after.st_mode,
        after.st_uid,
        after.st_gid,
        after.st_ctime_ns,
    ]


# listening and closing


def test_it_listens_and_closing_leaves_nothing(socket_path: Path) -> None:
    listening = listen_at(socket_path)
    assert listening.address == PathAddress(os.fspath(socket_path))
    assert not listening.sock.getblocking()
    assert not listening.sock.get_inheritable()
    assert serves(listening, socket_path)
    assert contents(socket_path.parent) == ["test.sock", "test.sock.lock"]
    assert stat.S_IMODE(os.stat(f"{socket_path}.lock").st_mode) == 0o600
    listening.close()
    assert contents(socket_path.parent) == []
    listening.close()


def test_a_path_may_be_relative(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(socket_path.parent)
    for path in ("x", "./x", f"../{socket_path.parent.name}/x"):
        listening = listen_at(path)
        assert serves(listening, path)
        assert contents(socket_path.parent) == ["x", "x.lock"]
        listening.close()
        assert contents(socket_path.parent) == []


def test_a_server_may_change_its_directory_before_it_closes(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(socket_path.parent)
    listening = listen_at("x")
    monkeypatch.chdir("/")
    listening.close()
    assert contents(socket_path.parent) == []


@pytest.mark.parametrize("name_bytes", [107, 108, 250, 251, 255])
def test_a_name_may_be_as_long_as_the_file_system_allows(name_bytes: int, socket_path: Path) -> None:
    name = "n" * name_bytes
    path = socket_path.with_name(name)
    listening = listen_at(path, mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert serves(listening, path)
    assert len(contents(socket_path.parent)) == 2
    assert name in contents(socket_path.parent)
    with pytest.raises(AddressInUse):
        listen_at(path)
    listening.close()
    assert contents(socket_path.parent) == []


def test_a_path_may_have_thousands_of_bytes(socket_path: Path) -> None:
    directory = Path(socket_path.parent, *["d" * 200] * 15)
    directory.mkdir(parents=True)
    for name in ("x", "n" * 255):
        listening = listen_at(directory / name)
        assert serves(listening, directory / name)
        listening.close()
        assert contents(directory) == []


def test_a_long_name_whose_server_was_killed_is_replaced(socket_path: Path) -> None:
    path = socket_path.with_name("n" * 255)
    with running_child(lambda: listen_at(path)):
        pass
    listening = listen_at(path)
    assert serves(listening, path)
    listening.close()
    assert contents(socket_path.parent) == []


def test_a_name_too_long_for_the_file_system_is_an_error(socket_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        listen_at(socket_path.with_name("n" * 256))
    assert contents(socket_path.parent) == []


@pytest.mark.parametrize(
    "path, error", [("missing/x", FileNotFoundError), ("x/", IsADirectoryError), ("file/x", NotADirectoryError)]
)
def test_a_path_where_no_file_can_be_is_an_error(
    path: str, error: type[OSError], socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(socket_path.parent)
    Path("file").touch()
    Path("x").mkdir()
    with pytest.raises(error):
        listen_at(path)
    assert contents(socket_path.parent) == ["file", "x"]


def test_abstract_names() -> None:
    address = AbstractAddress(b"seqrpc-test-%d\0\xff" % os.getpid())
    listening = listen(address)
    with sockets.connect(address), listening.sock.accept()[0]:
        pass
    with pytest.raises(AddressInUse, match="is in use by another process") as caught:
        listen(address)
    assert caught.value.errno == errno.EADDRINUSE
    listening.close()
    listen(address).close()


def test_an_abstract_name_that_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError, match="too long"):
        listen(AbstractAddress(b"x" * 108))


def test_an_inherited_socket_must_listen_and_becomes_non_blocking(socket_path: Path) -> None:
    with foreign_server(socket_path) as server:
        listening = listen(FdAddress(os.dup(server.fileno())))
        assert not listening.sock.getblocking()
        assert serves(listening, socket_path)
        listening.close()
        assert socket_path.exists()
    with sockets.new_socket() as fresh, pytest.raises(AddressError, match=r"fd:\d+: a listening socket was expected"):
        listen(FdAddress(os.dup(fresh.fileno())))


@pytest.mark.parametrize("inherited", [False, True])
def test_descriptors_are_refused_where_they_are_not_wanted(
    inherited: bool, socket_path: Path, pipe: tuple[int, int]
) -> None:
    with contextlib.ExitStack() as stack:
        if inherited:
            server = stack.enter_context(foreign_server(socket_path))
            listening = listen(FdAddress(os.dup(server.fileno())), accept_descriptors=False)
        else:
            listening = listen_at(socket_path, accept_descriptors=False)
        stack.callback(listening.close)
        try:
            kept = listening.sock.getsockopt(socket.SOL_SOCKET, 83)
        except OSError:
            pytest.skip("this kernel has no SO_PASSRIGHTS (Linux 6.16)")
        assert kept == 0
        client = stack.enter_context(sockets.connect(PathAddress(os.fspath(socket_path))))
        stack.enter_context(listening.sock.accept()[0])
        with pytest.raises(PermissionError):
            socket.send_fds(client, [b"x"], [pipe[0]])


def test_a_backlog_no_kernel_takes_is_an_error_that_leaves_nothing(socket_path: Path) -> None:
    with pytest.raises(OverflowError):
        listen_at(socket_path, backlog=2**40)
    assert contents(socket_path.parent) == []


# mode and group


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_the_mode_is_as_asked_whatever_the_umask(mask: int, socket_path: Path) -> None:
    for mode in (0o600, 0o660, 0o666, 0o777, 0o200, 0o000):
        with umask(mask):
            listening = listen_at(socket_path, mode=mode)
        assert stat.S_IMODE(socket_path.stat().st_mode) == mode
        listening.close()
    with umask(mask):
        listening = listen_at(socket_path)
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    listening.close()


@pytest.mark.parametrize("mode", [0o1000, 0o4755, -1])
def test_a_mode_is_permission_bits(mode: int, socket_path: Path) -> None:
    with pytest.raises(AddressError, match="permission bits"):
        listen_at(socket_path, mode=mode)


@needs_root
def test_a_group_by_number_and_by_name(socket_path: Path) -> None:
    known = next(entry for entry in grp.getgrall() if entry.gr_gid != os.getegid())
    for group, gid in ((OTHER_GID, OTHER_GID), (known.gr_name, known.gr_gid), (os.getegid(), os.getegid())):
        listening = listen_at(socket_path, mode=0o660, group=group)
        status = socket_path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, gid)
        listening.close()


@pytest.mark.parametrize("group", ["no such group", -1, 0xFFFF_FFFF, 2**40])
def test_a_group_that_is_none_is_an_error(group: int | str, socket_path: Path) -> None:
    with pytest.raises(AddressError, match=f"group= .*{group}"):
        listen_at(socket_path, group=group)
    assert contents(socket_path.parent) == []


@needs_root
def test_a_group_that_the_server_is_not_in_is_an_error_that_leaves_nothing(socket_path: Path) -> None:
    socket_path.parent.chmod(0o777)

    def work() -> str:
        with pytest.raises(PermissionError) as caught:
            listen_at(socket_path, mode=0o660, group=0)
        return str(caught.value)

    assert os.strerror(errno.EPERM) in in_child(work, uid=OTHER_UID)
    assert contents(socket_path.parent) == []


@needs_root
def test_a_user_may_give_a_group_that_it_is_in(socket_path: Path) -> None:
    socket_path.parent.chmod(0o777)

    def work() -> tuple[int, int]:
        listening = listen_at(socket_path, mode=0o660, group=OTHER_GID)
        status = socket_path.stat()
        listening.close()
        return stat.S_IMODE(status.st_mode), status.st_gid

    assert in_child(work, uid=OTHER_UID, groups=[OTHER_GID]) == (0o660, OTHER_GID)
    assert contents(socket_path.parent) == []


@needs_root
def test_other_kernels_get_mode_and_group_too(monkeypatch: pytest.MonkeyPatch, socket_path: Path) -> None:
    """What a kernel without fchmod on sockets is given; all of these calls exist here as well."""
    monkeypatch.setattr(sys, "platform", "freebsd14")
    for mode in (0o600, 0o660, 0o777):
        with umask(0o027):
            listening = listen_at(socket_path, mode=mode, group=OTHER_GID)
            assert os.umask(0o027) == 0o027
        status = socket_path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (mode, OTHER_GID)
        listening.close()
    listen_at(socket_path).close()
    with pytest.raises(OSError, match="less than 108 bytes here"):
        listen_at(socket_path.with_name("n" * 200))
    assert contents(socket_path.parent) == []


def test_only_the_file_that_was_made_is_given_a_mode(socket_path: Path) -> None:
    """Whoever may write to the directory could put another file in its place at once."""
    victim = socket_path.with_name("victim")
    victim.touch(0o600)
    directory = os.open(socket_path.parent, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            module._identity(directory, "victim")
        with pytest.raises(FileExistsError):
            module._dress(directory, "victim", (0, 0), 0o666, None)
    finally:
        os.close(directory)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


# who has the path already


def refused(path: Path, reason: str) -> None:
    with pytest.raises(AddressInUse, match=reason) as caught:
        listen_at(path)
    assert caught.value.errno == errno.EADDRINUSE


def test_a_second_server_is_told(socket_path: Path) -> None:
    listening = listen_at(socket_path)
    before = socket_path.stat()
    refused(socket_path, "another process holds its lock")
    in_child(lambda: refused(socket_path, "another process holds its lock"))
    assert same(before, socket_path.stat())
    assert serves(listening, socket_path)
    listening.close()


def test_another_way_to_the_same_directory_is_the_same_path(socket_path: Path) -> None:
    link = socket_path.with_name("link")
    link.symlink_to(".")
    listening = listen_at(socket_path)
    refused(link / socket_path.name, "another process holds its lock")
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
        with pytest.raises(PermissionError) as caught:
            listen_at(socket_path)
        return str(caught.value.filename)

    assert in_child(work, uid=OTHER_UID) == "test.sock.lock"


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


# what others do meanwhile


def test_a_lock_that_is_removed_while_it_is_taken_is_taken_anew(socket_path: Path) -> None:
    """The former server's last deed: it removes its lock between our opening and our locking it."""
    with meanwhile("flock", lambda: os.unlink(f"{socket_path}.lock")):
        listening = listen_at(socket_path)
    assert contents(socket_path.parent) == ["test.sock", "test.sock.lock"]
    refused(socket_path, "another process holds its lock")
    listening.close()


def test_an_interrupt_while_the_lock_is_taken_leaves_nothing_open(socket_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), meanwhile("flock", interrupt):
        listen_at(socket_path)


def test_a_stale_socket_that_goes_by_itself_is_no_trouble(socket_path: Path) -> None:
    with foreign_server(socket_path):
        pass
    with meanwhile("connect", socket_path.unlink):
        listening = listen_at(socket_path)
    assert serves(listening, socket_path)
    listening.close()


def test_a_stale_socket_that_becomes_another_is_left_alone(socket_path: Path) -> None:
    with foreign_server(socket_path):
        pass

    def replace() -> None:
        with foreign_server(socket_path.with_name("other")):
            os.replace(socket_path.with_name("other"), socket_path)

    with meanwhile("connect", replace):
        refused(socket_path, "another process made it meanwhile")
    assert contents(socket_path.parent) == ["test.sock"]


def test_a_server_that_takes_the_path_at_the_last_moment_is_left_alone(socket_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with meanwhile("bind", lambda: stack.enter_context(foreign_server(socket_path))):
            refused(socket_path, "another process made it meanwhile")
        with sockets.connect(PathAddress(os.fspath(socket_path))):
            pass
        assert contents(socket_path.parent) == ["test.sock"]


def test_a_server_that_takes_a_long_name_at_the_last_moment_is_left_alone(socket_path: Path) -> None:
    path = socket_path.with_name("n" * 255)
    with meanwhile("link", path.touch):
        refused(path, "another process made it meanwhile")
    assert contents(socket_path.parent) == [path.name]


def test_closing_leaves_a_successor_s_file_alone(socket_path: Path) -> None:
    listening = listen_at(socket_path)
    socket_path.unlink()
    with foreign_server(socket_path):
        before = socket_path.stat()
        listening.close()
        assert same(before, socket_path.stat())
        assert contents(socket_path.parent) == ["test.sock"]


def test_closing_leaves_a_successor_s_lock_alone(socket_path: Path) -> None:
    first = listen_at(socket_path)
    socket_path.unlink()
    os.unlink(f"{socket_path}.lock")
    second = listen_at(socket_path)
    first.close()
    assert contents(socket_path.parent) == ["test.sock", "test.sock.lock"]
    assert serves(second, socket_path)
    refused(socket_path, "another process holds its lock")
    second.close()


def test_closing_after_everything_was_removed_is_no_trouble(socket_path: Path) -> None:
    directory = socket_path.with_name("directory")
    directory.mkdir()
    listening = listen_at(directory / "x")
    for name in contents(directory):
        os.unlink(directory / name)
    directory.rmdir()
    listening.close()


def test_a_file_that_goes_while_it_is_removed_does_not_keep_the_lock(socket_path: Path) -> None:
    listening = listen_at(socket_path)
    with meanwhile("unlink", socket_path.unlink):
        listening.close()
    assert contents(socket_path.parent) == []


def test_a_forked_child_removes_nothing(socket_path: Path) -> None:
    listening = listen_at(socket_path)
    in_child(listening.close)
    assert contents(socket_path.parent) == ["test.sock", "test.sock.lock"]
    assert serves(listening, socket_path)
    refused(socket_path, "another process holds its lock")
    listening.close()
    assert contents(socket_path.parent) == []


def test_a_forked_child_that_lives_on_does_not_keep_the_path(socket_path: Path) -> None:
    listening = listen_at(socket_path)
    with running_child(lambda: None):
        listening.close()
        again = listen_at(socket_path)
        assert serves(again, socket_path)
        again.close()


def test_a_directory_without_its_own_name_in_the_path(socket_path: Path) -> None:
    with OwnedFd(os.open(socket_path.parent, os.O_RDONLY)) as directory:
        path = f"/proc/self/fd/{directory.fileno()}/x"
        listening = listen_at(path)
        assert serves(listening, path)
        listening.close()
    assert contents(socket_path.parent) == []


@pytest.mark.parametrize("adopted", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_what_is_accepted_tells_senders_if_that_is_asked_for(adopted: bool, asked: bool, socket_path: Path) -> None:
    address = PathAddress(os.fspath(socket_path))
    if adopted:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.bind(os.fspath(socket_path))
        sock.listen()
        listening = adopt_listening(sock, address, accept_descriptors=True, pass_credentials=asked)
    else:
        listening = listen(address, pass_credentials=asked)
    with contextlib.closing(listening), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(os.fspath(socket_path))
        with listening.sock.accept()[0] as accepted:
            assert PLATFORM.asks_for_senders(accepted) is asked


def test_a_forked_child_has_neither_the_socket_nor_the_lock(socket_path: Path) -> None:
    listening = listen_at(socket_path)
    inode = os.stat(f"{socket_path}.lock").st_ino

    def look() -> tuple[int, list[str]]:
        held = [os.fstat(int(name)).st_ino for name in os.listdir("/proc/self/fd") if is_number_open(int(name))]
        return listening.sock.fileno(), [name for name in ("lock",) if inode in held]

    assert in_child(look) == (-1, [])
    assert serves(listening, socket_path)
    with running_child(lambda: None):  # nor does it when the parent dies without a word
        os.close(listening.sock.detach())
        assert listening._claim is not None
        listening._claim.forked()
        again = listen_at(socket_path)
        assert serves(again, socket_path)
        again.close()


def is_number_open(number: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def test_a_child_that_a_library_made_removes_nothing(socket_path: Path) -> None:
    """One that was made without os.fork hears of nothing, and closes the copies that it has."""
    listening = listen_at(socket_path)
    pid = fork_as_a_library_does()
    if pid == 0:
        try:
            listening.close()
            save_coverage()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert contents(socket_path.parent) == ["test.sock", "test.sock.lock"]
    assert serves(listening, socket_path)
    listening.close()
