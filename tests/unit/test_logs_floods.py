"""What peers can have logged: floods of each kind, by clients that may do what they do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import socket
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import on_a_pair
from support.waiting import PATIENCE

import seqrpc
from seqrpc.interface.policy import Policy, Verdict
from seqrpc.limits import LOG_BURST
from seqrpc.logs import meter

EVENTS = 200
"""Of a flood; each takes some tenths of a millisecond."""

WINDOW = 0.2
"""Seconds, of the windows in which events are counted here."""

FORGED = "gone\n2038-01-19 03:14:07 CRITICAL all is lost\x1b[2J"


class Written(logging.Handler):
    """Keeps what was logged, as it would have been written, and lets a test wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self.records: list[logging.LogRecord] = []
        self.texts: list[str] = []
        self.came = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.texts.append(self.format(record))
        self.came.set()

    def of(self, template: str) -> tuple[int, int]:
        """Return how many lines of a kind were written, and how many are known to have been left out."""
        written = sum(record.msg == template for record in self.records)
        kind = re.sub("%[rsdg]", "…", template)
        counts = [record for record in self.records if isinstance(record.args, tuple) and kind in record.args]
        return written, sum(getattr(record, "left_out", 0) for record in counts)

    async def all_told(self, template: str, events: int) -> None:
        """Wait until all events of a kind are written, or counted by a line that was."""
        async with asyncio.timeout(PATIENCE):
            while sum(self.of(template)) < events:
                self.came.clear()
                await self.came.wait()


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "window", WINDOW)


@pytest.fixture
def written() -> Iterator[Written]:
    handler, logger = Written(), logging.getLogger("seqrpc")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


class Fussy(Policy):
    def verdict(self, caller: seqrpc.Credentials) -> Verdict:
        raise LookupError("who is that?")


def nobody(caller: seqrpc.Credentials) -> bool:
    return False


def fails(caller: seqrpc.Credentials) -> bool:
    raise LookupError("who is that?")


def vague(caller: seqrpc.Credentials):  # type: ignore[no-untyped-def]
    return "maybe"


class Secretive(seqrpc.RpcError, code="floods.Secretive"):
    """Cannot say what it holds."""

    def __getattribute__(self, name: str) -> Any:
        if name == "data":
            raise KeyError(name)
        return super().__getattribute__(name)


class Vault(seqrpc.Service):
    """An object whose end is a failure."""

    async def close(self) -> None:
        raise LookupError("the key is gone")


class Odd(seqrpc.Service):
    """Whatever can go wrong."""

    @seqrpc.method(allow=nobody)
    async def refused(self) -> None: ...

    @seqrpc.method(allow=fails)
    async def policy_fails(self) -> None: ...

    @seqrpc.method(allow=Fussy())
    async def own_policy_fails(self) -> None: ...

    @seqrpc.method(allow=vague)
    async def policy_is_vague(self) -> None: ...

    @seqrpc.method
    async def fails(self, text: str = "") -> None:
        raise LookupError(text)

    @seqrpc.method
    def fails_in_a_thread(self) -> None:
        raise LookupError

    @seqrpc.method
    async def raises(self, text: str) -> None:
        raise seqrpc.RpcError(text, code="floods.Own")

    @seqrpc.method
    async def calls_back(self) -> None:
        await seqrpc.current_call().connection.call("Back.fails")

    @seqrpc.method
    async def returns_what_cannot_be_sent(self) -> Any:
        return {"number": 2**64}

    @seqrpc.method
    async def returns_a_closed_descriptor(self) -> Any:
        fd = seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY))
        fd.close()
        return fd

    @seqrpc.method
    async def raises_what_cannot_be_told(self) -> None:
        raise Secretive("secret")

    @seqrpc.method
    async def raises_with_a_closed_descriptor(self) -> None:
        fd = seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY))
        fd.close()
        raise seqrpc.RpcError("data", fd, code="floods.Own")

    @seqrpc.method
    async def streams(self) -> AsyncIterator[int]:
        raise LookupError
        yield 1

    @seqrpc.method
    async def vault(self) -> Vault:
        return Vault()

    @seqrpc.method
    async def drops(self) -> None:
        cycle: list[Any] = [seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY))]
        cycle.append(cycle)


class Back(seqrpc.Service):
    """What a caller serves."""

    @seqrpc.method
    async def fails(self) -> None:
        raise seqrpc.RpcError(FORGED + "x" * 50_000, code="floods.Back")


Act = Callable[[seqrpc.Connection], Coroutine[Any, Any, object]]


def call(method: str, *args: Any) -> Act:
    async def act(connection: seqrpc.Connection) -> None:
        with contextlib.suppress(seqrpc.RpcError):
            await connection.call(f"Odd.{method}", *args)

    return act


async def notify(connection: seqrpc.Connection) -> None:
    await connection.notify("Odd.fails")
    await asyncio.sleep(0)


async def read(connection: seqrpc.Connection) -> None:
    with contextlib.suppress(seqrpc.RpcError):
        async for _ in await connection.call("Odd.streams"):
            pass


async def hold(connection: seqrpc.Connection) -> None:
    await (await connection.call("Odd.vault")).close()


REFUSED = "! %r refused to %r, whom %r does not admit"
FAILED = "! %r %s (incident %s)"
POLICY = "! the policy %r failed, which admits nobody"

