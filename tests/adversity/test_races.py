"""Servers that race for one path, are killed at any moment, and are watched all the while.

Every process here runs for the whole of its test; they meet in a page of shared memory, so that they
start within microseconds of one another.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import random
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import AS_ROOT, OTHER_GID, fork

from seqrpc.errors import AddressInUse
from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import PathAddress
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.listening import ListeningSocket, listen
from seqrpc.kernel.platforms import PLATFORM

DEADLINE = 60.0

# Bytes of the shared page. Each has one writer at a time.
READY = (0, 1)
ROUND, SERVING, STOP, SEEN = 2, 3, 4, 5


@pytest.fixture
def page() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, mmap.PAGESIZE) as shared:
        yield shared


def spin_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        os.sched_yield()
        assert time.monotonic() < deadline, "another process of this test is stuck"


def wait_for_a_look(page: mmap.mmap) -> None:
    """Wait until the watcher has begun and ended one look more."""
    for _ in range(2):
        before = page[SEEN]
        spin_until(lambda before=before: page[SEEN] != before)  # type: ignore[misc]


class Worker:
    """A forked process with a line to it; what its work returns or raises comes over that line."""

    def __init__(self, work: Callable[[socket.socket], Any]) -> None:
        self.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.settimeout(DEADLINE)
        self.pid = fork()
        if self.pid == 0:
            try:
                self.line.close()
                theirs.settimeout(DEADLINE)
                theirs.send(pickle.dumps(work(theirs)))
            except BaseException as exc:
                theirs.send(pickle.dumps(repr(exc)))
            finally:
                os._exit(0)
        theirs.close()

    def tell(self, word: bytes) -> None:
        self.line.send(word)

    def hear(self) -> bytes:
        return self.line.recv(100_000)

    def result(self) -> Any:
        return pickle.loads(self.hear())


@contextlib.contextmanager
def working(*works: Callable[[socket.socket], Any]) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    try:
        for work in works:
            workers.append(Worker(work))  # noqa: PERF401 - those that were started are ended if one fails
        yield workers
    finally:
        for worker in workers:
            worker.line.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)


def try_to_listen(path: Path) -> ListeningSocket | None:
    try:
        return listen(PathAddress(os.fspath(path)))
    except AddressInUse:
        return None


def who_serves(path: Path) -> Credentials | None:
    with sockets.connect(PathAddress(os.fspath(path))) as client:
        return PLATFORM.peer_credentials(client)


def leave_stale_files(path: Path) -> None:
    """What a server that was killed leaves behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(os.fspath(path.with_name("s")))
    path.with_name("s").rename(path)
    if len(path.name) < 100:
        path.with_name(path.name + ".lock").touch(0o600)


def watch_while_it_serves(path: Path, page: mmap.mmap) -> Callable[[socket.socket], tuple[int, int]]:
    """Count the looks during which a server served, and those of them that found no file."""

    def watch(_line: socket.socket) -> tuple[int, int]:
        looks = missing = 0
        while not page[STOP]:
            this_round, serving = page[ROUND], page[SERVING]
            if not serving:
                os.sched_yield()  # the racers need the processors
            found = path.exists()
            if serving and page[SERVING] and page[ROUND] == this_round:  # so it served all through the look
                looks += 1
                missing += not found
            page[SEEN] = (page[SEEN] + 1) % 256
        return looks, missing

    return watch


@pytest.mark.parametrize("name, rounds", [("test.sock", 1000), ("n" * 255, 200)])
def test_of_two_servers_that_start_at_once_exactly_one_serves_and_its_file_is_never_missing(
    name: str, rounds: int, socket_path: Path, page: mmap.mmap
) -> None:
    path = socket_path.with_name(name)
    chance = random.Random(11)

    def compete(me: int) -> Callable[[socket.socket], None]:
        def work(line: socket.socket) -> None:
            while word := line.recv(10):
                page[READY[me]] = 1
                spin_until(lambda: page[READY[0]] == page[READY[1]] == 1)
                for _ in range(int(word)):
                    pass
                listening = try_to_listen(path)
                if listening is None:
                    line.send(b"lost")
                    continue
                page[SERVING] = 1
                line.send(b"won")
                assert line.recv(10) == b"stop"
                page[SERVING] = 0
                listening.close()
                line.send(b"stopped")

        return work

    with working(compete(0), compete(1), watch_while_it_serves(path, page)) as (first, second, watcher):
        for number in range(rounds):
            if number % 2:
                leave_stale_files(path)
            page[READY[0]] = page[READY[1]] = 0
            page[ROUND] = number % 256
            for worker in (first, second):  # at once, or up to the time later that a start takes
                worker.tell(b"%d" % chance.choice([0, chance.randrange(6000)]))
            answers = {worker.hear(): worker for worker in (first, second)}
            assert sorted(answers) == [b"lost", b"won"]
            winner = answers[b"won"]
            served_by = who_serves(path)
            assert served_by is not None
            assert served_by.pid == winner.pid
            wait_for_a_look(page)
            winner.tell(b"stop")
            assert winner.hear() == b"stopped"
            assert os.listdir(path.parent) == []
        page[STOP] = 1
        looks, missing = watcher.result()
    assert looks >= rounds
    assert missing == 0


