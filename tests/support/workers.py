"""Services for the children of workers, which import this module by its name, and functions for those of executors."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import seqrpc
from support.descriptors import open_fds
from support.waiting import PATIENCE

TO_BEGIN = 0.5
"""Seconds in which a child surely begins a call that it was sent, also where several suites share a processor."""


class Parent(seqrpc.Service):
    """What a child may call."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @seqrpc.method
    async def hear(self, text: str) -> int | None:
        """Note what it says, and return who it is."""
        self.heard.append(text)
        return seqrpc.current_call().caller.pid


class Desk(seqrpc.Service):
    """Does what tests want of a child."""

    def __init__(self, start: int = 0, *, name: str = "nobody", file: seqrpc.OwnedFd | None = None) -> None:
        self.start = start
        self.name = name
        self.file = file
        self.calls = 0

    @seqrpc.method(idempotent=True)
    async def add(self, a: int, b: int = 0) -> int:
        self.calls += 1
        return self.start + a + b

    @seqrpc.method
    async def who(self) -> list[Any]:
        return [self.name, os.getpid(), seqrpc.current_call().caller.pid]

    @seqrpc.method
    async def read(self) -> str:
        assert self.file is not None
        return os.pread(self.file.fileno(), 100, 0).decode()

    @seqrpc.method
    async def tell(self, text: str) -> int:
        pid: int = await seqrpc.current_call().connection.proxy(Parent).hear(text)  # type: ignore[assignment]
        return pid

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @seqrpc.method
    async def write(self, out: str, err: str) -> None:
        sys.stdout.write(out)
        sys.stdout.flush()
        sys.stderr.write(err)
        sys.stderr.flush()

    @seqrpc.method(idempotent=True)
    async def doze(self, seconds: float, value: int = 0) -> int:
        await asyncio.sleep(seconds)
        return value

    @seqrpc.method
    async def hang(self) -> None:
        """Never come back from C."""
        sorted(iter(lambda: 1, 2))

    @seqrpc.method
    async def ignore_cancelling(self) -> None:
        """Go on although cancelled."""
        while True:
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                continue

    @seqrpc.method
    async def exit(self, status: int) -> None:
        os._exit(status)

    @seqrpc.method
    async def die(self, number: int) -> None:
        os.kill(os.getpid(), number)

    @seqrpc.method
    async def descriptors(self) -> dict[int, str]:
        """Return what it has open, and what that is."""
        return open_fds()

    @seqrpc.method
    async def backtrack(self) -> None:
        """Never come back from a regular expression."""
        re.fullmatch(r"(a|a)*b", "a" * 64)

    @seqrpc.method
    async def spin(self) -> None:
        """Never come back from Python."""
        while True:
            pass

    @seqrpc.method
    async def block(self) -> None:
        """Never come back from the kernel."""
        reader, _writer = os.pipe()
        os.read(reader, 1)

    @seqrpc.method
    async def identity(self) -> dict[str, Any]:
        import resource

        told = _status().splitlines()
        no_new_privileges = next(line for line in told if line.startswith("NoNewPrivs")).split()[1]
        return {
            "uids": list(os.getresuid()),
            "gids": list(os.getresgid()),
            "groups": sorted(os.getgroups()),
            "cwd": os.getcwd(),
            "nofile": list(resource.getrlimit(resource.RLIMIT_NOFILE)),
            "nice": os.nice(0),
            "no_new_privileges": no_new_privileges,
            "environment": dict(os.environ),
        }

    @seqrpc.method
    async def memory(self, size: int) -> int:
        """Hold so many bytes for good."""
        self.held = bytearray(size)
        self.held[::4096] = b"x" * len(self.held[::4096])
        return os.getpid()

    @seqrpc.method
    async def fork(self) -> int:
        """Have a child of one's own that holds copies of all descriptors."""
        pid = os.fork()
        if not pid:
            signal.pause()
        return pid


def _status() -> str:
    return Path("/proc/self/status").read_text()


class Refuses(seqrpc.Service):
    def __init__(self, text: str) -> None:
        raise ValueError(text)


class Lives(seqrpc.Service):
    """Says when it goes."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    @seqrpc.method
    async def hello(self) -> str:
        return "hello"

    async def close(self) -> None: ...


class Slow(seqrpc.Service):
    """Takes its time to be made."""

    def __init__(self, seconds: float) -> None:
        time.sleep(seconds)

    @seqrpc.method
    async def hello(self) -> str:
        return "hello"


def is_alive(pid: int) -> bool:
    """Return whether a process runs: it exists, and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    if stat.rpartition(")")[2].split()[0] not in ("Z", "X"):
        return True
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1  # the first thread has ended, others are about to
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone_within(seconds: float, pids: list[int]) -> bool:
    """Return whether all processes have ended within so many seconds."""
    until = time.monotonic() + seconds
    while any(map(is_alive, pids)):
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


# For executors


def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def fail(text: str) -> None:
    raise KeyError(text, 5)


class Unknown(Exception):
    """Whose arguments do not travel."""

    def __init__(self, thing: object = None) -> None:
        super().__init__(object())


def fail_strangely() -> None:
    raise Unknown


def leave(status: int) -> None:
    os._exit(status)


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def give(kind: str) -> Any:
    made: dict[str, Callable[[], Any]] = {"object": object, "lambda": lambda: len, "set": lambda: {1, (2, 3)}}
    return made[kind]()


_initialized: list[Any] = []


def initialize(*args: Any) -> None:
    _initialized.extend(args)


def initialized() -> list[Any]:
    return _initialized


def fail_to_initialize() -> None:
    raise ValueError("no")


class Annotated(Exception):
    """Has attributes, of which one does not travel."""

    number = 0


def fail_with_notes(text: str) -> None:
    error = Annotated(text)
    error.number = 5
    error.thing = object()  # type: ignore[attr-defined]
    error.add_note("a note")
    raise error


def run_a_loop() -> str:
    async def ran() -> str:
        await asyncio.sleep(0)
        return "ran"

    return asyncio.run(ran())


def wait_for_file(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.001)
