"""What others do meanwhile."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support.listening import contents, foreign_server, listen_at, refused, same, serves
from support.processes import fork_as_a_library_does, in_child, running_child, save_coverage

from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import PathAddress


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


def test_a_lock_that_is_removed_while_it_is_taken_is_taken_anew(socket_path: Path) -> None:
    """The former server's last deed: it removes its lock between our opening and our locking it."""
    with meanwhile("flock", lambda: os.unlink(f"{socket_path}.lock")):
        listening = listen_at(socket_path)
    assert contents(socket_path.parent) == ["test.sock", "test.sock.lock"]
    refused(socket_path, "this process serves it")
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
    refused(socket_path, "this process serves it")
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
    refused(socket_path, "this process serves it")
    listening.close()
    assert contents(socket_path.parent) == []


def test_a_forked_child_that_lives_on_does_not_keep_the_path(socket_path: Path) -> None:
    listening = listen_at(socket_path)
    with running_child(lambda: None):
        listening.close()
        again = listen_at(socket_path)
        assert serves(again, socket_path)
        again.close()


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