FLOODS: dict[str, tuple[Act, str]] = {
    "refused": (call("refused"), REFUSED),
    "policy_fails": (call("policy_fails"), POLICY),
    "own_policy_fails": (call("own_policy_fails"), POLICY),
    "policy_is_vague": (
        call("policy_is_vague"),
        "! the policy %r answered %r, not True or False, which admits nobody",
    ),
    "fails": (call("fails"), FAILED),
    "fails_in_a_thread": (call("fails_in_a_thread"), FAILED),
    "fails_and_quotes": (call("fails", FORGED + "x" * 50_000), FAILED),
    "raises_what_was_meant": (call("raises", FORGED + "x" * 50_000), "! %r: %s: %r"),
    "calls_back": (call("calls_back"), "! %r: %s: %r"),
    "notify": (notify, FAILED),
    "returns_what_cannot_be_sent": (call("returns_what_cannot_be_sent"), FAILED),
    "returns_a_closed_descriptor": (call("returns_a_closed_descriptor"), FAILED),
    "raises_what_cannot_be_told": (call("raises_what_cannot_be_told"), FAILED),
    "raises_with_a_closed_descriptor": (
        call("raises_with_a_closed_descriptor"),
        "! %r: the data of its error cannot be sent",
    ),
    "streams": (read, FAILED),
    "close_hook": (hold, "! closing %r failed"),
}


async def test_floods_of_many_kinds_are_some_lines_and_a_count_of_each(written: Written) -> None:
    began = time.monotonic()
    # Calling back is told at both sides, which are in one process here; and an error is told before its data cannot be.
    events = Counter({"! %r: %s: %r": 2 * EVENTS})
    async with on_a_pair(Odd(), client=[Back()]) as connection:
        for act, template in FLOODS.values():
            for _ in range(EVENTS):
                await act(connection)
            events[template] += EVENTS
            if "policy" in template:  # which is told, too
                events[REFUSED] += EVENTS
        for template, number in events.items():
            await written.all_told(template, number)
    windows = 2 + int((time.monotonic() - began) / WINDOW)
    for template, number in events.items():
        lines, left_out = written.of(template)
        assert lines + left_out == number, template
        assert 0 < lines <= windows * LOG_BURST, template
        assert left_out > 0, template
    assert sum(map(len, written.texts)) < windows * 200_000
    assert "\x1b" not in "".join(written.texts)
    assert not any(line.startswith("2038") for text in written.texts for line in text.splitlines())


async def test_a_flood_of_malformed_connections(socket_path: Path, written: Written) -> None:
    async with seqrpc.serve(Odd(), socket_path):
        for _ in range(EVENTS):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.connect(os.fspath(socket_path))
                sock.send(msgpack.packb([0, 1, {FORGED: 1}, []]))
                sock.setblocking(False)
                assert await asyncio.get_running_loop().sock_recv(sock, 65_536)
        await written.all_told("x %r: %s", EVENTS)
    lines, left_out = written.of("x %r: %s")
    assert lines + left_out == EVENTS
    assert left_out > 0
    assert sum(map(len, written.texts)) < 100_000


async def test_a_flood_of_connections_beyond_the_bound(socket_path: Path, written: Written) -> None:
    template = "! a connection is refused: %s"
    async with (
        seqrpc.serve(Odd(), socket_path, limits=seqrpc.Limits(max_connections=1)),
        seqrpc.connect(socket_path),
    ):
        for _ in range(EVENTS):
            async with seqrpc.connect(socket_path) as refused:
                await refused.wait_closed()
        await written.all_told(template, EVENTS)
    lines, left_out = written.of(template)
    assert lines + left_out == EVENTS
    assert left_out > 0


class Broken(seqrpc.SeqpacketProtocol):
    """A protocol of somebody's own, with mistakes."""

    where = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.where == "connection_made":
            raise LookupError(self.where)

    def packet_received(self, data: bytes, fds: list[seqrpc.OwnedFd], credentials: seqrpc.Credentials | None) -> None:
        if self.where == "packet_received":
            raise LookupError(self.where)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.where == "connection_lost":
            raise LookupError(self.where)


@asynccontextmanager
async def broken_server(path: Path, where: str) -> AsyncIterator[None]:
    def make() -> Broken:
        protocol = Broken()
        protocol.where = where
        return protocol

    async with await seqrpc.create_server(make, path):
        yield


@pytest.mark.parametrize("where", ["connection_made", "packet_received", "connection_lost"])
async def test_the_loop_s_handler_hears_of_some_and_the_log_counts_the_others(
    where: str, socket_path: Path, written: Written, loop_errors: list[dict[str, Any]]
) -> None:
    async with broken_server(socket_path, where):
        for _ in range(EVENTS):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.setblocking(False)
                sock.connect(os.fspath(socket_path))
                sock.send(b"x")
                if where == "connection_lost":
                    sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    await asyncio.get_running_loop().sock_recv(sock, 10)
        async with asyncio.timeout(PATIENCE):
            while len(loop_errors) + sum(getattr(r, "left_out", 0) for r in written.records) < EVENTS:
                written.came.clear()
                await written.came.wait()
    left_out = sum(getattr(record, "left_out", 0) for record in written.records)
    assert len(loop_errors) + left_out == EVENTS
    assert left_out > 0
    assert {str(context["exception"]) for context in loop_errors} == {where}
    loop_errors.clear()


async def test_descriptors_in_cycles(written: Written) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        async with on_a_pair(Odd()) as connection:
            for _ in range(EVENTS):
                await call("drops")(connection)
            gc.collect()
            meter.tell_due()
        texts = [str(warning.message) for warning in told if "OwnedFd" in str(warning.message)]
        counts = [str(warning.message) for warning in told if "more descriptors" in str(warning.message)]
    assert sum(int(count.split()[0]) for count in counts) + len(texts) == EVENTS
    assert len(counts) > 0
