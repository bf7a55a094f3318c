"""What every test has: both loops, and a watch on descriptors and on the loop's exception handler."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop
from support.descriptors import open_fds

from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.interrupts import HELD, release
from seqrpc.logs import meter
from seqrpc.twin import TOLD

_loop_errors: list[dict[str, Any]] = []

# libuv opens a pipe for all its loops with the first one, and keeps it.
uvloop.new_event_loop().close()

# A shell that starts this in the background has SIGINT and SIGQUIT ignored, and nohup SIGHUP, and so they would be in
# the programs to which tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _watched(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[], asyncio.AbstractEventLoop]:
    def make() -> asyncio.AbstractEventLoop:
        loop = new_loop()
        loop.set_exception_handler(lambda _loop, context: _loop_errors.append(context))
        return loop

    return make


def _new_eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every async test on asyncio's loop and on uvloop, and with eager tasks where they exist."""
    loops = {"asyncio": _watched(asyncio.new_event_loop), "uvloop": _watched(uvloop.new_event_loop)}
    if sys.version_info >= (3, 12):
        loops["eager"] = _watched(_new_eager_loop)
    return loops


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which twin was tested: at the end, for with ``-q`` there is no header."""
    terminalreporter.write_line(f"seqrpc's twin: {TOLD}")


def pytest_runtestloop() -> None:
    """Keep what the imports made out of the collections that every test asks for."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Fail a test after whose end, and that of its loop, Ctrl-C does not raise."""
    yield
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a later test would wait for it for ever
    assert handler is signal.default_int_handler, "SIGINT was left with another handler"


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """Fail a test that leaves a descriptor open or a signal put off, or lets an exception reach the loop's handler."""
    before = open_fds()  # the test before has collected what it left
    _loop_errors.clear()
    meter.forget()  # one test's lines are not another's flood

    yield

    was_held = bool(HELD)
    release()  # else a later test would wait for ever for a signal that comes to nobody
    gc.collect()
    gc.freeze()  # what is left is pytest's, or nobody's: to look at it after each test takes half of the time
    assert CLOSER.wait_idle(30), "something that was received is still being closed"
    after = open_fds()
    left = {fd: what for fd, what in after.items() if fd not in before}
    assert left == {}, "descriptors were left open"
    assert not was_held, "the handlers of signals were left put off"
    assert _loop_errors == [], "exceptions reached the loop's handler"


@pytest.fixture
def loop_errors() -> list[dict[str, Any]]:
    """Return what reached the loop's exception handler; a test that expects something clears it."""
    return _loop_errors


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """Return a path for a socket file, short enough for a socket address, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="seqrpc-") as directory:
        yield Path(directory, "test.sock")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return the reading and the writing end of a pipe, closed afterwards."""
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        os.close(fd)