def test_a_path_goes_from_server_to_server_and_two_never_have_it(socket_path: Path, page: mmap.mmap) -> None:
    """Both try all the time, so that each start falls into the other's end."""
    turns = 2000

    def take_turns(me: int) -> Callable[[socket.socket], int]:
        def work(line: socket.socket) -> int:
            page[READY[me]] = 1
            spin_until(lambda: page[READY[0]] == page[READY[1]] == 1)
            served = 0
            while served < turns:
                listening = try_to_listen(socket_path)
                if listening is None:
                    os.sched_yield()
                    continue
                assert page[SERVING] == 0
                page[SERVING] = me + 1
                served_by = who_serves(socket_path)
                assert served_by is not None
                assert served_by.pid == os.getpid()
                assert page[SERVING] == me + 1
                page[SERVING] = 0
                listening.close()
                served += 1
            return served

        return work

    with working(take_turns(0), take_turns(1)) as (first, second):
        assert (first.result(), second.result()) == (turns, turns)
    assert os.listdir(socket_path.parent) == []


def test_a_server_that_is_killed_at_any_moment_is_replaced(socket_path: Path, page: mmap.mmap) -> None:
    chance = random.Random(7)

    def work(line: socket.socket) -> None:
        while True:
            listening = listen(PathAddress(os.fspath(socket_path)))
            page[SEEN] = (page[SEEN] + 1) % 256
            listening.close()

    for _ in range(60):
        with working(work) as (worker,):
            wait_for_a_look(page)
            for _ in range(chance.randrange(3000)):  # up to the time of one turn or two
                pass
            os.kill(worker.pid, signal.SIGKILL)
        assert set(os.listdir(socket_path.parent)) <= {"test.sock", "test.sock.lock"}
        listening = listen(PathAddress(os.fspath(socket_path)))
        served_by = who_serves(socket_path)
        assert served_by is not None
        assert served_by.pid == os.getpid()
        listening.close()
        assert os.listdir(socket_path.parent) == []


Seen = set[tuple[int, int]]
"""Modes and groups."""


@pytest.mark.skipif(not AS_ROOT, reason="only root may give a file to any group")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("name", ["test.sock", "n" * 255])
def test_a_watcher_never_sees_more_permissions_than_were_asked_for(
    mask: int, name: str, socket_path: Path, page: mmap.mmap
) -> None:
    path = socket_path.with_name(name)

    def watch(_line: socket.socket) -> Seen:
        seen: Seen = set()
        while not page[STOP]:
            for found in os.listdir(path.parent):
                with contextlib.suppress(FileNotFoundError):
                    status = path.with_name(found).lstat()
                    if stat.S_ISSOCK(status.st_mode):  # under its temporary name, too
                        seen.add((stat.S_IMODE(status.st_mode), status.st_gid))
            page[SEEN] = (page[SEEN] + 1) % 256
        return seen

    def watched(mode: int, group: int | None) -> Seen:
        page[STOP] = 0
        with working(watch) as (watcher,):
            wait_for_a_look(page)
            for _ in range(100):
                listening = listen(PathAddress(os.fspath(path)), mode=mode, group=group)
                listening.close()
            listening = listen(PathAddress(os.fspath(path)), mode=mode, group=group)
            wait_for_a_look(page)
            listening.close()
            page[STOP] = 1
            seen: Seen = watcher.result()
        return seen

    before = os.umask(mask)
    try:
        own = watched(0o600, None)
        shared = watched(0o660, OTHER_GID)
        open_to_others = watched(0o606, OTHER_GID)
    finally:
        os.umask(before)

    assert (0o600, os.getegid()) in own
    assert {mode | 0o600 for mode, _gid in own} == {0o600}
    assert (0o660, OTHER_GID) in shared
    assert {mode | 0o660 for mode, _gid in shared} == {0o660}
    assert {gid for mode, gid in shared if mode & 0o070} == {OTHER_GID}
    # Before it has its group, the members of that group are among the others.
    assert (0o606, OTHER_GID) in open_to_others
    assert {gid for mode, gid in open_to_others if mode & 0o077} == {OTHER_GID}
