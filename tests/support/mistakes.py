"""Mistakes that people make: what each says, when, and how it is made; and the machine that they are made with.

The table itself is filled by ``mistaken_calls.py`` and ``mistaken_services.py``.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import warnings
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import seqrpc
from seqrpc import policy
from seqrpc.interface.offers import OFFERS


class Machine(seqrpc.Service):
    """The service of the README, and more."""

    @seqrpc.method
    async def add(self, a: int, b: int = 1) -> int:
        return a + b

    async def reboot(self) -> None:
        """Be forgotten."""

    @seqrpc.method(allow=~policy.anyone)
    async def lock(self) -> None:
        """Be for nobody."""

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @seqrpc.method
    async def size(self, file: seqrpc.OwnedFd) -> int:
        return file.fileno()

    @seqrpc.method
    async def release(self) -> seqrpc.OwnedFd:
        with seqrpc.OwnedFd.dup(0) as fd:
            return fd

    @seqrpc.method
    async def keep(self, file: seqrpc.OwnedFd) -> None:
        self.file = file

    @seqrpc.method
    async def size_of_kept(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    @seqrpc.method
    async def brightest(self, pixels: seqrpc.Buffer) -> int:
        return max(pixels)

    @seqrpc.method
    async def load(self) -> float:
        raise KeyError("load")

    @seqrpc.method
    async def name(self) -> str:
        return 5  # type: ignore[return-value]

    @seqrpc.method
    async def files(self) -> AsyncIterator[seqrpc.OwnedFd]:
        with seqrpc.OwnedFd.dup(0) as fd:
            pass
        yield fd


class Plain:
    async def add(self, a: int, b: int) -> int:
        return a + b


class Audit(seqrpc.Interceptor):
    """Hears of each call, and so whether anything was sent."""

    def __init__(self) -> None:
        self.calls: list[str | None] = []

    def ended(self, record: seqrpc.CallRecord) -> None:
        self.calls.append(record.method)


@dataclass
class Place:
    """Where mistakes are made: a machine that is served, and a connection to it."""

    connection: seqrpc.Connection
    audit: Audit
    other_path: Path

    @property
    def machine(self) -> Any:
        return self.connection.proxy(Machine)


@contextlib.asynccontextmanager
async def made_in(path: Path) -> AsyncIterator[Place]:
    """Serve a machine, and connect to it."""
    OFFERS.__init__()  # type: ignore[misc] # others may have been made just now
    audit = Audit()
    async with (
        seqrpc.serve(Machine(), path, interceptors=[audit]),
        seqrpc.connect(path) as connection,
    ):
        yield Place(connection, audit, path.with_name("other.sock"))


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], Exception):
            self.errors.append(record.exc_info[1])


MOMENTS = {
    "written": "where it is written, as the module is loaded",
    "given": "when `serve`, `run`, `connect` or `proxy` is called",
    "opened": "when that is awaited, or its block entered",
    "called": "when the call is written out, before it is awaited",
    "awaited": "when it is awaited, before anything is sent",
    "answered": "when the other side has answered",
    "logged": "in the log of the side whose handler it is; the caller gets `rpc.Internal`",
    "dropped": "when what was returned is dropped",
}

AT_ONCE = {"written", "given", "called", "dropped"}
"""Moments at which nothing was awaited yet."""

SENT = {"answered", "logged"}
"""Moments at which something was sent."""


@dataclass
class Mistake:
    """One mistake.

    Attributes:
        moment: the earliest at which it can be known, one of MOMENTS.
        kind: the class of what is raised, or of the warning.
        line: what that says; ``…`` is what differs each time.
        names: the part of it that names the thing, and
        way_out: the part that says what to write.
        make: makes it, or returns what makes it when it is awaited.
    """

    moment: str
    kind: type[Exception]
    line: str
    names: str
    way_out: str
    make: Callable[[Place], Any] = field(repr=False)

    def __str__(self) -> str:
        return self.make.__name__

    @property
    def told(self) -> str:
        """What people see."""
        return f"{self.kind.__name__}: {self.line}"

    async def error(self, place: Place) -> tuple[Exception, bool]:
        """Make it, and return what tells of it, and whether that was at once, or not before something was awaited."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                result = self.make(place)
            except Exception as exc:
                return exc, True
        for warning in told:
            assert isinstance(warning.message, Exception)
            return warning.message, True
        assert inspect.isawaitable(result), "nothing was told, and there is nothing to wait for"
        kept = _Kept()
        logger = logging.getLogger("seqrpc")
        logger.addHandler(kept)
        try:
            await result
        except Exception as exc:
            return kept.errors[0] if self.moment == "logged" else exc, False
        finally:
            logger.removeHandler(kept)
        raise AssertionError("nothing was told")


MISTAKES: list[Mistake] = []

Make = Callable[[Place], Any]


def mistake(moment: str, kind: type[Exception], line: str, *, names: str, way_out: str) -> Callable[[Make], Make]:
    """Put what makes a mistake into the table."""
    assert moment in MOMENTS

    def put(make: Make) -> Make:
        MISTAKES.append(Mistake(moment, kind, line, names, way_out, make))
        return make

    return put
