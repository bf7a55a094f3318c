"""Let something be short inside a block: descriptors, addresses, long files, room for what waits to be closed."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from seqrpc.kernel.closing import CLOSER
from seqrpc.limits import CLOSING_THREADS_OF_ONE, MAX_UNCLOSED_OF_ONE
from support.waiting import PATIENCE


@contextmanager
def address_space_used_up(left: int = 16 * 1024 * 1024) -> Iterator[None]:
    """Let this process map only so many bytes more inside the block."""
    bounds = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + left, bounds[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, bounds)


@contextmanager
def table_full() -> Iterator[None]:
    """Let this process get no new descriptor inside the block: what arrives is lost, ``accept`` fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process get no new descriptor inside the block, however many it closes there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # the three that are always there
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let this process write no file longer than that inside the block (setrlimit(2), RLIMIT_FSIZE)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@contextmanager
def no_room(uid: int | None) -> Iterator[threading.Event]:
    """Let as many descriptors of somebody's wait as may; the event lets them be closed."""
    lifted = threading.Event()
    for _ in range(MAX_UNCLOSED_OF_ONE):
        CLOSER.put(-1, uid, lifted.wait)
    assert not CLOSER.has_room(uid)  # it counts what came: on a busy machine no thread may have done so yet
    assert CLOSER.careful
    try:
        yield lifted
    finally:
        lifted.set()
        assert CLOSER.wait_idle(PATIENCE)


@contextmanager
def short_table(left: int = 10) -> Iterator[None]:
    """Let this process have only a few descriptors more, and know it."""
    lowest_free = os.dup(0)
    os.close(lowest_free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + left, hard))
    CLOSER.near_full = CLOSER.careful = True
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not CLOSER.is_table_short()
        assert CLOSER.has_room(None)
        assert not CLOSER.careful


@contextmanager
def stalled(uid: int | None) -> Iterator[threading.Event]:
    """Keep all threads waiting that may close what somebody sent; the event lets them go on."""
    begun, lifted = threading.Semaphore(0), threading.Event()

    def wait() -> None:
        begun.release()
        lifted.wait()

    for _ in range(CLOSING_THREADS_OF_ONE):
        CLOSER.put(-1, uid, wait)
        assert begun.acquire(timeout=PATIENCE)
    try:
        yield lifted
    finally:
        lifted.set()
        assert CLOSER.wait_idle(PATIENCE)


@contextmanager
def jammed() -> Iterator[socket.socket]:
    """Have as many descriptors under way as this user may, who is not root (unix(7), ETOOMANYREFS).

    Yields the socket at which they have not arrived: once it is closed there are none.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for _ in range(2):
            socket.send_fds(ours, [b"x"], [0] * 50)
        yield theirs
