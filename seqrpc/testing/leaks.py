"""What a part of a test leaves behind: descriptors, tasks, threads, and mapped memory files."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from seqrpc.kernel.closing import CLOSER
from seqrpc.text import shown

_FDS: Final = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
_MAPS: Final = "/proc/self/maps"
_MEMORY_FILE: Final = "/memfd:"

_NAP: Final = 0.005
"""Seconds between two looks, while something that ends by itself has not ended."""

_POOLS: Final = ("asyncio_", "uvloop_")
"""How the names of threads begin that an event loop keeps for ``asyncio.to_thread`` until it is closed."""


class _Snapshot:
    """What there is at one moment. What there is by a name or a number is told apart by what it is."""

    def __init__(self) -> None:
        self.fds = dict(_descriptors())
        self.maps = dict(_memory_files())
        self.threads = {thread for thread in threading.enumerate() if not thread.name.startswith(_POOLS)}
        self.tasks = _tasks()

    def left_since(self, before: _Snapshot, *, loop_waits: bool = False) -> list[str]:
        """Return what is there that was not before, a line each; of a loop that waits tasks cannot end meanwhile."""
        fds = [
            f"descriptor {fd}: {_what_is(fd, name)}"
            for fd, (which, name) in self.fds.items()
            if before.fds.get(fd, ("", ""))[0] != which
        ]
        maps = [f"memory file mapped at {place}" for place, name in self.maps.items() if before.maps.get(place) != name]
        threads = [f"thread {shown(thread.name)!r}" for thread in self.threads - before.threads if thread.is_alive()]
        new = [task for task in self.tasks - before.tasks if not (task.done() or (loop_waits and task.cancelling()))]
        tasks = [f"task {shown(repr(task))}" for task in new]
        return [*fds, *maps, *sorted(threads), *sorted(tasks)]


def _descriptors() -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield descriptors, each with what tells it apart, also if its file is renamed, and what to call it."""
    for name in os.listdir(_FDS):
        with suppress(OSError):  # the one that listed the directory
            number = int(name)
            info = os.fstat(number)
            link = os.readlink(f"{_FDS}/{name}") if sys.platform == "linux" else ""
            which = f"{info.st_dev:x}:{info.st_ino}"
            # All anonymous inodes are one file.
            yield number, (which + link if link.startswith("anon_inode:") else which, f"{link or 'a file'} ({which})")


def _what_is(fd: int, name: str) -> str:
    """Return what a descriptor is, for people."""
    if not name.startswith("socket:"):
        return name
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        kind = f"{getattr(sock.family, 'name', sock.family)} {getattr(sock.type, 'name', sock.type)}"
        where = sock.getsockname()
        return f"{name}, {kind}" + (f" at {shown(repr(where))}" if where else "")
    return name


def _memory_files() -> Iterator[tuple[str, str]]:
    with suppress(OSError), open(_MAPS, encoding="utf-8", errors="replace") as maps:
        for line in maps:
            if _MEMORY_FILE in line:
                addresses, _mode, _offset, device, inode, *name = line.split()
                yield f"{addresses}: {shown(' '.join(name))}", f"{device} {inode}"


def _tasks() -> set[asyncio.Task[Any]]:
    try:
        return asyncio.all_tasks() - {asyncio.current_task()}
    except RuntimeError:  # no loop runs here
        return set()


@functools.cache
def _open_what_stays() -> None:
    """Open what the first loop of a process opens for all that come: libuv keeps a pipe."""
    import uvloop  # noqa: PLC0415 - it takes long to load

    uvloop.new_event_loop().close()


class _NoLeaks:
    """A block that fails if something is left at its end; for ``with`` and for ``async with``."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._before: _Snapshot

    def _begin(self) -> None:
        _open_what_stays()
        gc.collect()
        CLOSER.wait_idle(self._patience)
        self._before = _Snapshot()

    def _look(self, until: float, *, loop_waits: bool = False) -> list[str]:
        """Return what is left now. What nobody refers to is gone, and what is being closed is closed."""
        gc.collect()
        CLOSER.wait_idle(max(0.0, until - time.monotonic()))
        return _Snapshot().left_since(self._before, loop_waits=loop_waits)

    @staticmethod
    def _tell(left: list[str]) -> None:
        if left:
            raise AssertionError("\n".join(["these were left behind:", *left]))

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:  # that is what the test is to tell
            return
        until = time.monotonic() + self._patience
        while (left := self._look(until, loop_waits=True)) and time.monotonic() < until:
            time.sleep(_NAP)  # a loop that runs here waits, too
        self._tell(left)

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        until = time.monotonic() + self._patience
        while (left := self._look(until)) and time.monotonic() < until:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(_NAP)  # the loop's work may be what ends it
        self._tell(left)


def assert_no_leaks(*, patience: float = 2.0) -> _NoLeaks:
    """Check that a block leaves nothing behind.

    ``async with assert_no_leaks(): ...``, or ``with``. It looks for descriptors, for tasks of the running loop, for
    threads, and for memory files that are mapped, as buffers are. Each that is there at the end, and was not at the
    beginning, is told in a line. What nobody refers to any more is collected first. The threads that close descriptors
    for seqrpc, and end by themselves, do not count, nor do those of ``asyncio.to_thread``, which the loop keeps.

    Of a block that raises nothing is checked.

    Args:
        patience: seconds to wait for what ends by itself. Who leaves nothing does not wait.

    Raises:
        AssertionError: at the end of the block, if something is left.
    """
    return _NoLeaks(patience)
