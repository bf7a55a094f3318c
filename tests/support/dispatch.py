"""What the tests of aio/dispatch have in common: a service of everything that a handler may do."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import IO, Any

import seqrpc
from seqrpc import OwnedFd
from seqrpc.calls.outcomes import explain_refusal
from support.daemons import Stage
from support.descriptors import open_fds
from support.waiting import PATIENCE

CONVERTED: list[str] = []


@dataclasses.dataclass
class Traced:
    """An argument whose conversion leaves a trace."""

    word: str

    def __post_init__(self) -> None:
        CONVERTED.append(self.word)
        if self.word == "explode":
            raise KeyError(self.word)


class Witness(BaseException):
    """What a handler has no business to raise."""


KEPT: list[weakref.ref[Any]] = []


@dataclasses.dataclass
class Weighty:
    """An argument that shows whether it is still kept."""

    content: bytes

    def __post_init__(self) -> None:
        KEPT.append(weakref.ref(self))


class Insufficient(seqrpc.RpcError, code="test.Insufficient"):
    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing} are missing", {"missing": missing})


class Silent(seqrpc.RpcError, code="test.Silent"):
    def __init__(self, number: int) -> None:
        self.number = number  # and nothing else


def raising(exc: Exception) -> None:
    raise exc


def closed_descriptor() -> OwnedFd:
    fd = OwnedFd.dup(0)
    fd.close()
    return fd


def endless() -> list[Any]:
    value: list[Any] = [OwnedFd.dup(0)]
    value.append(value)
    return value


FAILURES: dict[str, Callable[[], Any]] = {
    "typed": lambda: raising(Insufficient(5)),
    "silent": lambda: raising(Silent(5)),
    "number": lambda: raising(seqrpc.RpcError(5, code="test.Number")),  # type: ignore[arg-type]
    "own rpc": lambda: raising(seqrpc.Overloaded("come back later")),
    "unforeseen": lambda: raising(RuntimeError("the secret of the house")),
    "upstream": lambda: raising(seqrpc.RpcError.from_wire("rpc.MethodNotFound", "at another house", None)),
    "upstream takes none": lambda: raising(explain_refusal(OSError(errno.EPERM, "no descriptors"))),
    "upstream typed": lambda: raising(seqrpc.RpcError.from_wire("test.Insufficient", "at another house", [1])),
    "closed descriptor": closed_descriptor,
    "closed descriptor in an error": lambda: raising(
        seqrpc.RpcError("with data", closed_descriptor(), code="test.Data")
    ),
    "descriptor in an error": lambda: raising(seqrpc.RpcError("with data", [OwnedFd.dup(0)], code="test.Data")),
    "endless": endless,
    "large": lambda: [OwnedFd.dup(0), b"x" * 200_000],
    "object": object,
}


class Everything(seqrpc.Service):
    """One method for everything that a handler can do."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.held: list[OwnedFd] = []
        self.file: IO[bytes] | None = None
        self.thread_may_go_on = threading.Event()
        self.thread_ended = threading.Event()
        self.saw_open = False

    @seqrpc.method
    async def add(self, a: int, b: int = 10, *, c: int = 100) -> int:
        return a + b + c

    @seqrpc.method
    async def trace(self, what: Traced) -> str:
        return what.word

    @seqrpc.method
    async def fail(self, kind: str) -> Any:
        return FAILURES[kind]()

    @seqrpc.method
    async def wait(self, name: str, fds: list[OwnedFd] = []) -> str:  # noqa: B006
        self.stage.reach(f"{name} began")
        try:
            await self.stage.wait(f"{name} may go on")
        except asyncio.CancelledError:
            self.stage.reach(f"{name} cancelled")
            raise
        finally:
            self.stage.reach(f"{name} ended")
        return name

    @seqrpc.method
    async def stubborn(self) -> str:
        self.stage.reach("stubborn began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "not now"
        return ""

    async def began(self, what: str) -> None:
        self.stage.reach(f"{what} began")

    @seqrpc.method
    def block(self, fds: list[OwnedFd], *, give_back: bool = False, fail: bool = False) -> OwnedFd | None:
        seqrpc.current_call().run(self.began("block"))
        assert self.thread_may_go_on.wait(PATIENCE)
        try:
            for fd in fds:
                os.fstat(fd.fileno())  # still open, whatever became of the call
            self.saw_open = True
            if fail:
                raise RuntimeError("nobody hears this")
            return OwnedFd.dup(fds[0]) if give_back else None
        finally:
            self.thread_ended.set()

    @seqrpc.method
    def in_thread(self) -> list[Any]:
        call = seqrpc.current_call()
        return [call.method, call.caller.pid, threading.current_thread() is threading.main_thread()]

    @seqrpc.method
    def take(self, what: Weighty, fd: OwnedFd) -> None:
        raise AssertionError("its call was cancelled before its turn")

    @seqrpc.method
    def late_error(self) -> None:
        seqrpc.current_call().run(self.began("late error"))
        assert self.thread_may_go_on.wait(PATIENCE)
        raise seqrpc.RpcError("with data", [OwnedFd.dup(0)], code="test.Data")

    @seqrpc.method
    async def base(self, waits: bool) -> None:
        if waits:
            await asyncio.sleep(0)
        raise Witness("of the house")

    @seqrpc.method
    def base_in_thread(self, leave: bool) -> None:
        if leave:
            sys.exit(3)
        raise Witness("of the house")

    @seqrpc.method
    def stop_iteration(self) -> None:
        next(iter([]))

    @seqrpc.method
    async def keep(self, fd: OwnedFd, spare: OwnedFd) -> None:
        self.held += [OwnedFd(fd.detach()), spare]

    @seqrpc.method
    async def echo(self, fds: list[OwnedFd]) -> list[OwnedFd]:
        return fds

    @seqrpc.method
    async def lend(self) -> Any:
        return self.file

    @seqrpc.method
    async def give_and_keep(self, fds: list[OwnedFd]) -> OwnedFd:
        return fds[0]

    @seqrpc.method(oneway=True)
    async def tell(self, name: str, fd: OwnedFd | None = None) -> Any:
        self.stage.reach(f"told {name}")
        if name == "wait":
            await self.stage.wait("tell may go on")
        if name == "fail":
            raise RuntimeError("nobody hears this")
        return OwnedFd.dup(fd) if fd else None


def in_milliseconds(number: int) -> int:
    return time.monotonic_ns() + number * 1_000_000


async def settle() -> None:
    """Let callbacks that are due run."""
    for _ in range(5):
        await asyncio.sleep(0)


def open_count() -> int:
    """Return how many descriptors there are with nothing collected before: what handlers leave is in no circle."""
    return len(open_fds())


class Counter:
    """An async iterable that is no generator."""

    def __init__(self, to: int) -> None:
        self.to = to

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(self.to):
            yield number
